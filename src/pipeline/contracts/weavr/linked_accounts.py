"""Events of accounts at other banks."""

from __future__ import annotations

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.bank_accounts import AccountReference
from pipeline.contracts.weavr.event import WeavrEvent, WeavrObject
from pipeline.contracts.weavr.references import TypedId
from pipeline.contracts.weavr.wire import Country, Currency, Id, Instant, Tag


class LinkedAccount(WeavrObject):
    """An account at another bank that belongs to an identity."""

    id: Id
    profile_id: Id
    tag: Tag | None = None
    friendly_name: str | None = None
    name: str
    type: known.AccountType | None = None
    currency: Currency | None = None
    country: Country
    account_reference: AccountReference | None = None
    state: known.LinkedAccountState
    creation_timestamp: Instant | None = None
    owner: TypedId | None = None


class LinkedAccountEvent(WeavrEvent):
    """A linked account was verified, blocked, unblocked, rejected or removed."""

    linked_account: LinkedAccount
    published_timestamp: Instant
    event_type: known.LinkedAccountEventType
