"""Which poses a search goes through: orientations on a grid, and distances from the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import inverse, rotation_exp
from XRayRegistrationLib.simulation.poses import rotation_from_angles

Array = NDArray[np.float64]

#: Of the source-detector distance, where the bone of a C-arm's X-ray is; of real ones of the hip 0.6 to 0.75.
NOMINAL_DEPTH = 0.7

#: Orbital angle in degrees of each named view, its range being 45 degrees to either side.
NAMED_VIEWS = {"ap": 0.0, "pa": 180.0, "lat-left": 90.0, "lat-right": -90.0}


@dataclass(frozen=True)
class SearchRange:
    """Poses to go through.

    Attributes:
        rotations: (n, 3, 3), camera-from-ct orientations (of the first view of a rig).
        depths_mm: distances of the bone's centroid from the source.
        near: camera_from_ct (4, 4) of a start pose; its centroid's pixel bounds the shifts. None for any shift.
        near_mm: how far from ``near`` the centroid may lie in the plane.
        name: for reports.
    """

    rotations: Array
    depths_mm: Array
    near: Array | None = None
    near_mm: float = 60.0
    name: str = ""


def c_arm_range(depths_mm: Array, view: str | None = None, step_deg: float = 15.0) -> SearchRange:
    """Orbital angle all around, or 45 degrees to either side of a named view; tilt to 45, roll to 20 degrees."""
    if view is None:
        orbital = np.arange(-180.0, 180.0, step_deg)
    else:
        orbital = NAMED_VIEWS[view] + np.linspace(-45.0, 45.0, round(90.0 / step_deg) + 1)
    tilt = np.linspace(-45.0, 45.0, round(90.0 / step_deg) + 1)
    roll = np.array([-14.0, 0.0, 14.0])
    grid = np.meshgrid(orbital, tilt, roll, indexing="ij")
    return SearchRange(rotation_from_angles(*(g.ravel() for g in grid)), depths_mm, name=view or "C-arm")


def any_orientation_range(depths_mm: Array, step_deg: float = 17.0) -> SearchRange:
    """All of SO(3): directions on a Fibonacci sphere, each with turns in the image plane."""
    n = round(4.0 * np.pi / np.deg2rad(step_deg) ** 2)
    k = np.arange(n) + 0.5
    tilt, orbital = np.arcsin(1.0 - 2.0 * k / n), np.pi * (1.0 + 5.0**0.5) * k
    roll = np.arange(0.0, 360.0, step_deg)
    rotations = rotation_from_angles(
        np.rad2deg(np.repeat(orbital, len(roll))), np.rad2deg(np.repeat(tilt, len(roll))), np.tile(roll, n)
    )
    return SearchRange(rotations, depths_mm, name="any orientation")


def start_range(
    camera_from_ct: Array,
    centre_ct: Array,
    half_deg: float = 16.0,
    step_deg: float = 8.0,
    depth_mm: float = 30.0,
    more_depths_mm: Array | None = None,
    name: str = "start pose",
) -> SearchRange:
    """Around a start pose: rotations to ``half_deg`` about each camera axis, depth to 1.5 ``depth_mm``.

    ``more_depths_mm`` are looked at too, for a start whose depth says little.
    """
    turns = np.arange(-half_deg, half_deg + 0.5 * step_deg, step_deg)
    grid = np.deg2rad(np.stack(np.meshgrid(turns, turns, turns, indexing="ij"), axis=-1).reshape(-1, 3))
    depth = float((camera_from_ct[:3, :3] @ centre_ct + camera_from_ct[:3, 3])[2])
    depths = depth + depth_mm * np.array([-1.0, 0.0, 1.0])
    if more_depths_mm is not None:
        depths = np.concatenate([depths, more_depths_mm])
    depths = depths[depths > 0.0]  # of a start right at the source
    return SearchRange(rotation_exp(grid) @ camera_from_ct[:3, :3], depths, near=np.asarray(camera_from_ct), name=name)


def plausible_depths(
    camera: Camera, source_object_mm: float | None = None, ratio: float = 1.14
) -> Array:
    """Distances of the bone from the source, each ``ratio`` times the one before.

    Around the source-object distance where it is known (a DICOM tag), else from 0.53 to 0.89 of
    the SDD, else, for a camera that is K alone, from 350 to 1150 mm.
    """
    if source_object_mm is not None:
        return source_object_mm * ratio ** np.array([-1.0, 0.0, 1.0])
    sdd = camera.source_detector_distance_mm
    low, high = (0.53 * sdd, 0.89 * sdd) if sdd is not None else (350.0, 1150.0)
    n = int(np.ceil(np.log(high / low) / np.log(ratio)))
    return low * (high / low) ** ((np.arange(n) + 0.5) / n)


def rig_depths(camera_from_rig: Sequence[Array], ratio: float = 1.14) -> Array:
    """Distances from the first source, around where its optical axis passes closest to the others'.

    A rig is aimed at what it looks at, so the bone is near that point. Parallel axes meet nowhere:
    then the whole range of :func:`plausible_depths` for a camera without SDD.
    """
    first, *others = [inverse(m) for m in camera_from_rig]
    depths = []
    for other in others:
        a, b = first[:3, 2], other[:3, 2]
        between = other[:3, 3] - first[:3, 3]
        sine2 = 1.0 - float(a @ b) ** 2
        if sine2 > 1e-3:
            depths.append((between @ a - (between @ b) * (a @ b)) / sine2)
    depth = float(np.median(depths)) if depths else -1.0
    if depth <= 0:
        return np.geomspace(350.0, 1150.0, 9)
    return depth * ratio ** np.array([-0.5, 0.5])
