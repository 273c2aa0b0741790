"""The metric log of a training: JSON lines, cut back to the checkpoint on resuming so that the curve has no kink."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from XRayRegistrationLib.files.atomic import cannot_write


class MetricLog:
    """Appends one JSON object a line.

    Args:
        path: the file.
        from_iteration: lines of later iterations are dropped; 0 begins anew.
    """

    def __init__(self, path: Path, from_iteration: int = 0) -> None:
        self.path = path
        kept = []
        if from_iteration and path.exists():
            for line in path.read_text().splitlines():
                try:
                    if json.loads(line)["iteration"] <= from_iteration:
                        kept.append(line)
                except (ValueError, KeyError, TypeError):
                    continue  # the half line of a process that was killed
        self._write("w", "".join(line + "\n" for line in kept))

    def add(self, **values: Any) -> None:
        """Write one line; floats to six digits, infinite ones as null."""
        self._write("a", json.dumps({k: _rounded(v) for k, v in values.items()}) + "\n")

    def _write(self, mode: str, text: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(mode) as file:
                file.write(text)
        except OSError as error:
            raise cannot_write(self.path, error) from error


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]
