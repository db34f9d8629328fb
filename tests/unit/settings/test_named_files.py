"""The files that settings name are looked into before they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pipeline.settings import Review, Settings
from pipeline.settings.review import review

NOW: Final = datetime(2026, 6, 1, tzinfo=UTC)
DAY: Final = timedelta(days=1)
ECS: Final[dict[str, Any]] = {
    "webhook": {"scheme": "hmac", "secrets": [{"file": "w"}]},
    "hosts": {"input": ["a.example"], "result": ["a.example"], "callback": ["a.example"]},
}


class Issuer:
    """Issues certificates under one name, and has one of its own."""

    def __init__(self, name: str, *, days: tuple[int, int] = (-1, 365)) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = Ed25519PrivateKey.generate()
        self.certificate = self.issue(self.name, self.key, days)

    def issue(self, name: x509.Name, key: Ed25519PrivateKey, days: tuple[int, int] = (-1, 365)) -> bytes:
        """Return a certificate in PEM, valid for these days around ``NOW``."""
        first, last = days
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + first * DAY)
            .not_valid_after(NOW + last * DAY)
            .sign(self.key, None)
        )
        return made.public_bytes(Encoding.PEM)


AUTHORITY: Final = Issuer("authority")
LEAF: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])


def client(*days: int) -> bytes:
    return AUTHORITY.issue(LEAF, Ed25519PrivateKey.generate(), days or (-1, 365))  # type: ignore[arg-type]  # two of them


def reviewed(**tables: Any) -> Review:
    return review(
        Settings.model_validate({"kafka": {"bootstrap_servers": "a:1"}, "parts": {"encryption": "off"}} | tables),
        now=NOW,
    )


def of_kafka(folder: Path, name: str, pems: Sequence[bytes]) -> tuple[list[str], list[str]]:
    (folder / name).write_bytes(b"".join(pems))
    (folder / "key").write_text("a key")
    (folder / "key").chmod(0o600)
    tls = {"ca_file": folder / name} if name == "ca" else {"cert_file": folder / name, "key_file": folder / "key"}
    found = reviewed(kafka={"bootstrap_servers": "a:1", "tls": tls})
    problems, warnings = (
        [line for line in lines if line.startswith("kafka.tls")] for lines in (found.problems, found.warnings)
    )
    return problems, warnings


@pytest.mark.parametrize(
    ("pems", "problems", "warnings"),
    [
        ([client(), AUTHORITY.certificate], [], []),
        ([client(-9, -1)], ["certificate 1 expired at 2026-05-31T00:00:00Z; renew it"], []),
        (
            [client(1, 99)],
            ["certificate 1 is valid from 2026-06-02T00:00:00Z only; check the clock of this machine"],
            [],
        ),
        ([client(-9, 9)], [], ["certificate 1 expires at 2026-06-10T00:00:00Z; renew it"]),
        (
            [AUTHORITY.certificate, client()],
            [
                (
                    "certificate 2 is not the issuer of certificate 1; write the client's certificate first, then each "
                    "issuer"
                )
            ],
            [],
        ),
        ([b"nonsense"], [], []),
    ],
)
def test_a_client_certificate_is_valid_and_its_chain_in_order(
    tmp_path: Path, pems: list[bytes], problems: list[str], warnings: list[str]
) -> None:
    """A file that holds no certificate is refused by the code that uses it."""
    found = of_kafka(tmp_path, "cert", pems)
    assert found == tuple([f"kafka.tls.cert_file: {line}" for line in lines] for lines in (problems, warnings))


def test_authorities_of_which_none_is_valid_are_refused(tmp_path: Path) -> None:
    old = Issuer("old", days=(-9, -1)).certificate
    expired = "certificate 1 expired at 2026-05-31T00:00:00Z; renew it"
    assert of_kafka(tmp_path, "ca", [AUTHORITY.certificate]) == ([], [])
    assert of_kafka(tmp_path, "ca", [old, AUTHORITY.certificate]) == ([], [f"kafka.tls.ca_file: {expired}"])
    problem = f"kafka.tls.ca_file: none of its certificates is valid: {expired}"
    assert of_kafka(tmp_path, "ca", [old, old]) == ([problem], [])


def test_a_key_that_everybody_can_read_is_warned_of(tmp_path: Path) -> None:
    for name in ("cert", "key"):
        (tmp_path / name).write_text("pem")
        (tmp_path / name).chmod(0o644)
    tls = {"cert_file": tmp_path / "cert", "key_file": tmp_path / "key"}
    key = tmp_path / "key"
    assert f"kafka.tls.key_file: {key} can be read by every user; run: chmod 600 {key}" in (
        reviewed(kafka={"bootstrap_servers": "a:1", "tls": tls}).warnings
    )


def test_a_key_of_parts_that_everybody_can_read_is_warned_of(tmp_path: Path) -> None:
    key = tmp_path / "part-key"
    key.write_text("k")
    key.chmod(0o644)
    warning = f"parts.keys.0.file: {key} can be read by every user; run: chmod 600 {key}"
    parts = {"keys": [{"id": "1", "file": key}]}
    assert warning in reviewed(parts=parts).warnings
    key.chmod(0o600)
    assert warning not in reviewed(parts=parts).warnings


@pytest.mark.parametrize(
    ("content", "problem", "warning"),
    [
        ("planted-0123456789", None, None),
        ("planted 0123456789", "must be one word of visible ASCII characters", None),
        ("planted-0123456789\n\n", "must hold the secret alone: a line end (U+000A) comes after it", None),
        ('"planted-0123456789"', None, "holds a text in quotes"),
        (None, None, "no file exists at this path yet"),
    ],
)
@pytest.mark.parametrize("user", ["callback", "oauth", "processor"])
def test_tokens_are_looked_into(
    tmp_path: Path, content: str | None, problem: str | None, warning: str | None, user: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
        file.chmod(0o600)
    callback: dict[str, Any] = {"token_file": __file__}
    oauth = {"token_url": "https://id.example/t", "client_id": "c", "client_secret_file": file}
    http = {"name": "http", "options": {"url": "https://card.example/{id}", "token_file": str(file)}}
    users: dict[str, tuple[str, dict[str, Any]]] = {
        "callback": ("callback.token_file", {"callback": {"token_file": file}}),
        "oauth": ("callback.oauth.client_secret_file", {"callback": {"oauth": oauth}}),
        "processor": ("processor.options.token_file", {"callback": callback, "processor": http}),
    }
    key, changes = users[user]
    found = reviewed(ecs={"acme": ECS | changes})
    mine = [
        [line for line in lines if line.startswith(f"ecs.acme.{key}: ")] for lines in (found.problems, found.warnings)
    ]
    assert [len(lines) for lines in mine] == [problem is not None, warning is not None]
    assert (problem or "") in "".join(mine[0])
    assert (warning or "") in "".join(mine[1])
    assert "planted" not in "".join((*found.problems, *found.warnings))


def test_offline_no_file_is_looked_into_and_each_is_named(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("planted 0123456789")
    callback = {"callback": {"token_file": tmp_path / "token"}}
    settings = Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "a:1", "tls": {"ca_file": "ca"}},
            "parts": {"encryption": "off"},
            "ecs": {"acme": ECS | callback},
        }
    )
    found = review(settings, now=NOW, offline=True)
    assert found.problems == ()
    assert found.unchecked == ("kafka.tls.ca_file", "ecs.acme.callback.token_file")


def test_credentials_that_cross_the_network_readable_are_warned_of() -> None:
    sasl = {"mechanism": "PLAIN", "username": "me", "password": "planted-0123"}
    kafka = {"bootstrap_servers": "a:1", "sasl": sasl}
    said = (
        "kafka.sasl.mechanism: PLAIN without TLS sends the password in clear text; add a table [kafka.tls], or use it "
        "on one machine only"
    )
    assert said in reviewed(kafka=kafka).warnings
    assert said not in reviewed(kafka=kafka | {"tls": {}}).warnings
    assert said not in reviewed(kafka=kafka | {"sasl": sasl | {"mechanism": "SCRAM-SHA-256"}}).warnings


@pytest.mark.parametrize(
    ("csv", "said"),
    [
        ({"status_column": "message"}, "csv: Several result columns are named 'message'."),
        (
            {"rename_result_columns": {"x": "y"}},
            "csv: rename_result_columns names 'x'; the processor's own columns are: none.",
        ),
        ({"message_column": "card_number"}, "csv.message_column: 'card_number' is the card_column of the input"),
    ],
)
def test_two_columns_of_one_name_are_refused(csv: dict[str, object], said: str) -> None:
    """Otherwise every job of the integration would fail, after its first file."""
    found = reviewed(ecs={"acme": ECS | {"callback": {"token_file": __file__}, "csv": csv}})
    assert next(line for line in found.problems if line.startswith("ecs.acme.csv")).startswith(f"ecs.acme.{said}")
