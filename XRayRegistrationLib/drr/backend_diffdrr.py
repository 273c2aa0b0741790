"""DiffDRR's renderers (the ``diffdrr`` package, 0.6 or later) behind the same functions.

Backend ``diffdrr`` is its Siddon renderer, ``diffdrr_trilinear`` its trilinear one. What differs
from ours:

- Siddon integrates a piecewise constant field (each voxel a box around its centre), so the image
  agrees with ours on smooth volumes only, and ``step_mm`` has no meaning. Its derivative in the
  pose comes from the lengths in the voxels alone: exact for that field, noisy, and far off where
  rays graze a plane of voxels (10 to 30 % in the mean at beams within 3 degrees of one).
- Its distances run from the source to the detector; ours to infinity. The detector is moved back
  where the volume reaches behind it, which changes no ray.
- Siddon also counts voxels behind the source.

The Jacobian is by DiffDRR's own autograd: one backward pass gives the derivative of each pixel in
the two ends of its ray, and the rest is the chain rule of a rigid motion (design section 6).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.errors import MissingDependencyError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.diffdrr_frame import diffdrr_from_camera, diffdrr_from_camera_from_ct

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]

_SAMPLES_AT_ONCE = 1 << 20  # some 200 bytes each with the tape
_DEFAULT_SDD_MM = 1000.0  # for a camera that knows only K: it scales the detector, not the rays


class DiffDrrRays:
    """One channel and one camera in a ``diffdrr.drr.DRR``: rays of a pose, and their integrals.

    The world of this module is the ct frame moved to the centre of the volume, as
    ``diffdrr.data.read`` does: its tensors are float32.

    Args:
        mu: (nk, nj, ni), what is integrated per mm.
        ct_from_ijk: 4x4.
        camera: intrinsics.
        renderer: ``"siddon"`` or ``"trilinear"``.
        detector_mm: where the plane of pixels is put along the beam.
        padded: one zero voxel around, so that the trilinear field falls to 0 as ours does; DiffDRR
            itself does not. An axis of a single voxel is always padded: DiffDRR would drop it.
    """

    def __init__(
        self,
        mu: NDArray[np.float32],
        ct_from_ijk: Array,
        camera: Camera,
        renderer: str = "siddon",
        detector_mm: float | None = None,
        padded: bool = False,
    ):
        torch, drr, torchio = _imported()
        self.renderer = renderer
        pad = np.array([1 if padded or n == 1 else 0 for n in mu.shape])
        density = np.ascontiguousarray(np.pad(mu, [(p, p) for p in pad]).transpose(2, 1, 0))[None]
        shift = np.eye(4)
        shift[:3, 3] = -pad[::-1]
        affine = ct_from_ijk @ shift
        self.centre_ct = (affine @ [*(np.array(density.shape[1:]) - 1) / 2.0, 1.0])[:3]
        affine = affine.copy()
        affine[:3, 3] -= self.centre_ct
        image = torchio.ScalarImage(tensor=torch.from_numpy(density), affine=affine)
        subject = torchio.Subject(volume=image, density=image, mask=None, reorient=torch.eye(4))
        sdd = detector_mm or camera.source_detector_distance_mm or _DEFAULT_SDD_MM
        detector = diffdrr_from_camera(replace(camera, source_detector_distance_mm=sdd))
        self.drr = drr.DRR(subject, renderer=renderer, **detector).to(_device(torch))
        corners = np.array([[i, j, k, 1.0] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
        half = np.array([*np.array(density.shape[1:]) / 2.0, 0.0])
        self._corners = (corners * half) @ affine.T[:, :3]

    def pose(self, camera_from_ct: Array) -> Array:
        """DiffDRR's pose (4, 4), its camera to its world with no reorientation, of ``camera_from_ct``."""
        return diffdrr_from_camera_from_ct(camera_from_ct, self.centre_ct, orientation=None)

    def ends(self, pose: Tensor) -> tuple[Tensor, Tensor]:
        """Source (1, 3) and pixels (R, 3) in the world, in mm; differentiable in ``pose`` (4, 4)."""
        from diffdrr.pose import RigidTransform

        source, target = self.drr.detector(RigidTransform(pose.to(self.drr.density)[None]), None)
        return source[0], target[0]

    def integrate(self, source: Tensor, target: Tensor, step_mm: float | None = None) -> Tensor:
        """Line integrals (R,) from ``source`` (1, 3) to ``target`` (R, 3); no tape."""
        import torch

        with torch.no_grad():
            options = self._options(source, target, step_mm)
            parts = [
                self.drr.render(self.drr.density, source[None], target[None, chunk], **options).reshape(-1)
                for chunk in self._chunks(len(target), options)
            ]
        return torch.cat(parts)

    def integrate_with_gradients(
        self, source: Tensor, target: Tensor, step_mm: float | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Line integrals (R,), and each one's derivative (R, 3) in its source and in its pixel, per mm."""
        import torch

        options = self._options(source, target, step_mm)
        parts = []
        for chunk in self._chunks(len(target), options):
            end = target.detach()[None, chunk].clone().requires_grad_()
            begin = source.detach().expand(end.shape).clone().requires_grad_()
            image = self.drr.render(self.drr.density, begin, end, **options).reshape(-1)
            by_begin, by_end = torch.autograd.grad(image.sum(), (begin, end))
            parts.append((image.detach(), by_begin[0], by_end[0]))
        return tuple(torch.cat(p) for p in zip(*parts, strict=True))

    def _options(self, source: Tensor, target: Tensor, step_mm: float | None) -> dict[str, Any]:
        """Where the trilinear renderer samples: the same for all chunks, and constant in the pose."""
        if self.renderer != "trilinear":
            return {}
        s = source.detach().cpu().double().numpy()[0]
        rays = target.detach().cpu().double().numpy() - s
        length = np.linalg.norm(rays, axis=1)
        depth = np.linalg.norm(self._corners - s, axis=1)
        centre, reach = np.linalg.norm(s), np.linalg.norm(self._corners, axis=1).max()
        near = max(0.0, centre - reach) / length.max()
        far = min(1.0, depth.max() / length.min())
        step = 0.5 * float(np.linalg.norm(self.drr.affine.matrix[0, :3, :3].cpu().numpy(), axis=0).min())
        n = int(np.ceil((far - near) * length.max() / (step_mm or step))) + 1
        at = {"alphamin": near, "alphamax": far}
        return {"n_points": max(n, 2), **{k: source.new_tensor(v) for k, v in at.items()}}

    def _chunks(self, n_rays: int, options: dict[str, Any]) -> Iterator[slice]:
        samples = options.get("n_points", sum(self.drr.density.shape) + 3)
        size = max(1, _SAMPLES_AT_ONCE // samples)
        for begin in range(0, n_rays, size):
            yield slice(begin, begin + size)


def render_rays(
    volume: AttenuationVolume,
    camera: Camera,
    camera_from_ct: Array,
    step_mm: float,
    *,
    renderer: str = "siddon",
) -> NDArray[np.float32]:
    """Images (N, channels, height, width) at poses (N, 4, 4); see drr.render."""
    torch = _imported()[0]
    out = np.empty((len(camera_from_ct), len(volume.channels), camera.height, camera.width), np.float32)
    detector_mm = _detector_mm(volume, camera, camera_from_ct)
    for c, mu in enumerate(volume.channels):
        rays = DiffDrrRays(mu, volume.ct_from_ijk, camera, renderer, detector_mm, padded=renderer == "trilinear")
        for n, pose in enumerate(camera_from_ct):
            source, target = rays.ends(torch.from_numpy(rays.pose(pose)))
            out[n, c] = rays.integrate(source, target, step_mm).cpu().numpy().reshape(out.shape[2:])
    return out


def render_rays_with_jacobian(
    volume: AttenuationVolume,
    camera: Camera,
    camera_from_ct: Array,
    centre_camera: Array,
    step_mm: float,
    *,
    renderer: str = "siddon",
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images (N, channels, height, width) and Jacobians (N, channels, 6, height, width).

    With a the source and b the pixel in camera mm, A = dI/da and B = dI/db in camera axes: moving
    the CT by (w, v) about c moves both ends by -(w x (p - c) + v) in the CT, so
    dI/dv = -(A + B) and dI/dw = -((a - c) x A + (b - c) x B), with a = 0.
    """
    torch = _imported()[0]
    shape = (len(camera_from_ct), len(volume.channels), camera.height, camera.width)
    image = np.empty(shape, np.float32)
    jacobian = np.empty((*shape[:2], 6, *shape[2:]), np.float32)
    detector_mm = _detector_mm(volume, camera, camera_from_ct)
    b = camera.ray_directions().reshape(-1, 3) * detector_mm
    for c, mu in enumerate(volume.channels):
        rays = DiffDrrRays(mu, volume.ct_from_ijk, camera, renderer, detector_mm, padded=renderer == "trilinear")
        for n, pose in enumerate(camera_from_ct):
            source, target = rays.ends(torch.from_numpy(rays.pose(pose)))
            value, by_source, by_target = rays.integrate_with_gradients(source, target, step_mm)
            camera_rotation = pose[:3, :3].T
            da = by_source.cpu().double().numpy() @ camera_rotation
            db = by_target.cpu().double().numpy() @ camera_rotation
            turning = np.cross(-centre_camera[n], da) + np.cross(b - centre_camera[n], db)
            image[n, c] = value.cpu().numpy().reshape(shape[2:])
            jacobian[n, c] = -np.concatenate([turning, da + db], axis=1).T.reshape(6, *shape[2:])
    return image, jacobian


def _detector_mm(volume: AttenuationVolume, camera: Camera, camera_from_ct: Array) -> float:
    """The camera's SDD, or further back where the volume would reach through the detector."""
    n = np.array(volume.mu.shape[:-4:-1])
    ijk = np.array([[i, j, k] for i in (-1, n[0]) for j in (-1, n[1]) for k in (-1, n[2])], dtype=np.float64)
    ct = ijk @ volume.ct_from_ijk[:3, :3].T + volume.ct_from_ijk[:3, 3]
    depth = np.asarray(camera_from_ct)[:, 2, :3] @ ct.T + np.asarray(camera_from_ct)[:, 2, 3:4]
    return float(max(camera.source_detector_distance_mm or _DEFAULT_SDD_MM, 1.01 * depth.max()))


def _device(torch: Any) -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _imported() -> tuple[Any, Any, Any]:
    """torch, diffdrr.drr and torchio, which diffdrr brings along."""
    try:
        import torch
        import torchio
        from diffdrr import drr
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "diffdrr", "the backend 'diffdrr'", "diffdrr") from error
    return torch, drr, torchio
