"""The attenuation field on torch tensors: rays, trilinear samples by gather, line integrals.

Everything here can be differentiated by autograd, and again: the samples are gathered corners
times polynomials in the fractions, which ``torch.nn.functional.grid_sample`` cannot offer (it has
no double backward). Torch is imported by the caller; this file needs it only for annotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from XRayRegistrationLib.geometry.camera import Camera

PAD = 2  # zero voxels on every side: index -1 to n, and the cell beyond, exist
_SAMPLES_AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 23}


@dataclass(frozen=True)
class Field:
    """Padded channels, flattened for gathering.

    Attributes:
        values: (channels, (nk + 4) (nj + 4) (ni + 4)).
        shape: padded (nk, nj, ni).
    """

    values: Tensor
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class TorchRays:
    """Rays of N poses; voxel index (i, j, k) = origin + t * direction, t in mm from the source.

    Attributes:
        origin: (N, 3), voxels. direction: (N, R, 3), voxels per mm along the ray.
        first, count: (N, R) int64, sample k = first .. first + count - 1 at t = (k + 1/2) step.
        voxel_from_camera: (N, 3, 3), voxels per mm in camera axes.
    """

    origin: Tensor
    direction: Tensor
    first: Tensor
    count: Tensor
    voxel_from_camera: Tensor


def field_of(volume: Tensor) -> Field:
    """The field of ``volume`` (channels, nk, nj, ni), differentiable in its values."""
    from torch.nn.functional import pad

    padded = pad(volume, (PAD,) * 6)
    nk, nj, ni = padded.shape[1:]
    return Field(padded.reshape(len(padded), -1), (nk, nj, ni))


def cast_rays(
    shape: tuple[int, int, int], ijk_from_ct: Tensor, directions: Tensor, camera_from_ct: Tensor, step_mm: float
) -> TorchRays:
    """Rays of poses (N, 4, 4) along unit ``directions`` (R, 3) in camera axes, clipped to the box.

    The box runs from -1 to n in voxels of the volume ``shape`` = (nk, nj, ni), where the field is
    not 0 (slab method: t_in = max_i min(a_i, b_i), t_out = min_i max(a_i, b_i)). Differentiable
    in ``camera_from_ct``; the sample numbers are not, nor need be: the field is 0 at the box.
    """
    import torch

    rotation, translation = camera_from_ct[:, :3, :3], camera_from_ct[:, :3, 3]
    ct_from_camera = rotation.transpose(-1, -2)
    source_ct = -(ct_from_camera @ translation[..., None])[..., 0]
    voxel_from_camera = ijk_from_ct[:3, :3] @ ct_from_camera
    origin = source_ct @ ijk_from_ct[:3, :3].T + ijk_from_ct[:3, 3]
    direction = directions @ voxel_from_camera.transpose(-1, -2)
    with torch.no_grad():
        upper = torch.tensor(shape[::-1], dtype=origin.dtype, device=origin.device)
        safe = torch.where(direction.abs() < 1e-12, torch.full_like(direction, 1e-12), direction)
        a = (-1.0 - origin[:, None]) / safe
        b = (upper - origin[:, None]) / safe
        t_in = torch.minimum(a, b).amax(-1).clamp(min=0.0)
        t_out = torch.maximum(a, b).amin(-1)
        first = torch.ceil(t_in / step_mm - 0.5).long()
        count = (torch.floor(t_out / step_mm - 0.5).long() + 1 - first).clamp(min=0)
    return TorchRays(origin, direction, first, count, voxel_from_camera)


def unit_directions(camera: Camera, like: Tensor) -> Tensor:
    """Unit directions (R, 3) of the pixels' rays in camera axes, row by row, on the device and in the precision of ``like``."""
    d = camera.ray_directions().reshape(-1, 3)
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    return like.new_tensor(d)


