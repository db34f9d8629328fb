"""From a name to a kind of provider."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from support.paths import SUPPORT

from pipeline.errors import FatalError
from pipeline.webhooks.sources import Ecs, Weavr
from pipeline.webhooks.sources.configured import Hmac, StandardWebhooks
from pipeline.webhooks.sources.loading import installed, load_kind

PACKAGE = SUPPORT / "parcel_source"


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody's package, installed."""
    monkeypatch.syspath_prepend(str(PACKAGE))
    yield
    sys.modules.pop("parcel_source", None)


def _refusal(name: str) -> tuple[str, str]:
    with pytest.raises(FatalError) as caught:
        load_kind(name)
    return caught.value.code, caught.value.message


def test_the_built_in_ones_are_found_as_anybodys() -> None:
    kinds = [type(load_kind(name)) for name in ("ecs", "hmac", "standard-webhooks", "weavr")]
    assert kinds == [Ecs, Hmac, StandardWebhooks, Weavr]


def test_an_unknown_name_lists_what_is_installed() -> None:
    code, message = _refusal("weaver")
    assert code == "source_kind_unknown"
    assert message == "There is no kind of source 'weaver'. Installed: ecs, hmac, standard-webhooks, weavr."


@pytest.mark.usefixtures("package")
def test_an_installed_package_brings_its_own() -> None:
    assert "parcels" in installed()
    assert type(load_kind("parcels")).__name__ == "Parcels"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("parcels-broken", "source_kind_invalid", "a class with a pydantic model `Options`"),
        ("parcels-half", "source_kind_invalid", "`verifier(self, name, options, secrets)`"),
        ("parcels-needy", "source_kind_invalid", "must take no parameters"),
        ("parcels-missing", "source_kind_unknown", "The module defines: "),
        ("parcels-no-module", "source_kind_unknown", "cannot be imported: there is no module "),
        (
            "parcels-no-module",
            "source_kind_unknown",
            "(pip install), or set PYTHONPATH to the folder that holds the module",
        ),
    ],
)
def test_a_broken_one_is_named_with_what_it_lacks(name: str, code: str, words: str) -> None:
    found, message = _refusal(name)
    assert found == code
    assert f"{name} (" in message
    assert words in message
