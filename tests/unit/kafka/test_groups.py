"""A stopped group is moved: planned first, and only what can be done is done."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from support.fake_partitions import FakePartitions

from pipeline.kafka import GroupBusy, GroupUnknown, KafkaSettings, Partition, TopicUnknown
from pipeline.kafka.groups import Move, Rewind, plan_rewind, rewind

SETTINGS = KafkaSettings(bootstrap_servers="unused:1", group_prefix="card-pipeline.")


@pytest.fixture
def cluster() -> FakePartitions:
    """A group that stands at 7 of 10 records, the first three of which are gone, and nowhere in a second partition."""
    made = FakePartitions()
    made.topic("a", partitions=2, first=3)
    made.put("a", *(1_000 * number for number in range(7)))
    made.committed_offsets[Partition("a", 0)] = 7
    return made


async def test_a_plan_changes_nothing(cluster: FakePartitions) -> None:
    found = await plan_rewind(SETTINGS, "g", "earliest", connect=cluster.connect)
    assert found == Rewind("g", (Move("a", 0, 7, 3, again=4, skipped=0), Move("a", 1, None, 3, again=0, skipped=0)))
    assert cluster.commits == []


async def test_the_deed_commits_what_the_plan_says(cluster: FakePartitions) -> None:
    done = await rewind(SETTINGS, "g", "earliest", connect=cluster.connect)
    assert cluster.commits == [{Partition(move.topic, move.partition): move.becomes for move in done.moves}]


async def test_a_time_is_the_first_record_at_or_after_it(cluster: FakePartitions) -> None:
    move, _ = (await plan_rewind(SETTINGS, "g", datetime.fromtimestamp(2, UTC), connect=cluster.connect)).moves
    assert (move.becomes, move.again) == (5, 2)


async def test_going_forward_says_what_is_skipped(cluster: FakePartitions) -> None:
    move, _ = (await plan_rewind(SETTINGS, "g", "latest", connect=cluster.connect)).moves
    assert (move.becomes, move.again, move.skipped) == (10, 0, 3)


async def test_records_that_are_gone_count_as_neither(cluster: FakePartitions) -> None:
    """The group stands before the first record that is left."""
    cluster.committed_offsets[Partition("a", 0)] = 1
    move, _ = (await plan_rewind(SETTINGS, "g", "earliest", connect=cluster.connect)).moves
    assert (move.committed, move.becomes, move.again, move.skipped) == (1, 3, 0, 0)


async def test_only_the_topics_named_are_moved(cluster: FakePartitions) -> None:
    cluster.topic("b")
    cluster.committed_offsets[Partition("b", 0)] = 0
    done = await rewind(SETTINGS, "g", "latest", topics=["b"], connect=cluster.connect)
    assert [move.topic for move in done.moves] == ["b"]
    assert cluster.commits == [{Partition("b", 0): 0}]


@pytest.mark.parametrize("name", ["process", "card-pipeline.process"])
async def test_a_stage_is_named_with_or_without_the_prefix_of_its_group(cluster: FakePartitions, name: str) -> None:
    cluster.group = "card-pipeline.process"
    assert (await plan_rewind(SETTINGS, name, "latest", connect=cluster.connect)).group == "card-pipeline.process"


async def test_a_subscribers_group_is_called_as_it_pleases(cluster: FakePartitions) -> None:
    assert (await rewind(SETTINGS, "g", "latest", connect=cluster.connect)).group == "g"
    assert cluster.groups == ["g"]


async def test_a_group_with_live_members_is_refused(cluster: FakePartitions) -> None:
    cluster.live = 2
    with pytest.raises(GroupBusy, match="2 live members"):
        await rewind(SETTINGS, "g", "earliest", connect=cluster.connect)
    assert cluster.commits == []


async def test_a_member_that_joins_in_between_is_not_overrun(cluster: FakePartitions) -> None:
    cluster.joins = True
    with pytest.raises(GroupBusy, match="just joined"):
        await rewind(SETTINGS, "g", "earliest", connect=cluster.connect)


async def test_an_unknown_group_is_refused(cluster: FakePartitions) -> None:
    cluster.committed_offsets.clear()
    with pytest.raises(GroupUnknown, match="g has committed nothing"):
        await plan_rewind(SETTINGS, "g", "earliest", connect=cluster.connect)


async def test_an_unknown_topic_is_refused(cluster: FakePartitions) -> None:
    with pytest.raises(TopicUnknown, match="no topic gone"):
        await rewind(SETTINGS, "g", "earliest", topics=["a", "gone"], connect=cluster.connect)
    assert cluster.commits == []
