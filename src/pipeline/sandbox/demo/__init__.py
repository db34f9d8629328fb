"""Three real jobs through the whole pipeline, shown and verified: ``python -m pipeline.sandbox.demo``."""

from pipeline.sandbox.demo.plan import PLAN, DemoJob
from pipeline.sandbox.demo.running import DemoFailed, Outcome, run_demo

__all__ = ["PLAN", "DemoFailed", "DemoJob", "Outcome", "run_demo"]
