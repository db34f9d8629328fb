"""From a name to a processor: what is found, what is refused, and with which words."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from structlog.testing import capture_logs
from support.loud_processors import LOUD, shout

from pipeline.errors import FatalError, TransientError
from pipeline.jobs.csv_engine import CsvSettings
from pipeline.jobs.processors import Card, CardResult, JobContext, ProcessorSettings, adopt, installed, load
from pipeline.jobs.processors.http import Http
from pipeline.jobs.processors.validate import Validate
from pipeline.outbound import NetworkSettings
from pipeline.testing import job_context, run_processor

SECRET: Final = "4111111111111111"


def refused(target: object, **options: Any) -> tuple[str, str]:
    """Return code and message of the refusal."""
    with pytest.raises(FatalError) as caught:
        adopt(target, ProcessorSettings(name="mine", options=options))
    return caught.value.code, caught.value.message


def refused_name(name: str) -> str:
    """Return the message of the refusal."""
    with pytest.raises(FatalError) as caught:
        load(ProcessorSettings(name=name))
    assert caught.value.code == "processor_unknown"
    return caught.value.message


class Plain:
    """Takes options as keywords."""

    def __init__(self, programme: str, limit: int = 3) -> None:
        if limit < 0:
            raise ValueError("limit must not be negative")
        self.programme = programme

    async def process(self, _card: Card, _context: JobContext) -> CardResult:
        """Say which programme."""
        return CardResult(message=self.programme)


def test_the_built_in_processors_are_found_by_name() -> None:
    """Through the same entry points as anyone's."""
    assert set(installed()) >= {"validate", "http"}
    assert isinstance(load(ProcessorSettings()).processor, Validate)
    http = load(ProcessorSettings(name="http", options={"url": "https://cards.example.com/"}))
    assert isinstance(http.processor, Http)


def test_an_unknown_name_lists_what_is_installed() -> None:
    """The message also says how to name a processor of your own."""
    message = refused_name("valdiate")
    assert "'valdiate'" in message
    assert "http, validate" in message
    assert "module:name" in message


def test_a_module_and_name_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file on the path is enough; names within names too."""
    (tmp_path / "my_cards_module.py").write_text("async def check(card, context): ...\nclass A:\n    b = check\n")
    monkeypatch.syspath_prepend(tmp_path)
    load(ProcessorSettings(name="my_cards_module:check"))
    load(ProcessorSettings(name="my_cards_module:A.b"))
    assert "cannot be imported" in refused_name("my_cards_module:missing")
    assert "cannot be imported" in refused_name("no_such_module:check")
    sys.modules.pop("my_cards_module")


def test_a_module_that_is_not_found_says_how_to_make_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same holds for a package whose submodule is missing."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name, missing in {
        "no_such_module:check": "no_such_module",
        "no_such.loader:check": "no_such",
        "my_package.loader:A": "my_package.loader",
    }.items():
        message = refused_name(name)
        assert message.startswith(f"Processor {name} cannot be imported: there is no module {missing!r} ")
        assert "Install its package beside the pipeline (pip install), or set PYTHONPATH to the folder" in message
    sys.modules.pop("my_package")


def test_a_wrong_name_lists_what_the_module_defines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imported names and private ones are left out."""
    (tmp_path / "my_named_module.py").write_text(
        "from pathlib import Path\nasync def load(card, context): ...\nclass Loader: ...\ndef _help(): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert refused_name("my_named_module:Lader").endswith(
        "module 'my_named_module' has no attribute 'Lader'. The module defines: Loader, load."
    )
    sys.modules.pop("my_named_module")


