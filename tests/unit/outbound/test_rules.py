"""URLs and hosts as text: what is allowed, and how a refusal reads."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from pipeline.jobs.transfer import TransferSettings
from pipeline.outbound import (
    FIELDS,
    AddressRefused,
    HostRules,
    MalformedUrl,
    NetworkSettings,
    Purpose,
    check_url,
    split_url,
)
from pipeline.outbound.rules import address_class, check_address

RULES = HostRules(
    input=(
        "files.example.com",
        "Alt.Example.com:8443",
        "*.s3.example.com",
        "*.wild.example.com:9000",
        "203.0.114.7",
        "[2606:4700::1]:9000",
        "2606:4700::2",
        "10.0.0.7",
        "müller.example",
    ),
    result=("put.example.com",),
)


@pytest.mark.parametrize(
    "url",
    [
        "https://files.example.com/a/b%2Fc?X-Amz-Signature=x",
        "https://FILES.Example.COM/",
        "HTTPS://files.example.com",
        "https://files.example.com:443/",
        "https://files.example.com?x=1",
        "https://alt.example.com:8443/",
        "https://bucket.s3.example.com/",
        "https://a.b.s3.example.com/",
        "https://b.wild.example.com:9000/",
        "https://203.0.114.7/",
        "https://[2606:4700:0::1]:9000/",
        "https://[2606:4700::2]/",
        "https://müller.example/",
        "https://xn--mller-kva.example/",
        "https://MÜLLER.example/",
    ],
)
def test_allowed(url: str) -> None:
    """Names are compared in lower case and IDNA form, addresses in canonical form, ports as connected to."""
    check_url(url, RULES, "input")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "url_malformed"),
        ("files.example.com/a", "url_malformed"),
        ("//files.example.com/a", "url_malformed"),
        ("https:files.example.com", "url_malformed"),
        (" https://files.example.com/", "url_malformed"),
        ("https://files.example.com/a b", "url_malformed"),
        ("https://files.example.com/a\nHost: x", "url_malformed"),
        ("https://files.example.com/ä", "url_malformed"),
        ("https://files.example.com/a\\b", "url_malformed"),
        ("ftp://files.example.com/", "url_scheme"),
        ("file:///etc/passwd", "url_scheme"),
        ("https://user@files.example.com/", "url_userinfo"),
        ("https://user:pass@files.example.com/", "url_userinfo"),
        ("https://@files.example.com/", "url_userinfo"),
        ("https://files.example.com\\@evil.example.com/", "url_userinfo"),
        ("https://files.example.com/#part", "url_fragment"),
        ("https://files.example.com#", "url_fragment"),
        ("https:///path", "url_host"),
        ("https://files.example.com./", "url_host"),
        ("https://-files.example.com/", "url_host"),
        ("https://files..example.com/", "url_host"),
        ("https://" + "a." * 200 + "com/", "url_host"),
        ("https://" + "a" * 64 + ".com/", "url_host"),
        ("https://files.example.com" + "\u00ad" * 237 + ".evil.example/", "url_host"),  # cut, it would be allowed
        ("https://files.example.com:/", "url_host"),
        ("https://files.example.com:44x/", "url_host"),
        ("https://[files.example.com]/", "url_host"),
        ("https://[10.0.0.7]/", "url_host"),
        ("https://[fe80::1%25eth0]/", "url_host"),
        ("https://2606:4700::2/", "url_host"),
        ("https://127.1/", "url_host"),
        ("https://2130706433/", "url_host"),
        ("https://0x7f000001/", "url_host"),
        ("https://10.0.0.07/", "url_host"),
        ("https://files.example.com:0/", "url_port"),
        ("https://files.example.com:70000/", "url_port"),
        ("http://files.example.com/", "url_http_not_allowed"),
        ("https://evil.example.com/", "host_not_allowed"),
        ("https://files.example.com.evil.com/", "host_not_allowed"),
        ("https://evil.com?.s3.example.com", "host_not_allowed"),
        ("https://s3.example.com/", "host_not_allowed"),
        ("https://evils3.example.com/", "host_not_allowed"),
        ("https://files.example.com:8443/", "host_not_allowed"),
        ("https://alt.example.com/", "host_not_allowed"),
        ("https://b.wild.example.com/", "host_not_allowed"),
        ("https://put.example.com/", "host_not_allowed"),
        ("https://203.0.114.8/", "host_not_allowed"),
        ("https://[::ffff:203.0.114.7]/", "host_not_allowed"),
        ("https://10.0.0.7/", "address_not_allowed"),
    ],
)
def test_refused(url: str, code: str) -> None:
    """A refusal names the field and never repeats path or query."""
    with pytest.raises(AddressRefused) as caught:
        check_url(url, RULES, "input")
    assert caught.value.code == code
    assert "input_file_url" in caught.value.message


def test_names_host_and_remedy() -> None:
    """A host that is not listed is named, with where to list it."""
    with pytest.raises(AddressRefused) as caught:
        check_url("https://cdn.example.com:444/secret?token=1", RULES, "result")
    assert caught.value.message == (
        "result_upload_url names the host cdn.example.com:444, which is not among the allowed ones: "
        "send one of those, or add it to hosts.result of this integration."
    )


def test_a_host_that_is_a_card_number_is_not_repeated() -> None:
    with pytest.raises(AddressRefused) as caught:
        check_url("https://4111111111111111.example.com/", RULES, "result")
    assert "the host [digits].example.com, which" in caught.value.message


def test_http_where_allowed() -> None:
    """Plain http uses port 80 unless the pattern names another."""
    rules = HostRules(callback=("ecs.example.com", "old.example.com:8080"), allow_http=True)
    check_url("http://ecs.example.com/", rules, "callback")
    check_url("http://ecs.example.com:80/", rules, "callback")
    check_url("http://old.example.com:8080/", rules, "callback")
    with pytest.raises(AddressRefused):
        check_url("http://ecs.example.com:443/", rules, "callback")


def test_private_literal_where_allowed() -> None:
    """A private address must be listed, and private addresses allowed."""
    rules = HostRules(input=("10.0.0.7:9000", "169.254.169.254"), allow_private=True)
    check_url("https://10.0.0.7:9000/", rules, "input")
    with pytest.raises(AddressRefused, match="no setting allows it"):
        check_url("https://169.254.169.254/", rules, "input")


METADATA = ("192.0.0.192", "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254", "64:ff9b::a00:1")


@pytest.mark.parametrize("address", METADATA)
def test_metadata_addresses_are_refused_unless_listed_one_by_one(address: str) -> None:
    """A name that leads there is not enough, and neither is the list of another purpose."""
    by_name = HostRules(input=("files.example.com",), result=(address,), allow_private=True, allow_nat64=True)
    with pytest.raises(AddressRefused) as caught:
        check_address(address, by_name, "input")
    assert caught.value.message == (
        "The host of input_file_url is at a metadata address, which is not allowed "
        "(hosts.input must list the address itself to allow it)."
    )
    check_address(address, by_name, "result")


def test_an_ipv4_address_that_is_listed_may_come_mapped() -> None:
    rules = HostRules(input=("100.100.100.200",))
    check_address("::ffff:100.100.100.200", rules, "input")
    with pytest.raises(AddressRefused):
        check_address("64:ff9b::6464:64c8", rules, "input")


def test_nat64_where_allowed() -> None:
    """A gateway's address is that of a public host, or it is refused."""
    with pytest.raises(AddressRefused, match=r"hosts\.allow_nat64 = true would allow it"):
        check_address("64:ff9b::808:808", HostRules(allow_private=True), "input")
    check_address("64:ff9b::808:808", HostRules(allow_nat64=True), "input")
    check_address("64:ff9b::808:808", HostRules(input=("64:ff9b::808:808",)), "input")
    with pytest.raises(AddressRefused):
        check_address("64:ff9b::a00:1", HostRules(allow_nat64=True, allow_private=True), "input")


