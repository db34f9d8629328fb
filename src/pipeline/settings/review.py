"""The checks of ``pipeline config check`` that compare settings, read files or construct processors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pipeline.contracts import TOPICS, Topic
from pipeline.contracts.weavr import KINDS
from pipeline.errors import FatalError, PermanentError
from pipeline.jobs.csv_engine.layout import Layout
from pipeline.jobs.part_encryption import no_keys, read_part_key
from pipeline.jobs.processors import LoadedProcessor, OptionsRefused, load, options_of
from pipeline.secret_files import SecretUnreadable
from pipeline.settings.agreement import open_networks
from pipeline.settings.integrations import WeavrIntegration, WebhookIntegration
from pipeline.settings.jobs import JobIntegration, option_refusals
from pipeline.settings.model import Settings
from pipeline.settings.named_files import FileFindings, NamedFile, check_file, named_files
from pipeline.settings.refusals import explained
from pipeline.webhooks.sources.settings import WEAVR_RETRIES_SECONDS, HmacOptions
from pipeline.webhooks.verification import PublicKeySettings, SecretSettings, is_active

_DAY_MS: Final = 86_400_000
_PROVES_LITTLE = "the signature does not cover the body, so anybody who sees one request can send any other body"


@dataclass(frozen=True, slots=True)
class Review:
    """Findings, one line each.

    Attributes:
        problems: Faults that you must fix.
        warnings: Doubtful settings that may be intended.
        unchecked: Keys of the files that an offline review did not read.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    unchecked: tuple[str, ...] = ()


def review(settings: Settings, *, now: datetime | None = None, offline: bool = False) -> Review:
    """Compare retention times and limits, construct every processor, read files, and check that keys are active.

    Args:
        settings: As loaded.
        now: The time at which keys and certificates must be valid (aware); default: the current time.
        offline: Whether to skip all files, for a machine that does not have them.
    """
    now = now or datetime.now(UTC)
    problems = list(_retention_problems(settings))
    problems += _wait_problems(settings)
    problems += _part_problems(settings)
    warnings = list(_readable_credentials(settings))
    warnings += _everybodys_proxies(settings)
    files = list(named_files(settings))
    if settings.kafka is None:
        warnings.append("kafka: is missing; only `pipeline dev` and `pipeline cards run` work without it")
    if not settings.ecs and not settings.weavr and not settings.webhooks:
        warnings.append("ecs: no integration is configured; run: pipeline integration new ecs NAME")
    for integration in settings.job_integrations().values():
        loaded = _processor(integration, settings)
        if isinstance(loaded, list):
            problems += loaded
        else:
            problems += _columns(integration, loaded)
            files += named_files(options_of(integration.processor), f"{integration.key}.processor.options")
        warnings += _hosts(integration)
    files += _files_of_plugins(settings)
    warnings += _source_warnings(settings, now)
    warnings += _part_warnings(settings)
    warnings += _mismatched(settings)
    found = FileFindings()
    for file in () if offline else files:
        check_file(file, now, found)
    unread = tuple(file.key for file in files if file.content != "secret") if offline else ()
    return Review((*problems, *found.problems), (*warnings, *found.warnings), unread)


def _readable_credentials(settings: Settings) -> Iterator[str]:
    """Yield one line if the Kafka credentials cross the network unencrypted."""
    kafka = settings.kafka
    if kafka is None or kafka.sasl is None or "SSL" in kafka.protocol:
        return
    sent = {"PLAIN": "the password", "OAUTHBEARER": "the token"}.get(kafka.sasl.mechanism)
    if sent is not None:
        yield (
            f"kafka.sasl.mechanism: {kafka.sasl.mechanism} without TLS sends {sent} in clear text; add a table "
            "[kafka.tls], or use it on one machine only"
        )


def _everybodys_proxies(settings: Settings) -> Iterator[str]:
    """Yield one line if anybody can forge the client's address."""
    for network in open_networks(settings.ingress.trusted_proxies):
        yield (
            f"ingress.trusted_proxies: {network} trusts X-Forwarded-For from everybody, so addresses in logs and audit "
            "events prove nothing; write the networks of your proxies"
        )


