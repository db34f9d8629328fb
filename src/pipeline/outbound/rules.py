"""The one check that every URL of a message goes through: at the ingress, and again before each connection."""

from __future__ import annotations

from typing import Final

from pipeline.outbound.addresses import address_class
from pipeline.outbound.errors import AddressRefused
from pipeline.outbound.hosts import MalformedUrl, ip_literal, split_url
from pipeline.outbound.settings import HostRules, Purpose

FIELDS: Final[dict[Purpose, str]] = {
    "input": "input_file_url",
    "result": "result_upload_url",
    "callback": "callback_url",
}
"""The announcement's field that holds the URL of a purpose."""


def check_url(url: str, rules: HostRules, purpose: Purpose) -> None:
    """Return if a URL may be used for a purpose; looks at its text only, resolves nothing.

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
    if parts.scheme == "http" and not rules.allow_http:
        raise AddressRefused(
            "url_http_not_allowed",
            f"{field} must begin with https:// (hosts.allow_http = true would allow http for this integration).",
        )
    if not any(pattern.allows(parts) for pattern in rules.patterns(purpose)):
        raise AddressRefused(
            "host_not_allowed",
            f"{field} names the host {parts.authority}, which is not among the allowed ones: "
            f"send one of those, or add it to hosts.{purpose} of this integration.",
        )
    literal = ip_literal(parts.host)
    if literal is not None:
        check_address(str(literal), rules, purpose)


def check_address(address: str, rules: HostRules, purpose: Purpose) -> None:
    """Return if an IP address may be connected to.

    Raises:
        AddressRefused: ``address_not_allowed``.
    """
    kind = address_class(address)
    if kind == "public" or (kind == "private" and rules.allow_private):
        return
    remedy = "hosts.allow_private = true would allow it" if kind == "private" else "no setting allows it"
    raise AddressRefused(
        "address_not_allowed", f"The host of {FIELDS[purpose]} is at a {kind} address, which is not allowed ({remedy})."
    )
