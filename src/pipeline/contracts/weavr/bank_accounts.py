"""References to bank accounts, and the bank's check of the payee."""

from __future__ import annotations

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.event import WeavrObject
from pipeline.contracts.weavr.wire import AccountNumber, Bic, Iban, SortCode


class AccountReference(WeavrObject):
    """A reference to a bank account: number and sort code, IBAN, or a descriptor."""

    account_number: AccountNumber | None = None
    sort_code: SortCode | None = None
    secondary_reference: str | None = None
    iban: Iban | None = None
    bank_identifier_code: Bic | None = None
    account_descriptor: str | None = None


class IbanDetails(WeavrObject):
    """A bank account by its IBAN."""

    iban: Iban
    bank_identifier_code: Bic | None = None


class FasterPaymentsDetails(WeavrObject):
    """A British bank account."""

    account_number: AccountNumber
    sort_code: SortCode
    secondary_reference: str | None = None


class PayeeCheck(WeavrObject):
    """The answer of the payee's bank about the payee's name."""

    match: known.PayeeMatch | None = None
    reason_code: known.PayeeCheckReason | None = None
    account_name: str | None = None


class PayeeValidation(WeavrObject):
    """One check of the payee before a payment."""

    category: known.PayeeCheckCategory
    category_result: PayeeCheck
