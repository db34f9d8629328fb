"""Every kind of damage is found, and named at its position."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from support.audit_log import Log, entries, entry, new_key

from pipeline.audit import DamageKind, Report, Signer, dump_heads, load_heads, load_public_keys, read_heads
from pipeline.audit.segments import MAX_LINE_BYTES, SegmentPosition, build
from pipeline.audit.verify import verify
from pipeline.errors import FatalError, PermanentError
from pipeline.storage import ObjectNotFound
from pipeline.storage.testing import MemoryStore

Action = Callable[[Log], None]


async def three_segments(log: Log | None = None) -> Log:
    """Return a log of one partition: events 0-2, 3-5 and 6-8."""
    log = log or Log()
    await log.fill(entries(0, 1, 2), entries(3, 4, 5), entries(6, 7, 8))
    return log


def edit(number: int, change: Callable[[list[bytes]], list[bytes]]) -> Action:
    def action(log: Log) -> None:
        log.put(log.keys[number], change(log.lines(log.keys[number])))

    return action


def flip(number: int, line: int) -> Action:
    def change(lines: list[bytes]) -> list[bytes]:
        lines[line - 1] = lines[line - 1].replace(b'"process"', b'"Process"').replace(b'"events":3', b'"events":4')
        return lines

    return edit(number, change)


def remove(number: int) -> Action:
    def action(log: Log) -> None:
        del log.store.objects[log.keys[number]]

    return action


def swap_segments(log: Log) -> None:
    objects, (first, second, _) = log.store.objects, log.keys
    objects[first], objects[second] = objects[second], objects[first]


def copy_as(name: str) -> Action:
    def action(log: Log) -> None:
        folder = log.keys[1].rpartition("/")[0]
        log.store.objects[f"{folder}/{name}"] = log.store.objects[log.keys[1]]

    return action


def fork(log: Log) -> None:
    """Put a well-formed segment of another chain in the position of the second."""
    built = build(
        SegmentPosition("audit.events", 0, 0, 1),
        entries(3, 4),
        previous="ab" * 32,
        total=3,
        writer="forger",
        at=log.now,
    )
    log.store.objects[log.keys[1]] = built.data


def wrong_total(log: Log) -> None:
    first = json.loads(log.lines(log.keys[1])[0])
    built = build(
        SegmentPosition("audit.events", 0, 0, 1),
        entries(3),
        previous=first["previous"],
        total=7,
        writer="forger",
        at=log.now,
    )
    log.store.objects[log.keys[1]] = built.data


def offsets_again(log: Log) -> None:
    first = json.loads(log.lines(log.keys[1])[0])
    built = build(
        SegmentPosition("audit.events", 0, 0, 1),
        entries(2),
        previous=first["previous"],
        total=3,
        writer="forger",
        at=log.now,
    )
    log.store.objects[log.keys[1]] = built.data


DAMAGES: dict[str, tuple[Action, tuple[int, int | None, str]]] = {
    "a byte of an event": (flip(1, 3), (1, 3, "changed")),
    "a byte of the closing line": (flip(1, 5), (1, 5, "changed")),
    "a line removed": (edit(1, lambda lines: lines[:2] + lines[3:]), (1, 3, "missing")),
    "the header removed": (edit(1, lambda lines: lines[1:]), (1, 1, "missing")),
    "two lines swapped": (edit(1, lambda lines: [*lines[:1], lines[2], lines[1], *lines[3:]]), (1, 2, "swapped")),
    "a line twice": (edit(1, lambda lines: lines[:3] + lines[2:]), (1, 4, "forked")),
    "a line added": (edit(1, lambda lines: [*lines[:2], b'{"x":1}\n', *lines[2:]]), (1, 3, "changed")),
    "something after the end": (edit(1, lambda lines: [*lines, b"{}\n"]), (1, 6, "changed")),
    "a rest after the end": (edit(1, lambda lines: [*lines, b"{}"]), (1, 6, "changed")),
    "the last byte cut": (edit(1, lambda lines: [*lines[:-1], lines[-1][:-1]]), (1, 5, "cut")),
    "half a line cut": (edit(1, lambda lines: [*lines[:2], lines[2][:40]]), (1, 3, "cut")),
    "the closing line cut": (edit(2, lambda lines: lines[:-1]), (2, 5, "cut")),
    "everything cut": (edit(1, lambda _: []), (1, 1, "cut")),
    "an endless line": (edit(1, lambda _: [b"x" * (MAX_LINE_BYTES + 2)]), (1, 1, "changed")),
    "two segments swapped": (swap_segments, (0, 1, "swapped")),
    "the middle segment removed": (remove(1), (1, None, "missing")),
    "the first segment removed": (remove(0), (0, None, "missing")),
    "a segment forked": (fork, (1, 1, "forked")),
    "a segment with a wrong total": (wrong_total, (1, None, "changed")),
    "offsets that go back": (offsets_again, (1, None, "forked")),
    "a second copy under another name": (copy_as("000000000001-copy.jsonl"), (1, None, "forked")),
    "a copy as the next segment": (copy_as("000000000003.jsonl"), (3, 1, "swapped")),
    "a copy further on": (copy_as("000000000009.jsonl"), (3, None, "missing")),
}


@pytest.mark.parametrize("name", DAMAGES)
async def test_damage_is_found_and_named(name: str) -> None:
    action, (segment, line, kind) = DAMAGES[name]
    log = await three_segments()
    action(log)
    report = await verify(log.store)
    assert (report.ok, report.partition, report.segment, report.line, report.kind) == (False, 0, segment, line, kind)
    assert report.detail
    assert report.topic == "audit.events"


async def test_a_sound_log_is_counted() -> None:
    log = await three_segments()
    await log.fill([entry(0, "p7")], partition=7)
    assert await verify(log.store) == Report(ok=True, segments=4, events=10)


async def test_an_empty_store_is_sound() -> None:
    assert (await verify(MemoryStore())).ok


async def test_the_report_as_json_has_what_scripts_read() -> None:
    log = await three_segments()
    remove(1)(log)
    report = json.loads((await verify(log.store)).model_dump_json())
    assert report.items() >= {"ok": False, "partition": 0, "segment": 1, "line": None, "kind": "missing"}.items()


async def test_segments_of_two_partitions_swapped() -> None:
    log = await three_segments()
    await log.fill(entries(0, 1), partition=1)
    objects, (first, *_, other) = log.store.objects, log.keys
    objects[first], objects[other] = objects[other], objects[first]
    report = await verify(log.store)
    assert (report.partition, report.segment, report.line, report.kind) == (0, 0, 1, "swapped")


async def test_an_event_of_another_partition_is_found() -> None:
    log = Log()
    log.store.objects["audit/audit.events/00000/00000/000000000000.jsonl"] = build(
        SegmentPosition("audit.events", 1, 0, 0), entries(1), previous="0" * 64, total=0, writer="w", at=log.now
    ).data.replace(b'"partition":1,"epoch"', b'"partition":0,"epoch"')
    assert (await verify(log.store)).kind is DamageKind.CHANGED


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("audit/audit.events/zero/00000/000000000000.jsonl", "audit/audit.events/zero/"),
        ("audit/audit.events/00000/00000-old/000000000000.jsonl", "audit/audit.events/00000/00000-old"),
        ("audit/a b/00000/00000/000000000000.jsonl", "audit/a b/"),
    ],
)
async def test_a_folder_that_is_none_of_ours_is_found(key: str, named: str) -> None:
    log = await three_segments()
    log.store.objects[key] = b""
    report = await verify(log.store)
    assert (report.kind, report.key) == ("forked", named)


async def test_a_segment_that_vanishes_between_listing_and_reading() -> None:
    class Vanishing(MemoryStore):
        async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
            if end is None and "1.jsonl" in key and self.unlucky:
                raise ObjectNotFound(key)
            return await super().get(key, start=start, end=end)

        unlucky = False

    store = Vanishing()
    await three_segments(Log(store=store))
    store.unlucky = True
    report = await verify(store)
    assert (report.segment, report.kind) == (1, "missing")


class TestEpochs:
    @staticmethod
    async def two_epochs() -> Log:
        log = Log()
        await log.fill(entries(7, 8), [entry(0, "new 0")], [entry(1, "new 1")])
        return log

    async def test_a_chain_over_two_epochs_is_sound(self) -> None:
        assert (await verify((await self.two_epochs()).store)).ok

    async def test_swapped_epochs_are_found(self) -> None:
        log = await self.two_epochs()
        swapped = {
            key.replace("/00000/0000000", "/X/0000000").replace("/00001/", "/00000/").replace("/X/", "/00001/"): data
            for key, data in log.store.objects.items()
        }
        log.store.objects = swapped
        report = await verify(log.store)
        assert (report.ok, report.segment, report.kind) == (False, 0, "missing")

    async def test_an_epoch_with_another_number_is_found(self) -> None:
        log = await self.two_epochs()
        log.store.objects = {key.replace("/00001/", "/00002/"): data for key, data in log.store.objects.items()}
        report = await verify(log.store)
        assert (report.segment, report.epoch, report.kind) == (2, 2, "swapped")

    async def test_a_missing_sealing_segment_is_found(self) -> None:
        log = await self.two_epochs()
        del log.store.objects[log.keys[1]]
        report = await verify(log.store)
        assert (report.segment, report.kind) == (1, "missing")

    async def test_a_second_segment_of_a_number_in_a_later_epoch_is_found(self) -> None:
        log = await self.two_epochs()
        log.store.objects["audit/audit.events/00000/00001/000000000000.jsonl"] = b""
        report = await verify(log.store)
        assert (report.segment, report.kind) == (0, "forked")


class TestSignatures:
    @staticmethod
    async def signed_log() -> tuple[Log, bytes]:
        key = new_key()
        return await three_segments(Log(signer=Signer(key.private))), key.public

    async def test_signatures_fit(self) -> None:
        log, public = await self.signed_log()
        assert (await verify(log.store, keys=load_public_keys([new_key().public, public]))).ok
        assert (await verify(log.store)).ok
        assert log.signer
        assert json.loads(log.lines(log.keys[0])[-1])["signed_by"] == log.signer.key_id

    async def test_another_key_is_not_accepted(self) -> None:
        log, _ = await self.signed_log()
        report = await verify(log.store, keys=load_public_keys([new_key().public]))
        assert (report.segment, report.line, report.kind) == (0, 5, "signature")
        assert "unknown key" in (report.detail or "")

    async def test_a_forged_signature_is_found(self) -> None:
        """The forger can hash, not sign; he claims the right key id."""
        log, public = await self.signed_log()
        first = json.loads(log.lines(log.keys[2])[0])

        class Forger(Signer):
            def __init__(self) -> None:
                super().__init__(new_key().private)
                assert log.signer
                self.key_id = log.signer.key_id

        forged = build(
            SegmentPosition("audit.events", 0, 0, 2), entries(6), previous=first["previous"], total=6, writer="w",
            at=log.now, signer=Forger(),
        )  # fmt: skip
        log.store.objects[log.keys[2]] = forged.data
        assert (await verify(log.store)).ok
        report = await verify(log.store, keys=load_public_keys([public]))
        assert (report.segment, report.line, report.kind) == (2, 3, "signature")

    async def test_an_unsigned_segment_after_signed_ones_is_found(self) -> None:
        log, public = await self.signed_log()
        log.signer = None
        await log.fill(entries(9))
        report = await verify(log.store, keys=load_public_keys([public]))
        assert (report.segment, report.kind) == (3, "signature")

    async def test_unsigned_segments_before_the_first_signed_one_are_vouched_for(self) -> None:
        log = await three_segments()
        key = new_key()
        assert (await verify(log.store, keys=load_public_keys([key.public]))).kind is DamageKind.SIGNATURE
        log.signer = Signer(key.private)
        await log.fill(entries(9))
        assert (await verify(log.store, keys=load_public_keys([key.public]))).ok

    async def test_keys_may_change(self) -> None:
        log, public = await self.signed_log()
        second = new_key()
        log.signer = Signer(second.private)
        await log.fill(entries(9))
        assert (await verify(log.store, keys=load_public_keys([public, second.public]))).ok
        assert not (await verify(log.store, keys=load_public_keys([public]))).ok

    @pytest.mark.parametrize("kind", ["empty", "garbled", "other half", "rsa"])
    def test_a_wrong_key_is_refused_with_what_to_do(self, kind: str) -> None:
        private, public = _wrong_keys(kind)
        with pytest.raises(FatalError, match=r"audit_key_invalid.*openssl genpkey"):
            Signer(private)
        with pytest.raises(FatalError, match="audit_key_invalid"):
            load_public_keys([public])


def _wrong_keys(kind: str) -> tuple[bytes, bytes]:
    if kind == "empty":
        return b"", b""
    if kind == "garbled":
        return (b"-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n",) * 2
    if kind == "other half":
        pair = new_key()
        return pair.public, pair.private
    key = rsa.generate_private_key(65537, 2048)
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


class TestHeads:
    async def test_heads_name_the_end_of_each_partition(self) -> None:
        log = await three_segments()
        await log.fill([entry(5, "a")], [entry(1, "b")], partition=12)
        heads = await read_heads(log.store)
        assert [(head.partition, head.epoch, head.segment, head.events) for head in heads] == [
            (0, 0, 2, 9),
            (12, 1, 2, 2),
        ]
        assert load_heads(dump_heads(heads)) == heads
        assert await verify(log.store, heads=heads) == Report(ok=True, segments=6, events=11, heads=2)

    async def test_heads_stay_good_while_the_log_grows(self) -> None:
        log = await three_segments()
        heads = await read_heads(log.store)
        await log.fill(entries(9), entries(10))
        assert (await verify(log.store, heads=heads)).ok

    async def test_a_cut_off_end_is_found_against_heads_only(self) -> None:
        log = await three_segments()
        heads = await read_heads(log.store)
        remove(2)(log)
        assert (await verify(log.store)).ok
        report = await verify(log.store, heads=heads)
        assert (report.segment, report.line, report.kind) == (2, None, "missing")

    async def test_a_partition_that_is_gone_is_found(self) -> None:
        log = await three_segments()
        heads = await read_heads(log.store)
        report = await verify(MemoryStore(), heads=heads)
        assert (report.partition, report.segment, report.kind) == (0, 0, "missing")

    async def test_a_log_written_again_is_found(self) -> None:
        heads = await read_heads((await three_segments()).store)
        other = Log()
        await other.fill(entries(0, 1, 2), entries(3, 4, 6), entries(7, 8, 9))
        assert (await verify(other.store)).ok
        report = await verify(other.store, heads=heads)
        assert (report.segment, report.kind) == (2, "forked")

    async def test_several_heads_of_a_partition_are_all_compared(self) -> None:
        log = Log()
        heads = []
        for offset in range(3):
            await log.fill(entries(offset))
            heads += await read_heads(log.store)
        assert (await verify(log.store, heads=heads)).heads == 3

    def test_a_file_of_something_else_is_refused(self) -> None:
        with pytest.raises(PermanentError, match="audit_heads_invalid"):
            load_heads('[{"partition": 1}]')

    async def test_a_stray_folder_is_left_out(self) -> None:
        log = await three_segments()
        log.store.objects["audit/audit.events/x/y"] = b""
        assert len(await read_heads(log.store)) == 1


@given(st.data())
@settings(max_examples=300, deadline=None)
async def test_any_single_changed_byte_is_found(data: st.DataObject) -> None:
    """The law: no byte of the log can be changed, removed or added without being found."""
    log = await _signed_once()
    key = data.draw(st.sampled_from(sorted(log)))
    content = log[key]
    position = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(["change", "remove", "insert", "repeat"]))
    byte = data.draw(st.binary(min_size=1, max_size=1))
    damaged = {
        "change": content[:position] + bytes([content[position] ^ (byte[0] or 1)]) + content[position + 1 :],
        "remove": content[:position] + content[position + 1 :],
        "insert": content[:position] + byte + content[position:],
        "repeat": content[:position] + content[position : position + 1] * 2 + content[position + 1 :],
    }[how]
    store = MemoryStore()
    store.objects = {**log, key: damaged}
    report = await verify(store)
    assert not report.ok
    assert report.key == key


_SIGNED: dict[str, bytes] = {}


async def _signed_once() -> dict[str, bytes]:
    if not _SIGNED:
        log = Log(signer=Signer(new_key().private))
        await log.fill(entries(7, 8, 9), entries(10), [entry(0, "new")])
        _SIGNED.update(log.store.objects)
    return _SIGNED
