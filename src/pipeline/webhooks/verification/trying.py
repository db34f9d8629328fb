"""Finding out how a sender applies its secret, where no document says it: by trying what is known on a real request."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, get_args

from pydantic import TypeAdapter, ValidationError

from pipeline.contracts import Headers
from pipeline.errors import FatalError
from pipeline.webhooks.verification.build import scheme_of
from pipeline.webhooks.verification.errors import Reason, SignatureRefused
from pipeline.webhooks.verification.explaining import explain
from pipeline.webhooks.verification.guesses import hmac_guesses
from pipeline.webhooks.verification.keys import Writing
from pipeline.webhooks.verification.presets import PRESETS, WEAVR, WEAVR_LEGACY
from pipeline.webhooks.verification.protocols import Scheme, Secret
from pipeline.webhooks.verification.settings import (
    HmacSettings,
    SchemeSettings,
    SharedSecretSettings,
    StandardWebhooksSettings,
)

_ADAPTER: Final[TypeAdapter[SharedSecretSettings | HmacSettings | StandardWebhooksSettings]] = TypeAdapter(
    SchemeSettings
)
_UNREAD: Final = [{"file": "unread"}]
_ANY_AGE: Final = {"tolerance_seconds": float("inf")}
_MOST_PREFIX: Final = 64


@dataclass(frozen=True, slots=True)
class Match:
    """One way of applying a secret that verifies the request.

    Attributes:
        name: ``preset github``, ``weavr``, ``weavr legacy``, ``standard-webhooks``, ``shared-secret`` or ``hmac``.
        preset: The word that selects a preset, or None.
        secret: Id of the secret; its value stands nowhere here.
        toml: The scheme's table as it is written into the settings, without ``secrets``.
        remark: What else there is to know, such as that the request is too old by now; may be empty.
    """

    name: str
    preset: str | None
    secret: str
    toml: str
    remark: str

    def document(self) -> dict[str, str | None]:
        """Return the match as it stands in JSON."""
        return asdict(self)


def matching(headers: Headers, body: bytes, now: datetime, secrets: Sequence[Secret]) -> list[Match]:
    """Return every known way to apply a secret that verifies the request, well-known senders first.

    Tried are the presets, Weavr's two signatures, Standard Webhooks, the secret itself in any header, and for every
    header that looks like a signature a bounded number of HMACs: over the body, over time and body, over another header
    and either, in any order and with usual separators, with the secret as text, hex or base64. A header that a known
    sender explains is not explained again.

    Neither the dates of secrets nor the age of the request rules anything out; ``now`` only decides what is remarked.
    """
    trial = _Trial(headers, body, now, secrets)
    found = [match for name, preset, table in _known() if (match := trial.match(name, table, preset)) is not None]
    found += [
        match for table in _shared(headers, secrets) if (match := trial.match("shared-secret", table)) is not None
    ]
    explained = frozenset(trial.explained)
    for table in hmac_guesses(headers, explained):
        for writing in get_args(Writing):
            settings = {"scheme": "hmac", **table} | ({} if writing == "text" else {"key": writing})
            if (match := trial.match("hmac", settings)) is not None:
                found.append(match)
    return found


def _known() -> Iterator[tuple[str, str | None, Mapping[str, Any]]]:
    for name, preset in PRESETS.items():
        yield f"preset {name}", name, preset.scheme
    yield "weavr", None, WEAVR
    yield "weavr legacy", None, WEAVR_LEGACY
    yield "standard-webhooks", None, {"scheme": "standard-webhooks"}


def _shared(headers: Headers, secrets: Iterable[Secret]) -> Iterator[dict[str, Any]]:
    for secret in secrets:
        for name, value in headers:
            prefix = value.removesuffix(secret.key)
            if prefix != value and len(prefix) <= _MOST_PREFIX:
                text = {"prefix": prefix.decode("latin-1")} if prefix else {}
                yield {"scheme": "shared-secret", "header": name, **text}


class _Trial:
    """One request, and the secrets that are tried on it.

    Attributes:
        explained: Lower-case names of the headers whose signature is explained.
    """

    def __init__(self, headers: Headers, body: bytes, now: datetime, secrets: Iterable[Secret]) -> None:
        self._headers = headers
        self._body = body
        self._now = now
        self._secrets = [Secret(secret.id, secret.value) for secret in secrets]
        self.explained: set[str] = set()

    def match(self, name: str, table: Mapping[str, Any], preset: str | None = None) -> Match | None:
        """Return the match, if one of the secrets verifies the request in this way."""
        aged = {} if table["scheme"] == "shared-secret" else _ANY_AGE
        for secret in self._secrets:
            scheme = _scheme({**table, **aged}, secret)
            shown = secret.value.get_secret_value() in table.get("prefix", "")  # the prefix is what was received
            if scheme is None or shown or not self._verified(scheme):
                continue
            self.explained.update(scheme.stored_headers)
            return Match(name, preset, secret.id, _toml(table), self._remark(table, secret))
        return None

    def _verified(self, scheme: Scheme) -> bool:
        try:
            scheme.verify(self._headers, self._body, self._now)
        except SignatureRefused:
            return False
        return True

    def _remark(self, table: Mapping[str, Any], secret: Secret) -> str:
        if table["scheme"] == "shared-secret":
            return "the header proves nothing about the body"
        if table.get("body_unsigned"):
            return "the signature proves nothing about the body"
        scheme = _scheme(table, secret)
        explanation = None if scheme is None else explain(scheme, self._headers, self._body, self._now)
        if explanation is None or explanation.reason not in {Reason.TIMESTAMP_TOO_OLD, Reason.TIMESTAMP_IN_FUTURE}:
            return ""
        return explanation.steps[-1].detail


def _scheme(table: Mapping[str, Any], secret: Secret) -> Scheme | None:
    try:
        return scheme_of(_ADAPTER.validate_python({**table, "secrets": _UNREAD}), [secret])
    except (ValidationError, FatalError):
        return None  # no header that settings may name, or a secret that is not written so


def _toml(table: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in table.items())


def _value(value: object) -> str:
    """Render a value; JSON's strings, numbers and booleans are TOML's as well."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)
