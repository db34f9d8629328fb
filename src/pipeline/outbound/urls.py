"""Parses URLs strictly, compares them with the configured hosts, and returns them for requests and for logs. Pure.

Requests use a URL that is built from the checked parts (:func:`request_url`). So another parser cannot read a different
host in it.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

import yarl

from pipeline.errors import PermanentError
from pipeline.observability import DIGITS_MASK

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_PORTS: Final = {"https": 443, "http": 80}

_SPLIT: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)(#.*)?", re.DOTALL)
_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_TAIL: Final = re.compile(r"[!-~]*")
_MAX_HOST: Final = 253
_COUNTRY_CODE: Final = 2
_SECOND_LEVELS: Final = frozenset(
    ("ac", "co", "com", "edu", "go", "gob", "gov", "gouv", "ne", "net", "nom", "or", "org")
)
_MAX_PORT: Final = 65_535
_MAX_DECODINGS: Final = 5

_DIGITS: Final = re.compile(
    r"(?P<id>\b(?=[0-9-]*[a-fA-F])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b)"
    r"|\d(?:[^0-9A-Za-z]?\d){12,}"  # a card number, with a sign such as - . or / between its groups
    r"|\d{6,}"
)
"""Digits that are masked when a URL is shown, except in UUIDs: a partner may put card numbers into URLs."""


class MalformedUrl(ValueError):
    """A URL or a host pattern is malformed. The error names the rule, and never repeats the URL.

    Attributes:
        code: Stable identifier, e.g. ``url_userinfo``.
    """

    def __init__(self, code: str, rule: str) -> None:
        """Store the rule, as text for people."""
        super().__init__(rule)
        self.code = code
        self.rule = rule


class AddressRefused(PermanentError):
    """The configuration does not allow a URL, or the address behind its host. Nothing was sent."""


@dataclass(frozen=True, slots=True)
class UrlParts:
    """The parts of an http or https URL.

    Attributes:
        host: Lower case, IDNA-encoded; an IPv6 address without brackets.
        port: Explicit port, or None for the scheme's default.
        tail: Path and query, unchanged because they are signed; may be empty.
    """

    scheme: str
    host: str
    port: int | None
    tail: str

    @property
    def effective_port(self) -> int:
        """The port that is connected to."""
        return DEFAULT_PORTS[self.scheme] if self.port is None else self.port

    @property
    def authority(self) -> str:
        """Host and explicit port, brackets included."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def shown_authority(self) -> str:
        """The authority for messages: digits of a name are masked, those of an IP address are not."""
        host, colon, port = self.authority.rpartition(":") if self.port is not None else (self.authority, "", "")
        return f"{host if ip_literal(host) else _masked_digits(host)}{colon}{port}"

    @property
    def path(self) -> str:
        """Path without the query."""
        return self.tail.partition("?")[0]


def split_url(url: str) -> UrlParts:
    """Parse an http or https URL.

    Raises:
        MalformedUrl: It is not an absolute http(s) URL, or has user information, a fragment, characters that must be
            percent-encoded, or a host that is neither a host name nor a canonical IP address.
    """
    found = _SPLIT.fullmatch(url)
    if found is None:
        raise MalformedUrl("url_malformed", "must be an absolute URL, https://host/path")
    scheme, authority, tail, fragment = found[1].lower(), found[2], found[3], found[4]
    if scheme not in DEFAULT_PORTS:
        raise MalformedUrl("url_scheme", "must begin with https:// (or http://, where that is allowed)")
    if fragment is not None:
        raise MalformedUrl("url_fragment", "must not have a fragment (#...)")
    if "@" in authority:
        raise MalformedUrl("url_userinfo", "must not name a user or password before the host")
    if not _TAIL.fullmatch(tail) or "\\" in tail:
        raise MalformedUrl("url_malformed", "must have spaces, control and non-ASCII characters percent-encoded")
    host, port = split_authority(authority)
    return UrlParts(scheme, host, port, tail)


@lru_cache(maxsize=1024)  # all announcements name the same few hosts
def split_authority(authority: str) -> tuple[str, int | None]:
    """Return normalised host and explicit port of ``host``, ``host:port``, ``[v6]`` or ``[v6]:port``.

    Raises:
        MalformedUrl: It has none of these forms.
    """
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise MalformedUrl("url_host", "must have a host name or IP address, and a port in digits if any")
    port = int(found[2]) if found[2] is not None else None
    if port is not None and not 0 < port <= _MAX_PORT:
        raise MalformedUrl("url_port", f"must have a port between 1 and {_MAX_PORT}")
    return normal_host(found[1]), port


