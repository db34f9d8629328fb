"""For authors of processors: run a processor on a few cards, through the same engine as in production. Public API.

rows = await run_processor(MyProcessor, [{"card_number": "4111111111111111", "points": "20"}], programme="gold")
assert rows[0]["status"] == "ok"
"""

from pipeline.jobs.processors.testing import job_context, run_processor

__all__ = ["job_context", "run_processor"]
