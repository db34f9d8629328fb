"""What names a bank account, and what its bank says about it."""

from __future__ import annotations

from pipeline.contracts.weavr import known_values as known
from pipeline.contracts.weavr.event import WeavrObject
from pipeline.contracts.weavr.wire import AccountNumber, Bic, Iban, SortCode


class AccountReference(WeavrObject):
    """What names a bank account: number and sort code, or IBAN, or a descriptor."""

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
    """What the payee's bank said about the name."""

    match: known.PayeeMatch | None = None
    reason_code: known.PayeeCheckReason | None = None
    account_name: str | None = None


class PayeeValidation(WeavrObject):
    """One check of the payee before money goes."""

    category: known.PayeeCheckCategory
    category_result: PayeeCheck
