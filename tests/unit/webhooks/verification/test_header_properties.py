"""Laws of signature headers: whatever is in them, a scheme refuses in its own words, and its two methods agree."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from support.signed_requests import NOW

from pipeline.contracts import Headers
from pipeline.webhooks.verification import PRESETS, WEAVR, Scheme, Secret, SignatureRefused, scheme_of
from pipeline.webhooks.verification.request_parts import MOST_SIGNATURES
from pipeline.webhooks.verification.specs import HmacSpec, StandardWebhooksSpec

SECRET: Final = base64.b64encode(b"synthetic-key-of-24-byte").decode()
SECONDS: Final = str(int(NOW.timestamp())).encode()
BODY: Final = b'{"at":1769121840,"card":"4111111111111111"}'
SPECS: Final[dict[str, HmacSpec | StandardWebhooksSpec]] = {
    **{name: preset.scheme for name, preset in PRESETS.items()},
    "weavr": WEAVR,
    "fields": HmacSpec.model_validate(
        {
            "scheme": "hmac",
            "header": "X-Sig",
            "fields": {"signature": "v1", "timestamp": "t"},
            "timestamp": "field",
            "signed": ["timestamp", "text:.", "body"],
        }
    ),
    "list": HmacSpec(scheme="hmac", header="X-Sig", prefix="sha256="),
}
SCHEMES: Final[dict[str, Scheme]] = {
    name: scheme_of(spec, [Secret("current", SecretStr(SECRET))]) for name, spec in SPECS.items()
}
DIGEST: Final = hmac.digest(SECRET.encode(), BODY, "sha256")
WORDS: Final = (
    b"t", b"v0", b"v1", b"v1a", b"sha256", b"=", b"==", b",", b", ", b";", b" ", b"\t", b".", b":", b"",
    SECONDS, SECONDS + b"000", b"-1", b"1e999", b"9" * 40, b"0" + SECONDS, b"2026-01-22T22:44:00Z",
    DIGEST.hex().encode(), DIGEST.hex().upper().encode(), base64.b64encode(DIGEST), b"A" * 44, b"0" * 64, b"\xff",
)  # fmt: skip
"""Pieces of signature headers as senders and attackers write them."""

FEWER: Final = settings(max_examples=settings().max_examples // 5)
"""Of each scheme: there are many."""
VALUES: Final = st.lists(st.sampled_from(WORDS) | st.binary(max_size=6), max_size=24).map(b"".join)


def names_of(scheme: Scheme) -> Sequence[str]:
    return sorted(scheme.stored_headers)


@st.composite
def heads(draw: st.DrawFn, scheme: Scheme) -> Headers:
    """Headers that the scheme reads: some missing, some repeated, names in any case."""
    found: list[tuple[str, bytes]] = []
    for name in names_of(scheme):
        for _ in range(draw(st.sampled_from((0, 1, 1, 1, 1, 2)))):
            written = draw(st.sampled_from((name, name.title(), name.upper())))
            found.append((written, draw(st.just(SECONDS) | VALUES)))
    return tuple(draw(st.permutations(found)))


def refusal(scheme: Scheme, headers: Headers, body: bytes | None) -> SignatureRefused | None:
    """What the scheme says, of the head alone where the body is None; any other exception fails the test."""
    try:
        if body is None:
            scheme.check_head(headers, NOW)
        else:
            scheme.verify(headers, body, NOW)
    except SignatureRefused as refused:
        return refused
    return None


@pytest.mark.parametrize("name", SCHEMES)
@FEWER
@given(data=st.data())
def test_whatever_a_head_holds_both_methods_agree(name: str, data: st.DataObject) -> None:
    """What the head alone refuses, no body makes good; and a head that passes is refused for its signature alone."""
    scheme = SCHEMES[name]
    headers = data.draw(heads(scheme))
    early, late = refusal(scheme, headers, None), refusal(scheme, headers, BODY)
    if early is not None:
        assert late is not None
        assert (late.reason, late.fault) == (early.reason, early.fault)
    for refused in filter(None, (early, late)):
        assert SECRET not in str(refused)
        assert DIGEST.hex() not in str(refused).lower()


SEPARATORS: Final = st.sampled_from((b",", b", ", b" ,", b" , ", b",\t"))
OTHERS: Final = st.sampled_from((b"v0=" + b"0" * 64, b"v1=" + b"f" * 64, b"v1=short", b"v2=4", b"x=y"))


@given(
    others=st.lists(OTHERS, max_size=MOST_SIGNATURES - 2),
    position=st.integers(0, 64),
    separator=SEPARATORS,
    upper=st.booleans(),
)
def test_the_right_signature_is_found_among_others(
    others: list[bytes], position: int, separator: bytes, *, upper: bool
) -> None:
    """A header with fields: order, blanks around commas, other versions and older keys do not matter."""
    digest = hmac.digest(SECRET.encode(), SECONDS + b"." + BODY, "sha256").hex()
    right = b"v1=" + (digest.upper() if upper else digest).encode()
    fields = [*others]
    fields.insert(position % (len(fields) + 1), right)
    value = separator.join([b"t=" + SECONDS, *fields])
    assert SCHEMES["fields"].verify((("x-sig", value),), BODY, NOW) == "current"


@pytest.mark.parametrize("name", SCHEMES)
@FEWER
@given(data=st.data())
def test_a_long_list_costs_no_more_than_a_bounded_one(name: str, data: st.DataObject) -> None:
    """A header is at most 8,190 bytes; each of its pieces may look like a signature."""
    scheme = SCHEMES[name]
    piece = data.draw(
        st.sampled_from((b"v1=" + b"0" * 64, b"v1," + b"A" * 43 + b"=", b"0" * 64, b"v1=", b",", b" ", b"="))
    )
    separator = data.draw(st.sampled_from((b",", b", ", b" ", b";")))
    count = 8190 // len(piece + separator)
    headers = tuple((header, separator.join([piece] * count)) for header in names_of(scheme))
    assert refusal(scheme, headers, BODY) is not None
