"""Every effect on the outside world has a name, and can be made to crash before or after itself.

The names are the crash points that the acceptance tests enumerate. With, for example,
``PIPELINE_CRASH_AT=before:publish.card-batch.processed`` in its environment a process kills itself (SIGKILL, so nothing
is flushed or cleaned up) when it gets there for the first time; ``...#3`` means the third time. Without the variable
this costs one comparison.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_STORE: Final = (
    "job",
    "announcement",
    "source",
    "part",
    "manifest",
    "processed",
    "uploaded",
    "outcome",
    "told",
    "confirmed",
    "open",
    "purge",
    "segment",
)
_PUBLISH: Final = (
    "card-batch.requested",
    "card-batch.quarantine",
    "card-batch.processed",
    "card-batch.uploaded",
    "card-batch.failed",
    "card-batch.completed",
    "card-batch.dead-letter",
    "events",
    "events.quarantine",
    "audit.events",
    "audit.dead-letter",
)
_COMMIT: Final = ("process", "upload", "confirm", "watch", "audit")

EFFECTS: Final[tuple[str, ...]] = (
    *(f"store.{kind}" for kind in _STORE),
    *(f"publish.{topic}" for topic in _PUBLISH),
    *(f"commit.{group}" for group in _COMMIT),
    "put.result",
    "post.callback",
)
"""All effects: store creations by kind of object, publications by topic, commits by consumer group, PUT, POST."""

CRASH_POINTS: Final[tuple[str, ...]] = tuple(f"{side}:{name}" for name in EFFECTS for side in ("before", "after"))

_VARIABLE: Final = "PIPELINE_CRASH_AT"
_point, _, _times = os.environ.get(_VARIABLE, "").partition("#")
_left = int(_times or 1)
if _point and _point not in CRASH_POINTS:
    raise SystemExit(f"{_VARIABLE}={_point} is no crash point; pipeline.effects.CRASH_POINTS lists them")


def _reach(point: str) -> None:
    global _left  # noqa: PLW0603 - a countdown of one process, armed from outside
    if point != _point:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def effect(name: str) -> Iterator[None]:
    """Surround one effect, so that a test can kill the process right before or right after it.

    Args:
        name: One of :data:`EFFECTS`.
    """
    _reach(f"before:{name}")
    yield
    _reach(f"after:{name}")
