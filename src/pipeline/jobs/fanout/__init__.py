"""Fan-out: one worker splits a large file, and all PROCESS workers share its chunks (docs/explanation/chunks.md)."""

from pipeline.jobs.fanout.chunk_stage import ChunkStage
from pipeline.jobs.fanout.coordinator import Coordinator, SharedJobs
from pipeline.jobs.fanout.planner import Planner

__all__ = ["ChunkStage", "Coordinator", "Planner", "SharedJobs"]
