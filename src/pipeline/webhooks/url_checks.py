"""URL checks: how senders check a webhook's URL before its first use, and our answers. No check is published.

To add a check, write its name in ``verification/presets.py``, a method of :class:`UrlChecks`, a row in
docs/reference/senders.md, and tests.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qs

from aiohttp import web

from pipeline.contracts import Headers
from pipeline.contracts.strict_json import InvalidBody, parse_object
from pipeline.webhooks.http_request import values_of
from pipeline.webhooks.sources import WebhookRequest
from pipeline.webhooks.verification import Reason, Secret, SignatureRefused, UrlCheck

_Query = Mapping[str, Sequence[str]]

_METHODS: Final[Mapping[UrlCheck, str]] = {
    "hub-challenge": "GET",
    "challenge": "GET",
    "crc-token": "GET",
    "get": "GET",
    "head": "HEAD",
    "options": "OPTIONS",
}
"""The method of each check that is not a POST."""
PROVED: Final[frozenset[UrlCheck]] = frozenset({"url-verification", "eventsub", "endpoint-validation", "hub-challenge"})
"""Checks that only a sender with the secret or the token can make."""
_MOST: Final = 4096
"""Most characters of a text to send back. Microsoft's tokens have a few hundred."""
_MOST_PARAMETERS: Final = 64
_ORIGIN: Final = re.compile(r"[A-Za-z0-9.:/_\[\]-]{1,253}")
_CRC_TOKEN: Final = re.compile(r"[A-Za-z0-9+/_-]{1,256}={0,2}")
"""Anybody may ask for the HMAC of such a text, and the same key signs events. So no event may be such a text."""
_PART_OF_TOKEN: Final = re.compile(rb"[A-Za-z0-9+/_-]*={0,2}")
"""A body that the sender signs together with other parts is only a part of such a text, and may be empty."""
_HOOK_SECRET: Final = re.compile(r"[!-~]{1,256}")


