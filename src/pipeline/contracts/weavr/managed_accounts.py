"""Events of accounts at Weavr."""

from __future__ import annotations

from pydantic import StrictBool

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.event import WeavrEvent, WeavrObject
from pipeline.contracts.weavr.money import Money
from pipeline.contracts.weavr.references import InstrumentId, TypedId
from pipeline.contracts.weavr.wire import Amount, Currency, Id, Instant, Integer, Tag


class AccountBalances(WeavrObject):
    """Balances of an account, in its currency."""

    available_balance: Amount | None = None
    actual_balance: Amount | None = None


class ManagedAccountState(WeavrObject):
    """The state of an account, with the reason why it is blocked or destroyed."""

    block_types: dict[str, Integer] | None = None
    destroy_type: str | None = None


class BankAccountDetails(WeavrObject):
    """The bank details for payments into an account."""

    beneficiary: str | None = None
    address: str | None = None
    beneficiary_bank: str | None = None
    bank_identifier_code: str | None = None
    iban: str | None = None
    account_number: str | None = None
    sort_code: str | None = None
    payment_reference: str | None = None


class ManagedAccount(WeavrObject):
    """An account at Weavr."""

    id: InstrumentId
    profile_id: Id
    tag: Tag | None = None
    owner: TypedId
    friendly_name: str
    active: StrictBool | None = None
    currency: Currency
    balances: AccountBalances | None = None
    state: ManagedAccountState | None = None
    creation_timestamp: Instant
    bank_account_details: BankAccountDetails | None = None


class ManagedAccountEvent(WeavrEvent):
    """An account was created, updated, requested, rejected, blocked, unblocked or destroyed."""

    account: ManagedAccount
    published_timestamp: Instant
    type: known.ManagedAccountEventType


class ManagedAccountsDepositEvent(WeavrEvent):
    """An account received a bank transfer."""

    id: InstrumentId
    transaction_id: Id
    transaction_amount: Money
    transaction_timestamp: Instant
    payment_network: known.TransferType | None = None
    email_address: str | None = None
    owner: TypedId
    sender_name: str | None = None
    state: known.ManagedAccountsIwtEventIwtState | None = None
    sender_iban: str | None = None
    sender_sort_code: str | None = None
    sender_account_number: str | None = None
    sender_account_descriptor: str | None = None
    transaction_fee: Money | None = None
    sender_reference: str | None = None


class ManagedAccountLowBalanceEvent(WeavrEvent):
    """An account's balance fell below the agreed limit."""

    id: InstrumentId
    currency: Currency
    available_balance: Amount
    published_timestamp: Instant


class ManualTransactionEvent(WeavrEvent):
    """Weavr changed the balance of a card or an account by hand."""

    transaction_id: Id
    target_instrument: InstrumentId
    available_balance_adjustment: Amount | None = None
    actual_balance_adjustment: Amount | None = None
    transaction_timestamp: Instant
    owner: TypedId | None = None
