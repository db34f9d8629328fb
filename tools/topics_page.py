"""``docs/topics.md``: the table of topics."""

from __future__ import annotations

from pipeline.contracts import TOPICS, TopicSpec
from tools.markdown import page, table

_INTRO = """\
Names are logical: `kafka.topic_prefix` is put before them, `kafka.topics` renames single ones. `pipeline topics
create` creates them, `pipeline topics check` compares them with the cluster, `pipeline topics export` prints
this table for other tools.

The key is the job (`integration/job_guid`) and for quarantine the integration, so a job's records stay in
order. Records carry CloudEvents 1.0 headers in binary mode (`ce_*`); `ce_id` is deterministic: equal ids are
the same event, and subscribers de-duplicate by it. Values of the stages' topics are described in
[schemas/](../schemas/); those of `card-batch.requested` and `card-batch.quarantine` are the bodies exactly as
received.

**Sensitive** topics hold pre-signed URLs, which are bearer secrets: give few the right to read them."""


def render() -> str:
    """Return the page."""
    columns = ("Topic", "Holds", "Partitions", "Kept", "Sensitive", "Dead letters")
    return page("Topics", _INTRO, table(columns, map(_row, TOPICS)))


def _row(spec: TopicSpec) -> tuple[str, ...]:
    hours = spec.retention_ms // 3_600_000
    kept = f"{hours // 24} days" if hours % 24 == 0 else f"{hours} hours"
    sensitive = "**yes**" if spec.sensitive else "no"
    dead_letter = f"`{spec.dead_letter}`" if spec.dead_letter else "-"
    return f"`{spec.topic}`", spec.about, str(spec.partitions), kept, sensitive, dead_letter
