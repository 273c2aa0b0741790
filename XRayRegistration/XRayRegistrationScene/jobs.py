"""Work that takes longer than a click: in steps between events, or in a process that can be killed.

A job is polled by whoever started it (the panel, by a timer; a test, by hand), and never calls back by
itself. It ends in one of ``"done"``, ``"failed"`` and ``"cancelled"``; after that polling changes nothing.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

RUNNING, DONE, FAILED, CANCELLED = "running", "done", "failed", "cancelled"
_PATIENCE_S = 0.5  # between asking a process to stop and killing it
_LAUNCHER_SAYS = "exit abnormally"  # Slicer's launcher, of a process that it started and that was killed
_LOG_LINES = 2000


@dataclass
class Progress:
    """Attributes: state; fraction 0..1; text, what is being done; message, why it failed; log, line by line;
    result of a job that is done; seconds since it began."""

    state: str = RUNNING
    fraction: float = 0.0
    text: str = ""
    message: str = ""
    log: list[str] = field(default_factory=list)
    result: Any = None
    seconds: float = 0.0

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far; None while there is nothing to tell it from."""
        if self.state != RUNNING or self.fraction < 0.1:
            return None
        return self.seconds * (1.0 - self.fraction) / self.fraction


class Job(Protocol):
    """What a panel needs to know of a job."""

    def poll(self) -> Progress:
        """Go on, or look whether it has; returns within some tens of milliseconds."""

    def cancel(self) -> Progress:
        """Stop within a second; nothing of it runs afterwards."""


class JobRunner(Protocol):
    """Starts jobs; tests inject one of their own."""

    def start_steps(self, steps: Generator[tuple[float, str], None, Any]) -> Job:
        """A job of steps that yield (fraction, text) and return the result."""

    def start_process(self, argv: Sequence[str], env: dict[str, str] | None = None) -> Job:
        """A job in a process that writes {"progress", "text"} as lines of JSON on stderr."""


class LocalJobRunner:
    """Runs jobs on this machine."""

    def start_steps(self, steps: Generator[tuple[float, str], None, Any]) -> StepJob:
        """See JobRunner."""
        return StepJob(steps)

    def start_process(self, argv: Sequence[str], env: dict[str, str] | None = None) -> ProcessJob:
        """See JobRunner."""
        return ProcessJob(argv, env)


class StepJob:
    """A generator, some steps at a time."""

    def __init__(self, steps: Generator[tuple[float, str], None, Any], budget_s: float = 0.03) -> None:
        self._steps, self._budget_s = steps, budget_s
        self._progress, self._begin = Progress(), time.monotonic()

    def poll(self) -> Progress:
        """Take steps for some 30 ms, at least one."""
        progress, begin = self._progress, time.monotonic()
        while progress.state == RUNNING:
            try:
                progress.fraction, progress.text = next(self._steps)
            except StopIteration as stop:
                progress.state, progress.fraction, progress.result = DONE, 1.0, stop.value
            except Exception as error:  # of any kind: it belongs to the job, and is said, not swallowed
                progress.state, progress.message = FAILED, str(error) or type(error).__name__
            progress.seconds = time.monotonic() - self._begin
            if time.monotonic() - begin > self._budget_s:
                break
        return progress

    def cancel(self) -> Progress:
        """Close the generator: its ``finally`` runs."""
        if self._progress.state == RUNNING:
            self._steps.close()
            self._progress.state = CANCELLED
        return self._progress


class ProcessJob:
    """A process in a session of its own, so that its children end with it."""

    def __init__(self, argv: Sequence[str], env: dict[str, str] | None = None) -> None:
        self._progress, self._begin = Progress(), time.monotonic()
        self._lines: queue.Queue[tuple[str, str]] = queue.Queue()
        self._output: list[str] = []
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=None if env is None else {**os.environ, **env},
            start_new_session=os.name != "nt",
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # on Windows: no console
        )
        self._readers = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in ("stdout", "stderr")
        ]
        for reader in self._readers:
            reader.start()

    def poll(self) -> Progress:
        """Take in what the process has said; its result is the text that it wrote to stdout."""
        progress = self._progress
        if progress.state != RUNNING:
            return progress
        ended = self._process.poll() is not None
        if ended:
            self._join()
        self._take_in()
        progress.seconds = time.monotonic() - self._begin
        if ended:
            status = self._process.returncode
            progress.result = "\n".join(self._output)
            progress.state = DONE if status == 0 else FAILED
            progress.message = "" if status == 0 else self._reason(status)
            progress.fraction = 1.0 if status == 0 else progress.fraction
        return progress

    def cancel(self) -> Progress:
        """Ask the process to stop, then kill it and its children."""
        if self._progress.state == RUNNING:
            self._signal(signal.SIGINT)
            # Slicer's Python is started by a launcher, which dies at once: all have ended when nobody holds the pipes
            deadline = time.monotonic() + _PATIENCE_S
            for reader in self._readers:
                reader.join(max(deadline - time.monotonic(), 0.0))
            self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))  # children that did not listen, too
            self._process.wait()
            self._join()
            self._take_in()
            self._progress.state = CANCELLED
        return self._progress

    @property
    def exit_status(self) -> int | None:
        """Of the process; None while it runs."""
        return self._process.poll()

    def _signal(self, number: int) -> None:
        try:
            if os.name == "nt":  # which knows no signals; the launcher's child would live on without /T
                subprocess.run(
                    ["taskkill", "/T", "/F", "/PID", str(self._process.pid)],
                    capture_output=True, check=False, creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )  # fmt: skip
            else:
                os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass  # it has just ended by itself

    def _read(self, name: str) -> None:
        with getattr(self._process, name) as stream:
            for line in stream:
                self._lines.put((name, line.rstrip("\n")))

    def _join(self) -> None:
        for reader in self._readers:
            reader.join(1.0)

    def _take_in(self) -> None:
        while True:
            try:
                name, line = self._lines.get_nowait()
            except queue.Empty:
                return
            if name == "stdout":
                self._output.append(line)
            elif not self._is_progress(line) and line.strip():
                self._progress.log.append(line)
                del self._progress.log[:-_LOG_LINES]

    def _is_progress(self, line: str) -> bool:
        try:
            told = json.loads(line)
            fraction, text = min(max(float(told["progress"]), 0.0), 1.0), str(told["text"])
            if fraction != fraction:  # NaN, which JSON readers let through
                return False
        except (ValueError, TypeError, KeyError):
            return False
        self._progress.fraction, self._progress.text = fraction, text
        return True

    def _reason(self, status: int) -> str:
        said = next((line for line in reversed(self._progress.log) if line.strip()), "")
        if status in (-9, 137) or _LAUNCHER_SAYS in said:
            return (
                "The process was killed, most likely because the memory was used up. Close other programs, or use a "
                "smaller CT."
            )
        ended = f"signal {-status}" if status < 0 else f"status {status}"
        return said.removeprefix("xrayreg: ") or f"The process ended with {ended} and said nothing."
