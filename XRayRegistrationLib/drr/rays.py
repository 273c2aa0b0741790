"""Rays of a camera in voxel coordinates, clipped to the volume's padded box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import inverse

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rays:
    """Rays of one pose: voxel index (i, j, k) = origin + t * direction, t in mm from the source.

    Attributes:
        origin_ijk: (3,), the source.
        direction_ijk: (n, 3), voxels per mm along the ray.
        direction_camera: (n, 3), unit vectors in camera axes.
        first, last: (n,), the sample numbers k with first <= k < last lie in the box;
            sample k sits at t = (k + 1/2) step.
        ijk_from_camera_rotation: (3, 3), voxels per mm in camera axes.
    """

    origin_ijk: Array
    direction_ijk: Array
    direction_camera: Array
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    ijk_from_camera_rotation: Array


def cast(volume: AttenuationVolume, camera: Camera, camera_from_ct: Array, step_mm: float) -> Rays:
    """Clip every ray of ``camera`` to the box from -1 to n in voxels, where the field is not 0.

    Slab method: t_in = max_i min(a_i, b_i), t_out = min_i max(a_i, b_i).
    """
    ijk_from_camera = np.linalg.inv(volume.ct_from_ijk) @ inverse(camera_from_ct)
    direction_camera = camera.ray_directions().reshape(-1, 3)
    direction_camera /= np.linalg.norm(direction_camera, axis=1, keepdims=True)
    linear = ijk_from_camera[:3, :3]
    origin = ijk_from_camera[:3, 3]
    direction = direction_camera @ linear.T
    upper = np.array(volume.mu.shape[:-4:-1], dtype=np.float64)  # ni, nj, nk: box is [-1, n]
    safe = np.where(np.abs(direction) < 1e-12, 1e-12, direction)
    a = (-1.0 - origin) / safe
    b = (upper - origin) / safe
    t_in = np.maximum(np.minimum(a, b).max(axis=1), 0.0)
    t_out = np.maximum(a, b).min(axis=1)
    first = np.ceil(t_in / step_mm - 0.5).astype(np.int64)
    last = np.maximum(np.floor(t_out / step_mm - 0.5).astype(np.int64) + 1, first)
    return Rays(origin, direction, direction_camera, first, last, linear)


def jacobian_from_sums(
    gradient: Array, depth_gradient: Array, rays: Rays, centre_camera: Array
) -> NDArray[np.float32]:
    """The six derivative images (6, n) from G and H of each ray.

    Args:
        gradient: (n, 3), G = integral of grad mu in **voxel** axes.
        depth_gradient: (n, 3), H = integral of t grad mu, t in mm along the ray, voxel axes.
        rays: the rays they were accumulated on.
        centre_camera: (3,), centre of rotation in camera mm.
    """
    g = gradient @ rays.ijk_from_camera_rotation
    h = depth_gradient @ rays.ijk_from_camera_rotation
    # along the ray the integral of the gradient is 0; what the samples leave there is noise
    g -= rays.direction_camera * (g * rays.direction_camera).sum(axis=1, keepdims=True)
    out = np.empty((6, len(g)), dtype=np.float32)
    out[:3] = -(np.cross(rays.direction_camera, h) - np.cross(centre_camera, g)).T
    out[3:] = -g.T
    return out
