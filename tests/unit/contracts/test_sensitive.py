"""Every field of every event is decided: sensitive, or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from pipeline.contracts import BatchRequested
from pipeline.contracts.sensitive import SENSITIVE, SENSITIVE_IN_LOGS, is_sensitive
from pipeline.contracts.weavr import BY_PATH, WeavrObject
from pipeline.sandbox.weavr.facts import Field, weavr_kinds


def leaves(field: Field) -> Iterator[Field]:
    """Every field below one that has no fields of its own."""
    for one in (*field.fields, *field.alternatives, *((field.item,) if field.item else ())):
        if one.kind in ("object", "array", "map"):
            yield from leaves(one)
        else:
            yield one


PATHS: Final = sorted(BY_PATH)
NAMES: Final = {field.name for kind in weavr_kinds().values() for field in leaves(kind.body)}
HARMLESS: Final = frozenset(
    """
    actionDoneBy activate active actualBalance actualBalanceAdjustment adjustmentType amount approved authCode
    authForwardingDecisionOutcome authForwardingInnovatorTimedOut authForwardingTriggered authRuleFailedReason
    authSessionId authorisationCategory authorisationType availableAdjustment availableAmount availableBalance
    availableBalanceAdjustment availableRemaining availableSync bankCountry beneficiaryAccountType
    beneficiaryBankCountry beneficiaryId blockSubType blockType blockTypes blockedReason bulkDelivery bulkId
    cardBrand cardPresent cardType cardholderPresent carrierType category categoryCode challengeExemptionReason
    challengeId channelProvider compensatedRateId compensatedTimestamp completedTimestamp conflict consumerId
    corporateId count country create creationTimestamp currency decisionOutcome declineReason deliveryMethod
    deliveryTrackingMethod deltaAdjustment deltaBalance denialReason destroyType destroyedReason details
    digitalWalletType documentExpiryDate documentType event eventDetails eventTimestamp eventType executedTimestamp
    executionTimestamp externalRefs feeRemaining feeSpecificType feeSubType feeType fiProvider forceBalance
    forceState group id identityRestrictionDate incomingWireTransferProfileId innovatorTimedOut interval kybStatus
    kycLevel lastUpdatedTimestamp limitAdjustment limitBalance linkedUserId logoUrl managedAccountId
    manufacturingState match merchantCategoryCode merchantCountry merchantCountryCode merchantId merchantNetworkId
    merchantURL mode networkId ongoingKybStatus ongoingKycLevel ongoingStatus operation parentManagedAccountId
    paymentNetwork pendingActivation pendingAdjustment pendingBalance pendingRemaining pinBlocked processedTimestamp
    productReference profileId provider publishedTimestamp rateId reasonCode registrationCountry related
    relatedAuthorisationId relatedAuthorisationIds relatedBatchId relatedCardPaymentId relatedSettlementId
    relatedSettlementIds renewalTimestamp renewalType replacementId replacementReason replacementTimestamp
    replacementType reservedAdjustment reservedBalance reservedRemaining result reversal scale scheduledTimestamp
    settlementState settlementType sourceAmount sourceCurrency sourceSystem sourceSystemCompensation state status
    submittedItemsCount subtype suspendedReason system tag targetAmount targetCurrency timestamp transactionId
    transactionTimestamp transactionType treasuryPending triggered trustLevel type unblockSubType unblockType
    upgrade upgradedTimestamp url userExchangeRate userId validationFailure
    """.split()  # noqa: SIM905 - prose of names reads better than 170 lines
)
"""Decided not to be sensitive, for the reasons that the list gives; a new field is decided here or there."""


def test_every_field_is_decided() -> None:
    assert {name for name in NAMES if not is_sensitive(name)} == HARMLESS


def test_nothing_is_on_the_list_that_no_event_has() -> None:
    """The only exception are the links of card batch jobs, because a link gives access to the file."""
    links = {"input_file_url", "result_upload_url"}
    assert links == SENSITIVE - NAMES
    assert links < set(BatchRequested.model_fields)


@pytest.mark.parametrize(
    "name",
    [
        *("authToken", "cardNumberFirstSix", "cardNumberLastFour", "expiryMmyy", "nameOnCard", "nameOnCardLine2"),
        *("emailAddress", "corporateEmail", "consumerEmail", "rootUserEmail", "email", "contactNumber", "telephone"),
        *("address", "addressLine1", "city", "postCode", "street", "iban", "senderIban", "accountNumber", "sortCode"),
        *("name", "surname", "firstName", "fullName", "senderName", "dateOfBirth", "beneficiaryDateOfBirth"),
        *("account", "documentNumber", "accountDescriptor"),
    ],
)
def test_what_must_be_on_the_list(name: str) -> None:
    assert is_sensitive(name)


def test_logs_follow_the_same_list() -> None:
    assert SENSITIVE_IN_LOGS < SENSITIVE


@pytest.mark.parametrize("path", PATHS)
def test_schemas_mark_what_is_on_the_list(path: str) -> None:
    """Values alone, however deep they are: an object of such a name has fields of its own."""
    schema = BY_PATH[path].model.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        for name, field in part["properties"].items():
            marked = field.get("x-sensitive", False)
            assert marked == (is_sensitive(name) and not holds_objects(field)), name


def holds_objects(field: dict[str, Any]) -> bool:
    branches = [field, *field.get("anyOf", ())]
    return any("$ref" in branch or holds_objects(branch.get("items", {})) for branch in branches if branch)


def test_lists_of_values_are_marked_and_lists_of_objects_are_not() -> None:
    class Inner(WeavrObject):
        iban: str

    class Outer(WeavrObject):
        email: tuple[str, ...] | None = None
        account: tuple[Inner, ...] | None = None
        beneficiary: Inner | None = None

    fields = Outer.model_json_schema()["properties"]
    assert [name for name, field in fields.items() if field.get("x-sensitive")] == ["email"]
