"""The token file: rotation, strictness, expiry."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from pipeline.jobs.ecs import FileTokenProvider, TokenUnavailable, TokenWatch
from pipeline.jobs.ecs.jwt_expiry import read_expiry
from pipeline.observability import Metrics

KEY = "k" * 32
NOW = datetime(2026, 1, 21, 22, 50, tzinfo=UTC)


def signed(**claims: Any) -> str:
    """Return a JWT of a secret that the code under test does not know."""
    return jwt.encode(claims, KEY, algorithm="HS256")


def provider(path: Path, known: list[SecretStr] | None = None) -> FileTokenProvider:
    """Return a provider that remembers into a list."""
    return FileTokenProvider(path, integration="acme", remember=(known if known is not None else []).append)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
async def test_one_newline_at_the_end_is_stripped(tmp_path: Path, end: str) -> None:
    """Editors add one."""
    path = tmp_path / "token"
    path.write_bytes(f"abc.def~+/=-_{end}".encode())
    known: list[SecretStr] = []
    token = await provider(path, known).token()
    assert token.value == SecretStr("abc.def~+/=-_")
    assert known == [token.value]


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"abc\n\n", "the secret alone"),
        (b" abc", "the secret alone"),
        (b"abc \n", "the secret alone"),
        (b"abc def", "one word"),
        (b"abc\tdef", "the secret alone"),
        (b"abc\r\nX-Injected: 1", "one word"),
        (b"\xef\xbb\xbfabc", "the secret alone"),
        ("schlüssel".encode(), "one word"),
        (b"x" * 20_000, "longer than 16384 bytes"),
    ],
)
async def test_anything_else_is_refused(tmp_path: Path, content: bytes, rule: str) -> None:
    """White space or odd characters mean a wrong file; its content is not repeated."""
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(TokenUnavailable, match=rule) as caught:
        await provider(path).token()
    assert caught.value.code == "callback_token_malformed"
    assert "abc" not in caught.value.message


async def test_a_missing_file_is_transient(tmp_path: Path) -> None:
    """It may be mounted in a moment."""
    with pytest.raises(TokenUnavailable, match="No such file") as caught:
        await provider(tmp_path / "token").token()
    assert caught.value.code == "callback_token_unreadable"
    with pytest.raises(TokenUnavailable, match="Is a directory"):
        await provider(tmp_path).token()


async def test_a_file_system_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a secret is bounded in time."""
    monkeypatch.setattr("pipeline.secret_files._TIMEOUT", 0.0)
    path = tmp_path / "token"
    path.write_text("abc")
    with pytest.raises(TokenUnavailable, match="took over"):
        await provider(path).token()


async def test_a_swapped_symlink_counts_at_once(tmp_path: Path) -> None:
    """Mounted secrets are rotated so: the path is opened each time, also on a 401."""
    (tmp_path / "one").write_text("first-token")
    (tmp_path / "two").write_text("second-token")
    path = tmp_path / "token"
    path.symlink_to("one")
    tokens = provider(path)
    first = await tokens.token()
    assert await tokens.token() is first
    assert await tokens.renew(first) is first
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(path)
    assert (await tokens.renew(first)).value == SecretStr("second-token")
    assert (await tokens.token()).value == SecretStr("second-token")


async def test_an_unknown_expiry_is_warned_of_once_per_token(tmp_path: Path) -> None:
    """Opaque tokens are legal, but no alarm can be set on them."""
    path = tmp_path / "token"
    path.write_text("opaque-token")
    tokens = provider(path)
    with capture_logs() as logs:
        await tokens.token()
        await tokens.token()
        path.write_text(signed(sub="x", exp=4_000_000_000))
        await tokens.token()
    assert [(line["log_level"], str(line["expiry"])) for line in logs] == [
        ("warning", "unknown"),
        ("info", "2096-10-02 07:06:40+00:00"),
    ]


