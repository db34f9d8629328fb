"""The one list of fields that hold personal data, card data or tokens. Schemas, displays and logs follow it.

Names are those on the wire, and a name decides wherever it occurs: a list of paths would miss the field that a partner
adds tomorrow. Only values are sensitive (text, numbers, lists of them); an object of such a name, for example ``iban``
in the event of that name, has fields of its own that are decided one by one.

In doubt a field is on the list: text that people write (a description, a reference, the name that they give to a card)
may hold anything. Not on it are ids, amounts, states, codes, and what an address shares with millions (``country``,
and ``state``, which mostly names a status).
"""

from __future__ import annotations

from typing import Final

MASK: Final = "[masked]"
UNKNOWN: Final = "[unknown]"
SENSITIVE_MARK: Final = "x-sensitive"
"""Marks, in a JSON schema, what no log may hold."""

_TOKENS: Final = frozenset({"authToken", "input_file_url", "result_upload_url"})
_CARDS: Final = frozenset(
    {"cardNumberFirstSix", "cardNumberLastFour", "expiryMmyy", "nameOnCard", "nameOnCardLine2", "friendlyName"}
)
_PEOPLE: Final = frozenset(
    {"accountName", "beneficiary", "beneficiaryName", "beneficiaryNameAndSurname", "businessName", "corporateName"}
    | {"firstName", "fullName", "lastName", "middleName", "name", "senderName", "surname"}
    | {"beneficiaryDateOfBirth", "beneficiaryNationality", "dateOfBirth", "nationality", "documentNumber"}
    | {"merchantName", "merchantNameOther", "nameOther"}
)
"""With names of shops: beside a card they show where somebody was, and a shop may be a person."""
_CONTACTS: Final = frozenset(
    {"consumerEmail", "corporateEmail", "email", "emailAddress", "rootUserEmail"}
    | {"contactNumber", "contact", "merchantContact", "merchantTelephone", "telephone"}
)
_ADDRESSES: Final = frozenset(
    {"address", "addressLine1", "addressLine2", "bankAddress", "beneficiaryAddress", "beneficiaryBankAddress"}
    | {"registrationAddress", "city", "postCode", "postalCode", "street"}
    | {"merchantCity", "merchantPostalCode", "merchantState", "merchantStreet"}
    | {"deliveryTrackingCode", "deliveryTrackingUrl"}
)
"""With what leads to an address: the tracking of a parcel."""
_ACCOUNTS: Final = frozenset(
    {"account", "accountDescriptor", "accountNumber", "iban", "senderAccountDescriptor", "senderAccountNumber"}
    | {"senderIban", "senderSortCode", "sortCode", "secondaryReference"}
    | {"bankIdentifierCode", "bankName", "beneficiaryBank", "beneficiaryBankName", "financialInstitution"}
    | {"swift"}
)
"""With the bank, which together with a name finds the account."""
_WRITTEN_BY_PEOPLE: Final = frozenset(
    {"cancellationReason", "description", "merchantDescription", "note", "paymentReference", "purpose"}
    | {"reference", "rejectionComment", "senderReference", "value"}
)
"""``value`` is what a sender adds to a bank transfer. A name alone does not distinguish it from a rate's ``value``."""

SENSITIVE: Final = _TOKENS | _CARDS | _PEOPLE | _CONTACTS | _ADDRESSES | _ACCOUNTS | _WRITTEN_BY_PEOPLE
"""All of them, as on the wire."""

_COMMON_WORDS: Final = frozenset(
    {"account", "address", "beneficiary", "city", "contact", "description", "name", "note", "purpose"}
    | {"reference", "street", "value"}
)
SENSITIVE_IN_LOGS: Final = SENSITIVE - _COMMON_WORDS
"""Those that also mask a log field of their name. Words that mean something else in a log (the code of an error, the
name of a source, the address of a broker) do not: no event's field is ever logged by them."""


def is_sensitive(name: str) -> bool:
    """Return whether values of this name, as on the wire, are sensitive."""
    return name in SENSITIVE
