"""HTTP sessions that reach only the hosts and addresses that an integration allows.

The session itself enforces four things, so that no caller can forget them:

- It checks the URL of every request by the rules.
- It opens a socket only to an allowed address, and connects to exactly that address. It resolves a name only once, so
  an attacker gains nothing by changing the address in between. It checks IP addresses in URLs here too.
- It never follows redirects.
- It takes no cookies, credentials or proxies from the environment.

With an egress proxy, the proxy resolves names and connects. The session then checks only the URL, IP literals included;
the proxy must keep private addresses out.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver

from pipeline.errors import FatalError
from pipeline.outbound.rules import FIELDS, check_address, check_url
from pipeline.outbound.settings import HostRules, NetworkSettings, Purpose
from pipeline.outbound.urls import AddressRefused

DEFAULT_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=20, sock_connect=10, sock_read=30)
"""Seconds. There is no total timeout: a big file may take as long as the job's deadline allows."""

_READ_BUFFER: Final = 65_536


def open_session(
    rules: HostRules,
    network: NetworkSettings,
    purpose: Purpose,
    *,
    timeout: aiohttp.ClientTimeout = DEFAULT_TIMEOUT,
    read_buffer_bytes: int = _READ_BUFFER,
    resolver: AbstractResolver | None = None,
    tls: ssl.SSLContext | bool | None = None,
) -> aiohttp.ClientSession:
    """Return a session for the URLs of one purpose; call it in a running loop and close it.

    Pass URLs as ``request_url(text)``: aiohttp rewrites plain strings, which breaks signatures. The session returns
    answers as sent: it decompresses nothing, and no status raises. A request that is not allowed raises AddressRefused.
    Exceptions of aiohttp may hold the URL with its query, so never chain or log them.

    Args:
        rules: Allowed hosts, schemes and addresses.
        network: CA bundle and proxy.
        purpose: Which list of hosts applies.
        timeout: Default for requests without their own timeout.
        read_buffer_bytes: The connection is paused when twice as many bytes are waiting to be read.
        resolver: Resolves names instead of the system; the session checks its addresses in the same way.
        tls: Replaces what :func:`session_tls` returns for ``network``.

    Raises:
        FatalError: The CA bundle cannot be read.
    """
    proxy = network.proxy.get_secret_value() if network.proxy is not None else None
    connector = aiohttp.TCPConnector(
        ssl=session_tls(network) if tls is None else tls,
        resolver=resolver or aiohttp.ThreadedResolver(),
        socket_factory=None if proxy else _socket_factory(rules, purpose),
        limit=0,  # callers limit concurrent requests; waiting for a slot here would have no timeout
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


def session_tls(network: NetworkSettings) -> ssl.SSLContext | bool:
    """Return what verifies servers in a session. True is aiohttp's own context, which trusts the system's CAs.

    aiohttp makes that one once; another one takes tens of milliseconds.

    Raises:
        FatalError: The CA bundle cannot be read.
    """
    return True if network.ca_file is None else tls_context(network)


def tls_context(network: NetworkSettings) -> ssl.SSLContext:
    """Return a context that trusts the authorities of ``network``.

    Raises:
        FatalError: The CA bundle cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=network.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise FatalError(
            "ca_file_unreadable",
            f"network.ca_file: this is not a readable PEM file of certificates: {error.strerror}",
        ) from error
    context.set_alpn_protocols(["http/1.1"])
    return context


class _AddressNotAllowed(OSError):
    """Makes aiohttp try the next address of the host, as it does after any OSError."""

    def __init__(self, refused: AddressRefused) -> None:
        # equal texts, so that several refused addresses are reported as one
        super().__init__("address not allowed")
        self.refused = refused


AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]


def _socket_factory(rules: HostRules, purpose: Purpose) -> Callable[[AddressInfo], socket.socket]:
    """Return a function that checks an address and opens its socket, right before the connection is made."""

    def make(info: AddressInfo) -> socket.socket:
        family, kind, proto, _, address = info
        try:
            check_address(address[0], rules, purpose)
        except AddressRefused as refused:
            raise _AddressNotAllowed(refused) from None
        return socket.socket(family, kind, proto)

    return make


def _url_guard(rules: HostRules, purpose: Purpose) -> aiohttp.ClientMiddlewareType:
    allowed: yarl.URL | None = None  # the last one: a processor often asks one URL about all cards

    async def guard(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        nonlocal allowed
        if request.url != allowed:
            check_url(str(request.url), rules, purpose)
            allowed = request.url
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
