"""Secret files as editors, shells and copied dashboards leave them: what `config check` says, and with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, NamedTuple

import pytest
from support.config_check import config_check
from support.inputs_page import answers
from support.logging_state import logging_restored

__all__ = ["logging_restored"]

SECRET: Final = b"planted-0123456789"
STANDARD: Final = b"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
PEM: Final = (
    b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"
    b"-----END PRIVATE KEY-----\n"
)
ALONE: Final = "must hold the secret alone"
SHORT: Final = "holds fewer than 8 characters; write the whole secret, or ask for a longer one"
QUOTED: Final = "holds a text in quotes, which are taken for a part of the secret; delete them if they are none"

Use = Literal["text", "standard", "base64", "hex", "token", "client", "signing", "password"]
"""Who reads the file."""


class Case(NamedTuple):
    """One file and the answer.

    Attributes:
        answer: ``accepted``, or ``refused: ...`` or ``warned: ...`` with the end of the line behind key and file;
            several are joined by a slash.
        use: Who reads it.
    """

    content: bytes | None
    answer: str
    use: Use = "text"


BASE: Final = """\
[kafka]
bootstrap_servers = "kafka-0:9092"
[store]
shared = true
"""
SHOP: Final = '[webhooks.shop]\nsource = "{source}"\nsecrets = [{{ file = "secret" }}]\noptions = {options}\n'
JOBS: Final = """\
[parts]
keys = [{ id = "1", file = "part-key" }]
[ecs.acme]
webhook = { scheme = "hmac", secrets = [{ file = "key" }] }
hosts = { input = ["files.example.com"], result = ["files.example.com"], callback = ["api.example.com"] }
"""
OAUTH: Final = """\
[ecs.acme.callback.oauth]
token_url = "https://id.example.com/t"
client_id = "c"
client_secret_file = "secret"
"""
SETTINGS: Final[dict[Use, tuple[str, str]]] = {
    "text": ("webhooks.shop.secrets.0.file", BASE + SHOP.format(source="hmac", options="{}")),
    "standard": ("webhooks.shop.secrets.0.file", BASE + SHOP.format(source="standard-webhooks", options="{}")),
    "base64": ("webhooks.shop.secrets.0.file", BASE + SHOP.format(source="hmac", options='{ key = "base64" }')),
    "hex": ("webhooks.shop.secrets.0.file", BASE + SHOP.format(source="hmac", options='{ key = "hex" }')),
    "token": ("ecs.acme.callback.token_file", f'{BASE}{JOBS}callback = {{ token_file = "secret" }}\n'),
    "client": ("ecs.acme.callback.oauth.client_secret_file", BASE + JOBS + OAUTH),
    "signing": (
        "audit.signing_key_file",
        f'{BASE}{JOBS}callback = {{ token_file = "key" }}\n[audit]\nsigning_key_file = "secret"\n',
    ),
    "password": (
        "kafka.sasl.password_file",
        (
            f'{BASE}[kafka.tls]\n[kafka.sasl]\nmechanism = "PLAIN"\nusername = "me"\npassword_file = "secret"\n'
            '[webhooks.shop]\npreset = "slack"\nsecrets = [{ file = "key" }]\n'
        ),
    ),
}
ENCODING: Final = "refused: webhooks.shop: The secret 'secret' is not written in {}, as its scheme says"
PREFIXED: Final = "warned: begins with v1,whsec_; if the sender signs by Standard Webhooks, delete 'v1,'"
SIGNING: Final = (
    "refused: audit.signing_key: The audit log's private key must be an unencrypted Ed25519 key in PEM: openssl "
    "genpkey -algorithm ed25519 makes one"
)
CASES: Final[dict[str, Case]] = {
    "plain": Case(SECRET, "accepted"),
    "one-lf": Case(SECRET + b"\n", "accepted"),
    "crlf": Case(
        SECRET + b"\r\n",
        (
            "warned: ends with a Windows line end (CRLF), which is not taken for a part of the secret; save it without "
            "one"
        ),
    ),
    "two-lf": Case(
        SECRET + b"\n\n",
        f"refused: {ALONE}: a line end (U+000A) comes after it; delete that (one line end at the end may stay)",
    ),
    "blank-before": Case(b" " + SECRET, f"refused: {ALONE}: a blank (U+0020) comes before it; delete that"),
    "blank-behind": Case(
        SECRET + b" ",
        f"refused: {ALONE}: a blank (U+0020) comes after it; delete that (one line end at the end may stay)",
    ),
    "blank-before-the-line-end": Case(
        SECRET + b" \n",
        f"refused: {ALONE}: a blank (U+0020) comes after it; delete that (one line end at the end may stay)",
    ),
    "tab-behind": Case(
        SECRET + b"\t",
        f"refused: {ALONE}: a tab (U+0009) comes after it; delete that (one line end at the end may stay)",
    ),
    "carriage-return-behind": Case(
        SECRET + b"\r",
        f"refused: {ALONE}: a carriage return (U+000D) comes after it; delete that (one line end at the end may stay)",
    ),
    "line-end-before": Case(b"\n" + SECRET, f"refused: {ALONE}: a line end (U+000A) comes before it; delete that"),
    "bom": Case(
        b"\xef\xbb\xbf" + SECRET,
        f"refused: {ALONE}: it begins with a byte order mark; save it as UTF-8 without one",
    ),
    "utf-16": Case(SECRET.decode().encode("utf-16"), "refused: is UTF-16; save it as UTF-8"),
    "latin-1": Case(SECRET + b"\xe9", "refused: is not UTF-8 text"),
    "nbsp": Case(
        SECRET + b"\xc2\xa0",
        f"refused: {ALONE}: no-break space (U+00A0) comes after it; delete that (one line end at the end may stay)",
    ),
    "nbsp-inside": Case(
        b"planted\xc2\xa00123456789",
        f"refused: {ALONE}: character 8 of line 1 is no-break space (U+00A0); delete that",
    ),
    "zero-width-inside": Case(
        b"planted\xe2\x80\x8b0123456789",
        f"refused: {ALONE}: character 8 of line 1 is zero width space (U+200B); delete that",
    ),
    "nul-inside": Case(
        b"planted\x000123456789",
        f"refused: {ALONE}: character 8 of line 1 is a control character (U+0000); delete that",
    ),
    "quoted": Case(b'"' + SECRET + b'"', f"warned: {QUOTED}"),
    "quoted-singly": Case(b"'" + SECRET + b"'", f"warned: {QUOTED}"),
    "quoted-by-a-word-processor": Case("\u201cplanted-0123456789\u201d".encode(), f"warned: {QUOTED}"),
    "blanks-only": Case(b"   ", f"refused: {ALONE}, and holds nothing but white space; write the secret into it"),
    "empty": Case(b"", "refused: is empty; write the secret into it"),
    "line-end-only": Case(b"\n", "refused: is empty; write the secret into it"),
    "one-character": Case(b"x", f"warned: {SHORT}"),
    "seven-characters": Case(b"planted", f"warned: {SHORT}"),
    "eight-characters": Case(b"planted0", "accepted"),
    "two-lines": Case(
        SECRET + b"\nsecond",
        f"refused: {ALONE}: a second line follows it; delete that (only a key in PEM has several)",
    ),
    "two-lines-of-windows": Case(
        SECRET + b"\r\nsecond\r\n",
        f"refused: {ALONE}: a second line follows it; delete that (only a key in PEM has several)",
    ),
    "name-and-value": Case(
        b"WEBHOOK_SECRET=" + SECRET,
        "warned: looks like NAME=VALUE, all of which is taken for the secret; write the value alone",
    ),
    "placeholder": Case(b"changeme", "warned: holds a placeholder; write the secret into it"),
    "too-long": Case(b"x" * 16_385, "refused: is longer than 16384 bytes"),
    "blanks-inside": Case(b"planted 0123456789", "accepted"),
    "missing": Case(
        None,
        (
            "refused: no file exists at this path; create it with only the secret in it: (umask "
            "077; printf %s SECRET > FILE); relative paths start from FOLDER"
        ),
    ),
    "whsec": Case(STANDARD, "accepted", "standard"),
    "whsec-without-prefix": Case(STANDARD.removeprefix(b"whsec_"), "accepted", "standard"),
    "whsec-prefixed": Case(b"v1," + STANDARD, f"{ENCODING.format('base64')} / {PREFIXED}", "standard"),
    "whsec-prefixed-as-text": Case(b"v1," + STANDARD, PREFIXED),
    "whsec-of-no-base64": Case(b"whsec_planted-0123456789", ENCODING.format("base64"), "standard"),
    "base64": Case(b"cGxhbnRlZC0wMTIzNDU2Nzg5", "accepted", "base64"),
    "not-base64": Case(SECRET, ENCODING.format("base64"), "base64"),
    "hex": Case(b"706c616e7465642d30313233", "accepted", "hex"),
    "not-hex": Case(SECRET, ENCODING.format("hex"), "hex"),
    "half-a-byte-of-hex": Case(b"706c616e7465642d3031323", ENCODING.format("hex"), "hex"),
    "token": Case(SECRET, "accepted", "token"),
    "token-with-a-blank": Case(
        b"Bearer planted-0123456789", "refused: must be one word of visible ASCII characters", "token"
    ),
    "token-with-an-umlaut": Case(
        "pl\u00e4nted-0123456789".encode(), "refused: must be one word of visible ASCII characters", "token"
    ),
    "token-quoted": Case(b'"' + SECRET + b'"', f"warned: {QUOTED}", "token"),
    "token-missing": Case(None, "warned: no file exists at this path yet", "token"),
    "client-secret-of-two-lines": Case(
        SECRET + b"\nsecond",
        f"refused: {ALONE}: a second line follows it; delete that (only a key in PEM has several)",
        "client",
    ),
    "password-with-an-umlaut": Case("pl\u00e4nted-0123456789".encode(), "accepted", "password"),
    "password-of-one-character": Case(b"x", f"warned: {SHORT}", "password"),
    "signing-key": Case(PEM, "accepted", "signing"),
    "signing-key-of-windows": Case(PEM.replace(b"\n", b"\r\n"), "accepted", "signing"),
    "signing-key-that-is-none": Case(SECRET, SIGNING, "signing"),
    "signing-key-cut": Case(PEM[:60] + b"\n-----END PRIVATE KEY-----\n", SIGNING, "signing"),
}
PROMISED: Final = answers("secret-files")


@pytest.fixture(autouse=True)
def _logging(logging_restored: None) -> None:
    """Commands configure logging."""


@pytest.mark.parametrize("name", CASES)
def test_config_check_gives_the_promised_answer(tmp_path: Path, name: str) -> None:
    """It names file, rule and remedy, and repeats nothing of the content."""
    case = CASES[name]
    key, settings = SETTINGS[case.use]
    files = {"key": b"synthetic-0123456789", "part-key": b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}
    found = config_check(
        tmp_path, settings.encode(), files | ({} if case.content is None else {"secret": case.content})
    )
    lines = [f"refused: {line}" for line in found.problems] + [f"warned: {line}" for line in found.warnings]
    said = " / ".join(_short(line, key, tmp_path) for line in lines)
    assert (said or "accepted") == case.answer
    assert found.exit_code == (2 if case.answer.startswith("refused") else 0)
    assert "planted" not in found.output


def _short(line: str, key: str, folder: Path) -> str:
    """Return a line without its key, its file and the test's folder."""
    return line.replace(f"{key}: secret ", "").replace(f"{key}: ", "").replace(str(folder), "FOLDER")


@pytest.mark.parametrize("name", CASES)
def test_the_page_promises_these_answers(name: str) -> None:
    assert PROMISED[name] == CASES[name].answer
