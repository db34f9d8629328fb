"""`pipeline sources`: what is configured, and why a request is not taken."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Run

from pipeline.cli.request_files import read_headers
from pipeline.contracts import Topic
from pipeline.contracts.weavr import KINDS

AT = datetime(2026, 1, 22, 22, 43, 59, tzinfo=UTC)
AT_MS = b"%d" % round(AT.timestamp() * 1000)
NOW = ("--at", AT.isoformat())
SEGMENT = "planted-path-secret"
API_KEY = "planted-api-key"
SHOP_KEY = "planted-shop-key"
BODY = (
    b'{"credential": {"id": "1234", "type": "root_users"}, "type": "LOGIN", "status": "VERIFIED", '
    b'"publishedTimestamp": "1769121839000", "added": "planted-body"}'
)
PATH = "/login/watch"

MORE = """
[weavr.acme]
path_secret_file = "segment"
secrets = [
    { file = "api-key", id = "old", not_after = 2026-02-01T00:00:00Z },
    { file = "api-key", id = "new", not_before = 2999-01-01T00:00:00Z },
]

[[weavr.acme.unsigned_paths]]
path = "/bulk_process_end/watch"
require_path_secret = true
source_addresses = ["192.0.2.0/24"]

[webhooks.shop]
source = "hmac"
secrets = [{ file = "shop-key" }]
id = "header:X-Id"
type = "json:/kind"

[webhooks.hub]
preset = "github"
secrets = [{ file = "shop-key", id = "hub" }]
"""


@pytest.fixture
def ground(home: Path) -> Path:
    """Settings with one source of every sort; the folder they lie in."""
    with (home / "pipeline.toml").open("a") as file:
        file.write(MORE)
    for name, value in (("segment", SEGMENT), ("api-key", API_KEY), ("shop-key", SHOP_KEY)):
        (home / name).write_text(value)
        (home / name).chmod(0o600)
    return home


def weavr_headers(body: bytes = BODY, key: str = API_KEY, call_ref: bytes = b"call-1") -> dict[str, str]:
    digest = hmac.digest(key.encode(), call_ref + body + AT_MS, hashlib.sha256)
    return {
        "Content-Type": "application/json",
        "call-ref": call_ref.decode(),
        "published-timestamp": AT_MS.decode(),
        "signature-v2": base64.b64encode(digest).decode(),
    }


def files(headers: Mapping[str, str], body: bytes = BODY) -> tuple[str, ...]:
    """Write a request's files and return the options that name them."""
    Path("headers").write_text("".join(f"{name}: {value}\r\n" for name, value in headers.items()))
    Path("body").write_bytes(body)
    return "--headers", "headers", "--body", "body"


def tried(run: Run, *arguments: str, code: int = 0) -> dict[str, Any]:
    result = run("sources", "test", *arguments, "--json")
    assert result.exit_code == code, result.output
    assert "planted" not in result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def failed(trial: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(step["step"], step["detail"]) for step in trial["steps"] if not step["ok"]]


# list


