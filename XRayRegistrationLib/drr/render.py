"""Digitally reconstructed radiographs, and their derivative in the pose.

One function for each, whatever computes it: :func:`render`, :func:`render_with_jacobian`,
:func:`first_last_hit`. A backend is a module ``backend_<name>`` in this room with ``render_rays``
and ``render_rays_with_jacobian``; the plain one is ``backend_scipy``, and every other has parity
tests against it.

The image is the line integral of attenuation along each ray, from the source to infinity::

    I(u, v) = step * sum_k mu(ct_from_camera(t_k d / |d|)),   t_k = (k + 1/2) step,

with d the ray's direction: samples sit at fixed distances from the source, so they do not move
with the pose and the sum's own derivative is exact. (The numba backend's coarser steps are voxel
planes, which do: there it is the integral's derivative, to the sum's accuracy.) With g = R grad mu
the gradient in camera axes, moving the CT by the step (w, v) about c (rigid.increment_left) changes
the image by

    dI/dv = -G,   dI/dw = -(integral of x cross g - c cross G),   G = integral of g,

and x = z d is a multiple of the ray, so G and H = integral of z g are all that is accumulated.

A ray starts and ends outside of matter, so G has no component along it. The samples leave a little
there by chance; it is taken out, for it would drown the derivative in depth, which is five to ten
times smaller than in the plane (Gauss-Newton's depth steps came out several times too short).
"""

from __future__ import annotations

import importlib.util
from importlib import import_module
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera

Image = NDArray[np.float32]

BACKENDS = ("scipy", "numba", "torch", "diffdrr")


def resolve_backend(name: str) -> str:
    """``"auto"`` is numba where it is installed, else scipy.

    Raises:
        InputError: not one of :data:`BACKENDS`.
    """
    if name == "auto":
        return "numba" if importlib.util.find_spec("numba") is not None else "scipy"
    if name not in BACKENDS:
        raise InputError(f"backend {name!r} is unknown; allowed are auto, {', '.join(BACKENDS)}")
    return name


def default_step_mm(volume: AttenuationVolume) -> float:
    """Half of the smallest voxel edge: within 0.1 % of the exact integral on smooth fields."""
    return 0.5 * float(volume.spacing_mm.min())


def render(
    volume: AttenuationVolume,
    camera: Camera,
    camera_from_ct: ArrayLike,
    *,
    backend: str = "auto",
    step_mm: float | None = None,
) -> Image:
    """Line integrals of ``volume`` seen by ``camera``: ([N,] [channels,] height, width), unitless.

    Args:
        volume: the attenuation field.
        camera: its K, width and height.
        camera_from_ct: one pose (4, 4) or a batch (N, 4, 4).
        backend: ``"auto"`` or one of :data:`BACKENDS`.
        step_mm: distance between samples; None is half the smallest voxel edge.
    """
    poses, single = _batched(camera_from_ct)
    step = default_step_mm(volume) if step_mm is None else float(step_mm)
    image = _module(backend).render_rays(volume, camera, poses, step)
    return _squeezed(image, volume, single)


def render_with_jacobian(
    volume: AttenuationVolume,
    camera: Camera,
    camera_from_ct: ArrayLike,
    centre_camera: ArrayLike,
    *,
    backend: str = "auto",
    step_mm: float | None = None,
) -> tuple[Image, Image]:
    """Line integrals and their derivative in the pose, from one pass along the rays.

    Args:
        volume, camera, camera_from_ct, backend, step_mm: as for :func:`render`.
        centre_camera: (3,) or (N, 3), the point that rotations turn about, in camera mm.

    Returns:
        The image ([N,] [channels,] height, width), and the Jacobian ([N,] [channels,] 6, height,
        width): d image / d (wx, wy, wz, tx, ty, tz) of ``rigid.increment_left`` at 0, per radian
        and per mm.
    """
    poses, single = _batched(camera_from_ct)
    centres = np.broadcast_to(np.asarray(centre_camera, dtype=np.float64), (len(poses), 3))
    step = default_step_mm(volume) if step_mm is None else float(step_mm)
    image, jacobian = _module(backend).render_rays_with_jacobian(volume, camera, poses, centres, step)
    return _squeezed(image, volume, single), _squeezed(jacobian, volume, single)


def first_last_hit(
    volume: AttenuationVolume,
    camera: Camera,
    camera_from_ct: ArrayLike,
    threshold_mu: float,
    *,
    backend: str = "auto",
    step_mm: float | None = None,
) -> Image:
    """Depths z in camera mm where each ray first enters and last leaves ``mu > threshold_mu``.

    Returns:
        ([N,] 2, height, width), NaN where a ray meets nothing. The crossing is interpolated
        linearly between the two samples around it. Multi-channel volumes are summed.
    """
    poses, single = _batched(camera_from_ct)
    step = default_step_mm(volume) if step_mm is None else float(step_mm)
    module = _module(backend)
    if not hasattr(module, "first_last_hit"):
        module = _module("auto")  # diffdrr renders images alone
    depth = module.first_last_hit(volume, camera, poses, float(threshold_mu), step)
    return depth[0] if single else depth


def _module(backend: str) -> ModuleType:
    return import_module(f"XRayRegistrationLib.drr.backend_{resolve_backend(backend)}")


def _batched(camera_from_ct: ArrayLike) -> tuple[NDArray[np.float64], bool]:
    poses = np.asarray(camera_from_ct, dtype=np.float64)
    if poses.ndim == 2:
        return poses[None], True
    return poses, False


def _squeezed(image: Image, volume: AttenuationVolume, single: bool) -> Image:
    if volume.mu.ndim == 3:
        image = image[:, 0]
    return image[0] if single else image