@pytest.mark.parametrize("name", [":check", "./acme.py:check", "acme.py:check", "acme-cards:check", "acme:two:parts"])
def test_a_path_or_another_form_is_refused_with_an_example(name: str) -> None:
    assert refused_name(name) == (
        f"Processor {name!r} is not written as module:name, for example acme.loader:Loader"
        " for the class Loader in acme/loader.py."
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import os\nimport no_such_library\n", "No module named 'no_such_library', at {}:2."),
        ("from pathlib import Nothing\n", "cannot import name 'Nothing' from 'pathlib' (pathlib.py), at {}:1."),
        ("\n\ndef broken(:\n    ...\n", "it raised SyntaxError at {}:3."),
        ("limits = {}\nlimit = limits['eu']\n", "it raised KeyError at {}:2."),
        ("limit = None\nlimit.lower()\n", "it raised AttributeError at {}:2."),
    ],
)
def test_a_module_that_fails_while_it_is_imported_is_named_by_its_line(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is not one of Python's own import system."""
    (tmp_path / "my_broken_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    message = re.sub(r"\([^)]*pathlib[^)]*\)", "(pathlib.py)", refused_name("my_broken_module:check"))
    assert message == "Processor my_broken_module:check cannot be imported: " + said.format(
        f"{tmp_path.name}/my_broken_module.py"
    )


async def test_a_class_gets_its_options_as_keywords() -> None:
    """An option that the settings lack has the default of the class."""
    rows = await run_processor(Plain, [{"card_number": "1"}], programme="gold")
    assert rows == [{"card_number": "1", "status": "ok", "message": "gold"}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "missing a required argument: 'programme'"),
        ({"programme": "x", "limits": 1}, "unexpected keyword argument 'limits'"),
        ({"programme": "x", "limit": -1}, "limit must not be negative"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], said: str) -> None:
    """The error comes before any card is processed."""
    code, message = refused(Plain, **options)
    assert code == "processor_options"
    assert said in message


def test_options_for_what_takes_none_are_refused() -> None:
    """A class without constructor, a function without keywords, an instance."""

    class Bare:
        async def process(self, _card: Card, _context: JobContext) -> CardResult:
            return CardResult()

    async def function(card: Card, context: JobContext) -> None: ...

    for target in (Bare, function, Bare()):
        assert refused(target, x=1)[0] == "processor_options"


async def test_a_plain_function_may_have_options_result_columns_and_a_version() -> None:
    """Options are keywords behind card and context; the others are attributes."""

    async def function(card: Card, _context: JobContext, *, factor: int = 2) -> CardResult:
        return CardResult(columns={"points": str(int(card.columns["n"]) * factor)})

    function.result_columns = ("points",)  # type: ignore[attr-defined]
    function.version = 7  # type: ignore[attr-defined]
    assert adopt(function, ProcessorSettings()).version == "7"
    rows = await run_processor(function, [{"card_number": "1", "n": "4"}], factor=3)
    assert [row["points"] for row in rows] == ["12"]


def test_what_is_no_processor_is_refused_with_what_it_needs() -> None:
    """Neither form, both forms, or a process that is not async."""

    class Neither: ...

    class Both:
        async def process(self, _card: Card, _context: JobContext) -> CardResult:
            return CardResult()

        def process_batch(self, batch: object, context: JobContext) -> object: ...

    class NotAsync:
        def process(self, _card: Card, _context: JobContext) -> CardResult:
            return CardResult()

    def function(card: Card, context: JobContext) -> None: ...

    for target, what in (
        (Neither, "neither"),
        (Both, "both"),
        (NotAsync, "neither"),
        (function, "neither"),
        (7, "neither"),
    ):
        code, message = refused(target)
        assert code == "processor_invalid"
        assert what in message


@pytest.mark.parametrize("attribute", ["result_columns", "input_columns"])
@pytest.mark.parametrize("columns", ["points", ("a", "a"), ("",), (1,), 7])
def test_its_columns_must_be_different_names(attribute: str, columns: Any) -> None:
    """One string is a common slip."""

    class Mine(Plain):
        pass

    setattr(Mine, attribute, columns)
    code, message = refused(Mine, programme="x")
    assert code == "processor_invalid"
    assert attribute in message


async def test_open_and_close_surround_the_work() -> None:
    """Once each, close also after a failure; what has neither needs neither."""
    steps: list[str] = []

    class Opens(Plain):
        async def open(self) -> None:
            steps.append("open")

        async def close(self) -> None:
            steps.append("close")

        async def process(self, card: Card, _context: JobContext) -> CardResult:
            steps.append(card.number)
            return CardResult()

    await run_processor(Opens, [{"card_number": "1"}], programme="x")
    assert steps == ["open", "1", "close"]
    with pytest.raises(ZeroDivisionError):
        async with adopt(Opens, ProcessorSettings(options={"programme": "x"})):
            raise ZeroDivisionError
    assert steps[3:] == ["open", "close"]


