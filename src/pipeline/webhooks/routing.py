"""Which source a path belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.webhooks.webhook import Source


class Routes:
    """The sources by path; where several fit, the one with the longest path counts.

    Args:
        sources: Two cannot have one path.

    Raises:
        ValueError: Two have.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._by_path: dict[str, Source] = {}
        for source in sources:
            if source.path in self._by_path:
                raise ValueError(f"Two integrations have the webhook path {source.path}")
            self._by_path[source.path] = source
        depths = {source.path.count("/") for source in sources if source.policy.below}
        self._depths = sorted(depths, reverse=True)

    def find(self, path: str) -> tuple[Source | None, str]:
        """Return the source, or None, and what stands behind its own path; costs no more for a longer path."""
        source = self._by_path.get(path)
        if source is not None:
            return source, ""
        for depth in self._depths:
            base = "/".join(path.split("/", depth + 1)[: depth + 1])
            source = self._by_path.get(base)
            if source is not None and source.policy.below and base != path:
                return source, _text(path[len(base) :])
        return None, ""


def _text(path: str) -> str:
    """Return a path that can be encoded: bytes that are no UTF-8 come as halves of surrogate pairs."""
    return path if path.isascii() else path.encode("utf-8", "replace").decode("utf-8")
