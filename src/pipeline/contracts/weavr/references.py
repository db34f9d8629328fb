"""Ids that say what they are ids of."""

from __future__ import annotations

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.event import WeavrObject
from pipeline.contracts.weavr.wire import Id


class InstrumentId(WeavrObject):
    """A card or an account."""

    id: Id
    type: known.InstrumentType


class TypedId(WeavrObject):
    """Whatever ``type`` says: an identity (``consumers``, ``corporates``), a transaction."""

    type: str
    id: Id


class CredentialId(WeavrObject):
    """Who logs in: the root user, another user, or an API client."""

    type: known.CredentialType
    id: Id
