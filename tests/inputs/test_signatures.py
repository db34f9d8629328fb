"""Signatures as senders write them, and how the ingress answers each."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from structlog.testing import capture_logs
from support.inputs_page import answers
from support.signed_requests import (
    ED25519_SIGNATURES,
    NOW,
    OF_PRESETS,
    PUBLIC_KEYS,
    STANDARD_BODY,
    STANDARD_SECRETS,
    STANDARD_SIGNATURES,
    standard_headers,
)

from pipeline.app import open_webhooks
from pipeline.contracts import Headers
from pipeline.kafka.testing import MemoryPublisher
from pipeline.settings import load_settings
from pipeline.webhooks.testing import serving
from pipeline.webhooks.verification import discover

SECRET: Final = "synthetic-secret-0123456789"
OTHER_SECRET: Final = "another-secret-0123456789"
SVIX_SECRET: Final = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
BODY: Final = b'{"type":"card.issued","id":"e-1"}'
STAMP: Final = b"1769121839"
LATER: Final = timedelta(seconds=302)
URL: Final = "https://hooks.example.com/webhooks/sources/here"


@dataclass(frozen=True, slots=True)
class Case:
    """What one sender sends to one source, and what it gets.

    Attributes:
        answer: Status, and for a refusal the reason that is counted.
        table: Keys of the source's table, apart from its secrets.
        secrets: By the names of their files; several while the receiver rotates.
        dates: More keys of the first secret.
        at: When it arrives.
    """

    answer: str
    table: Mapping[str, Any]
    headers: Headers
    body: bytes = BODY
    secrets: tuple[str, ...] = (SECRET,)
    dates: Mapping[str, str] = field(default_factory=dict)
    at: datetime = NOW


def preset(name: str, answer: str = "200") -> Case:
    """The request of one preset's sender, signed by openssl."""
    one = OF_PRESETS[name]
    return Case(answer, {"preset": name}, one.headers, one.body, (one.secret,))


def changed(name: str, old: str, new: str, answer: str = "200") -> Case:
    """The same with another text in its headers; ``SIG`` is the signature, ``BAD`` that of another secret."""
    one = OF_PRESETS[name]
    bad = mac(b"any", OTHER_SECRET, encoding="hex" if one.signature.isalnum() else "base64").decode()

    def filled(text: str) -> bytes:
        return text.replace("SIG", one.signature).replace("BAD", bad).encode()

    assert any(filled(old) in value for _, value in one.headers)
    headers = tuple((header, value.replace(filled(old), filled(new))) for header, value in one.headers)
    return replace(preset(name, answer), headers=headers)


def mac(message: bytes, key: str = SECRET, hash_name: str = "sha256", encoding: str = "hex") -> bytes:
    digest = hmac.new(key.encode(), message, getattr(hashlib, hash_name)).digest()
    return digest.hex().encode() if encoding == "hex" else base64.b64encode(digest)


GOOD: Final = mac(BODY)
BAD: Final = mac(BODY, OTHER_SECRET)
TIMED: Final = mac(STAMP + b"." + BODY)
OLD: Final = mac(STAMP + b"." + BODY, OTHER_SECRET)


def plain(value: bytes, answer: str = "200", **options: Any) -> Case:
    """A header that holds signatures of the body alone."""
    table = {"source": "hmac", "options": {"header": "X-Sig", **options}}
    return Case(answer, table, (("X-Sig", value),))


FIELDS: Final = {
    "header": "X-Sig",
    "fields": {"signature": "v1", "timestamp": "t"},
    "signed": ["timestamp", "text:.", "body"],
    "timestamp": "field",
}


def fields(value: bytes, answer: str = "200", **options: Any) -> Case:
    """A header that is a list of fields; ``{t}``, ``{v1}`` and ``{v0}``, by another secret, are filled in."""
    value = value.replace(b"{v1}", b"v1=" + TIMED).replace(b"{v0}", b"v1=" + OLD).replace(b"{t}", b"t=" + STAMP)
    return Case(answer, {"source": "hmac", "options": FIELDS | options}, (("X-Sig", value),))


