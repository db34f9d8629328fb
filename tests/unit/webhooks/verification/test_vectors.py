"""What holds for every scheme that signs, shown on requests that openssl signed."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, TypeAdapter
from support.signed_requests import ALL, BODY, CALL_REF, LEGACY, NOW, OF_PRESETS, OF_WEAVR, SignedRequest, openssl_hmac

from pipeline.contracts import Headers
from pipeline.webhooks.verification import Reason, SchemeSpec, Secret, SignatureRefused, scheme_of

ADAPTER: TypeAdapter[Any] = TypeAdapter(SchemeSpec)
COVERING_THE_BODY = [one for one in ALL if one is not LEGACY]
WEAVR = OF_WEAVR[0]
STRIPE = OF_PRESETS["stripe"]


def verify(
    request: SignedRequest,
    *secrets: Secret,
    headers: Headers | None = None,
    body: bytes | None = None,
    now: datetime = NOW,
) -> str:
    scheme = scheme_of(
        ADAPTER.validate_python(request.scheme), secrets or [Secret("current", SecretStr(request.secret))]
    )
    return scheme.verify(request.headers if headers is None else headers, request.body if body is None else body, now)


def refusal(request: SignedRequest, *secrets: Secret, **changes: Any) -> Reason:
    with pytest.raises(SignatureRefused) as caught:
        verify(request, *secrets, **changes)
    return caught.value.reason


def with_signature(request: SignedRequest, text: str) -> Headers:
    """Return the headers with another text where the signature stands."""
    old, new = request.signature.encode(), text.encode("latin-1")
    return tuple((name, value.replace(old, new)) for name, value in request.headers)


@pytest.mark.parametrize("request_", ALL, ids=str)
def test_what_openssl_signed_verifies(request_: SignedRequest) -> None:
    assert verify(request_) == "current"


@pytest.mark.parametrize("request_", ALL, ids=str)
def test_openssl_still_computes_the_signature_that_is_written_down(request_: SignedRequest) -> None:
    digest = openssl_hmac(request_.key or request_.secret.encode(), request_.message, request_.hash)
    if digest is None:
        pytest.skip("there is no openssl here")
    assert request_.signature in {digest.hex(), base64.b64encode(digest).decode()}


@pytest.mark.parametrize("request_", ALL, ids=str)
def test_names_of_headers_are_compared_without_regard_to_case(request_: SignedRequest) -> None:
    for change in (str.lower, str.upper, str.swapcase):
        assert verify(request_, headers=tuple((change(name), value) for name, value in request_.headers)) == "current"


@pytest.mark.parametrize("request_", ALL, ids=str)
def test_a_repeated_header_is_refused_even_with_an_equal_value(request_: SignedRequest) -> None:
    """Each header that is read, whatever it is for and in whatever letters the second one is written."""
    read = scheme_of(
        ADAPTER.validate_python(request_.scheme), [Secret("current", SecretStr(request_.secret))]
    ).stored_headers
    for name, value in request_.headers:
        if name.lower() in read:
            reason = refusal(request_, headers=(*request_.headers, (name.swapcase(), value)))
            assert reason in {Reason.HEADER_REPEATED, Reason.TIMESTAMP_REPEATED}


@given(data=st.data())
def test_any_single_changed_byte_of_the_body_is_refused(data: st.DataObject) -> None:
    """Law, for every scheme but Weavr's deprecated one."""
    request = data.draw(st.sampled_from([one for one in COVERING_THE_BODY if one.body]))
    index = data.draw(st.integers(0, len(request.body) - 1))
    changed = bytearray(request.body)
    changed[index] ^= data.draw(st.integers(1, 255))
    assert refusal(request, body=bytes(changed)) is Reason.NOT_VERIFIED


@given(data=st.data(), added=st.sampled_from([b" ", b"\n", b"\r\n", b"\x00", b"\xef\xbb\xbf"]))
def test_nothing_can_be_added_around_the_body(data: st.DataObject, added: bytes) -> None:
    request = data.draw(st.sampled_from(COVERING_THE_BODY))
    assert refusal(request, body=request.body + added) is Reason.NOT_VERIFIED
    assert refusal(request, body=added + request.body) is Reason.NOT_VERIFIED


def test_the_deprecated_signature_proves_nothing_about_the_body() -> None:
    assert verify(LEGACY, body=b"anything") == "current"


@pytest.mark.parametrize("request_", [one for one in ALL if one is not STRIPE], ids=str)
@pytest.mark.parametrize("blank", [" ", "\t"])
def test_a_blank_behind_a_signature_is_malformed(request_: SignedRequest, blank: str) -> None:
    headers = with_signature(request_, request_.signature + blank)
    assert refusal(request_, headers=headers) is Reason.SIGNATURE_MALFORMED


@pytest.mark.parametrize("blank", [" ", "\t"])
def test_a_blank_before_a_comma_is_no_part_of_the_signature(blank: str) -> None:
    """Stripe's header goes on behind the signature."""
    assert verify(STRIPE, headers=with_signature(STRIPE, STRIPE.signature + blank)) == "current"


