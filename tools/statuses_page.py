"""``docs/statuses.md``: everything that the ingress can answer."""

from __future__ import annotations

from pipeline.webhooks.answers import STATUSES, Status
from tools.markdown import page, table

_INTRO = """\
What a sender of webhooks can get. Refusals are problem documents (RFC 9457, `application/problem+json`): `type` is
`urn:card-pipeline:problem:ROW`, where ROW is the rule of a row below, with dashes instead of underscores; `field`,
`rule` and `remedy` are those of the first finding, and `errors` lists all findings if there are more. A 2xx is never
given for something lost, and a 4xx never for a fault of ours."""


def render() -> str:
    """Return the page."""
    columns = ("Status", "Rule", "Is true then", "Cause", "What to do", "Try again")
    return page("Statuses", _INTRO, table(columns, map(_row, STATUSES)))


def _row(row: Status) -> tuple[str, ...]:
    codes = ", ".join(map(str, row.codes))
    rule = f'<a id="{row.anchor}"></a>`{row.answer}`'
    return codes, rule, row.meaning, row.cause, row.remedy, "yes" if row.retry else "no"
