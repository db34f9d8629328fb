"""The composition root: the only place that knows concrete classes. From settings to a running process."""

from pipeline.app.assembly import open_jobs
from pipeline.app.ports import PORTS, Ports
from pipeline.app.rehearsal import rehearse
from pipeline.app.running import STAGES, Ready, run_dev, run_ingress, run_stage
from pipeline.app.sources import open_webhooks
from pipeline.app.supervised import Supervision
from pipeline.app.supervisor import Supervisor

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
