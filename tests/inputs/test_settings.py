"""Settings as people write them: what `config check` says, and with what to do. A start refuses what it refuses."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from support.config_check import config_check
from support.inputs_page import answers
from support.logging_state import logging_restored

__all__ = ["logging_restored"]

BROKERS: Final = '[kafka]\nbootstrap_servers = "kafka-0:9092"\n'
SHOP: Final = '[webhooks.shop]\npreset = "slack"\nsecrets = [{ file = "key" }]\n'
STORE: Final = "[store]\nshared = true\n"
PARTS: Final = '[parts]\nkeys = [{ id = "1", file = "part-key" }]\n'
ECS: Final = '[ecs.acme]\nwebhook = { scheme = "hmac", secrets = [{ file = "key" }] }\n'
TOKEN: Final = 'callback = { token_file = "key" }\n'


def shop(text: str) -> str:
    """Return settings with a source that is right behind them."""
    return text + SHOP


def beside_shop(text: str) -> str:
    """Return settings with brokers and a source that are right before them."""
    return BROKERS + SHOP + text


def ecs(text: str) -> str:
    """Return the table of an ECS integration that lacks callback and hosts."""
    return BROKERS + STORE + PARTS + ECS + text


def jobs(text: str) -> str:
    """Return the table of an ECS integration that lacks hosts."""
    return ecs(TOKEN + text)


def alone(text: str) -> str:
    """Return settings behind brokers that are right."""
    return BROKERS + text


CASES: Final[dict[str, str | bytes]] = {
    "brokers-one": shop('[kafka]\nbootstrap_servers = "kafka-0:9092"\n'),
    "brokers-several-with-blanks": shop('[kafka]\nbootstrap_servers = "kafka-0:9092, kafka-1:9092"\n'),
    "brokers-ipv6": shop('[kafka]\nbootstrap_servers = "[2001:db8::7]:9092"\n'),
    "brokers-url": shop('[kafka]\nbootstrap_servers = "kafka://planted-0:9092"\n'),
    "brokers-credentials": shop('[kafka]\nbootstrap_servers = "me:planted@kafka-0:9092"\n'),
    "brokers-no-port": shop('[kafka]\nbootstrap_servers = "kafka-0:9092,planted-1"\n'),
    "brokers-text-port": shop('[kafka]\nbootstrap_servers = "planted-0:kafka"\n'),
    "brokers-port-zero": shop('[kafka]\nbootstrap_servers = "planted-0:0"\n'),
    "brokers-port-too-high": shop('[kafka]\nbootstrap_servers = "planted-0:65536"\n'),
    "brokers-empty-entry": shop('[kafka]\nbootstrap_servers = "kafka-0:9092,"\n'),
    "brokers-blanks-for-commas": shop('[kafka]\nbootstrap_servers = "kafka-0:9092 planted-1:9092"\n'),
    "brokers-ipv6-without-brackets": shop('[kafka]\nbootstrap_servers = "2001:db8::7:9092"\n'),
    "brokers-path": shop('[kafka]\nbootstrap_servers = "/planted:9092"\n'),
    "brokers-empty": shop('[kafka]\nbootstrap_servers = ""\n'),
    "brokers-list": shop('[kafka]\nbootstrap_servers = ["kafka-0:9092"]\n'),
    "brokers-missing": shop("[kafka]\n"),
    "kafka-as-text": shop('kafka = "planted-0123456789"\n'),
    "tls-empty": shop('[kafka]\nbootstrap_servers = "kafka-0:9092"\n[kafka.tls]\n'),
    "tls-without-key": shop('[kafka]\nbootstrap_servers = "kafka-0:9092"\n[kafka.tls]\ncert_file = "cert"\n'),
    "tls-without-certificate": shop('[kafka]\nbootstrap_servers = "kafka-0:9092"\n[kafka.tls]\nkey_file = "key"\n'),
    "tls-missing-ca": shop(
        '[kafka]\nbootstrap_servers = "kafka-0:9092"\n[kafka.tls]\nca_file = "planted-0123456789"\n'
    ),
    "tls-ca-without-certificate": shop('[kafka]\nbootstrap_servers = "kafka-0:9092"\n[kafka.tls]\nca_file = "key"\n'),
    "tls-missing-certificate": shop(
        '[kafka]\nbootstrap_servers = "kafka-0:9092"\n[kafka.tls]\ncert_file = "planted"\nkey_file = "key"\n'
    ),
    "tls-key-instead-of-its-file": shop(
        "[kafka]\n"
        'bootstrap_servers = "kafka-0:9092"\n'
        "[kafka.tls]\n"
        'cert_file = "cert"\n'
        'key_file = "-----BEGIN planted-----"\n'
    ),
    "tls-key-of-another": shop(
        '[kafka]\nbootstrap_servers = "kafka-0:9092"\n[kafka.tls]\ncert_file = "cert"\nkey_file = "other"\n'
    ),
    "tls-expired": shop(
        '[kafka]\nbootstrap_servers = "kafka-0:9092"\n[kafka.tls]\ncert_file = "old"\nkey_file = "cert-key"\n'
    ),
    "tls-chain-in-disorder": shop(
        '[kafka]\nbootstrap_servers = "kafka-0:9092"\n[kafka.tls]\ncert_file = "chain"\nkey_file = "ca-key"\n'
    ),
    "tls-fits": shop(
        "[kafka]\n"
        'bootstrap_servers = "kafka-0:9092"\n'
        "[kafka.tls]\n"
        'cert_file = "cert"\n'
        'key_file = "cert-key"\n'
        'ca_file = "ca"\n'
    ),
    "tls-expired-authority": shop('[kafka]\nbootstrap_servers = "kafka-0:9092"\n[kafka.tls]\nca_file = "old"\n'),
    "tls-as-text": shop('[kafka]\nbootstrap_servers = "kafka-0:9092"\ntls = "planted-0123456789"\n'),
    "protocol-without-sasl": shop('[kafka]\nbootstrap_servers = "kafka-0:9092"\nsecurity_protocol = "SASL_SSL"\n'),
    "protocol-without-use-of-sasl": shop(
        "[kafka]\n"
        'bootstrap_servers = "kafka-0:9092"\n'
        'security_protocol = "SSL"\n'
        "[kafka.sasl]\n"
        'mechanism = "PLAIN"\n'
        'username = "me"\n'
        'password_file = "key"\n'
    ),
    "protocol-plain-beside-tls": shop(
        '[kafka]\nbootstrap_servers = "kafka-0:9092"\nsecurity_protocol = "PLAINTEXT"\n[kafka.tls]\n'
    ),
    "protocol-unknown": shop('[kafka]\nbootstrap_servers = "kafka-0:9092"\nsecurity_protocol = "TLS"\n'),
    "sasl-plain-without-tls": shop(
        "[kafka]\n"
        'bootstrap_servers = "kafka-0:9092"\n'
        "[kafka.sasl]\n"
        'mechanism = "PLAIN"\n'
        'username = "me"\n'
        'password_file = "key"\n'
    ),
    "sasl-plain-with-tls": shop(
        "[kafka]\n"
        'bootstrap_servers = "kafka-0:9092"\n'
        "[kafka.tls]\n"
        "[kafka.sasl]\n"
        'mechanism = "PLAIN"\n'
        'username = "me"\n'
        'password_file = "key"\n'
    ),
    "sasl-without-password": shop(
        '[kafka]\nbootstrap_servers = "kafka-0:9092"\n[kafka.tls]\n[kafka.sasl]\nmechanism = "PLAIN"\nusername = "me"\n'
    ),
    "sasl-with-useless-key": shop(
        "[kafka]\n"
        'bootstrap_servers = "kafka-0:9092"\n'
        "[kafka.tls]\n"
        "[kafka.sasl]\n"
        'mechanism = "PLAIN"\n'
        'username = "me"\n'
        'password_file = "key"\n'
        'client_id = "planted"\n'
    ),
    "sasl-password-twice": shop(
        "[kafka]\n"
        'bootstrap_servers = "kafka-0:9092"\n'
        "[kafka.tls]\n"
        "[kafka.sasl]\n"
        'mechanism = "PLAIN"\n'
        'username = "me"\n'
        'password_file = "key"\n'
        'password = "planted"\n'
    ),
    "sasl-as-text": shop('[kafka]\nbootstrap_servers = "kafka-0:9092"\nsasl = "planted-0123456789"\n'),
    "sasl-password-as-number": shop(
        "[kafka]\n"
        'bootstrap_servers = "kafka-0:9092"\n'
        "[kafka.tls]\n"
        "[kafka.sasl]\n"
        'mechanism = "PLAIN"\n'
        'username = "me"\n'
        "password = 12345678\n"
    ),
    "oauth-over-https": shop(
        "[kafka]\n"
        'bootstrap_servers = "kafka-0:9092"\n'
        "[kafka.tls]\n"
        "[kafka.sasl]\n"
        'mechanism = "OAUTHBEARER"\n'
        'client_id = "c"\n'
        'client_secret_file = "key"\n'
        'token_url = "https://id.example/t"\n'
    ),
    "oauth-over-http": shop(
        "[kafka]\n"
        'bootstrap_servers = "kafka-0:9092"\n'
        "[kafka.tls]\n"
        "[kafka.sasl]\n"
        'mechanism = "OAUTHBEARER"\n'
        'client_id = "c"\n'
        'client_secret_file = "key"\n'
        'token_url = "http://id.example/t"\n'
    ),
    "oauth-on-loopback": shop(
        "[kafka]\n"
        'bootstrap_servers = "kafka-0:9092"\n'
        "[kafka.tls]\n"
        "[kafka.sasl]\n"
        'mechanism = "OAUTHBEARER"\n'
        'client_id = "c"\n'
        'client_secret_file = "key"\n'
        'token_url = "http://127.0.0.1:1/t"\n'
    ),
    "oauth-no-url": shop(
        "[kafka]\n"
        'bootstrap_servers = "kafka-0:9092"\n'
        "[kafka.tls]\n"
        "[kafka.sasl]\n"
        'mechanism = "OAUTHBEARER"\n'
        'client_id = "c"\n'
        'client_secret_file = "key"\n'
        'token_url = "https://planted example"\n'
    ),
    "oauth-without-url": shop(
        "[kafka]\n"
        'bootstrap_servers = "kafka-0:9092"\n'
        "[kafka.tls]\n"
        "[kafka.sasl]\n"
        'mechanism = "OAUTHBEARER"\n'
        'client_id = "c"\n'
        'client_secret_file = "key"\n'
    ),
    "number-true": beside_shop("[ingress]\nport = true\n"),
    "number-false": beside_shop("[ingress]\nmax_in_flight = false\n"),
    "number-inf": beside_shop("[ingress]\ndeadline_seconds = inf\n"),
    "number-minus-inf": beside_shop("[ingress]\ndrain_seconds = -inf\n"),
    "number-nan": beside_shop("[ingress]\ndrain_seconds = nan\n"),
    "number-inf-for-days": beside_shop("[retention]\nreceipts_days = inf\n"),
    "number-inf-as-text": beside_shop('[ingress]\nread_timeout_seconds = "inf"\n'),
    "number-with-unit": beside_shop('[ingress]\ndeadline_seconds = "10s"\n'),
    "number-as-text": beside_shop('[ingress]\nport = "9000"\n'),
    "number-with-fraction": beside_shop("[ingress]\nport = 8080.5\n"),
    "number-too-high": beside_shop("[ingress]\nport = 70000\n"),
    "number-too-low": beside_shop("[ingress]\nport = -1\n"),
    "boolean-as-word": beside_shop('[transfer]\nexpect_continue = "perhaps"\n'),
    "ports-equal": beside_shop("[ingress]\nport = 8081\n"),
    "ports-equal-on-every-address": beside_shop('[ingress]\nport = 8081\nhost = "0.0.0.0"\n'),
    "ports-equal-on-two-addresses": beside_shop('[ingress]\nport = 8081\nhost = "127.0.0.2"\n'),
    "ports-chosen-by-the-system": beside_shop("[ingress]\nport = 0\n[management]\nport = 0\n"),
    "proxies-everybody-beside-addresses": beside_shop(
        "[ingress]\n"
        'trusted_proxies = ["0.0.0.0/0"]\n'
        "[weavr.acme]\n"
        'secrets = [{ file = "key" }]\n'
        'unsigned_paths = [{ path = "/bulk_process_end/watch", source_addresses = ["192.0.2.0/24"] }]\n'
    ),
    "proxies-everybody-in-halves": beside_shop(
        "[ingress]\n"
        'trusted_proxies = ["0.0.0.0/1", "128.0.0.0/1"]\n'
        "[weavr.acme]\n"
        'secrets = [{ file = "key" }]\n'
        'unsigned_paths = [{ path = "/bulk_process_end/watch", source_addresses = ["192.0.2.0/24"] }]\n'
    ),
    "proxies-everybody": beside_shop('[ingress]\ntrusted_proxies = ["::/0"]\n'),
    "proxies-own": beside_shop(
        "[ingress]\n"
        'trusted_proxies = ["10.0.0.0/8"]\n'
        "[weavr.acme]\n"
        'secrets = [{ file = "key" }]\n'
        'unsigned_paths = [{ path = "/bulk_process_end/watch", source_addresses = ["192.0.2.0/24"] }]\n'
    ),
    "proxies-host-bits": beside_shop('[ingress]\ntrusted_proxies = ["10.1.2.3/8"]\n'),
    "proxies-as-text": beside_shop('[ingress]\ntrusted_proxies = "10.0.0.0/8"\n'),
    "hosts-name": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
    ),
    "hosts-suffix": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["*.example.com"] }\n'
    ),
    "hosts-top-level": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["*.com"] }\n'
    ),
    "hosts-country": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["*.co.uk"] }\n'
    ),
    "hosts-star": jobs('hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["*"] }\n'),
    "hosts-private": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["10.0.0.7"] }\n'
    ),
    "hosts-loopback-name": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["localhost:8443"] }\n'
    ),
    "hosts-link-local": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["169.254.169.254"] }\n'
    ),
    "hosts-url": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["https://a.example.com"] }\n'
    ),
    "hosts-port-too-high": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com:99999"] }\n'
    ),
    "hosts-private-allowed": jobs(
        'hosts = { input = ["10.0.0.7"], result = ["10.0.0.7"], callback = ["10.0.0.7"], allow_private = true }\n'
    ),
    "hosts-empty": jobs('hosts = { input = ["a.example.com"], callback = ["a.example.com"] }\n'),
    "token-server-over-http": ecs(
        'callback = { oauth = { token_url = "http://id.example/t", client_id = "c", client_secret_file = "key" } }\n'
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
    ),
    "token-server-private": ecs(
        'callback = { oauth = { token_url = "https://10.0.0.7/t", client_id = "c", client_secret_file = "key" } }\n'
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
    ),
    "token-server-over-https": ecs(
        'callback = { oauth = { token_url = "https://id.example/t", client_id = "c", client_secret_file = "key" } }\n'
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
    ),
    "callback-neither": ecs(
        "callback = {}\n"
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
    ),
    "callback-both": ecs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
        "[ecs.acme.callback]\n"
        'token_file = "key"\n'
        "[ecs.acme.callback.oauth]\n"
        'token_url = "https://id.example/t"\n'
        'client_id = "c"\n'
        'client_secret_file = "key"\n'
    ),
    "callback-as-text": ecs(
        'callback = "planted-0123456789"\n'
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
    ),
    "callback-token-as-list": ecs(
        'callback = { token_file = ["planted-0123456789"] }\n'
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
    ),
    "columns-equal": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
        'csv = { status_column = "message" }\n'
    ),
    "columns-of-the-input": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
        'csv = { status_column = "card_number" }\n'
    ),
    "columns-renamed-unknown": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
        'csv = { rename_result_columns = { a = "b" } }\n'
    ),
    "delimiter-of-two": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
        'csv = { delimiter = "||" }\n'
    ),
    "processor-unknown": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
        'processor = { name = "acme-cards" }\n'
    ),
    "processor-unknown-option": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
        'processor = { name = "http", options = { url = "https://card.example.com/{id}", verb = "planted" } }\n'
    ),
    "processor-batch-without-body": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
        'processor = { name = "http", options = { url = "https://card.example.com", batch = { size = 9 } } }\n'
    ),
    "processor-two-credentials": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
        'processor = { name = "http", options = { url = "https://card.example.com", token_file = "secrets/token", '
        'basic = { user = "planted", password_file = "secrets/password" } } }\n'
    ),
    "processor-misspelt-option": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
        'processor = { name = "validate", options = { min_lenght = 3 } }\n'
    ),
    "processor-options-as-text": jobs(
        'hosts = { input = ["f.example.com"], result = ["f.example.com"], callback = ["a.example.com"] }\n'
        'processor = { name = "http", options = "planted" }\n'
    ),
    "source-neither": alone('[webhooks.shop]\nsecrets = [{ file = "key" }]\n'),
    "source-unknown-option": alone(
        '[webhooks.shop]\nsource = "hmac"\nsecrets = [{ file = "key" }]\noptions = { colour = "planted" }\n'
    ),
    "source-secret-as-text": alone('[webhooks.shop]\nsource = "hmac"\nsecrets = "planted-0123456789"\n'),
    "source-secret-in-list": alone('[webhooks.shop]\nsource = "hmac"\nsecrets = ["planted-0123456789"]\n'),
    "source-secret-as-file-name": alone(
        "[webhooks.shop]\n"
        'source = "hmac"\n'
        'secrets = [{ file = "whsec_planted0123456789/0123456789012345678901234567" }]\n'
    ),
    "source-secret-as-short-file-name": alone(
        '[webhooks.shop]\nsource = "hmac"\nsecrets = [{ file = "planted0123" }]\n'
    ),
    "source-file-as-number": alone('[webhooks.shop]\nsource = "hmac"\nsecrets = [{ file = 123456789 }]\n'),
    "source-no-secrets": alone('[webhooks.shop]\nsource = "hmac"\n'),
    "source-body-unsigned": alone(
        "[webhooks.shop]\n"
        'source = "hmac"\n'
        'secrets = [{ file = "key" }]\n'
        'options = { signed = ["header:X-Id"], body_unsigned = true }\n'
    ),
    "path-secret-short": alone('[weavr.acme]\nsecrets = [{ file = "key" }]\npath_secret = "planted"\n'),
    "store-half-a-key-pair": beside_shop('[store]\nkind = "s3"\nbucket = "jobs"\naccess_key_id_file = "key"\n'),
    "store-over-http": beside_shop('[store]\nkind = "s3"\nbucket = "jobs"\nendpoint = "http://s3.example.com"\n'),
    "store-unknown": beside_shop('[store]\nkind = "nfs"\n'),
    "store-missing-ca": beside_shop('[store]\nkind = "s3"\nbucket = "jobs"\nca_file = "nowhere"\n'),
    "signing-key-as-text": beside_shop('[audit]\nsigning_key = "planted-0123456789"\n'),
    "network-ca-missing": beside_shop('[network]\nca_file = "planted-0123456789"\n'),
    "network-proxy-no-url": beside_shop('[network]\nproxy = "planted:3128"\n'),
    "network-proxy-as-list": beside_shop('[network]\nproxy = ["http://me:planted@proxy:3128"]\n'),
    "key-misspelt": beside_shop("[ingress]\nprt = 1\n"),
    "key-unknown": beside_shop("[logging]\nzzz = 1\n"),
    "table-misspelt": beside_shop("[loging]\n"),
    "table-number": shop('management = 5\n[kafka]\nbootstrap_servers = "kafka-0:9092"\n'),
    "name-in-capitals": beside_shop('[webhooks.Shop]\npreset = "slack"\nsecrets = [{ file = "key" }]\n'),
    "toml-bom": "\ufeff" + BROKERS + SHOP,
    "toml-utf-16": (BROKERS + SHOP).encode("utf-16"),
    "toml-latin-1": (BROKERS + SHOP).encode() + "# \u00e9\n".encode("latin-1"),
    "toml-key-twice": beside_shop("[ingress]\nport = 9000\nport = 9001\n"),
    "toml-table-twice": beside_shop('[ingress]\nport = 9000\n[ingress]\nhost = "planted"\n'),
    "toml-open-quote": beside_shop('[ingress]\nhost = "planted\nport = 1\n'),
    "toml-open-quote-at-the-end": beside_shop("[ingress]\nhost = 'planted"),
    "toml-no-quotes": beside_shop("[ingress]\nhost = planted\n"),
    "toml-no-equals": beside_shop('[ingress]\nhost "planted"\n'),
    "toml-unit": beside_shop("[ingress]\ndeadline_seconds = 10s\n"),
    "toml-open-list": beside_shop('[ingress]\ntrusted_proxies = ["10.0.0.0/8"\n'),
    "toml-open-heading": beside_shop("[ingress\n"),
    "toml-backslash": beside_shop('[ingress]\ncapture_dir = "C:\\planted"\n'),
    "toml-windows-line-ends": beside_shop("[ingress]\r\nport = 9000\r\n"),
    "retention-too-short": beside_shop("[retention]\nreceipts_days = 7\n"),
    "body-larger-than-record": beside_shop("[ingress]\nmax_body_bytes = 1000000\n"),
}
PROMISED: Final = answers("settings")
"""The answers on the page: lines with `refused: ` or `warned: `, joined by slashes; or `accepted`."""


def _certificate(issuer: tuple[str, Ed25519PrivateKey], subject: str, key: Ed25519PrivateKey, last_day: int) -> bytes:
    name, signer = issuer
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=99))
        .not_valid_after(now + timedelta(days=last_day))
        .sign(signer, None)
    )
    return made.public_bytes(Encoding.PEM)


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture(scope="module")
def files() -> dict[str, bytes | str]:
    """The files that the settings may name."""
    authority, client, other = (Ed25519PrivateKey.generate() for _ in range(3))
    issuer = ("authority", authority)
    ca, cert = _certificate(issuer, "authority", authority, 99), _certificate(issuer, "client", client, 99)
    return {
        "key": b"synthetic-0123456789",
        "part-key": b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "ca": ca,
        "ca-key": _pem(authority),
        "cert": cert,
        "cert-key": _pem(client),
        "other": _pem(other),
        "old": _certificate(issuer, "client", client, -1),
        "chain": ca + cert,
    }


@pytest.fixture(autouse=True)
def _logging(logging_restored: None) -> None:
    """Commands configure logging."""


@pytest.mark.parametrize("name", CASES)
def test_config_check_gives_the_promised_answer(tmp_path: Path, files: dict[str, bytes | str], name: str) -> None:
    """It names key, rule and remedy, and shows no value that may be a secret in the wrong place."""
    settings = CASES[name]
    found = config_check(tmp_path, settings if isinstance(settings, bytes) else settings.encode(), files)
    lines = [f"refused: {line}" for line in found.problems] + [f"warned: {line}" for line in found.warnings]
    assert (" / ".join(_stable(line, tmp_path) for line in lines) or "accepted") == PROMISED[name]
    assert found.exit_code == (2 if found.problems else 0)
    assert "planted" not in found.output


def _stable(line: str, folder: Path) -> str:
    """Return a line without the folder and the times of the test."""
    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", line.replace(str(folder), "FOLDER"))
