from __future__ import annotations

import pytest

from pipeline.contracts import SPECS, Topic
from pipeline.subscriber import dead_letter_topics
from pipeline.subscriber.topics import checked_group, dead_letter_topic, topic_of


@pytest.mark.parametrize(
    ("name", "topic"),
    [
        ("managed-cards", "card-events.managed-cards"),
        ("card-events.stepup", "card-events.stepup"),
        ("card-batch.completed", "card-batch.completed"),
        ("webhook-events.github", "webhook-events.github"),
        ("partner.events", "partner.events"),
    ],
)
def test_a_category_or_a_topic_is_named(name: str, topic: str) -> None:
    assert topic_of(name) == topic


@pytest.mark.parametrize("name", ["managed-card", "card-events.managed-card", ""])
def test_a_name_that_is_neither_is_refused_with_the_categories(name: str) -> None:
    with pytest.raises(ValueError, match=r"Categories: .*managed-cards"):
        topic_of(name)


def test_dead_letters_of_step_up_challenges_are_guarded_and_kept_as_their_topic() -> None:
    plain, stepup = dead_letter_topics("fraud")
    source = SPECS[Topic.EVENTS_STEPUP]
    assert (plain.topic, stepup.topic) == ("fraud.dead-letter", "fraud.stepup.dead-letter")
    assert (stepup.retention_ms, stepup.sensitive) == (source.retention_ms, True)
    assert plain.retention_ms == SPECS[Topic.BATCH_DEAD_LETTER].retention_ms


@pytest.mark.parametrize(
    "topic", [Topic.EVENTS_STEPUP, Topic.EVENTS_STEPUP_QUARANTINE, "another.group.stepup.dead-letter"]
)
def test_only_step_up_goes_there(topic: str) -> None:
    assert dead_letter_topic("fraud", topic) == "fraud.stepup.dead-letter"
    assert dead_letter_topic("fraud", Topic.EVENTS_LOGIN) == "fraud.dead-letter"


@pytest.mark.parametrize("group", ["", "a b", "x" * 201, "fraud.stepup", "card-batch", "audit"])
def test_a_group_whose_dead_letters_have_no_topic_of_their_own_is_refused(group: str) -> None:
    with pytest.raises(ValueError, match="group"):
        checked_group(group)
