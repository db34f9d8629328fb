"""Requests as their senders sign them. Every signature was computed by openssl, none by this project.

    printf '%s' "$MESSAGE" | openssl dgst -sha256 -hmac "$KEY"                               # hex
    printf '%s' "$MESSAGE" | openssl dgst -sha256 -hmac "$KEY" -binary | openssl base64 -A   # base64
    openssl pkeyutl -sign -inkey key.pem -rawin -in message | openssl base64 -A              # ed25519

With the hash of each, and ``-mac HMAC -macopt hexkey:...`` where a key is no text. ``message`` is what was signed,
written down apart from the settings that should lead to it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from support.preset_requests import REQUESTS, PresetRequest

from pipeline.contracts import Headers
from pipeline.webhooks.verification import PRESETS, WEAVR, WEAVR_LEGACY

NOW: Final = datetime.fromtimestamp(1769121840, UTC)
"""When all of them are fresh."""


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """One request with its signature.

    Attributes:
        name: What is special about it.
        scheme: Its specification.
        secret: As its file holds it.
        message: What was signed.
        signature: As openssl wrote it; in hex or base64.
        headers: With the signature in its place.
        key: The HMAC's key, where it is not the secret's text.
    """

    name: str
    scheme: dict[str, Any]
    secret: str
    message: bytes
    signature: str
    headers: Headers
    body: bytes
    hash: str = "sha256"
    key: bytes = field(default=b"", repr=False)

    def __str__(self) -> str:
        return self.name


def openssl_hmac(key: bytes, message: bytes, hash_name: str) -> bytes | None:
    """Return the HMAC that openssl computes, or None if openssl is not installed."""
    program = shutil.which("openssl")
    if program is None:
        return None
    command = (program, "dgst", f"-{hash_name}", "-mac", "HMAC", "-macopt", f"hexkey:{key.hex()}", "-binary")
    return subprocess.run(command, input=message, capture_output=True, check=True).stdout


BODY: Final = b'{"type":"AUTHORISATION","publishedTimestamp":"1769121839295","cardId":"112233445566778899"}'
BEYOND_ASCII: Final = '{"friendlyName":"Zażółć gęślą jaźń 日本 €","merchant":"Café Ötz"}'.encode()
NO_TEXT: Final = b'{"a":"\xff\xfe\x00"}\r\n'
MILLISECONDS: Final = b"1769121839295"
CALL_REF: Final = b"b1946ac9-2d8f-4b1c-8f43-0c6d6c9a5b10"
LONG_CALL_REF: Final = b"R" * 254 + b"x"
API_KEY: Final = "weavr-synthetic-api-key-1"


def _weavr(
    name: str,
    signature: str,
    body: bytes = BODY,
    *,
    call_ref: bytes | None = CALL_REF,
    published: bytes = MILLISECONDS,
) -> SignedRequest:
    ref = () if call_ref is None else (("call-ref", call_ref),)
    return SignedRequest(
        name=name,
        scheme=WEAVR.model_dump(exclude_unset=True),
        secret=API_KEY,
        message=(call_ref or b"") + body + published,
        signature=signature,
        headers=(*ref, ("published-timestamp", published), ("signature-v2", signature.encode())),
        body=body,
    )


OF_WEAVR: Final = (
    _weavr("weavr", "eBeg7auFnF4s3pro6pG32YKr9JPnDk70haeFiVYxDmo="),
    _weavr("weavr without call-ref", "zQKQHoK0bDVX7t419J9sqBFuDhWGA80vjgdwT3wsBH4=", call_ref=None),
    _weavr("weavr, call-ref of 255", "IOnFnmXbM09b8FQzu3giwpUXHNDAqeWQEXyPF7S4vZY=", call_ref=LONG_CALL_REF),
    _weavr("weavr, body beyond ASCII", "x9rq7y1xy1DRapTHT3tnolaArtTdxTuHYh7B9+8uy5g=", BEYOND_ASCII),
    _weavr("weavr, body no UTF-8", "YKr/PfirB16PhGJVxp7XAIjRCLkk3Cjru2JBBIny81E=", NO_TEXT),
    _weavr("weavr, empty body", "xUi3ROKNNw8UBeTRTBbJ4C+/mWy300O3M0GTuNQHtiQ=", b""),
    _weavr("weavr, leading zeros", "oQ5fjnEdXiVEzLsOm07tMmDD50zlh6bVJ6CFEPWDOcc=", published=b"00" + MILLISECONDS),
    _weavr(
        "weavr, call-ref beyond ASCII",
        "MUmcU5+KeLoNYzzL/dgZO38Az5zlZ4bTeikXqHbBlK8=",
        call_ref="r\u00e9f-\u00e9".encode(),
    ),
)

LEGACY: Final = SignedRequest(
    name="weavr legacy",
    scheme=WEAVR_LEGACY.model_dump(exclude_unset=True),
    secret=API_KEY,
    message=MILLISECONDS,
    signature="nXaEbQDNogQ2K/iF3Ew+sBQToSMU7DZlTrW8lQWEEus=",
    headers=(
        ("published-timestamp", MILLISECONDS),
        ("signature", b"nXaEbQDNogQ2K/iF3Ew+sBQToSMU7DZlTrW8lQWEEus="),
    ),
    body=BODY,
)

_GITHUB_BODY: Final = (
    '{"action":"opened","issue":{"number":7,"title":"It\u2019s broken"},'
    '"repository":{"id":1296269,"full_name":"octo/hello"}}'
).encode()
_STRIPE_BODY: Final = (
    b'{\n  "id": "evt_1SynTheticEvent",\n  "object": "event",\n  "type": "charge.succeeded",\n'
    b'  "data": {"object": {"id": "ch_3Synthetic"}}\n}'
)
_SLACK_BODY: Final = (
    b'{"token":"synthetic","team_id":"T061EG9R6","event":{"type":"app_mention","user":"U061F7AUR"},'
    b'"type":"event_callback","event_id":"Ev0PV52K25"}'
)
_SHOPIFY_BODY: Final = '{"id":820982911946154508,"email":"jon@example.com","note":"Grüße"}'.encode()
_PAYSTACK_BODY: Final = b'{"event":"charge.success","data":{"id":302961,"reference":"qTPrJoy9Bx","amount":10000}}'
_PAYSTACK_SIGNATURE: Final = (
    "26b096d72d0e3167ae32b222b06177f09e3bedb8d403fe6572f5609c6a973dc4"
    "09ea34c5204d8bc2bc77353abfe2f80f0120a342316c8b07f6f2cbdd8b32a16a"
)


def _of_preset(name: str, one: PresetRequest) -> SignedRequest:
    other = one.signature[::-1] if one.signature.isalnum() else "A" + one.signature[1:]
    return SignedRequest(
        name=name,
        scheme=PRESETS[name].scheme.model_dump(exclude_unset=True),
        secret=one.secret,
        message=one.message.replace("{body}", one.body).encode(),
        signature=one.signature,
        headers=tuple(
            (header, value.replace("{signature}", one.signature).replace("{other}", other).encode())
            for header, value in one.headers
        ),
        body=one.body.encode(),
        hash=one.hash,
        key=one.key,
    )


STRIPE_OLDER: Final = "fd63b32424bac8afadd6fb18c2dfbc4ee15c19dffa2696ed69f2c93cb37e3c97"
"""Of the same Stripe request, with the key ``whsec_older0123456789``."""

OF_PRESETS: Final[Mapping[str, SignedRequest]] = {
    "github": SignedRequest(
        name="github",
        scheme=PRESETS["github"].scheme.model_dump(exclude_unset=True),
        secret="gh-synthetic-secret",
        message=_GITHUB_BODY,
        signature="ba55aaa74876a2e0f48cd5187979b99cd2f67429dd795d6f4e5b9a2ffce444b8",
        headers=(
            ("X-GitHub-Delivery", b"72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ("X-GitHub-Event", b"issues"),
            (
                "X-Hub-Signature-256",
                b"sha256=ba55aaa74876a2e0f48cd5187979b99cd2f67429dd795d6f4e5b9a2ffce444b8",
            ),
        ),
        body=_GITHUB_BODY,
    ),
    "stripe": SignedRequest(
        name="stripe",
        scheme=PRESETS["stripe"].scheme.model_dump(exclude_unset=True),
        secret="whsec_synthetic0123456789",
        message=b"1769121839." + _STRIPE_BODY,
        signature="19fdf52b33fc1ded394e7c11c79ecc064a09b9749f59cecc0d8d3383aff1376d",
        headers=(
            (
                "Stripe-Signature",
                b"t=1769121839,v1=19fdf52b33fc1ded394e7c11c79ecc064a09b9749f59cecc0d8d3383aff1376d,v0=" + b"0" * 64,
            ),
        ),
        body=_STRIPE_BODY,
    ),
    "slack": SignedRequest(
        name="slack",
        scheme=PRESETS["slack"].scheme.model_dump(exclude_unset=True),
        secret="8f742231b10e8888synthetic",
        message=b"v0:1769121839:" + _SLACK_BODY,
        signature="fbb37a308db9df4ed2e91a6daeea9c03aceef490a3a2a3f94736b419ed1f8501",
        headers=(
            ("X-Slack-Request-Timestamp", b"1769121839"),
            ("X-Slack-Signature", b"v0=fbb37a308db9df4ed2e91a6daeea9c03aceef490a3a2a3f94736b419ed1f8501"),
        ),
        body=_SLACK_BODY,
    ),
    "shopify": SignedRequest(
        name="shopify",
        scheme=PRESETS["shopify"].scheme.model_dump(exclude_unset=True),
        secret="shpss_synthetic",
        message=_SHOPIFY_BODY,
        signature="xmPOD5Eec7FtdrCbrvapQLYIEUWg3BlW4mmtm8Vn1kI=",
        headers=(
            ("X-Shopify-Topic", b"orders/create"),
            ("X-Shopify-Hmac-SHA256", b"xmPOD5Eec7FtdrCbrvapQLYIEUWg3BlW4mmtm8Vn1kI="),
            ("X-Shopify-Shop-Domain", b"synthetic.myshopify.com"),
            ("X-Shopify-Webhook-Id", b"b54557e4-bdd9-4b37-8a5f-bf7d70bcd043"),
        ),
        body=_SHOPIFY_BODY,
    ),
    "paystack": SignedRequest(
        name="paystack",
        scheme=PRESETS["paystack"].scheme.model_dump(exclude_unset=True),
        secret="sk_test_synthetic",
        message=_PAYSTACK_BODY,
        signature=_PAYSTACK_SIGNATURE,
        headers=(("x-paystack-signature", _PAYSTACK_SIGNATURE.encode()),),
        body=_PAYSTACK_BODY,
        hash="sha512",
    ),
    **{name: _of_preset(name, one) for name, one in REQUESTS.items()},
}

STANDARD_ID: Final = b"msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"
STANDARD_BODY: Final = b'{"type":"contact.created","timestamp":"2026-01-22T22:43:59Z","data":{"id":"1f81eb52"}}'
STANDARD_SIGNATURES: Final = (
    "KhOoizwDtcb/fhUtcZHCX23l250VhBOh+ACeVtBDEGI=",
    "X8QlHlGkXvprq3g/F7pPjIj2L+e91wGqdwlKjBAxess=",
)
STANDARD_SECRETS: Final = (
    "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",  # bytes 0 to 31
    "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3",  # bytes 32 to 55, without the prefix
)
PUBLIC_KEYS: Final = (
    "whpk_SlsH9okXohDb1TVrBAmYNIcHTiZiGMaqqIV/yTbYeLw=",
    "whpk_TFT+ewbblR1qDcWKw8BUL9rNI6raPDUwIOZkET+8jVU=",
)
ED25519_SIGNATURES: Final = (
    "FeyH0OqlyIlD3S9OBJ6zqK8oYc/z9D8QWFZunuz46LCELx+86aEBUW97PCYVWe+WjFk3/mbX1MYsHuRoAsH6Cg==",
    "Z7AdP82Xl5H/TlUCT5g7JQPLpBPfM9ZHZpug7weE8UTUbMtViK57T3BCfd38/fYcpqU8sw+e+URXux0+VvvOCA==",
)
"""Of the same message, by the private keys (thrown away) of the two public keys."""


def standard_headers(signature: str, *, identity: bytes = STANDARD_ID, timestamp: bytes = b"1769121839") -> Headers:
    """Return the three headers of Standard Webhooks."""
    return (
        ("webhook-id", identity),
        ("webhook-timestamp", timestamp),
        ("webhook-signature", signature.encode("latin-1")),
    )


STANDARD: Final = tuple(
    SignedRequest(
        name=f"standard-webhooks {number}",
        scheme={"scheme": "standard-webhooks"},
        secret=secret,
        message=STANDARD_ID + b".1769121839." + STANDARD_BODY,
        signature=signature,
        headers=standard_headers(f"v1,{signature}"),
        body=STANDARD_BODY,
        key=key,
    )
    for number, (secret, signature, key) in enumerate(
        zip(STANDARD_SECRETS, STANDARD_SIGNATURES, (bytes(range(32)), bytes(range(32, 56))), strict=True)
    )
)


def _general(  # noqa: PLR0917
    name: str, scheme: dict[str, Any], message: bytes, signature: str, headers: Headers = (), body: bytes = BODY
) -> SignedRequest:
    return SignedRequest(
        name=name,
        scheme={"scheme": "hmac", "header": "X-Sig", **scheme},
        secret=API_KEY,
        message=message,
        signature=signature,
        headers=(*headers, ("X-Sig", signature.encode())),
        body=body,
    )


_INSIDE: Final = b'{"sent":1769121839,"meta":{"at":"2026-01-22T22:43:59Z"}}'
_INSIDE_SIGNATURE: Final = "a9ef8457eff379bc5c247247e94b9dce2cc9518b466fcdccb07944fca658949c"
_KEYED: Final = "75fbf048bf6a992813acf47517bbfe8bb9ff6def8457c80334b7715a7276a72b"
_KEY: Final = bytes.fromhex("00ff10a0b0c0")

GENERAL: Final = (
    _general(
        "ISO 8601 with a zone",
        {
            "signed": ("timestamp", "text:|", "body"),
            "timestamp": "header:X-At",
            "timestamp_unit": "iso8601",
        },
        b"2026-01-22T23:43:59.295+01:00|" + BODY,
        "45bf43a1c50aec4e8c40036940d0463c48a7053b5faf512eb3ecae383ef71c0c",
        (("X-At", b"2026-01-22T23:43:59.295+01:00"),),
    ),
    _general(
        "ISO 8601 in UTC, behind the body",
        {
            "signed": ("body", "timestamp"),
            "timestamp": "header:X-At",
            "timestamp_unit": "iso8601",
        },
        BODY + b"2026-01-22T22:43:59Z",
        "b7c10cbcf33771532a00ab534835ccbcfb5b5014eaa50acf1526732c9403791e",
        (("X-At", b"2026-01-22T22:43:59Z"),),
    ),
    _general("seconds in the body", {"timestamp": "json:/sent"}, _INSIDE, _INSIDE_SIGNATURE, body=_INSIDE),
    _general(
        "ISO 8601 in the body",
        {"timestamp": "json:/meta/at", "timestamp_unit": "iso8601"},
        _INSIDE,
        _INSIDE_SIGNATURE,
        body=_INSIDE,
    ),
    SignedRequest(
        name="key in hex",
        scheme={"scheme": "hmac", "header": "X-Sig", "key": "hex"},
        secret="00ff10A0b0c0",
        message=BODY,
        signature=_KEYED,
        headers=(("X-Sig", _KEYED.encode()),),
        body=BODY,
        key=_KEY,
    ),
    SignedRequest(
        name="key in base64",
        scheme={"scheme": "hmac", "header": "X-Sig", "key": "base64"},
        secret="AP8QoLDA",
        message=BODY,
        signature=_KEYED,
        headers=(("X-Sig", _KEYED.encode()),),
        body=BODY,
        key=_KEY,
    ),
)

ALL: Final = (*OF_WEAVR, LEGACY, *OF_PRESETS.values(), *STANDARD, *GENERAL)