def _processor(integration: JobIntegration, settings: Settings) -> LoadedProcessor | list[str]:
    """Return the processor, or the reasons why it cannot be constructed, one line each."""
    key = f"{integration.key}.processor"
    try:
        return load(integration.processor, settings.network)
    except OptionsRefused as error:
        return list(option_refusals(error.error, error.model, f"{key}.options"))
    except FatalError as error:
        return [f"{key}: {error.message}"]


def _columns(integration: JobIntegration, processor: LoadedProcessor) -> Iterator[str]:
    """Yield one line for each pair of result columns with the same name."""
    csv = integration.csv
    try:
        Layout.of(b"", csv, result_columns=processor.result_columns)
    except PermanentError as error:
        yield f"{integration.key}.csv: {error.message}"
    for key in ("status_column", "message_column") if csv.header else ():
        if getattr(csv, key) == csv.card_column:
            yield f"{integration.key}.csv.{key}: {csv.card_column!r} is the card_column of the input; write another"


def _files_of_plugins(settings: Settings) -> Iterator[NamedFile]:
    for name, source in settings.webhooks.items():
        yield from named_files(source.kind_with_options()[1], f"webhooks.{name}.options")
        if source.jobs is not None:
            yield from named_files(source.jobs.kind_with_options(name)[1], f"webhooks.{name}.jobs.options")


def part_key_problems(settings: Settings) -> Iterator[str]:
    """Yield one line for each file without a valid key of parts. Only PROCESS and UPLOAD need these files."""
    for index, key in enumerate(settings.parts.keys):
        try:
            read_part_key(key)
        except SecretUnreadable as error:
            yield f"parts.keys.{index}.file: {explained(key.file, error)}"


def _part_problems(settings: Settings) -> Iterator[str]:
    if settings.job_names and not settings.parts.keys and settings.parts.encryption != "off":
        yield no_keys().message


def _part_warnings(settings: Settings) -> Iterator[str]:
    if settings.job_names and settings.parts.encryption == "off":
        yield (
            'parts.encryption: is "off", so the store holds unencrypted card numbers in the parts of a job until it is '
            "confirmed; set parts.keys and remove parts.encryption, unless the store's own encryption is enough for you"
        )


def _hosts(integration: JobIntegration) -> Iterator[str]:
    for purpose in ("input", "result", "callback"):
        if not getattr(integration.hosts, purpose):
            yield (
                f"{integration.key}.hosts.{purpose}: is empty, so every announcement is refused; "
                f'write e.g. {purpose} = ["files.example.com"]'
            )


def _mismatched(settings: Settings) -> Iterator[str]:
    """Yield one line for each limit that a setting of another table makes useless."""
    ingress, interval = settings.ingress, settings.watch.interval_seconds
    if settings.kafka is not None and ingress.max_body_bytes >= settings.kafka.max_record_bytes:
        yield (
            f"ingress.max_body_bytes: {ingress.max_body_bytes} is not less than kafka.max_record_bytes "
            f"({settings.kafka.max_record_bytes}), so the ingress reads bodies that no record can hold"
        )
    for integration in settings.job_integrations().values():
        margin = integration.limits.deadline_margin_seconds
        if interval >= margin:
            yield (
                f"{integration.key}.limits.deadline_margin_seconds: {margin:g} is not longer than "
                f"watch.interval_seconds ({interval:g}), so a failure callback may come after the URLs expired"
            )


def _retention_problems(settings: Settings) -> Iterator[str]:
    """Yield a problem for each setting that forgets finished work while a repeat of it can still arrive."""
    kept = {spec.topic: spec.retention_ms / _DAY_MS for spec in TOPICS if spec.dead_letter is not None}
    receipts, window = settings.retention.receipts_days, settings.audit.id_window_days
    for topic, days in kept.items():
        if receipts <= days:
            yield (
                f"retention.receipts_days: {receipts} days is not longer than the {days:g} days that "
                f"{topic} keeps a record, so a job could run twice; write e.g. receipts_days = {int(days) + 1}"
            )
    audited = [spec.retention_ms / _DAY_MS for spec in settings.topics if spec.topic in settings.audited_topics]
    again = max([kept.pop(Topic.AUDIT_EVENTS) + max(kept.values()), *audited])
    if window < again:
        yield (
            f"audit.id_window_days: {window:g} days is shorter than the {again:g} days within which an "
            f"audit event may be repeated, so the log could hold it twice; write e.g. id_window_days = {again:g}"
        )


