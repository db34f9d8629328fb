"""Who really sent a request, behind proxies that we trust."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_Address = IPv4Address | IPv6Address


def client_address(peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[IPv4Network | IPv6Network]) -> str:
    """Return the address nearest to us that is not one of our own proxies, or ``-`` where nothing is known.

    X-Forwarded-For is read from the right, for as long as the one who wrote an entry is trusted: everything to the left
    of the first stranger could have been invented by him. An entry that is no address ends the walk.

    Args:
        peer: The address of the connection's other end.
        forwarded_for: Values of all X-Forwarded-For headers, in order.
        trusted: Networks of our proxies.
    """
    current = _parsed(peer or "")
    if current is None:
        return "-"
    hops = [hop for value in forwarded_for for hop in value.split(",")]
    while hops and _within(current, trusted):
        previous = _parsed(hops.pop())
        if previous is None:
            break
        current = previous
    return str(current)


@lru_cache(maxsize=1024)  # the same few senders and proxies all day
def _parsed(text: str) -> _Address | None:
    text = text.strip().split("%")[0]
    if text.startswith("["):  # [2001:db8::1]:443
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # 192.0.2.1:443
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _within(address: _Address, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)
