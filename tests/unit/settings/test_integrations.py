"""Tables of sources of webhooks: `[weavr.NAME]` and `[webhooks.NAME]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.paths import SUPPORT

from pipeline.contracts import TOPICS
from pipeline.settings import ConfigError, Settings, load_settings
from pipeline.settings.review import review
from pipeline.webhooks.sources.configured import StandardWebhooks
from pipeline.webhooks.sources.settings import HmacOptions, StandardWebhooksOptions
from pipeline.webhooks.verification import PRESETS

PACKAGE = SUPPORT / "parcel_source"
WEAVR = '[weavr.acme]\nsecrets = [{ file = "key" }]\n'
PRESET_NAMES = ", ".join(f'"{name}"' for name in PRESETS)
SHOP = '[webhooks.shop]\nsecrets = [{ file = "key" }]\n'
BULK = "/bulk_process_end/watch"


@pytest.fixture
def parcels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody's package, installed."""
    monkeypatch.syspath_prepend(str(PACKAGE))
    yield
    sys.modules.pop("parcel_source", None)


def loaded(folder: Path, text: str, *, webhook_secrets: bool = True) -> Settings:
    for name, value in {"key": "synthetic-api-key-1", "segment": "synthetic-path-segment-1"}.items():
        (folder / name).write_text(value)
        (folder / name).chmod(0o600)
    (folder / "pipeline.toml").write_text(text)
    return load_settings(folder / "pipeline.toml", {}, webhook_secrets=webhook_secrets, warn=pytest.fail)


def refused(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text)
    assert "synthetic" not in str(caught.value)
    return caught.value.problems


def test_a_weavr_integration_needs_its_key_alone(tmp_path: Path) -> None:
    acme = loaded(tmp_path, WEAVR).weavr["acme"]
    assert (acme.name, acme.webhook_path) == ("acme", "/webhooks/weavr/acme")
    assert (acme.unverified_status, acme.tolerance_seconds) == (503, 18_000)
    assert (acme.missing_call_ref, acme.legacy_signature, acme.audit_accepted) == ("empty", False, False)
    assert [secret.id for secret in acme.webhook_secrets()] == ["key"]


def test_the_secret_segment_is_read_from_its_file_and_masked_in_logs(tmp_path: Path) -> None:
    settings = loaded(tmp_path, WEAVR + 'path_secret_file = "segment"\n')
    assert "synthetic-path-segment-1" in [secret.get_secret_value() for secret in settings.secrets()]
    assert "synthetic-path-segment-1" not in repr(settings)


