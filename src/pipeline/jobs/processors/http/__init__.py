"""The built-in processor that asks a service about each card."""

from pipeline.jobs.processors.http.options import HttpOptions
from pipeline.jobs.processors.http.processor import Http

__all__ = ["Http", "HttpOptions"]