def normal_host(host: str) -> str:
    """Return a host in lower case and IDNA form, an IP address in its canonical form without brackets.

    Raises:
        MalformedUrl: It is neither a host name nor a canonical IP address (``127.1`` and ``0x7f000001`` are not).
    """
    literal = ip_literal(host)
    if literal is not None:
        return str(literal)
    try:
        # a longer name cannot be valid, except with characters that IDNA drops, and encoding it costs time
        name = host.encode("idna").decode().lower() if len(host) <= _MAX_HOST else ""
    except UnicodeError:
        name = ""
    labels = name.split(".")
    # if the last label has only digits, resolvers read the name as an unusual form of an IPv4 address
    odd_number = labels[-1].isdigit() or labels[-1].startswith("0x")
    if len(name) > _MAX_HOST or odd_number or not all(_LABEL.fullmatch(label) for label in labels):
        raise MalformedUrl("url_host", "must have a host name or a canonical IP address")
    return name


@lru_cache(maxsize=1024)
def ip_literal(host: str) -> IpAddress | None:
    """Return the address if a host is an IP address, with or without brackets; None for a name."""
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if "%" in inner or (inner is not host and ":" not in inner):
        return None
    try:
        return ipaddress.ip_address(inner)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One allowed host: an exact name or address, or everything below a name; on the default or a named port."""

    host: str
    port: int | None
    below: bool

    @classmethod
    @lru_cache(maxsize=1024)
    def parse(cls, text: str) -> HostPattern:
        """Read ``host``, ``host:port``, ``*.suffix``, ``*.suffix:port``, an IPv4 or IPv6 address.

        Raises:
            MalformedUrl: It has none of these forms.
        """
        bare = ip_literal(text)
        if bare is not None:
            return cls(str(bare), None, below=False)
        below = text.startswith("*.")
        host, port = split_authority(text.removeprefix("*."))
        if below and ip_literal(host) is not None:
            raise MalformedUrl("url_host", "must not put *. before an IP address")
        if below and is_registry(host):
            raise MalformedUrl("url_host", "must name a domain after *., not one in which anybody can register names")
        return cls(host, port, below)

    def allows(self, parts: UrlParts) -> bool:
        """Return whether a URL's host and port match this pattern."""
        same_port = parts.effective_port == (DEFAULT_PORTS[parts.scheme] if self.port is None else self.port)
        if self.below:
            return same_port and parts.host.endswith(f".{self.host}") and ip_literal(parts.host) is None
        return same_port and parts.host == self.host


def is_registry(name: str) -> bool:
    """Return whether anybody may register a name directly below this one, e.g. ``com`` or ``co.uk``.

    It knows top-level domains and the usual second levels of countries, but not providers that give away subdomains.
    """
    first, _, rest = name.partition(".")
    return not rest or (len(rest) == _COUNTRY_CODE and first in _SECOND_LEVELS)


def host_of(url: str) -> str:
    """Return the host of a URL with its explicit port; empty for a malformed URL, which is never requested."""
    try:
        return split_url(url).authority
    except MalformedUrl:
        return ""


def request_url(url: str) -> yarl.URL:
    """Return the URL for a request: path and query unchanged (``%2F``, ``%7E`` stay), host in its normal form.

    Raises:
        AddressRefused: :func:`pipeline.outbound.check_url` can never allow this URL.
    """
    try:
        parts = split_url(url)
    except MalformedUrl as error:
        raise AddressRefused(error.code, f"The URL {error.rule}.") from None
    return yarl.URL(f"{parts.scheme}://{parts.authority}{parts.tail}", encoded=True)


def redact(url: str) -> str:
    """Return the parts of a URL that may be shown: scheme, host and path, with runs of digits masked."""
    try:
        parts = split_url(url)
    except MalformedUrl:
        return "(malformed URL)"
    return f"{parts.scheme}://{parts.shown_authority}{_shown_path(parts.path)}"


def _shown_path(path: str) -> str:
    """Return a path unchanged, or, if it has runs of digits (percent-encoded or not), decoded and masked."""
    plain = path
    for _ in range(_MAX_DECODINGS):
        plain, before = unquote(plain), plain
        if plain == before:
            break
    masked = _masked_digits(plain)
    return _masked_digits(path) if masked == plain else masked


def _masked_digits(text: str) -> str:
    return _DIGITS.sub(lambda found: found["id"] or DIGITS_MASK, text)
