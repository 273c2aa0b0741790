"""Progress of long work on stderr: a bar on a terminal, JSON lines for a program, or nothing."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import TextIO

_WIDTH = 28
_INTERVAL_S = 0.08


class Progress:
    """Call it with a fraction 0..1 and a text; a context manager that clears the bar at its end.

    ``mode`` is ``"bar"``, ``"json"`` (one object a line: ``progress`` and ``text``) or ``"none"``.
    A bar shows only where ``stream`` is a terminal, so that logs and pipes stay clean.
    """

    def __init__(self, mode: str = "bar", stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.mode = "none" if mode == "bar" and not self.stream.isatty() else mode
        self._last_time = 0.0
        self._last_text = ""

    def __call__(self, fraction: float, text: str = "") -> None:
        """Show that ``fraction`` of the work is done, and what is being done."""
        if self.mode == "none":
            return
        now = time.monotonic()
        if text == self._last_text and now - self._last_time < _INTERVAL_S and fraction < 1.0:
            return
        self._last_time, self._last_text = now, text
        fraction = min(max(float(fraction), 0.0), 1.0)
        if self.mode == "json":
            line = json.dumps({"progress": round(fraction, 4), "text": text}) + "\n"
        else:
            done = round(fraction * _WIDTH)
            line = f"\r\x1b[K[{'#' * done}{'.' * (_WIDTH - done)}] {100 * fraction:3.0f} % {text}"
        self.stream.write(line)
        self.stream.flush()

    def between(self, start: float, end: float) -> Part:
        """A progress for one stage, which fills this one from ``start`` to ``end``."""
        return Part(self, start, end)

    def clear(self) -> None:
        """Remove the bar, so that what follows starts on a clean line."""
        if self.mode == "bar":
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()


class Part:
    """One stage of a longer work, with its own 0..1."""

    def __init__(self, whole: Progress, start: float, end: float) -> None:
        self.whole, self.start, self.end = whole, start, end

    def __call__(self, fraction: float, text: str = "") -> None:
        """Show that ``fraction`` of this stage is done."""
        self.whole(self.start + (self.end - self.start) * min(max(float(fraction), 0.0), 1.0), text)