def test_the_list_names_keys_and_dates_and_no_secret(run: Run, ground: Path) -> None:
    del ground
    result = run("sources", "list", "--json")
    assert "planted" not in result.output
    rows = {row["table"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert list(rows) == ["ecs.acme", "weavr.acme", "webhooks.shop", "webhooks.hub"]
    topics = rows["weavr.acme"].pop("topics")
    assert set(topics) == {kind.topic for kind in KINDS}
    keys = rows["weavr.acme"].pop("keys")
    assert [(key["id"], key["not_before"], key["not_after"]) for key in keys] == [
        ("old", None, "2026-02-01T00:00:00+00:00"),
        ("new", "2999-01-01T00:00:00+00:00", None),
    ]
    assert keys[1]["active"] is False
    assert rows["weavr.acme"] == {
        "name": "acme",
        "table": "weavr.acme",
        "kind": "weavr",
        "preset": None,
        "path": "/webhooks/weavr/acme/{secret}",
        "scheme": "signature-v2",
        "success_status": 204,
        "unverified_status": 503,
        "invalid": "keep",
        "url_checks": [],
        "audit_accepted": False,
    }
    assert rows["ecs.acme"] == {
        "name": "acme",
        "table": "ecs.acme",
        "kind": "ecs",
        "preset": None,
        "path": "/webhooks/ecs/acme",
        "scheme": "shared-secret",
        "keys": [{"id": "webhook", "kind": "secret", "not_before": None, "not_after": None, "active": True}],
        "topics": [Topic.BATCH_REQUESTED],
        "success_status": 202,
        "unverified_status": 401,
        "invalid": "refuse",
        "url_checks": [],
        "audit_accepted": True,
    }
    assert (rows["webhooks.hub"]["preset"], rows["webhooks.hub"]["scheme"]) == ("github", "hmac")
    assert rows["webhooks.shop"]["topics"] == ["webhook-events.shop"]


def test_the_list_needs_no_secret_file(run: Run, ground: Path) -> None:
    for name in ("webhook", "api-key", "shop-key", "segment"):
        (ground / name).unlink()
    assert run("sources", "list").exit_code == 0


def test_people_see_what_counts_now(run: Run, ground: Path) -> None:
    del ground
    lines = run("sources", "list").stdout.splitlines()
    assert lines[0].split("\t") == [
        *("name", "kind", "path", "scheme", "keys", "topics", "success", "unverified", "invalid")
    ]
    assert "new (not active from 2999-01-01T00:00:00+00:00)" in lines[2]
    assert "18 topics" in lines[2]
    assert "hmac (github)" in lines[4]


# test


def test_a_request_that_is_right_says_what_it_is(run: Run, ground: Path) -> None:
    del ground
    trial = tried(run, "weavr.acme", "--path", PATH, *files(weavr_headers()), *NOW)
    steps = trial.pop("steps")
    assert len(trial.pop("ce_id")) > 16
    assert trial == {
        "verified": True,
        "by": "old",
        "reason": None,
        "event_type": "weavr.login",
        "topic": "card-events.login",
        "key": "acme/credential/1234",
    }
    assert (steps[0]["step"], steps[1]["step"], steps[-1]["step"]) == ("route", "media_type", "identify")
    assert all(step["ok"] for step in steps)


def test_the_path_may_hold_the_secret_segment_and_the_webhooks_own_path(run: Run, ground: Path) -> None:
    del ground
    path = f"/webhooks/weavr/acme/{SEGMENT}{PATH}"
    assert tried(run, "weavr.acme", "--path", path, *files(weavr_headers()), *NOW)["verified"] is True


def test_the_step_that_fails_is_named(run: Run, ground: Path) -> None:
    del ground
    trial = tried(run, "weavr.acme", "--path", PATH, *files(weavr_headers(key="another")), *NOW, code=1)
    assert (trial["verified"], trial["by"], trial["reason"]) == (False, None, "not_verified")
    assert [step for step, _ in failed(trial)] == ["match"]
    assert trial["event_type"] == "weavr.login"


def test_what_is_not_proved_is_identified_behind_a_secret_segment_too(run: Run, ground: Path) -> None:
    del ground
    headers = weavr_headers(key="another")
    trial = tried(run, "weavr.acme", "--path", f"/{SEGMENT}{PATH}", *files(headers), *NOW, code=1)
    assert (trial["verified"], trial["event_type"]) == (False, "weavr.login")
    trial = tried(run, "weavr.acme", "--path", f"/{SEGMENT}{PATH}", *files(headers, b"{}"), *NOW, code=1)
    assert ("identify", "credential: required: Send this field") in failed(trial)


def test_time_decides_about_keys_and_age(run: Run, ground: Path) -> None:
    """By default it is now: the key of the request counts no more, or the request is too old."""
    del ground
    trial = tried(run, "weavr.acme", "--path", PATH, *files(weavr_headers()), code=1)
    assert trial["reason"] in {"timestamp_too_old", "timestamp_in_future", "no_active_secret"}


def test_what_is_authentic_but_does_not_fit_is_a_finding(run: Run, ground: Path) -> None:
    del ground
    trial = tried(run, "weavr.acme", "--path", "/new/watch", *files(weavr_headers()), *NOW, code=1)
    assert (trial["verified"], trial["event_type"]) == (True, None)
    [(step, detail)] = failed(trial)
    assert (step, detail.partition(": ")[0]) == ("identify", "path")


@pytest.mark.parametrize(
    ("path", "client", "verified"),
    [
        (f"/{SEGMENT}/bulk_process_end/watch", "192.0.2.7", True),
        (f"/{SEGMENT}/bulk_process_end/watch", "198.51.100.7", False),
        ("/bulk_process_end/watch", "192.0.2.7", False),
    ],
)
def test_an_unsigned_path_is_tried_by_what_protects_it(
    run: Run, ground: Path, path: str, client: str, *, verified: bool
) -> None:
    del ground
    given = files({"published-timestamp": AT_MS.decode()})
    result = run("sources", "test", "weavr.acme", "--path", path, "--client", client, *given, *NOW, "--json")
    trial = json.loads(result.stdout)
    assert (trial["verified"], [step["ok"] for step in trial["steps"] if step["step"] == "protection"]) == (
        verified,
        [verified],
    )
    assert SEGMENT not in result.output


def test_a_path_below_a_source_that_has_none_is_a_finding(run: Run, ground: Path) -> None:
    del ground
    trial = tried(run, "ecs.acme", "--path", "/x", *files({"Content-Type": "application/json"}), code=1)
    assert failed(trial)[0] == ("route", "/webhooks/ecs/acme has no paths below it: 404")


def test_a_media_type_that_would_be_refused_is_a_finding(run: Run, ground: Path) -> None:
    del ground
    trial = tried(run, "ecs.acme", *files({"X-Webhook-Secret": "the-webhook-secret"}), code=1)
    assert failed(trial)[0] == ("media_type", "Unsupported media type: 415")
    assert trial["verified"] is True


def test_people_get_a_line_per_step(run: Run, ground: Path) -> None:
    del ground
    result = run("sources", "test", "weavr.acme", "--path", PATH, *files(weavr_headers()), *NOW)
    lines = result.stdout.splitlines()
    assert lines[0] == "ok    route: /webhooks/weavr/acme belongs to weavr.acme"
    assert lines[-1].startswith("verified by old; weavr.login, key acme/")
    assert "planted" not in result.output


def test_a_name_must_mean_one_source(run: Run, ground: Path) -> None:
    del ground
    given = files(weavr_headers())
    several = run("sources", "test", "acme", *given)
    assert (several.exit_code, several.stderr) == (
        1,
        "error: source_unknown: several sources have the name 'acme': give one of ecs.acme, weavr.acme\n",
    )
    none = run("sources", "test", "nobody", *given)
    assert (none.exit_code, none.stderr) == (
        1,
        (
            "error: source_unknown: there is no source 'nobody'; configured: "
            "ecs.acme, weavr.acme, webhooks.shop, webhooks.hub\n"
        ),
    )


def test_files_are_needed(run: Run, ground: Path) -> None:
    del ground
    assert run("sources", "test", "shop").exit_code == 2
    assert run("sources", "test", "shop", *files({}), *NOW).stderr.startswith("error: headers_unreadable: headers")


# try all


def test_the_way_that_matches_is_printed_as_settings(run: Run, ground: Path) -> None:
    """A request of GitHub's, at a source that was set up otherwise."""
    del ground
    signature = hmac.digest(SHOP_KEY.encode(), BODY, hashlib.sha256).hex()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-Hub-Signature-256": f"sha256={signature}",
    }
    given = files(headers)
    trial = tried(run, "shop", *given, *NOW, "--try-all")
    assert trial["verified"] is False
    assert (trial["matches"][0]["preset"], trial["matches"][0]["secret"]) == ("github", "shop-key")
    result = run("sources", "test", "shop", *given, *NOW, "--try-all")
    assert '# preset github, with secret shop-key\n[webhooks.shop]\npreset = "github"\n' in result.stdout
    assert "planted" not in result.output
    assert signature not in result.output


def test_the_settings_of_an_ecs_webhook_are_printed_for_its_own_table(run: Run, ground: Path) -> None:
    del ground
    signature = hmac.digest(b"the-webhook-secret", BODY, hashlib.sha256).hex()
    given = files({"Content-Type": "application/json", "X-Ecs-Signature": signature})
    result = run("sources", "test", "ecs.acme", *given, *NOW, "--try-all")
    assert result.exit_code == 0
    assert '\n[ecs.acme.webhook]\nscheme = "hmac"\nheader = "' in result.stdout


@pytest.mark.parametrize("signed", [BODY, gzip.compress(BODY, mtime=0)])
def test_a_compressed_body_is_tried_as_sent_and_before_its_compression(run: Run, ground: Path, signed: bytes) -> None:
    del ground
    signature = hmac.digest(SHOP_KEY.encode(), signed, hashlib.sha256).hex()
    expected = "" if signed != BODY else 'signed_body = "plain"\n'
    given = files({"Content-Encoding": "gzip", "X-Sig": signature}, gzip.compress(BODY, mtime=0))
    result = run("sources", "test", "shop", *given, *NOW, "--try-all")
    assert result.exit_code == 0
    assert result.stdout.endswith('signed = ["body"]\n' + expected)
    given = files(
        {"Content-Encoding": "gzip", "X-Hub-Signature-256": f"sha256={signature}"}, gzip.compress(BODY, mtime=0)
    )
    result = run("sources", "test", "shop", *given, *NOW, "--try-all")
    options = f"[webhooks.shop.options]\n{expected}" if expected else ""
    assert f'[webhooks.shop]\npreset = "github"\n{options}' in result.stdout


def test_nothing_that_matches_is_a_finding(run: Run, ground: Path) -> None:
    del ground
    given = files({"Content-Type": "application/json", "X-Signature": "0" * 64})
    assert tried(run, "shop", *given, *NOW, "--try-all", code=1)["matches"] == []
    assert run("sources", "test", "shop", *given, "--try-all").stderr == (
        "no known signature scheme matches with these secrets\n"
    )


# headers


@pytest.mark.parametrize(
    "text",
    [
        "POST /webhooks HTTP/1.1\r\nX-A: 1\r\nx-b:two: three \r\nX-A: 2\r\n\r\n",
        "HTTP/1.1 200 OK\nX-A: 1\nX-B: two: three\nX-A: 2\n",
        '[["X-A", "1"], ["X-B", "two: three"], ["X-A", "2"]]',
    ],
)
def test_headers_are_read_from_lines_and_json(tmp_path: Path, text: str) -> None:
    file = tmp_path / "headers"
    file.write_text(text)
    assert read_headers(file) == (("x-a", b"1"), ("x-b", b"two: three"), ("x-a", b"2"))


def test_headers_of_an_object_may_have_several_values_and_any_text(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text('{"X-A": ["1", "2"], "X-B": "\\u00e9", "X-C": "\\u20ac"}')
    assert read_headers(file) == (("x-a", b"1"), ("x-a", b"2"), ("x-b", b"\xe9"), ("x-c", b"\xe2\x82\xac"))
