"""``docs/reference/topics.md``: the table of topics."""

from __future__ import annotations

from pipeline.contracts import TOPICS, TopicSpec
from tools.asyncapi import AUDIT_HEADERS, COPY_HEADERS, HEADERS, OPTIONAL_HEADERS, WEAVR_HEADERS
from tools.contract_table import CONTRACTS
from tools.markdown import duration, page, table

_INTRO = """\
The names are logical: the settings can add a prefix to all topics (`kafka.topic_prefix`) and rename single ones
(`kafka.topics`). `pipeline topics create` creates the topics that the configured sources need, `pipeline topics check`
compares them with the cluster, and `pipeline topics export` prints this table for other tools.
[schemas/asyncapi.json](../../schemas/asyncapi.json) is the machine-readable description."""

_RECORDS = """\
## Records

**Value.** The value of a sender's event is the body exactly as received, byte for byte, so you can verify it again. All
other values are JSON that the pipeline writes. [Events](events/index.md) describes every kind. Values in quarantine and
dead-letter topics are opaque bytes: a body that could not be handled is kept as received.

**Key and order.** Records with equal keys are in one partition, in the order in which their events first arrived. If a
sender repeats an event, the repeat comes after the events in between. Keys begin with the integration:
`acme/card/1234`. If an event is about a person's e-mail address, the key has 16 hex digits of the SHA-256 of the
address. This hides the address from a casual reader only.

**Headers.** The first headers are those of CloudEvents 1.0 in binary mode, in UTF-8. Then come the sender's own
headers, as received."""

_AGAIN = """\
The signature headers of other sources are kept too. A shared secret is never kept.

**To verify an event of Weavr again**, use `pipeline events verify`. It computes the HMAC over the unchanged bytes of
the record: `call-ref` (empty if missing), the value, and `published-timestamp`, without separators. The result in
base64 must equal `signature-v2`. Do not check the age of the timestamp: the event may be in the topic for a long time.

## Table

**Sensitive** topics contain bearer secrets (pre-signed URLs, step-up tokens), or bodies that the pipeline could not
read. Let only few people and services read them. A retention of minutes takes effect in time, because such topics close
their segments early."""

_MADE = """\
There are two more kinds of topics, whose names depend on your configuration:

- `webhook-events.<source>` has the events of a configured source: the body as received, and `ce_type` as configured.
- `<group>.dead-letter` has the records that a subscriber's group could not handle, with unchanged value and headers.
  Additional `dlq_*` headers say where the record comes from and why it is here. Protect this topic like the topics that
  the group reads."""


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
