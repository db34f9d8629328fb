"""Compressed input files, pure and over the wire."""

from __future__ import annotations

import gzip
import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.transfer_ground import ETAG, cut_after, ground, ranged, whole

from pipeline.jobs.transfer import SourceChanged, SourceInfo, SourceRefused
from pipeline.jobs.transfer.download import Gunzip
from pipeline.jobs.transfer.testing import Exchange

DATA = b"card_number,note\n" + b"".join(b"99999900%08d,%x\n" % (n, hash(str(n))) for n in range(40_000))
PACKED = gzip.compress(DATA, mtime=0)


@settings(deadline=None)
@given(
    members=st.lists(st.binary(max_size=200), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 400), max_size=5),
    padding=st.integers(0, 3),
)
def test_any_cutting_gives_the_same_bytes(members: list[bytes], cuts: list[int], padding: int) -> None:
    """However the compressed bytes arrive, their content comes out; members are one file, zeros after them nothing."""
    packed = b"".join(gzip.compress(member) for member in members) + bytes(padding)
    grounds = [0, *sorted(min(cut, len(packed)) for cut in cuts), len(packed)]
    gunzip = Gunzip(max_piece=7)
    out: list[bytes] = []
    for begin, end in itertools.pairwise(grounds):
        gunzip.feed(packed[begin:end])
        while piece := gunzip.piece():
            out.append(piece)
    gunzip.finish()
    assert b"".join(out) == b"".join(members)
    assert all(len(piece) <= 7 for piece in out)


@pytest.mark.parametrize("rest", [b"garbage", b"\0\0" + gzip.compress(b"x")], ids=["garbage", "member after padding"])
def test_garbage_after_a_member(rest: bytes) -> None:
    """After a member, only another member or zeros may follow."""
    gunzip = Gunzip(max_piece=1000)
    gunzip.feed(gzip.compress(b"a") + rest)
    assert gunzip.piece() == b"a"
    with pytest.raises(SourceRefused, match="source_gzip_broken"):
        gunzip.piece()


@pytest.mark.parametrize("headers", [{"Content_Encoding": "gzip"}, {"Content_Encoding": "aws-chunked, gzip"}, {}])
async def test_gzip_is_known_by_header_or_first_bytes(headers: dict[str, str]) -> None:
    """A gzip file is decompressed, whether its store says so or not; its size is the one on the wire."""
    async with ground(whole(PACKED, **headers)) as store:
        info, data = await store.fetch()
    assert data == DATA
    assert info == SourceInfo(etag=ETAG, size=len(PACKED), encoding="gzip")


@pytest.mark.parametrize(
    "coding",
    [
        "identity", "aws-chunked", "utf-8", "UTF-8", "utf8", "iso-8859-1", "ascii", "none", "null", "plain", "binary",
        "8bit", "text/csv", "base64", "csv", "utf-8, aws-chunked", ",", "gzip", "x-gzip", "gzip, utf-8", "br", "zstd",
        "deflate", "compress",
    ],
)  # fmt: skip
async def test_plain_text_is_read_whatever_its_metadata_say(coding: str) -> None:
    """The bytes decide: a store, a proxy or a script may have written any Content-Encoding."""
    async with ground(whole(DATA, Content_Encoding=coding)) as store:
        assert await store.fetch() == (SourceInfo(etag=ETAG, size=len(DATA), encoding="identity"), DATA)


@pytest.mark.parametrize("coding", ["identity", "utf-8", "br", "none"])
async def test_gzip_is_decompressed_whatever_its_metadata_say(coding: str) -> None:
    """No text begins with the two bytes of gzip."""
    async with ground(whole(PACKED, Content_Encoding=coding)) as store:
        info, data = await store.fetch()
    assert (info.encoding, data) == ("gzip", DATA)


@pytest.mark.parametrize(
    ("coding", "named"), [("br", "br"), ("ZSTD", "zstd"), ("deflate, utf-8", "deflate"), ("gzip, br", "br, gzip")]
)
async def test_unknown_compression(coding: str, named: str) -> None:
    """A compression that is not undone here is refused by its name, with what to do."""
    data = b"\x1b\x25\x00\x00\x8d\xaa" + PACKED[100:]
    async with ground(whole(data, Content_Encoding=coding)) as store:
        with pytest.raises(SourceRefused) as caught:
            await store.fetch()
    assert caught.value.code == "source_encoding_unknown"
    assert caught.value.message == (
        f"The file behind input_file_url is not plain text, and its Content-Encoding is {named}. Only gzip is "
        "supported: upload it plain or as gzip."
    )


