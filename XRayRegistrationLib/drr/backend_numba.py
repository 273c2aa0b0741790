"""The fast CPU renderer: rays marched in compiled code, in tiles of neighbouring pixels.

What makes it fast, each measured in Testing/benchmarks: voxels are kept as 16-bit integers (CT
numbers are such anyway), which halves the memory that rays wait for; rays run along memory, in a transposed
copy where need be; tiles of 8x8 rays share their cache lines; nothing is stored per sample.
"""

from __future__ import annotations

from collections.abc import Iterator

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
    out = np.empty((len(camera_from_ct), len(volume.channels), camera.height, camera.width), np.float32)
    for group, packed, origin, linear in _along_memory(volume, camera_from_ct):
        image = np.empty((len(group), *out.shape[1:]), np.float32)
        for c, (voxels, scale) in enumerate(packed):
            kernels.integrate(voxels, scale, origin, linear, _rays(camera), step_mm, image[:, c])
        out[group] = image
    return out


def render_rays_with_jacobian(
    volume: AttenuationVolume,
    camera: Camera,
    camera_from_ct: NDArray[np.float64],
    centre_camera: NDArray[np.float64],
    step_mm: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images (N, channels, height, width) and Jacobians (N, channels, 6, height, width)."""
    shape = (len(camera_from_ct), len(volume.channels), camera.height, camera.width)
    out, out_jacobian = np.empty(shape, np.float32), np.empty((*shape[:2], 6, *shape[2:]), np.float32)
    for group, packed, origin, linear in _along_memory(volume, camera_from_ct):
        image = np.empty((len(group), *shape[1:]), np.float32)
        jacobian = np.empty((len(group), shape[1], 6, *shape[2:]), np.float32)
        centre = np.ascontiguousarray(centre_camera[group], dtype=np.float64)
        for c, (voxels, scale) in enumerate(packed):
            kernels.integrate_with_jacobian(
                voxels, scale, origin, linear, _rays(camera), centre, step_mm, image[:, c], jacobian[:, c]
            )
        out[group], out_jacobian[group] = image, jacobian
    return out, out_jacobian


def first_last_hit(
    volume: AttenuationVolume, camera: Camera, camera_from_ct: NDArray[np.float64], threshold_mu: float, step_mm: float
) -> NDArray[np.float32]:
    """Depths (N, 2, height, width) of the first and last crossing of ``threshold_mu``."""
    summed = volume if len(volume.channels) == 1 else AttenuationVolume(volume.channels.sum(axis=0), volume.ct_from_ijk)
    out = np.empty((len(camera_from_ct), 2, camera.height, camera.width), np.float32)
    for group, ((voxels, scale),), origin, linear in _along_memory(summed, camera_from_ct):
        depth = np.full((len(group), *out.shape[1:]), np.nan, np.float32)
        kernels.first_last_hit(voxels, scale, origin, linear, _rays(camera), step_mm, threshold_mu, depth)
        out[group] = depth
    return out


# Axes of voxel index (i, j, k) as the kernels' (x, y, z), x being contiguous in memory, for rays
# that run along i, j and k.
_ORDERS = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
_SMALL_VOXELS = 1 << 20  # 2 MB: it stays in the cache, and the order does not matter


def _along_memory(
    volume: AttenuationVolume, camera_from_ct: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.intp], list[tuple[NDArray[np.uint16], float]], NDArray[np.float64], NDArray[np.float64]]]:
    """Poses by the voxel axis that their rays run along, each with a copy of the volume contiguous in it.

    Along a ray that crosses memory every sample is a cache miss and often a page miss; a transposed
    copy makes them neighbours. Yields which poses (n,), the packed channels, the source in voxels of
    the padded grid (n, 3), and voxels per camera mm (n, 3, 3), in the copy's order of axes.
    """
    ijk_from_camera = np.linalg.inv(volume.ct_from_ijk) @ inverse(camera_from_ct)
    along = np.abs(ijk_from_camera[:, :3, 2]).argmax(axis=1)
    if volume.channels[0].size <= _SMALL_VOXELS:
        along[:] = 0
    for axis in np.unique(along):
        group = np.flatnonzero(along == axis)
        order = list(_ORDERS[axis])
        affine = ijk_from_camera[group][:, order]
        origin = np.ascontiguousarray(affine[:, :, 3] + _PAD)
        yield group, _packed(volume, int(axis)), origin, np.ascontiguousarray(affine[:, :, :3])


def _rays(camera: Camera) -> NDArray[np.float64]:
    """(fx, fy, cx, cy)."""
    return np.array([camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]])


def _packed(volume: AttenuationVolume, axis: int) -> list[tuple[NDArray[np.uint16], float]]:
    """For each channel: padded 16-bit voxels with ``axis`` contiguous, and mm^-1 per unit. Cached."""
    key = f"numba-packed-{axis}"
    if key not in volume.cache:
        if axis == 0:
            volume.cache[key] = [_pack(mu) for mu in volume.channels]
        else:
            # (k, j, i) to the order's (z, y, x)
            axes = [2 - a for a in reversed(_ORDERS[axis])]
            volume.cache[key] = [
                (np.ascontiguousarray(voxels.transpose(axes)), scale) for voxels, scale in _packed(volume, 0)
            ]
    return volume.cache[key]


def _pack(mu: NDArray[np.float32]) -> tuple[NDArray[np.uint16], float]:
    scale = max(float(mu.max()), 1e-12) / 65535.0
    voxels = np.zeros(tuple(s + 2 * _PAD for s in mu.shape), np.uint16)
    inner = voxels[_PAD:-_PAD, _PAD:-_PAD, _PAD:-_PAD]
    for k in range(len(mu)):  # slice by slice: no float copy of a large volume
        np.rint(mu[k] / scale, out=(buffer := np.empty(mu.shape[1:], np.float32)))
        inner[k] = buffer
    return voxels, scale