def ray_chunks(rays: TorchRays, channels: int) -> list[tuple[Tensor, int]]:
    """Numbers of the rays that cross the box, in groups of bounded memory, and their most samples."""
    count = rays.count.reshape(-1)
    crossing = count.nonzero()[:, 0]
    if not len(crossing):
        return []
    budget = _SAMPLES_AT_ONCE["cpu" if count.device.type == "cpu" else "cuda"]
    size = max(1, budget // (channels * int(count.max())))
    return [(chunk, int(count[chunk].max())) for chunk in crossing.split(size)]


def sample(field: Field, index: Tensor) -> Tensor:
    """Trilinear values (channels, ...) at ``index`` (..., 3) = padded (i, j, k); differentiable twice."""
    fraction, corners = _corners(field, index)
    fi, fj, fk = fraction.unbind(-1)
    c = [low + fi * (high - low) for low, high in zip(corners[0::2], corners[1::2], strict=True)]
    c0, c1 = c[0] + fj * (c[1] - c[0]), c[2] + fj * (c[3] - c[2])
    return c0 + fk * (c1 - c0)


def sample_with_gradient(field: Field, index: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """As :func:`sample`, and the gradient along i, j, k, per voxel, each (channels, ...)."""
    fraction, corners = _corners(field, index)
    fi, fj, fk = fraction.unbind(-1)
    di = [high - low for low, high in zip(corners[0::2], corners[1::2], strict=True)]
    c = [low + fi * d for low, d in zip(corners[0::2], di, strict=True)]
    dj0, dj1 = c[1] - c[0], c[3] - c[2]
    c0, c1 = c[0] + fj * dj0, c[2] + fj * dj1
    di0, di1 = di[0] + fj * (di[1] - di[0]), di[2] + fj * (di[3] - di[2])
    return c0 + fk * (c1 - c0), (di0 + fk * (di1 - di0), dj0 + fk * (dj1 - dj0), c1 - c0)


def _corners(field: Field, index: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Fractions (..., 3) and the eight corners (channels, ...) of the cells that hold ``index``."""
    import torch

    nk, nj, ni = field.shape
    # beyond the box the padding is 0 on both sides, so where a sample is clamped to is no matter
    upper = torch.tensor([ni, nj, nk], dtype=index.dtype, device=index.device) - 1.5
    clamped = torch.minimum(index.clamp(min=0.5), upper)
    cell = clamped.detach().long()
    flat = (cell[..., 2] * nj + cell[..., 1]) * ni + cell[..., 0]
    offsets = (0, 1, ni, ni + 1, nj * ni, nj * ni + 1, nj * ni + ni, nj * ni + ni + 1)
    shape = (len(field.values), *flat.shape)
    corners = [field.values.index_select(1, (flat + o).reshape(-1)).reshape(shape) for o in offsets]
    return clamped - cell, corners


def ray_samples(rays: TorchRays, chunk: Any, n: int, step_mm: float, dtype: Any) -> tuple[Tensor, Tensor]:
    """Padded indices (r, n, 3) and distances t (r, n) in mm of the samples of a chunk of rays.

    ``chunk`` picks from the N R rays flattened; rays with fewer than ``n`` samples run on outside
    the box, where the field is 0. Coordinates are formed in the rays' precision (float64) and
    handed on in ``dtype``: in float32 a distance of 1 m alone would cost 1e-4 mm.
    """
    import torch

    n_rays = rays.direction.shape[1]
    direction = rays.direction.reshape(-1, 3)[chunk]
    origin = rays.origin[torch.div(chunk, n_rays, rounding_mode="floor")]
    k = torch.arange(n, device=direction.device, dtype=direction.dtype)
    t = (rays.first.reshape(-1)[chunk][:, None] + k + 0.5) * step_mm
    entry = origin + t[:, :1] * direction + PAD
    along = (k * step_mm).to(dtype)
    index = entry.to(dtype)[:, None] + along[:, None] * direction.to(dtype)[:, None]
    return index, t.to(dtype)
