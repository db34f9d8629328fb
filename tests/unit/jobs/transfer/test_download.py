"""Downloads: the requests, the checks of the answers, and the continuation of cut downloads."""

from __future__ import annotations

import asyncio
import base64
import zlib

import pytest
from support.transfer_ground import (
    ETAG,
    PATH,
    QUERY,
    cut_after,
    ground,
    now,
    ranged,
    refusing,
    whole,
)

from pipeline.errors import TransientError
from pipeline.jobs.transfer import (
    SignedUrl,
    SourceChanged,
    SourceInfo,
    SourceRefused,
    TransferParameters,
    open_transfers,
)
from pipeline.jobs.transfer.testing import Exchange
from pipeline.outbound import AddressRefused, HostRules, NetworkSettings

DATA = b"card_number,note\n" + b"".join(b"99999900%08d,n\n" % n for n in range(40_000))
MIDDLE = 300_000


async def test_whole_file() -> None:
    """A file arrives byte for byte, and its ETag, size and encoding are known at once."""
    async with ground(whole(DATA)) as store:
        info, data = await store.fetch()
    assert data == DATA
    assert info == SourceInfo(etag=ETAG, size=len(DATA), encoding="identity")


async def test_request_is_what_was_signed() -> None:
    """Path and query go out byte for byte; no unsigned x-amz header, no compression, no cookie."""
    async with ground(whole(DATA)) as store:
        await store.fetch()
    (request,) = store.server.requests
    assert request.target == f"{PATH}?{QUERY}"
    assert set(request.headers) == {"host", "accept", "accept-encoding", "user-agent"}
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["host"] == store.server.url.removeprefix("http://")


async def test_empty_file() -> None:
    async with ground(whole(b"")) as store:
        assert await store.fetch() == (SourceInfo(etag=ETAG, size=0, encoding="identity"), b"")


async def test_cut_goes_on_by_range() -> None:
    """A cut download continues where it broke off, with Range and If-Match."""
    async with ground(cut_after(DATA, MIDDLE), ranged(DATA)) as store:
        _, data = await store.fetch()
    assert data == DATA
    again = store.server.requests[1].headers
    assert (again["range"], again["if-match"]) == (f"bytes={MIDDLE}-", ETAG)
    assert store.retries("download") == {"source_cut": 1}


async def test_cut_before_the_first_byte() -> None:
    """A connection that breaks before any byte is made again, without a range."""
    async with ground(cut_after(DATA, 0), whole(DATA)) as store:
        _, data = await store.fetch()
    assert data == DATA
    assert "range" not in store.server.requests[1].headers


async def test_progress_forgives_failures() -> None:
    """Many cuts are no failure if each connection transfers enough."""
    big = DATA * 4
    async with ground(cut_after(big, 262_144), ranged(big, count=262_144), max_tries=2) as store:
        _, data = await store.fetch()
    assert data == big
    assert len(store.server.requests) > 6


async def test_tries_run_out() -> None:
    """A server that always breaks off at once is left to the runner's retry."""
    async with ground(cut_after(DATA, 10), ranged(DATA, count=1), max_tries=3) as store:
        with pytest.raises(TransientError, match="source_cut"):
            await store.fetch()
    assert len(store.server.requests) == 3


async def test_url_is_asked_for_before_every_connection() -> None:
    """A renewed URL is used from the next connection on."""
    async with ground(cut_after(DATA, MIDDLE), ranged(DATA)) as store:
        store.urls = [store.signed(), store.signed("renewed=1")]
        await store.fetch()
    assert [request.target for request in store.server.requests] == [f"{PATH}?{QUERY}", f"{PATH}?renewed=1"]


