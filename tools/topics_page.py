"""``docs/reference/topics.md``: the table of topics."""

from __future__ import annotations

from pipeline.contracts import TOPICS, TopicSpec
from tools.asyncapi import AUDIT_HEADERS, COPY_HEADERS, HEADERS, OPTIONAL_HEADERS, WEAVR_HEADERS
from tools.contract_table import CONTRACTS
from tools.markdown import duration, page, table

_INTRO = """\
Names are logical: `kafka.topic_prefix` is put before them, `kafka.topics` renames single ones. `pipeline topics
create` creates those that the configured sources need, `pipeline topics check` compares them with the cluster,
`pipeline topics export` prints this table for other tools;
[schemas/asyncapi.json](../../schemas/asyncapi.json) describes them for programs."""

_RECORDS = """\
## Records

**Value.** Of a sender's event, the body exactly as received, byte for byte: it can be verified again. Of everything
else, JSON that the pipeline writes. Both are described kind by kind in [events](events/index.md). Values of quarantines
and dead-letter topics are opaque bytes: what did not fit is kept as it came.

**Key and order.** Equal keys stay in one partition, in the order of first occurrences: what a sender repeats comes
again after what came in between. Keys begin with the integration: `acme/card/1234`. Where the thing is a person's
e-mail address, the key holds 16 hex digits of its SHA-256, which hides it from a glance and no more.

**Headers.** CloudEvents 1.0 in binary mode, UTF-8; then the sender's own, as received."""

_AGAIN = """\
Signature headers of other sources are kept likewise; a shared secret never is.

**To verify an event of Weavr's again**, compute the HMAC over the record's bytes, unchanged: `call-ref`
(nothing where it is missing), value, `published-timestamp`, without anything between them; its base64 text is
`signature-v2`. `pipeline events verify` does that. How old the timestamp is says nothing by then.

## Table

**Sensitive** topics hold bearer secrets (pre-signed URLs, step-up tokens) or bodies that nobody could read: give few
the right to read them. A retention of minutes holds because segments are closed early."""

_MADE = """\
Configuration makes two more kinds: `webhook-events.<source>`, the events of a configured source (body as received,
`ce_type` as configured), and `<group>.dead-letter`, what a subscriber's group gave up: value and headers unchanged,
with `dlq_*` headers that say where from and why. Guard the second like the topics that its group reads."""


def render() -> str:
    """Return the page."""
    columns = ("Topic", "Holds", "Key", "Partitions", "Kept", "Sensitive", "Dead letters", "Value")
    topics = table(columns, map(_row, TOPICS))
    return page("Topics", _INTRO, _RECORDS, _headers(), _AGAIN, topics, _MADE)


def _headers() -> str:
    groups = {
        "all": HEADERS,
        "most": OPTIONAL_HEADERS,
        "audited webhooks": AUDIT_HEADERS,
        "Weavr's": WEAVR_HEADERS,
        "copies for one group": COPY_HEADERS,
    }
    rows = ((f"`{name}`", of, about) for of, group in groups.items() for name, about in group.items())
    return table(("Header", "Of records", "Holds"), rows)


def _row(spec: TopicSpec) -> tuple[str, ...]:
    sensitive = "**yes**" if spec.sensitive else "no"
    dead_letter = f"`{spec.dead_letter}`" if spec.dead_letter else "-"
    kept = duration(spec.retention_ms)
    return f"`{spec.topic}`", spec.about, spec.key, str(spec.partitions), kept, sensitive, dead_letter, _value(spec)


def _value(spec: TopicSpec) -> str:
    carried = [contract for contract in CONTRACTS if contract.topic == spec.topic]
    links = (f"[{one.name.removeprefix('weavr.')}](../../schemas/{one.schema})" for one in carried)
    return ", ".join(links) or "bytes"
