"""A stopped group is moved: planned first, and only what can be done is done."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from support.fake_places import FakePlaces

from pipeline.kafka import KafkaSettings
from pipeline.kafka._group import Partition
from pipeline.kafka.groups import GroupBusy, GroupUnknown, Move, Rewind, TopicUnknown, plan_rewind, rewind

SETTINGS = KafkaSettings(bootstrap_servers="unused:1", group_prefix="card-pipeline.")


@pytest.fixture
def places() -> FakePlaces:
    """A group that stands at 7 of 10 records, the first three of which are gone, and nowhere in a second partition."""
    made = FakePlaces()
    made.topic("a", partitions=2, first=3)
    made.put("a", *(1_000 * number for number in range(7)))
    made.committed_offsets[Partition("a", 0)] = 7
    return made


async def test_a_plan_changes_nothing(places: FakePlaces) -> None:
    found = await plan_rewind(SETTINGS, "g", "earliest", connect=places.connect)
    assert found == Rewind("g", (Move("a", 0, 7, 3, again=4, skipped=0), Move("a", 1, None, 3, again=0, skipped=0)))
    assert places.commits == []


async def test_the_deed_commits_what_the_plan_says(places: FakePlaces) -> None:
    done = await rewind(SETTINGS, "g", "earliest", connect=places.connect)
    assert places.commits == [{Partition(move.topic, move.partition): move.becomes for move in done.moves}]


async def test_a_time_is_the_first_record_at_or_after_it(places: FakePlaces) -> None:
    move, _ = (await plan_rewind(SETTINGS, "g", datetime.fromtimestamp(2, UTC), connect=places.connect)).moves
    assert (move.becomes, move.again) == (5, 2)


async def test_going_forward_says_what_is_skipped(places: FakePlaces) -> None:
    move, _ = (await plan_rewind(SETTINGS, "g", "latest", connect=places.connect)).moves
    assert (move.becomes, move.again, move.skipped) == (10, 0, 3)


async def test_records_that_are_gone_count_as_neither(places: FakePlaces) -> None:
    """The group stands before the first record that is left."""
    places.committed_offsets[Partition("a", 0)] = 1
    move, _ = (await plan_rewind(SETTINGS, "g", "earliest", connect=places.connect)).moves
    assert (move.committed, move.becomes, move.again, move.skipped) == (1, 3, 0, 0)


async def test_only_the_topics_named_are_moved(places: FakePlaces) -> None:
    places.topic("b")
    places.committed_offsets[Partition("b", 0)] = 0
    done = await rewind(SETTINGS, "g", "latest", topics=["b"], connect=places.connect)
    assert [move.topic for move in done.moves] == ["b"]
    assert places.commits == [{Partition("b", 0): 0}]


@pytest.mark.parametrize("name", ["process", "card-pipeline.process"])
async def test_a_stage_is_named_with_or_without_the_prefix_of_its_group(places: FakePlaces, name: str) -> None:
    places.group = "card-pipeline.process"
    assert (await plan_rewind(SETTINGS, name, "latest", connect=places.connect)).group == "card-pipeline.process"


async def test_a_subscribers_group_is_called_as_it_pleases(places: FakePlaces) -> None:
    assert (await rewind(SETTINGS, "g", "latest", connect=places.connect)).group == "g"
    assert places.groups == ["g"]


async def test_a_group_with_live_members_is_refused(places: FakePlaces) -> None:
    places.live = 2
    with pytest.raises(GroupBusy, match="2 live members"):
        await rewind(SETTINGS, "g", "earliest", connect=places.connect)
    assert places.commits == []


async def test_a_member_that_joins_in_between_is_not_overrun(places: FakePlaces) -> None:
    places.joins = True
    with pytest.raises(GroupBusy, match="just joined"):
        await rewind(SETTINGS, "g", "earliest", connect=places.connect)


async def test_an_unknown_group_is_refused(places: FakePlaces) -> None:
    places.committed_offsets.clear()
    with pytest.raises(GroupUnknown, match="g has committed nothing"):
        await plan_rewind(SETTINGS, "g", "earliest", connect=places.connect)


async def test_an_unknown_topic_is_refused(places: FakePlaces) -> None:
    with pytest.raises(TopicUnknown, match="no topic gone"):
        await rewind(SETTINGS, "g", "earliest", topics=["a", "gone"], connect=places.connect)
    assert places.commits == []
