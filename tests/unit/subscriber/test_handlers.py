from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from pipeline.contracts.weavr import BY_TYPE, KINDS
from pipeline.subscriber import Event
from pipeline.subscriber.handlers import Handlers
from pipeline.subscriber.models import types_of


class Unknown(BaseModel):
    pass


async def handle(_event: Event[Any]) -> None:
    """Do nothing."""


async def other(_event: Event[Any]) -> None:
    """Do nothing either."""


def test_a_model_is_the_name_of_all_types_that_have_it() -> None:
    handlers = Handlers()
    model = BY_TYPE["weavr.consumers.consumer_activated"].model
    handlers.add(model, handle, None)
    types = [kind.type for kind in KINDS if kind.model is model]
    assert len(types) > 1
    assert [handlers.find(one) for one in types] == [handle] * len(types)
    assert handlers.find("weavr.fees") is None


def test_every_kind_of_weavr_has_a_model_that_can_be_subscribed_to() -> None:
    assert {one for kind in KINDS for one in types_of(kind.model)} == set(BY_TYPE)


def test_the_handler_of_the_rest_takes_what_has_none() -> None:
    handlers = Handlers()
    handlers.add("acme.fee", handle, None)
    assert (handlers.handles("acme.other"), bool(handlers)) == (False, True)
    handlers.add_rest(other)
    assert [handlers.find("acme.fee"), handlers.find("acme.other")] == [handle, other]
    assert handlers.handles("acme.other")


def test_an_event_has_one_handler() -> None:
    handlers = Handlers()
    handlers.add(BY_TYPE["weavr.fees"].model, handle, None)
    handlers.add_rest(handle)
    with pytest.raises(ValueError, match=r"weavr\.fees has a handler already"):
        handlers.add("weavr.fees", other, None)
    with pytest.raises(ValueError, match="on_any has a handler already"):
        handlers.add_rest(other)


def test_a_model_of_no_event_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown is the model of no event type"):
        Handlers().add(Unknown, handle, None)


def test_a_handler_is_an_async_function_or_an_object_with_one() -> None:
    class Callable:
        async def __call__(self, event: Event[Any]) -> None: ...

    handlers = Handlers()
    handlers.add_rest(Callable())
    plain: Any = print
    with pytest.raises(TypeError, match="async def"):
        handlers.add("acme.fee", plain, None)


def test_a_raw_handler_takes_the_model_away_from_its_types_alone() -> None:
    handlers = Handlers()
    handlers.add(BY_TYPE["weavr.fees"].model, handle, None, raw=True)
    handlers.add("acme.fee", handle, Unknown)
    assert handlers.models["weavr.fees"] is None
    assert handlers.models["acme.fee"] is Unknown
    assert handlers.models["weavr.managed_cards.authorisations"] is not None


@pytest.mark.parametrize("rest_first", [True, False])
def test_a_raw_handler_of_the_rest_leaves_typed_handlers_their_models(*, rest_first: bool) -> None:
    handlers = Handlers()
    if rest_first:
        handlers.add_rest(other, raw=True)
    handlers.add("weavr.fees", handle, None)
    if not rest_first:
        handlers.add_rest(other, raw=True)
    assert handlers.models["weavr.fees"] is BY_TYPE["weavr.fees"].model
    assert handlers.models["weavr.managed_cards.authorisations"] is None


def test_a_raw_handler_with_a_model_is_refused() -> None:
    with pytest.raises(ValueError, match="plain JSON"):
        Handlers().add("acme.fee", handle, Unknown, raw=True)