async def test_resume_from_checkpoint() -> None:
    """With a known encoding a resume takes one round trip: Range and If-Match."""
    async with ground(ranged(DATA)) as store:
        info, data = await store.fetch(start=MIDDLE, etag=ETAG, encoding="identity")
    assert data == DATA[MIDDLE:]
    assert info == SourceInfo(etag=ETAG, size=len(DATA), encoding="identity")
    (request,) = store.server.requests
    assert (request.headers["range"], request.headers["if-match"]) == (f"bytes={MIDDLE}-", ETAG)


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, MIDDLE), (MIDDLE, MIDDLE + 1), (MIDDLE, len(DATA))])
async def test_a_range_takes_one_request(start: int, end: int) -> None:
    """With both ends, ETag and encoding known, exactly these bytes are asked for."""
    async with ground(ranged(DATA)) as store:
        info, data = await store.fetch(start=start, end=end, etag=ETAG, encoding="identity")
    (request,) = store.server.requests
    assert request.headers["range"] == f"bytes={start}-{end - 1}"
    assert request.headers["if-match"] == ETAG
    assert data == DATA[start:end]
    assert (info.ranged, info.size) == (True, len(DATA))


async def test_a_cut_range_goes_on_behind_its_last_byte() -> None:
    async with ground(ranged(DATA, count=1000), ranged(DATA)) as store:
        _, data = await store.fetch(start=500, end=5000, etag=ETAG, encoding="identity")
    assert data == DATA[500:5000]
    assert [one.headers["range"] for one in store.server.requests] == ["bytes=500-4999", "bytes=1500-4999"]


async def test_a_server_that_sends_the_whole_file_instead_of_a_range_is_known() -> None:
    """Its bytes are correct, too."""
    async with ground(whole(DATA)) as store:
        info, data = await store.fetch(start=500, end=5000, etag=ETAG, encoding="identity")
    assert data == DATA[500:5000]
    assert not info.ranged


async def test_a_range_of_another_file_is_refused() -> None:
    async with ground(ranged(DATA, etag='"other"')) as store:
        with pytest.raises(SourceChanged):
            await store.fetch(start=500, end=5000, etag=ETAG, encoding="identity")


async def test_resume_of_unknown_encoding() -> None:
    """Without a known encoding the first bytes are looked at before the range is asked for."""
    async with ground(ranged(DATA)) as store:
        info, data = await store.fetch(start=MIDDLE, etag=ETAG)
    assert (info.encoding, data) == ("identity", DATA[MIDDLE:])
    first, second = store.server.requests
    assert ("range" in first.headers, first.headers["if-match"]) == (False, ETAG)
    assert second.headers["range"] == f"bytes={MIDDLE}-"


async def test_resume_at_the_end() -> None:
    """416 with the size that was asked for means that nothing is left."""
    async with ground(ranged(DATA)) as store:
        info, data = await store.fetch(start=len(DATA), etag=ETAG, encoding="identity")
    assert (info.size, data) == (len(DATA), b"")


async def test_resume_at_the_end_by_content_range() -> None:
    """The size may be in the Content-Range of the 416."""
    async with ground(refusing(416, "InvalidRange", Content_Range="bytes */7")) as store:
        assert (await store.fetch(start=7, etag=ETAG, encoding="identity"))[1] == b""


@pytest.mark.parametrize("known", [None, "identity"])
async def test_resume_beyond_the_end(known: None) -> None:
    """416 of a shorter object means that the object changed."""
    async with ground(ranged(DATA)) as store:
        with pytest.raises(SourceChanged):
            await store.fetch(start=len(DATA) + 1, etag=ETAG, encoding=known)


async def test_changed_since_checkpoint() -> None:
    """412: another object; the caller starts over."""
    async with ground(ranged(DATA, etag='"other"')) as store:
        with pytest.raises(SourceChanged, match="source_changed"):
            await store.fetch(start=MIDDLE, etag=ETAG, encoding="identity")


async def test_changed_while_reading() -> None:
    """An object replaced between two connections is noticed by the store."""
    async with ground(cut_after(DATA, MIDDLE), ranged(DATA, etag='"other"')) as store:
        with pytest.raises(SourceChanged):
            await store.fetch()