@pytest.mark.parametrize("way", list(LOUD))
async def test_a_processor_that_cannot_be_opened_is_opened_later(way: str) -> None:
    """Jobs of other integrations are done meanwhile, so nothing that it raises may stop the process."""
    steps: list[str] = []

    class Opens(Plain):
        async def open(self) -> None:
            steps.append("open")
            if len(steps) < 3:
                shout(way, SECRET)

        async def close(self) -> None:
            steps.append("close")
            shout(way, SECRET)

    loaded = adopt(Opens, ProcessorSettings(name="mine", options={"programme": "x"}))
    with capture_logs() as logs:
        await loaded.open_or_wait()
        with pytest.raises(TransientError, match=r"Processor mine cannot be opened: its open raised \w+ at") as caught:
            await loaded.open()
        await loaded.open()
        await loaded.open()
        await loaded.close()
        await loaded.close()
    assert steps == ["open", "open", "open", "close"]
    assert caught.value.code == "processor_unavailable"
    assert [line["event"] for line in logs] == [
        "processor_open_failed", "processor_not_opened", "processor_open_failed", "processor_not_closed"
    ]  # fmt: skip
    assert SECRET not in f"{logs!r}{caught.value}"
    assert {line["error"] for line in logs if "error" in line} == {LOUD[way].__name__}


@pytest.mark.parametrize("way", ["exit", "panic", "memory"])
def test_what_a_module_or_a_constructor_raises_is_named_by_class_and_line(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text may hold an option, which may be a secret."""

    class Mine(Plain):
        def __init__(self, programme: str) -> None:
            shout(way, programme)

    code, message = refused(Mine, programme=SECRET)
    assert code == "processor_invalid"
    assert re.fullmatch(
        rf"Processor mine cannot be constructed: it raised {LOUD[way].__name__} at processors/test_loading.py:\d+.",
        message,
    )
    (tmp_path / "my_loud_module.py").write_text(
        f"from support.loud_processors import shout\nshout({way!r}, {SECRET!r})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    said = refused_name("my_loud_module:Mine")
    assert f"cannot be imported: it raised {LOUD[way].__name__} at" in said
    assert SECRET not in said


def test_half_a_life_cycle_is_refused() -> None:
    """A close that is never called would leak; one that is not async would never be awaited."""

    class OnlyOpen(Plain):
        async def open(self) -> None: ...

    class OnlyClose(Plain):
        async def close(self) -> None: ...

    class NotAsync(OnlyClose):
        def open(self) -> None: ...

    for target in (OnlyOpen, OnlyClose, NotAsync):
        code, message = refused(target, programme="x")
        assert code == "processor_invalid"
        assert "async def open(self)" in message


async def test_cards_may_be_given_for_a_format_without_header() -> None:
    """The names in the mappings are then ignored."""
    settings = CsvSettings(header=False, card_column="2", drop_columns=())
    rows = await run_processor("validate", [{"x": "1", "y": "4111111111111111"}], csv_settings=settings)
    assert rows == [{"column_1": "1", "column_2": "4111111111111111", "status": "ok", "message": ""}]


def test_a_constructor_that_asks_for_the_network_gets_it() -> None:
    """CA bundle and proxy are settings of the whole process."""

    class Wants(Plain):
        def __init__(self, *, network: NetworkSettings, programme: str = "") -> None:
            super().__init__(programme)
            self.network = network

    network = NetworkSettings(ca_file=Path("ca.pem"))
    found = adopt(Wants, ProcessorSettings(options={"programme": "x"}), network).processor
    assert isinstance(found, Wants)
    assert found.network is network


async def test_context_and_name_reach_the_processor() -> None:
    """As ``pipeline.testing`` makes them."""
    seen: list[JobContext] = []

    async def look(_card: Card, context: JobContext) -> None:
        seen.append(context)

    context = job_context(integration="acme")
    await run_processor(look, "card_number\n1\n", context=context)
    assert seen == [context]
    assert await run_processor(look, []) == []
