"""What a pre-signed URL says about itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.jobs.transfer import job_deadline, signed_url
from pipeline.jobs.transfer.urls import demands_empty_body, parameters, signed_headers, signing_time, url_expiry
from pipeline.outbound import AddressRefused, redact, request_url

SIGNED = "https://b.example.com/in.csv?X-Amz-Date=20260121T224359Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host"
AT = datetime(2026, 1, 21, 22, 43, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    "tail",
    ["/a%2Fb%7Ec", "/a/../b/./c", "/%e2%82%ac?x=%2f%7e+%20&y", "/a~b?X-Amz-Credential=A%2F2026%2Fs3", ""],
)
def test_path_and_query_go_out_as_signed(tail: str) -> None:
    """Nothing is quoted, unquoted or normalised on its way: the signature covers it."""
    url = request_url(f"https://B.example.com:8443{tail}")
    assert str(url) == f"https://b.example.com:8443{tail}"
    assert url.raw_host == "b.example.com"
    assert url.raw_path_qs.removeprefix("/") == tail.removeprefix("/")


def test_empty_path_is_the_root() -> None:
    """HTTP has no empty path; signers mean the root by it."""
    assert request_url("https://b.example.com?X-Amz-Date=1").raw_path_qs == "/?X-Amz-Date=1"


def test_host_is_normalised_for_the_request() -> None:
    """The host that was checked is the host that is connected to."""
    assert request_url("HTTPS://MÜLLER.example/x").host == "müller.example"
    assert request_url("HTTPS://MÜLLER.example/x").raw_host == "xn--mller-kva.example"
    assert request_url("https://[2606:4700:0::1]/x").raw_host == "2606:4700::1"


def test_malformed_is_refused() -> None:
    """A URL that could never be allowed is not made into a request."""
    with pytest.raises(AddressRefused, match="url_fragment"):
        request_url("https://b.example.com/#x")


def test_deadline_is_the_earliest() -> None:
    """The deadline is the earliest of the announced expiry and the URLs' own ones, less the margin."""
    late = AT + timedelta(days=1)
    assert job_deadline(SIGNED, expires_at=late, margin_seconds=30) == AT + timedelta(seconds=3570)
    assert job_deadline(SIGNED, expires_at=AT, margin_seconds=0) == AT
    sooner = SIGNED.replace("=3600", "=60")
    assert job_deadline(SIGNED, sooner, expires_at=late, margin_seconds=0) == AT + timedelta(seconds=60)
    assert job_deadline("https://plain.example.com/", expires_at=late, margin_seconds=1) == late - timedelta(seconds=1)


def test_a_url_that_expired_before_there_were_any_has_a_deadline() -> None:
    """The margin cannot be subtracted from the year 1, which would be an unexpected error at every try."""
    ancient = SIGNED.replace("20260121T224359Z", "00010101T000000Z")
    deadline = job_deadline(ancient, expires_at=AT, margin_seconds=30)
    assert deadline == datetime(1999, 12, 31, 23, 59, 30, tzinfo=UTC)


def test_signed_url_hides_itself() -> None:
    """The URL is a secret, its deadline is not."""
    signed = signed_url(SIGNED, expires_at=AT, margin_seconds=10)
    assert signed.deadline == AT - timedelta(seconds=10)
    assert "X-Amz" not in repr(signed)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "X-Amz-Date=20260121T224359Z",
        "X-Amz-Expires=60",
        "X-Amz-Date=yesterday&X-Amz-Expires=60",
        "X-Amz-Date=20260121T224359Z&X-Amz-Expires=-5",
        "X-Amz-Date=20260121T224359Z&X-Amz-Expires=1e3",
        "X-Amz-Date=20260121T224359Z&X-Amz-Expires=99999999999999999999",
        "X-Amz-Date=20260121T224359Z&X-Amz-Expires=" + "9" * 5000,
        "&".join(f"p{n}=1" for n in range(300)),
    ],
)
def test_no_expiry_of_its_own(query: str) -> None:
    """If the URL does not clearly contain both values, only the announced expiry applies."""
    assert url_expiry(f"https://b.example.com/?{query}") is None


def test_signing_time() -> None:
    """The signature is valid from its date on."""
    assert signing_time(SIGNED) == AT
    assert signing_time("https://b.example.com/") is None


def test_signed_headers() -> None:
    """Header names are compared without regard to case."""
    assert signed_headers(SIGNED) == {"host"}
    assert signed_headers("https://b.example.com/?X-Amz-SignedHeaders=Host%3BX-Amz-Acl") == {"host", "x-amz-acl"}
    assert signed_headers("https://b.example.com/") == frozenset()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("x-amz-checksum-crc32=AAAAAA%3D%3D", True),
        ("x-amz-checksum-crc32=AAAAAA==", True),
        ("x-amz-checksum-crc32=NSRBwg%3D%3D", False),
        ("x-id=PutObject", False),
    ],
)
def test_checksum_of_an_empty_body(query: str, *, expected: bool) -> None:
    """The CRC32 that an SDK puts there when it signs without a body is known."""
    assert demands_empty_body(f"https://b.example.com/?{query}") is expected


def test_first_of_equal_parameters_counts() -> None:
    """A parameter that appears twice cannot hide the first."""
    assert parameters("https://b.example.com/?A=1&a=2") == {"a": "1"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (SIGNED, "https://b.example.com/in.csv"),
        ("https://b.example.com", "https://b.example.com"),
        ("https://user:pass@b.example.com/x?y", "(malformed URL)"),
        ("https://b.example.com/4111111111111111/in.csv", "https://b.example.com/[digits]/in.csv"),
        ("https://b.example.com/card-100001.csv", "https://b.example.com/card-[digits].csv"),
        ("https://b.example.com/4111/1111/1111/1111", "https://b.example.com/[digits]"),
        ("https://b.example.com/4111-1111.1111_1111", "https://b.example.com/[digits]"),
        ("https://b.example.com/%34%31%31%31%31%31", "https://b.example.com/[digits]"),
        ("https://b.example.com/%2534%2531%2531%2531%2531%2531", "https://b.example.com/[digits]"),
        (
            "https://b.example.com/%EF%BC%94%EF%BC%91%EF%BC%91%EF%BC%91%EF%BC%91%EF%BC%91",
            "https://b.example.com/[digits]",
        ),
        ("https://4111111111111111.example.com:8443/a", "https://[digits].example.com:8443/a"),
        ("https://4111-1111-1111-1111.example.com/a", "https://[digits].example.com/a"),
        ("https://4111.1111.1111.1111.example.com/a", "https://[digits].example.com/a"),
        ("https://203.0.113.100:12345/a", "https://203.0.113.100:12345/a"),
        ("https://[2606:4700:123456::1]/a", "(malformed URL)"),
        ("https://[2606:4700::1]:8443/a", "https://[2606:4700::1]:8443/a"),
        (
            "https://b.example.com/4933e450-d3c4-406f-9b9b-3afb812a5b7c/2026-01-22/a%2Fb.csv",
            "https://b.example.com/4933e450-d3c4-406f-9b9b-3afb812a5b7c/2026-01-22/a%2Fb.csv",
        ),
        ("https://b.example.com/41111111-1111-1111-1111-111111111111", "https://b.example.com/[digits]"),
    ],
)
def test_redact(url: str, expected: str) -> None:
    """Scheme, host and path may be shown, but for digits that may be a card number; nothing else."""
    assert redact(url) == expected
