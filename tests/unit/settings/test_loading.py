"""One file, the environment over it, all problems at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from pipeline.settings import ConfigError, Settings, config_path, load_settings
from pipeline.storage import LocalSettings, S3Settings

MINIMAL = """
[ecs.acme]
partner_guid = "4933e450-d3c4-406f-9b9b-3afb812a5b7c"
webhook = { scheme = "shared-secret", secrets = [{ file = "secrets/webhook" }] }
callback = { token_file = "secrets/token" }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "secrets").mkdir()
    secret = tmp_path / "secrets" / "webhook"
    secret.write_text("s3cret-of-the-webhook\n")
    secret.chmod(0o600)
    path = tmp_path / "pipeline.toml"
    path.write_text(MINIMAL)
    return path


def problems(path: Path | None, env: dict[str, str] | None = None, **options: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_settings(path, env or {}, **options)
    return caught.value.problems


def test_without_file_and_variables_there_are_defaults() -> None:
    settings = load_settings(None, {})
    assert settings.kafka is None
    assert settings.ecs == {}
    assert isinstance(settings.store, LocalSettings)
    assert settings.store.path == Path("store").absolute()


def test_an_integration_is_named_by_its_table_and_its_path_follows(file: Path) -> None:
    acme = load_settings(file, {}).ecs["acme"]
    assert acme.name == "acme"
    assert acme.webhook_path == "/webhooks/ecs/acme"
    assert acme.success_status == 202
    assert acme.limits.chunk_bytes == 1_048_576
    assert acme.limits.chunks_in_flight == 1


def test_a_secret_loses_one_newline_and_no_more(file: Path) -> None:
    """What remains is the secret as it is, or refused: nothing is repaired."""
    (file.parent / "secrets" / "webhook").write_text("s3  cret\n")
    (secret,) = load_settings(file, {}).ecs["acme"].webhook_secrets()
    assert secret.id == "webhook"
    assert secret.value.get_secret_value() == "s3  cret"
    (file.parent / "secrets" / "webhook").write_text(" s3cret \n\n")
    with pytest.raises(ConfigError, match="webhook must hold the secret alone") as caught:
        load_settings(file, {})
    assert "s3cret" not in str(caught.value)


def test_relative_paths_are_relative_to_the_files_folder(file: Path) -> None:
    settings = load_settings(file, {"PIPELINE_NETWORK__CA_FILE": "ca.pem"})
    assert settings.ecs["acme"].callback.token_file == file.parent / "secrets" / "token"
    assert settings.network.ca_file == file.parent / "ca.pem"
    assert settings.store == LocalSettings(path=file.parent / "store")


def test_variables_count_more_than_the_file_and_merge_with_it(file: Path) -> None:
    env = {
        "PIPELINE_ECS__ACME__SUCCESS_STATUS": "204",
        "PIPELINE_ECS__ACME__LIMITS__CHUNK_BYTES": "4096",
        "PIPELINE_ECS__ACME__CSV__DROP_COLUMNS": '["pin"]',
        "PIPELINE_STORE__KIND": "s3",
        "PIPELINE_STORE__BUCKET": "card-jobs",
        "PIPELINE_KAFKA": '{"bootstrap_servers": "a:1"}',
        "PIPELINE_KAFKA__TOPIC_PREFIX": "cards.",
    }
    settings = load_settings(file, env)
    acme = settings.ecs["acme"]
    assert acme.success_status == 204
    assert acme.limits.chunk_bytes == 4096
    assert acme.csv.drop_columns == ("pin",)
    assert settings.store == S3Settings(kind="s3", bucket="card-jobs")
    assert settings.cluster.bootstrap_servers == "a:1"
    assert settings.cluster.topic_prefix == "cards."


def test_other_programs_variables_are_left_alone() -> None:
    """Kubernetes sets such names for a service that is called pipeline-ingress."""
    env = {"PIPELINE_INGRESS_PORT": "tcp://10.0.0.1:80", "PIPELINE_CONFIG": "x", "PIPELINE_OTHER": "", "PATH": "/"}
    assert load_settings(None, env) == load_settings(None, {})


def test_constructing_settings_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_INGRESS__PORT", "1")
    assert Settings().ingress.port == 8080


def test_a_missing_cluster_is_named_where_it_is_needed() -> None:
    with pytest.raises(ConfigError) as caught:
        _ = load_settings(None, {}).cluster
    assert caught.value.problems == ('kafka: is missing; write [kafka] with e.g. bootstrap_servers = "kafka-0:9092"',)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nix.toml"
    assert problems(path) == (
        f"{path}: cannot be read (No such file or directory); name the settings file with --config or PIPELINE_CONFIG",
    )


@pytest.mark.parametrize("content", [b"[kafka\n", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_refused_with_where(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    assert caught.value.code == "config_unreadable"
    assert caught.value.problems[0].startswith(f"{path}: is not TOML: ")


def test_which_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option, then the variable, then pipeline.toml where it is there."""
    monkeypatch.chdir(tmp_path)
    env = {"PIPELINE_CONFIG": "b.toml"}
    assert config_path(Path("a.toml"), env) == Path("a.toml")
    assert config_path(None, env) == Path("b.toml")
    assert config_path(None, {"PIPELINE_CONFIG": ""}) is None
    Path("pipeline.toml").touch()
    assert config_path(None, {}) == Path("pipeline.toml")


def test_all_problems_of_all_sources_are_named_at_once(file: Path) -> None:
    file.write_text(
        MINIMAL.replace("secrets/webhook", "secrets/gone")
        + '[ecs.acme.limits]\nchunk_bytes = "abc"\nchunk_record = 5\n[loging]\n'
    )
    env = {"PIPELINE_KAFKE__X": "1", "PIPELINE_INGRESS__PORT": "many"}
    assert sorted(problems(file, env)) == sorted(
        (
            "kafke: is not a setting; did you mean kafka? (environment variable PIPELINE_KAFKE__X)",
            (
                "ecs.acme.webhook.secrets.0.file: no file exists at this path; create it with only the "
                f"secret in it: (umask 077; printf %s SECRET > FILE); relative paths start from {file.parent}"
            ),
            (
                "ingress.port: 'many' is not a whole number; write e.g. port = 8080 "
                "(environment variable PIPELINE_INGRESS__PORT)"
            ),
            "ecs.acme.limits.chunk_bytes: 'abc' is not a whole number of bytes; write e.g. chunk_bytes = 1048576",
            "ecs.acme.limits.chunk_record: is not a setting; did you mean chunk_records?",
            "loging: is not a setting; did you mean logging?",
        )
    )


def test_a_format_without_header_says_by_number_what_must_not_be_stored(file: Path) -> None:
    """No process starts with settings that would store a CVV because its column has no name."""
    file.write_text(f"{MINIMAL}csv = {{ header = false }}\n")
    (problem,) = problems(file)
    assert problem == (
        "ecs.acme.csv: with header = false the columns have no names; write card_column as a number, e.g. "
        'card_column = "1"; write drop_columns = ["3"] with the number of each column that holds a CVV, PIN or track '
        "data, or drop_columns = [] if there are none: without names the pipeline cannot find them and would store them"
    )
    for drop_columns in ("[]", '["2", "column_3"]'):
        file.write_text(f'{MINIMAL}csv = {{ header = false, card_column = "1", drop_columns = {drop_columns} }}\n')
        assert load_settings(file, {}).ecs["acme"].csv.header is False


def test_webhook_paths_are_unique(file: Path) -> None:
    file.write_text(
        MINIMAL
        + MINIMAL.replace("acme", "other").replace("partner_guid", 'webhook_path = "/webhooks/ecs/acme"\npartner_guid')
    )
    assert problems(file) == (
        "ecs.other.webhook_path: '/webhooks/ecs/acme' is also the path of ecs.acme; write another",
    )


def test_a_name_in_a_table_must_be_that_of_the_table(file: Path) -> None:
    file.write_text(MINIMAL.replace("partner_guid", 'name = "other"\npartner_guid'))
    assert problems(file) == ("ecs.acme.name: 'other' differs from the key of its table; leave name out",)


def test_a_list_in_a_variable_is_json(file: Path) -> None:
    env = {"PIPELINE_ECS__ACME__CSV__DROP_COLUMNS": "pin,cvv"}
    assert problems(file, env) == (
        (
            "ecs.acme.csv.drop_columns: 'pin,cvv' is not a list (in an environment variable: as JSON); "
            'write e.g. drop_columns = ["..."] (environment variable PIPELINE_ECS__ACME__CSV__DROP_COLUMNS)'
        ),
    )


def test_settings_are_frozen(file: Path) -> None:
    settings = load_settings(file, {})
    with pytest.raises(ValueError, match="frozen"):
        settings.ecs["acme"].success_status = 200  # type: ignore[misc]


def test_every_secret_value_is_known_to_the_redaction(file: Path) -> None:
    env = {
        "PIPELINE_KAFKA__BOOTSTRAP_SERVERS": "a:1",
        "PIPELINE_KAFKA__SASL__MECHANISM": "PLAIN",
        "PIPELINE_KAFKA__SASL__USERNAME": "me",
        "PIPELINE_KAFKA__SASL__PASSWORD": "kafka-password",
        "PIPELINE_NETWORK__PROXY": "http://me:proxy-password@proxy:3128",
    }
    values = {secret.get_secret_value() for secret in load_settings(file, env).secrets()}
    assert values == {"kafka-password", "http://me:proxy-password@proxy:3128", "s3cret-of-the-webhook"}


def test_no_representation_holds_a_secret(file: Path) -> None:
    env = {
        "PIPELINE_KAFKA__BOOTSTRAP_SERVERS": "a:1",
        "PIPELINE_KAFKA__SASL__MECHANISM": "PLAIN",
        "PIPELINE_KAFKA__SASL__USERNAME": "me",
        "PIPELINE_KAFKA__SASL__PASSWORD": "kafka-password",
    }
    settings = load_settings(file, env)
    for text in (repr(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert "kafka-password" not in text
    assert settings.cluster.sasl is not None
    assert settings.cluster.sasl.password == SecretStr("kafka-password")
