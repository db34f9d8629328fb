"""Checks the URLs of a message, when it is received and before each connection, and the address of each connection."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final, Literal

from pipeline.outbound.settings import HostRules, Purpose
from pipeline.outbound.urls import AddressRefused, IpAddress, MalformedUrl, UrlParts, ip_literal, split_url

FIELDS: Final[dict[Purpose, str]] = {
    "input": "input_file_url",
    "result": "result_upload_url",
    "callback": "callback_url",
}
"""The announcement's field that holds the URL of a purpose."""

AddressClass = Literal["public", "private", "nat64", "metadata", "forbidden"]
"""``private``: loopback, private, shared (RFC 6598), unique local.

``nat64``: translated to a public IPv4 address by a gateway of the network (RFC 6052).

``metadata``: a cloud's service that gives out credentials, at an address that looks private or public; or an address
that a gateway translates to a non-public one.

``forbidden``: link-local (most metadata services), multicast, unspecified, broadcast, reserved. No file or callback has
such an address.
"""

_REMEDIES: Final[dict[AddressClass, str]] = {
    "private": "hosts.allow_private = true would allow it",
    "nat64": "hosts.allow_nat64 = true would allow it",
    "metadata": "hosts.{purpose} must list the address itself to allow it",
    "forbidden": "no setting allows it",
}

_METADATA: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "100.100.100.200/32",  # Alibaba Cloud
            "100.96.0.96/32",  # Volcano Engine
            "168.63.129.16/32",  # Azure's WireServer
            "192.0.0.0/24",  # Oracle Cloud (192.0.0.192); IETF protocol assignments, no network has hosts there
            "fd00:ec2::/32",  # AWS: metadata (::254), credentials of pods (::23), resolver, clock
            "fd00:c1::a9fe:a9fe/128",  # Oracle Cloud
            "fd00:42::42/128",  # Scaleway
            "fd00:a9fe:a9fe::/64",  # Akamai
            "fd20:ce::254/128",  # Google Cloud
        ),
    )
)
"""Metadata services at addresses that are not link-local."""

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
"""RFC 8215. Only the network's operator knows the position of the IPv4 address in it."""
_SHARED: Final = ipaddress.IPv4Network("100.64.0.0/10")
_V4_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


def check_url(url: str, rules: HostRules, purpose: Purpose) -> None:
    """Check that a URL may be used for a purpose. It checks only the text and resolves no name.

    Host names are compared in lower case and IDNA form. IP addresses must be listed as such.

    Raises:
        AddressRefused: ``url_malformed``, ``url_scheme``, ``url_userinfo``, ``url_fragment``, ``url_host``,
            ``url_port``, ``url_http_not_allowed``, ``host_not_allowed`` or ``address_not_allowed``. The message names
            field, rule and remedy, and at most the host and port of the URL.
    """
    field = FIELDS[purpose]
    try:
        parts = split_url(url)
    except MalformedUrl as error:
        raise AddressRefused(error.code, f"{field} {error.rule}.") from None
    _check_host(parts.scheme, parts.host, parts.port, rules, purpose)


@lru_cache(maxsize=1024)  # it holds only allowed hosts, and no secret parts of URLs
def _check_host(scheme: str, host: str, port: int | None, rules: HostRules, purpose: Purpose) -> None:
    field, parts = FIELDS[purpose], UrlParts(scheme, host, port, tail="")
    if parts.scheme == "http" and not rules.allow_http:
        raise AddressRefused(
            "url_http_not_allowed",
            f"{field} must begin with https:// (hosts.allow_http = true would allow http for this integration).",
        )
    if not any(pattern.allows(parts) for pattern in rules.patterns(purpose)):
        raise AddressRefused(
            "host_not_allowed",
            f"{field} names the host {parts.shown_authority}, which is not among the allowed ones: "
            f"send one of those, or add it to hosts.{purpose} of this integration.",
        )
    literal = ip_literal(parts.host)
    if literal is not None:
        check_address(str(literal), rules, purpose)


def check_address(address: str, rules: HostRules, purpose: Purpose) -> None:
    """Check that a connection to an IP address is allowed.

    Raises:
        AddressRefused: ``address_not_allowed``.
    """
    fault = address_fault(address, rules, purpose)
    if fault is not None:
        raise AddressRefused("address_not_allowed", f"The host of {FIELDS[purpose]} {fault}.")


def address_fault(address: str, rules: HostRules, purpose: Purpose) -> str | None:
    """Return why a connection to an IP address is refused, as the rest of a sentence; None if it is allowed."""
    kind = address_class(address)
    allowed: dict[AddressClass, bool] = {
        "public": True,
        "private": rules.allow_private,
        "nat64": rules.allow_nat64 or _is_listed(address, rules, purpose),
        "metadata": _is_listed(address, rules, purpose),
        "forbidden": False,
    }
    if allowed[kind]:
        return None
    return f"is at a {kind} address, which is not allowed ({_REMEDIES[kind].format(purpose=purpose)})"


def _is_listed(address: str, rules: HostRules, purpose: Purpose) -> bool:
    """Return whether the hosts of a purpose list this address itself, not only a name that resolves to it."""
    outer = ipaddress.ip_address(address)
    written = {str(outer), str(_unwrap(outer))}
    return any(pattern.host in written for pattern in rules.patterns(purpose))


def address_class(address: str) -> AddressClass:
    """Return the class of an address. An IPv6 address that contains an IPv4 address gets the class of that one.

    Args:
        address: As a socket has it; an IPv6 scope (``%eth0``) makes it link-local anyway.
    """
    outer = ipaddress.ip_address(address)
    if outer in _LOCAL_NAT64:
        return "metadata"
    if outer in _NAT64:
        inner = _class_of(ipaddress.IPv4Address(int(outer) & 0xFFFF_FFFF))
        # RFC 6052, 3.1: such an address must not represent an IPv4 address that is not global
        if inner == "forbidden":
            return inner
        return "nat64" if inner == "public" else "metadata"
    return _class_of(_unwrap(outer))


def _class_of(found: IpAddress) -> AddressClass:
    if any(found in network for network in _METADATA):
        return "metadata"
    if found.is_link_local or found.is_multicast or found.is_unspecified:
        return "forbidden"
    if found.is_loopback or (isinstance(found, ipaddress.IPv4Address) and found in _SHARED):
        return "private"
    if found.is_reserved:
        return "forbidden"
    if found.is_private or (isinstance(found, ipaddress.IPv6Address) and found.is_site_local):
        return "private"
    return "public" if found.is_global else "forbidden"


def _unwrap(address: IpAddress) -> IpAddress:
    """Return the IPv4 address that a mapped or tunnelled IPv6 address leads to, else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
    # ::1 and :: are addresses of their own
    if address in _V4_COMPATIBLE and int(address) > 1:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return inner or address
