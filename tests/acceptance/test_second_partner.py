"""A second partner's job through real processes: its package is installed, its tables are in the settings, no more."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from pydantic import JsonValue
from support.brokers import Broker
from support.flow import EVERYTHING, running_flow
from support.job_world import CARDS
from support.members import until
from support.paths import SUPPORT

KEY = "synthetic-bank-key-1"


class BankServer:
    """The bank's side: it has the card file, takes the result file and the reports."""

    def __init__(self) -> None:
        self.results: list[bytes] = []
        self.reports: list[tuple[str | None, dict[str, object]]] = []
        self.app = web.Application()
        self.app.router.add_get("/cards", self._cards)
        self.app.router.add_put("/result", self._result)
        self.app.router.add_post("/reports", self._report)

    async def _cards(self, _request: web.Request) -> web.Response:
        return web.Response(body=CARDS, headers={"ETag": '"cards-1"'})

    async def _result(self, request: web.Request) -> web.Response:
        self.results.append(await request.read())
        return web.Response()

    async def _report(self, request: web.Request) -> web.Response:
        report = await request.json()
        self.reports.append((request.headers.get("Idempotency-Key"), report))
        if len(self.reports) == 1:
            return web.Response(status=503)
        return web.Response(text=f"OK {report['order']}")


async def test_another_partners_job_goes_from_its_webhook_to_its_report(
    embedded_broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first report is not accepted, so the second must be equal to it."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT / "bank_partner"), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "bank-key").write_text(KEY)
    (tmp_path / "bank-key").chmod(0o600)
    bank = BankServer()
    async with TestServer(bank.app) as server:
        host = f"127.0.0.1:{server.port}"
        tables: dict[str, dict[str, JsonValue]] = {
            "webhooks.bank": {"source": "example-bank", "secrets": [{"file": str(tmp_path / "bank-key")}]},
            "webhooks.bank.jobs": {
                "partner": "example-bank",
                "options": {"report_url": f"http://{host}/reports"},
                "hosts": {
                    "input": [host],
                    "result": [host],
                    "callback": [host],
                    "allow_http": True,
                    "allow_private": True,
                },
            },
        }
        async with running_flow(embedded_broker, tmp_path, start=EVERYTHING, tables=tables) as flow:
            order = {
                "order": 17,
                "branch": "north",
                "rows": 3,
                "cards": f"http://{host}/cards",
                "report": f"http://{host}/result",
                "until": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
            }
            url = flow.webhook_url.replace("/webhooks/ecs/acme", "/webhooks/sources/bank")
            async with (
                ClientSession() as session,
                session.post(url, json=order, headers={"X-Bank-Key": KEY}) as answer,
            ):
                assert answer.status == 200
            await until(lambda: len(bank.reports) == 2, 60)
            await flow.caught_up()
            actions = [line["event"]["action"] for line in flow.audit_lines() if line["event"]["job_guid"]]
            code, listed = await flow.cli("job", "list")
            await flow.stop()
    assert bank.reports[0] == bank.reports[1]
    assert bank.reports[0][1] == {"order": 17, "state": "DONE", "good": 2, "bad": 1, "text": ""}
    (result,) = bank.results
    assert result.count(b",ok,") == 2
    assert "callback.confirmed" in actions
    assert (code, "bank/" in listed) == (0, False)
    assert json.dumps(order["cards"]) not in "".join(process.log for process in flow.processes.values())