class UrlChecked(Exception):
    """Ends the handling of a request that is a URL check. The outermost frame catches it and sends the answer.

    Attributes:
        check: Name of the check.
    """

    def __init__(
        self,
        check: UrlCheck,
        text: str = "",
        *,
        document: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take the answer: a text, or a JSON document."""
        super().__init__(check)
        self.check: Final = check
        self._content = text if document is None else json.dumps(dict(document))
        self._type = "text/plain" if document is None else "application/json"
        self._headers = dict(headers or {})

    def response(self) -> web.Response:
        """Return the answer. ``nosniff`` stops browsers from rendering a stranger's text as a page."""
        return web.Response(
            body=self._content.encode("utf-8", "replace"),
            content_type=self._type,
            headers={"X-Content-Type-Options": "nosniff", **self._headers},
        )


class UrlChecks:
    """The URL checks that one source answers.

    Args:
        names: Names of the checks.
        token: The verify token of ``hub-challenge``.
        secrets: The source's secrets, which sign some of the answers.
        requests_per_second: The rate that the answer to ``options`` allows; None: any rate.
    """

    def __init__(
        self,
        names: Sequence[UrlCheck] = (),
        *,
        token: bytes = b"",
        secrets: Sequence[Secret] = (),
        requests_per_second: int | None = None,
    ) -> None:
        self.names: Final = tuple(names)
        self.methods: Final = ("POST", *sorted({_METHODS[name] for name in names if name in _METHODS}))
        self._token = token
        self._secrets = tuple(secrets)
        self._rate = "*" if requests_per_second is None else str(60 * requests_per_second)

    def __bool__(self) -> bool:
        """Return whether the source answers any check."""
        return bool(self.names)

    def check_head(self, method: str, query: str, headers: Headers, now: datetime) -> None:
        """Raise UrlChecked if the head shows that a request is a check. For a POST, verify it first.

        Args:
            method: Method of the request.
            query: Query of its URL, still encoded.
            headers: All its headers.
            now: Aware datetime; decides which secret signs the answer.

        Raises:
            UrlChecked: The request is a check.
            SignatureRefused: The request is a check, but its token is wrong, or no secret is active to sign the answer.
        """
        for name, check in self._of_head.items():
            if name in self.names and _METHODS.get(name, "POST") == method:
                check(self, _parsed(query), headers, now)

    def check_body(self, request: WebhookRequest, headers: Headers, by: str) -> None:
        """Raise UrlChecked if an authentic request is a check.

        Args:
            request: An authentic request.
            headers: All its headers.
            by: Id of the secret that verified it.

        Raises:
            UrlChecked: The request is a check.
            SignatureRefused: A stranger may have got the signature from our answer to a check.
        """
        for name, check in self._of_body.items():
            if name in self.names:
                check(self, request, headers, by)

    def _hub_challenge(self, query: _Query, _headers: Headers, _now: datetime) -> None:
        challenge = _one(query, "hub.challenge")
        if challenge is None or _one(query, "hub.mode") != "subscribe":
            return
        token = (_one(query, "hub.verify_token") or "").encode("utf-8", "replace")
        if not self._token or not hmac.compare_digest(token, self._token):
            raise SignatureRefused(Reason.URL_CHECK_TOKEN, "hub.verify_token is not the configured one")
        raise UrlChecked("hub-challenge", challenge)

    def _challenge(self, query: _Query, _headers: Headers, _now: datetime) -> None:
        challenge = _one(query, "challenge")
        if challenge is not None:
            raise UrlChecked("challenge", challenge)

    def _crc_token(self, query: _Query, _headers: Headers, now: datetime) -> None:
        token = _one(query, "crc_token")
        if token is not None and _CRC_TOKEN.fullmatch(token):
            digest = hmac.digest(self._active(now).key, token.encode(), "sha256")
            raise UrlChecked("crc-token", document={"response_token": f"sha256={base64.b64encode(digest).decode()}"})

    def _active(self, now: datetime) -> Secret:
        for secret in self._secrets:
            if secret.active(now):
                return secret
        raise SignatureRefused(Reason.NO_ACTIVE_SECRET, "No secret is active that could sign the answer")

    def _hook_secret(self, _query: _Query, headers: Headers, _now: datetime) -> None:
        values = values_of(headers, "x-hook-secret")
        # a request with a signature is an event and no handshake, even if it has this header
        if len(values) == 1 and _HOOK_SECRET.fullmatch(values[0]) and not values_of(headers, "x-hook-signature"):
            raise UrlChecked("hook-secret", headers={"X-Hook-Secret": values[0]})

    def _validation_token(self, query: _Query, _headers: Headers, _now: datetime) -> None:
        token = _one(query, "validationToken") or _one(query, "validationtoken")
        if token is not None:
            raise UrlChecked("validation-token", token)

    def _head(self, _query: _Query, _headers: Headers, _now: datetime) -> None:
        raise UrlChecked("head")

    def _get(self, _query: _Query, _headers: Headers, _now: datetime) -> None:
        raise UrlChecked("get")

    def _options(self, _query: _Query, headers: Headers, _now: datetime) -> None:
        """Answer a sender that asks for permission to send (CloudEvents 1.0, HTTP webhooks, section 4)."""
        allowed = {"Allow": ", ".join(self.methods)}
        origins = values_of(headers, "webhook-request-origin")
        if len(origins) == 1 and _ORIGIN.fullmatch(origins[0]):
            allowed |= {"WebHook-Allowed-Origin": origins[0], "WebHook-Allowed-Rate": self._rate}
        raise UrlChecked("options", headers=allowed)

    def _url_verification(self, request: WebhookRequest, _headers: Headers, _by: str) -> None:
        body = _object(request)
        if body.get("type") == "url_verification" and (challenge := _text(body.get("challenge"))):
            raise UrlChecked("url-verification", challenge)

    def _eventsub(self, request: WebhookRequest, headers: Headers, _by: str) -> None:
        kind = values_of(headers, "twitch-eventsub-message-type")
        if kind == ["webhook_callback_verification"] and (challenge := _text(_object(request).get("challenge"))):
            raise UrlChecked("eventsub", challenge)

    def _endpoint_validation(self, request: WebhookRequest, _headers: Headers, by: str) -> None:
        body = _object(request)
        payload = body.get("payload")
        if body.get("event") != "endpoint.url_validation" or not isinstance(payload, dict):
            return
        token = _text(payload.get("plainToken"))
        secret = next((one for one in self._secrets if one.id == by), None)
        if token and secret is not None:
            signed = hmac.digest(secret.key, token.encode("utf-8", "replace"), "sha256").hex()
            raise UrlChecked("endpoint-validation", document={"plainToken": token, "encryptedToken": signed})

    def _signed_token(self, request: WebhookRequest, _headers: Headers, _by: str) -> None:
        """Refuse a body that may be a ``crc_token``: our answer to the check signs it for any stranger."""
        signed = {request.body, request.repeated_body}  # as sent, and decoded
        if any(_PART_OF_TOKEN.fullmatch(one) for one in signed):
            raise SignatureRefused(Reason.URL_CHECK_TOKEN, "The body is a text that crc-token signs for anybody")

    _of_head: Final[Mapping[UrlCheck, Callable[..., None]]] = {
        "hub-challenge": _hub_challenge,
        "challenge": _challenge,
        "crc-token": _crc_token,
        "hook-secret": _hook_secret,
        "validation-token": _validation_token,
        "head": _head,
        "get": _get,
        "options": _options,
    }
    _of_body: Final[Mapping[UrlCheck, Callable[..., None]]] = {
        "url-verification": _url_verification,
        "eventsub": _eventsub,
        "endpoint-validation": _endpoint_validation,
        "crc-token": _signed_token,
    }


NO_URL_CHECKS: Final = UrlChecks()


def _parsed(query: str) -> _Query:
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        return {}


def _one(query: _Query, name: str) -> str | None:
    """Return the one value of a parameter; None if it is missing, repeated, empty or too long."""
    values = query.get(name, ())
    return values[0] if len(values) == 1 and 0 < len(values[0]) <= _MOST else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= _MOST else ""


def _object(request: WebhookRequest) -> dict[str, Any]:
    try:
        return parse_object(request.json_body)
    except InvalidBody:
        return {}
