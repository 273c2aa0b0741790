"""What goes wrong without an exception reaching the test: errors inside callbacks, timers and processes left behind."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from .pythonqt import SingleShot


def _children() -> set[int]:
    """Processes that this one has started and that still run; where /proc is missing, none are seen."""
    found = set()
    for task in Path("/proc/self/task").glob("*/children"):
        found.update(int(pid) for pid in task.read_text().split())
    return {pid for pid in found if _state(pid) not in ("Z", "")}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


class Failures:
    """Of one test."""

    def __init__(self, app) -> None:
        self._app = app
        self.errors = app.errors
        self._timers = set(app.running())
        self._processes = _children()

    def on_exception(self, kind, error, trace) -> None:
        self.errors.append("".join(traceback.format_exception(kind, error, trace)))

    def on_unraisable(self, unraisable) -> None:
        self.on_exception(unraisable.exc_type, unraisable.exc_value, unraisable.exc_traceback)
        print(f"in {unraisable.object!r}", file=sys.stderr)

    def leaks(self) -> list[str]:
        """Timers and processes that were not there at the test's beginning; waiting single shots are stopped."""
        left = [one for one in self._app.running() if one not in self._timers]
        left += [f"process {_command(pid) or pid}" for pid in _children() - self._processes if pid != os.getpid()]
        SingleShot.cancel_all()
        return left
