"""`pipeline cards run`: the engine on local files."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest
from support.command_line import Run
from support.loud_processors import LOUD

GOOD = b"card_number,note\n9999990000000006,a\n9999990000000015,b\n"
GUID = "cffde776-1d2a-4614-8023-a5148e411462"


def arguments(source: str = "in.csv", target: str = "out.csv", integration: str = "acme") -> tuple[str, ...]:
    return ("cards", "run", "--integration", integration, "--input", source, "--output", target)


def test_it_prints_what_became_of_the_cards(home: Path, run: Run) -> None:
    (home / "in.csv").write_bytes(GOOD)
    result = run(*arguments())
    written = (home / "out.csv").read_bytes()
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "records": 2,
        "ok": 1,
        "failed": 1,
        "error": None,
        "sha256": hashlib.sha256(written).hexdigest(),
    }
    assert written.splitlines()[:2] == [b"card_number,note,status,message", b"9999990000000006,a,ok,"]


def test_the_result_is_for_its_owner_only_and_nothing_else_is_left(home: Path, run: Run) -> None:
    (home / "in.csv").write_bytes(GOOD)
    run(*arguments(), "--json", "--job-guid", GUID)
    assert (home / "out.csv").stat().st_mode & 0o777 == 0o600
    assert not list(home.glob("*.partial")) + list(home.glob(".*.partial"))


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(GOOD, mtime=0),
        gzip.compress(GOOD[:20], mtime=0) + gzip.compress(GOOD[20:], mtime=0),
        gzip.compress(GOOD, mtime=0) + bytes(100),
    ],
    ids=["one member", "two members", "padded"],
)
def test_gzip_is_recognised_by_its_first_bytes(home: Path, run: Run, packed: bytes) -> None:
    (home / "plain.csv").write_bytes(GOOD)
    (home / "in.csv").write_bytes(packed)
    plain = json.loads(run(*arguments("plain.csv", "plain-out.csv")).stdout)
    assert json.loads(run(*arguments()).stdout) == plain


def test_a_large_gzip_is_inflated_in_pieces(home: Path, run: Run) -> None:
    line = b"9999990000000006," + b"x" * 83 + b"\n"
    (home / "in.csv").write_bytes(gzip.compress(b"card_number,note\n" + line * 30_000, mtime=0))
    assert json.loads(run(*arguments()).stdout)["ok"] == 30_000


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (
            b'card_number\n"41',
            {"code": "csv_unterminated_quote", "line": 2},
            "The quote opened on line 2 is not closed before the file ends.",
        ),
        (
            gzip.compress(GOOD, mtime=0)[:-12],
            {"code": "source_gzip_truncated", "line": None},
            "The file begins like gzip, but its data is damaged or ends too early.",
        ),
        (
            b"\x1f\x8b" + b"\x00" * 40,
            {"code": "source_gzip_broken", "line": None},
            "The file begins like gzip, but its data is damaged or ends too early.",
        ),
    ],
)
def test_a_refused_file_is_exit_3_and_writes_nothing(
    home: Path, run: Run, content: bytes, error: dict[str, object], message: str
) -> None:
    (home / "in.csv").write_bytes(content)
    (home / "out.csv").write_bytes(b"of an earlier run")
    result = run(*arguments())
    assert result.exit_code == 3
    assert json.loads(result.stdout) == {"records": 0, "ok": 0, "failed": 0, "error": error, "sha256": None}
    assert result.stderr == f"error: {error['code']}: {message}\n"
    assert (home / "out.csv").read_bytes() == b"of an earlier run"
    assert not list(home.glob(".*.partial"))


def test_an_unknown_integration_is_refused_with_those_there_are(home: Path, run: Run) -> None:
    (home / "in.csv").write_bytes(GOOD)
    result = run(*arguments(integration="acne"))
    assert result.exit_code == 2
    assert result.stderr == "error: integration_unknown: no integration 'acne' is configured; configured: acme\n"


def test_a_missing_input_is_a_wrong_command_line(home: Path, run: Run) -> None:
    del home
    assert run(*arguments()).exit_code == 2


def test_an_output_that_cannot_be_written_is_named(home: Path, run: Run) -> None:
    (home / "in.csv").write_bytes(GOOD)
    result = run(*arguments(target="nowhere/out.csv"))
    assert result.exit_code == 2
    assert "error: output_unwritable: nowhere/out.csv cannot be written (No such file or directory)" in result.stderr


def test_a_processor_that_is_not_there_is_a_wrong_setting(home: Path, run: Run) -> None:
    (home / "in.csv").write_bytes(GOOD)
    with (home / "pipeline.toml").open("a") as settings:
        settings.write('\n[ecs.acme.processor]\nname = "nix"\n')
    result = run(*arguments())
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"] == {"code": "processor_unknown", "line": None}


@pytest.mark.parametrize("form", ["LoudByRow", "LoudByBatch", "LoudInTask"])
@pytest.mark.parametrize("way", ["exception", "panic", "exit", "chain"])
def test_a_processor_that_fails_shows_where_and_no_card(home: Path, run: Run, form: str, way: str) -> None:
    """Its author needs class, file and line; its text holds the card."""
    with (home / "pipeline.toml").open("a") as settings:
        settings.write(f'\n[ecs.acme.processor]\nname = "support.loud_processors:{form}"\noptions.way = "{way}"\n')
    (home / "in.csv").write_bytes(b"card_number\n4111111111111111\n")
    result = run(*arguments())
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "processor_failed"
    assert f"raised {LOUD[way].__name__} at support/loud_processors.py:" in result.stderr
    assert "Traceback (most recent call last), without values:" in result.stderr
    assert "in shout" in result.stderr
    assert "4111111111111111" not in result.output


@pytest.mark.parametrize("beginning", [b"", b"sep=,\n", b"\xef\xbb\xbf"])
def test_a_file_without_header_is_refused_without_its_values(home: Path, run: Run, beginning: bytes) -> None:
    (home / "in.csv").write_bytes(beginning + b"tokAbCd,1234,Annabel\ntokEfGh,5678,Bo\n")
    result = run(*arguments())
    assert result.exit_code == 3
    assert result.stderr == (
        "error: csv_card_column_missing: The file has no column 'card_number' (card_column). Set card_column to the "
        "name or number of the column with the card number, or header = false if the file has no header. The line read "
        "as header has 3 fields: 1 (7 letters), 2 (4 digits), 3 (7 letters).\n"
    )
    assert json.loads(result.stdout)["error"] == {
        "code": "csv_card_column_missing",
        "line": 2 if b"sep" in beginning else 1,
    }
