"""Sends one request per card to a service; the answer decides."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import aiohttp
import yarl

from pipeline.errors import PermanentError, TransientError
from pipeline.jobs.processors.http.answers import AnswerReading
from pipeline.jobs.processors.http.credentials import ClientCertificate, credentials_of
from pipeline.jobs.processors.http.options import HttpOptions
from pipeline.jobs.processors.http.template import BodyTemplate, refuse_empty, refuse_steps
from pipeline.jobs.processors.protocols import Card, CardError, CardGroup, CardResult, JobContext, TransientCardError
from pipeline.outbound import AddressRefused, HostRules, NetworkSettings, open_session, request_url

_NETWORK: Final = NetworkSettings()


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer of the card service.

    Attributes:
        body: None if it is longer than allowed.
    """

    status: int
    retry_after: str | None
    body: bytes | None


class Http:
    """Sends one request per card, with the card's idempotency key, or one per batch of cards, with the batch's key.

    It connects only to the configured host, follows no redirects, and limits the size of an answer. Messages name the
    status of the answer, or a value that the settings name, but never quote the request or the answer. The option
    ``result_columns`` copies values of the answer to the result file.
    """

    Options = HttpOptions
    version = "1"

    def __init__(self, options: HttpOptions, *, network: NetworkSettings = _NETWORK) -> None:
        self.result_columns = tuple(options.result_columns)
        self.cards_per_call = 1 if options.batch is None else options.batch.size
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
        self._reading = AnswerReading(options)
        self._credentials = credentials_of(options, network)
        self._header = options.token_header if options.token_file is not None else "Authorization"
        self._certificate: ClientCertificate | None = None
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Open the connection pool; the engine bounds how many requests are under way at once.

        Raises:
            TransientError: The client certificate cannot be used.
            FatalError: The CA bundle cannot be read.
        """
        options = self._options
        if options.client_cert_file is not None and options.client_key_file is not None:
            self._certificate = ClientCertificate(options.client_cert_file, options.client_key_file, self._network)
            await self._certificate.refresh()
        timeout = aiohttp.ClientTimeout(total=options.timeout_seconds)
        tls = None if self._certificate is None else self._certificate.context
        self._session = open_session(self._rules, self._network, "callback", timeout=timeout, tls=tls)

    async def close(self) -> None:
        """Close the connection pool."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def process(self, card: Card, context: JobContext) -> CardResult:
        """Send the request of one card.

        Raises:
            CardError: The card has no value that the URL needs.
            TransientCardError: No answer, or one that asks to try this card again.
            TransientError: The credentials cannot be read or are not accepted, so the job is retried later.
            PermanentError: The address is not allowed, or the file lacks a column.
        """
        body = None if self._body is None else json.dumps(self._body.fill(card, context)).encode()
        answer = await self._ask(self._url(card, context), body, card.idempotency_key)
        return self._reading.card(answer.status, answer.retry_after, answer.body)

    async def process_cards(
        self, group: CardGroup, context: JobContext
    ) -> list[CardResult | CardError | TransientCardError]:
        """Send one request for several cards. It raises the errors of :meth:`process`."""
        results: list[CardResult | CardError | TransientCardError | None] = [None] * len(group.cards)
        keys = self._reading.keys(group.cards, context)
        times = Counter(keys)
        sent: list[int] = []
        for index, key in enumerate(keys):
            if key is None or (key and times[key] == 1):
                sent.append(index)
            elif key:
                results[index] = CardError("another card of its batch has the same key")
            else:
                results[index] = CardError("the key of the card is empty")
        if sent:
            answer = await self._ask(
                self._url(group.cards[0], context),
                self._batch_body([group.cards[index] for index in sent], context),
                group.idempotency_key,
            )
            found = self._reading.cards(answer.status, answer.retry_after, answer.body, [keys[index] for index in sent])
            for index, result in zip(sent, found, strict=True):
                results[index] = result
        return [result for result in results if result is not None]

    def _batch_body(self, cards: Sequence[Card], context: JobContext) -> bytes:
        batch, body = self._options.batch, self._body
        assert batch is not None and body is not None  # noqa: S101, PT018 - for the type checker: the options need both
        array = [body.fill(card, context) for card in cards]
        return json.dumps(array if batch.field is None else {batch.field: array}).encode()

    def _url(self, card: Card, context: JobContext) -> str | yarl.URL:
        if self._one_url is not None:
            return self._one_url

        def in_path(name: str, value: str) -> str:
            refuse_empty(name, value)
            return quote(value, safe="")

        path = self._path.fill(card, context, write=in_path)
        refuse_steps(path)
        return path + self._query.fill(card, context, write=lambda _name, value: quote(value, safe=""))

    def _headers(self, key: str, credentials: str | None, body: bytes | None) -> dict[str, str]:
        options = self._options
        headers = dict(options.headers)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        if credentials is not None:
            headers[self._header] = credentials
        if options.idempotency_header:
            headers[options.idempotency_header] = key
        return headers

    async def _ask(self, url: str | yarl.URL, body: bytes | None, key: str) -> _Answer:
        """Send a request; return an answer that is about the cards, not about the credentials."""
        credentials = None if self._credentials is None else await self._credentials.value()
        answer = await self._sent(url, body, self._headers(key, credentials, body))
        if self._reading.refuses_credentials(answer.status):
            if self._credentials is not None and credentials is not None:
                renewed = await self._credentials.renewed(credentials)
                if renewed != credentials:
                    raise TransientCardError("the card service's token was replaced meanwhile", maybe_done=True)
            raise TransientError(
                "http_credentials_refused", f"The card service refuses the credentials (it answered {answer.status})."
            )
        return answer

    async def _sent(self, url: str | yarl.URL, body: bytes | None, headers: dict[str, str]) -> _Answer:
        if self._session is None:
            raise RuntimeError("process was called before open")
        if self._certificate is not None:
            await self._certificate.refresh()
        try:
            to = request_url(url) if isinstance(url, str) else url
            async with self._session.request(
                self._options.method, to, data=body, headers=headers, allow_redirects=False
            ) as response:
                answer = await _read_bounded(response, self._options.max_answer_bytes)
                return _Answer(response.status, response.headers.get("Retry-After"), answer)
        except AddressRefused as refused:
            raise PermanentError(
                refused.code,
                "The url of processor http leads to an address that is not allowed"
                " (its option allow_private = true would allow a private one).",
            ) from refused
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            kind = type(error).__name__
            late = isinstance(error, TimeoutError)
        # outside the handler: the client's errors contain the URL, which may contain a card number
        raise TransientCardError(f"the card service gave no answer ({kind})", unavailable=True, slow_down=late)


async def _read_bounded(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """Return the body, or None if it has more than ``limit`` bytes; then the connection is closed."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > limit:
            response.close()
            return None
    return bytes(body)