def test_a_stage_needs_no_secret_of_a_webhook(tmp_path: Path) -> None:
    """Its settings are the same file, its secrets are not."""
    text = WEAVR.replace("key", "nowhere") + 'path_secret_file = "nowhere"\n'
    assert loaded(tmp_path, text, webhook_secrets=False).weavr["acme"].name == "acme"
    assert [problem.split(":")[0] for problem in refused(tmp_path, text)] == [
        "weavr.acme.secrets.0.file",
        "weavr.acme.path_secret_file",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[weavr.acme]", "weavr.acme.secrets: is missing; write a table for each: [[weavr.acme.secrets]] with file"),
        (
            f"{WEAVR}unverified_status = 429",
            "weavr.acme.unverified_status: 429 is not one of 401, 503; write e.g. unverified_status = 503",
        ),
        (
            f"{WEAVR}api_key = 1",
            (
                "weavr.acme.api_key: is not a setting; this table has: audit_accepted, legacy_signature, "
                "missing_call_ref, name, path_secret, requests_per_second, secrets, tolerance_seconds, unsigned_paths, "
                "unverified_status, webhook_path"
            ),
        ),
        (
            f'{WEAVR}unsigned_paths = [{{ path = "{BULK}" }}]',
            (
                f"weavr.acme.unsigned_paths.0: nothing protects {BULK}: name source_addresses, or set "
                "require_path_secret = true, or both"
            ),
        ),
        (
            f'{WEAVR}webhook_path = "/webhooks/sources/shop"\n{SHOP}preset = "github"',
            "webhooks.shop.webhook_path: '/webhooks/sources/shop' is also the path of weavr.acme; write another",
        ),
        (
            f'{WEAVR}{SHOP}preset = "github"\nwebhook_path = "/webhooks/weavr/acme/shop"',
            (
                "webhooks.shop.webhook_path: '/webhooks/weavr/acme/shop' is below the path of weavr.acme, which "
                "receives events on paths below it; write another"
            ),
        ),
        (
            f"{WEAVR}name = 'other'",
            "weavr.acme.name: 'other' differs from the key of its table; leave name out",
        ),
        (
            '[weavr.acme]\nsecrets = [{ file = "key" }, { file = "key" }]',
            "weavr.acme: two secrets have the same name: give each an id of its own",
        ),
        (
            SHOP,
            (
                'webhooks.shop: write either preset = "github" or another of docs/reference/senders.md, or source = '
                '"hmac" or another'
            ),
        ),
        (
            f'{SHOP}preset = "gitlab"',
            f"webhooks.shop.preset: 'gitlab' is not one of {PRESET_NAMES}; write e.g. preset = \"github\"",
        ),
        (
            f'{SHOP}source = "weavr"',
            "webhooks.shop: source = 'weavr' has its own kind of table: write [weavr.shop]",
        ),
        (
            f'{SHOP}source = "parcel"',
            (
                "webhooks.shop.source: There is no kind of source 'parcel'. Installed: ecs, hmac, standard-webhooks, "
                "weavr."
            ),
        ),
        (
            '[webhooks.shop]\nsource = "hmac"',
            'webhooks.shop: secrets is missing; write e.g. secrets = [{ file = "secrets/NAME" }]',
        ),
        (
            f'{SHOP}source = "hmac"\nurl_checks = ["hub-challenge"]',
            "webhooks.shop: url_checks contains hub-challenge, which needs a verify token: set url_check_token_file",
        ),
        (
            f'{SHOP}preset = "slack"\nurl_check_token_file = "key"',
            (
                "webhooks.shop: only the URL check hub-challenge uses url_check_token_file: add "
                "hub-challenge to url_checks, or remove the token"
            ),
        ),
        (
            (f'{SHOP}source = "hmac"\nurl_checks = ["crc-token"]\noptions = {{ signed = ["timestamp"], timestamp = '
            '"header:X-Time", body_unsigned = true }'),
            (
                "webhooks.shop: crc-token signs any text that a request contains, so it needs a signed "
                "body: remove it from url_checks, or remove body_unsigned"
            ),
        ),
        (
            f'{SHOP}source = "hmac"\ntopic = "webhook-events.quarantine"',
            "webhooks.shop: topic = 'webhook-events.quarantine' is taken; write another, such as webhook-events.shop",
        ),
        (
            f'{SHOP}preset = "github"\n{SHOP.replace("shop", "zoo")}preset = "github"\ntopic = "webhook-events.shop"',
            "webhooks.zoo.topic: 'webhook-events.shop' is also the topic of webhooks.shop; write another",
        ),
        (
            f'{SHOP}source = "hmac"\ntype = "json:"',
            "webhooks.shop.type.0: 'json:' names no value of a request: write 'header:NAME' or 'json:/pointer'",
        ),
        (
            f'{SHOP}source = "hmac"\noptions = {{ haeder = "X" }}',
            "webhooks.shop.options.haeder: is not a setting; did you mean header?",
        ),
        (
            f'{SHOP}preset = "github"\noptions = {{ hash = "md5" }}',
            (
                "webhooks.shop.options.hash: 'md5' is not one of \"sha256\", \"sha512\", \"sha1\"; write e.g. hash = "
                '"sha256"'
            ),
        ),
        (
            f'{SHOP}preset = "github"\noptions = {{ signed = ["timestamp", "body"] }}',
            (
                "webhooks.shop.options: signed names 'timestamp': say which value it is, e.g. timestamp = "
                "'header:X-Timestamp'"
            ),
        ),
    ],
)  # fmt: skip
def test_a_refusal_says_what_to_write(tmp_path: Path, text: str, problem: str) -> None:
    assert refused(tmp_path, text) == (problem,)


def test_a_preset_brings_scheme_and_attributes_and_both_can_be_changed(tmp_path: Path) -> None:
    shop = loaded(tmp_path, f'{SHOP}preset = "stripe"\nkey = "json:/account"\noptions = {{ tolerance_seconds = 60 }}\n')
    options = shop.webhooks["shop"].kind_with_options()[1]
    assert isinstance(options, HmacOptions)
    assert (options.header, options.tolerance_seconds) == ("Stripe-Signature", 60)
    assert options.event.id == ("json:/id",)
    assert options.event.key == ("json:/account",)


def test_a_preset_may_follow_standard_webhooks_with_other_header_names(tmp_path: Path) -> None:
    shop = loaded(tmp_path, f'{SHOP}preset = "clerk"\n').webhooks["shop"]
    options = shop.kind_with_options()[1]
    assert isinstance(options, StandardWebhooksOptions)
    assert (shop.kind_name, options.header_prefix) == ("standard-webhooks", "svix")
    assert (options.event.id, options.event.key) == (("header:svix-id",), ("json:/data/id",))


def test_a_key_alone_leaves_id_and_type_of_standard_webhooks_as_they_are(tmp_path: Path) -> None:
    """Otherwise two events with equal bodies would be one."""
    text = f'{SHOP}source = "standard-webhooks"\nkey = "json:/account"\noptions = {{ header_prefix = "svix" }}\n'
    options = loaded(tmp_path, text).webhooks["shop"].kind_with_options()[1]
    assert isinstance(options, StandardWebhooksOptions)
    assert options.event.id == ("header:svix-id",)
    assert options.event.type == ("json:/type", "text:event")
    assert options.event.key == ("json:/account",)


