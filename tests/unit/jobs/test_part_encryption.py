"""Parts at rest: what is stored reveals nothing, fits under no other name, and is decrypted by any configured key."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.job_world import CARDS, World

from pipeline.contracts import Topic
from pipeline.errors import FatalError
from pipeline.jobs.part_encryption import (
    KEY_BYTES,
    SEGMENT_BYTES,
    PartChanged,
    PartCipher,
    PartKey,
    PartKeyUnavailable,
    Sealed,
    new_part_key,
    open_part_cipher,
)
from pipeline.jobs.settings import PartSettings

NAME: Final = "jobs/acme/cffde776-1d2a-4614-8023-a5148e411462/parts/g/00000001-n.csv.aes"
OLD: Final = PartKey("old", bytes(range(KEY_BYTES)))
NEW: Final = PartKey("new", bytes(range(1, KEY_BYTES + 1)))


def unsealed(cipher: PartCipher, name: str, stored: bytes, sealed: Sealed, *, piece: int = 1 << 18) -> bytes:
    opening = cipher.unsealed(name, sealed)
    found = [plain for start in range(0, len(stored), piece) for plain in opening.feed(stored[start : start + piece])]
    return b"".join([*found, opening.finish()])


@given(
    size=st.sampled_from([0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 2 * SEGMENT_BYTES]),
    piece=st.integers(min_value=1000, max_value=3 * SEGMENT_BYTES),
)
def test_what_was_sealed_comes_back_in_pieces_of_any_size(size: int, piece: int) -> None:
    cipher, data = PartCipher([NEW]), b"4242424242424242," * (size // 17 + 1)
    stored, sealed = cipher.seal(NAME, data[:size])
    assert unsealed(cipher, NAME, stored, sealed, piece=piece) == data[:size]
    assert b"42424242" not in stored


def test_equal_parts_look_different() -> None:
    cipher = PartCipher([NEW])
    assert cipher.seal(NAME, CARDS)[0] != cipher.seal(NAME, CARDS)[0]


@pytest.mark.parametrize(
    "elsewhere",
    [
        NAME.replace("acme", "beta"),
        NAME.replace("cffde776", "cffde777"),
        NAME.replace("/parts/", "/attempts/2/parts/"),
        NAME.replace("/g/", "/h/"),
        NAME.replace("00000001", "00000002"),
    ],
    ids=["integration", "job", "attempt", "generation", "chunk"],
)
def test_a_part_fits_under_no_other_name(elsewhere: str) -> None:
    cipher = PartCipher([NEW])
    stored, sealed = cipher.seal(NAME, CARDS)
    with pytest.raises(PartChanged):
        unsealed(cipher, elsewhere, stored, sealed)


def test_segments_are_in_order_and_complete() -> None:
    cipher, head, segment = PartCipher([NEW]), 36, SEGMENT_BYTES + 16
    stored, sealed = cipher.seal(NAME, bytes(3 * SEGMENT_BYTES))
    first, second, third = (stored[head + n * segment : head + (n + 1) * segment] for n in range(3))
    assert stored == stored[:head] + first + second + third
    for changed in (
        [second, first, third],
        [first, second],
        [first, third],
        [first, second, third, third],
        [first, second, third[:-1]],
        [first, second, third + b"x"],
        [],
    ):
        with pytest.raises(PartChanged):
            unsealed(cipher, NAME, b"".join([stored[:head], *changed]), sealed)
    with pytest.raises(PartChanged):
        unsealed(cipher, NAME, b"", sealed)


@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    cipher = PartCipher([NEW])
    stored, sealed = cipher.seal(NAME, CARDS)
    at = data.draw(st.integers(min_value=0, max_value=len(stored) - 1))
    changed = bytearray(stored)
    changed[at] ^= 1 << data.draw(st.integers(min_value=0, max_value=7))
    with pytest.raises(PartChanged):
        unsealed(cipher, NAME, bytes(changed), sealed)


def test_a_key_is_changed_without_downtime() -> None:
    """Old alone; old first and new behind it; new first; new alone: parts are read in each step but the last."""
    steps = [PartCipher([OLD]), PartCipher([OLD, NEW]), PartCipher([NEW, OLD]), PartCipher([NEW])]
    parts = [cipher.seal(NAME, CARDS) for cipher in steps]
    assert [sealed.key for _, sealed in parts] == ["old", "old", "new", "new"]
    for running, written in [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)]:
        assert unsealed(steps[running], NAME, *parts[written]) == CARDS
    with pytest.raises(PartKeyUnavailable, match=r"with the key 'old', which parts\.keys does not name") as gone:
        unsealed(steps[3], NAME, *parts[0])
    assert gone.value.code == "part_key_missing"


def test_another_key_under_the_same_id_is_named_and_is_no_damage() -> None:
    stored, sealed = PartCipher([OLD]).seal(NAME, CARDS)
    with pytest.raises(PartKeyUnavailable, match="key 'old', but its file now holds another key") as caught:
        unsealed(PartCipher([PartKey("old", NEW.value)]), NAME, stored, sealed)
    assert caught.value.code == "part_key_differs"


def test_without_a_key_nothing_is_written_in_clear_by_mistake() -> None:
    with pytest.raises(FatalError, match="part_keys_missing"):
        PartCipher().seal(NAME, CARDS)
    with pytest.raises(FatalError, match="part_keys_missing"):
        open_part_cipher(PartSettings())
    assert open_part_cipher(PartSettings(encryption="off")).encrypts is False


def test_keys_come_from_their_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"{new_part_key()}\n")
    keys = [{"id": name, "file": tmp_path / name} for name in ("a", "b")]
    both = open_part_cipher(PartSettings.model_validate({"keys": keys}))
    stored, sealed = open_part_cipher(PartSettings.model_validate({"keys": keys[1:]})).seal(NAME, CARDS)
    assert unsealed(both, NAME, stored, sealed) == CARDS
    assert both.seal(NAME, CARDS)[1].key == "a"
    (tmp_path / "b").write_text("short")
    with pytest.raises(FatalError, match="secret_unreadable") as caught:
        open_part_cipher(PartSettings.model_validate({"keys": keys}))
    assert "short" not in str(caught.value)
    with pytest.raises(FatalError, match=r"parts\.keys, key 'a': secret file") as caught:
        open_part_cipher(PartSettings.model_validate({"keys": [{"id": "a", "file": tmp_path / "planted="}]}))
    assert "planted" not in str(caught.value)


def test_reading_holds_one_segment_and_one_piece() -> None:
    cipher = PartCipher([NEW])
    stored, sealed = cipher.seal(NAME, bytes(32 << 20))
    opening, piece = cipher.unsealed(NAME, sealed), 1 << 18
    tracemalloc.start()
    try:
        for start in range(0, len(stored), piece):
            for _ in opening.feed(stored[start : start + piece]):
                pass
        assert tracemalloc.get_traced_memory()[1] < 4 * piece
    finally:
        tracemalloc.stop()


async def test_a_job_waits_for_a_missing_key_and_completes_when_it_is_back() -> None:
    """An operator has removed a key too early: no job may fail because of that, and no half result reaches ECS."""
    world = World()
    await world.handle_until_over("process", world.announce())
    (processed,) = world.records(Topic.BATCH_PROCESSED)
    right, world.jobs.cipher = world.jobs.cipher, PartCipher([NEW])
    await world.handle_until_over("upload", processed)
    assert world.objects.put == []
    waiting = await world.parking.waiting(world.ref)
    assert waiting is not None
    assert (waiting.code, waiting.stage) == ("part_key_missing", "upload")
    assert "'test'" in waiting.message
    world.jobs.cipher = right
    await world.handle_until_over("upload", processed)
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert outcome.outcome == "completed"


async def test_no_part_of_a_job_in_the_store_shows_a_card() -> None:
    world = World()
    await world.handle_until_over("process", world.announce())
    stored = b"".join(data for key, data in world.memory.objects.items() if "/parts/" in key)
    assert stored
    numbers = [line.split(b",")[0] for line in CARDS.splitlines()[1:]]
    assert numbers
    assert not [number for number in numbers if number in stored]