@pytest.mark.parametrize("purpose", list(FIELDS))
def test_nothing_by_default(purpose: Purpose) -> None:
    """Without configuration no host is allowed."""
    with pytest.raises(AddressRefused, match="host_not_allowed"):
        check_url("https://files.example.com/", HostRules(), purpose)


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    """No text breaks the check: it is refused or allowed."""
    for url in (text, f"https://{text}", f"https://files.example.com/{text}"):
        with suppress(AddressRefused):
            check_url(url, RULES, "input")


@given(st.from_regex(r"[!-\"$-\[\]-~]{0,40}", fullmatch=True))
def test_tail_is_kept_byte_for_byte(tail: str) -> None:
    """Path and query are never touched: they are signed."""
    assert split_url(f"https://files.example.com/{tail}").tail == f"/{tail}"


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*",
        "*.",
        "*.10.0.0.1",
        "a b",
        "https://a.example.com",
        "a.example.com/x",
        "a:99999",
        "a.*.com",
        "[::1",
        "*.com",
        "*.co.uk",
        "*.localhost:8443",
    ],
)
def test_patterns_that_are_none(pattern: str) -> None:
    """A host pattern that could never match, or would match too much, is refused when it is read."""
    with pytest.raises(ValidationError, match=r"write files\.example\.com"):
        HostRules(result=(pattern,))


