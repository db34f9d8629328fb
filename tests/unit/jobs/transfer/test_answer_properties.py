"""Laws of object stores' answers: any document has a meaning, and the reasons that messages repeat are words."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from pipeline.jobs.transfer.answers import MAX_ERROR_BYTES, Remedy, interpret, read_refusal
from pipeline.outbound import http_date, retry_after_seconds

NOW: Final = datetime(2026, 1, 22, 22, 44, tzinfo=UTC)
SECRET: Final = b"5d672d79c15b13162d9279b0855cfba6" * 2
WORDS: Final = st.sampled_from(
    (
        b"<?xml version='1.0'?>", b"<Error>", b"</Error>", b"<Code>", b"</Code>", b"<Message>", b"</Message>",
        b"<ServerTime>", b"</ServerTime>", b"<ActualObjectSize>", b"</ActualObjectSize>", b"<HeadersNotSigned>",
        b"SlowDown", b"AccessDenied", b"SignatureDoesNotMatch", b"RequestTimeTooSkewed", b"Request has expired",
        b"not valid yet", b"2026-01-22T22:43:59Z", b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59",
        b"9" * 400, b"9" * 15, b"-1", b"<![CDATA[", b"]]>", b"&lt;", b"<!--", b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///'>]>",
        SECRET, b"<html>", b" ", b"\n", b"\x00", b"\xff", "é".encode("utf-16"),
    )
)  # fmt: skip
DOCUMENTS: Final = st.lists(WORDS | st.binary(max_size=8), max_size=30).map(b"".join)
DATES: Final = st.lists(
    st.sampled_from(
        (
            "Thu,", " ", "22", "Jan", "2026", "22:43:59", "GMT", "+9999", "-0000", "+99999999999", "0", "9" * 30, "-1",
            "99", "1e5", "24:61:61", ",", ":", "Feb", "30", "9999", "0001", "\x00", "٣",
        )
    ),
    max_size=9,
).map("".join)  # fmt: skip


@given(status=st.integers(100, 999), document=DOCUMENTS, date=DATES, wait=DATES, size=DATES)
def test_any_answer_has_a_meaning(status: int, document: bytes, date: str, wait: str, size: str) -> None:
    """What messages repeat of it is a word of the store, never a signature."""
    headers = {"Date": date, "Retry-After": wait, "Content-Range": f"bytes */{size}"}
    found = read_refusal(status, headers, document, NOW)
    meaning = interpret(found)
    assert re.fullmatch(r"[a-z_]+", meaning.reason)
    assert meaning.remedy in Remedy
    assert re.fullmatch(r"(?:[A-Z][A-Za-z0-9]{1,47})?", found.code)
    assert SECRET.decode() not in found.code + repr(found)
    assert found.retry_after is None or 0 <= found.retry_after <= 3600
    assert found.object_size is None or 0 <= found.object_size < 10**15
    assert found.server_time is None or found.server_time.tzinfo is not None


@given(
    code=st.from_regex(r"\A[A-Z][A-Za-z0-9]{1,47}\Z"),
    before=st.text("<>/&;! \n", max_size=40),
    message=st.text(st.characters(exclude_characters="<", codec="utf-8"), max_size=200),
)
def test_a_code_is_found_wherever_it_is(code: str, before: str, message: str) -> None:
    document = f"{before}<Error><Code> {code}\n</Code><Message>{message}</Message></Error>".encode()
    assert read_refusal(400, {}, document, NOW).code == code


@given(piece=st.sampled_from((b"<Code>", b"<Message>", b"<Code> ", b"<ServerTime>", b"<HeadersNotSigned", b"expired ")))
def test_the_longest_document_is_read_in_a_moment(piece: bytes) -> None:
    """No pattern takes longer than the bytes are long: a test that hangs fails the run."""
    document = (piece * (MAX_ERROR_BYTES // len(piece) + 1))[:MAX_ERROR_BYTES]
    assert read_refusal(403, {}, document, NOW).code == ""


@given(DATES)
def test_any_text_is_a_date_or_none(text: str) -> None:
    found = http_date(text)
    assert found is None or found.tzinfo is not None
    waited = retry_after_seconds(text, now=NOW)
    assert waited is None or 0 <= waited <= 3600
