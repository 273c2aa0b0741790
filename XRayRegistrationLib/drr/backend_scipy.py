"""The plain renderer: NumPy alone, and the reference for every other backend.

It is named after what Slicer ships (NumPy and SciPy) and needs nothing else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.drr.rays import Rays, cast, jacobian_from_sums
from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.geometry.camera import Camera

_SAMPLES_AT_ONCE = 1 << 19  # bounds the memory: some 20 temporaries of this many float32


def render_rays(
    volume: AttenuationVolume, camera: Camera, camera_from_ct: NDArray[np.float64], step_mm: float
) -> NDArray[np.float32]:
    """Images (N, channels, height, width) at poses (N, 4, 4); see drr.render."""
    out = np.empty((len(camera_from_ct), len(volume.channels), camera.height, camera.width), np.float32)
    for n, pose in enumerate(camera_from_ct):
        rays = cast(volume, camera, pose, step_mm)
        for c, field in enumerate(_padded(volume)):
            out[n, c] = _integrate(field, rays, step_mm, False)[0].reshape(camera.height, camera.width)
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
    image = np.empty(shape, np.float32)
    jacobian = np.empty((*shape[:2], 6, *shape[2:]), np.float32)
    for n, pose in enumerate(camera_from_ct):
        rays = cast(volume, camera, pose, step_mm)
        for c, field in enumerate(_padded(volume)):
            value, g, h = _integrate(field, rays, step_mm, True)
            image[n, c] = value.reshape(shape[2:])
            jacobian[n, c] = jacobian_from_sums(g, h, rays, centre_camera[n]).reshape(6, *shape[2:])
    return image, jacobian


def first_last_hit(
    volume: AttenuationVolume, camera: Camera, camera_from_ct: NDArray[np.float64], threshold_mu: float, step_mm: float
) -> NDArray[np.float32]:
    """Depths (N, 2, height, width) of the first and last crossing of ``threshold_mu``."""
    field = _padded(volume).sum(axis=0)
    out = np.full((len(camera_from_ct), 2, camera.height * camera.width), np.nan)
    for n, pose in enumerate(camera_from_ct):
        rays = cast(volume, camera, pose, step_mm)
        for _, ray, t in _chunks(rays, step_mm, margin=1):
            mu = _sample(field, rays, ray, t, False)[0]
            inside = mu > threshold_mu
            for end, side in ((0, 1), (1, -1)):
                hits = np.flatnonzero(inside)
                # the first (or last) hit of each ray in this chunk of whole rays
                order = hits if side > 0 else hits[::-1]
                rays_hit, where = np.unique(ray[order], return_index=True)
                inner = order[where]
                outer = np.clip(inner - side, 0, len(t) - 1)
                fraction = (mu[inner] - threshold_mu) / np.maximum(mu[inner] - mu[outer], 1e-12)
                t_cross = t[inner] - side * step_mm * np.clip(fraction, 0.0, 1.0)
                out[n, end, rays_hit] = t_cross * rays.direction_camera[rays_hit, 2]
    return out.reshape(len(camera_from_ct), 2, camera.height, camera.width).astype(np.float32)


def _padded(volume: AttenuationVolume) -> NDArray[np.float32]:
    """Channels with two zero voxels around them: index -1 to n, and the cell beyond, exist."""
    if "scipy-padded" not in volume.cache:
        volume.cache["scipy-padded"] = np.pad(volume.channels, [(0, 0), (2, 2), (2, 2), (2, 2)])
    return volume.cache["scipy-padded"]


def _chunks(rays: Rays, step_mm: float, margin: int = 0):
    """Groups of whole rays of bounded size: (slice of rays, ray number, distance t) per sample."""
    first, last = rays.first - margin, rays.last + margin
    count = last - first
    ends = np.cumsum(count)
    begin = 0
    while begin < len(count):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _SAMPLES_AT_ONCE, side="right")))
        chunk = slice(begin, end)
        ray = np.repeat(np.arange(begin, end), count[chunk])
        offset = np.repeat(ends[chunk] - count[chunk] - done, count[chunk])
        k = np.arange(len(ray)) - offset + np.repeat(first[chunk], count[chunk])
        yield chunk, ray, (k + 0.5) * step_mm
        begin = end


def _sample(field, rays: Rays, ray, t, with_gradient: bool):
    """mu, and its gradient (3, n) in voxel axes, at distance ``t`` along each ``ray``."""
    shape = field.shape
    x = rays.origin_ijk[:, None] + rays.direction_ijk[ray].T * t + 2.0
    upper = np.array(shape[::-1], dtype=np.float64)[:, None] - 1.001
    np.clip(x, 0.0, upper, out=x)  # beyond the box the padding is 0 on both sides
    cell = x.astype(np.int32)
    fi, fj, fk = (x - cell).astype(np.float32)
    index = (cell[2] * shape[1] + cell[1]) * shape[2] + cell[0]
    flat = field.ravel()
    row, plane = shape[2], shape[1] * shape[2]
    corner = [flat[index + o] for o in (0, 1, row, row + 1, plane, plane + 1, plane + row, plane + row + 1)]
    di = [corner[m + 1] - corner[m] for m in (0, 2, 4, 6)]
    c = [corner[m] + fi * d for m, d in zip((0, 2, 4, 6), di, strict=True)]
    dj0, dj1 = c[1] - c[0], c[3] - c[2]
    c0, c1 = c[0] + fj * dj0, c[2] + fj * dj1
    dk = c1 - c0
    value = c0 + fk * dk
    if not with_gradient:
        return value, None
    di0, di1 = di[0] + fj * (di[1] - di[0]), di[2] + fj * (di[3] - di[2])
    return value, np.stack([di0 + fk * (di1 - di0), dj0 + fk * (dj1 - dj0), dk])


def _integrate(field, rays: Rays, step_mm: float, with_gradient: bool):
    n = len(rays.first)
    value = np.zeros(n)
    g = np.zeros((n, 3)) if with_gradient else None
    h = np.zeros((n, 3)) if with_gradient else None
    for chunk, ray, t in _chunks(rays, step_mm):
        mu, gradient = _sample(field, rays, ray, t, with_gradient)
        local, size = ray - chunk.start, chunk.stop - chunk.start
        value[chunk] = np.bincount(local, mu, size) * step_mm
        if g is not None and h is not None and gradient is not None:
            for axis in range(3):
                g[chunk, axis] = np.bincount(local, gradient[axis], size) * step_mm
                h[chunk, axis] = np.bincount(local, gradient[axis] * t, size) * step_mm
    return value, g, h
