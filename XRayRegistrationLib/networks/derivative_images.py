"""Projections of a learned volume and their six derivatives in the pose, for networks that learn a similarity.

A similarity that is trained by its gradient in the pose needs dS/dtheta_k = <dS/dI, dI/dtheta_k>, and that gradient's own
derivative in the network's weights. With the derivative images dI/dtheta_k at hand, only the network behind the image needs
a second derivative: neither the rays nor the samples along them are ever on autograd's tape (ProST, Gao et al., TMI 2024,
differentiates twice through the sampler, and needs 15 GB; ``drr.backend_torch.render_torch`` can do that too).
Images and derivative images are both linear in the volume, so the way back to it is the adjoint of the same sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import pad

from XRayRegistrationLib.drr.torch_field import (
    PAD,
    Field,
    TorchRays,
    cast_rays,
    field_of,
    ray_chunks,
    ray_samples,
    sample_with_gradient,
    unit_directions,
)
from XRayRegistrationLib.errors import MissingDependencyError
from XRayRegistrationLib.geometry.camera import Camera

_SUMS = 7  # mu; its differences along i, j, k; these times the distance from the source


def derivative_images(
    volume: Tensor,
    ct_from_ijk: ArrayLike,
    camera: Camera,
    camera_from_ct: NDArray[np.float64],
    centre_camera: NDArray[np.float64],
    step_mm: float,
) -> tuple[Tensor, Tensor]:
    """Line integrals and their derivatives in a motion in camera axes about a centre (geometry.rigid.increment_left).

    Args:
        volume: (channels, nk, nj, ni) float32, on any device, of any sign; differentiable in it, once.
        ct_from_ijk: 4x4, ct mm of voxel index (i, j, k).
        camera: its K, width and height.
        camera_from_ct: (N, 4, 4). centre_camera: (N, 3), mm.
        step_mm: distance between samples.

    Returns:
        Images (N, channels, height, width), and (N, channels, 6, height, width) per rad and mm, on the volume's device.
    """
    ijk_from_ct = torch.as_tensor(np.linalg.inv(np.asarray(ct_from_ijk, dtype=np.float64)), device=volume.device)
    poses = torch.as_tensor(np.array(camera_from_ct, dtype=np.float64), device=volume.device)
    directions = unit_directions(camera, poses)
    nk, nj, ni = volume.shape[1:]
    rays = cast_rays((nk, nj, ni), ijk_from_ct, directions, poses, step_mm)
    sums = _LineSums.apply(volume, rays, step_mm).permute(0, 2, 1, 3)  # (N, channels, rays, 7)
    to_camera = rays.voxel_from_camera[:, None].to(volume.dtype)
    g, h = sums[..., 1:4] @ to_camera, sums[..., 4:7] @ to_camera
    d = directions.to(volume.dtype).expand_as(h)
    g = g - d * (g * d).sum(-1, keepdim=True)  # along the ray the integral of the gradient is 0; the rest is noise
    c = torch.as_tensor(np.array(centre_camera), dtype=g.dtype, device=g.device)[:, None, None].expand_as(g)
    turned = torch.linalg.cross(c, g) - torch.linalg.cross(d, h)
    jacobian = torch.cat([turned, -g], -1).transpose(-1, -2)
    shape = (len(poses), len(volume))
    return (
        sums[..., 0].reshape(*shape, camera.height, camera.width),
        jacobian.reshape(*shape, 6, camera.height, camera.width),
    )


class _LineSums(torch.autograd.Function):
    """(N, rays, channels, 7) sums along rays, in mm, of a volume (channels, nk, nj, ni)."""

    @staticmethod
    def forward(ctx: Any, volume: Tensor, rays: TorchRays, step_mm: float) -> Tensor:
        ctx.rays, ctx.step_mm, ctx.shape = rays, step_mm, tuple(volume.shape)
        return _compiled_sums(volume, rays, step_mm) if volume.device.type == "cpu" else _sums(volume, rays, step_mm)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = slopes
        adjoint = _compiled_adjoint if slope.device.type == "cpu" else _adjoint
        return adjoint(slope.contiguous(), ctx.rays, ctx.step_mm, ctx.shape), None, None


def _kernels() -> Any:
    """The compiled loops.

    Raises:
        MissingDependencyError: numba is not installed.
    """
    try:
        from XRayRegistrationLib.drr import _derivative_kernels
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise MissingDependencyError("numba", "the slope of a learned similarity", "numba") from error
    return _derivative_kernels


def _compiled_sums(volume: Tensor, rays: TorchRays, step_mm: float) -> Tensor:
    kernels = _kernels()
    padded = pad(volume.detach(), (1,) * 6).permute(1, 2, 3, 0).contiguous()
    out = np.empty((*rays.count.shape, len(volume), _SUMS), dtype=np.float32)
    kernels.line_sums(padded.numpy(), (rays.origin + 1.0).numpy(), rays.direction.numpy(), step_mm, out)
    return torch.from_numpy(out)


def _compiled_adjoint(slope: Tensor, rays: TorchRays, step_mm: float, shape: tuple[int, ...]) -> Tensor:
    kernels = _kernels()
    from numba import get_num_threads

    channels, nk, nj, ni = shape
    out = np.zeros((get_num_threads(), nk + 2, nj + 2, ni + 2, channels), dtype=np.float32)
    kernels.line_sums_adjoint(slope.numpy(), (rays.origin + 1.0).numpy(), rays.direction.numpy(), step_mm, out)
    total = out[0] if len(out) == 1 else out.sum(axis=0)
    return torch.from_numpy(total[1:-1, 1:-1, 1:-1].transpose(3, 0, 1, 2).copy())


def _sums(volume: Tensor, rays: TorchRays, step_mm: float) -> Tensor:
    field = field_of(volume.detach())
    poses, n_rays = rays.count.shape
    out = volume.new_zeros((len(volume), poses * n_rays, _SUMS))
    for chunk, n in ray_chunks(rays, len(volume)):
        index, t = ray_samples(rays, chunk, n, step_mm, volume.dtype)
        value, gradient = sample_with_gradient(field, index)
        parts = [value.sum(-1), *(g.sum(-1) for g in gradient), *((g * t).sum(-1) for g in gradient)]
        out[:, chunk] = torch.stack(parts, -1) * step_mm
    return out.reshape(len(volume), poses, n_rays, _SUMS).permute(1, 2, 0, 3).contiguous()


def _adjoint(slope: Tensor, rays: TorchRays, step_mm: float, shape: tuple[int, ...]) -> Tensor:
    """As autograd would, chunk by chunk, with a tape no longer than a chunk."""
    with torch.enable_grad():
        zero = slope.new_zeros(shape).requires_grad_()
        field = field_of(zero)
        flat = slope.reshape(-1, shape[0], _SUMS).transpose(0, 1) * step_mm
        total = torch.zeros_like(field.values)
        for chunk, n in ray_chunks(rays, shape[0]):
            leaf = field.values.detach().requires_grad_()
            index, t = ray_samples(rays, chunk, n, step_mm, slope.dtype)
            value, gradient = sample_with_gradient(Field(leaf, field.shape), index)
            s = flat[:, chunk]
            parts = (value.sum(-1), *(g.sum(-1) for g in gradient), *((g * t).sum(-1) for g in gradient))
            loss = sum((p * s[..., k]).sum() for k, p in enumerate(parts))
            total += torch.autograd.grad(loss, leaf)[0]
    nk, nj, ni = (n + 2 * PAD for n in shape[1:])
    inner = slice(PAD, -PAD)
    return total.reshape(shape[0], nk, nj, ni)[:, inner, inner, inner].contiguous()