@pytest.mark.parametrize(
    ("token", "expiry"),
    [
        (signed(exp=4_000_000_000), datetime.fromtimestamp(4_000_000_000, UTC)),
        (signed(exp=1_000_000_000), datetime.fromtimestamp(1_000_000_000, UTC)),
        (signed(exp=4_000_000_000, nbf=3_900_000_000, iat=3_900_000_000, aud="ecs"), datetime.fromtimestamp(4e9, UTC)),
        (signed(sub="x"), None),
        (signed(exp="never"), None),
        (signed(exp=1e300), None),
        (signed(exp=10**30), None),
        ("opaque", None),
        ("a.b.c", None),
    ],
)
def test_expiry_is_read_without_verification(token: str, expiry: datetime | None) -> None:
    """Of any JWT, whoever signed it; what is no date is unknown."""
    assert read_expiry(token) == expiry


async def watch(path: Path, *, metrics: Metrics | None = None) -> TokenWatch:
    """Return a watch that has looked once."""
    found = TokenWatch(provider(path), integration="acme", metrics=metrics or Metrics(), clock=lambda: NOW)
    await found.look()
    return found


async def test_an_expired_token_is_given_but_not_ready(tmp_path: Path) -> None:
    """ECS decides about the request; readiness and the metric tell the operator before."""
    path, metrics = tmp_path / "token", Metrics()
    path.write_text(signed(exp=int((NOW - timedelta(seconds=90)).timestamp())))
    assert (await provider(path).token()).expires_at == NOW - timedelta(seconds=90)
    found = await watch(path, metrics=metrics)
    assert not found.check().ok
    assert found.check().message.startswith("the callback token expired at 2026-01-21T22:48:30+00:00")
    assert metrics.registry.get_sample_value("pipeline_token_seconds_left", {"integration": "acme"}) == -90


async def test_a_good_token_is_ready_and_counted_down(tmp_path: Path) -> None:
    """The message says until when."""
    path = tmp_path / "token"
    path.write_text(signed(exp=int((NOW + timedelta(hours=1)).timestamp())))
    found = await watch(path)
    assert found.check().ok
    assert "expires at 2026-01-21T23:50:00+00:00" in found.check().message
    assert found.seconds_left() == 3600


async def test_an_opaque_token_is_ready_with_unknown_time_left(tmp_path: Path) -> None:
    """Unknown is not expired."""
    path = tmp_path / "token"
    path.write_text("opaque-token")
    found = await watch(path)
    assert found.check().ok
    assert math.isnan(found.seconds_left())


async def test_no_token_is_not_ready_until_there_is_one(tmp_path: Path) -> None:
    """Changes are logged once, in both directions."""
    path = tmp_path / "token"
    with capture_logs() as logs:
        found = await watch(path)
        await found.look()
        assert not found.check().ok
        assert "No such file" in found.check().message
        assert math.isnan(found.seconds_left())
        path.write_text("opaque-token")
        await found.look()
        assert found.check().ok
    assert [(line["event"], line["ok"]) for line in logs if "ok" in line] == [
        ("token_health_changed", False),
        ("token_health_changed", True),
    ]


def test_before_the_first_look_it_is_not_ready(tmp_path: Path) -> None:
    """Nothing is known yet."""
    found = TokenWatch(provider(tmp_path), integration="acme", metrics=Metrics(), clock=lambda: NOW)
    assert found.check().message == "no callback token: not looked at yet"


async def test_the_watch_looks_again_and_again(tmp_path: Path) -> None:
    """Without a callback, without a restart."""
    path = tmp_path / "token"
    found = TokenWatch(provider(path), integration="acme", metrics=Metrics(), clock=lambda: NOW)
    task = asyncio.ensure_future(found.run(interval=0.001))
    await asyncio.sleep(0.02)
    path.write_text("opaque-token")
    async with asyncio.timeout(2):
        while not found.check().ok:  # noqa: ASYNC110 - it is a poll that is under test
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
