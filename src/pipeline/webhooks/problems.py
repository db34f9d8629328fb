"""Refusals as RFC 9457 problem documents."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from pipeline.contracts.strict_json import Finding
from pipeline.webhooks.statuses import STATUS, Answer, Status

_CONTENT_TYPE: Final = "application/problem+json"


class Problem(Exception):
    """A request is not accepted: ends its handling; the outermost frame renders it.

    Attributes:
        row: What the sender is told.
        reason: Exact reason for metric and log; from a closed set.
        findings: The broken rules of an authentic body.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        reason: str | None = None,
        detail: str | None = None,
        findings: Sequence[Finding] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take the row of the table, and what is known beyond it.

        Args:
            answer: Names the row.
            reason: Default: the answer itself.
            detail: Text for this occurrence instead of the row's cause; free of what was received.
            findings: For an authentic body that breaks rules.
            headers: E.g. ``Retry-After``.
        """
        super().__init__(answer.value)
        self.row: Final[Status] = STATUS[answer]
        self.reason: Final = reason or answer.value
        self.findings: Final = tuple(findings)
        self.headers: Final = dict(headers or {})
        self._detail: Final = detail or self.row.cause

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.row.codes[0]

    def document(self, trace_id: str | None = None) -> dict[str, Any]:
        """Return the members of the problem document, standard ones first.

        ``field``, ``rule`` and ``remedy`` are those of the first finding; ``errors`` lists all, where there are more.
        """
        members: dict[str, Any] = {
            "type": self.row.problem_type,
            "title": self.row.title,
            "status": self.status,
            "detail": self._detail,
        }
        first, *more = self.findings or [Finding(self.row.field, self.row.answer.value, self.row.remedy)]
        members |= _named(first)
        if more:
            members["errors"] = [_named(finding) for finding in (first, *more)]
        if trace_id:
            members["trace_id"] = trace_id
        return members

    def response(self, trace_id: str | None = None) -> web.Response:
        """Return the answer."""
        return web.Response(
            status=self.status,
            body=json.dumps(self.document(trace_id)).encode(),
            content_type=_CONTENT_TYPE,
            headers=self.headers,
        )


def _named(finding: Finding) -> dict[str, str]:
    members = {"field": finding.field, "rule": finding.rule, "remedy": finding.remedy}
    return {name: text for name, text in members.items() if text}
