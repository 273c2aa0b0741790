"""The fast CPU renderer: rays marched in compiled code, in tiles of neighbouring pixels.

What makes it fast, each measured in Testing/benchmarks: voxels are kept as 16-bit integers (CT
numbers are such anyway), which halves the memory that rays wait for; tiles of 8x8 rays share their
cache lines; nothing is stored per sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.errors import MissingDependencyError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import inverse

try:
    from XRayRegistrationLib.drr import _numba_kernels as kernels
except ModuleNotFoundError as error:
    if error.name != "numba":
        raise
    raise MissingDependencyError("numba", "the backend 'numba'", "numba") from error

_PAD = 2


def render_rays(
    volume: AttenuationVolume, camera: Camera, camera_from_ct: NDArray[np.float64], step_mm: float
) -> NDArray[np.float32]:
    """Images (N, channels, height, width) at poses (N, 4, 4); see drr.render."""
    n = len(camera_from_ct)
    packed = _packed(volume)
    out = np.empty((n, len(packed), camera.height, camera.width), np.float32)
    origin, linear = _geometry(volume, camera, camera_from_ct)
    for c, (voxels, scale) in enumerate(packed):
        kernels.integrate(voxels, scale, origin, linear, _rays(camera), step_mm, out[:, c])
    return out


def render_rays_with_jacobian(
    volume: AttenuationVolume,
    camera: Camera,
    camera_from_ct: NDArray[np.float64],
    centre_camera: NDArray[np.float64],
    step_mm: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images (N, channels, height, width) and Jacobians (N, channels, 6, height, width)."""
    n = len(camera_from_ct)
    packed = _packed(volume)
    image = np.empty((n, len(packed), camera.height, camera.width), np.float32)
    jacobian = np.empty((n, len(packed), 6, camera.height, camera.width), np.float32)
    origin, linear = _geometry(volume, camera, camera_from_ct)
    centre = np.ascontiguousarray(centre_camera, dtype=np.float64)
    for c, (voxels, scale) in enumerate(packed):
        kernels.integrate_with_jacobian(
            voxels, scale, origin, linear, _rays(camera), centre, step_mm,
            image[:, c], jacobian[:, c],
        )  # fmt: skip
    return image, jacobian


def first_last_hit(
    volume: AttenuationVolume, camera: Camera, camera_from_ct: NDArray[np.float64], threshold_mu: float, step_mm: float
) -> NDArray[np.float32]:
    """Depths (N, 2, height, width) of the first and last crossing of ``threshold_mu``."""
    summed = volume if len(volume.channels) == 1 else AttenuationVolume(volume.channels.sum(axis=0), volume.ct_from_ijk)
    ((voxels, scale),) = _packed(summed)
    out = np.full((len(camera_from_ct), 2, camera.height, camera.width), np.nan, np.float32)
    origin, linear = _geometry(volume, camera, camera_from_ct)
    kernels.first_last_hit(voxels, scale, origin, linear, _rays(camera), step_mm, threshold_mu, out)
    return out


def _geometry(volume: AttenuationVolume, camera: Camera, camera_from_ct: NDArray[np.float64]) -> tuple[Any, Any]:
    """Source in voxels of the padded grid (N, 3), and voxels per camera mm (N, 3, 3)."""
    ijk_from_camera = np.linalg.inv(volume.ct_from_ijk) @ inverse(camera_from_ct)
    origin = np.ascontiguousarray(ijk_from_camera[:, :3, 3] + _PAD)
    linear = np.ascontiguousarray(ijk_from_camera[:, :3, :3])
    return origin, linear


def _rays(camera: Camera) -> NDArray[np.float64]:
    """(fx, fy, cx, cy)."""
    return np.array([camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]])


def _packed(volume: AttenuationVolume) -> list[tuple[NDArray[np.uint16], float]]:
    """For each channel: padded 16-bit voxels, and mm^-1 per unit."""
    if "numba-packed" not in volume.cache:
        volume.cache["numba-packed"] = [_pack(mu) for mu in volume.channels]
    return volume.cache["numba-packed"]


def _pack(mu: NDArray[np.float32]) -> tuple[NDArray[np.uint16], float]:
    scale = max(float(mu.max()), 1e-12) / 65535.0
    voxels = np.zeros(tuple(s + 2 * _PAD for s in mu.shape), np.uint16)
    inner = voxels[_PAD:-_PAD, _PAD:-_PAD, _PAD:-_PAD]
    for k in range(len(mu)):  # slice by slice: no float copy of a large volume
        np.rint(mu[k] / scale, out=(buffer := np.empty(mu.shape[1:], np.float32)))
        inner[k] = buffer
    return voxels, scale
