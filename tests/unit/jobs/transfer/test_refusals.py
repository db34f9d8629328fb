"""Each row of the store's error table, over the wire: what is repeated, what is final, and what is said of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from structlog.testing import capture_logs
from support.transfer_ground import QUERY, SECRET, Ground, error_document, ground, now, refusing, whole

from pipeline.errors import PipelineError, TransientError
from pipeline.jobs.transfer import SourceChanged, SourceRefused, UploadRefused
from pipeline.jobs.transfer.testing import Exchange

DATA = b"card_number\n9999990000000006\n"
EXPIRED = "<Expires>2026-01-22T22:43:59Z</Expires><ServerTime>2026-01-22T23:00:00Z</ServerTime>"


@pytest.mark.parametrize(
    ("status", "code", "message", "extra", "expected"),
    [
        (403, "AccessDenied", "Request has expired", EXPIRED, "expired"),
        (403, "AccessDenied", "Access Denied", "", "forbidden"),
        (
            403,
            "AccessDenied",
            "There were headers present in the request which were not signed",
            "",
            "headers_not_signed",
        ),
        (403, "AccessDenied", "x", "<HeadersNotSigned>x-amz-foo</HeadersNotSigned>", "headers_not_signed"),
        (403, "SignatureDoesNotMatch", "The request signature we calculated ...", "", "signature_refused"),
        (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided ...", "", "signature_refused"),
        (400, "ExpiredToken", "The provided token has expired.", "", "expired"),
        (400, "BadDigest", "The CRC32 you specified did not match", "", "checksum_refused"),
        (400, "InvalidDigest", "The Content-MD5 you specified is not valid", "", "checksum_refused"),
        (400, "XAmzContentChecksumMismatch", "", "", "checksum_refused"),
        (400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size", "", "too_large"),
        (404, "NoSuchBucket", "The specified bucket does not exist", "", "bucket_missing"),
        (411, "MissingContentLength", "", "", "rejected"),
        (501, "NotImplemented", "A header you provided implies functionality ...", "", "rejected"),
        (301, "PermanentRedirect", "", "", "redirected"),
        (307, "TemporaryRedirect", "", "", "redirected"),
        (418, "", "", "", "rejected"),
    ],
)
async def test_final(status: int, code: str, message: str, extra: str, expected: str) -> None:
    """What cannot be helped is refused at once, both ways, naming the field and the store's code."""
    async with ground(refusing(status, code, message, extra, Location="http://127.0.0.1:9/")) as store:
        with pytest.raises(SourceRefused, match="input_file_url") as source:
            await store.fetch()
        with pytest.raises(UploadRefused, match="result_upload_url") as target:
            await store.put(DATA)
    assert source.value.code == f"source_{expected}"
    assert target.value.code == f"upload_{expected}"
    assert f"{status} {code}".strip() in source.value.message
    assert len(store.server.requests) == 2


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "RequestTimeout", "request_timeout"),
        (408, "", "request_timeout"),
        (409, "ConditionalRequestConflict", "conflict"),
        (429, "TooManyRequests", "store_busy"),
        (500, "InternalError", "store_failing"),
        (502, "", "store_failing"),
        (503, "SlowDown", "store_busy"),
        (503, "", "store_busy"),
        (504, "", "store_failing"),
    ],
)
async def test_repeated(status: int, code: str, expected: str) -> None:
    """What may pass is repeated within the call, both ways."""

    async def stored(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.answer(200)

    async with ground(
        refusing(status, code), whole(DATA), refusing(status, code), stored, expect_continue=False
    ) as store:
        assert (await store.fetch())[1] == DATA
        assert await store.put(DATA) == ""
    assert store.retries("download") == {f"source_{expected}": 1}
    assert store.retries("upload") == {f"upload_{expected}": 1}


async def test_repeated_in_vain() -> None:
    """When the tries are used up the runner decides when to come back."""
    async with ground(refusing(500, "InternalError"), max_tries=3) as store:
        with pytest.raises(TransientError, match="source_store_failing") as caught:
            await store.fetch()
    assert not isinstance(caught.value, SourceChanged)
    assert len(store.server.requests) == 3


async def test_retry_after_within_the_call() -> None:
    """A short wish for a pause is granted on the spot."""
    async with ground(refusing(503, "SlowDown", Retry_After="0"), whole(DATA)) as store:
        assert (await store.fetch())[1] == DATA


async def test_retry_after_beyond_the_call() -> None:
    """A long wish is handed to the runner: no slot is held for it."""
    async with ground(refusing(503, "SlowDown", Retry_After="120"), whole(DATA)) as store:
        with pytest.raises(TransientError, match="source_store_busy") as caught:
            await store.fetch()
    assert caught.value.retry_after == 120
    assert len(store.server.requests) == 1


async def test_not_there_yet() -> None:
    """404 NoSuchKey: the input may not be there yet, so it is asked for a few times."""
    missing = refusing(404, "NoSuchKey")
    async with ground(missing, missing, missing, whole(DATA), max_tries=1, max_not_found_tries=4) as store:
        assert (await store.fetch())[1] == DATA
    assert store.retries("download") == {"source_not_found": 3}


async def test_never_there() -> None:
    """After a few tries, a missing object is a permanent error."""
    async with ground(refusing(404, "NoSuchKey"), max_not_found_tries=3) as store:
        with pytest.raises(SourceRefused, match="source_not_found: input_file_url leads to no object"):
            await store.fetch()
    assert len(store.server.requests) == 3


async def test_upload_to_nowhere() -> None:
    """A 404 to an upload is final."""
    async with ground(refusing(404, "NoSuchKey")) as store:
        with pytest.raises(UploadRefused, match="upload_not_found"):
            await store.put(DATA)
    assert len(store.server.requests) == 1


@pytest.mark.parametrize("words", ["Request is not yet valid", "Request is not valid yet"])
async def test_not_yet_valid(words: str) -> None:
    """The signer's clock is ahead: later, namely when the store's clock reaches the signature's time."""
    store_says = datetime(2026, 1, 21, 12, 0, 0, tzinfo=UTC)
    act = refusing(403, "AccessDenied", words, Date=format_datetime(store_says, usegmt=True))
    async with ground(act) as store:
        store.urls = [store.signed("X-Amz-Date=20260121T120130Z&X-Amz-Expires=600")]
        with pytest.raises(TransientError, match="source_not_yet_valid") as caught:
            await store.fetch()
    assert caught.value.retry_after == 91
    assert "behind ours" in caught.value.message


async def test_not_yet_valid_by_unknown_clocks() -> None:
    """Where no clock says how long, a few seconds."""
    async with ground(refusing(403, "AccessDenied", "Request is not yet valid")) as store:
        with pytest.raises(TransientError, match="source_not_yet_valid") as caught:
            await store.fetch()
    assert caught.value.retry_after == 5


async def test_expiry_names_the_clocks() -> None:
    """When the store finds a URL expired before its time, the message says by how much the clocks differ."""
    moment = now().replace(microsecond=0)
    ahead = (moment + timedelta(seconds=600)).strftime("%Y-%m-%dT%H:%M:%SZ")
    act = refusing(403, "AccessDenied", "Request has expired", f"<ServerTime>{ahead}</ServerTime>")
    async with ground(act, clock=lambda: moment) as store:
        with pytest.raises(SourceRefused, match="its clock is 600 s ahead of ours"):
            await store.fetch()


async def test_expired_but_renewed() -> None:
    """A refusal of an old URL is not the end when a newer announcement is there."""

    async def stored(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.answer(200)

    expired = refusing(403, "AccessDenied", "Request has expired")
    async with ground(expired, whole(DATA), expired, stored, expect_continue=False) as store:
        store.urls = [
            store.signed(),
            store.signed("new=1"),
            store.signed("new=1"),
            store.signed(),
            store.signed("new=2"),
        ]
        assert (await store.fetch())[1] == DATA
        await store.put(DATA)
    assert [request.target.partition("?")[2] for request in store.server.requests] == [QUERY, "new=1", QUERY, "new=2"]


async def test_precondition_on_upload() -> None:
    """412 to an upload is a refusal: there is nothing to start over."""
    async with ground(refusing(412, "PreconditionFailed")) as store:
        with pytest.raises(UploadRefused, match="upload_changed"):
            await store.put(DATA)


HOSTILE = [
    b"",
    b"<html><body>403</body></html>",
    b"<Error><Code>" + SECRET.encode() + b"</Code></Error>",
    b"<Error><Code>Acc",
    b'<!DOCTYPE e [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><Error><Code>&b;</Code></Error>',
    b"\xff\xfe\x00",
    b"<" * 200_000,
]


@pytest.mark.parametrize("document", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_error_documents(document: bytes) -> None:
    """The status decides for any document, and no message repeats the document."""

    async def act(exchange: Exchange) -> None:
        await exchange.answer(403, document)

    async with ground(act) as store:
        with pytest.raises(SourceRefused, match=r"source_forbidden: .* \(the store answered 403\)\.$"):
            await store.fetch()


async def test_error_document_that_breaks_off() -> None:
    """A document that is cut is interpreted by what came."""
    document = error_document("SignatureDoesNotMatch")

    async def act(exchange: Exchange) -> None:
        await exchange.head(403, [("Content-Length", "100000")])
        await exchange.send(document)

    async with ground(act) as store:
        with pytest.raises(SourceRefused, match="source_signature_refused"):
            await store.fetch()


async def texts(store: Ground, act: str) -> str:
    """Return the error's whole chain as text."""
    with pytest.raises(PipelineError) as caught:
        await (store.fetch() if act == "download" else store.put(DATA))
    chain: list[BaseException] = []
    seen: BaseException | None = caught.value
    while seen is not None:
        chain.append(seen)
        seen = seen.__cause__ or seen.__context__
    return " ".join(f"{one!r} {one}" for one in chain)


async def silence(_: Exchange) -> None:
    await asyncio.sleep(5)


async def nonsense(exchange: Exchange) -> None:
    await exchange.send(b"nonsense\r\n\r\n")


async def close(_: Exchange) -> None:
    pass


@pytest.mark.parametrize("direction", ["download", "upload"])
@pytest.mark.parametrize(
    "act",
    [
        refusing(403, "SignatureDoesNotMatch", "no", f"<StringToSign>{SECRET}</StringToSign>"),
        refusing(403, "AccessDenied", f"Request {SECRET} has expired"),
        refusing(503, "SlowDown", SECRET),
        refusing(302, Location=f"http://127.0.0.1:9/?X-Amz-Signature={SECRET}"),
        silence,
        nonsense,
        close,
    ],
    ids=["signature", "expired", "busy", "redirect", "silence", "nonsense", "close"],
)
async def test_no_query_anywhere(act: object, direction: str) -> None:
    """No part of a URL's query or of an error document is in an error, its causes, or a log line."""
    seconds = ("connect_timeout_seconds", "read_timeout_seconds", "rate_window_seconds")
    patience: dict[str, float] = {**dict.fromkeys(seconds, 0.02), "max_tries": 2}
    with capture_logs() as logs:
        async with ground(act, **patience) as store:  # type: ignore[arg-type]
            told = await texts(store, direction)
    for text in (told, str(logs)):
        assert SECRET not in text
        assert "X-Amz" not in text
        assert "x-id" not in text
