"""Secrets in mounted files: strictness, rotation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.secret_files import SecretUnreadable, TokenFile, read_secret, read_token, token_fault

PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----"
REFUSED_BY_ALL = [
    (b"", "is empty"),
    (b"\n", "is empty"),
    (b"\r\n", "is empty"),
    (b"planted\n\n", "the secret alone"),
    (b" planted", "the secret alone"),
    (b"planted \n", "the secret alone"),
    (b"\nplanted", "the secret alone"),
    (b"plan\tted", "the secret alone"),
    (b"plan\0ted", "the secret alone"),
    (b"\xef\xbb\xbfplanted", "the secret alone: it begins with a byte order mark"),
    (b"   ", "the secret alone, and holds nothing but white space"),
    (b"planted\t", r"the secret alone: a tab \(U\+0009\) comes after it"),
    (b"planted\xc2\xa0", r"the secret alone: no-break space \(U\+00A0\) comes after it"),
    (b"pla\xe2\x80\x8bnted", r"the secret alone: character 4 of line 1 is zero width space \(U\+200B\)"),
    (b"planted\nsecond", "the secret alone: a second line follows it"),
    (b"planted\r\nX-Injected: 1", "the secret alone: a second line follows it"),
    (b"\xff\xfep\x00l\x00a\x00n\x00", "is UTF-16; save it as UTF-8"),
    (b"planted\xff", "is not UTF-8 text"),
    (b"x" * 65_537, "is longer than 16384 bytes"),
    (b"x" * 16_385, "is longer than 16384 bytes"),
]
REFUSED_AS_TOKENS = [
    (b"plan ted", "one word"),
    ("plantédschlüssel".encode(), "one word"),
]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("secret", ["abc.def~+/=-_", "pässword with spaces", PEM])
def test_one_line_end_after_the_secret_is_stripped(tmp_path: Path, secret: str, end: str) -> None:
    """Editors add one."""
    path = tmp_path / "secret"
    path.write_bytes(f"{secret}{end}".encode())
    assert read_secret(path) == SecretStr(secret)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_token_is_one_visible_word(tmp_path: Path, end: str) -> None:
    path = tmp_path / "token"
    path.write_bytes(f"abc.def~+/=-_{end}".encode())
    assert read_token(path) == SecretStr("abc.def~+/=-_")


@pytest.mark.parametrize(("content", "rule"), REFUSED_BY_ALL)
def test_anything_else_is_refused(tmp_path: Path, content: bytes, rule: str) -> None:
    """The message names the file and the rule; nothing, causes included, repeats the content."""
    path = tmp_path / "secret"
    path.write_bytes(content)
    for read in (read_secret, read_token):
        with pytest.raises(SecretUnreadable, match=rule) as caught:
            read(path)
        assert (caught.value.code, caught.value.malformed) == ("secret_unreadable", True)
        assert caught.value.message == f"secret file {path} {caught.value.fault}"
        assert "plan" not in str(caught.value)
        assert caught.value.__context__ is None


@pytest.mark.parametrize("name", ["planted-secret", "planted/secret", "planted\0secret", "planted" * 1000])
def test_a_path_that_leads_to_no_file_is_not_named(tmp_path: Path, name: str) -> None:
    """It may be the secret itself; log lines, receipts of waits and callbacks repeat the message."""
    for read in (read_secret, read_token):
        with pytest.raises(
            SecretUnreadable, match=r"secret file \(at the path given in the settings\) cannot be"
        ) as caught:
            read(tmp_path / name)
        assert "planted" not in str(caught.value)
        assert not caught.value.malformed


@pytest.mark.parametrize(("content", "rule"), REFUSED_AS_TOKENS)
def test_a_token_must_fit_into_a_header(tmp_path: Path, content: bytes, rule: str) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(SecretUnreadable, match=rule) as caught:
        read_token(path)
    assert "plan" not in str(caught.value)


def test_the_rule_holds_for_tokens_from_elsewhere() -> None:
    assert token_fault(SecretStr("abc")) is None
    assert token_fault(SecretStr("")) == "is empty"
    assert token_fault(SecretStr("x" * 16_385)) == "is longer than 16384 bytes"
    for text in ("a b", "a\n", "é"):
        assert token_fault(SecretStr(text)) == "must be one word of visible ASCII characters"


@pytest.mark.parametrize(
    ("content", "doubt"),
    [
        (b"planted-0123456789\r\n", "ends with a Windows line end"),
        (b'"planted-0123456789"', "holds a text in quotes"),
        ("\u201cplanted-0123456789\u201d".encode(), "holds a text in quotes"),
        (b"plan", "holds fewer than 8 characters"),
        (b"v1,whsec_cGxhbnRlZC0wMTIzNDU2Nzg5", "begins with v1,whsec_"),
        (b"API_KEY=planted-0123456789", "looks like NAME=VALUE"),
        (b"changeme", "holds a placeholder"),
    ],
)
def test_what_is_odd_may_be_the_secret(tmp_path: Path, content: bytes, doubt: str) -> None:
    """It is read as it is, and the caller learns of it; the doubt repeats nothing of it."""
    path = tmp_path / "secret"
    path.write_bytes(content)
    doubts: list[str] = []
    assert read_token(path, doubts.append) if content.isascii() else read_secret(path, doubts.append)
    assert len(doubts) == 1
    assert doubts[0].startswith(doubt)
    assert "plan" not in doubts[0]


@pytest.mark.parametrize(
    "content", [PEM, PEM.replace("\n", "\r\n") + "\r\n", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", "YWJjZGVmZ2g="]
)
def test_an_ordinary_secret_leaves_no_doubt(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content.encode())
    assert read_secret(path, pytest.fail)


def test_a_path_that_is_none_is_refused() -> None:
    with pytest.raises(SecretUnreadable, match="this is no path") as caught:
        read_secret(Path("plan\0ted"))
    assert not caught.value.malformed


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "gone", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(SecretUnreadable, match=reason) as caught:
            read_secret(path)
        assert not caught.value.malformed


def replace(path: Path, text: str) -> None:
    (path.parent / "next").write_text(text)
    (path.parent / "next").replace(path)


async def test_a_replaced_file_applies_at_once(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    file = TokenFile(path)
    first = await file.token()
    assert await file.token() is first
    replace(path, "other")
    assert await file.token() == SecretStr("other")


async def test_a_swapped_symlink_applies_at_once(tmp_path: Path) -> None:
    """Kubernetes rotates mounted secrets in this way."""
    (tmp_path / "one").write_text("first-token")
    (tmp_path / "two").write_text("other-token")
    path = tmp_path / "token"
    path.symlink_to("one")
    file = TokenFile(path)
    assert await file.token() == SecretStr("first-token")
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(path)
    assert await file.token() == SecretStr("other-token")


async def test_a_change_that_does_not_show_is_found_within_a_minute_or_when_asked(tmp_path: Path) -> None:
    """Some file systems show no change of a file's time or size."""
    now = [100.0]
    path = tmp_path / "token"
    path.write_text("first")
    shown = path.stat()
    file = TokenFile(path, clock=lambda: now[0])

    def change(text: str) -> None:
        path.write_text(text)
        os.utime(path, ns=(shown.st_atime_ns, shown.st_mtime_ns))

    assert await file.token() == SecretStr("first")
    change("other")
    now[0] += 59
    assert await file.token() == SecretStr("first")
    now[0] += 1
    assert await file.token() == SecretStr("other")
    change("third")
    assert await file.token() == SecretStr("other")
    assert await file.token(fresh=True) == SecretStr("third")
    assert await file.token() == SecretStr("third")