def _wait_problems(settings: Settings) -> Iterator[str]:
    """Yield one line for each integration whose jobs may last longer than the store keeps their receipts."""
    redelivery = max(spec.retention_ms for spec in TOPICS if spec.dead_letter is Topic.BATCH_DEAD_LETTER) / _DAY_MS
    kept = settings.retention.receipts_days
    for integration in settings.job_integrations().values():
        callback = integration.policies.callback_retry_seconds / 86_400
        needed = integration.limits.max_expiry_days + callback + redelivery
        if needed >= kept:
            yield (
                f"{integration.key}.policies.callback_retry_seconds: a job's last callback may come "
                f"{integration.limits.max_expiry_days:g} days (limits.max_expiry_days) and {callback:g} days after its "
                f"announcement, and its record again for {redelivery:g} days, but the store keeps receipts for {kept} "
                f"days only; lower one of the two, or write e.g. retention.receipts_days = {int(needed) + 1}"
            )


def _source_warnings(settings: Settings, now: datetime) -> Iterator[str]:
    """Yield one line for each setting of a source that may lose events or protects too little; ``now`` is aware."""
    for table, keys in _keys(settings):
        if not any(is_active(key, now) for key in keys):
            yield (
                f"{table}: no secret is active now, so the ingress answers every webhook with 503; add an active one, "
                "or fix not_before and not_after"
            )
    for name, integration in settings.weavr.items():
        for warning in _weavr(integration):
            yield f"weavr.{name}.{warning}"
    for name, source in settings.webhooks.items():
        for warning in _configured(source):
            yield f"webhooks.{name}.{warning}"


def _weavr(integration: WeavrIntegration) -> Iterator[str]:
    if integration.tolerance_seconds < WEAVR_RETRIES_SECONDS:
        yield (
            f"tolerance_seconds: {integration.tolerance_seconds:g} is shorter than Weavr's retries "
            f"({WEAVR_RETRIES_SECONDS} s), which may repeat the first timestamp, so delayed events are lost; write "
            "e.g. tolerance_seconds = 18000"
        )
    if integration.legacy_signature:
        yield f"legacy_signature: {_PROVES_LITTLE}; set it to false as soon as Weavr sends signature-v2"
    if integration.unverified_status != 503:  # noqa: PLR2004 - the status
        yield (
            f"unverified_status: Weavr never retries after {integration.unverified_status}, so every event is lost "
            "from the moment that its signing key changes until you notice; write unverified_status = 503"
        )
    if integration.missing_call_ref == "refuse":
        yield "missing_call_ref: Weavr may leave out call-ref; this setting then refuses the event, which is lost"
    for one in integration.unsigned_paths:
        if not one.require_path_secret and any(network.prefixlen == 0 for network in one.source_addresses):
            yield f"unsigned_paths: {one.path} is open to every address, so anybody can send events; write Weavr's"
    named = {one.path for one in integration.unsigned_paths}
    for path in (kind.path for kind in KINDS if not kind.signed and kind.path not in named):
        yield (
            f"unsigned_paths: lacks {path}, which Weavr does not sign: the ingress answers its events with 503, "
            "and they are lost after 4 h; list it with its protection, or do not subscribe to it at Weavr"
        )


def _keys(settings: Settings) -> Iterator[tuple[str, tuple[SecretSettings | PublicKeySettings, ...]]]:
    for name, ecs in settings.ecs.items():
        yield f"ecs.{name}.webhook.secrets", (*ecs.webhook.secrets, *getattr(ecs.webhook, "public_keys", ()))
    for name, weavr in settings.weavr.items():
        yield f"weavr.{name}.secrets", weavr.secrets
    for name, source in settings.webhooks.items():
        public = getattr(source.kind_with_options()[1], "public_keys", ())
        yield (
            f"webhooks.{name}.secrets",
            (*source.secrets, *(one for one in public if isinstance(one, PublicKeySettings))),
        )


def _configured(source: WebhookIntegration) -> Iterator[str]:
    options = source.kind_with_options()[1]
    if isinstance(options, HmacOptions) and options.body_unsigned:
        yield f"options.body_unsigned: {_PROVES_LITTLE}"
