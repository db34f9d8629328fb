"""The table of topics keeps its promises."""

from __future__ import annotations

from datetime import timedelta

from pipeline.contracts import SPECS, TOPICS, Topic


def test_every_topic_has_one_row() -> None:
    assert [spec.topic for spec in TOPICS] == list(Topic)
    assert set(SPECS) == set(Topic)


def test_what_could_not_be_handled_is_guarded_like_what_it_came_from() -> None:
    """A dead letter holds the record: its topic must be as sensitive, and keep it as long as that one at least."""
    for spec in TOPICS:
        if spec.dead_letter:
            letters = SPECS[spec.dead_letter]
            assert letters.sensitive >= spec.sensitive
            assert letters.retention_ms >= spec.retention_ms
            assert letters.dead_letter is None


def test_topics_that_hold_urls_or_tokens_are_sensitive_and_kept_for_a_week_at_most() -> None:
    sensitive = [spec for spec in TOPICS if spec.sensitive]
    assert {spec.topic for spec in sensitive} == {
        Topic.BATCH_REQUESTED,
        Topic.BATCH_QUARANTINE,
        Topic.BATCH_DEAD_LETTER,
        Topic.EVENTS_STEPUP,
        Topic.EVENTS_QUARANTINE,
        Topic.EVENTS_STEPUP_QUARANTINE,
        Topic.WEBHOOK_QUARANTINE,
    }
    assert all(timedelta(milliseconds=spec.retention_ms) <= timedelta(days=7) for spec in sensitive)


def test_the_stages_of_a_job_can_be_shared_by_equally_many_consumers() -> None:
    walk = (Topic.BATCH_REQUESTED, Topic.BATCH_PROCESSED, Topic.BATCH_UPLOADED, Topic.BATCH_FAILED)
    assert len({SPECS[topic].partitions for topic in walk}) == 1
