"""Which IP addresses lead into one's own network. Pure."""

from __future__ import annotations

import ipaddress
from typing import Final, Literal

from pipeline.outbound.hosts import IpAddress

AddressClass = Literal["public", "private", "forbidden"]
"""``private``: loopback, private, shared (RFC 6598), unique local.

``forbidden``: link-local (cloud metadata lives there), multicast, unspecified, broadcast, reserved: never the address
of a file or a callback.
"""

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_SHARED: Final = ipaddress.IPv4Network("100.64.0.0/10")
_V4_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


def address_class(address: str) -> AddressClass:
    """Return what kind of address this is; an IPv4 address inside an IPv6 one decides for it.

    Args:
        address: As a socket has it; an IPv6 scope (``%eth0``) makes it link-local anyway.
    """
    found = _unwrap(ipaddress.ip_address(address))
    if found.is_link_local or found.is_multicast or found.is_unspecified:
        return "forbidden"
    if found.is_loopback or (isinstance(found, ipaddress.IPv4Address) and found in _SHARED):
        return "private"
    if found.is_reserved:
        return "forbidden"
    if isinstance(found, ipaddress.IPv6Address) and found.is_site_local:
        return "private"
    if found.is_private:
        return "private"
    return "public" if found.is_global else "forbidden"


def _unwrap(address: IpAddress) -> IpAddress:
    """Return the IPv4 address that a mapped, translated or tunnelled IPv6 address leads to, else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
    # ::1 and :: are addresses of their own
    if address in _NAT64 or (address in _V4_COMPATIBLE and int(address) > 1):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return inner or address
