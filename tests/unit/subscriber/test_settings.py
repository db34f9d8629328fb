from __future__ import annotations

import pytest
from pydantic import ValidationError
from support.paths import ROOT

from pipeline.subscriber import SubscriberRetry, SubscriberSettings

PAGE = (ROOT / "docs" / "reference" / "subscribers.md").read_text("utf-8")


NAMES = [
    *(name for name in SubscriberSettings.model_fields if name != "retry"),
    *(f"retry.{name}" for name in SubscriberRetry.model_fields),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_on_the_page(name: str) -> None:
    table = PAGE.partition("## Settings")[2].partition("\n## ")[0]
    assert f"`{name}`" in table


@pytest.mark.parametrize("session_timeout_seconds", [1.0, 10.0, 300.0])
def test_what_depends_on_the_session_follows_it(session_timeout_seconds: float) -> None:
    """A member's own settings refuse times that do not fit each other."""
    consumer = SubscriberSettings(session_timeout_seconds=session_timeout_seconds).for_consumer()
    assert type(consumer).model_validate(consumer.model_dump()) == consumer


def test_pauses_that_contradict_each_other_are_refused_when_they_are_said() -> None:
    with pytest.raises(ValidationError, match="first_seconds must not exceed max_seconds"):
        SubscriberRetry(first_seconds=5, max_seconds=1)
