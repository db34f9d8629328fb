"""The handlers of a subscriber."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import BaseModel

from pipeline.subscriber.event import Event
from pipeline.subscriber.models import MODELS, types_of

Function = Callable[[Event[Any]], Awaitable[None]]
"""Handles one event; returns when the event is done."""


class Handlers:
    """The handlers of one subscriber: at most one for each event type, and one for all other types.

    Attributes:
        models: Models by event type: the published ones, and those from declarations of handlers. None: the type has a
            published model, but its handler wants plain JSON.
    """

    def __init__(self) -> None:
        self.models: Mapping[str, type[BaseModel] | None] = MODELS
        self._declared: dict[str, type[BaseModel]] = {}
        self._by_type: dict[str, Function] = {}
        self._rest: Function | None = None
        self._raw: set[str] = set()
        self._rest_raw = False

    def __bool__(self) -> bool:
        return bool(self._by_type) or self._rest is not None

    def add(
        self, what: type[BaseModel] | str, handler: Function, model: type[BaseModel] | None, *, raw: bool = False
    ) -> None:
        """Add a handler for a model's types, or for one type.

        Args:
            what: The model, or the type.
            handler: Handles its events.
            model: The model of the body, for a type without a published model.
            raw: Whether the handler wants plain JSON instead of the model.

        Raises:
            TypeError: The handler is not an ``async def`` function.
            ValueError: The type already has a handler, the model belongs to no type, or ``raw`` is given with a model.
        """
        _ensure_async(handler)
        if raw and model is not None:
            raise ValueError("raw=True hands over plain JSON: name no model with it")
        types = [what] if isinstance(what, str) else types_of(what)
        for one in types:
            if one in self._by_type:
                raise ValueError(f"{one} has a handler already: an event has one handler")
        self._by_type.update(dict.fromkeys(types, handler))
        if isinstance(what, str) and model is not None:
            self._declared[what] = model
        if raw:
            self._raw.update(types)
        self._choose_models()

    def add_rest(self, handler: Function, *, raw: bool = False) -> None:
        """Add the handler for all types without their own handler. Raises as :meth:`add`."""
        _ensure_async(handler)
        if self._rest is not None:
            raise ValueError("on_any has a handler already: an event has one handler")
        self._rest, self._rest_raw = handler, raw
        self._choose_models()

    def _choose_models(self) -> None:
        known = {**MODELS, **self._declared}
        plain = self._raw | (known.keys() - self._by_type.keys() if self._rest_raw else set())
        self.models = {kind: None if kind in plain else model for kind, model in known.items()}

    def find(self, event_type: str) -> Function | None:
        """Return the handler of a type, or None."""
        return self._by_type.get(event_type, self._rest)

    def handles(self, event_type: str) -> bool:
        """Return whether events of a type have a handler."""
        return self._rest is not None or event_type in self._by_type


def _ensure_async(handler: object) -> None:
    call = getattr(handler, "__call__", None)  # noqa: B004 - an object with an async __call__ may be a handler
    if not (inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)):
        raise TypeError(f"a handler is an `async def` function of one event, not {handler!r}")
