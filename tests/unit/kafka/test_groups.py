"""A stopped group is moved: planned first, and only what can be done is done."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs
from support.fake_partitions import FakePartitions

from pipeline.kafka import GroupBusy, GroupUnknown, KafkaSettings, NotAuthorized, Partition, SkipRefused, TopicUnknown
from pipeline.kafka.groups import Move, Rewind, Skip, plan_rewind, plan_skip, rewind, skip

SETTINGS = KafkaSettings(bootstrap_servers="unused:1", group_prefix="card-pipeline.")


@pytest.fixture
def cluster() -> FakePartitions:
    """A group at offset 7 of 10 records, the first three of which are gone; it has no offset in a second partition."""
    made = FakePartitions()
    made.topic("a", partitions=2, first=3)
    made.put("a", *(1_000 * number for number in range(7)))
    made.committed_offsets[Partition("a", 0)] = 7
    return made


async def test_a_plan_changes_nothing(cluster: FakePartitions) -> None:
    found = await plan_rewind(SETTINGS, "g", "earliest", connect=cluster.connect)
    assert found == Rewind("g", (Move("a", 0, 7, 3, again=4, skipped=0), Move("a", 1, None, 3, again=0, skipped=0)))
    assert cluster.commits == []


async def test_a_rewind_commits_what_the_plan_says(cluster: FakePartitions) -> None:
    done = await rewind(SETTINGS, "g", "earliest", connect=cluster.connect)
    assert cluster.commits == [{Partition(move.topic, move.partition): move.becomes for move in done.moves}]


async def test_a_time_is_the_first_record_at_or_after_it(cluster: FakePartitions) -> None:
    move, _ = (await plan_rewind(SETTINGS, "g", datetime.fromtimestamp(2, UTC), connect=cluster.connect)).moves
    assert (move.becomes, move.again) == (5, 2)


async def test_going_forward_says_what_is_skipped(cluster: FakePartitions) -> None:
    move, _ = (await plan_rewind(SETTINGS, "g", "latest", connect=cluster.connect)).moves
    assert (move.becomes, move.again, move.skipped) == (10, 0, 3)


async def test_records_that_are_gone_count_as_neither(cluster: FakePartitions) -> None:
    """The group is positioned before the first remaining record."""
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


async def test_a_topic_that_may_not_be_read_is_found_before_anything_is_moved(cluster: FakePartitions) -> None:
    """The cluster would take the offsets of the other topics."""
    cluster.topic("b", partitions=2)
    cluster.committed_offsets[Partition("b", 0)] = 0
    cluster.forbidden = {"b"}
    for act in (plan_rewind, rewind):
        with pytest.raises(NotAuthorized, match="Reading b: Kafka refuses this"):
            await act(SETTINGS, "g", "earliest", connect=cluster.connect)
    assert cluster.commits == []


async def test_a_topic_that_ends_in_a_batch_that_cannot_be_decoded_is_readable(spoilt: FakePartitions) -> None:
    spoilt.spoil("a", 9, 10)
    await rewind(SETTINGS, "g", "earliest", connect=spoilt.connect)
    assert len(spoilt.commits) == 1


# skipping a batch that cannot be decoded

BAD = Partition("a", 0)


@pytest.fixture
def spoilt(cluster: FakePartitions) -> FakePartitions:
    """The group is at a batch of two records, the last but one of its partition."""
    cluster.spoil("a", 7, 9)
    return cluster


async def test_a_plan_of_a_skip_changes_nothing(spoilt: FakePartitions) -> None:
    found = await plan_skip(SETTINGS, "g", BAD, 7, connect=spoilt.connect)
    assert found == Skip("g", "a", 0, 7, 9, skipped=2, why="Unknown compression codec 0x05")
    assert spoilt.commits == []


async def test_a_skip_commits_the_offset_behind_the_batch_and_logs_the_reason(spoilt: FakePartitions) -> None:
    with capture_logs() as lines:
        await skip(SETTINGS, "g", BAD, 7, reason="INC-7", connect=spoilt.connect)
    assert spoilt.commits == [{BAD: 9}]
    expected = {"event": "batch_skipped", "group": "g", "topic": "a", "offset": 7, "next_offset": 9, "reason": "INC-7"}
    assert lines[0].items() >= expected.items()


@pytest.mark.parametrize(
    ("committed", "offset", "why"),
    [
        (5, 7, "the record at offset 5 can be decoded and was not handled yet: start the group"),
        (8, 7, "g is at offset 8, past offset 7"),
        (7, 8, "the first batch that cannot be decoded is at offset 7, not 8"),
    ],
)
async def test_no_other_records_are_skipped(spoilt: FakePartitions, committed: int, offset: int, why: str) -> None:
    spoilt.committed_offsets[BAD] = committed
    with pytest.raises(SkipRefused, match=why):
        await skip(SETTINGS, "g", BAD, offset, reason="INC-7", connect=spoilt.connect)
    assert spoilt.commits == []


async def test_records_that_can_be_decoded_are_not_skipped(cluster: FakePartitions) -> None:
    with pytest.raises(SkipRefused, match="the record at offset 7 can be decoded"):
        await skip(SETTINGS, "g", BAD, 7, reason="INC-7", connect=cluster.connect)
    with pytest.raises(SkipRefused, match="g is at offset 7, past offset 6"):
        await skip(SETTINGS, "g", BAD, 6, reason="INC-7", connect=cluster.connect)
    cluster.committed_offsets[BAD] = 10
    with pytest.raises(SkipRefused, match="there is no record at offset 10"):
        await skip(SETTINGS, "g", BAD, 10, reason="INC-7", connect=cluster.connect)
    assert cluster.commits == []


@pytest.mark.parametrize("behind", [None, 7, 11])
async def test_a_batch_whose_end_is_not_known_is_not_skipped(cluster: FakePartitions, behind: int | None) -> None:
    """A wrong checksum may belong to a wrong header."""
    cluster.spoil("a", 7, behind)
    with pytest.raises(SkipRefused, match="does not say where it ends; move the group with pipeline events rewind"):
        await skip(SETTINGS, "g", BAD, 7, reason="INC-7", connect=cluster.connect)
    assert cluster.commits == []


async def test_a_skip_needs_a_stopped_group_and_a_partition(spoilt: FakePartitions) -> None:
    spoilt.live = 1
    with pytest.raises(GroupBusy, match="1 live member"):
        await skip(SETTINGS, "g", BAD, 7, reason="INC-7", connect=spoilt.connect)
    spoilt.live = 0
    with pytest.raises(TopicUnknown, match="a has no partition 9"):
        await plan_skip(SETTINGS, "g", Partition("a", 9), 7, connect=spoilt.connect)
    with pytest.raises(TopicUnknown, match="no topic gone"):
        await plan_skip(SETTINGS, "g", Partition("gone", 0), 7, connect=spoilt.connect)
    with pytest.raises(GroupUnknown, match="other has committed nothing"):
        await plan_skip(SETTINGS, "other", BAD, 7, connect=spoilt.connect)
