"""Compare the results with the input. It reads only files and ECS's records, and uses none of the pipeline's code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from pipeline.sandbox.callbacks import CallbackRecord
from pipeline.sandbox.demo.plan import DemoJob
from pipeline.sandbox.jobs import Job
from pipeline.sandbox.server import Sandbox
from pipeline.sandbox.verify import expected_counts, verify_result


def check_job(
    sandbox: Sandbox, plan: DemoJob, job: Job, *, expected: tuple[int, int], steps: Sequence[str]
) -> list[str]:
    """Return all differences from the expected result, one sentence each. It blocks, so call it in a thread.

    Args:
        sandbox: The sandbox of the job.
        plan: The expected result.
        job: The job.
        expected: How many cards must be ok and how many failed, from :func:`counts`.
        steps: The job's steps in the audit log.
    """
    callbacks = sandbox.ecs.desk.of_job(job.guid)
    return [
        f"{plan.title}: {finding}"
        for part in (
            _callback_findings(plan, expected, callbacks),
            _result_findings(sandbox, plan, job),
            _card_api_findings(sandbox, plan, expected),
            _audit_findings(plan, steps),
            _traffic_findings(sandbox, job),
        )
        for finding in part
    ]


def counts(plan: DemoJob, job: Job) -> tuple[int, int]:
    """Return how many cards must be ok and how many failed."""
    if not plan.success or job.ledger is None:
        return 0, 0
    return expected_counts(job.ledger, plan.rules)


def _callback_findings(plan: DemoJob, expected: tuple[int, int], callbacks: Sequence[CallbackRecord]) -> Iterator[str]:
    accepted = [record for record in callbacks if record.reason == "accepted" and not record.replayed]
    if len(accepted) != 1:
        reasons = ", ".join(f"{record.decided} {record.reason}" for record in callbacks) or "none came"
        yield f"ECS accepted {len(accepted)} callbacks instead of 1 ({reasons})"
        return
    if len({(record.body, record.request_id) for record in callbacks}) > 1:
        yield "its callbacks differ in body or X-Request-Id"
    sent = json.loads(accepted[0].body)
    if accepted[0].unknown:
        yield f"its callback has fields that ECS does not know: {', '.join(accepted[0].unknown)}"
    if plan.success:
        ok, failed = expected
        wanted = {"success": True, "records_processed": ok + failed, "records_failed": failed, "error_message": None}
        if sent != wanted:
            yield f"the callback says {json.dumps(sent)}, not {json.dumps(wanted)}"
    elif sent["success"] is not False or sent["records_processed"] != 0:
        yield f"the callback says {json.dumps(sent)}, not a failure without a processed record"
    elif plan.reason.lower() not in str(sent["error_message"]).lower():
        yield f"the failure message does not name {plan.reason}: {sent['error_message']!r}"


def _result_findings(sandbox: Sandbox, plan: DemoJob, job: Job) -> Iterator[str]:
    stored = sandbox.store.disk.get(job.result_key)
    if not plan.success:
        if stored is not None:
            yield f"a result of {stored.size} bytes was uploaded for a job that failed"
        return
    if stored is None or job.ledger is None:
        yield "no result was uploaded"
        return
    yield from map(str, verify_result(stored.path, job.ledger, plan.rules))


def _card_api_findings(sandbox: Sandbox, plan: DemoJob, expected: tuple[int, int]) -> Iterator[str]:
    if plan.processor != "http":
        return
    ok, failed = expected
    found = sandbox.card_api.view()
    wanted: Mapping[str, int] = {"loaded": ok, "declined": failed, "repeats": 0, "without_key": 0, "unauthorized": 0}
    for name, number in wanted.items():
        if found[name] != number:
            yield f"the card API counts {found[name]} {name}, not {number}"


def _audit_findings(plan: DemoJob, steps: Sequence[str]) -> Iterator[str]:
    missing, surplus = Counter(plan.steps) - Counter(steps), Counter(steps) - Counter(plan.steps)
    if missing:
        yield f"the audit log lacks {', '.join(missing.elements())}"
    if surplus:
        yield f"the audit log has too many {', '.join(surplus.elements())}"


def _traffic_findings(sandbox: Sandbox, job: Job) -> Iterator[str]:
    traffic = sandbox.store.traffic
    for key in (job.input_key, job.result_key):
        if traffic.rewritten[key]:
            yield f"a pre-signed URL of {key.rpartition('/')[2]} was sent with another encoding than it was given"
    gets = traffic.round_trips(job.input_key)
    if gets != 1:
        yield f"the input was asked for {gets} times instead of once"
