"""Answers of object stores to a PUT of a result or a GET of an input file: what each comes to, after how many tries."""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import pytest
from structlog.testing import capture_logs
from support.inputs_page import answers
from support.transfer_ground import SECRET, Ground, cut_after, error_document, ground, ranged, refusing, whole

from pipeline.errors import PipelineError
from pipeline.jobs.transfer.testing import Act, Exchange

CARD: Final = "4111111111111111"
DATA: Final = b"card_number\n9999990000000006\n" * 40
DIGEST: Final = hashlib.md5(DATA, usedforsecurity=False)
MD5: Final = f'"{DIGEST.hexdigest()}"'
MD5_BASE64: Final = base64.b64encode(DIGEST.digest()).decode()
CRC: Final = base64.b64encode(zlib.crc32(DATA).to_bytes(4, "big")).decode()
OTHER: Final = '"00000000000000000000000000000000"'
BOMB: Final = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><Error><Code>&b;</Code></Error>'
LEAKY: Final = f"<Error><Code>SignatureDoesNotMatch</Code><Message>{CARD} {SECRET}</Message></Error>".encode()
WIDE: Final = "<Error><Code>SlowDown</Code></Error>".encode("utf-16")
STORED: Final = "stored"
READ: Final = "read"


@dataclass(frozen=True, slots=True)
class Case:
    """Answers, one after the other; the last one again and again.

    Attributes:
        answer: ``stored``, ``read``, or the code of the error.
        requests: How many requests are made.
        settings: Transfer settings that differ.
    """

    answer: str
    acts: tuple[Act, ...]
    requests: int = 1
    verb: Literal["put", "get"] = "put"
    settings: dict[str, Any] = field(default_factory=dict)


def taking(etag: str = MD5, status: int = 200, document: bytes = b"", **headers: str) -> Act:
    """Take the body and answer."""

    async def act(exchange: Exchange) -> None:
        if "expect" in exchange.request.headers:
            await exchange.head(100)
        assert await exchange.body() == DATA
        tag = {"ETag": etag} if etag else {}
        await exchange.answer(status, document, **tag, **headers)

    return act


def put(answer: str, *acts: Act, requests: int = 1, **settings: Any) -> Case:
    return Case(answer, acts, requests, "put", settings)


def get(answer: str, *acts: Act, requests: int = 1, **settings: Any) -> Case:
    return Case(answer, acts, requests, "get", settings)


def failing(code: str, message: str = "") -> Act:
    """Take the body, answer 200, and say in the body that it failed."""
    return taking(document=error_document(code, message))


def held(size: int = len(DATA), etag: str = OTHER, **headers: str) -> Act:
    """Answer a HEAD."""

    async def act(exchange: Exchange) -> None:
        assert exchange.request.method == "HEAD"
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        await exchange.head(200, [("ETag", etag), ("Content-Length", str(size)), ("Connection", "close"), *named])

    return act


def saying(raw: bytes) -> Act:
    """Send bytes that need not be HTTP."""

    async def act(exchange: Exchange) -> None:
        await exchange.send(raw)

    return act


def bare(status: int) -> Act:
    """Answer without a body."""

    async def act(exchange: Exchange) -> None:
        if "expect" in exchange.request.headers:
            await exchange.head(100)
            await exchange.body()
        await exchange.head(status, [("Connection", "close")])

    return act


def answering(status: int, document: bytes) -> Act:
    """Answer with a document."""

    async def act(exchange: Exchange) -> None:
        await exchange.answer(status, document)

    return act


async def lost(exchange: Exchange) -> None:
    """Take the body and hang up."""
    await exchange.head(100)
    await exchange.body()


ODD: Final = taking(OTHER)
THRICE: Final = (ODD, ODD, ODD)
TRIES: Final = 4

