"""The built-in processor that sends one request per card to a service."""

from pipeline.jobs.processors.http.options import HttpOptions
from pipeline.jobs.processors.http.processor import Http

__all__ = ["Http", "HttpOptions"]
