"""Secrets come from files; what is wrong with one is said without showing it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.secret_files import SecretUnreadable
from pipeline.settings import ConfigError, load_settings

SASL = '[kafka]\nbootstrap_servers = "a:1"\n[kafka.sasl]\nmechanism = "PLAIN"\nusername = "me"\n'


def written(folder: Path, line: str) -> Path:
    path = folder / "pipeline.toml"
    path.write_text(f"{SASL}{line}\n")
    return path


def problems(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    return caught.value.problems


def test_any_secret_may_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("pässword\n", "utf-8")
    secret.chmod(0o600)
    warnings: list[str] = []
    settings = load_settings(written(tmp_path, 'password_file = "password"'), {}, warn=warnings.append)
    assert settings.cluster.sasl is not None
    assert settings.cluster.sasl.password == SecretStr("pässword")
    assert warnings == []


def test_a_file_that_everybody_can_read_is_warned_of(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("synthetic-password")
    secret.chmod(0o644)
    warnings: list[str] = []
    load_settings(written(tmp_path, 'password_file = "password"'), {}, warn=warnings.append)
    assert warnings == [f"kafka.sasl.password_file: {secret} can be read by every user; run: chmod 600 {secret}"]


def test_the_warning_is_logged_unless_someone_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "password"
    secret.write_text("x")
    secret.chmod(0o644)
    load_settings(written(tmp_path, 'password_file = "password"'), {})
    assert "secret_file_exposed" in capsys.readouterr().out


def test_a_missing_file_is_the_only_problem_of_its_key(tmp_path: Path) -> None:
    """What names no file may be the secret itself: the value is not repeated."""
    (problem,) = problems(written(tmp_path, 'password_file = "planted-0123456789"'))
    assert problem == (
        "kafka.sasl.password_file: no file exists at this path; create it with only the secret "
        f"in it: (umask 077; printf %s SECRET > FILE); relative paths start from {tmp_path}"
    )


def test_a_secret_beside_its_file_is_refused(tmp_path: Path) -> None:
    assert problems(written(tmp_path, 'password = "x"\npassword_file = "y"')) == (
        "kafka.sasl.password_file: password is set too; set only one of the two",
    )


@pytest.mark.parametrize("value", ["5", '""'])
def test_a_path_is_a_text(tmp_path: Path, value: str) -> None:
    assert problems(written(tmp_path, f"password_file = {value}")) == (
        'kafka.sasl.password_file: this is not a path in quotes; write e.g. password_file = "secrets/password"',
    )


def test_a_secret_written_where_its_path_belongs_is_not_shown(tmp_path: Path) -> None:
    token = "eyJ" + "x" * 80
    (line,) = problems(written(tmp_path, f'password_file = "{token}"'))
    assert token not in line
    assert "no file exists at this path (is it the secret itself?)" in line


def test_an_odd_secret_is_warned_of(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text('"planted-0123456789"')
    secret.chmod(0o600)
    warnings: list[str] = []
    load_settings(written(tmp_path, 'password_file = "password"'), {}, warn=warnings.append)
    assert warnings == [
        (
            f"kafka.sasl.password_file: {secret} holds a text in quotes, which are taken for a part of the secret; "
            "delete them if they are none"
        )
    ]


def test_no_secret_is_read_when_the_caller_takes_the_names_of_their_files(tmp_path: Path) -> None:
    unread: list[str] = []
    settings = load_settings(written(tmp_path, 'password_file = "not-mounted-here"'), {}, unread=unread.append)
    assert unread == ["kafka.sasl.password_file"]
    assert settings.cluster.sasl is not None


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty"),
        (b"planted\xff", "is not UTF-8 text"),
        (b"planted\n\n", "must hold the secret alone"),
        (b"x" * 65_537, "is longer than 16384 bytes"),
    ],
)
def test_a_file_without_a_usable_secret_is_named(tmp_path: Path, content: bytes, fault: str) -> None:
    secret = tmp_path / "password"
    secret.write_bytes(content)
    (problem,) = problems(written(tmp_path, 'password_file = "password"'))
    assert problem.startswith(f"kafka.sasl.password_file: {secret} {fault}")
    assert "planted" not in problem


def test_a_wrong_secret_value_is_not_shown(tmp_path: Path) -> None:
    assert problems(written(tmp_path, "password = 12345678")) == (
        (
            'kafka.sasl.password: this value is not a text in quotes; write password_file = "PATH"; '
            "the file must hold only the secret"
        ),
    )


def test_stages_need_no_webhook_secrets(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(
        '[ecs.acme]\npartner_guid = "4933e450-d3c4-406f-9b9b-3afb812a5b7c"\ncallback = { token_file = "t" }\n'
        'webhook = { scheme = "hmac", secrets = [{ file = "not-mounted-here" }] }\n'
    )
    settings = load_settings(path, {}, webhook_secrets=False)
    assert list(settings.secrets()) == []
    with pytest.raises(SecretUnreadable):
        settings.ecs["acme"].webhook_secrets()