@pytest.mark.parametrize("request_", ALL, ids=str)
@pytest.mark.parametrize(
    "change",
    [
        lambda text: f" {text}",
        lambda text: f"{text[:8]} {text[8:]}",
        lambda text: f"{text[:8]}\r\n {text[8:]}",
        lambda text: f'"{text}"',
        lambda text: f"{text}=",
        lambda text: text[:-1],
        lambda text: text.rstrip("=") + "===",
        lambda text: f"-{text[1:]}",
        lambda text: f"_{text[1:]}",
        lambda text: f"%2B{text[3:]}",
        lambda text: f"\u00ff{text[1:]}",
        lambda _text: "",
    ],
)
def test_another_spelling_of_a_signature_is_malformed(request_: SignedRequest, change: Callable[[str], str]) -> None:
    assert refusal(request_, headers=with_signature(request_, change(request_.signature))) in {
        Reason.SIGNATURE_MALFORMED,
        Reason.SIGNATURE_MISSING,
    }


@pytest.mark.parametrize("request_", OF_WEAVR, ids=str)
def test_base64_of_another_alphabet_or_without_padding_is_malformed(request_: SignedRequest) -> None:
    url_safe = request_.signature.replace("+", "-").replace("/", "_")
    for other in {request_.signature.rstrip("="), url_safe} - {request_.signature}:
        reason = refusal(request_, headers=with_signature(request_, other))
        assert reason is Reason.SIGNATURE_MALFORMED


@pytest.mark.parametrize("request_", OF_WEAVR, ids=str)
def test_bits_that_the_padding_hides_are_no_second_spelling(request_: SignedRequest) -> None:
    """Other last characters decode to the same bytes; only what an encoder writes counts."""
    digest = base64.b64decode(request_.signature)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    spellings = [f"{request_.signature[:-2]}{letter}=" for letter in letters]
    same = [one for one in spellings if base64.b64decode(one) == digest and one != request_.signature]
    assert len(same) == 3
    for other in same:
        reason = refusal(request_, headers=with_signature(request_, other))
        assert reason is Reason.NOT_VERIFIED


@pytest.mark.parametrize("request_", ALL, ids=str)
def test_another_key_does_not_verify(request_: SignedRequest) -> None:
    other = Secret("other", SecretStr("AAAA" if request_.key else "other"))
    assert refusal(request_, other) is Reason.NOT_VERIFIED


@pytest.mark.parametrize("request_", ALL, ids=str)
def test_keys_overlap_while_one_is_exchanged(request_: SignedRequest) -> None:
    """Both dates of each key count; the one that matched is named; without any that counts, the fault is ours."""
    hour = timedelta(hours=1)
    other = Secret("other", SecretStr("AAAA" if request_.key else "other"))
    old = Secret("old", SecretStr(request_.secret), not_after=NOW)
    new = Secret("new", SecretStr(request_.secret), not_before=NOW, not_after=NOW + hour)
    assert verify(request_, other, old, new) == "new"
    assert refusal(request_, other, old) is Reason.NOT_VERIFIED
    assert refusal(request_, old) is Reason.NO_ACTIVE_SECRET


def test_a_request_stays_fresh_as_long_as_weavr_repeats_it() -> None:
    """Repeated for 4 h 19 min under its first timestamp; the window is 5 h on either side."""
    first = datetime.fromtimestamp(1769121839.295, NOW.tzinfo)
    retries = timedelta(seconds=10 + 60 + 360 + 2160 + 12_960)
    assert verify(WEAVR, now=first + retries) == "current"
    assert refusal(WEAVR, now=first + timedelta(hours=5, seconds=1)) is Reason.TIMESTAMP_TOO_OLD
    assert refusal(WEAVR, now=first - timedelta(hours=5, seconds=1)) is Reason.TIMESTAMP_IN_FUTURE


def test_a_missing_and_an_empty_call_ref_are_signed_alike() -> None:
    without = OF_WEAVR[1]
    assert verify(without, headers=(("call-ref", b""), *without.headers)) == "current"
    assert refusal(without, headers=(("call-ref", CALL_REF), *without.headers)) is Reason.NOT_VERIFIED


def test_a_call_ref_is_signed_as_received() -> None:
    """Neither trimmed nor folded: HTTP itself has taken off what does not belong to the value."""
    rest = WEAVR.headers[1:]
    for other in (CALL_REF.upper(), CALL_REF + b" ", b" " + CALL_REF, CALL_REF[:-1]):
        assert refusal(WEAVR, headers=(("call-ref", other), *rest)) is Reason.NOT_VERIFIED


def test_leading_zeros_of_a_timestamp_are_signed() -> None:
    headers = tuple((name, b"0" + value if name == "published-timestamp" else value) for name, value in WEAVR.headers)
    assert refusal(WEAVR, headers=headers) is Reason.NOT_VERIFIED


def test_a_signature_covers_its_own_request_alone() -> None:
    for other in OF_WEAVR[1:]:
        assert refusal(WEAVR, headers=other.headers, body=BODY + b"x") is Reason.NOT_VERIFIED