CASES: Final[dict[str, Case]] = {
    "put-200": put(STORED, taking()),
    "put-201": put(STORED, taking(status=201)),
    "put-204": put(STORED, taking(status=204)),
    "put-202": put("upload_rejected", bare(202)),
    "etag-in-capitals": put(STORED, taking(MD5.upper())),
    "etag-without-quotes": put(STORED, taking(MD5.strip('"'))),
    "etag-missing": put(STORED, taking("")),
    "etag-weak": put(STORED, taking("W/" + OTHER)),
    "etag-opaque": put(STORED, taking('"0x8DC5E7D1A2B3C4D"')),
    "etag-of-parts": put(STORED, taking(OTHER[:-1] + '-1"')),
    "etag-kms": put(STORED, taking(OTHER, x_amz_server_side_encryption="aws:kms")),
    "etag-kms-dsse": put(STORED, taking(OTHER, x_amz_server_side_encryption="aws:kms:dsse")),
    "etag-customer-key": put(STORED, taking(OTHER, x_amz_server_side_encryption_customer_algorithm="AES256")),
    "etag-kms-of-oss": put(STORED, taking(OTHER, x_oss_server_side_encryption="KMS")),
    "etag-kms-of-obs": put(STORED, taking(OTHER, x_obs_server_side_encryption="kms")),
    "etag-kms-of-google": put(STORED, taking(OTHER, x_goog_encryption_kms_key_name="projects/p/key")),
    "etag-explained-by-crc": put(STORED, taking(OTHER, x_amz_checksum_crc32=CRC)),
    "etag-explained-by-md5": put(STORED, taking(OTHER, Content_MD5=MD5_BASE64)),
    "etag-explained-by-google": put(STORED, taking(OTHER, x_goog_hash=f"crc32c=AAAAAA==,md5={MD5_BASE64}")),
    "etag-wrong-once": put(STORED, ODD, taking(), requests=2),
    "etag-wrong-head-agrees": put(STORED, *THRICE, held(), requests=4),
    "etag-wrong-head-checksum": put(STORED, *THRICE, held(x_amz_checksum_crc32=CRC), requests=4),
    "etag-wrong-head-refused": put("upload_etag_unknown", *THRICE, refusing(403, "SignatureDoesNotMatch"), requests=4),
    "etag-wrong-head-of-another": put("upload_etag_unknown", *THRICE, held(etag='"third"'), requests=4),
    "etag-wrong-head-shorter": put("upload_corrupted", *THRICE, held(7), ODD, held(7), requests=6),
    "etag-wrong-by-setting": put(STORED, ODD, etag_is_md5=False),
    "crc-wrong": put("upload_corrupted", taking('"opaque"', x_amz_checksum_crc32="AAAAAA=="), requests=TRIES),
    "crc-of-parts": put(STORED, taking('"opaque"', x_amz_checksum_crc32="AAAAAA==-2")),
    "error-in-200": put("upload_store_failing", failing("InternalError"), requests=TRIES),
    "error-in-200-once": put(STORED, failing("SlowDown"), taking(), requests=2),
    "error-in-200-for-good": put("upload_forbidden", failing("AccessDenied")),
    "error-in-200-expired": put("upload_expired", failing("AccessDenied", "Request has expired")),
    "error-in-201": put("upload_too_large", taking(status=201, document=error_document("EntityTooLarge"))),
    "error-in-200-empty": put("upload_store_failing", taking(document=b"<Error/>"), requests=TRIES),
    "page-in-201": put(STORED, taking(status=201, document=b"<html><h1>Created</h1></html>")),
    "result-in-200": put(STORED, taking(document=b"<PutObjectResult/>")),
    "put-403-expired": put("upload_expired", refusing(403, "AccessDenied", "Request has expired")),
    "put-403-forbidden": put("upload_forbidden", refusing(403, "AccessDenied", "Access Denied")),
    "put-403-signature-refused": put("upload_signature_refused", refusing(403, "SignatureDoesNotMatch", "")),
    "put-403-signature-refused-key": put("upload_signature_refused", refusing(403, "InvalidAccessKeyId", "")),
    "put-400-expired": put("upload_expired", refusing(400, "ExpiredToken", "")),
    "put-400-checksum-refused": put("upload_checksum_refused", refusing(400, "BadDigest", "")),
    "put-400-too-large": put("upload_too_large", refusing(400, "EntityTooLarge", "")),
    "put-404-bucket-missing": put("upload_bucket_missing", refusing(404, "NoSuchBucket", "")),
    "put-404-not-found": put("upload_not_found", refusing(404, "NoSuchKey", "")),
    "put-405": put("upload_rejected", refusing(405, "MethodNotAllowed", "")),
    "put-411": put("upload_rejected", refusing(411, "MissingContentLength", "")),
    "put-412": put("upload_changed", refusing(412, "PreconditionFailed", "")),
    "put-413": put("upload_too_large", refusing(413, "", "")),
    "put-501": put("upload_rejected", refusing(501, "NotImplemented", "")),
    "put-301": put("upload_redirected", refusing(301, "PermanentRedirect", "")),
    "put-307": put("upload_redirected", refusing(307, "TemporaryRedirect", "")),
    "put-not-yet-valid": put("upload_not_yet_valid", refusing(403, "RequestTimeTooSkewed"), requests=1),
    "put-400-timeout": put("upload_request_timeout", refusing(400, "RequestTimeout"), requests=TRIES),
    "put-408": put("upload_request_timeout", refusing(408, ""), requests=TRIES),
    "put-409": put("upload_conflict", refusing(409, "OperationAborted"), requests=TRIES),
    "put-429": put("upload_store_busy", refusing(429, ""), requests=TRIES),
    "put-500": put("upload_store_failing", refusing(500, "InternalError"), requests=TRIES),
    "put-502": put("upload_store_failing", refusing(502, ""), requests=TRIES),
    "put-503": put("upload_store_busy", refusing(503, "SlowDown"), requests=TRIES),
    "put-504": put("upload_store_failing", refusing(504, ""), requests=TRIES),
    "put-599": put("upload_store_failing", refusing(599, ""), requests=TRIES),
    "put-417": put(STORED, refusing(417), taking(), requests=2),
    "put-retry-after": put("upload_store_busy", refusing(503, "SlowDown", Retry_After="120")),
    "put-answer-lost": put(STORED, lost, taking(), requests=2),
    "put-no-http": put("upload_cut", saying(b"SSH-2.0-OpenSSH_9.6\r\n"), requests=TRIES),
    "put-document-hostile": put("upload_forbidden", answering(403, BOMB)),
    "put-document-large": put("upload_forbidden", answering(403, b"<Error>" + b"x" * 1_000_000)),
    "put-document-leaky": put("upload_signature_refused", answering(403, LEAKY)),
    "put-document-binary": put("upload_forbidden", answering(403, bytes(range(256)))),
    "put-document-in-utf-16": put(
        "upload_forbidden", answering(403, "<Error><Code>SlowDown</Code></Error>".encode("utf-16"))
    ),
    "get-200": get(READ, whole(DATA)),
    "get-200-without-etag": get(READ, whole(DATA, "")),
    "get-cut": get(READ, cut_after(DATA, 100), ranged(DATA), requests=2),
    "get-cut-without-etag": get("source_changed", cut_after(DATA, 100, "")),
    "get-changed": get("source_changed", cut_after(DATA, 100), whole(DATA, '"other"'), requests=2),
    "get-no-length": get("source_length_missing", saying(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + DATA)),
    "get-crc-wrong": get("source_checksum_mismatch", whole(DATA, x_amz_checksum_crc32="AAAAAA==")),
    "get-403-expired": get("source_expired", refusing(403, "AccessDenied", "Request has expired")),
    "get-403-forbidden": get("source_forbidden", refusing(403, "AccessDenied", "Access Denied")),
    "get-400-expired": get("source_expired", refusing(400, "ExpiredToken", "")),
    "get-404-bucket-missing": get("source_bucket_missing", refusing(404, "NoSuchBucket", "")),
    "get-301": get("source_redirected", refusing(301, "PermanentRedirect", "")),
    "get-304": get("source_redirected", bare(304)),
    "get-404": get("source_not_found", refusing(404, "NoSuchKey"), requests=3, max_not_found_tries=3),
    "get-204": get("source_rejected", bare(204)),
    "get-500": get("source_store_failing", refusing(500), requests=TRIES),
    "get-503": get(READ, refusing(503, "SlowDown"), whole(DATA), requests=2),
    "get-redirect": get("source_redirected", refusing(302, Location="https://evil.example.net/")),
    "get-document-leaky": get("source_signature_refused", answering(403, LEAKY)),
    "get-no-http": get("source_cut", saying(b"SSH-2.0-OpenSSH_9.6\r\n"), requests=TRIES),
}

PROMISED: Final = answers("store-answers")


@pytest.mark.parametrize("name", CASES)
async def test_an_answer(name: str) -> None:
    case = CASES[name]
    assert PROMISED[name].startswith(f"`{case.answer}`")
    with capture_logs() as lines:
        async with ground(*case.acts, max_tries=TRIES, **case.settings) as store:
            said, message = await outcome(case, store)
    assert (said, len(store.server.requests)) == (case.answer, case.requests)
    for text in (message, str(lines)):
        assert SECRET not in text
        assert CARD not in text


async def outcome(case: Case, store: Ground) -> tuple[str, str]:
    """The word for a success, or code and message of the error."""
    try:
        if case.verb == "put":
            await store.put(DATA)
            return STORED, ""
        assert (await store.fetch())[1] == DATA
    except PipelineError as error:
        return error.code, error.message
    return READ, ""