async def test_a_refusal_quotes_no_token_of_its_own_making() -> None:
    """A Content-Encoding is what its sender likes: only known names are repeated."""
    async with ground(whole(b"\x00\x01", Content_Encoding="br, 4111111111111111")) as store:
        with pytest.raises(SourceRefused) as caught:
            await store.fetch()
    assert "4111" not in caught.value.message


async def test_empty_object_with_gzip_header() -> None:
    """An empty object is read as an empty file, whatever its header says."""
    async with ground(whole(b"", Content_Encoding="gzip")) as store:
        assert (await store.fetch())[1] == b""


async def test_first_byte_alone() -> None:
    """The first bytes may come one by one."""

    async def drip(exchange: Exchange) -> None:
        await exchange.head(200, [("ETag", ETAG), ("Content-Length", str(len(PACKED)))])
        for byte in PACKED[:3]:
            await exchange.send(bytes([byte]))
            await exchange.reader.read(0)
        await exchange.send(PACKED[3:])

    async with ground(drip) as store:
        assert (await store.fetch())[1] == DATA


async def test_one_byte_file() -> None:
    async with ground(whole(b"\x1f")) as store:
        assert (await store.fetch())[1] == b"\x1f"


async def test_cut_gzip_goes_on_by_range() -> None:
    """Within one call, a cut gzip download continues with a Range request for its compressed bytes."""
    async with ground(cut_after(PACKED, 100_000), ranged(PACKED)) as store:
        assert (await store.fetch())[1] == DATA
    assert store.server.requests[1].headers["range"] == "bytes=100000-"


@pytest.mark.parametrize("encoding", [None, "gzip"])
async def test_resume_reads_from_the_start(encoding: None) -> None:
    """A checkpoint counts decompressed bytes, so the file is read from its start and finished bytes are skipped."""
    async with ground(ranged(PACKED)) as store:
        info, data = await store.fetch(start=300_000, etag=ETAG, encoding=encoding)
    assert (info.encoding, data) == ("gzip", DATA[300_000:])
    (request,) = store.server.requests
    assert ("range" in request.headers, request.headers["if-match"]) == (False, ETAG)


async def test_resume_at_the_end_and_beyond() -> None:
    """Nothing is left at the end; a content that is shorter than its checkpoint changed."""
    async with ground(ranged(PACKED)) as store:
        assert (await store.fetch(start=len(DATA), etag=ETAG, encoding="gzip"))[1] == b""
        with pytest.raises(SourceChanged, match="shorter"):
            await store.fetch(start=len(DATA) + 1, etag=ETAG, encoding="gzip")


async def test_truncated() -> None:
    """A gzip file that ends too early is refused, though its length is as announced."""
    async with ground(whole(PACKED[:-20])) as store:
        with pytest.raises(SourceRefused, match="source_gzip_truncated"):
            await store.fetch()


async def test_not_gzip_though_announced() -> None:
    """A file announced as gzip that is neither gzip nor text is refused."""
    async with ground(whole(b"\x1f\x8c" + PACKED[2:], Content_Encoding="gzip")) as store:
        with pytest.raises(SourceRefused, match="source_gzip_broken"):
            await store.fetch()


async def test_bomb_comes_in_bounded_pieces() -> None:
    """A tiny file may decompress to a large one: the reader's limit stops it before memory runs out."""
    bomb = gzip.compress(bytes(50_000_000))
    async with ground(whole(bomb)) as store, store.transfers.downloader.open(store.source) as download:
        pieces = download.chunks()
        sizes = [len(await anext(pieces)) for _ in range(10)]
    assert max(sizes) <= 1_048_576


def test_very_many_empty_members_cost_no_more_than_their_bytes() -> None:
    """Zlib copies the bytes after a member: with 4 MB of empty members in one call, this took half a minute."""
    gunzip = Gunzip(max_piece=1 << 18)
    gunzip.feed(gzip.compress(b"") * 200_000 + gzip.compress(b"end") + bytes(200_000))
    begun = time.process_time()
    assert gunzip.piece() == b"end"
    assert gunzip.piece() == b""
    gunzip.finish()
    assert time.process_time() - begun < 10
