"""One request of each sender that has a preset beyond the first five: what it signs, and what openssl computed.

Written down apart from the settings that should lead to it; ``{body}``, ``{signature}`` and ``{other}``, a signature
by another secret, are filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class PresetRequest:
    """One request; see ``SignedRequest``."""

    secret: str
    body: str
    message: str
    signature: str
    headers: tuple[tuple[str, str], ...]
    hash: str = "sha256"
    key: bytes = b""


REQUESTS: Final[Mapping[str, PresetRequest]] = {
    "workos": PresetRequest(
        secret="sec_synthetic",
        body='{"id":"event_01","event":"user.updated","data":{"id":"user_01","object":"user"}}',
        message="1769121839295.{body}",
        signature="46e1d1a5793688cd2d9f79f765c3f6353bb5023bad75d56afe1b0d2b1dbc0c08",
        headers=(("WorkOS-Signature", "t=1769121839295, v1={signature}"),),
    ),
    "svix": PresetRequest(
        secret="whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
        body='{"type":"invoice.paid","data":{"invoiceId":"inv_1"}}',
        message="msg_1.1769121839.{body}",
        signature="xEdQXePKkPsSa6j6ios9pwaagYnH7y9BR0iu4IjVK6A=",
        headers=(("svix-id", "msg_1"), ("svix-timestamp", "1769121839"), ("svix-signature", "v1,{signature}")),
        key=bytes(range(24)),
    ),
    "clerk": PresetRequest(
        secret="whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
        body='{"data":{"id":"user_29w","object":"user"},"object":"event","type":"user.created"}',
        message="msg_1.1769121839.{body}",
        signature="K+v5B5dk2DEkoKmvZtj6tqc7eBSII0CBzF6hkEHLmV0=",
        headers=(("svix-id", "msg_1"), ("svix-timestamp", "1769121839"), ("svix-signature", "v1,{signature}")),
        key=bytes(range(24)),
    ),
    "resend": PresetRequest(
        secret="whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
        body='{"type":"email.delivered","created_at":"2026-01-22T22:43:59Z","data":{"email_id":"56761188","subject":"Hi"}}',
        message="msg_1.1769121839.{body}",
        signature="CJqgtlP9K1Nz0Q83uVsf+smCIxNyl5HLPvLe8kgITN0=",
        headers=(("svix-id", "msg_1"), ("svix-timestamp", "1769121839"), ("svix-signature", "v1,{signature}")),
        key=bytes(range(24)),
    ),
    "pagerduty": PresetRequest(
        secret="pd-synthetic",
        body='{"event":{"id":"5ac64822","event_type":"incident.triggered","data":{"id":"PGR0VU2"}}}',
        message="{body}",
        signature="8c59eb9cda658a7fecb66e312ef4939b003a9cd10aef66b61c331ae3d72eb2b7",
        headers=(
            ("X-Webhook-Subscription", "PGS9DFP"),
            (
                "X-PagerDuty-Signature",
                "v1={signature}",
            ),
        ),
    ),
    "revolut": PresetRequest(
        secret="wsk_synthetic",
        body='{"event":"ORDER_COMPLETED","order_id":"9fc01989","merchant_order_ext_ref":"Test #3928"}',
        message="v1.1769121839295.{body}",
        signature="109ee1266999ed762d04993a6333e57d2c3997644976c2acec36de1941712d46",
        headers=(("Revolut-Request-Timestamp", "1769121839295"), ("Revolut-Signature", "v1={signature}")),
    ),
    "airwallex": PresetRequest(
        secret="whsec_synthetic",
        body='{"id":"evt_1","name":"payment_intent.succeeded","account_id":"acct_1","data":{"object":{"id":"int_1"}}}',
        message="1769121839295{body}",
        signature="5d54960f6424ced5710b06f3c5d4f795b77b87afc1963e609eb6e056fe295125",
        headers=(("x-timestamp", "1769121839295"), ("x-signature", "{signature}")),
    ),
    "paddle": PresetRequest(
        secret="pdl_ntfset_synthetic",
        body='{"event_id":"evt_01h","event_type":"transaction.paid","data":{"id":"txn_01h"}}',
        message="1769121839:{body}",
        signature="ed4fab0abe54962d8cce045304be7465af5031cb1faa2815c9105a5d229a520c",
        headers=(("Paddle-Signature", "ts=1769121839;h1={signature}"),),
    ),
    "razorpay": PresetRequest(
        secret="rzp-synthetic",
        body='{"entity":"event","account_id":"acc_1","event":"payment.captured","payload":{"payment":{"entity":{"id":"pay_1"}}}}',
        message="{body}",
        signature="e3084ff9ff2c6b734ddb43362fe1d5d24a5fb42620f638f5ca2af13a8d0a169a",
        headers=(("x-razorpay-event-id", "evt_9"), ("X-Razorpay-Signature", "{signature}")),
    ),
    "persona": PresetRequest(
        secret="wbhsec_synthetic",
        body='{"data":{"type":"event","id":"evt_1","attributes":{"name":"inquiry.completed","payload":{"data":{"id":"inq_1"}}}}}',
        message="1769121839.{body}",
        signature="01b84fca4de59efe034eac97dda81420e7c21ba240e8686410bbe964c94e9ae5",
        headers=(
            (
                "Persona-Signature",
                "t=1769121839,v1={signature}",
            ),
        ),
    ),
    "docusign": PresetRequest(
        secret="ds-synthetic",
        body='{"event":"envelope-completed","data":{"envelopeId":"6f4d6ad8"}}',
        message="{body}",
        signature="FwFhE6M9EvYx2Kl7Mtyj0MPYHO/PR2YQjFuiivxfwJA=",
        headers=(
            ("X-DocuSign-Signature-1", "{signature}"),
            ("X-DocuSign-Signature-2", "{other}"),
        ),
    ),
    "zendesk": PresetRequest(
        secret="zd-synthetic",
        body='{"type":"zen:event-type:ticket.created","id":"cbe4028c","detail":{"id":"5158"}}',
        message="2026-01-22T22:43:59Z{body}",
        signature="5SvKHaIeYKfIzmJavcAfp22Ug2Gd8pHkmz6MWBJE6S8=",
        headers=(
            ("X-Zendesk-Webhook-Signature", "{signature}"),
            ("X-Zendesk-Webhook-Signature-Timestamp", "2026-01-22T22:43:59Z"),
        ),
    ),
    "zoom": PresetRequest(
        secret="zm-synthetic",
        body='{"event":"meeting.started","event_ts":1769121839295,"payload":{"account_id":"AAA","object":{"id":"1234567890"}}}',
        message="v0:1769121839:{body}",
        signature="be4106232f204c4ee48c134b26845d559e94ef8861b5553e5ca9f45ffa1c93ee",
        headers=(("x-zm-request-timestamp", "1769121839"), ("x-zm-signature", "v0={signature}")),
    ),
    "calendly": PresetRequest(
        secret="cal-synthetic",
        body='{"event":"invitee.created","payload":{"uri":"https://api.calendly.com/invitees/1"}}',
        message="1769121839.{body}",
        signature="9a8d33604ecbb3c0f61a86eb39bf2cfa50d91d37172e2198fc2ffc4ec743204c",
        headers=(("Calendly-Webhook-Signature", "t=1769121839,v1={signature}"),),
    ),
    "linear": PresetRequest(
        secret="lin-synthetic",
        body='{"action":"create","type":"Issue","data":{"id":"2174add1"},"webhookTimestamp":1769121839295}',
        message="{body}",
        signature="fd7eb77ff109eb347f2fbc60cdce69dfda44be3b3ca10dceb91bc5ca1e9da405",
        headers=(("Linear-Delivery", "234d1a4e"), ("Linear-Event", "Issue"), ("Linear-Signature", "{signature}")),
    ),
    "meta": PresetRequest(
        secret="meta-synthetic",
        body='{"object":"page","entry":[{"id":"12345","time":1769121839,"changes":[]}]}',
        message="{body}",
        signature="10a2bddbc63a07b75ff94bc12d0f1094ae5116e1ecae6b9976cfaa652a676899",
        headers=(
            ("X-Hub-Signature", "sha1={other}"),
            ("X-Hub-Signature-256", "sha256={signature}"),
        ),
    ),
    "typeform": PresetRequest(
        secret="tf-synthetic",
        body='{"event_id":"LtWXD3crgy","event_type":"form_response","form_response":{"form_id":"lT4Z3j"}}',
        message="{body}",
        signature="r8OYBDlpkDLazL2cHA0RSuAm/WulWiIiTSUnFr2Tu1U=",
        headers=(("Typeform-Signature", "sha256={signature}"),),
    ),
    "sentry": PresetRequest(
        secret="sentry-synthetic",
        body='{"action":"created","installation":{"uuid":"7a485448"},"data":{"issue":{"id":"1170820242"}}}',
        message="{body}",
        signature="1e22bd79d8a28de44264f2246c43f16d803d0e449d2f1965c1843ddf2e877ed4",
        headers=(
            ("Request-ID", "8b0a1c2d"),
            ("Sentry-Hook-Resource", "issue"),
            ("Sentry-Hook-Timestamp", "1769121839"),
            ("Sentry-Hook-Signature", "{signature}"),
        ),
    ),
    "bitbucket": PresetRequest(
        secret="bb-synthetic",
        body='{"repository":{"uuid":"{9970a9b6}","full_name":"team/repo"},"push":{"changes":[]}}',
        message="{body}",
        signature="86b0bd97f190a22778252f42b96c055b0706fddc31ff9690d25cf9f65b4824a4",
        headers=(
            ("X-Event-Key", "repo:push"),
            ("X-Request-UUID", "25ae2b1c"),
            ("X-Hub-Signature", "sha256={signature}"),
        ),
    ),
    "intercom": PresetRequest(
        secret="ic-synthetic",
        body='{"type":"notification_event","id":"notif_1","topic":"contact.created","data":{"item":{"id":"5f7"}}}',
        message="{body}",
        signature="977acab0470439d6c77c5edaf31a3ffce1c6b679",
        headers=(("X-Hub-Signature", "sha1={signature}"),),
        hash="sha1",
    ),
    "box": PresetRequest(
        secret="box-synthetic",
        body='{"type":"webhook_event","id":"0f8f","trigger":"FILE.UPLOADED","source":{"id":"73835521473","type":"file"}}',
        message="{body}2026-01-22T14:43:59-08:00",
        signature="g1KSeL1QQfxvIPzWA1LA1WZNMKKiw5HZIeIsBbN8ynA=",
        headers=(
            ("BOX-DELIVERY-ID", "f96bb54b"),
            ("BOX-DELIVERY-TIMESTAMP", "2026-01-22T14:43:59-08:00"),
            ("BOX-SIGNATURE-PRIMARY", "{signature}"),
            ("BOX-SIGNATURE-SECONDARY", "{other}"),
        ),
    ),
    "dropbox": PresetRequest(
        secret="dbx-synthetic",
        body='{"list_folder":{"accounts":["dbid:AAH4"]},"delta":{"users":[12345678]}}',
        message="{body}",
        signature="9ee06306952481f1c83d66461333bb640ab3ad88d3e42fc1b25196737359afcb",
        headers=(("X-Dropbox-Signature", "{signature}"),),
    ),
    "notion": PresetRequest(
        secret="secret_synthetic",
        body='{"id":"367cba44","type":"page.created","entity":{"id":"153104cd","type":"page"}}',
        message="{body}",
        signature="6eeaaca46eeaa2f4a5d2c3458a3d57d6703311356b637b65cf549759a1fbb666",
        headers=(("X-Notion-Signature", "sha256={signature}"),),
    ),
    "woocommerce": PresetRequest(
        secret="wc-synthetic",
        body='{"id":4750,"status":"completed","billing":{"first_name":"Zoë"}}',
        message="{body}",
        signature="gRXQ2YbzEVfE3LluB6Game2e473EXAssxlIZ9342nqs=",
        headers=(
            ("X-WC-Webhook-Topic", "order.created"),
            ("X-WC-Webhook-Delivery-ID", "36e520eb"),
            ("X-WC-Webhook-Signature", "{signature}"),
        ),
    ),
}
