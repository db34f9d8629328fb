"""Is a callback body what the documents ask for? Read with the standard library alone."""

from __future__ import annotations

import json
import re
from typing import Final

MAX_MESSAGE: Final = 1200
_KNOWN: Final = ("success", "records_processed", "records_failed", "error_message")
_LONG_NUMBER: Final = re.compile(r"\d(?:[ -]?\d){11,18}")
_SIX_DIGITS: Final = re.compile(r"(?<!\d)\d{6}(?!\d)")
_URL: Final = re.compile(r"https?://|X-Amz-[A-Za-z0-9-]*=", re.IGNORECASE)
"""A URL, or a parameter of a signed one with its value; the name alone says only what is wrong."""


class BodyRefused(Exception):
    """The body breaks the contract.

    Attributes:
        status: 400 where it is not JSON, else 422.
    """

    def __init__(self, status: int, reason: str) -> None:
        """Keep the status apart from the reason."""
        super().__init__(reason)
        self.status = status


def read_body(body: bytes) -> dict[str, object]:
    """Return the parsed body.

    Raises:
        BodyRefused: Not a JSON object, a field missing or of a wrong type, a message too long or with a URL or a card
            number in it.
    """
    try:
        document = json.loads(body, parse_constant=_no_constant)
    except ValueError as error:
        raise BodyRefused(400, "the body is not JSON") from error
    if not isinstance(document, dict):
        raise BodyRefused(422, "the body is not a JSON object")
    success = document.get("success")
    if not isinstance(success, bool):
        raise BodyRefused(422, "success must be true or false")
    _check_count(document, "records_processed", optional=False)
    _check_count(document, "records_failed", optional=not success)
    _check_message(document.get("error_message"), success=success)
    return document


def unknown_fields(document: dict[str, object]) -> list[str]:
    """Return the fields that the documents do not name: accepted, and shown by the control API."""
    return sorted(set(document) - set(_KNOWN))


def names_six_digit_card(message: str, first: int, records: int) -> bool:
    """Tell whether a text holds one of the numbers that the cards of a six-digit file have."""
    return any(first <= int(number) < first + records for number in _SIX_DIGITS.findall(message))


def _check_count(document: dict[str, object], name: str, *, optional: bool) -> None:
    if optional and document.get(name) is None:
        return
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BodyRefused(422, f"{name} must be an integer of at least 0")


def _check_message(message: object, *, success: bool) -> None:
    if message is None and success:
        return
    if not isinstance(message, str) or (not success and not message.strip()):
        raise BodyRefused(422, "error_message must be a text that says what went wrong, or null on success")
    if len(message) > MAX_MESSAGE:
        raise BodyRefused(422, f"error_message has {len(message)} characters; {MAX_MESSAGE} are allowed")
    if _URL.search(message):
        raise BodyRefused(422, "error_message holds a URL")
    if _LONG_NUMBER.search(message):
        raise BodyRefused(422, "error_message holds what looks like a card number")


def _no_constant(name: str) -> object:
    raise ValueError(name)
