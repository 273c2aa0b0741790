"""Adam on DiffDRR's renderer: its registration as RayEmb runs it, the baseline of the field.

Methods sheets 1.6, 6.2 and A7: the X-ray at 224 px, DiffDRR's density with bone times 2.5, Siddon,
1/2 NCC + 1/2 NCC of all 23 px patches, Adam (AMSGrad, maximising) on the SE(3) logarithm of
DiffDRR's own pose with steps of 7e-3 rad and 7 mm, a tenth less every 25 iterations, 100
iterations, the best of them kept.

What is not from there: masked pixels do not count, and several views may share the pose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.drr.backend_diffdrr import DiffDrrRays
from XRayRegistrationLib.drr.volume import WATER_MU_PER_MM
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.diffdrr_frame import camera_from_ct_from_diffdrr, diffdrr_from_camera_from_ct
from XRayRegistrationLib.geometry.rigid import check_rigid, inverse, se3_exp, se3_log
from XRayRegistrationLib.images.resize import resize_xray
from XRayRegistrationLib.solvers.problem import SolveResult, View

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
Progress = Callable[[float, str], None]

_NCC_EPS = 1e-5  # DiffDRR adds it to the variances of images and patches

# what DiffDRR's orientation "AP" does before its pose, and its camera's axes in ours
_REORIENT_AP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
_CAMERA_FROM_DIFFDRR = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class FirstOrderOptions:
    """The baseline's settings (methods sheets 1.6 and A7).

    Attributes:
        size_px: longer side that the X-ray is reduced to (it is never enlarged).
        iterations: renders with gradient; the start is the first.
        rotation_rate: Adam's step in rad. translation_rate: in mm.
        decay_every: iterations between two reductions of the steps. decay: their factor.
        ncc_weight, patch_weight: of the global NCC and of the patches' mean NCC.
        patch_px: side of a patch (DiffPose: 13).
        renderer: DiffDRR's, ``"siddon"`` or ``"trilinear"``.
        bone_multiplier: of what is above 350 HU.
        step_mm: of the trilinear renderer; None is half the smallest voxel edge.
    """

    size_px: int = 224
    iterations: int = 100
    rotation_rate: float = 7e-3
    translation_rate: float = 7.0
    decay_every: int = 25
    decay: float = 0.9
    ncc_weight: float = 0.5
    patch_weight: float = 0.5
    patch_px: int = 23
    renderer: str = "siddon"
    bone_multiplier: float = 2.5
    step_mm: float | None = None

    def __post_init__(self) -> None:
        if self.renderer not in ("siddon", "trilinear"):
            raise InputError(f"renderer is {self.renderer!r}; allowed are 'siddon' and 'trilinear'")
        for name in ("size_px", "iterations", "decay_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)!r}; allowed is a whole number, at least 1")
        if self.patch_px < 3 or self.patch_px % 2 == 0:
            raise InputError(f"patch_px is {self.patch_px!r}; allowed is an odd number of pixels, at least 3")


def solve(
    views: Sequence[View],
    start_rig_from_ct: ArrayLike,
    centre_ct: ArrayLike | None = None,
    options: FirstOrderOptions | None = None,
    progress: Progress | None = None,
) -> SolveResult:
    """Register by Adam through DiffDRR's renderer.

    Args:
        views: X-rays that share one pose, each with the volume to render (DiffDRR: the whole CT).
        start_rig_from_ct: 4x4; of a single view this is camera_from_ct.
        centre_ct: not used; poses turn about the centre of the first view's volume, where DiffDRR
            puts the origin of its world.
        options: None for the baseline's.
        progress: ``(fraction, text)``; raising from it cancels.

    Returns:
        The best pose seen, the start among them; its cost is minus the weighted NCC.

    Raises:
        MissingDependencyError: torch or diffdrr is not installed.
        InputError: no view, a start that is not rigid, or a mask that leaves no patch.
    """
    options = options or FirstOrderOptions()
    if not views:
        raise InputError("there is no view to register; allowed is one X-ray or several")
    start = check_rigid(start_rig_from_ct, "the start pose")
    scenes = [_Scene(view, views[0], options) for view in views]
    import torch
    from diffdrr.pose import convert

    centre = views[0].volume.centre_ct
    twist = se3_log(diffdrr_from_camera_from_ct(views[0].camera_from_rig @ start, centre, "AP"))
    rotation, translation = (torch.tensor(twist[None, part], dtype=torch.float32) for part in np.s_[:3, 3:])
    parameters = [rotation.requires_grad_(), translation.requires_grad_()]
    adam = torch.optim.Adam(
        [
            {"params": [rotation], "lr": options.rotation_rate},
            {"params": [translation], "lr": options.translation_rate},
        ],
        amsgrad=True,
        maximize=True,
    )
    schedule = torch.optim.lr_scheduler.StepLR(adam, step_size=options.decay_every, gamma=options.decay)
    best_value, best, start_value, trace = -np.inf, twist, 0.0, []
    for iteration in range(options.iterations):
        adam.zero_grad()
        value = 0.0
        for scene in scenes:  # each with a graph of its own, as backward frees it
            diffdrr_pose = convert(*parameters, parameterization="se3_log_map").matrix[0]
            value += scene.similarity_with_gradient(diffdrr_pose) / len(scenes)
        if iteration == 0:
            start_value = value
        if value > best_value:
            best_value, best = value, np.concatenate([p.detach().double().numpy()[0] for p in parameters])
        trace.append({"iteration": iteration, "similarity": value})
        if progress is not None:
            progress((iteration + 1) / options.iterations, f"Adam iteration {iteration + 1}, similarity {value:.4f}")
        adam.step()
        schedule.step()
    improved = best_value > start_value
    rig_from_ct = start
    if improved:
        camera_from_ct = camera_from_ct_from_diffdrr(se3_exp(best), centre, "AP")
        rig_from_ct = inverse(views[0].camera_from_rig) @ camera_from_ct
    message = f"{options.iterations} iterations of Adam"
    if not improved:
        message += "; nothing they found is better than the start"
    # a fixed number of iterations is all the baseline has: it does not know whether it converged
    return SolveResult(rig_from_ct, -best_value, -start_value, options.iterations, False, message, tuple(trace))


def diffdrr_density(mu: NDArray[np.float32], bone_multiplier: float) -> NDArray[np.float32]:
    """DiffDRR's density in [0, 1] from attenuation (mm^-1), as from HU (methods sheet 6.1).

    Air (up to -800 HU) becomes as thin as the thinnest soft tissue, bone (above 350 HU) is
    multiplied; then the least is subtracted and the largest divided out.

    Raises:
        InputError: nothing is denser than air.
    """
    hu = mu * np.float32(1000.0 / WATER_MU_PER_MM) - np.float32(1000.0)
    air, bone = hu <= -800.0, hu > 350.0
    if air.all():
        raise InputError("the volume holds nothing but air; allowed is a CT in HU, or attenuation in mm^-1")
    soft = ~air & ~bone
    thinnest = hu[soft].min() if soft.any() else np.float32(-800.0)
    density = np.where(air, thinnest, np.where(bone, np.float32(bone_multiplier) * hu, hu))
    density -= density.min()
    if not density.any():
        raise InputError("the volume is the same everywhere; allowed is a CT in HU, or attenuation in mm^-1")
    return (density / density.max()).astype(np.float32)


class _Scene:
    """One view: its small X-ray, its DRR module, and how its pose hangs on the first view's."""

    def __init__(self, view: View, first: View, options: FirstOrderOptions):
        camera = view.xray.camera
        scale = min(1.0, options.size_px / max(camera.width, camera.height))
        xray = resize_xray(view.xray, max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))
        self.options = options
        density = diffdrr_density(view.volume.channels.sum(axis=0), options.bone_multiplier)
        self.rays = DiffDrrRays(density, view.volume.ct_from_ijk, xray.camera, options.renderer)
        import torch

        device = self.rays.drr.density.device
        mask = xray.mask
        if not mask.any():
            raise InputError("the mask of the X-ray holds no valid pixel; allowed is a mask with pixels to compare")
        image = np.where(mask, xray.line_integrals, 0.0).astype(np.float64)
        low, high = image[mask].min(), image[mask].max()
        image = np.where(mask, (image - low) / max(high - low, 1e-12), 0.0)
        self.fixed = torch.as_tensor(image, device=device)
        self.mask = torch.as_tensor(mask, device=device)
        _check_patches(self.mask, options.patch_px)
        # world of this view from the first's (only the origin differs), and this camera from the first's
        shift = np.eye(4)
        shift[:3, 3] = first.volume.centre_ct - view.volume.centre_ct
        between = first.camera_from_rig @ inverse(view.camera_from_rig)
        between = _CAMERA_FROM_DIFFDRR @ between @ _CAMERA_FROM_DIFFDRR
        self.before = torch.as_tensor(shift, dtype=torch.float32)
        self.after = torch.as_tensor(_REORIENT_AP @ between, dtype=torch.float32)

    def similarity_with_gradient(self, diffdrr_pose: Tensor) -> float:
        """The weighted NCC at DiffDRR's pose (4, 4); its gradient is added to the leaves'.

        Pixels are rendered in chunks that keep each one's derivative in the ends of its ray; the
        chain rule from there to the pose is autograd's again. So no tape of the whole image.
        """
        import torch

        source, target = self.rays.ends(self.before @ diffdrr_pose @ self.after)
        values, by_source, by_target = self.rays.integrate_with_gradients(source, target, self.options.step_mm)
        image = values.reshape(self.fixed.shape).double().requires_grad_()
        value = weighted_ncc(image, self.fixed, self.mask, self.options)
        (by_image,) = torch.autograd.grad(value, image)
        by_image = by_image.reshape(-1, 1).to(by_source)
        torch.autograd.backward([source.expand(target.shape), target], [by_image * by_source, by_image * by_target])
        return float(value.detach())


