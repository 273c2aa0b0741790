"""The geometry of simulated X-rays, before any appearance: path lengths, and the bone that each ray meets.

It is what costs time (some 15 ms an image of 128 px); an appearance on top of it (``appearance.develop``)
costs one, so shots are kept and developed many times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.drr.render import first_last_hit, render
from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.errors import InputError, MissingDependencyError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import inverse
from XRayRegistrationLib.simulation.subject import MATERIALS, Subject

if TYPE_CHECKING:
    from torch import Tensor

_INSIDE = 0.5  # of a voxel in the bone: the surface of its mask
_LEAST_LABEL_MM = 1.0  # of a label on a ray, for the ray to meet it


@dataclass(frozen=True, eq=False)
class Shots:
    """N X-rays of one subject without their appearance; tensors are on one device.

    Attributes:
        camera: of the images, width W and height H.
        camera_from_ct: (N, 4, 4) float64, NumPy.
        path_mm: (N, 3, H, W) float32, mm of soft tissue, bone and metal on each ray, as
            water-, cortical-bone- and metal-equivalents.
        hits_camera: of the hits, w x h pixels.
        hits_ct: (N, 2, 3, h, w) float32, ct mm of the first (entry) and last (exit) point of the
            bone's mask on each ray; NaN where it meets none.
    """

    camera: Camera
    camera_from_ct: NDArray[np.float64]
    path_mm: Tensor
    hits_camera: Camera
    hits_ct: Tensor


def shoot(
    subject: Subject, camera: Camera, camera_from_ct: ArrayLike, *, hits_stride: int = 2, device: str = "cpu"
) -> Shots:
    """Path lengths and hits of a subject from poses (N, 4, 4), or one (4, 4).

    Args:
        hits_stride: pixels of the image for one of the hits, along each side.
        device: where the tensors go. On the CPU the fast renderer (numba) makes them, else torch there.

    Raises:
        InputError: poses of another shape, or an image size that the stride does not divide.
    """
    poses = _poses(camera_from_ct)
    hits_camera = coarser_camera(camera, hits_stride)
    materials = subject.rendered
    step_mm = _plane_step_mm(materials)
    torch = _torch()
    path = torch.zeros((len(poses), len(MATERIALS), camera.height, camera.width), device=device)
    share = subject.bone_share
    hit_step_mm = 0.5 * float(share.spacing_mm.min())
    if torch.device(device).type == "cpu":
        threads = torch.get_num_threads()
        rendered = torch.from_numpy(render(materials, camera, poses, step_mm=step_mm))
        depth = torch.from_numpy(first_last_hit(share, hits_camera, poses, _INSIDE, step_mm=hit_step_mm))
        torch.set_num_threads(threads)  # numba shares torch's OpenMP, and left its own number there
    else:
        from XRayRegistrationLib.drr import backend_torch

        rendered = backend_torch.line_integrals(materials, camera, poses, 0.5 * step_mm, device=device)
        depth = backend_torch.hit_depths(share, hits_camera, poses, _INSIDE, hit_step_mm, device=device)
    path[:, list(subject.present)] = rendered
    return Shots(camera, poses, path, hits_camera, points_at_depth(hits_camera, poses, depth))


def points_at_depth(camera: Camera, camera_from_ct: NDArray[np.float64], depth_mm: Tensor) -> Tensor:
    """ct points (N, m, 3, h, w) float32 of the pixels' rays at depths z (N, m, h, w); NaN stays NaN.

    x_ct = ct_from_camera (z d), d the ray's direction with z = 1, formed in float64: a point
    projects back onto its pixel's centre.
    """
    torch = _torch()
    d = torch.as_tensor(camera.ray_directions(), device=depth_mm.device)  # (h, w, 3)
    ct_from_camera = torch.as_tensor(inverse(camera_from_ct), device=depth_mm.device)
    turned = torch.einsum("nab,hwb->nahw", ct_from_camera[:, :3, :3], d)
    points = turned[:, None] * depth_mm.double()[:, :, None] + ct_from_camera[:, None, :3, 3, None, None]
    out: Tensor = points.float()
    return out


def landmarks_px(
    subject: Subject, camera: Camera, camera_from_ct: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Pixels (N, n, 2) of the subject's landmarks, NaN behind the source, and which are on the image (N, n)."""
    poses = _poses(camera_from_ct)
    points_camera = subject.landmarks_ct @ np.swapaxes(poses[:, :3, :3], 1, 2) + poses[:, None, :3, 3]
    pixels = camera.project(points_camera)
    return pixels, camera.in_view(pixels)


def label_shadows(
    subject: Subject, camera: Camera, camera_from_ct: ArrayLike, *, stride: int = 2, device: str = "cpu"
) -> Tensor:
    """Which labels each ray meets over at least 1 mm: (N, L, h, w) bool, in the order of ``subject.label_values``.

    Raises:
        InputError: the subject has no labels.
    """
    poses, small = _poses(camera_from_ct), coarser_camera(camera, stride)
    shares = subject.label_share
    step_mm = _plane_step_mm(shares)
    torch = _torch()
    if torch.device(device).type == "cpu":
        threads = torch.get_num_threads()
        length = torch.from_numpy(render(shares, small, poses, step_mm=step_mm))
        torch.set_num_threads(threads)
    else:
        from XRayRegistrationLib.drr import backend_torch

        length = backend_torch.line_integrals(shares, small, poses, 0.5 * step_mm, device=device)
    met: Tensor = length > _LEAST_LABEL_MM
    return met


def coarser_camera(camera: Camera, stride: int) -> Camera:
    """The camera of the image averaged over ``stride`` x ``stride`` pixels.

    Raises:
        InputError: the stride does not divide the size.
    """
    if stride < 1 or camera.width % stride or camera.height % stride:
        raise InputError(
            f"the stride {stride} does not divide the image of {camera.width} x {camera.height} pixels; "
            "allowed is a whole number of at least 1 that divides both"
        )
    return camera.resized(camera.width // stride, camera.height // stride)


def _plane_step_mm(volume: AttenuationVolume) -> float:
    """One voxel: then the fast renderer samples at voxel planes, which is as exact as half the step anywhere."""
    spacing = volume.spacing_mm
    return float(min(spacing.max(), 1.5 * spacing.min()))


def _poses(camera_from_ct: ArrayLike) -> NDArray[np.float64]:
    poses = np.asarray(camera_from_ct, dtype=np.float64)
    poses = poses[None] if poses.ndim == 2 else poses
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise InputError(f"camera_from_ct has the shape {poses.shape}; allowed is (4, 4) or (N, 4, 4)")
    return poses


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingDependencyError("torch", "simulating X-rays", "torch") from error
    return torch
