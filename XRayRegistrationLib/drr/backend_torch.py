"""The torch renderer: on the GPU where there is one, and differentiable in the pose.

:func:`render_rays` and :func:`render_rays_with_jacobian` keep no tape: the Jacobian is
accumulated along the rays as in every other backend (drr.render), in chunks of bounded memory.
:func:`render_torch` is for the learned methods: a torch function of the pose and the volume that
autograd can differentiate twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.drr.torch_field import (
    Field,
    TorchRays,
    cast_rays,
    field_of,
    ray_chunks,
    ray_samples,
    sample,
    sample_with_gradient,
    unit_directions,
)
from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.errors import MissingDependencyError
from XRayRegistrationLib.geometry.camera import Camera

if TYPE_CHECKING:
    from torch import Tensor

# some 30 temporaries of this many float32: on the CPU they stay in its cache, which is twice as fast


def render_rays(
    volume: AttenuationVolume,
    camera: Camera,
    camera_from_ct: NDArray[np.float64],
    step_mm: float,
    *,
    device: str | None = None,
) -> NDArray[np.float32]:
    """Images (N, channels, height, width) at poses (N, 4, 4); see drr.render.

    ``device`` is a torch device; None is the GPU where torch has one, else the CPU.
    """
    image = line_integrals(volume, camera, camera_from_ct, step_mm, device=device)
    return np.ascontiguousarray(image.cpu().numpy())


def line_integrals(
    volume: AttenuationVolume,
    camera: Camera,
    camera_from_ct: NDArray[np.float64],
    step_mm: float,
    *,
    device: str | None = None,
) -> Tensor:
    """As :func:`render_rays`, left on the device as a tensor without a tape."""
    torch = _torch()
    with torch.no_grad():
        field, rays = _prepared(volume, camera, camera_from_ct, step_mm, device)
        out = torch.zeros((len(field.values), rays.count.numel()), device=rays.count.device)
        for chunk, n in ray_chunks(rays, len(field.values)):
            index, _ = ray_samples(rays, chunk, n, step_mm, out.dtype)
            out[:, chunk] = sample(field, index).sum(-1) * step_mm
        image: Tensor = out.reshape(-1, len(camera_from_ct), camera.height, camera.width).transpose(0, 1)
        return image


def first_last_hit(
    volume: AttenuationVolume,
    camera: Camera,
    camera_from_ct: NDArray[np.float64],
    threshold_mu: float,
    step_mm: float,
    *,
    device: str | None = None,
) -> NDArray[np.float32]:
    """Depths (N, 2, height, width) of the first and last crossing of ``threshold_mu``; see drr.render."""
    return np.ascontiguousarray(
        hit_depths(volume, camera, camera_from_ct, threshold_mu, step_mm, device=device).cpu().numpy()
    )


def hit_depths(
    volume: AttenuationVolume,
    camera: Camera,
    camera_from_ct: NDArray[np.float64],
    threshold_mu: float,
    step_mm: float,
    *,
    device: str | None = None,
) -> Tensor:
    """As :func:`first_last_hit`, left on the device as a tensor."""
    torch = _torch()
    with torch.no_grad():
        field, rays = _prepared(volume, camera, camera_from_ct, step_mm, device)
        field = Field(field.values.sum(0, keepdim=True), field.shape)
        out = torch.full((2, rays.count.numel()), float("nan"), device=rays.count.device)
        for chunk, n in ray_chunks(rays, 1):
            # one sample more: a ray that leaves the box has left the matter there
            index, t = ray_samples(rays, chunk, n + 1, step_mm, out.dtype)
            mu = sample(field, index)[0]
            inside = mu > threshold_mu
            met = inside.any(-1).nonzero()[:, 0]
            mu, t = mu[met], t[met]
            inside = inside[met].byte()
            first, last = inside.argmax(-1, keepdim=True), n - inside.flip(-1).argmax(-1, keepdim=True)
            before = torch.where(first > 0, mu.gather(-1, (first - 1).clamp(min=0)), torch.zeros_like(mu[:, :1]))
            at_first, at_last = mu.gather(-1, first), mu.gather(-1, last)
            after = mu.gather(-1, (last + 1).clamp(max=n))
            out[0, chunk[met]] = (t.gather(-1, first) - step_mm * (at_first - threshold_mu) / (at_first - before))[:, 0]
            out[1, chunk[met]] = (t.gather(-1, last) + step_mm * (at_last - threshold_mu) / (at_last - after))[:, 0]
        z = unit_directions(camera, out)[:, 2].repeat(len(camera_from_ct))
        depth: Tensor = (out * z).reshape(2, -1, camera.height, camera.width).transpose(0, 1)
        return depth


def render_rays_with_jacobian(
    volume: AttenuationVolume,
    camera: Camera,
    camera_from_ct: NDArray[np.float64],
    centre_camera: NDArray[np.float64],
    step_mm: float,
    *,
    device: str | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images (N, channels, height, width) and Jacobians (N, channels, 6, height, width).

    With G = integral of grad mu and H = integral of t grad mu along a ray of unit direction d,
    both in camera axes: dI/dv = -G, dI/dw = -(d x H - c x G) (design section 6).
    """
    torch = _torch()
    with torch.no_grad():
        field, rays = _prepared(volume, camera, camera_from_ct, step_mm, device)
        n_poses, n_rays = rays.count.shape
        sums = torch.zeros((len(field.values), n_poses * n_rays, 7), device=rays.count.device)
        for chunk, n in ray_chunks(rays, len(field.values)):
            index, t = ray_samples(rays, chunk, n, step_mm, sums.dtype)
            value, gradient = sample_with_gradient(field, index)
            parts = [value.sum(-1), *(g.sum(-1) for g in gradient), *((g * t).sum(-1) for g in gradient)]
            sums[:, chunk] = torch.stack(parts, -1) * step_mm
        sums = sums.reshape(-1, n_poses, n_rays, 7).transpose(0, 1).double()  # (N, C, R, 7)
        to_camera = rays.voxel_from_camera[:, None]  # (N, 1, 3, 3): rows of G times it are in camera axes
        g, h = sums[..., 1:4] @ to_camera, sums[..., 4:7] @ to_camera
        d = unit_directions(camera, g).expand_as(h)
        g = g - d * (g * d).sum(-1, keepdim=True)  # noise of the sampling, see drr.render
        c = torch.as_tensor(np.array(centre_camera), dtype=g.dtype, device=g.device)[:, None, None].expand_as(g)
        rotation = -(torch.linalg.cross(d, h) - torch.linalg.cross(c, g))
        jacobian = torch.cat([rotation, -g], -1).transpose(-1, -2)
        shape = (n_poses, len(field.values), camera.height, camera.width)
        image = sums[..., 0].reshape(shape).float().cpu().numpy()
        return image, jacobian.reshape(*shape[:2], 6, *shape[2:]).float().cpu().numpy()


