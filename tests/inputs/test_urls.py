"""URLs of announcements, in each of the three fields that have one: what is taken, and by which rule it is refused."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from support.inputs_page import answers

from pipeline.contracts.strict_json import InvalidBody
from pipeline.outbound import (
    FIELDS,
    AddressRefused,
    HostRules,
    NetworkSettings,
    Purpose,
    check_url,
    open_session,
    request_url,
)
from pipeline.webhooks.sources.ecs import EcsSource

CARD: Final = "4111111111111111"
SIGNATURE: Final = "5e5a"
ACCEPTED: Final = "accepted"
FILES: Final = "https://files.example.com"
LISTED: Final = (
    "files.example.com",
    "alt.example.com:8443",
    "*.s3.example.com",
    "*.wild.example.com:9000",
    "203.0.114.7",
    "[2606:4700::1]:9000",
    "10.0.0.7",
    "169.254.1.7",
    "100.96.0.96",
    "müller.example",
)


@dataclass(frozen=True, slots=True)
class Case:
    """A URL.

    Attributes:
        answer: The code of the refusal, or ``accepted``.
        address: Where its name leads to; None: it is not resolved.
        private: Whether allow_private is set.
        nat64: Whether allow_nat64 is set.
    """

    answer: str
    url: str
    address: str | None = None
    private: bool = False
    nat64: bool = False


def leading_to(answer: str, address: str, *, private: bool = False, nat64: bool = False) -> Case:
    """A good URL whose name has this address."""
    return Case(answer, f"{FILES}/in.csv", address, private, nat64)


CASES: Final[dict[str, Case]] = {
    "plain": Case(ACCEPTED, f"{FILES}/cards/in.csv?X-Amz-Signature=5e5a"),
    "scheme-in-capitals": Case(ACCEPTED, "HTTPS://files.example.com/in.csv"),
    "host-in-capitals": Case(ACCEPTED, "https://FILES.Example.COM/in.csv"),
    "default-port-written": Case(ACCEPTED, "https://files.example.com:443/in.csv"),
    "port-with-zeros": Case(ACCEPTED, "https://files.example.com:00443/in.csv"),
    "path-missing": Case(ACCEPTED, f"{FILES}"),
    "path-missing-with-query": Case(ACCEPTED, f"{FILES}?x=1"),
    "query-empty": Case(ACCEPTED, f"{FILES}/in.csv?"),
    "query-with-question-marks": Case(ACCEPTED, f"{FILES}/in.csv?a=?b?c"),
    "slash-encoded": Case(ACCEPTED, f"{FILES}/a%2Fb.csv"),
    "nul-encoded": Case(ACCEPTED, f"{FILES}/a%00.csv"),
    "line-end-encoded": Case(ACCEPTED, f"{FILES}/a%0d%0aX-Injected:%201"),
    "percent-alone": Case(ACCEPTED, f"{FILES}/100%.csv"),
    "dots": Case(ACCEPTED, f"{FILES}/a/../../etc/passwd"),
    "slashes-doubled": Case(ACCEPTED, f"{FILES}//evil.example.net/in.csv"),
    "semicolons": Case(ACCEPTED, f"{FILES}/in.csv;v=1;w=2"),
    "at-sign-in-path": Case(ACCEPTED, f"{FILES}/@evil.example.net/in.csv"),
    "at-sign-in-query": Case(ACCEPTED, f"{FILES}/in.csv?@evil.example.net"),
    "url-in-query": Case(ACCEPTED, f"{FILES}/in.csv?next=https://evil.example.net/"),
    "colon-in-path": Case(ACCEPTED, f"{FILES}/a:b.csv"),
    "quotes-and-angles": Case(ACCEPTED, f"{FILES}/\"<a>'.csv"),
    "brackets-in-query": Case(ACCEPTED, f"{FILES}/in.csv?a[]=1"),
    "path-of-8000": Case(ACCEPTED, FILES + "/" + "a" * 7_999),
    "query-of-1000-parameters": Case(ACCEPTED, FILES + "/in.csv?" + "&".join(["a=1"] * 1_000)),
    "card-in-path": Case(ACCEPTED, f"{FILES}/{CARD}.csv"),
    "below-the-suffix": Case(ACCEPTED, "https://bucket.s3.example.com/in.csv"),
    "deep-below-the-suffix": Case(ACCEPTED, "https://a.b.s3.example.com/in.csv"),
    "underscore-below-the-suffix": Case(ACCEPTED, "https://my_bucket.s3.example.com/in.csv"),
    "listed-port": Case(ACCEPTED, "https://alt.example.com:8443/in.csv"),
    "suffix-with-port": Case(ACCEPTED, "https://b.wild.example.com:9000/in.csv"),
    "listed-ipv4": Case(ACCEPTED, "https://203.0.114.7/in.csv"),
    "listed-ipv6": Case(ACCEPTED, "https://[2606:4700::1]:9000/in.csv"),
    "listed-ipv6-written-long": Case(ACCEPTED, "https://[2606:4700:0:0:0:0:0:1]:9000/in.csv"),
    "umlaut": Case(ACCEPTED, "https://m\u00fcller.example/in.csv"),
    "umlaut-as-punycode": Case(ACCEPTED, "https://xn--mller-kva.example/in.csv"),
    "empty": Case("url_malformed", ""),
    "blank": Case("url_malformed", " "),
    "host-alone": Case("url_malformed", "files.example.com/in.csv"),
    "scheme-relative": Case("url_malformed", "//files.example.com/in.csv"),
    "path-alone": Case("url_malformed", "/in.csv"),
    "one-slash": Case("url_malformed", "https:/files.example.com/in.csv"),
    "no-slashes": Case("url_malformed", "https:files.example.com/in.csv"),
    "backslashes-for-slashes": Case("url_malformed", "https:\\\\files.example.com/in.csv"),
    "blank-before": Case("url_malformed", " https://files.example.com/in.csv"),
    "blank-behind": Case("url_malformed", f"{FILES}/in.csv "),
    "blank-in-path": Case("url_malformed", f"{FILES}/a b.csv"),
    "tab-in-path": Case("url_malformed", f"{FILES}/a\tb.csv"),
    "line-end-in-path": Case("url_malformed", f"{FILES}/a\r\nX-Injected: 1"),
    "line-end-behind": Case("url_malformed", f"{FILES}/in.csv\n"),
    "nul-in-path": Case("url_malformed", f"{FILES}/a\u0000.csv"),
    "delete-in-path": Case("url_malformed", f"{FILES}/a\u007f.csv"),
    "umlaut-in-path": Case("url_malformed", f"{FILES}/\u00e4.csv"),
    "umlaut-in-query": Case("url_malformed", f"{FILES}/in.csv?q=\u00e4"),
    "backslash-in-path": Case("url_malformed", f"{FILES}/a\\b.csv"),
    "right-to-left-mark": Case("url_malformed", f"{FILES}/\u202efdp.csv"),
    "two-urls": Case("url_malformed", f"{FILES}/a, https://files.example.com/b"),
    "javascript": Case("url_malformed", "javascript:alert(1)"),
    "data": Case("url_malformed", "data:text/csv,card_number"),
    "mailto": Case("url_malformed", "mailto:cards@example.com"),
    "scheme-ftp": Case("url_scheme", "ftp://files.example.com/in.csv"),
    "scheme-file": Case("url_scheme", "file:///etc/passwd"),
    "scheme-file-of-a-host": Case("url_scheme", "file://files.example.com/in.csv"),
    "scheme-gopher": Case("url_scheme", "gopher://files.example.com:70/_x"),
    "scheme-s3": Case("url_scheme", "s3://bucket/in.csv"),
    "scheme-gs": Case("url_scheme", "gs://bucket/in.csv"),
    "scheme-ws": Case("url_scheme", "wss://files.example.com/in.csv"),
    "scheme-ldap": Case("url_scheme", "ldap://files.example.com/x"),
    "scheme-jar": Case("url_malformed", "jar:https://files.example.com/a.jar"),
    "scheme-unix": Case("url_scheme", "unix:///var/run/docker.sock"),
    "scheme-http-plus-unix": Case("url_scheme", "http+unix://%2Fvar%2Frun%2Fdocker.sock/info"),
    "http": Case("url_http_not_allowed", "http://files.example.com/in.csv"),
    "http-on-port-443": Case("url_http_not_allowed", "http://files.example.com:443/in.csv"),
    "user": Case("url_userinfo", "https://user@files.example.com/in.csv"),
    "user-and-password": Case("url_userinfo", f"https://user:{CARD}@files.example.com/in.csv"),
    "user-empty": Case("url_userinfo", "https://@files.example.com/in.csv"),
    "user-that-looks-like-the-host": Case("url_userinfo", "https://files.example.com@evil.example.net/in.csv"),
    "user-with-backslash": Case("url_userinfo", "https://files.example.com\\@evil.example.net/in.csv"),
    "user-with-colons": Case("url_userinfo", "https://files.example.com:443@evil.example.net/in.csv"),
    "fragment": Case("url_fragment", f"{FILES}/in.csv#part"),
    "fragment-empty": Case("url_fragment", f"{FILES}/in.csv#"),
    "fragment-before-at": Case("url_fragment", f"{FILES}#@evil.example.net/in.csv"),
    "host-missing": Case("url_host", "https:///in.csv"),
    "host-of-dots": Case("url_host", "https://../in.csv"),
    "host-with-dot-at-the-end": Case("url_host", "https://files.example.com./in.csv"),
    "host-with-empty-label": Case("url_host", "https://files..example.com/in.csv"),
    "host-with-leading-dash": Case("url_host", "https://-files.example.com/in.csv"),
    "host-with-blank": Case("url_host", "https://files example.com/in.csv"),
    "host-percent-encoded": Case("url_host", "https://files%2eexample.com/in.csv"),
    "host-with-nul": Case("url_host", "https://files.example.com\u0000.evil.example.net/in.csv"),
    "host-with-asterisk": Case("url_host", "https://*.s3.example.com/in.csv"),
    "host-label-of-64": Case("url_host", "https://" + "a" * 64 + ".example.com/in.csv"),
    "host-of-400": Case("url_host", "https://" + "a." * 200 + "com/in.csv"),
    "host-in-brackets": Case("url_host", "https://[files.example.com]/in.csv"),
    "host-bracket-open": Case("url_host", "https://[2606:4700::1/in.csv"),
    "ipv4-in-brackets": Case("url_host", "https://[203.0.114.7]/in.csv"),
    "ipv6-without-brackets": Case("url_host", "https://2606:4700::1/in.csv"),
    "ipv6-with-scope": Case("url_host", "https://[fe80::1%25eth0]/in.csv"),
    "ipv4-of-two-parts": Case("url_host", "https://127.1/in.csv"),
    "ipv4-as-a-number": Case("url_host", "https://2130706433/in.csv"),
    "ipv4-in-hexadecimal": Case("url_host", "https://0x7f000001/in.csv"),
    "ipv4-in-octal": Case("url_host", "https://0177.0.0.1/in.csv"),
    "ipv4-with-zero": Case("url_host", "https://203.0.114.07/in.csv"),
    "ipv4-too-large": Case("url_host", "https://203.0.114.256/in.csv"),
    "ipv4-with-a-hex-part": Case("url_host", "https://203.0.114.0x7/in.csv"),
    "card-as-host": Case("url_host", f"https://{CARD}/in.csv"),
    "port-zero": Case("url_port", "https://files.example.com:0/in.csv"),
    "port-too-large": Case("url_port", "https://files.example.com:70000/in.csv"),
    "port-empty": Case("url_host", "https://files.example.com:/in.csv"),
    "port-no-number": Case("url_host", "https://files.example.com:44x/in.csv"),
    "port-negative": Case("url_host", "https://files.example.com:-443/in.csv"),
    "port-of-six-digits": Case("url_host", "https://files.example.com:100443/in.csv"),
    "other-host": Case("host_not_allowed", "https://evil.example.net/in.csv"),
    "host-behind-the-listed": Case("host_not_allowed", "https://files.example.com.evil.net/in.csv"),
    "host-before-the-listed": Case("host_not_allowed", "https://x.files.example.com/in.csv"),
    "suffix-without-a-name": Case("host_not_allowed", "https://s3.example.com/in.csv"),
    "suffix-without-the-dot": Case("host_not_allowed", "https://evils3.example.com/in.csv"),
    "suffix-in-query": Case("host_not_allowed", "https://evil.example.net?.s3.example.com"),
    "other-port": Case("host_not_allowed", "https://files.example.com:8443/in.csv"),
    "listed-port-missing": Case("host_not_allowed", "https://alt.example.com/in.csv"),
    "localhost": Case("host_not_allowed", "https://localhost/in.csv"),
    "metadata-name": Case("host_not_allowed", "https://metadata.google.internal/computeMetadata/v1/"),
    "other-ipv4": Case("host_not_allowed", "https://203.0.114.8/in.csv"),
    "listed-ipv4-mapped": Case("host_not_allowed", "https://[::ffff:203.0.114.7]/in.csv"),
    "loopback": Case("host_not_allowed", "https://127.0.0.1/in.csv"),
    "metadata-address": Case("host_not_allowed", "https://169.254.169.254/latest/meta-data/"),
    "look-alike": Case("host_not_allowed", "https://f\u0456les.example.com/in.csv"),
    "full-width-letters": Case(ACCEPTED, "https://\uff46iles.example.com/in.csv"),
    "card-in-unlisted-host": Case("host_not_allowed", f"https://{CARD}.example.net/in.csv"),
    "listed-private": Case("address_not_allowed", "https://10.0.0.7/in.csv"),
    "listed-link-local": Case("address_not_allowed", "https://169.254.1.7/in.csv", private=True),
    "listed-private-allowed": Case(ACCEPTED, "https://10.0.0.7/in.csv", private=True),
    "listed-metadata": Case(ACCEPTED, "https://100.96.0.96/in.csv"),
    "leads-to-loopback": leading_to("address_not_allowed", "127.0.0.1"),
    "leads-to-ipv6-loopback": leading_to("address_not_allowed", "::1"),
    "leads-to-private": leading_to("address_not_allowed", "10.1.2.3"),
    "leads-to-shared": leading_to("address_not_allowed", "100.64.0.1"),
    "leads-to-unique-local": leading_to("address_not_allowed", "fd12:3456::1"),
    "leads-to-mapped-private": leading_to("address_not_allowed", "::ffff:10.0.0.1"),
    "leads-to-link-local": leading_to("address_not_allowed", "169.254.169.254", private=True),
    "leads-to-ipv6-link-local": leading_to("address_not_allowed", "fe80::1", private=True),
    "leads-to-unspecified": leading_to("address_not_allowed", "0.0.0.0", private=True),  # noqa: S104
    "leads-to-multicast": leading_to("address_not_allowed", "224.0.0.1", private=True),
    "leads-to-broadcast": leading_to("address_not_allowed", "255.255.255.255", private=True),
    "leads-to-alibaba": leading_to("address_not_allowed", "100.100.100.200", private=True),
    "leads-to-azure": leading_to("address_not_allowed", "168.63.129.16", private=True),
    "leads-to-oracle": leading_to("address_not_allowed", "192.0.0.192", private=True),
    "leads-to-aws": leading_to("address_not_allowed", "fd00:ec2::254", private=True),
    "leads-to-google": leading_to("address_not_allowed", "fd20:ce::254", private=True),
    "leads-to-nat64": leading_to("address_not_allowed", "64:ff9b::808:808", private=True),
    "leads-to-nat64-of-a-private-one": leading_to("address_not_allowed", "64:ff9b::a00:1", private=True, nat64=True),
    "leads-to-local-nat64": leading_to("address_not_allowed", "64:ff9b:1::808:808", private=True, nat64=True),
    "leads-to-6to4-of-a-private-one": leading_to("address_not_allowed", "2002:a00:1::1"),
    "leads-to-loopback-allowed": leading_to(ACCEPTED, "127.0.0.1", private=True),
}

PROMISED: Final = answers("urls")
PURPOSES: Final = tuple(FIELDS)


def rules_of(case: Case) -> HostRules:
    return HostRules(input=LISTED, result=LISTED, callback=LISTED, allow_private=case.private, allow_nat64=case.nat64)


def announcement(field: str, url: str) -> bytes:
    fields: dict[str, Any] = {
        "job_guid": "cffde776-1d2a-4614-8023-a5148e411462",
        "partner_reference_id": "location-002",
        "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
        "external_location_ids": ["46691"],
        "record_count": 200,
        "expires_at": "2026-01-22T22:43:59.295Z",
        **dict.fromkeys(FIELDS.values(), f"{FILES}/good.csv"),
        field: url,
    }
    return json.dumps(fields).encode()


class Leads(AbstractResolver):
    """Resolves each name to one address."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family
        kind = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        found = {"hostname": host, "host": self._address, "port": port, "family": kind, "proto": 0, "flags": 0}
        return [ResolveResult(**found)]  # type: ignore[typeddict-item]

    async def close(self) -> None:
        """Nothing is open."""


