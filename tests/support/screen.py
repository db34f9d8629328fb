"""A terminal that remembers: what a person sees of a program's output, scrolled lines included."""

from __future__ import annotations

import io

import pyte


class Screen(io.StringIO):
    """Interprets what is written to it as a terminal of this width does."""

    def __init__(self, width: int, height: int = 200) -> None:
        super().__init__()
        self.width = width
        self._screen = pyte.Screen(width, height)
        self._stream = pyte.Stream(self._screen)

    def isatty(self) -> bool:
        """It is one."""
        return True

    def write(self, text: str) -> int:
        """Show text; line ends are those of a terminal in its usual mode."""
        self._stream.feed(text.replace("\r\n", "\n").replace("\n", "\r\n"))
        return len(text)

    def lines(self) -> list[str]:
        """Return the lines on the screen now, without empty ones at the end."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip("\n").split("\n")
