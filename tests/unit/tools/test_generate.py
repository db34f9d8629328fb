"""Generated files are fresh, and staleness is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from support.paths import ROOT

from pipeline.contracts import TOPICS
from pipeline.contracts.weavr import KINDS
from pipeline.observability import Metrics, SubscriberMetrics
from pipeline.webhooks.answers import STATUSES
from tools import api_page, generate
from tools.markdown import table

PROMISES = (ROOT / "docs" / "reference" / "public-api.md").read_text("utf-8")


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
    pages = [text for name, text in generate.generated().items() if name.startswith("docs/reference/events/")]
    page = "".join(pages)
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


def test_each_metric_has_one_row_with_its_name_as_it_is_exposed() -> None:
    page = generate.generated()["docs/reference/metrics.md"]
    exposed = "".join(generate_latest(one.registry).decode() for one in (Metrics(), SubscriberMetrics()))
    names = set(re.findall(r"^# TYPE (pipeline_\w+) ", exposed, re.MULTILINE))
    names = {name for name in names if not name.endswith("_created")}
    assert re.findall(r"^\| `(\w+)`", page, re.MULTILINE).count("pipeline_publish_seconds") == 1
    assert set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)) == names


def test_the_pages_of_python_show_what_is_promised() -> None:
    promised = re.findall(r"^\| `(pipeline\.[\w.]+)` \| (.+?) \|", PROMISES, re.MULTILINE)
    wanted = {module: set(re.findall(r"`(\w+)`", names)) for module, names in promised}
    for name in api_page.PAGES:
        for module, names in api_page.shown(name).items():
            assert wanted.get(module, set()) <= set(names), module


def test_a_docstring_becomes_markdown() -> None:
    docstring = "Do ``x`` with :class:`~a.B`.\n\nArgs:\n    one: First,\n        and more.\n\nReturns:\n    A value."
    assert api_page.markdown(docstring) == (
        "Do `x` with `B`.\n\n"
        "| Argument | Meaning |\n| --- | --- |\n| `one` | First, and more. |\n\n"
        "**Returns** A value."
    )


def test_schemas_are_schemas() -> None:
    schema = json.loads(generate.generated()["schemas/events/card-batch.requested.v1.json"])
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "job_guid" in schema["required"]


def test_cells_cannot_break_a_table() -> None:
    assert table(("a",), [("x | y\nz",)]) == "| a |\n| --- |\n| x \\| y z |"
