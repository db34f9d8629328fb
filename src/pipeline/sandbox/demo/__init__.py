"""The demo: ``python -m pipeline.sandbox.demo``.

It sends three real jobs and ten thousand events through the whole pipeline, and verifies the results.
"""

from pipeline.sandbox.demo.events import EventsOutcome
from pipeline.sandbox.demo.plan import EVENTS, PLAN, DemoJob
from pipeline.sandbox.demo.running import DemoFailed, DemoResult, Outcome, run_demo

__all__ = ["EVENTS", "PLAN", "DemoFailed", "DemoJob", "DemoResult", "EventsOutcome", "Outcome", "run_demo"]
