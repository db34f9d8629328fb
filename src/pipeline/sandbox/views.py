"""Jobs as the control API shows them."""

from __future__ import annotations

from pipeline.sandbox.ecs import Ecs
from pipeline.sandbox.jobs import Announcement, Job
from pipeline.sandbox.jsonapi import iso


def announcement_view(announcement: Announcement, *, with_body: bool = False) -> dict[str, object]:
    """Return one announcement. The body holds bearer URLs: it is shown only where it was asked for."""
    view: dict[str, object] = {
        "expires_at": iso(announcement.expires_at),
        "accepted": announcement.accepted,
        "attempts": [
            {"at": iso(attempt.at), "status": attempt.status, "answer": attempt.answer}
            for attempt in announcement.attempts
        ],
    }
    return view | ({"body": announcement.body.decode()} if with_body else {})


def job_view(ecs: Ecs, job: Job) -> dict[str, object]:
    """Return one job with all that ECS knows of it."""
    traffic = ecs.store.traffic
    callbacks = ecs.desk.of_job(job.guid)
    accepted = [record for record in callbacks if record.reason == "accepted"]
    return {
        "job_guid": str(job.guid),
        "merchant_guid": str(job.merchant_guid),
        "partner_reference_id": job.partner_reference_id,
        "status": ecs.status(job),
        "success": job.success,
        "record_count": job.record_count,
        "created_at": iso(job.created_at),
        "ledger": job.ledger.model_dump(mode="json") if job.ledger else None,
        "announcements": [announcement_view(each) for each in job.announcements],
        "input": _object_view(ecs, job.input_key)
        | {"bytes_sent": traffic.sent[job.input_key], "gets": traffic.round_trips(job.input_key, "GET")},
        "result": _object_view(ecs, job.result_key)
        | {"bytes_received": traffic.received[job.result_key], "puts": traffic.round_trips(job.result_key, "PUT")},
        "callbacks": len(callbacks),
        "callback": accepted[0].view() if accepted else None,
    }


def _object_view(ecs: Ecs, key: str) -> dict[str, object]:
    stored = ecs.store.disk.get(key)
    if stored is None:
        return {"key": key, "path": None, "size": None, "etag": None}
    return {"key": key, "path": str(stored.path.resolve()), "size": stored.size, "etag": stored.etag}
