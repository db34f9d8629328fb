"""Apache Kafka with TLS, SASL and access rights, and the certificates that clients of it need."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.brokers import ApacheKafka, running_apache_kafka, skip_without_java

from pipeline.kafka import KafkaSettings

PASSWORD: Final = "correct-password"
_LISTENERS: Final = {
    "TLS": "SSL",
    "EXPIRED": "SSL",
    "OTHERNAME": "SSL",
    "MUTUAL": "SSL",
    "SASLTLS": "SASL_SSL",
    "SASLPLAIN": "SASL_PLAINTEXT",
}
_JAAS: Final = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    + " ".join(f'user_{name}="{PASSWORD}"' for name in ("admin", "nobody", "operator"))
    + ";"
)


class Authority:
    """A certificate authority of a test.

    Attributes:
        certificate: PEM file of its certificate.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.certificate = folder / f"{name}.pem"
        made = self._builder(self._name, self._key, days=30, began=-1).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.certificate.write_bytes(_pem(made.sign(self._key, hashes.SHA256())))

    def issue(self, name: str, *, days: int = 30, began: int = -1, address: str = "127.0.0.1") -> tuple[Path, Path]:
        """Return the PEM files of a certificate and its key, valid from ``began`` to ``days`` days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        made = self._builder(_name(name), key, days=days, began=began).add_extension(names, critical=False)
        certificate, key_file = self._folder / f"{name}.cert.pem", self._folder / f"{name}.key.pem"
        certificate.write_bytes(_pem(made.sign(self._key, hashes.SHA256())))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, key_file

    def _builder(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: int, began: int
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=began))
            .not_valid_after(now + timedelta(days=days))
        )


@dataclass(frozen=True, slots=True)
class SecuredKafka:
    """A running broker.

    Attributes:
        authority: Signed the certificates of all its listeners.
        stranger: Another authority.
        folder: For further files.
    """

    broker: ApacheKafka
    authority: Authority
    stranger: Authority
    folder: Path

    def settings(self, listener: str, **more: object) -> KafkaSettings:
        """Return settings for one of the listeners."""
        fields = {
            "bootstrap_servers": f"127.0.0.1:{self.broker.ports[listener]}",
            "request_timeout_seconds": 4.0,
            "ack_timeout_seconds": 6.0,
            "replication_factor": 1,
        }
        return KafkaSettings.model_validate(fields | more)

    def tls(self) -> dict[str, str]:
        """Return the table ``kafka.tls`` that every listener with TLS accepts, except the mutual one."""
        return {"ca_file": str(self.authority.certificate)}


@contextmanager
def running_secured_kafka(folder: Path) -> Iterator[SecuredKafka]:
    """Run it.

    ``User:admin`` and clients without SASL may do everything, ``User:nobody`` nothing, ``User:operator`` what a test
    grants.
    """
    skip_without_java()
    authority, stranger = Authority(folder, "authority"), Authority(folder, "stranger")
    issued = {
        "tls": authority.issue("broker"),
        "mutual": authority.issue("mutual"),
        "sasltls": authority.issue("sasltls"),
        "expired": authority.issue("expired", began=-10, days=-1),
        "othername": authority.issue("othername", address="192.0.2.1"),
    }
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:admin;User:CN=client",
        "sasl.enabled.mechanisms": "PLAIN",
    }
    for listener, (certificate, key) in issued.items():
        store = folder / f"{listener}.store.pem"
        store.write_bytes(key.read_bytes() + certificate.read_bytes())
        prefix = f"listener.name.{listener}.ssl."
        properties |= {
            prefix + "keystore.type": "PEM",
            prefix + "keystore.location": str(store),
            prefix + "truststore.type": "PEM",
            prefix + "truststore.location": str(authority.certificate),
        }
    properties["listener.name.mutual.ssl.client.auth"] = "required"
    for listener in ("sasltls", "saslplain"):
        properties[f"listener.name.{listener}.plain.sasl.jaas.config"] = _JAAS
    with running_apache_kafka(_LISTENERS, properties) as broker:
        yield SecuredKafka(broker, authority, stranger, folder)


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """Apache Kafka with TLS, SASL and access rights, for the whole session."""
    with running_secured_kafka(tmp_path_factory.mktemp("secured-kafka")) as running:
        yield running


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