def weighted_ncc(moving: Tensor, fixed: Tensor, mask: Tensor, options: FirstOrderOptions) -> Tensor:
    """ncc_weight NCC + patch_weight mean NCC of whole valid patches, of float64 images (h, w).

    With DiffDRR's normalisation, (x - mean) / sqrt(var + 1e-5), and box sums in place of its
    unfolded patches.
    """
    import torch

    weight = mask.to(moving)
    # a constant taken off first keeps the digits of the box sums
    a = torch.where(mask, moving - moving[mask].mean(), torch.zeros_like(moving))
    b = torch.where(mask, fixed - fixed[mask].mean(), torch.zeros_like(fixed))
    n = weight.sum()
    total = (a * b).sum() / n / torch.sqrt(((a * a).sum() / n + _NCC_EPS) * ((b * b).sum() / n + _NCC_EPS))
    p = options.patch_px
    means = torch.nn.functional.avg_pool2d(torch.stack([a, b, a * a, b * b, a * b])[None], p, stride=1)[0]
    ma, mb, maa, mbb, mab = means
    # rounding may leave a variance just below 0
    va, vb = (maa - ma * ma).clamp(min=0.0), (mbb - mb * mb).clamp(min=0.0)
    local = (mab - ma * mb) / torch.sqrt((va + _NCC_EPS) * (vb + _NCC_EPS))
    return options.ncc_weight * total + options.patch_weight * local[_whole_patches(mask, p)].mean()


def _whole_patches(mask: Tensor, patch_px: int) -> Tensor:
    """(h - p + 1, w - p + 1) bool: every pixel of the patch is valid."""
    from torch.nn.functional import max_pool2d

    return max_pool2d((~mask).double()[None, None], patch_px, stride=1)[0, 0] == 0


def _check_patches(mask: Any, patch_px: int) -> None:
    h, w = mask.shape
    if min(h, w) < patch_px or not bool(_whole_patches(mask, patch_px).any()):
        raise InputError(
            f"the mask leaves no whole patch of {patch_px} x {patch_px} px in the X-ray at {w} x {h} px; "
            "allowed is a smaller patch_px or a larger mask"
        )
