"""The server that receives webhooks."""

from pipeline.ingress.handler import Ingress
from pipeline.ingress.quarantine import Quarantined, Release, findings_now, read_quarantined, release, shown
from pipeline.ingress.refusals import RefusalCounts
from pipeline.ingress.server import IngressServer
from pipeline.ingress.settings import IngressSettings
from pipeline.ingress.sources import Source
from pipeline.ingress.statuses import STATUS, STATUSES, Answer, Status

__all__ = [
    "STATUS",
    "STATUSES",
    "Answer",
    "Ingress",
    "IngressServer",
    "IngressSettings",
    "Quarantined",
    "RefusalCounts",
    "Release",
    "Source",
    "Status",
    "findings_now",
    "read_quarantined",
    "release",
    "shown",
]
