"""The composition root: builds running processes from settings. No other package knows the concrete classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.app.ports import PORTS, Ports
from pipeline.on_demand import on_demand

if TYPE_CHECKING:
    from pipeline.app.assembly import open_jobs
    from pipeline.app.rehearsal import rehearse
    from pipeline.app.running import STAGES, Ready, run_dev, run_ingress, run_stage
    from pipeline.app.sources import open_webhooks
    from pipeline.app.supervised import Supervision
    from pipeline.app.supervisor import Supervisor
else:
    __getattr__ = on_demand(
        __name__,
        assembly="open_jobs",
        rehearsal="rehearse",
        running="STAGES Ready run_dev run_ingress run_stage",
        sources="open_webhooks",
        supervised="Supervision",
        supervisor="Supervisor",
    )

__all__ = [
    "PORTS",
    "STAGES",
    "Ports",
    "Ready",
    "Supervision",
    "Supervisor",
    "open_jobs",
    "open_webhooks",
    "rehearse",
    "run_dev",
    "run_ingress",
    "run_stage",
]