V1: Final = f"v1,{STANDARD_SIGNATURES[0]}"
V1_OTHER: Final = f"v1,{STANDARD_SIGNATURES[1]}"


def standard(value: str, answer: str = "200", **more: Any) -> Case:
    """A request of Standard Webhooks with this list of signatures."""
    case = Case(answer, {"source": "standard-webhooks"}, standard_headers(value), STANDARD_BODY, STANDARD_SECRETS[:1])
    return replace(case, **more)


def svix(value: str, secret: str = SVIX_SECRET) -> Case:
    """Svix's request as other projects reported it."""
    return Case(
        "200",
        {"preset": "svix"},
        (("svix-id", b"msg_1"), ("svix-timestamp", b"1796007353"), ("svix-signature", value.encode())),
        b'{"type":"user.created","data":{"id":"u_1"}}',
        (secret,),
        at=datetime.fromtimestamp(1796007353, UTC),
    )


def url_signed(answer: str, signed: list[str], message: bytes, hash_name: str = "sha256", **options: Any) -> Case:
    """A signature over the URL that the sender posts to."""
    signature = mac(message, hash_name=hash_name, encoding="base64")
    table = {
        "source": "hmac",
        "options": {"header": "X-Sig", "encoding": "base64", "hash": hash_name, "signed": signed, **options},
    }
    return Case(answer, table, (("X-Sig", signature), ("X-Time", b"1769121839295")))


SVIX_GOOD: Final = "v1,z2HCht7SuY4Fv69VuZKaZPF7b0vwE8gtjWdk27R1L98="
SVIX_OLD: Final = "v1,MSnxPK3K0dAisJpWQat28nJmKS4WSXZwb2wx2l89Kik="
PREFIX: Final = {"prefix": "sha256="}
MISSING: Final = "401 signature_missing"
MALFORMED: Final = "401 signature_malformed"
UNVERIFIED: Final = "401 not_verified"

