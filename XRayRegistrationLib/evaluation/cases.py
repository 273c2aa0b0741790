"""The cases that methods are tried on: an X-ray, its camera, and the true pose.

A case is a pure function of (protocol, CT, number, seed): it is made when it is asked for, in
whichever process asks, and is the same every time.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.bone.model import BoneModel, build_bone_model
from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.evaluation.protocols import INSTRUMENTS, INVERTED, LITTLE_BONE, PLAIN, TRUNCATED, Protocol
from XRayRegistrationLib.files.landmarks import read_landmarks
from XRayRegistrationLib.files.result_file import describe_input
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.ct import read_ct, read_labels
from XRayRegistrationLib.images.masks import reduce_to
from XRayRegistrationLib.images.prepare import prepare_xray
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.simulation.appearance import develop, draw_appearance
from XRayRegistrationLib.simulation.appearance_options import preset
from XRayRegistrationLib.simulation.pose_samplers import fraction_in_view, pose_sampler
from XRayRegistrationLib.simulation.shots import shoot
from XRayRegistrationLib.simulation.subject import Subject, make_subject

Array = NDArray[np.float64]

LEAST_WHOLE = 0.5  # of the bone's surface points in the image; below, the bone counts as truncated
LEAST_SHOWN = 0.10  # of the image that shows bone where no blade is; SCR's evaluator skips images with less
_VOXEL_MM = 1.0  # of the CT that images are made of: as fine as CTs of the bones are
_MOST_DRAWS = 500  # of a pose that shows enough bone
_BONE_PX = 64  # longest side of the image on which the share of bone is counted
_BONE_LINE = 0.02  # line integral of bone's attenuation above which a pixel shows bone: about half a mm


@dataclass(frozen=True)
class Patient:
    """What the evaluation knows of a CT.

    Attributes:
        name: of the CT in tables.
        ct, bone: what methods are given.
        landmarks_ct: (n, 3) ct mm, over which mTRE and mPD are measured; landmark_names: n.
    """

    name: str
    ct: Volume
    bone: BoneModel
    landmarks_ct: Array
    landmark_names: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One X-ray, and the answer.

    Attributes:
        ct: name of its CT; number: of the case, or of the real image.
        camera: of the X-ray; camera_from_ct: 4x4, the true pose.
        xray: as a user's X-ray would be prepared.
        tags: the groups that it belongs to.
        redrawn: how many poses were passed over because they showed too little bone.
        start_camera_from_ct: 4x4, the rough start that comes with it, or None.
    """

    ct: str
    number: int
    camera: Camera
    camera_from_ct: Array
    xray: XRay
    tags: tuple[str, ...]
    redrawn: int = 0
    start_camera_from_ct: Array | None = None


class CaseSource(ABC):
    """Where cases come from. Small, hashable and picklable: worker processes load the CTs themselves."""

    protocol: Protocol

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The CTs."""

    @abstractmethod
    def numbers(self, name: str, limit: int | None = None) -> list[int]:
        """Numbers of the cases of a CT, at most ``limit``; a smaller limit gives a part of those of a larger."""

    @abstractmethod
    def patient(self, name: str) -> Patient:
        """A CT and its bone; the last few are kept."""

    @abstractmethod
    def case(self, name: str, number: int) -> Case:
        """A case.

        Raises:
            InputError: it cannot be made; the message says why.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Plain values that tell this source from another one, for the record."""


@dataclass(frozen=True)
class CtFile:
    """A CT on disk, and what is known about it.

    Attributes:
        name: in tables, and in the seeds of its cases.
        path: of the CT.
        labels: a label map of its bones, or None to segment them; label_numbers: which, None for all.
        landmarks: a ``.mrk.json``, or None for points of the bone's surface.
    """

    name: str
    path: Path
    labels: Path | None = None
    label_numbers: tuple[int, ...] | None = None
    landmarks: Path | None = None


@dataclass(frozen=True)
class SimulatedCases(CaseSource):
    """Cases that are simulated from CTs.

    Attributes:
        protocol: with a sampler and a camera.
        cts: with different names.
        seed: of every case, together with protocol, CT and number.
    """

    protocol: Protocol
    cts: tuple[CtFile, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.protocol.simulated:
            raise InputError(f"protocol {self.protocol.name!r} has real images and simulates none; give its data")
        if not self.cts:
            raise InputError(f"protocol {self.protocol.name!r} simulates X-rays and got no CT; give at least one with --ct")
        names = [file.name for file in self.cts]
        if len(set(names)) < len(names):
            raise InputError(f"the CTs have the names {', '.join(names)}; allowed are different ones, so rename a file")

    def names(self) -> tuple[str, ...]:
        """The CTs."""
        return tuple(file.name for file in self.cts)

    def numbers(self, name: str, limit: int | None = None) -> list[int]:
        """From 0."""
        return list(range(self.protocol.cases or 0 if limit is None else limit))

    def patient(self, name: str) -> Patient:
        """A CT and its bone."""
        return patient_of(_subject(self._file(name)))

    def case(self, name: str, number: int) -> Case:
        """Case ``number`` of a CT: pose, appearance and preparation."""
        return make_case(self.protocol, _subject(self._file(name)), number, self.seed)

    def describe(self) -> dict[str, Any]:
        """Seed, and hashes of the CTs."""
        files = [
            {
                "name": f.name,
                "ct": fingerprint(f.path),
                "labels": None if f.labels is None else fingerprint(f.labels),
                "label_numbers": f.label_numbers,
                "landmarks": None if f.landmarks is None else fingerprint(f.landmarks),
            }
            for f in self.cts
        ]
        return {"kind": "simulated", "case_seed": self.seed, "cts": files}

    def _file(self, name: str) -> CtFile:
        return next(f for f in self.cts if f.name == name)


def fingerprint(path: Path) -> dict[str, Any]:
    """Name, bytes and SHA-256 of a file or folder, wherever it lies."""
    return {**describe_input(path), "path": path.name}


def make_case(protocol: Protocol, subject: Subject, number: int, seed: int) -> Case:
    """Case ``number`` of a CT, always the same for the same arguments.

    Raises:
        InputError: no pose of the protocol shows enough of this CT's bone.
    """
    assert protocol.camera is not None
    key = [seed, zlib.crc32(protocol.name.encode()), zlib.crc32(subject.name.encode()), number]
    pose, redrawn = _pose_with_bone(protocol, subject, np.random.default_rng([*key, 0]))
    look = np.random.default_rng([*key, 1])  # of its own, so that the poses stay when an appearance changes
    instruments = bool(look.random() < protocol.instruments_share)
    inverted = bool(look.random() < protocol.inverted_share)
    values, open_field = _simulated(protocol, subject, pose, look, instruments=instruments, inverted=inverted)
    xray = prepare_xray(values, protocol.camera, source=f"{protocol.name} {subject.name} {number}")
    special = ((INSTRUMENTS, instruments), (INVERTED, inverted))
    tags = [name for name, there in special if there] or [PLAIN]
    if is_truncated(protocol.camera, pose, subject.bone):
        tags.append(TRUNCATED)
    if bone_share(protocol.camera, pose, subject.bone, open_field) < LEAST_SHOWN:
        tags.append(LITTLE_BONE)
    start = None
    if protocol.start_sampler is not None:
        start = pose_sampler(protocol.start_sampler).sample(subject, protocol.camera, np.random.default_rng([*key, 3]))
    return Case(subject.name, number, protocol.camera, pose, xray, tuple(tags), redrawn, start)


def is_truncated(camera: Camera, camera_from_ct: Array, bone: BoneModel) -> bool:
    """Whether less than half of the bone's surface points fall on the image."""
    return fraction_in_view(bone.surface_points, camera, camera_from_ct) < LEAST_WHOLE


