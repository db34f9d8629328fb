"""Fixtures of the bus."""

from support.bus_bench import bench

__all__ = ["bench"]
