"""`pipeline audit`, over a log in a folder."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from support.audit_log import Log, entries, new_key
from support.command_line import Run

from pipeline.audit import Signer
from pipeline.storage import LocalStore


@pytest.fixture
def log(home: Path) -> Log:
    """A log of three segments in the configured store."""
    key = new_key()
    (home / "public.pem").write_bytes(key.public)
    log = Log(signer=Signer(key.private))
    asyncio.run(log.fill(entries(0, 1), entries(2), entries(3, 4)))
    save(log, home)
    return log


def save(log: Log, home: Path) -> None:
    async def copy() -> None:
        store = LocalStore(home / "store")
        for key, data in log.store.objects.items():
            await store.create(key, data)
        await store.close()

    asyncio.run(copy())


def segment(home: Path, number: int) -> Path:
    return next((home / "store").glob(f"audit/**/{number:012d}.jsonl"))


def test_a_sound_log_is_verified(home: Path, run: Run, log: Log) -> None:
    del home, log
    result = run("audit", "verify")
    assert (result.exit_code, result.stdout) == (0, "ok: 5 events in 3 segments; 0 heads compared\n")
    document = json.loads(run("audit", "verify", "--json").stdout)
    assert document["ok"] is True
    assert [document[name] for name in ("partition", "segment", "line", "kind")] == [None] * 4


def test_damage_is_named_and_ends_with_1(home: Path, run: Run, log: Log) -> None:
    del log
    path = segment(home, 1)
    path.write_bytes(path.read_bytes().replace(b'"process"', b'"nobody!"'))
    result = run("audit", "verify", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert {name: document[name] for name in ("ok", "partition", "segment", "line", "kind")} == {
        "ok": False,
        "partition": 0,
        "segment": 1,
        "line": 2,
        "kind": "changed",
    }
    plain = run("audit", "verify")
    assert plain.exit_code == 1
    assert "kind       changed" in plain.stdout


def test_a_log_cut_off_at_its_end_is_found_by_heads_kept_elsewhere(home: Path, run: Run, log: Log) -> None:
    del log
    heads = run("audit", "head", "--json")
    (home / "heads.json").write_text(heads.stdout)
    assert run("audit", "verify", "--heads", "heads.json").stdout == ("ok: 5 events in 3 segments; 1 heads compared\n")
    segment(home, 2).unlink()
    assert run("audit", "verify").exit_code == 0
    result = run("audit", "verify", "--heads", "heads.json", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["kind"] == "missing"


def test_signatures_are_verified_with_a_public_key(home: Path, run: Run, log: Log) -> None:
    del log
    assert run("audit", "verify", "--public-key", "public.pem").exit_code == 0
    (home / "other.pem").write_bytes(new_key().public)
    result = run("audit", "verify", "--public-key", "other.pem", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["kind"] == "signature"


@pytest.mark.parametrize(
    ("option", "code"), [("--heads", "audit_heads_invalid"), ("--public-key", "audit_key_invalid")]
)
def test_a_wrong_file_is_a_wrong_command_line(home: Path, run: Run, log: Log, option: str, code: str) -> None:
    del log
    (home / "wrong").write_text("wrong")
    result = run("audit", "verify", option, "wrong")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {code}: ")


def test_heads_are_shown_to_people_too(home: Path, run: Run, log: Log) -> None:
    del home, log
    header, line = run("audit", "head").stdout.splitlines()
    assert header == "topic\tpartition\tepoch\tsegment\tevents\thash"
    assert line.startswith("audit.events\t0\t0\t2\t5\t")


def test_an_empty_log_is_sound(home: Path, run: Run) -> None:
    del home
    result = run("audit", "verify")
    assert result.stdout == "ok: 0 events in 0 segments; 0 heads compared\n"
    assert "check that [store] in the settings names the right store" in result.stderr