async def test_if_match_ignored() -> None:
    """A store that ignores If-Match is found out by the ETag of its answer."""

    async def other(exchange: Exchange) -> None:
        span = f"bytes {MIDDLE}-{len(DATA) - 1}/{len(DATA)}"
        await exchange.answer(206, DATA[MIDDLE:], ETag='"other"', Content_Range=span)

    async with ground(cut_after(DATA, MIDDLE), other) as store:
        with pytest.raises(SourceChanged, match="ETag"):
            await store.fetch()


async def test_other_total() -> None:
    """Another total in Content-Range is another object."""

    async def other(exchange: Exchange) -> None:
        span = f"bytes {MIDDLE}-{len(DATA)}/{len(DATA) + 1}"
        await exchange.answer(206, DATA[MIDDLE:] + b"x", ETag=ETAG, Content_Range=span)

    async with ground(cut_after(DATA, MIDDLE), other) as store:
        with pytest.raises(SourceChanged, match="size"):
            await store.fetch()


@pytest.mark.parametrize("span", [f"bytes {MIDDLE - 1}-{len(DATA) - 1}/{len(DATA)}", "bytes x", ""])
async def test_wrong_range(span: str) -> None:
    """An answer with another range is refused: the file is read from its start again, and known bytes are skipped."""

    async def wrong(exchange: Exchange) -> None:
        await exchange.answer(206, DATA[MIDDLE:], ETag=ETAG, Content_Range=span)

    async with ground(cut_after(DATA, MIDDLE), wrong, whole(DATA)) as store:
        _, data = await store.fetch()
    assert data == DATA
    assert "range" not in store.server.requests[2].headers


async def test_range_ignored() -> None:
    """200 to a range request: read from the start, skipping what is known."""
    async with ground(cut_after(DATA, MIDDLE), whole(DATA)) as store:
        _, data = await store.fetch()
    assert data == DATA


async def test_range_ignored_and_shorter() -> None:
    """A 200 answer with fewer bytes than are known already is another object, with any ETag."""
    async with ground(whole(DATA[:10])) as store:
        with pytest.raises(SourceChanged, match="size"):
            await store.fetch(start=MIDDLE, etag=ETAG, encoding="identity")


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
async def test_no_etag_no_resume(etag: str) -> None:
    """Without a strong ETag, nothing proves that the rest belongs to the beginning."""
    async with ground(cut_after(DATA, MIDDLE, etag=etag), whole(DATA, etag=etag)) as store:
        with pytest.raises(SourceChanged, match="ETag"):
            await store.fetch()


async def test_no_etag_no_checkpoint() -> None:
    """A checkpoint without an ETag is refused before anything is asked."""
    async with ground(whole(DATA)) as store:
        with pytest.raises(SourceChanged):
            await store.fetch(start=5, etag="")
    assert store.server.requests == []


async def test_no_etag_read_at_once() -> None:
    """A download from a server without ETags works, as long as it is not cut."""
    async with ground(whole(DATA, etag="")) as store:
        info, data = await store.fetch()
    assert (info.etag, data) == ("", DATA)


async def test_false_length() -> None:
    """A Content-Length greater than the object ends in a 416 that says so: it is not what was announced."""
    async with ground(cut_after(DATA + b"?", len(DATA)), ranged(DATA)) as store:
        with pytest.raises(SourceChanged, match="size"):
            await store.fetch()


async def test_more_than_announced() -> None:
    """An answer to a range request with more bytes than the total is a permanent error."""

    async def more(exchange: Exchange) -> None:
        span = f"bytes {MIDDLE}-{len(DATA) - 1}/{len(DATA)}"
        await exchange.answer(206, DATA[MIDDLE:] + b"more", ETag=ETAG, Content_Range=span)

    async with ground(cut_after(DATA, MIDDLE), more) as store:
        with pytest.raises(SourceRefused, match="source_length_wrong"):
            await store.fetch()


async def test_shorter_range() -> None:
    """A range answered in part is asked for again."""

    async def part(exchange: Exchange) -> None:
        span = f"bytes {MIDDLE}-{MIDDLE + 9}/{len(DATA)}"
        await exchange.answer(206, DATA[MIDDLE : MIDDLE + 10], ETag=ETAG, Content_Range=span)

    async with ground(cut_after(DATA, MIDDLE), part, ranged(DATA)) as store:
        _, data = await store.fetch()
    assert data == DATA