async def test_a_caller_may_trust_a_token_for_a_while(tmp_path: Path) -> None:
    """Then a replacement applies when that time is over, or when the caller asks for a fresh look."""
    now = [100.0]
    path = tmp_path / "token"
    path.write_text("first")
    file = TokenFile(path, clock=lambda: now[0], trusted_seconds=1.0)
    assert await file.token() == SecretStr("first")
    replace(path, "other")
    now[0] += 0.9
    assert await file.token() == SecretStr("first")
    now[0] += 0.1
    assert await file.token() == SecretStr("other")
    replace(path, "third-one")
    assert await file.token(fresh=True) == SecretStr("third-one")
    replace(path, "first")
    assert await file.token() == SecretStr("third-one")


async def test_trust_does_not_outlive_a_look_that_failed(tmp_path: Path) -> None:
    """The file no longer holds the token that was read before."""
    now = [100.0]
    path = tmp_path / "token"
    path.write_text("first")
    file = TokenFile(path, clock=lambda: now[0], trusted_seconds=1.0)
    assert await file.token() == SecretStr("first")
    replace(path, "two words")
    now[0] += 1.0
    for _ in range(3):
        with pytest.raises(SecretUnreadable, match="one word"):
            await file.token()
        now[0] += 0.1
    replace(path, "other")
    assert await file.token() == SecretStr("other")
    replace(path, "two words")
    for _ in range(2):
        with pytest.raises(SecretUnreadable, match="one word"):
            await file.token(fresh=True)
    with pytest.raises(SecretUnreadable, match="one word"):
        await file.token()


async def test_a_file_that_went_away_is_unreadable_until_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "token"
    file = TokenFile(path)
    with pytest.raises(SecretUnreadable, match="No such file") as caught:
        await file.token()
    assert not caught.value.malformed
    path.write_text("back")
    assert await file.token() == SecretStr("back")


async def test_a_file_system_that_hangs_is_abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.secret_files._TIMEOUT", 0.0)
    path = tmp_path / "token"
    path.write_text("abc")
    with pytest.raises(SecretUnreadable, match="took over") as caught:
        await TokenFile(path).token()
    assert not caught.value.malformed