def render_torch(
    volume: Tensor, ct_from_ijk: ArrayLike, camera: Camera, camera_from_ct: Tensor, step_mm: float | None = None
) -> Tensor:
    """Line integrals as a torch function of the pose and the volume, twice differentiable.

    Args:
        volume: mm^-1, (nk, nj, ni) or (channels, nk, nj, ni), any floating dtype and device.
        ct_from_ijk: 4x4, ct mm of voxel index (i, j, k).
        camera: its K, width and height.
        camera_from_ct: (4, 4) or (N, 4, 4), on the volume's device.
        step_mm: distance between samples; None is half the smallest voxel edge.

    Returns:
        ([N,] [channels,] height, width) in the volume's dtype. The tape holds every sample of
        every ray: for derivatives of an image in the pose alone, ``render_rays_with_jacobian``
        needs no tape.
    """
    torch = _torch()
    channels = volume if volume.ndim == 4 else volume[None]
    poses = camera_from_ct if camera_from_ct.ndim == 3 else camera_from_ct[None]
    affine = np.asarray(ct_from_ijk, dtype=np.float64)
    if step_mm is None:
        step_mm = 0.5 * float(np.linalg.norm(affine[:3, :3], axis=0).min())
    ijk_from_ct = torch.as_tensor(np.linalg.inv(affine), dtype=torch.float64, device=volume.device)
    poses = poses.to(torch.float64)
    nk, nj, ni = channels.shape[1:]
    rays = cast_rays((nk, nj, ni), ijk_from_ct, unit_directions(camera, poses), poses, step_mm)
    field = field_of(channels)
    flat = torch.zeros((len(channels), rays.count.numel()), dtype=volume.dtype, device=volume.device)
    chunks = ray_chunks(rays, len(channels))
    if chunks:
        parts = []
        for chunk, n in chunks:
            index, _ = ray_samples(rays, chunk, n, step_mm, volume.dtype)
            parts.append(sample(field, index).sum(-1) * step_mm)
        flat = flat.index_copy(1, torch.cat([chunk for chunk, _ in chunks]), torch.cat(parts, 1))
    image = flat.reshape(len(channels), len(poses), camera.height, camera.width).transpose(0, 1)
    if volume.ndim == 3:
        image = image[:, 0]
    return image if camera_from_ct.ndim == 3 else image[0]


def default_device() -> str:
    """``"cuda"`` where torch can use it, else ``"cpu"``."""
    return "cuda" if _torch().cuda.is_available() else "cpu"


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingDependencyError("torch", "the backend 'torch'", "torch") from error
    return torch


def _prepared(
    volume: AttenuationVolume, camera: Camera, camera_from_ct: NDArray[np.float64], step_mm: float, device: str | None
) -> tuple[Field, TorchRays]:
    torch = _torch()
    name = default_device() if device is None else str(device)
    key = f"torch-{name}"
    if key not in volume.cache:
        volume.cache[key] = field_of(torch.as_tensor(np.require(volume.channels, requirements="W"), device=name))
    poses = torch.as_tensor(np.array(camera_from_ct), dtype=torch.float64, device=name)
    ijk_from_ct = torch.as_tensor(np.linalg.inv(volume.ct_from_ijk), dtype=torch.float64, device=name)
    nk, nj, ni = volume.mu.shape[-3:]
    return volume.cache[key], cast_rays((nk, nj, ni), ijk_from_ct, unit_directions(camera, poses), poses, step_mm)
