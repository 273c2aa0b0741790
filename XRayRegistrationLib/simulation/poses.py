"""Random poses of a C-arm about a bone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, rotation_exp, transform_points

# Camera axes in RAS of an AP image as it is displayed: the source in front of the patient, the
# patient's left on the image's right, the head up. Rows are the camera's x, y, z.
AP_CAMERA_FROM_CT = np.array([[-1.0, 0, 0], [0, 0, -1.0], [0, -1.0, 0]])


@dataclass(frozen=True)
class PoseRange:
    """Which poses are plausible, uniform in each value.

    Attributes:
        orbital_deg: turn of the C-arm about the patient's long axis; 0 is AP, 180 is PA.
        tilt_deg: cranial or caudal angulation.
        roll_deg: turn of the image in its plane.
        source_object_mm: distance of the bone's centroid from the source, along the optical axis.
        least_in_view: the smallest fraction of the bone's surface points that falls on the image.
    """

    orbital_deg: tuple[float, float] = (-180.0, 180.0)
    tilt_deg: tuple[float, float] = (-45.0, 45.0)
    roll_deg: tuple[float, float] = (-20.0, 20.0)
    source_object_mm: tuple[float, float] = (600.0, 850.0)
    least_in_view: float = 0.6


def rotation_from_angles(orbital_deg: ArrayLike, tilt_deg: ArrayLike, roll_deg: ArrayLike) -> NDArray[np.float64]:
    """Camera-from-ct rotations (..., 3, 3): roll about z after tilt about x after orbital about the body axis.

    R = Rz(roll) Rx(tilt) R_AP Rz_ras(orbital), in right-handed degrees.
    """
    orbital, tilt, roll = np.broadcast_arrays(*(np.deg2rad(a) for a in (orbital_deg, tilt_deg, roll_deg)))
    zero = np.zeros_like(orbital)
    about_body = rotation_exp(np.stack([zero, zero, orbital], axis=-1))
    about_x = rotation_exp(np.stack([tilt, zero, zero], axis=-1))
    about_z = rotation_exp(np.stack([zero, zero, roll], axis=-1))
    return about_z @ about_x @ AP_CAMERA_FROM_CT @ about_body


def pose_at(
    rotation: NDArray[np.float64], camera: Camera, centre_ct: ArrayLike, pixel: ArrayLike, source_object_mm: ArrayLike
) -> NDArray[np.float64]:
    """camera_from_ct (..., 4, 4) with this rotation that puts ``centre_ct`` at a pixel and depth."""
    pixel, z = np.asarray(pixel, dtype=np.float64), np.asarray(source_object_mm, dtype=np.float64)
    at = np.stack(
        [
            (pixel[..., 0] - camera.K[0, 2]) / camera.K[0, 0] * z,
            (pixel[..., 1] - camera.K[1, 2]) / camera.K[1, 1] * z,
            np.broadcast_to(z, pixel.shape[:-1]),
        ],
        axis=-1,
    )
    return from_rotation_translation(rotation, at - rotation @ np.asarray(centre_ct, dtype=np.float64))


def sample_pose(
    camera: Camera,
    surface_points: NDArray[np.float64],
    centre_ct: ArrayLike,
    rng: np.random.Generator,
    pose_range: PoseRange | None = None,
) -> NDArray[np.float64]:
    """One random camera_from_ct (4, 4) of ``pose_range`` with enough of the bone in view.

    The centroid falls anywhere in the image's middle three quarters; draws with too little bone in
    view are drawn again. A bone too large for the image is held to nine tenths of what a centred
    view shows.
    """
    pose_range = pose_range or PoseRange()
    size = np.array([camera.width, camera.height])
    while True:
        rotation = rotation_from_angles(
            rng.uniform(*pose_range.orbital_deg), rng.uniform(*pose_range.tilt_deg), rng.uniform(*pose_range.roll_deg)
        )
        depth = rng.uniform(*pose_range.source_object_mm)
        centred = _fraction_in_view(camera, pose_at(rotation, camera, centre_ct, (size - 1) / 2, depth), surface_points)
        pixel = rng.uniform(0.125, 0.875, 2) * size - 0.5
        pose = pose_at(rotation, camera, centre_ct, pixel, depth)
        if _fraction_in_view(camera, pose, surface_points) >= min(pose_range.least_in_view, 0.9 * centred):
            return pose


def _fraction_in_view(camera: Camera, camera_from_ct: NDArray[np.float64], points: NDArray[np.float64]) -> float:
    return float(camera.in_view(camera.project(transform_points(camera_from_ct, points))).mean())
