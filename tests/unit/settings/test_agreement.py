"""What several tables together break is refused when the settings are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.settings import ConfigError, Settings, load_settings
from pipeline.settings.agreement import shared_store_problems

ACME = '[ecs.acme]\nwebhook = { scheme = "hmac", secrets = [{ file = "w" }] }\n'
BY_FILE = f'{ACME}callback = {{ token_file = "t" }}\n'
WATCHED = (
    '[weavr.acme]\nsecrets = [{ file = "k" }]\n'
    'unsigned_paths = [{ path = "/bulk_process_end/watch", source_addresses = ["192.0.2.0/24"] }]\n'
)
ANY = "0.0.0.0"  # noqa: S104 - a test listens on nothing
LISTED = "(hosts.allow_private = true would allow it)"


def problems(folder: Path, text: str) -> tuple[str, ...]:
    (folder / "pipeline.toml").write_text(text)
    try:
        load_settings(folder / "pipeline.toml", {}, webhook_secrets=False, warn=pytest.fail)
    except ConfigError as error:
        return error.problems
    return ()


@pytest.mark.parametrize(
    ("ingress", "management", "said"),
    [
        (("127.0.0.1", 9000), ("127.0.0.1", 9000), "write e.g. port = 9001"),
        ((ANY, 9000), ("127.0.0.1", 9000), "write e.g. port = 9001"),
        (("127.0.0.1", 65_535), ("::", 65_535), "write e.g. port = 8081"),
        (("127.0.0.1", 9000), ("127.0.0.2", 9000), None),
        (("127.0.0.1", 0), ("127.0.0.1", 0), None),
        ((ANY, 9000), (ANY, 9001), None),
    ],
)
def test_two_servers_have_two_ports(
    tmp_path: Path, ingress: tuple[str, int], management: tuple[str, int], said: str | None
) -> None:
    text = "".join(
        f'[{table}]\nhost = "{host}"\nport = {port}\n'
        for table, (host, port) in {"ingress": ingress, "management": management}.items()
    )
    found = problems(tmp_path, text)
    port = management[1]
    whole = f"management.port: {port} is also ingress.port, and one process opens both; {said}"
    assert found == ((whole,) if said else ())


@pytest.mark.parametrize("networks", [["0.0.0.0/0"], ["10.0.0.0/8", "::/0"], ["0.0.0.0/1", "128.0.0.0/1"]])
def test_an_address_that_anybody_may_claim_protects_nothing(tmp_path: Path, networks: list[str]) -> None:
    (problem,) = problems(tmp_path, f"[ingress]\ntrusted_proxies = {networks}\n{WATCHED}")
    assert problem.startswith("ingress.trusted_proxies: ")
    assert problem.endswith(
        "trusts X-Forwarded-For from everybody, so source_addresses of weavr.acme.unsigned_paths "
        "(/bulk_process_end/watch) protects nothing; write the networks of your proxies"
    )


def test_proxies_with_addresses_of_their_own_are_trusted(tmp_path: Path) -> None:
    assert problems(tmp_path, f'[ingress]\ntrusted_proxies = ["10.0.0.0/8"]\n{WATCHED}') == ()
    everybody = '[ingress]\ntrusted_proxies = ["0.0.0.0/0"]\n[weavr.acme]\nsecrets = [{ file = "k" }]\n'
    assert problems(tmp_path, everybody) == ()


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("10.0.0.7", f"is at a private address, which is not allowed {LISTED}"),
        ("127.0.0.1:8443", f"is at a private address, which is not allowed {LISTED}"),
        ("[::1]:8443", f"is at a private address, which is not allowed {LISTED}"),
        ("localhost:8443", f"is at a private address, which is not allowed {LISTED}"),
        ("files.localhost", f"is at a private address, which is not allowed {LISTED}"),
        ("169.254.169.254", "is at a forbidden address, which is not allowed (no setting allows it)"),
    ],
)
def test_a_host_to_which_no_connection_goes_is_refused(tmp_path: Path, host: str, said: str) -> None:
    found = problems(tmp_path, f'{BY_FILE}hosts = {{ input = ["a.example", "{host}"] }}\n')
    assert found == (f"ecs.acme.hosts.input: {host!r} {said}",)


def test_a_private_host_that_is_allowed_passes(tmp_path: Path) -> None:
    assert (
        problems(tmp_path, f'{BY_FILE}hosts = {{ input = ["10.0.0.7", "localhost:1"], allow_private = true }}\n') == ()
    )


def test_the_hosts_of_other_partners_follow_the_same_rules(tmp_path: Path) -> None:
    text = (
        '[webhooks.bank]\nsource = "hmac"\nsecrets = [{ file = "k" }]\n'
        'jobs = { partner = "example-bank", hosts = { result = ["10.0.0.7"] } }\n'
    )
    (problem,) = problems(tmp_path, text)
    assert problem.startswith("webhooks.bank.jobs.hosts.result: '10.0.0.7' is at a private address")


@pytest.mark.parametrize(
    ("url", "hosts", "said"),
    [
        (
            "http://id.example.com/token",
            "",
            (
                "http:// would send the client secret unencrypted; write https://, or ecs.acme.hosts.allow_http = true "
                "for a test on one machine"
            ),
        ),
        (
            "https://10.0.0.7/token",
            "",
            f"its host is at a private address, which is not allowed {LISTED}",
        ),
        ("http://127.0.0.1:1/token", "hosts = { allow_http = true, allow_private = true }\n", None),
        ("https://id.example.com/token", "", None),
    ],
)
def test_the_token_server_is_reached_by_the_rules_of_callbacks(
    tmp_path: Path, url: str, hosts: str, said: str | None
) -> None:
    oauth = f'{{ token_url = "{url}", client_id = "c", client_secret_file = "s" }}'
    (tmp_path / "s").write_text("planted-0123456789")
    found = problems(tmp_path, f"{ACME}callback = {{ oauth = {oauth} }}\n{hosts}")
    assert found == ((f"ecs.acme.callback.oauth.token_url: {said}",) if said else ())


@pytest.mark.parametrize(
    ("servers", "store", "fine"),
    [
        ("localhost:9092,127.0.0.1:9093, [::1]:9094", {}, True),
        ("kafka-0:9092", {}, False),
        ("localhost:9092,kafka-0:9092", {}, False),
        ("10.0.0.7:9092", {"kind": "local", "path": "store"}, False),
        ("kafka-0:9092", {"kind": "local", "path": "/mnt/store", "shared": True}, True),
        ("kafka-0:9092", {"kind": "s3", "bucket": "jobs"}, True),
    ],
)
def test_a_folder_of_one_host_is_no_store_for_stages_on_several(
    servers: str, store: dict[str, Any], *, fine: bool
) -> None:
    tables: dict[str, Any] = {"kafka": {"bootstrap_servers": servers}} | ({"store": store} if store else {})
    found = list(shared_store_problems(Settings.model_validate(tables)))
    assert [problem.partition(":")[0] for problem in found] == ([] if fine else ["store.path"])
    assert fine or "shared = true" in found[0]


def test_one_process_with_everything_needs_no_shared_store() -> None:
    assert list(shared_store_problems(Settings())) == []
