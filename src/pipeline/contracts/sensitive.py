"""The only list of fields with personal data, card data or tokens. Schemas, displays and logs use it.

The list has names as on the wire. A listed name is sensitive wherever it occurs: a list of paths would miss the field
that a partner adds tomorrow. Only values are sensitive (text, numbers, lists of them). An object with a listed name,
for example ``iban`` in the event of that name, has fields of its own, and the list decides about each of them.

If in doubt, a field is on the list: text that people write (a description, a reference, the name of a card) may hold
anything. Ids, amounts, states and codes are not on it, nor are the parts of an address that millions share
(``country``, and ``state``, which mostly means a status).
"""

from __future__ import annotations

from typing import Final

MASK: Final = "[masked]"
UNKNOWN: Final = "[unknown]"
SENSITIVE_MARK: Final = "x-sensitive"
"""Marks fields in a JSON schema that no log may hold."""

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
"""Includes names of shops: together with a card, they show where somebody was, and a shop may be a person."""
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
"""Includes the tracking of a parcel, which leads to an address."""
_ACCOUNTS: Final = frozenset(
    {"account", "accountDescriptor", "accountNumber", "iban", "senderAccountDescriptor", "senderAccountNumber"}
    | {"senderIban", "senderSortCode", "sortCode", "secondaryReference"}
    | {"bankIdentifierCode", "bankName", "beneficiaryBank", "beneficiaryBankName", "financialInstitution"}
    | {"swift"}
)
"""Includes the bank, which together with a name identifies the account."""
_WRITTEN_BY_PEOPLE: Final = frozenset(
    {"cancellationReason", "description", "merchantDescription", "note", "paymentReference", "purpose"}
    | {"reference", "rejectionComment", "senderReference", "value"}
)
"""``value`` may be text that a sender adds to a bank transfer. By name, it looks the same as a rate's ``value``."""

SENSITIVE: Final = _TOKENS | _CARDS | _PEOPLE | _CONTACTS | _ADDRESSES | _ACCOUNTS | _WRITTEN_BY_PEOPLE
"""All sensitive names, as on the wire."""

_COMMON_WORDS: Final = frozenset(
    {"account", "address", "beneficiary", "city", "contact", "description", "name", "note", "purpose"}
    | {"reference", "street", "value"}
)
SENSITIVE_IN_LOGS: Final = SENSITIVE - _COMMON_WORDS
"""Sensitive names that also mask a log field of that name. Words with another meaning in a log (the code of an error,
the name of a source, the address of a broker) do not mask: no log line uses them for a field of an event."""


def is_sensitive(name: str) -> bool:
    """Return whether values of this name, as on the wire, are sensitive."""
    return name in SENSITIVE
