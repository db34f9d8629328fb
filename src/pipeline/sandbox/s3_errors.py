"""The errors of S3, as the XML that it answers with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from xml.sax.saxutils import escape

from aiohttp import web

MESSAGES: Final[Mapping[int, tuple[str, str]]] = {
    400: ("BadRequest", "An error occurred when parsing the HTTP request."),
    403: ("AccessDenied", "Access Denied"),
    404: ("NoSuchKey", "The specified key does not exist."),
    409: ("OperationAborted", "A conflicting conditional operation is currently in progress against this resource."),
    412: ("PreconditionFailed", "At least one of the pre-conditions you specified did not hold"),
    416: ("InvalidRange", "The requested range is not satisfiable"),
    429: ("SlowDown", "Please reduce your request rate."),
    500: ("InternalError", "We encountered an internal error. Please try again."),
    503: ("SlowDown", "Please reduce your request rate."),
}
"""The usual code and message of a status."""


class S3Error(Exception):
    """One refusal.

    Attributes:
        status: HTTP status.
        code: What clients must match on, e.g. ``AccessDenied``.
        fields: Further elements, in order.
        headers: Further answer headers, e.g. ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep what the answer is made of."""
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.message = message
        self.fields = dict(fields or {})
        self.headers = dict(headers or {})

    def response(self, request_id: str, *, head: bool = False) -> web.Response:
        """Return the answer; one to HEAD has no body, so a client sees the status alone."""
        elements = {"Code": self.code, "Message": self.message, **self.fields, "RequestId": request_id}
        inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in elements.items())
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'
        return web.Response(
            status=self.status,
            body=b"" if head else body.encode(),
            headers={"x-amz-request-id": request_id, "Content-Type": "application/xml", **self.headers},
        )


def access_denied(message: str, **fields: str) -> S3Error:
    """Return a 403 AccessDenied, S3's word for very different things: message and fields tell them apart."""
    return S3Error(403, "AccessDenied", message, fields)


def malformed_query(message: str) -> S3Error:
    """Return the 400 for authentication parameters that are missing or make no sense."""
    return S3Error(400, "AuthorizationQueryParametersError", message)
