"""Checks across several tables of the settings. The loader refuses settings with such a contradiction."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Final

from pipeline.outbound import AddressRefused, HostRules, Purpose, check_url, split_url
from pipeline.outbound.rules import address_fault
from pipeline.outbound.urls import ip_literal
from pipeline.settings.integrations import EcsIntegration
from pipeline.settings.model import Settings
from pipeline.webhooks.sources.settings import WeavrOptions

_EVERY_ADDRESS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, not listened on
_PURPOSES: Final[tuple[Purpose, ...]] = ("input", "result", "callback")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def disagreements(settings: Settings) -> Iterator[str]:
    """Yield one line for each contradiction: full key, rule, remedy."""
    yield from _equal_ports(settings)
    yield from _forged_addresses(settings)
    for name, ecs in settings.ecs.items():
        yield from _unreachable(f"ecs.{name}.hosts", ecs.hosts)
        yield from _token_server(f"ecs.{name}", ecs)
    for name, source in settings.webhooks.items():
        if source.jobs is not None:
            yield from _unreachable(f"webhooks.{name}.jobs.hosts", source.jobs.hosts)


def shared_store_problems(settings: Settings) -> Iterator[str]:
    """Yield one line if stages may run on several hosts, and their store is a folder of one of them."""
    if settings.kafka is None or settings.store.kind != "local" or settings.store.shared:
        return
    away = [server for server in settings.kafka.bootstrap_servers.split(",") if not _is_here(server)]
    if away:
        yield (
            f"store.path: is a folder of this host, but Kafka ({away[0].strip()}) is on another one, so stages may run "
            'elsewhere, and would not find what it holds; write kind = "s3", or mount one folder on all hosts (of a '
            "file system with hard links) and write shared = true"
        )


def _is_here(server: str) -> bool:
    """Return whether a broker is on this host, as far as its name says."""
    host = server.strip().rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _equal_ports(settings: Settings) -> Iterator[str]:
    ingress, management = settings.ingress, settings.management
    hosts = {ingress.host, management.host}
    if ingress.port == management.port != 0 and (len(hosts) == 1 or hosts & _EVERY_ADDRESS):
        yield (
            f"management.port: {management.port} is also ingress.port, and one process opens both; write e.g. "
            f"port = {management.port + 1 if management.port < 65_535 else 8081}"  # noqa: PLR2004 - the last port
        )


def _forged_addresses(settings: Settings) -> Iterator[str]:
    """Yield the paths that only the client's address protects, if anybody can forge that address."""
    everybody = open_networks(settings.ingress.trusted_proxies)
    if not everybody:
        return
    for name, weavr in settings.weavr.items():
        for path in _by_address(weavr):
            yield (
                f"ingress.trusted_proxies: {everybody[0]} trusts X-Forwarded-For from everybody, so "
                f"source_addresses of weavr.{name}.unsigned_paths ({path}) protects nothing; write the networks of "
                "your proxies"
            )


def _by_address(weavr: WeavrOptions) -> list[str]:
    return [one.path for one in weavr.unsigned_paths if one.source_addresses]


def open_networks(networks: Sequence[Network]) -> list[Network]:
    """Return the merged networks that contain every address of their IP version."""
    v4 = [one for one in networks if isinstance(one, ipaddress.IPv4Network)]
    v6 = [one for one in networks if isinstance(one, ipaddress.IPv6Network)]
    together: list[Network] = [*ipaddress.collapse_addresses(v4), *ipaddress.collapse_addresses(v6)]
    return [one for one in together if one.prefixlen == 0]


def _unreachable(key: str, rules: HostRules) -> Iterator[str]:
    """Yield the hosts to which these rules refuse every connection, because of their address."""
    for purpose in _PURPOSES:
        for text, pattern in zip(getattr(rules, purpose), rules.patterns(purpose), strict=True):
            fault = _private(pattern.host, rules, purpose)
            if fault is not None:
                yield f"{key}.{purpose}: {text!r} {fault}"


def _private(host: str, rules: HostRules, purpose: Purpose) -> str | None:
    """Return why a connection to a host is refused, as the end of a sentence. Does not resolve names."""
    literal = ip_literal(host)
    loopback = literal is None and (host == "localhost" or host.endswith(".localhost"))
    if literal is None and not loopback:
        return None
    return address_fault("127.0.0.1" if literal is None else str(literal), rules, purpose)


def _token_server(key: str, ecs: EcsIntegration) -> Iterator[str]:
    oauth = ecs.callback.oauth
    if oauth is None:
        return
    parts = split_url(oauth.token_url)
    rules = ecs.hosts.model_copy(update={"callback": (parts.authority,)})
    try:
        check_url(oauth.token_url, rules, "callback")
    except AddressRefused as refused:
        if refused.code == "url_http_not_allowed":
            yield (
                f"{key}.callback.oauth.token_url: http:// would send the client secret unencrypted; write https://, or "
                f"{key}.hosts.allow_http = true for a test on one machine"
            )
            return
    fault = _private(parts.host, rules, "callback")
    if fault is not None:
        yield f"{key}.callback.oauth.token_url: its host {fault}"
