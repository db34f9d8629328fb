"""Generated files are fresh, and staleness is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.paths import ROOT

from pipeline.contracts import TOPICS
from pipeline.contracts.weavr import KINDS
from pipeline.webhooks.answers import STATUSES
from tools import generate
from tools.markdown import table


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The generated files, in a folder of their own."""
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    generate.write(tmp_path)
    return tmp_path


def test_the_projects_files_are_fresh() -> None:
    assert generate.stale(ROOT) == []


def test_a_stale_file_is_named_with_the_command(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0
    (copy / "docs" / "reference" / "topics.md").write_text("old")
    (copy / "docs" / "reference" / "errors.md").unlink()
    (copy / "schemas" / "events" / "gone.v1.json").write_text("{}")
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "docs/reference/errors.md is stale; run: make generate",
        "docs/reference/topics.md is stale; run: make generate",
        "schemas/events/gone.v1.json is stale; run: make generate",
    ]


def test_generating_makes_them_fresh(copy: Path) -> None:
    (copy / "docs" / "reference" / "topics.md").write_text("old")
    (copy / "schemas" / "events" / "gone.v1.json").write_text("{}")
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_what_was_released_is_not_stale(copy: Path) -> None:
    (copy / "schemas" / "released" / "events").mkdir(parents=True)
    (copy / "schemas" / "released" / "events" / "former.v1.json").write_text("{}")
    assert generate.main(["--check"]) == 0


def test_each_event_has_its_section() -> None:
    page = generate.generated()["docs/reference/events.md"]
    assert [kind.type for kind in KINDS if f"\n## {kind.type}\n" not in page or f"`{kind.path}`" not in page] == []
    assert "| `authToken` | string | no | **Sensitive.** |" in page


def test_each_topic_status_and_key_has_a_row() -> None:
    files = generate.generated()
    assert all(f"`{spec.topic}`" in files["docs/reference/topics.md"] for spec in TOPICS)
    assert all(f"`{row.answer}`" in files["docs/reference/statuses.md"] for row in STATUSES)
    for key in ("`bootstrap_servers`", "`chunks_in_flight`", "`password` or `password_file`", "[ecs.NAME.hosts]"):
        assert key in files["docs/reference/settings.md"]


def test_error_codes_are_read_from_the_source() -> None:
    page = generate.generated()["docs/reference/errors.md"]
    assert "| `csv_unterminated_quote` | permanent | jobs.csv_engine |" in page
    assert "| `config_invalid` | fatal | settings |" in page
    assert "| `kafka_records_lost` | fatal | kafka |" in page
    assert "| `url_userinfo` | permanent | outbound |" in page


def test_schemas_are_schemas() -> None:
    schema = json.loads(generate.generated()["schemas/events/card-batch.requested.v1.json"])
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "job_guid" in schema["required"]


def test_cells_cannot_break_a_table() -> None:
    assert table(("a",), [("x | y\nz",)]) == "| a |\n| --- |\n| x \\| y z |"