def test_standard_webhooks_may_have_public_keys_alone(tmp_path: Path) -> None:
    key = "whpk_" + "A" * 43 + "="
    text = (
        '[webhooks.svc]\nsource = "standard-webhooks"\n'
        f'options = {{ public_keys = [{{ id = "k", value = "{key}" }}] }}\n'
    )
    kind, options = loaded(tmp_path, text).webhooks["svc"].kind_with_options()
    assert isinstance(kind, StandardWebhooks)
    assert isinstance(options, kind.Options)


@pytest.mark.usefixtures("parcels")
def test_an_installed_source_checks_its_own_options(tmp_path: Path) -> None:
    source = f'{SHOP}source = "parcels"\n'
    assert loaded(tmp_path, f"{source}options = {{ depots = 3 }}\n").webhooks["shop"].kind_name == "parcels"
    assert refused(tmp_path, f"{source}options = {{ depots = 0 }}\n") == (
        "webhooks.shop.options.depots: 0 is not at least 1; write e.g. depots = 1",
    )
    assert refused(tmp_path, f'{source}id = "json:/id"\noptions = {{ depots = 1 }}\n') == (
        "webhooks.shop.id: is not a setting of source parcels",
    )


def test_a_stage_needs_no_sources_installed(tmp_path: Path) -> None:
    text = f'{SHOP}source = "not-installed-here"\n'
    assert loaded(tmp_path, text, webhook_secrets=False).webhooks["shop"].source == "not-installed-here"


def test_topics_of_configured_sources_follow_the_table(tmp_path: Path) -> None:
    topics = loaded(tmp_path, f'{SHOP}preset = "github"\npartitions = 1\n').all_topics
    assert topics[: len(TOPICS)] == TOPICS
    (spec,) = topics[len(TOPICS) :]
    assert (spec.topic, spec.partitions, spec.retention_ms) == ("webhook-events.shop", 1, 7 * 86_400_000)


def test_what_loses_events_is_warned_of(tmp_path: Path) -> None:
    text = (
        f"{WEAVR}tolerance_seconds = 300\nlegacy_signature = true\nunverified_status = 401\n"
        'missing_call_ref = "refuse"\n'
        f'{SHOP}source = "hmac"\noptions = {{ signed = ["header:X-Id"], body_unsigned = true }}\n'
    )
    warnings = [warning.split(":")[0] for warning in review(loaded(tmp_path, text)).warnings]
    assert warnings == [
        "kafka",
        "weavr.acme.tolerance_seconds",
        "weavr.acme.legacy_signature",
        "weavr.acme.unverified_status",
        "weavr.acme.missing_call_ref",
        "weavr.acme.unsigned_paths",
        "webhooks.shop.options.body_unsigned",
    ]


def test_a_path_that_is_open_to_the_world_is_warned_of(tmp_path: Path) -> None:
    text = f'{WEAVR}unsigned_paths = [{{ path = "{BULK}", source_addresses = ["192.0.2.0/24", "::/0"] }}]\n'
    assert [warning for warning in review(loaded(tmp_path, text)).warnings if warning.startswith("weavr")] == [
        f"weavr.acme.unsigned_paths: {BULK} is open to every address, so anybody can send events; write Weavr's"
    ]


@pytest.mark.parametrize(
    ("dates", "warned"),
    [
        ('not_after = "2026-01-01T00:00:00Z"', True),
        ('not_before = "2026-01-01T00:00:01Z"', True),
        ('not_after = "2026-01-01T00:00:01Z"', False),
    ],
)
def test_keys_of_which_none_counts_are_warned_of(tmp_path: Path, dates: str, *, warned: bool) -> None:
    """The ingress would answer 503 to every request."""
    secrets = f'secrets = [{{ file = "key", {dates} }}]\n'
    text = f'[weavr.acme]\n{secrets}[webhooks.shop]\npreset = "slack"\n{secrets}'
    warnings = review(loaded(tmp_path, text), now=datetime(2026, 1, 1, tzinfo=UTC)).warnings
    found = [warning.split(":")[0] for warning in warnings if "no secret is active now" in warning]
    assert found == (["weavr.acme.secrets", "webhooks.shop.secrets"] if warned else [])


def test_good_settings_of_sources_have_no_warning(tmp_path: Path) -> None:
    text = (
        '[kafka]\nbootstrap_servers = "a:1"\n'
        f'{WEAVR}unsigned_paths = [{{ path = "{BULK}", source_addresses = ["192.0.2.0/24"] }}]\n'
        f'{SHOP}preset = "slack"\n'
    )
    assert review(loaded(tmp_path, text)).warnings == ()
