"""The presets: each on a request as its sender would send it, signed by openssl."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from typing import get_args

import pytest
from pydantic import SecretStr
from support.paths import ROOT
from support.signed_requests import NOW, OF_PRESETS, STRIPE_OLDER, SignedRequest

from pipeline.contracts import Headers
from pipeline.contracts.json_pointer import value_at
from pipeline.webhooks.sources.settings import HmacOptions
from pipeline.webhooks.verification import (
    PRESETS,
    HmacSpec,
    PresetName,
    Reason,
    RequestValue,
    Secret,
    SignatureRefused,
    scheme_of,
)

STRIPE = OF_PRESETS["stripe"]
SLACK = OF_PRESETS["slack"]


def verify(name: str, headers: Headers, *, body: bytes | None = None) -> str:
    request = OF_PRESETS[name]
    scheme = scheme_of(PRESETS[name].scheme, [Secret("current", SecretStr(request.secret))])
    return scheme.verify(headers, request.body if body is None else body, NOW)


def refusal(name: str, headers: Headers, *, body: bytes | None = None) -> Reason:
    with pytest.raises(SignatureRefused) as caught:
        verify(name, headers, body=body)
    return caught.value.reason


def found(request: SignedRequest, names: tuple[str, ...]) -> str | None:
    """Return the first of the named values that the request has."""
    for name in names:
        if name.startswith("text:"):
            return name.removeprefix("text:")
        named = RequestValue.parse(name)
        if named.kind == "header":
            values = [value for header, value in request.headers if header.lower() == named.name.lower()]
            if values:
                return values[0].decode()
        else:
            try:
                return str(value_at(json.loads(request.body), named.name))
            except LookupError:
                continue
    return None


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_each_preset_verifies_what_its_sender_signs(name: str) -> None:
    assert verify(name, OF_PRESETS[name].headers) == "current"
    assert refusal(name, OF_PRESETS[name].headers, body=OF_PRESETS[name].body + b" ") is Reason.NOT_VERIFIED
    assert refusal(name, ()) is Reason.HEADER_MISSING


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("github", ("72d3162e-cc78-11e3-81ab-4c9367dc0958", "issues", "1296269")),
        ("stripe", ("evt_1SynTheticEvent", "charge.succeeded", "ch_3Synthetic")),
        ("slack", ("Ev0PV52K25", "app_mention", "T061EG9R6")),
        ("shopify", ("b54557e4-bdd9-4b37-8a5f-bf7d70bcd043", "orders/create", "synthetic.myshopify.com")),
        ("paystack", (None, "charge.success", "302961")),
        ("workos", ("event_01", "user.updated", "user_01")),
        ("svix", ("msg_1", "invoice.paid", None)),
        ("clerk", ("msg_1", "user.created", "user_29w")),
        ("resend", ("msg_1", "email.delivered", "56761188")),
        ("pagerduty", ("5ac64822", "incident.triggered", "PGR0VU2")),
        ("revolut", (None, "ORDER_COMPLETED", "9fc01989")),
        ("airwallex", ("evt_1", "payment_intent.succeeded", "int_1")),
        ("paddle", ("evt_01h", "transaction.paid", "txn_01h")),
        ("razorpay", ("evt_9", "payment.captured", "pay_1")),
        ("persona", ("evt_1", "inquiry.completed", "inq_1")),
        ("docusign", (None, "envelope-completed", "6f4d6ad8")),
        ("zendesk", ("cbe4028c", "zen:event-type:ticket.created", "5158")),
        ("zoom", (None, "meeting.started", "1234567890")),
        ("calendly", (None, "invitee.created", "https://api.calendly.com/invitees/1")),
        ("linear", ("234d1a4e", "Issue", "2174add1")),
        ("meta", (None, "page", "12345")),
        ("typeform", ("LtWXD3crgy", "form_response", "lT4Z3j")),
        ("sentry", ("8b0a1c2d", "issue", "1170820242")),
        ("bitbucket", ("25ae2b1c", "repo:push", "{9970a9b6}")),
        ("intercom", ("notif_1", "contact.created", "5f7")),
        ("box", ("0f8f", "FILE.UPLOADED", "73835521473")),
        ("dropbox", (None, "event", None)),
        ("notion", ("367cba44", "page.created", "153104cd")),
        ("woocommerce", ("36e520eb", "order.created", "4750")),
    ],
)
def test_id_type_and_key_are_the_values_that_the_preset_names(name: str, expected: tuple[str | None, ...]) -> None:
    preset, request = PRESETS[name], OF_PRESETS[name]
    assert tuple(found(request, names) for names in (preset.id, preset.type, preset.key)) == expected


def test_settings_can_name_each_preset() -> None:
    assert get_args(PresetName) == tuple(PRESETS)


def test_each_preset_names_the_document_that_it_follows() -> None:
    """docs/reference/senders.md says the same."""
    page = (ROOT / "docs" / "reference" / "senders.md").read_text("utf-8")
    for name, preset in PRESETS.items():
        assert preset.source
        assert "://" not in preset.source
        spec = preset.scheme
        header = spec.header if isinstance(spec, HmacSpec) else spec.header_names[2]
        timed = "no" if isinstance(spec, HmacSpec) and spec.timestamp is None else "yes"
        assert f"| `{name}` | `{header}` | {timed} | {preset.source} |\n" in page


def test_the_settings_that_the_page_shows_for_lists_and_signed_urls_are_valid() -> None:
    pages = ("reference/senders.md", "how-to/connect-another-sender.md")
    page = "".join((ROOT / "docs" / name).read_text("utf-8") for name in pages)
    texts = re.findall(r"```toml\n(\[webhooks.*?)```", page, re.DOTALL)
    options = {
        name: HmacOptions.model_validate(table.get("options", {}))
        for text in texts
        for name, table in tomllib.loads(text)["webhooks"].items()
        if table.get("source") == "hmac"
    }
    assert {"kyc", "till", "crm"} <= set(options)
    assert options["crm"].parts[0].value == "POSThttps://hooks.example.com/webhooks/sources/crm"


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.removeprefix(b"sha256="),
        lambda value: value.replace(b"sha256=", b"sha1="),
        lambda value: value.replace(b"sha256=", b"SHA256="),
        lambda value: b" " + value,
    ],
)
def test_github_always_writes_its_prefix(change: Callable[[bytes], bytes]) -> None:
    headers = tuple((name, change(value)) for name, value in OF_PRESETS["github"].headers)
    assert refusal("github", headers) is Reason.PREFIX_MISSING


def stripe(*fields: str) -> Headers:
    return (("Stripe-Signature", ",".join(fields).encode()),)


V1 = f"v1={STRIPE.signature}"


@pytest.mark.parametrize(
    "headers",
    [
        stripe("t=1769121839", f"v1={STRIPE_OLDER}", V1),
        stripe("t=1769121839", V1, f"v1={STRIPE_OLDER}"),
        stripe(V1, "t=1769121839"),
        stripe("t=1769121839", V1, "v0=whatever", "new=x"),
        stripe("t=1769121839", "v1=short", V1),
        stripe("t=1769121839", f" {V1}"),
        stripe("t=1769121839 ", f"\t {V1}"),
    ],
)
def test_stripe_may_send_several_signatures_and_fields_unknown_to_us(headers: Headers) -> None:
    """While a secret is rolled both sign; one match suffices."""
    assert verify("stripe", headers) == "current"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (stripe("t=1769121839"), Reason.SIGNATURE_MISSING),
        (stripe("t=1769121839", f"v0={STRIPE.signature}"), Reason.SIGNATURE_MISSING),
        (stripe("t=1769121839", f"{V1[:3]} {V1[3:]}"), Reason.SIGNATURE_MALFORMED),
        (stripe("t=1769121839", f"V1={STRIPE.signature}"), Reason.SIGNATURE_MISSING),
        (stripe("t=1769121839", "v1="), Reason.SIGNATURE_MALFORMED),
        (stripe("t=1769121839", f"{V1} "), Reason.SIGNATURE_MALFORMED),
        (stripe("t=1769121839", V1, ""), Reason.SIGNATURE_MALFORMED),
        (stripe("t=1769121839", V1, "alone"), Reason.SIGNATURE_MALFORMED),
        (stripe("t=1769121839", *[V1] * 17), Reason.SIGNATURE_MALFORMED),
        (stripe(V1), Reason.TIMESTAMP_MISSING),
        (stripe("t=1769121839", "t=1769121839", V1), Reason.TIMESTAMP_REPEATED),
        (stripe("t=", V1), Reason.TIMESTAMP_MALFORMED),
        (stripe("t= 1769121839", V1), Reason.TIMESTAMP_MALFORMED),
        (stripe("t=1769121000", V1), Reason.TIMESTAMP_TOO_OLD),
        (stripe("t=1769122839", V1), Reason.TIMESTAMP_IN_FUTURE),
        (stripe("t=1769121838", V1), Reason.NOT_VERIFIED),
        (stripe("t=01769121839", V1), Reason.NOT_VERIFIED),
        (stripe("t=1769121839", f"v1={STRIPE_OLDER}"), Reason.NOT_VERIFIED),
    ],
)
def test_what_stripe_never_sends_is_refused_with_its_reason(headers: Headers, reason: Reason) -> None:
    assert refusal("stripe", headers) is reason


def test_slack_signs_version_and_time_with_the_body() -> None:
    (time, signature) = SLACK.headers
    assert refusal("slack", (signature,)) is Reason.TIMESTAMP_MISSING
    assert refusal("slack", ((time[0], b"1769121838"), signature)) is Reason.NOT_VERIFIED
    assert refusal("slack", ((time[0], b"1769121000"), signature)) is Reason.TIMESTAMP_TOO_OLD
    assert refusal("slack", (time, (signature[0], signature[1].replace(b"v0=", b"v1=")))) is Reason.PREFIX_MISSING
