"""Asks a service about each card; its answer decides."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import yarl

from pipeline.contracts.json_pointer import value_at
from pipeline.errors import PermanentError, TransientError
from pipeline.jobs.processors.http.options import HttpOptions, matches
from pipeline.jobs.processors.http.template import BodyTemplate, refuse_empty, refuse_steps
from pipeline.jobs.processors.protocols import Card, CardResult, JobContext, TransientCardError
from pipeline.outbound import AddressRefused, HostRules, NetworkSettings, open_session, request_url, retry_after_seconds
from pipeline.secret_files import SecretUnreadable, TokenFile

_NETWORK: Final = NetworkSettings()
_TOKEN_TRUSTED_SECONDS: Final = 1.0
"""A look at the token's file costs a card more than all else here. When the service refuses the token, it is read at
once."""
_UNAVAILABLE: Final = frozenset({429, 502, 503, 504})
"""Answers about the service as a whole. A 500 may be about one card."""

_ANSWERS: Final = json.JSONDecoder(parse_int=str, parse_float=str)
"""Made once: `json.loads` would make one per card."""


class Http:
    """One request per card, with the card's idempotency key; row-wise.

    It talks to the configured host only, follows no redirects, and reads an answer up to a bound. Messages name the
    status of the answer, never what was sent or answered. The option ``result_columns`` names the values of the answer
    that the result file gets.
    """

    Options = HttpOptions
    version = "1"

    def __init__(self, options: HttpOptions, *, network: NetworkSettings = _NETWORK) -> None:
        self.result_columns = tuple(options.result_columns)
        self._options = options
        self._network = network
        self._rules = HostRules(
            callback=(options.parts.authority,),
            allow_http=options.allow_http,
            allow_private=options.allow_private,
            allow_nat64=True,  # the url is the operator's
        )
        self._path, self._query = options.templates
        is_one = not any(sign in options.url for sign in ("{", "}", "/."))
        self._one_url = request_url(options.url) if is_one else None
        self._body = None if options.body is None else BodyTemplate(options.body)
        self._token = _token_file(options)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Open the connection pool; the engine bounds how many cards are sent at once."""
        timeout = aiohttp.ClientTimeout(total=self._options.timeout_seconds)
        self._session = open_session(self._rules, self._network, "callback", timeout=timeout)

    async def close(self) -> None:
        """Close it."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def process(self, card: Card, context: JobContext) -> CardResult:
        """Ask about one card.

        Raises:
            CardError: The card has no value that the URL needs.
            TransientCardError: No answer, or one that asks to try this card again.
            TransientError: Our token cannot be read or is not accepted: the job is retried later.
            PermanentError: The address is not allowed, or the file lacks a column.
        """
        url = self._url(card, context)
        body = None if self._body is None else json.dumps(self._body.fill(card, context)).encode()
        token = None if self._token is None else await _token(self._token)
        status, retry_after, answer = await self._ask(url, body, self._headers(card, token, body))
        return await self._decide(status, retry_after, answer, token)

    def _url(self, card: Card, context: JobContext) -> str | yarl.URL:
        if self._one_url is not None:
            return self._one_url

        def in_path(name: str, value: str) -> str:
            refuse_empty(name, value)
            return quote(value, safe="")

        path = self._path.fill(card, context, write=in_path)
        refuse_steps(path)
        return path + self._query.fill(card, context, write=lambda _name, value: quote(value, safe=""))

    def _headers(self, card: Card, token: str | None, body: bytes | None) -> dict[str, str]:
        options = self._options
        headers = dict(options.headers)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        if token is not None:
            headers[options.token_header] = options.token_prefix + token
        if options.idempotency_header:
            headers[options.idempotency_header] = card.idempotency_key
        return headers

    async def _ask(
        self, url: str | yarl.URL, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, str | None, bytes | None]:
        if self._session is None:
            raise RuntimeError("process was called before open")
        try:
            to = request_url(url) if isinstance(url, str) else url
            async with self._session.request(
                self._options.method, to, data=body, headers=headers, allow_redirects=False
            ) as response:
                answer = await _read_bounded(response, self._options.max_answer_bytes)
                return response.status, response.headers.get("Retry-After"), answer
        except AddressRefused as refused:
            raise PermanentError(
                refused.code,
                "The url of processor http leads to an address that is not allowed"
                " (its option allow_private = true would allow a private one).",
            ) from refused
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            kind = type(error).__name__
        # outside the handler: the errors of the client hold the URL, and a URL may hold a card number
        raise TransientCardError(f"the card service gave no answer ({kind})", unavailable=True)

    async def _decide(
        self, status: int, retry_after: str | None, answer: bytes | None, token: str | None
    ) -> CardResult:
        options = self._options
        failed = matches(status, options.failed_statuses)
        if not failed and matches(status, options.credentials_statuses):
            if self._token is not None and await _token(self._token, fresh=True) != token:
                raise TransientCardError("the card service's token was replaced meanwhile")
            raise TransientError(
                "http_credentials_refused", f"The card service refuses our credentials (it answered {status})."
            )
        if not failed and matches(status, options.retry_statuses):
            pause = retry_after_seconds(retry_after, now=datetime.now(UTC))
            raise TransientCardError(
                f"the card service answered {status}", retry_after=pause, unavailable=status in _UNAVAILABLE
            )
        document = _parsed(answer) if options.result_columns else None
        columns = {name: _text_at(document, pointer) for name, pointer in options.result_columns.items()}
        if failed or not matches(status, options.ok_statuses):
            return CardResult("failed", f"the card service answered {status}", columns)
        unread = bool(columns) and document is None
        return CardResult("ok", "the card service's answer could not be read" if unread else "", columns)


def _token_file(options: HttpOptions) -> TokenFile | None:
    path = options.token_file
    return None if path is None else TokenFile(path, trusted_seconds=_TOKEN_TRUSTED_SECONDS)


async def _token(file: TokenFile, *, fresh: bool = False) -> str:
    try:
        return (await file.token(fresh=fresh)).get_secret_value()
    except SecretUnreadable as error:
        raise TransientError("http_token_unavailable", f"Processor http has no token: {error.message}.") from error


async def _read_bounded(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """Return the body, or None where it has more than ``limit`` bytes (the connection is then closed)."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > limit:
            response.close()
            return None
    return bytes(body)


def _parsed(body: bytes | None) -> Any:
    """Return the JSON document, or None where the body is none. Numbers stay the text they are."""
    if not body:
        return None
    try:
        return _ANSWERS.decode(body.decode(json.detect_encoding(body), "surrogatepass"))
    except (ValueError, RecursionError):
        return None


def _text_at(document: Any, pointer: str) -> str:
    """Return the text that a JSON pointer leads to; empty where it leads nowhere or to null."""
    try:
        value = value_at(document, pointer)
    except LookupError:
        return ""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