CASES: Final[dict[str, Case]] = {
    **{f"preset-{name}": preset(name) for name in OF_PRESETS},
    "workos-reported": Case(
        "200",
        {"preset": "workos"},
        (
            (
                "WorkOS-Signature",
                b"t=1796007353000, v1=156a1407213547c77e7dc855d596b130ff86eb207aff0882d5d0a2e9ec85629e",
            ),
        ),
        b'{"id":"event_01","event":"user.updated","data":{"id":"user_01"}}',
        ("sec_8f3c2b1a9d7e",),
        at=datetime.fromtimestamp(1796007353, UTC),
    ),
    "workos-in-seconds": changed("workos", "t=1769121839295", "t=1769121839", "401 timestamp_too_old"),
    "svix-reported": svix(SVIX_GOOD),
    "svix-rotation": svix(f"{SVIX_OLD} {SVIX_GOOD}"),
    "svix-without-whsec": svix(SVIX_GOOD, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"),
    "svix-with-other-names": replace(
        svix(SVIX_GOOD), table={"source": "standard-webhooks"}, answer="401 header_missing"
    ),
    "persona-rotation": changed("persona", "v1=SIG", "v1=BAD t=1769121839,v1=SIG"),
    "persona-rotation-new-first": changed("persona", "v1=SIG", "v1=SIG t=1769121839,v1=BAD"),
    "persona-two-times": changed("persona", "v1=SIG", "v1=SIG t=1769121838,v1=BAD", "401 timestamp_repeated"),
    "persona-second-without-time": changed("persona", "v1=SIG", "v1=SIG v1=BAD", "401 timestamp_missing"),
    "pagerduty-rotation": changed("pagerduty", "v1=SIG", "v1=BAD,v1=SIG"),
    "pagerduty-newer-version": changed("pagerduty", "v1=SIG", "v2=BAD,v1=SIG"),
    "pagerduty-newer-version-alone": changed("pagerduty", "v1=SIG", "v2=SIG", MISSING),
    "revolut-rotation": changed("revolut", "v1=SIG", "v1=BAD,v1=SIG"),
    "paddle-rotation": changed("paddle", "h1=SIG", "h1=BAD;h1=SIG"),
    "paddle-with-blanks": changed("paddle", ";h1", " ; h1"),
    "paddle-with-commas": changed("paddle", ";h1", ",h1", MISSING),
    "docusign-second-key": replace(
        preset("docusign"),
        table={"preset": "docusign", "options": {"header": "X-DocuSign-Signature-2"}},
        headers=(
            ("X-DocuSign-Signature-1", b"A" * 43 + b"="),
            ("X-DocuSign-Signature-2", OF_PRESETS["docusign"].headers[0][1]),
        ),
    ),
    "box-time-with-zone": changed("box", "2026-01-22T14:43:59-08:00", "2026-01-22T22:43:59Z", UNVERIFIED),
    "linear-late": replace(preset("linear", "401 timestamp_too_old"), at=NOW + LATER),
    "zendesk-late": replace(preset("zendesk", "401 timestamp_too_old"), at=NOW + LATER),
    "zoom-another-version": changed("zoom", "v0=", "v1=", "401 prefix_missing"),
    "meta-old-hash": replace(preset("meta", "401 header_missing"), headers=OF_PRESETS["meta"].headers[:1]),
    "fields-tight": fields(b"{t},{v1}"),
    "fields-blank-behind-comma": fields(b"{t}, {v1}"),
    "fields-blank-before-comma": fields(b"{t} ,{v1}"),
    "fields-tabs": fields(b"{t}\t,\t{v1}"),
    "fields-eight-blanks": fields(b"{t},        {v1}"),
    "fields-nine-blanks": fields(b"{t},         {v1}", MISSING),
    "fields-signature-first": fields(b"{v1},{t}"),
    "fields-old-secret-first": fields(b"{t}, {v0}, {v1}"),
    "fields-old-secret-last": fields(b"{t}, {v1}, {v0}"),
    "fields-16-signatures": fields(b"{t}" + b",{v0}" * 15 + b",{v1}"),
    "fields-17-signatures": fields(b"{t}" + b",{v0}" * 16 + b",{v1}", MALFORMED),
    "fields-65": fields(b"{t},{v1}" + b",x=y" * 63, MALFORMED),
    "fields-unknown-ones": fields(b"{t},v0=1,{v1},env=live"),
    "fields-without-equals": fields(b"{t},{v1},live", MALFORMED),
    "fields-empty-one": fields(b"{t},,{v1}", MALFORMED),
    "fields-comma-at-the-end": fields(b"{t},{v1},", MALFORMED),
    "fields-blank-behind-equals": fields(b"{t},v1= " + TIMED, MALFORMED),
    "fields-name-in-capitals": fields(b"{t},V1=" + TIMED, MISSING),
    "fields-quoted": fields(b'{t},v1="' + TIMED + b'"', MALFORMED),
    "fields-without-time": fields(b"{v1}", "401 timestamp_missing"),
    "fields-two-times": fields(b"{t},{t},{v1}", "401 timestamp_repeated"),
    "fields-without-signature": fields(b"{t}", MISSING),
    "fields-two-names": fields(
        b"{t},v1=" + OLD + b",v2=" + TIMED, fields={"signature": ["v1", "v2"], "timestamp": "t"}
    ),
    "fields-second-name-alone": fields(b"{t},v2=" + TIMED, MISSING),
    "prefix-one": plain(b"sha256=" + GOOD, **PREFIX),
    "prefix-two-with-comma": plain(b"sha256=" + BAD + b",sha256=" + GOOD, **PREFIX),
    "prefix-two-with-comma-and-blank": plain(b"sha256=" + BAD + b", sha256=" + GOOD, **PREFIX),
    "prefix-two-with-blank": plain(b"sha256=" + BAD + b" sha256=" + GOOD, **PREFIX),
    "prefix-16": plain(b"sha256=" + b",sha256=".join([BAD] * 15 + [GOOD]), **PREFIX),
    "prefix-17": plain(b"sha256=" + b",sha256=".join([BAD] * 16 + [GOOD]), MALFORMED, **PREFIX),
    "prefix-of-another-hash-first": plain(b"sha1=" + GOOD[:40] + b",sha256=" + GOOD, "401 prefix_missing", **PREFIX),
    "prefix-missing-from-the-second": plain(b"sha256=" + BAD + b"," + GOOD, MALFORMED, **PREFIX),
    "prefix-in-capitals": plain(b"SHA256=" + GOOD, "401 prefix_missing", **PREFIX),
    "prefix-with-a-blank": plain(b"HMAC " + BAD + b", HMAC " + GOOD, prefix="HMAC "),
    "plain-two-with-comma": plain(BAD + b", " + GOOD),
    "plain-two-with-blank": plain(BAD + b" " + GOOD),
    "plain-gap": plain(BAD + b",," + GOOD, MALFORMED),
    "plain-in-capitals": plain(GOOD.upper()),
    "plain-short": plain(GOOD[:-1], MALFORMED),
    "plain-of-another-hash": plain(mac(BODY, hash_name="sha512"), MALFORMED),
    "plain-base64": plain(mac(BODY, encoding="base64"), encoding="base64"),
    "plain-base64-two": plain(
        mac(BODY, OTHER_SECRET, encoding="base64") + b"," + mac(BODY, encoding="base64"), encoding="base64"
    ),
    "plain-base64-without-padding": plain(mac(BODY, encoding="base64")[:-1], MALFORMED, encoding="base64"),
    "plain-base64-for-hex": plain(mac(BODY, encoding="base64"), MALFORMED),
    "plain-empty": plain(b"", MALFORMED),
    "plain-8000-blanks": plain(b"a" + b" " * 8000 + b"a", MALFORMED),
    "header-missing": replace(plain(GOOD, "401 header_missing"), headers=()),
    "header-twice": replace(plain(GOOD, "401 header_repeated"), headers=(("X-Sig", GOOD), ("X-Sig", GOOD))),
    "body-changed": replace(plain(GOOD, UNVERIFIED), body=BODY + b" "),
    "secret-of-another": plain(BAD, UNVERIFIED),
    "receiver-rotates-new": replace(plain(GOOD), secrets=(OTHER_SECRET, SECRET)),
    "receiver-rotates-old": replace(plain(BAD), secrets=(SECRET, OTHER_SECRET)),
    "receiver-secret-expired": replace(
        plain(GOOD, "503 no_active_secret"), dates={"not_after": "2026-01-22T22:00:00Z"}
    ),
    "standard-one": standard(V1),
    "standard-two": standard(f"{V1_OTHER} {V1}"),
    "standard-two-blanks": standard(f"{V1_OTHER}  {V1}"),
    "standard-comma-and-blank": standard(f"{V1_OTHER}, {V1}"),
    "standard-comma-alone": standard(f"{V1_OTHER},{V1}", MALFORMED),
    "standard-blank-behind-version": standard(V1.replace(",", ", "), MALFORMED),
    "standard-equals": standard(V1.replace(",", "="), MALFORMED),
    "standard-newer-version-too": standard(f"v2,abc {V1}"),
    "standard-newer-version-alone": standard("v2,abc", MISSING),
    "standard-17": standard(" ".join([V1_OTHER] * 16 + [V1]), MALFORMED),
    "standard-public-key": standard(
        f"v1a,{ED25519_SIGNATURES[0]}",
        table={"source": "standard-webhooks", "options": {"public_keys": [{"id": "p", "value": PUBLIC_KEYS[0]}]}},
        secrets=(),
    ),
    "standard-id-with-full-stop": standard(V1, "401 id_malformed", headers=standard_headers(V1, identity=b"msg.1")),
    "standard-time-in-milliseconds": standard(
        V1, "401 timestamp_in_future", headers=standard_headers(V1, timestamp=b"1769121839000")
    ),
    "standard-time-in-iso8601": standard(
        V1, "401 timestamp_malformed", headers=standard_headers(V1, timestamp=b"2026-01-22T22:43:59Z")
    ),
    "time-at-the-limit": replace(fields(b"{t},{v1}"), at=NOW + timedelta(seconds=299)),
    "time-too-old": replace(fields(b"{t},{v1}", "401 timestamp_too_old"), at=NOW + LATER),
    "time-in-the-future": replace(fields(b"{t},{v1}", "401 timestamp_in_future"), at=NOW - LATER),
    "time-with-a-leading-zero": fields(b"t=0" + STAMP + b",{v1}", UNVERIFIED),
    "time-with-a-fraction": fields(b"t=" + STAMP + b".5,{v1}", "401 timestamp_malformed"),
    "time-changed": fields(b"t=1769121840,{v1}", UNVERIFIED),
    "url-and-body": url_signed("200", [f"text:{URL}", "body"], URL.encode() + BODY),
    "url-with-slash-at-the-end": url_signed(UNVERIFIED, [f"text:{URL}", "body"], URL.encode() + b"/" + BODY),
    "method-url-body-time": url_signed(
        "200",
        [f"text:POST{URL}", "body", "timestamp"],
        b"POST" + URL.encode() + BODY + b"1769121839295",
        timestamp="header:X-Time",
        timestamp_unit="ms",
    ),
    "body-and-url": url_signed("200", ["body", f"text:{URL}"], BODY + URL.encode(), "sha1"),
}

PROMISED: Final = answers("signatures")


def written(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {written(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


def settings_file(case: Case, folder: Path) -> Path:
    rows = []
    for number, secret in enumerate(case.secrets):
        (folder / f"secret-{number}").write_text(secret)
        (folder / f"secret-{number}").chmod(0o600)
        rows.append({"file": f"secret-{number}", **(case.dates if number == 0 else {})})
    lines = [f"{key} = {written(value)}" for key, value in case.table.items()]
    if rows:
        lines.append(f"secrets = {written(rows)}")
    path = folder / "pipeline.toml"
    path.write_text("\n".join(["[webhooks.here]", *lines, ""]))
    return path


@pytest.mark.parametrize("name", CASES)
async def test_the_sender_gets_the_promised_answer(name: str, tmp_path: Path) -> None:
    """An event is stored exactly if the answer says so; neither answer nor log shows secret or signature."""
    case, publisher = CASES[name], MemoryPublisher()
    webhooks = open_webhooks(load_settings(settings_file(case, tmp_path), {}))
    headers = [(header, value.decode("latin-1")) for header, value in case.headers]
    with capture_logs() as logs:
        async with serving(publisher, webhooks=webhooks, clock=lambda: case.at) as here:
            url = f"{here.server.url}/webhooks/sources/here"
            async with aiohttp.ClientSession() as client, client.post(url, data=case.body, headers=headers) as answer:
                shown = await answer.text()
            status, _, reason = case.answer.partition(" ")
            labels = {"integration": "here", "status": status, "reason": reason or "accepted"}
            counted = here.metrics.registry.get_sample_value("pipeline_ingress_requests_total", labels)
    assert (str(answer.status), counted) == (status, 1)
    stored = [record.value for record in publisher.published if record.topic == "webhook-events.here"]
    assert stored == [case.body] * (status == "200")
    values = [*case.secrets, *(value.decode("latin-1") for _, value in case.headers if len(value) >= 32)]
    assert not [one for one in values if one in shown + str(logs)]


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if "preset" in case.table and case.answer == "200"]
)
def test_trying_all_ways_finds_the_preset(name: str, tmp_path: Path) -> None:
    """As `sources test --try-all` does, from the request and the secret alone."""
    case = CASES[name]
    settings = load_settings(settings_file(case, tmp_path), {}).webhooks["here"]
    found = discover(case.headers, case.body, case.at, settings.webhook_secrets())
    if "options" not in case.table:
        assert case.table["preset"] in [match.preset for match in found]
    assert found


@pytest.mark.parametrize("name", CASES)
def test_the_page_promises_these_answers(name: str) -> None:
    assert re.findall(r"`([^`]*)`", PROMISED[name]) == [CASES[name].answer]
