"""Predictions on disk: a folder with what was asked (``run.json``) and one line a case (``predictions.jsonl``).

Predictions come first and scores are made of them alone, so that a score can be changed, or a method
added, without running anything again. Lines are appended and flushed one by one: a run that was
stopped loses at most the case it was at, and goes on where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.evaluation.cases import Patient
from XRayRegistrationLib.files.atomic import cannot_write, write_atomically
from XRayRegistrationLib.files.json_file import json_text, read_json
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import check_rigid
from XRayRegistrationLib.result import camera_from_dict, camera_to_dict, plain

Array = NDArray[np.float64]

FORMAT, FORMAT_VERSION = "xrayregistration-evaluation", 1
RUN, PREDICTIONS = "run.json", "predictions.jsonl"
SURFACE_POINTS = 500  # of the bone, kept for scoring; they are in farthest-point order
ERROR = "error"  # the status of a case whose method gave no pose; the others are those of a Result


@dataclass(frozen=True)
class Prediction:
    """What a method said about one case.

    Attributes:
        method: its label in the run; ct, number: the case.
        tags, redrawn, camera, true_camera_from_ct: as in the case.
        status: ``"success"`` or ``"failure"`` by the verification, ``"error"`` where the method raised.
        message: the verdict, or the error.
        probability: that the pose is right, by the verification; None without a pose.
        proposed: (n, 4, 4) camera_from_ct as proposed, best first; empty without one.
        camera_from_ct: (4, 4) refined, None without one.
        seconds: ``prepare_s``, ``propose_s``, ``refine_s``, ``total_s``.
        start_camera_from_ct: (4, 4), the start that came with the case, whether the method looked at it or not.
    """

    method: str
    ct: str
    number: int
    tags: tuple[str, ...]
    redrawn: int
    camera: Camera
    true_camera_from_ct: Array
    status: str
    message: str
    probability: float | None
    proposed: Array
    camera_from_ct: Array | None
    seconds: dict[str, float]
    start_camera_from_ct: Array | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is the prediction of."""
        return self.method, self.ct, self.number

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = dict(vars(self))
        values["camera"] = camera_to_dict(self.camera)
        return {name: plain(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Prediction:
        """The inverse of :meth:`to_dict`; raises KeyError, TypeError or InputError for anything else."""
        pose, start = data["camera_from_ct"], data.get("start_camera_from_ct")
        return cls(
            method=data["method"],
            ct=data["ct"],
            number=int(data["number"]),
            tags=tuple(data["tags"]),
            redrawn=int(data["redrawn"]),
            camera=camera_from_dict(data["camera"]),
            true_camera_from_ct=check_rigid(data["true_camera_from_ct"], "true_camera_from_ct"),
            status=data["status"],
            message=data["message"],
            probability=data["probability"],
            proposed=np.array(data["proposed"], dtype=np.float64).reshape(-1, 4, 4),
            camera_from_ct=None if pose is None else check_rigid(pose, "camera_from_ct"),
            seconds=dict(data["seconds"]),
            start_camera_from_ct=None if start is None else check_rigid(start, "start_camera_from_ct"),
        )


@dataclass(frozen=True)
class Target:
    """What of a CT its scores need: points (n, 3) and a centroid (3,), ct mm."""

    landmarks_ct: Array
    surface_ct: Array
    centroid_ct: Array

    @classmethod
    def of(cls, patient: Patient) -> Target:
        """The landmarks, and the first of the bone's surface points."""
        return cls(patient.landmarks_ct, patient.bone.surface_points[:SURFACE_POINTS], patient.bone.centroid)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        out: dict[str, Any] = plain(vars(self))
        return out

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Target:
        """The inverse of :meth:`to_dict`."""
        return cls(*(np.array(data[name], dtype=np.float64) for name in ("landmarks_ct", "surface_ct", "centroid_ct")))


@dataclass(frozen=True)
class Store:
    """A folder of predictions."""

    folder: Path

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.folder / RUN).is_file()

    def begin(self, asked: dict[str, Any], targets: dict[str, Target], record: dict[str, Any], resume: bool) -> None:
        """Write ``run.json``, or check that the run in the folder is the same and can go on.

        Args:
            asked: what predictions depend on: protocol, source, seed, and each method's options by label.
                A run that goes on may have methods more, and other ones left out.
            targets: by CT; those of CTs that an earlier part of the run was of are kept.
            record: machine, versions and what else is good to know; those of earlier parts of the run are kept in it.
            resume: go on with the predictions of the folder.

        Raises:
            InputError: the folder has predictions and ``resume`` is false, or they are of another run.
        """
        asked, known, earlier_records = json.loads(json.dumps(plain(asked))), {}, []
        if self.exists:
            if not resume:
                raise InputError(
                    f"{self.folder} has predictions of an earlier run; give --resume to go on with it, or another --out"
                )
            kept = self.run()
            earlier, known, last = kept["asked"], kept["targets"], kept["record"]
            earlier_records = last.pop("earlier", [])
            earlier_records += [last] if last not in (*earlier_records, json.loads(json.dumps(plain(record)))) else []
            shared = {name: value for name, value in earlier["methods"].items() if name in asked["methods"]}
            for name, was, now in [
                *((key, earlier.get(key), asked[key]) for key in asked if key != "methods"),
                *((f"method {name}", value, asked["methods"][name]) for name, value in shared.items()),
            ]:
                if was != now:
                    raise InputError(
                        f"{self.folder} has predictions of a run with another {name} ({_short(was)}, now {_short(now)}); "
                        "give the same settings or another --out"
                    )
            asked["methods"] = {**earlier["methods"], **asked["methods"]}
        data = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "asked": asked,
            "record": plain({**record, "earlier": earlier_records} if earlier_records else record),
            "targets": {**known, **{name: target.to_dict() for name, target in targets.items()}},
        }
        write_atomically(self.folder / RUN, json_text(data))

    def run(self) -> dict[str, Any]:
        """The content of ``run.json``.

        Raises:
            InputError: there is none, or it is of another format.
        """
        data = read_json(self.folder / RUN, "the evaluation", "a folder that xrayreg evaluate wrote")
        if not isinstance(data, dict) or (data.get("format"), data.get("format_version")) != (FORMAT, FORMAT_VERSION):
            raise InputError(f"{self.folder / RUN} is no evaluation of this version; evaluate again into another --out")
        return data

    def targets(self) -> dict[str, Target]:
        """What the scores of each CT need."""
        return {name: Target.from_dict(value) for name, value in self.run()["targets"].items()}

    def predictions(self) -> list[Prediction]:
        """All of them, in the order in which they came.

        Raises:
            InputError: a line that is none, other than a last one that was cut off.
        """
        file = self.folder / PREDICTIONS
        if not file.is_file():
            return []
        lines = file.read_bytes().split(b"\n")
        found = []
        for n, line in enumerate(lines[:-1]):  # what follows the last line break was cut off
            try:
                found.append(Prediction.from_dict(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{file}, line {n + 1} is no prediction ({type(error).__name__}: {error}); remove the line and give --resume"
                ) from error
        return found

    @contextmanager
    def appending(self) -> Iterator[Appender]:
        """Where to write further predictions; a last line that was cut off is removed first.

        Raises:
            InputError: the file cannot be written, or the disk is full.
        """
        file = self.folder / PREDICTIONS
        try:
            stream = open(file, "ab+")  # noqa: SIM115  closed below, outside of what the message is for
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)
        except OSError as error:
            raise cannot_write(file, error) from error
        with stream:
            yield Appender(file, stream)


class Appender:
    """Writes predictions, each flushed to the disk before the next one is begun."""

    def __init__(self, file: Path, stream: IO[bytes]) -> None:
        self._file, self._stream = file, stream

    def add(self, prediction: Prediction) -> None:
        """Append one line.

        Raises:
            InputError: the disk is full.
        """
        try:
            self._stream.write(json.dumps(prediction.to_dict(), allow_nan=False).encode() + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise cannot_write(self._file, error) from error


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