def bone_share(
    camera: Camera, camera_from_ct: Array, bone: BoneModel, open_field: NDArray[np.bool_] | None = None
) -> float:
    """Fraction 0..1 of the image that shows bone, where no blade is: ``open_field`` (height, width), None for everywhere."""
    scale = _BONE_PX / max(camera.width, camera.height)
    small = camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))
    step_mm = float(bone.bone.spacing_mm.max())
    shown = render(bone.bone, small, camera_from_ct, step_mm=step_mm) > _BONE_LINE
    if open_field is None:
        return float(shown.mean())
    return float((shown * reduce_to(open_field.astype(np.float32), small.height, small.width)).mean())


def patient_of(subject: Subject) -> Patient:
    """What of a simulated CT the evaluation is about."""
    return Patient(subject.name, subject.ct, subject.bone, subject.landmarks_ct, tuple(subject.landmark_names))


def _pose_with_bone(protocol: Protocol, subject: Subject, rng: np.random.Generator) -> tuple[Array, int]:
    """A pose of the protocol that shows enough bone, and how many were passed over."""
    assert protocol.camera is not None
    assert protocol.sampler is not None
    most = 0.0
    for redrawn in range(_MOST_DRAWS):
        pose = pose_sampler(protocol.sampler).sample(subject, protocol.camera, rng)
        share = bone_share(protocol.camera, pose, subject.bone) if protocol.least_bone > 0 else 1.0
        if share >= protocol.least_bone:
            return pose, redrawn
        most = max(most, share)
    raise InputError(
        f"the bone of the CT {subject.name} covers at most {100 * most:.0f} % of the images that protocol {protocol.name!r} "
        f"draws, which wants {100 * protocol.least_bone:.0f} %; it is too small, take another protocol or another CT"
    )



def _simulated(
    protocol: Protocol, subject: Subject, pose: Array, rng: np.random.Generator, *, instruments: bool, inverted: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Values (height, width) as a display has them, bone bright unless inverted; and where no blade is, which the
    preparation is not told."""
    camera = protocol.camera
    assert camera is not None
    options = replace(
        preset(protocol.appearance), p_instruments=float(instruments), p_invert=float(inverted), p_raw_border=1.0
    )
    appearance = draw_appearance(rng, options)
    # the hits, which teach networks, are not needed: as few as there can be
    shots = shoot(subject, camera, pose, hits_stride=math.gcd(camera.width, camera.height))
    depth_mm = transform_points(pose, subject.centre_ct)[2]
    image, open_field = develop(shots.path_mm, [appearance], camera, object_depth_mm=max(depth_mm, 1.0))
    return image[0].numpy(), open_field[0].numpy()


@lru_cache(maxsize=2)
def _subject(file: CtFile) -> Subject:
    """A CT made ready to simulate X-rays of; a process keeps the last few."""
    ct = read_ct(file.path)
    labels = None if file.labels is None else read_labels(file.labels, ct)
    bone = build_bone_model(ct, bone=labels or "auto", labels=file.label_numbers)
    landmarks = None if file.landmarks is None else read_landmarks(file.landmarks)
    return make_subject(ct, bone=bone, landmarks=landmarks, voxel_mm=_VOXEL_MM, name=file.name)
