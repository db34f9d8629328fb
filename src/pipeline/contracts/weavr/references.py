"""Ids with their type."""

from __future__ import annotations

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.event import WeavrObject
from pipeline.contracts.weavr.wire import Id


class InstrumentId(WeavrObject):
    """The id of a card or an account."""

    id: Id
    type: known.InstrumentType


class TypedId(WeavrObject):
    """The id of an object whose kind ``type`` names: an identity (``consumers``, ``corporates``) or a transaction."""

    type: str
    id: Id


class CredentialId(WeavrObject):
    """The id of a credential: of the root user, another user, or an API client."""

    type: known.CredentialType
    id: Id