async def connected(case: Case, purpose: Purpose) -> str:
    """What connecting answers; nothing listens on the addresses that are allowed."""
    assert case.address is not None
    session = open_session(rules_of(case), NetworkSettings(), purpose, resolver=Leads(case.address))
    async with session, asyncio.timeout(10):
        try:
            async with session.get(request_url(case.url)):
                return ACCEPTED
        except AddressRefused as refused:
            ensure_nothing_leaks(refused.message)
            return refused.code
        except aiohttp.ClientConnectionError:
            return ACCEPTED


def ensure_nothing_leaks(text: str) -> None:
    assert CARD not in text
    assert SIGNATURE not in text
    assert "in.csv" not in text


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("name", CASES)
def test_an_announcement_with_this_url(name: str, purpose: Purpose) -> None:
    """The ingress answers 422 with this rule of this field, or accepts."""
    case, field = CASES[name], FIELDS[purpose]
    assert PROMISED[name].startswith(f"`{case.answer}`")
    expected = ACCEPTED if case.address else case.answer
    try:
        EcsSource("acme", rules_of(case)).announcement(announcement(field, case.url))
    except InvalidBody as invalid:
        (finding,) = invalid.findings
        assert (finding.field, finding.rule) == (field, expected)
        ensure_nothing_leaks(finding.remedy)
        ensure_nothing_leaks(str(invalid))
    else:
        assert expected == ACCEPTED


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("name", CASES)
async def test_a_request_to_this_url(name: str, purpose: Purpose) -> None:
    """Checked again before each connection, by the URL and by the address; the message names the field."""
    case = CASES[name]
    if case.address:
        assert await connected(case, purpose) == case.answer
        return
    if case.answer == ACCEPTED:
        check_url(case.url, rules_of(case), purpose)
        assert str(request_url(case.url)).isascii()
        return
    with pytest.raises(AddressRefused) as caught:
        check_url(case.url, rules_of(case), purpose)
    assert caught.value.code == case.answer
    assert FIELDS[purpose] in caught.value.message
    ensure_nothing_leaks(caught.value.message)
