"""Each refusal names the key, the rule and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contracts import Topic
from pipeline.settings import ConfigError, load_settings, toml_value
from pipeline.settings.refusals import shown

ACME = """
[ecs.acme]
partner_guid = "4933e450-d3c4-406f-9b9b-3afb812a5b7c"
callback = { token_file = "t" }
"""
WEBHOOK = 'webhook = { scheme = "hmac", secrets = [{ file = "w" }] }\n'


def refused(folder: Path, text: str) -> tuple[str, ...]:
    path = folder / "pipeline.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {}, webhook_secrets=False)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        # numbers and units
        ('[ingress]\nport = "x"', "ingress.port: 'x' is not a whole number; write e.g. port = 8080"),
        ("[ingress]\nport = 8080.5", "ingress.port: 8080.5 is not a whole number; write e.g. port = 8080"),
        ("[ingress]\nport = [1]", "ingress.port: this value is not a whole number; write e.g. port = 8080"),
        ("[ingress]\nport = 70000", "ingress.port: 70000 is not at most 65535; write e.g. port = 8080"),
        (
            '[ingress]\nread_timeout_seconds = "10s"',
            (
                "ingress.read_timeout_seconds: '10s' has a unit; write only the number of seconds: "
                "read_timeout_seconds = 10"
            ),
        ),
        (
            '[ingress]\nread_timeout_seconds = "soon"',
            "ingress.read_timeout_seconds: 'soon' is not a number of seconds; write e.g. read_timeout_seconds = 10.0",
        ),
        (
            "[ingress]\nread_timeout_seconds = 0",
            "ingress.read_timeout_seconds: 0 is not more than 0 seconds; write e.g. read_timeout_seconds = 10.0",
        ),
        (
            '[ingress]\nmax_body_bytes = "5MB"',
            "ingress.max_body_bytes: '5MB' has a unit; write only the number of bytes: max_body_bytes = 5000000",
        ),
        (
            "[consumer]\nslots = '5MB'",
            "consumer.slots: '5MB' is not a whole number; write e.g. slots = 64",
        ),
        (
            "[ingress]\nmax_body_bytes = 1",
            "ingress.max_body_bytes: 1 is not at least 1024 bytes; write e.g. max_body_bytes = 524288",
        ),
        (
            "[ingress]\nmax_body_bytes = 20_000_000",
            "ingress.max_body_bytes: 20000000 is not at most 16777216 bytes; write e.g. max_body_bytes = 524288",
        ),
        (
            '[ingress]\ntrusted_proxies = ["10.1.2.3/8"]',
            (
                "ingress.trusted_proxies.0: '10.1.2.3/8' is not a network; "
                'write e.g. "192.0.2.0/24", with zero bits after the prefix'
            ),
        ),
        (
            '[retention]\nreceipts_days = "2 hours"',
            "retention.receipts_days: '2 hours' has a unit; write only the number of days: receipts_days = 0.083333",
        ),
        # choices, texts, truth
        (
            '[logging]\nlevel = "verbose"',
            'logging.level: \'verbose\' is not one of "debug", "info", "warning", "error"; write e.g. level = "info"',
        ),
        ("[ingress]\nhost = 5", 'ingress.host: 5 is not a text in quotes; write e.g. host = "127.0.0.1"'),
        (
            '[transfer]\nexpect_continue = "perhaps"',
            "transfer.expect_continue: 'perhaps' is not true or false; write e.g. expect_continue = true",
        ),
        # tables, lists, keys
        ("ingress = 5", "ingress: 5 is not a table; write [ingress] and its keys below"),
        (
            '[ingress]\ntrusted_proxies = "10.0.0.0/8"',
            (
                "ingress.trusted_proxies: '10.0.0.0/8' is not a list (in an environment variable: as JSON); "
                'write e.g. trusted_proxies = ["..."]'
            ),
        ),
        ("[ingress]\nprt = 1", "ingress.prt: is not a setting; did you mean port?"),
        ("[logging]\nzzz = 1", "logging.zzz: is not a setting; this table has: format, level"),
        ('[store]\nbucket = "b"', "store.bucket: is not a setting; this table has: kind, path, shared"),
        (
            '[store]\nkind = "nfs"',
            "store: kind = 'nfs' is not one of 'local', 's3'; write kind = one of 'local', 's3'",
        ),
        (
            '[store]\nkind = "s3"',
            'store.bucket: is missing; write e.g. bucket = "..."',
        ),
        (
            '[kafka]\nbootstrap_servers = "a:1"\ntopics = { "card-batch.requestd" = "x" }',
            (
                "kafka.topics.card-batch.requestd: is not known; known: "
                + ", ".join(f"'{topic}'" for topic in list(Topic)[:-1])
                + " or 'audit.dead-letter'"
            ),
        ),
        # a package's own rule, in its own words
        (
            '[kafka]\nbootstrap_servers = "a:1"\nsasl = { mechanism = "PLAIN" }',
            "kafka.sasl: mechanism PLAIN needs username and password",
        ),
        # integrations
        (
            f"{ACME}{WEBHOOK}success_status = 201",
            "ecs.acme.success_status: 201 is not one of 200, 202, 204; write e.g. success_status = 202",
        ),
        (
            f'{ACME}{WEBHOOK}webhook_path = "no slash"',
            (
                "ecs.acme.webhook_path: 'no slash' does not match ^(/[A-Za-z0-9._~-]+)+$; "
                'write e.g. webhook_path = "/webhooks/ecs/NAME"'
            ),
        ),
        (
            f"{ACME.replace('acme', 'Acme')}{WEBHOOK}",
            (
                "ecs.Acme: is not a valid name of an integration; write 1 to 63 lower case letters, digits and dashes, "
                "starting with a letter or digit"
            ),
        ),
        (ACME, "ecs.acme.webhook: is missing; write a table: [ecs.acme.webhook]"),
        (
            f"{ACME}webhook = {{}}",
            "ecs.acme.webhook: scheme is missing; write scheme = one of 'shared-secret', 'hmac', 'standard-webhooks'",
        ),
        (
            f'{ACME}webhook = {{ scheme = "hmac" }}',
            "ecs.acme.webhook.secrets: is missing; write a table for each: [[ecs.acme.webhook.secrets]] with file",
        ),
        (
            f'{ACME}webhook = {{ scheme = "hmac", secrets = [] }}',
            (
                "ecs.acme.webhook.secrets: needs at least 1; "
                "write a table for each: [[ecs.acme.webhook.secrets]] with file"
            ),
        ),
        (
            f'{ACME}webhook = {{ scheme = "hmac", secrets = [{{ file = "w", not_after = "soon" }}] }}',
            (
                "ecs.acme.webhook.secrets.0.not_after: 'soon' is not a date and time with a zone; "
                'write e.g. not_after = "2027-01-31T12:00:00Z"'
            ),
        ),
        (
            f'{ACME}webhook = {{ scheme = "hmac", secrets = [{{ file = 7 }}] }}',
            'ecs.acme.webhook.secrets.0.file: this value is not a path in quotes; write e.g. file = "PATH"',
        ),
        (
            f"{ACME.replace('4933e450-d3c4-406f-9b9b-3afb812a5b7c', 'me')}{WEBHOOK}",
            (
                "ecs.acme.partner_guid: 'me' is not a GUID; "
                'write e.g. partner_guid = "4933e450-d3c4-406f-9b9b-3afb812a5b7c"'
            ),
        ),
        (
            f"{ACME}{WEBHOOK}csv = {{ rename_result_columns = 5 }}",
            (
                "ecs.acme.csv.rename_result_columns: 5 is not a table; "
                "write [ecs.acme.csv.rename_result_columns] and its keys below"
            ),
        ),
        (
            f'{ACME}{WEBHOOK}csv = {{ delimiter = "||" }}',
            (
                "ecs.acme.csv.delimiter: '||' is refused: String should have at most 1 character; "
                'write e.g. delimiter = ","'
            ),
        ),
    ],
)
def test_a_refusal_says_what_to_write(tmp_path: Path, text: str, problem: str) -> None:
    assert refused(tmp_path, text) == (problem,)


def test_a_dictionary_of_texts_has_an_example(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, f"{ACME}{WEBHOOK}csv = {{ rename_result_columns = {{ a = 5 }} }}")
    assert problem == 'ecs.acme.csv.rename_result_columns.a: 5 is not a text in quotes; write e.g. a = "..."'


@pytest.mark.parametrize("value", ["http://me:password@host", "x" * 61, "two\nlines"])
def test_a_text_that_may_hold_more_than_it_should_is_not_shown(value: str) -> None:
    assert shown(value) == "this text"


def test_truth_is_shown_as_toml_writes_it() -> None:
    assert shown(value=True) == "true"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (1.5, "1.5"),
        ('é"', '"é\\""'),
        (("a", 1), '["a", 1]'),
        ({"a": None, "b": "c"}, '{"b" = "c"}'),
        (None, '"None"'),
    ],
)
def test_values_are_rendered_as_toml(value: object, text: str) -> None:
    assert toml_value(value) == text