async def test_length_missing() -> None:
    """Without a length, a cut file could not be distinguished from a whole one."""

    async def endless(exchange: Exchange) -> None:
        await exchange.head(200, [("ETag", ETAG), ("Connection", "close")])
        await exchange.send(DATA)

    async with ground(endless) as store:
        with pytest.raises(SourceRefused, match="source_length_missing"):
            await store.fetch()


async def test_chunked() -> None:
    """A chunked answer says itself where it ends; its size is unknown."""

    async def chunked(exchange: Exchange) -> None:
        await exchange.head(200, [("ETag", ETAG), ("Transfer-Encoding", "chunked"), ("Connection", "close")])
        await exchange.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(DATA), DATA))

    async with ground(chunked) as store:
        info, data = await store.fetch()
    assert (info.size, data) == (None, DATA)


async def test_small_pieces_that_wait_are_joined() -> None:
    """Neither the pieces of a chunked answer nor those of a slow one cost the reader a turn each."""
    sent = asyncio.Event()

    async def dripping(exchange: Exchange) -> None:
        await exchange.head(200, [("ETag", ETAG), ("Transfer-Encoding", "chunked"), ("Connection", "close")])
        for at in range(0, len(DATA), 1000):
            piece = DATA[at : at + 1000]
            await exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await exchange.send(b"0\r\n\r\n")
        sent.set()

    async with ground(dripping) as store, store.transfers.downloader.open(store.source) as download:
        await sent.wait()
        await asyncio.sleep(0.1)
        pieces = [piece async for piece in download.chunks()]
    assert b"".join(pieces) == DATA
    assert len(pieces) < len(DATA) // 65_536 + 5


async def test_chunked_cut() -> None:
    """A chunked answer that breaks off is also continued with a Range request."""

    async def cut(exchange: Exchange) -> None:
        await exchange.head(200, [("ETag", ETAG), ("Transfer-Encoding", "chunked")])
        await exchange.send(b"%x\r\n%b" % (len(DATA), DATA[:MIDDLE]))

    async with ground(cut, ranged(DATA)) as store:
        assert (await store.fetch())[1] == DATA


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


@pytest.mark.parametrize(
    "headers",
    [
        {"x_amz_checksum_crc32": crc32(DATA)},
        {"x_amz_checksum_crc32": crc32(b"parts"), "x_amz_checksum_type": "COMPOSITE"},
        {"x_amz_checksum_crc32": f"{crc32(b'parts')}-2"},
        {"x_amz_checksum_crc32": "AAAA"},
    ],
    ids=["right", "composite by type", "composite by value", "no CRC32"],
)
async def test_checksum_that_fits_or_says_nothing(headers: dict[str, str]) -> None:
    """A checksum of the whole object is verified; one of parts says nothing about the bytes in order."""
    async with ground(whole(DATA, **headers)) as store:
        assert (await store.fetch())[1] == DATA


async def test_checksum_over_a_cut() -> None:
    """The checksum is verified over all connections."""
    async with ground(cut_after(DATA, MIDDLE, x_amz_checksum_crc32=crc32(DATA)), ranged(DATA)) as store:
        assert (await store.fetch())[1] == DATA
    async with ground(cut_after(DATA, MIDDLE, x_amz_checksum_crc32=crc32(b"else")), ranged(DATA)) as store:
        with pytest.raises(SourceRefused, match="source_checksum_mismatch"):
            await store.fetch()


async def test_wrong_checksum() -> None:
    """A file that is not what its store says it is, is refused."""
    async with ground(whole(DATA, x_amz_checksum_crc32=crc32(b"else"))) as store:
        with pytest.raises(SourceRefused, match="source_checksum_mismatch"):
            await store.fetch()


