"""Reads the card service's answers: the result of one card, or of each card of a batch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pipeline.contracts.json_pointer import value_at
from pipeline.jobs.processors.http.options import HttpOptions, matches
from pipeline.jobs.processors.http.template import Template
from pipeline.jobs.processors.protocols import Card, CardError, CardResult, JobContext, TransientCardError
from pipeline.outbound import retry_after_seconds

_UNAVAILABLE: Final = frozenset({502, 503, 504})
"""Statuses that concern the whole service. A 500 may concern one card."""
_SLOW_DOWN: Final = frozenset({429, 503})
"""Answers that ask for fewer requests."""

_ANSWERS: Final = json.JSONDecoder(parse_int=str, parse_float=str)
"""Created once: `json.loads` would create one per card."""

_UNREAD: Final = "the card service's answer could not be read"
_TOO_LONG: Final = f"{_UNREAD}: it is longer than max_answer_bytes"

Result = CardResult | CardError | TransientCardError


class AnswerReading:
    """Derives the results of cards from answers.

    Messages never quote an answer, except values that the settings name.
    """

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        batch = options.batch
        self._key = Template(batch.key) if batch is not None and batch.match is not None else None
        self._needed = options.decision is not None or bool(options.result_columns)
        """Whether the body is needed too."""

    def refuses_credentials(self, status: int) -> bool:
        """Return whether a status means that the credentials are not accepted."""
        options = self._options
        return not matches(status, options.failed_statuses) and matches(status, options.credentials_statuses)

    def card(self, status: int, retry_after: str | None, body: bytes | None) -> CardResult:
        """Return the result of one card.

        Raises:
            TransientCardError: The answer asks to try the card again.
        """
        self._raise_retry(status, retry_after)
        document = _parsed(body) if self._needed else None
        return self._decided(status, retry_after, document, unread=_why_unread(body))

    def keys(self, cards: Sequence[Card], context: JobContext) -> list[str | None]:
        """Return the key that matches each card with its answer; None for each if their order matches them.

        Raises:
            PermanentError: ``http_column_missing``.
        """
        return [None if self._key is None else self._key.fill(card, context) for card in cards]

    def cards(
        self, status: int, retry_after: str | None, body: bytes | None, keys: Sequence[str | None]
    ) -> list[Result]:
        """Return the result of each card of a batch.

        A card without its own answer fails. If the order matches the answers, and their number differs from that of the
        cards, all cards fail, because no answer can be assigned.

        Raises:
            TransientCardError: The answer asks to send the batch again.
        """
        self._raise_retry(status, retry_after)
        if not self._needed or self._failed(status):
            return [self._decided(status, retry_after, None)] * len(keys)  # the body is about no single card
        entries = self._entries(_parsed(body))
        if entries is None:
            error = self._unread(_why_unread(body))
            return [error] * len(keys)
        if self._key is None:
            if len(entries) != len(keys):
                wrong = CardError(f"the card service gave {len(entries)} answers for {len(keys)} cards")
                return [wrong] * len(keys)
            return [self._entry(status, retry_after, entry) for entry in entries]
        return self._matched(status, retry_after, entries, keys)

    def _matched(
        self, status: int, retry_after: str | None, entries: list[Any], keys: Sequence[str | None]
    ) -> list[Result]:
        batch = self._options.batch
        assert batch is not None and batch.match is not None  # noqa: S101, PT018 - for the type checker
        answers = [(_text_at(entry, batch.match), entry) for entry in entries]
        known = Counter(key for key, _ in answers)
        by_key = dict(answers)
        strange = len(answers) - sum(known[key or ""] for key in keys)
        results: list[Result] = []
        for key in keys:
            if known[key or ""] == 1:
                results.append(self._entry(status, retry_after, by_key[key or ""]))
            elif known[key or ""]:
                results.append(CardError("the card service gave several answers for this card"))
            else:
                more = f", and {strange} for cards that were not sent" if strange else ""
                results.append(CardError(f"the card service gave no answer for this card{more}"))
        return results

    def _entry(self, status: int, retry_after: str | None, entry: Any) -> Result:
        try:
            return self._decided(status, retry_after, entry)
        except TransientCardError as error:
            return error

    def _entries(self, document: Any) -> list[Any] | None:
        """Return the array of a batch's answers; None if there is none."""
        batch = self._options.batch
        found = document
        if batch is not None and batch.answers is not None:
            try:
                found = value_at(document, batch.answers)
            except LookupError:
                return None
        return found if isinstance(found, list) else None

    def _unread(self, why: str) -> Result:
        """Return the result of each card if the answer has an ok status but cannot be read."""
        if self._options.decision is None:
            return CardResult("ok", why, dict.fromkeys(self._options.result_columns, ""))
        return TransientCardError(why, maybe_done=True)

    def _failed(self, status: int) -> bool:
        options = self._options
        return matches(status, options.failed_statuses) or not matches(status, options.ok_statuses)

    def _raise_retry(self, status: int, retry_after: str | None) -> None:
        options = self._options
        if matches(status, options.failed_statuses) or not matches(status, options.retry_statuses):
            return
        raise TransientCardError(
            f"the card service answered {status}",
            retry_after=_pause(retry_after),
            unavailable=status in _UNAVAILABLE,
            slow_down=status in _SLOW_DOWN,
            maybe_done=True,
        )

    def _decided(self, status: int, retry_after: str | None, document: Any, *, unread: str = _UNREAD) -> CardResult:
        """Return the result of a card by its document; None if there is none, because of ``unread``."""
        options = self._options
        columns = {name: _text_at(document, pointer) for name, pointer in options.result_columns.items()}
        if self._failed(status):
            return CardResult("failed", f"the card service answered {status}", columns)
        if options.decision is None:
            return CardResult("ok", unread if columns and document is None else "", columns)
        value = _text_at(document, options.decision.pointer)
        if value in options.decision.ok:
            return CardResult("ok", "", columns)
        if value in options.decision.failed:
            return CardResult("failed", f"the card service says {value}", columns)
        if value in options.decision.retry:
            raise TransientCardError(f"the card service says {value}", retry_after=_pause(retry_after))
        if not value:
            raise TransientCardError(unread, maybe_done=True)
        at = options.decision.pointer
        return CardResult("failed", f"the card service's answer has an unknown value at {at}", columns)


def _pause(retry_after: str | None) -> float | None:
    return None if retry_after is None else retry_after_seconds(retry_after, now=datetime.now(UTC))


def _why_unread(body: bytes | None) -> str:
    return _TOO_LONG if body is None else _UNREAD


def _parsed(body: bytes | None) -> Any:
    """Return the JSON document, or None if the body is not JSON. Numbers stay text."""
    if not body:
        return None
    try:
        return _ANSWERS.decode(body.decode(json.detect_encoding(body), "surrogatepass"))
    except (ValueError, RecursionError):
        return None


def _text_at(document: Any, pointer: str) -> str:
    """Return the text at a JSON pointer; empty if there is nothing or null."""
    try:
        value = value_at(document, pointer)
    except LookupError:
        return ""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
