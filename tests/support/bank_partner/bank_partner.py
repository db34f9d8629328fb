"""A second partner that announces jobs, written by the checklist in CONTRIBUTING.md: a bank with numbered orders.

It announces ``{"order": 17, "branch": "north", "rows": 3, "cards": URL, "report": URL, "until": TIME}``. It wants
``{"order": 17, "state": "DONE", "good": 2, "bad": 1, "text": ""}`` at one fixed URL and answers with ``OK 17``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

import aiohttp
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from pipeline.contracts import Topic, TopicName, event_id, job_key
from pipeline.contracts.strict_json import Finding, InvalidBody, parse_object
from pipeline.errors import TransientError
from pipeline.jobs.partners import (
    CONFLICT,
    UNANSWERED,
    Answer,
    Callback,
    JobAnnouncement,
    JobResult,
    Notifications,
    NotifierContext,
)
from pipeline.jobs.wording import quote
from pipeline.outbound import check_url, open_session, request_url
from pipeline.retry import RetryPolicy
from pipeline.webhooks.sources import Identified, Policy, SchemeVerifier, WebhookRequest
from pipeline.webhooks.verification import Secret, SharedSecretSpec, scheme_of


class Order(BaseModel):
    """The bank's announcement."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    order: int = Field(ge=1)
    branch: str
    rows: int = Field(ge=0)
    cards: str = Field(repr=False)
    report: str = Field(repr=False)
    until: AwareDatetime


def job_guid(integration: str, order: int) -> UUID:
    """Return the GUID of a numbered order."""
    return uuid5(NAMESPACE_URL, f"urn:example-bank:{integration}:{order}")


# The source module: what the ingress asks


class NoOptions(BaseModel):
    """``[webhooks.NAME.options]`` holds nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BankSource:
    """Knows the bank's announcements; see pipeline.webhooks.sources.Source."""

    policy = Policy(success=202)

    def __init__(self, name: str) -> None:
        """Take the integration's name."""
        self._name = name

    def identify(self, request: WebhookRequest) -> Identified:
        """See Source."""
        try:
            order = Order.model_validate(parse_object(request.body))
        except ValidationError as error:
            fields = sorted({str(one["loc"][0]) for one in error.errors() if one["loc"]})
            raise InvalidBody([Finding(field, "order", "See the bank's manual") for field in fields]) from None
        job = job_guid(self._name, order.order)
        return Identified(
            topic=Topic.BATCH_REQUESTED,
            key=job_key(self._name, job),
            id=event_id(self._name, str(job), request.body),
            type=Topic.BATCH_REQUESTED.value,
            subject=str(job),
            job_guid=job,
            facts={"record_count": order.rows},
        )

    def quarantine(self, _request: WebhookRequest) -> TopicName:
        """See Source."""
        return Topic.BATCH_QUARANTINE


class BankWebhooks:
    """The entry point of the source."""

    Options = NoOptions

    def source(self, name: str, _options: NoOptions) -> BankSource:
        """See pipeline.webhooks.sources.SourceKind."""
        return BankSource(name)

    def verifier(self, _name: str, _options: NoOptions, secrets: Sequence[Secret]) -> SchemeVerifier:
        """See pipeline.webhooks.sources.SourceKind."""
        return SchemeVerifier(scheme_of(SharedSecretSpec(scheme="shared-secret", header="X-Bank-Key"), secrets))


# The partner's folder: what the stages ask


class BankOptions(BaseModel):
    """``[webhooks.NAME.jobs.options]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    report_url: str = Field(description="Where the bank takes reports; hosts.callback names its host")


class BankNotifier:
    """Sends reports; see pipeline.jobs.partners.Notifier."""

    def __init__(self, context: NotifierContext, session: aiohttp.ClientSession) -> None:
        """Take the surroundings and a guarded session."""
        self._context = context
        self._session = session

    async def notify(self, url: SecretStr, *, job_guid: str, body: bytes, request_id: str) -> Answer:
        """See Notifier."""
        del job_guid  # the body names the order
        check_url(url.get_secret_value(), self._context.hosts, "callback")
        headers = {"Content-Type": "application/json", "Idempotency-Key": request_id}
        try:
            async with self._session.post(
                request_url(url.get_secret_value()), data=body, headers=headers, allow_redirects=False
            ) as response:
                said = (await response.content.read(1024)).decode("utf-8", "replace")
        except (aiohttp.ClientError, TimeoutError):
            raise TransientError(UNANSWERED, "the bank does not answer") from None
        return answer_of(response.status, said, json.loads(body)["order"])


def answer_of(status: int, said: str, order: int) -> Answer:
    """Return what the bank's answer means: the text ``OK`` and the order's number confirm."""
    if status in {429, 503}:
        raise TransientError("callback_try_later", "the bank is busy")
    if status == 200 and said.strip() == f"OK {order}":
        return Answer("accepted", status, "callback_accepted", quote(said))
    return Answer("refused", status, CONFLICT if status == 409 else "callback_refused", quote(said))


class BankPartner:
    """The bank with the options of one integration; see pipeline.jobs.partners.Partner."""

    error_message_limit: Final = 80
    field_names: Final[Mapping[str, str]] = MappingProxyType(
        {"input_file_url": "cards", "result_upload_url": "report", "record_count": "rows", "expires_at": "until"}
    )

    def __init__(self, name: str, options: BankOptions) -> None:
        """Take the integration's name and its options."""
        self._name = name
        self._options = options

    def decode(self, value: bytes) -> JobAnnouncement:
        """See Partner."""
        order = Order.model_validate(parse_object(value))
        return JobAnnouncement(
            job_guid=job_guid(self._name, order.order),
            partner_reference_id=str(order.order),
            merchant_guid=uuid5(NAMESPACE_URL, f"urn:example-bank:branch:{order.branch}"),
            record_count=order.rows,
            input_file_url=order.cards,
            result_upload_url=order.report,
            expires_at=order.until,
            callback_url=self._options.report_url,
        )

    def callback(self, announcement: JobAnnouncement, result: JobResult) -> Callback:
        """See Partner."""
        body = json.dumps(
            {
                "order": int(announcement.partner_reference_id),
                "state": "DONE" if result.error_message is None else "ERROR",
                "good": result.records_processed - result.records_failed,
                "bad": result.records_failed,
                "text": result.error_message or "",
            }
        )
        return Callback(body, hashlib.sha256(body.encode()).hexdigest())

    @asynccontextmanager
    async def open_notifications(self, context: NotifierContext) -> AsyncIterator[Notifications]:
        """See Partner."""
        async with open_session(context.hosts, context.network, "callback") as session:
            yield Notifications(BankNotifier(context, session), RetryPolicy(1, 60))


class Bank:
    """The entry point of the partner."""

    Options = BankOptions

    def partner(self, name: str, options: BankOptions) -> BankPartner:
        """See pipeline.jobs.partners.PartnerKind."""
        return BankPartner(name, options)


class HalfBank:
    """No partner: nothing makes one."""

    Options = BankOptions


class ClosedBank:
    """An invalid partner: it has no ``Options``."""

    partner = BankPartner
