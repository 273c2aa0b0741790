"""The fast CPU renderer: rays marched in compiled code, in tiles of neighbouring pixels.

What makes it fast: rays are sampled where they cross voxel planes, four voxels a sample; voxels are
16-bit integers (CT numbers are such anyway), kept in slabs across the rays, through which a tile of
rays goes together, so that memory is read once and in order; empty blocks are stepped over; nothing
is stored per sample.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

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


def render_rays(
    volume: AttenuationVolume, camera: Camera, camera_from_ct: NDArray[np.float64], step_mm: float
) -> NDArray[np.float32]:
    """Images (N, channels, height, width) at poses (N, 4, 4); see drr.render."""
    return _integrated(volume, camera, camera_from_ct, None, step_mm)[0]


def render_rays_with_jacobian(
    volume: AttenuationVolume,
    camera: Camera,
    camera_from_ct: NDArray[np.float64],
    centre_camera: NDArray[np.float64],
    step_mm: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images (N, channels, height, width) and Jacobians (N, channels, 6, height, width)."""
    image, jacobian = _integrated(volume, camera, camera_from_ct, centre_camera, step_mm)
    assert jacobian is not None
    return image, jacobian


def _integrated(
    volume: AttenuationVolume,
    camera: Camera,
    camera_from_ct: NDArray[np.float64],
    centre_camera: NDArray[np.float64] | None,
    step_mm: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Images, and Jacobians where a centre of rotation is given.

    A step no finer than the voxels along the rays becomes a whole number of voxel planes, and the other planes
    are left out: half the work a sample, and less error than samples anywhere at that distance have. A finer step
    is taken as it is, and so is any where part of the volume is not in front of the source: lines know no beginning.
    """
    shape = (len(camera_from_ct), len(volume.channels), camera.height, camera.width)
    out = np.empty(shape, np.float32)
    out_jacobian = None if centre_camera is None else np.empty((*shape[:2], 6, *shape[2:]), np.float32)
    rays, wide = _rays(camera), _wide(camera)
    for group, axis, ahead, origin, linear in _by_axis(volume, camera_from_ct):
        centre = None if centre_camera is None else np.ascontiguousarray(centre_camera[group], dtype=np.float64)
        planes = int(min(step_mm / volume.spacing_mm[axis] * (1 + 1e-6), volume.mu.shape[-1 - axis]))
        if wide or not ahead:
            planes = 0
        if planes > 1:
            origin, linear = _of_every(planes, origin, linear)
        for c, (slabs, below, scale) in enumerate(_packed(volume, axis, max(planes, 1))):
            # straight into the result where it lies in one piece, as it does for one pose
            whole = len(group) == shape[0] and shape[1] == 1
            image = out[:, c] if whole else np.empty((len(group), *shape[2:]), np.float32)
            jacobian = None
            if out_jacobian is not None:
                jacobian = out_jacobian[:, c] if whole else np.empty((len(group), 6, *shape[2:]), np.float32)
            rest = (scale, origin, linear, rays, centre)
            if planes:
                kernels.integrate_planes(slabs, below, *rest, image, jacobian)
            else:
                kernels.integrate_steps(slabs, below, *rest, step_mm, image, jacobian)
            if not whole:
                out[group, c] = image
                if out_jacobian is not None:
                    out_jacobian[group, c] = jacobian
    return out, out_jacobian


def first_last_hit(
    volume: AttenuationVolume, camera: Camera, camera_from_ct: NDArray[np.float64], threshold_mu: float, step_mm: float
) -> NDArray[np.float32]:
    """Depths (N, 2, height, width) of the first and last crossing of ``threshold_mu``."""
    summed = volume if len(volume.channels) == 1 else AttenuationVolume(volume.channels.sum(axis=0), volume.ct_from_ijk)
    out = np.empty((len(camera_from_ct), 2, camera.height, camera.width), np.float32)
    for group, axis, _, origin, linear in _by_axis(summed, camera_from_ct):
        ((slabs, _, scale),) = _packed(summed, axis)
        depth = np.full((len(group), *out.shape[1:]), np.nan, np.float32)
        clearance = _clearance(summed, axis, threshold_mu)
        kernels.first_last_hit(slabs, scale, clearance, origin, linear, _rays(camera), step_mm, threshold_mu, depth)
        out[group] = depth
    return out


# Axes of voxel index (i, j, k) as the kernels' (x, y, z), for rays that run along i, j and k.
_ORDERS = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
_WIDE = 0.5  # tangent of half the field of view, from which rays may run along a plane


def _by_axis(
    volume: AttenuationVolume, camera_from_ct: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.intp], int, bool, NDArray[np.float64], NDArray[np.float64]]]:
    """Poses by the voxel axis that their rays run along, each to be rendered from the slabs across it.

    Yields which poses (n,), the axis, whether the whole volume is in front of the source along it, the source in
    voxels of the padded grid (n, 3), and voxels per camera mm (n, 3, 3), in the slabs' order of axes.
    """
    ijk_from_camera = np.linalg.inv(volume.ct_from_ijk) @ inverse(camera_from_ct)
    along = np.abs(ijk_from_camera[:, :3, 2]).argmax(axis=1)
    each = np.arange(len(along))
    ray, source = ijk_from_camera[each, along, 2], ijk_from_camera[each, along, 3]
    # the field falls to 0 one voxel outside
    in_front = np.where(ray > 0, source <= -1, source >= np.array(volume.mu.shape[:-4:-1])[along])
    for axis in np.unique(along):
        for ahead in (True, False):
            group = np.flatnonzero((along == axis) & (in_front == ahead))
            if len(group) == 0:
                continue
            affine = ijk_from_camera[group][:, list(_ORDERS[axis])]
            origin = np.ascontiguousarray(affine[:, :, 3] + kernels.PAD)
            yield group, int(axis), ahead, origin, np.ascontiguousarray(affine[:, :, :3])


def _wide(camera: Camera) -> bool:
    corners = np.array([[u, v, 1.0] for u in (0, camera.width - 1) for v in (0, camera.height - 1)])
    at = corners @ np.linalg.inv(camera.K).T
    return bool(np.hypot(at[:, 0], at[:, 1]).max() > _WIDE)


def _rays(camera: Camera) -> NDArray[np.float64]:
    """(fx, fy, cx, cy)."""
    return np.array([camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]])


_Packed = tuple[NDArray[np.uint16], NDArray[np.int32], float]


def _packed(volume: AttenuationVolume, axis: int, every: int = 1) -> list[_Packed]:
    """For each channel: 16-bit voxels in slabs across ``axis``, one plane of ``every``, how many blocks that hold any
    lie below each (slab, z block, y block), and mm^-1 per unit. Cached."""
    key = f"numba-packed-{axis}-{every}"
    if key not in volume.cache:
        # (k, j, i) to the order's (z, y, x)
        axes = [2 - a for a in reversed(_ORDERS[axis])]
        volume.cache[key] = [_pack(mu.transpose(axes)[:, :, _first_of(every) :: every]) for mu in volume.channels]
    return volume.cache[key]


def _first_of(every: int) -> int:
    """The first plane of the volume that is kept: number 0 of the padded grid, which every plane kept counts from."""
    return -kernels.PAD % every


def _of_every(
    every: int, origin: NDArray[np.float64], linear: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Origin and linear part of :func:`_by_axis` for a grid that keeps one plane of ``every``."""
    origin, linear = origin.copy(), linear.copy()
    origin[:, 0] = (origin[:, 0] - kernels.PAD - _first_of(every)) / every + kernels.PAD
    linear[:, 0] /= every
    return origin, linear


def _clearance(volume: AttenuationVolume, axis: int, threshold_mu: float) -> NDArray[np.uint8]:
    """(z, y, x) in the axis' order: cells to the nearest one that the threshold crosses, as a chess king walks. Cached."""
    key = f"numba-clearance-{axis}-{threshold_mu!r}"
    if key not in volume.cache:
        ((slabs, _, scale),) = _packed(volume, axis)
        whole = slabs[..., : kernels.SLAB].transpose(1, 2, 0, 3).reshape(*slabs.shape[1:3], -1)
        above = np.pad(whole > threshold_mu / scale, ((0, 1), (0, 1), (0, 1)))
        corners = np.zeros(whole.shape, np.uint8)
        for z, y, x in np.ndindex(2, 2, 2):
            corners += above[z : z + whole.shape[0], y : y + whole.shape[1], x : x + whole.shape[2]]
        uncrossed = (corners == 0) | (corners == 8)
        if uncrossed.all():
            distance = np.full(whole.shape, 255)
        else:
            distance = ndimage.distance_transform_cdt(uncrossed, "chessboard")
        volume.cache[key] = np.minimum(distance, 255).astype(np.uint8)
    return volume.cache[key]


def _pack(mu: NDArray[np.float32]) -> _Packed:
    scale = max(float(mu.max()), 1e-12) / 65535.0
    nz, ny, nx = (n + 2 * kernels.PAD for n in mu.shape)
    slabs = np.zeros((-(-nx // kernels.SLAB), nz, ny, kernels.SLAB + 1), np.uint16)
    kernels.pack(mu, np.float32(1.0 / scale), slabs)
    below = np.pad(_occupied(slabs).cumsum(1, dtype=np.int32).cumsum(2, dtype=np.int32), ((0, 0), (1, 0), (1, 0)))
    return slabs, below, scale


def _occupied(slabs: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Whether samples in a slab's block meet anything: (slab, z block, y block)."""
    found = slabs.any(axis=3)
    for axis in (1, 2):
        starts = np.arange(0, found.shape[axis], kernels.BLOCK)
        # a sample is between its voxel and the next one, which may be the next block's first
        following = np.take(found, np.minimum(starts + kernels.BLOCK, found.shape[axis] - 1), axis=axis)
        found = np.logical_or.reduceat(found, starts, axis=axis) | following
    return np.asarray(found)
