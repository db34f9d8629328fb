from __future__ import annotations

import pytest
from pydantic import ValidationError
from support.paths import ROOT

from pipeline.subscriber import SubscriberSettings

PAGE = (ROOT / "docs" / "subscribers.md").read_text("utf-8")


@pytest.mark.parametrize("name", SubscriberSettings.model_fields)
def test_every_setting_is_on_the_page(name: str) -> None:
    table = PAGE.partition("## Settings")[2].partition("\n## ")[0]
    assert f"`{name}`" in table


@pytest.mark.parametrize("session_timeout_seconds", [1.0, 10.0, 300.0])
def test_what_depends_on_the_session_follows_it(session_timeout_seconds: float) -> None:
    """A member's own settings refuse times that do not fit each other."""
    consumer = SubscriberSettings(session_timeout_seconds=session_timeout_seconds).for_consumer()
    assert type(consumer).model_validate(consumer.model_dump()) == consumer


def test_pauses_that_contradict_each_other_are_refused_when_they_are_said() -> None:
    with pytest.raises(ValidationError, match="backoff_min must not exceed backoff_max"):
        SubscriberSettings(backoff_min=5, backoff_max=1)