def test_unknown_settings() -> None:
    """A misspelt key is refused."""
    with pytest.raises(ValidationError):
        HostRules.model_validate({"inputs": []})
    with pytest.raises(ValidationError):
        TransferSettings.model_validate({"timeout": 3})


@pytest.mark.parametrize("proxy", ["proxy.example.com:3128", "socks5://proxy.example.com", "http://user:secret@"])
def test_proxy_that_is_none(proxy: str) -> None:
    """A proxy must be an http(s) URL; a refusal does not repeat its password."""
    with pytest.raises(ValidationError) as caught:
        NetworkSettings(proxy=SecretStr(proxy))
    assert "write http://proxy.example.com:3128" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_proxy_credentials_are_secret() -> None:
    """A proxy's password shows in no representation."""
    network = NetworkSettings(proxy=SecretStr("http://user:pass@proxy.example.com:3128"))
    assert "pass" not in repr(network)
    assert NetworkSettings(proxy=None).proxy is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", "public"),
        ("2606:4700::1", "public"),
        ("::ffff:8.8.8.8", "public"),
        ("64:ff9b::808:808", "nat64"),
        ("127.0.0.1", "private"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("192.168.0.1", "private"),
        ("100.64.0.1", "private"),
        ("192.0.2.1", "private"),
        ("::1", "private"),
        ("fc00::1", "private"),
        ("fec0::1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("::10.0.0.1", "private"),
        ("64:ff9b::7f00:1", "metadata"),
        ("64:ff9b::a00:1", "metadata"),
        ("64:ff9b::6464:64c8", "metadata"),
        ("64:ff9b::a83f:8110", "metadata"),
        ("64:ff9b::a9fe:a9fe", "forbidden"),
        ("64:ff9b:1::808:808", "metadata"),
        ("192.0.0.192", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("100.96.0.96", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("fd00:ec2::23", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("fd00:c1::a9fe:a9fe", "metadata"),
        ("fd00:42::42", "metadata"),
        ("fd00:a9fe:a9fe::1", "metadata"),
        ("::ffff:100.100.100.200", "metadata"),
        ("::ffff:168.63.129.16", "metadata"),
        ("2002:6464:64c8::", "metadata"),
        ("100.100.100.199", "private"),
        ("168.63.129.17", "public"),
        ("2002:7f00:1::", "private"),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", "private"),
        ("0.0.0.0", "forbidden"),  # noqa: S104
        ("169.254.169.254", "forbidden"),
        ("224.0.0.1", "forbidden"),
        ("240.0.0.1", "forbidden"),
        ("255.255.255.255", "forbidden"),
        ("::", "forbidden"),
        ("fe80::1", "forbidden"),
        ("fe80::1%eth0", "forbidden"),
        ("ff02::1", "forbidden"),
        ("::ffff:169.254.169.254", "forbidden"),
        ("4000::1", "forbidden"),
    ],
)
def test_address_classes(address: str, expected: str) -> None:
    """An IPv4 address inside an IPv6 address has its own class."""
    assert address_class(address) == expected


def test_malformed_says_what() -> None:
    """The error of the parser carries code and rule apart."""
    with pytest.raises(MalformedUrl) as caught:
        split_url("https://u@h/")
    assert (caught.value.code, str(caught.value)) == ("url_userinfo", caught.value.rule)
