"""HTTP sessions that reach only what an integration allows.

Four things are enforced in the session itself, so that no caller can forget them: the URL of every request is checked
by the rules; a socket is made only for an address that is allowed, which is the very address then connected to (no
second resolution, so a name that changes its address in between gains nothing; IP addresses in URLs come here too);
redirects are never followed; no cookies, credentials or proxies are taken from the environment.

With an egress proxy the proxy resolves names and connects. Then only the URL check is ours, IP literals included; the
proxy must keep private addresses out.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver

from pipeline.errors import FatalError
from pipeline.outbound.rules import FIELDS, check_address, check_url
from pipeline.outbound.settings import HostRules, NetworkSettings, Purpose
from pipeline.outbound.urls import AddressRefused

DEFAULT_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=20, sock_connect=10, sock_read=30)
"""Seconds. No total: a big file takes what it takes, within its deadline."""

_READ_BUFFER: Final = 65_536


def open_session(
    rules: HostRules,
    network: NetworkSettings,
    purpose: Purpose,
    *,
    timeout: aiohttp.ClientTimeout = DEFAULT_TIMEOUT,
    read_buffer_bytes: int = _READ_BUFFER,
    resolver: AbstractResolver | None = None,
    tls: ssl.SSLContext | None = None,
) -> aiohttp.ClientSession:
    """Return a session for the URLs of one purpose; call it in a running loop and close it.

    Give URLs as ``request_url(text)``: a plain string would be rewritten by aiohttp, which breaks signatures. Answers
    come as sent: nothing is decompressed, no status raises. Its requests raise AddressRefused for what is not allowed;
    exceptions of aiohttp may hold the URL with its query, so never chain or log them.

    Args:
        rules: Whose hosts, schemes and addresses are allowed.
        network: CA bundle and proxy.
        purpose: Which list of hosts counts.
        timeout: For requests that bring none of their own.
        read_buffer_bytes: The connection is paused when twice as much is waiting to be read.
        resolver: Resolves names instead of the system; what it returns is checked like everything else.
        tls: Used instead of one with the authorities of ``network``.

    Raises:
        FatalError: The CA bundle cannot be read.
    """
    proxy = network.proxy.get_secret_value() if network.proxy is not None else None
    connector = aiohttp.TCPConnector(
        ssl=tls or _tls(network),
        resolver=resolver or aiohttp.ThreadedResolver(),
        socket_factory=None if proxy else _socket_factory(rules, purpose),
        limit=0,  # callers bound what runs at once; waiting for a slot here would have no timeout
    )
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_refuse_redirect(purpose))
    return aiohttp.ClientSession(
        connector=connector,
        middlewares=(_url_guard(rules, purpose),),
        trace_configs=[trace],
        proxy=proxy,
        timeout=timeout,
        read_bufsize=read_buffer_bytes,
        headers={"Accept-Encoding": "identity", "User-Agent": "card-pipeline"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        raise_for_status=False,
    )


def _tls(network: NetworkSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=network.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise FatalError(
            "ca_file_unreadable",
            f"network.ca_file = {network.ca_file} is no readable PEM file of certificates: {error}",
        ) from error
    context.set_alpn_protocols(["http/1.1"])
    return context


class _AddressNotAllowed(OSError):
    """Travels through aiohttp's connecting, which tries a host's next address on an OSError."""

    def __init__(self, refused: AddressRefused) -> None:
        # equal texts, so that several refused addresses are reported as one
        super().__init__("address not allowed")
        self.refused = refused


AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]


def _socket_factory(rules: HostRules, purpose: Purpose) -> Callable[[AddressInfo], socket.socket]:
    """Return a maker of sockets that is asked with the address right before it is connected to."""

    def make(info: AddressInfo) -> socket.socket:
        family, kind, proto, _, address = info
        try:
            check_address(address[0], rules, purpose)
        except AddressRefused as refused:
            raise _AddressNotAllowed(refused) from None
        return socket.socket(family, kind, proto)

    return make


def _url_guard(rules: HostRules, purpose: Purpose) -> aiohttp.ClientMiddlewareType:
    async def guard(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        check_url(str(request.url), rules, purpose)
        try:
            return await handler(request)
        except aiohttp.ClientConnectorError as error:
            if not isinstance(error.os_error, _AddressNotAllowed):
                raise
            refused = error.os_error.refused
        raise refused

    return guard


def _refuse_redirect(purpose: Purpose) -> Any:
    async def refuse(
        _session: aiohttp.ClientSession, _context: SimpleNamespace, redirect: aiohttp.TraceRequestRedirectParams
    ) -> None:
        redirect.response.close()
        raise AddressRefused("redirect_refused", f"The host of {FIELDS[purpose]} redirects, which is never followed.")

    return refuse