async def test_slow_drip() -> None:
    """A byte now and then, each in time for the socket, is below the minimum rate: the connection is made again."""

    async def drip(exchange: Exchange) -> None:
        await exchange.head(200, [("ETag", ETAG), ("Content-Length", str(len(DATA)))])
        for at in range(1000):
            await exchange.send(DATA[at : at + 1])
            await asyncio.sleep(0.005)

    async with ground(drip, ranged(DATA), rate_window_seconds=0.05, min_bytes_per_second=2000) as store:
        assert (await store.fetch())[1] == DATA
    assert store.retries("download") == {"source_too_slow": 1}


async def test_dripping_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that drips is bounded, though no single byte is late."""
    loop = asyncio.get_running_loop()
    real, dripped = loop.time, 0.0
    # a third of the patience lies between two bytes, by the loop's clock: the machine has all the time it needs
    monkeypatch.setattr(loop, "time", lambda: real() + dripped)

    async def drip(exchange: Exchange) -> None:
        nonlocal dripped
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
            await exchange.send(bytes([byte]))
            await asyncio.sleep(0.01)
            dripped += 6

    async with ground(drip, ranged(DATA), connect_timeout_seconds=20, read_timeout_seconds=20) as store:
        assert (await store.fetch())[1] == DATA
    assert store.retries("download") == {"source_timeout": 1}


async def test_silence() -> None:
    """A server that says nothing more is given up after the read timeout."""

    async def silent(exchange: Exchange) -> None:
        await exchange.head(200, [("ETag", ETAG), ("Content-Length", str(len(DATA)))])
        await exchange.send(DATA[:MIDDLE])
        await asyncio.sleep(5)

    async with ground(silent, ranged(DATA), read_timeout_seconds=0.04) as store:
        assert (await store.fetch())[1] == DATA
    assert store.retries("download") == {"source_timeout": 1}


async def test_deadline_ends_a_connection() -> None:
    """The deadline ends a running transfer, and without a newer URL the download."""

    async def silent(exchange: Exchange) -> None:
        await exchange.head(200, [("ETag", ETAG), ("Content-Length", str(len(DATA)))])
        await exchange.send(DATA[:10])
        await asyncio.sleep(5)

    async with ground(silent) as store:
        store.urls = [store.signed(seconds=0.04)]
        began = asyncio.get_running_loop().time()
        with pytest.raises(SourceRefused, match="source_deadline_passed"):
            await store.fetch()
        assert asyncio.get_running_loop().time() - began < 1


async def test_deadline_moves_with_a_renewed_url() -> None:
    """A newer announcement in time lets the download go on after the old deadline."""

    async def silent(exchange: Exchange) -> None:
        await exchange.head(200, [("ETag", ETAG), ("Content-Length", str(len(DATA)))])
        await exchange.send(DATA[:10])
        await asyncio.sleep(5)

    async with ground(silent, ranged(DATA)) as store:
        store.urls = [store.signed(seconds=0.04), store.signed("renewed=1")]
        assert (await store.fetch())[1] == DATA


async def test_deadline_passed_before() -> None:
    """After the deadline nothing is asked at all."""
    async with ground(whole(DATA)) as store:
        store.urls = [store.signed(seconds=-1)]
        with pytest.raises(SourceRefused, match="source_deadline_passed: input_file_url expires too soon"):
            await store.fetch()
    assert store.server.requests == []


async def test_signed_headers_that_we_cannot_send() -> None:
    """A URL whose signature covers another header than host is refused before starting, with the name."""
    async with ground(whole(DATA)) as store:
        store.urls = [store.signed("X-Amz-SignedHeaders=host%3Bx-amz-request-payer")]
        with pytest.raises(SourceRefused, match=r"source_signed_headers: .*\(x-amz-request-payer\)"):
            await store.fetch()
    assert store.server.requests == []


async def test_slow_consumer_lets_go_of_the_connection() -> None:
    """While the consumer does not read, it holds no connection.

    The download continues with a Range request, not a retry.
    """
    closed = asyncio.Event()
    big = DATA * 20

    async def watch(exchange: Exchange) -> None:
        try:
            await whole(big)(exchange)
            await exchange.reader.read()
        finally:
            closed.set()

    async with (
        ground(watch, ranged(big), idle_close_seconds=0.02, read_ahead_bytes=65_536) as store,
        store.transfers.downloader.open(store.source) as download,
    ):
        pieces = download.chunks()
        got = await anext(pieces)
        await asyncio.wait_for(closed.wait(), 1)
        async for piece in pieces:
            got += piece
    assert got == big
    assert "range" in store.server.requests[1].headers
    assert store.retries("download") == {}


async def test_leaving_early_closes_the_connection() -> None:
    """A caller that leaves in the middle leaves no open connection."""
    async with ground(whole(DATA * 20)) as store:
        async with store.transfers.downloader.open(store.source) as download:
            await anext(download.chunks())
        assert store.server.requests


async def test_unreachable() -> None:
    """A host that does not answer the door is worth another try, later."""
    taken = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    host = f"127.0.0.1:{taken.sockets[0].getsockname()[1]}"
    taken.close()
    await taken.wait_closed()
    async with ground(whole(DATA), rules={"input": (host,)}, max_tries=2) as store:
        store.server.url = f"http://{host}"
        with pytest.raises(TransientError, match="source_unreachable"):
            await store.fetch()
    assert store.retries("download") == {"source_unreachable": 1}


async def test_nonsense_instead_of_http() -> None:
    """An answer that is not HTTP is treated as a broken connection."""

    async def nonsense(exchange: Exchange) -> None:
        await exchange.send(b"SSH-2.0-OpenSSH\r\n\r\n")

    async with ground(nonsense, whole(DATA)) as store:
        assert (await store.fetch())[1] == DATA


async def test_host_not_allowed() -> None:
    """A URL of another host is refused before a name is resolved."""
    async with ground(whole(DATA), rules={"input": ("files.example.com",)}) as store:
        with pytest.raises(AddressRefused, match="host_not_allowed"):
            await store.fetch()
    assert store.server.requests == []


async def test_malformed_url() -> None:
    """A malformed URL is refused, and the message does not repeat it."""
    async with ground(whole(DATA)) as store:
        store.server.url = "nonsense"
        with pytest.raises(AddressRefused, match="url_malformed: The URL must be"):
            await store.fetch()


async def test_cancellation_comes_through() -> None:
    """A cancelled download stops at once and leaves nothing open."""
    waiting = asyncio.Event()

    async def silent(exchange: Exchange) -> None:
        await exchange.head(200, [("ETag", ETAG), ("Content-Length", str(len(DATA)))])
        waiting.set()
        await asyncio.sleep(5)

    async with ground(silent) as store:
        task = asyncio.create_task(store.fetch())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_errors_of_the_url_source_come_through() -> None:
    """The downloader does not retry errors of the URL source."""
    failing = TransientError("store_unavailable", "later")

    async def source() -> SignedUrl:
        raise failing

    async with ground(whole(DATA)) as store:
        with pytest.raises(TransientError) as caught:
            async with store.transfers.downloader.open(source):
                pass
    assert caught.value is failing


async def test_any_pace_where_no_minimum_is_set() -> None:
    """With a minimum rate of 0 only silence and the deadline end a connection."""

    async def slow(exchange: Exchange) -> None:
        await exchange.head(200, [("ETag", ETAG), ("Content-Length", "20")])
        for byte in DATA[:20]:
            await exchange.send(bytes([byte]))
            await asyncio.sleep(0.003)

    async with ground(slow, rate_window_seconds=0.01, min_bytes_per_second=0) as store:
        assert (await store.fetch())[1] == DATA[:20]


async def test_without_metrics() -> None:
    async with ground(cut_after(DATA, MIDDLE), ranged(DATA)) as store:
        rules = HostRules(input=(store.server.url[7:],), allow_http=True, allow_private=True)
        async with (
            open_transfers(
                TransferParameters(retry={"first_seconds": 1e-9}), rules=rules, network=NetworkSettings(), clock=now
            ) as bare,
            bare.downloader.open(store.source) as download,
        ):
            assert b"".join([piece async for piece in download.chunks()]) == DATA
