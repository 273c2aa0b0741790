"""Training of RayEmb (Shrestha et al., ACCV 2024): its loss, its validation, its two recipes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.methods.ray_matching import Matching, find_pose_as_published, find_poses, nearest, peaks
from XRayRegistrationLib.methods.ray_templates import (
    Templates,
    TemplateViews,
    Windows,
    point_features,
    render_windows,
    spread_points,
    view_header,
)
from XRayRegistrationLib.networks.ray_encoder import as_seen, ray_encoder
from XRayRegistrationLib.networks.ray_subspaces import sample_field, similarity, soft_basis
from XRayRegistrationLib.networks.unet import LIGHT_WIDTHS
from XRayRegistrationLib.networks.vit import load_pretrained
from XRayRegistrationLib.simulation.appearance import develop, draw_appearance
from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
from XRayRegistrationLib.simulation.pose_samplers import sample_poses
from XRayRegistrationLib.simulation.shots import shoot
from XRayRegistrationLib.simulation.subject import Subject
from XRayRegistrationLib.solvers.pnp import PnpFailure
from XRayRegistrationLib.training.headers import camera_header, ct_header
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.ray_scenes import RayBatch, RayScenes, SceneOptions
from XRayRegistrationLib.training.task import Task, Validation
from XRayRegistrationLib.training.validation import median_mtre

if TYPE_CHECKING:
    from XRayRegistrationLib.methods.rayemb import RayEmbOptions


_RIGHT = 0.04  # of the image's width: a peak this near is counted as right, in the log


def contrast(
    field: Tensor,
    batch: RayBatch,
    width: int,
    height: int,
    temperature: float,
    ridge: float,
    soft_cells: float,
    absent: float | None = None,
    full_size: bool = False,
) -> tuple[Tensor, dict[str, float]]:
    """InfoNCE over all cells: -sum of target * log softmax(sim / temperature), mean over the points.

    One more cell, whose similarity is always ``absent``, stands for "not on this X-ray"; without it those points are
    left out, as published.

    Args:
        field: (B, d, h, w) embeddings of the batch, float32.
        width, height: of the images.
        soft_cells: standard deviation of the Gaussian target in cells; 0 takes the one cell that holds the pixel.
        full_size: cells are pixels; the coefficients are upsampled to them.
    """
    images = len(field)
    templates = batch.seen.shape[2]
    n = batch.pixels.shape[1]
    asked = batch.template_pixels.permute(2, 0, 1, 3).reshape(templates, images * n, 2)
    features = sample_field(field[images - templates :], asked, width, height)
    features = features.reshape(templates, images, n, -1).permute(1, 2, 0, 3)
    sim = similarity(soft_basis(features, batch.seen, ridge), field, (height, width) if full_size else None)
    rows, columns = sim.shape[2:]
    sim = sim.flatten(2)
    weight = batch.weight
    if absent is None:
        weight = weight * batch.present
    else:
        sim = nn.functional.pad(sim, (0, 1), value=absent)
    log_share = torch.log_softmax(sim / temperature, dim=2)
    cells = (batch.pixels + 0.5) * torch.tensor([columns / width, rows / height], device=field.device) - 0.5
    target = _target(cells, rows, columns, soft_cells)
    here = -(target * log_share[..., : rows * columns]).sum(2)
    each = here if absent is None else torch.where(batch.present, here, -log_share[..., -1])
    loss = (each * weight).sum() / weight.sum().clamp(min=1.0)
    with torch.no_grad():
        best = sim[..., : rows * columns].argmax(2)
        found = torch.stack([best % columns, best // columns], -1)
        apart = (found - cells).norm(dim=-1) * (width / columns)
        shown = weight * batch.present
        right = ((apart < _RIGHT * width) * shown).sum() / shown.sum().clamp(min=1.0)
    return loss, {"right": float(right)}


def _target(cells: Tensor, rows: int, columns: int, soft_cells: float) -> Tensor:
    """(B, n, rows * columns), sums of 1."""
    if soft_cells <= 0.0:
        limit = torch.tensor([columns - 1, rows - 1], device=cells.device)
        at = torch.minimum(cells.round().clamp(min=0), limit).long()
        return nn.functional.one_hot(at[..., 1] * columns + at[..., 0], rows * columns).float()
    across = torch.exp(-0.5 * ((torch.arange(columns, device=cells.device) - cells[..., :1]) / soft_cells) ** 2)
    down = torch.exp(-0.5 * ((torch.arange(rows, device=cells.device) - cells[..., 1:]) / soft_cells) ** 2)
    both = (down[..., :, None] * across[..., None, :]).flatten(2)
    return both / both.sum(2, keepdim=True).clamp(min=1e-12)


TEMPERATURE, RIDGE, SOFT_CELLS, ABSENT = 0.05, 0.02, 0.7, 0.8
_PAPER_TEMPERATURE, _PAPER_RIDGE = 1e-4, 1e-6
_JUDGED_CTS, _JUDGED_XRAYS, _LEAST_IN_VIEW = 4, 32, 0.25
_JUDGED_POINTS, _JUDGED_INTERIOR = 350, 150
_VALIDATION_SEED = 1 << 20


class RayEmbTask(Task):
    """Some CTs, other patients warped out of them, and a network that embeds the rays of X-rays.

    Args:
        subjects: the CTs. held_out: CTs to validate on, the first four; where there are none, other poses of ``subjects``.
        options: of the method. training: batch size and seed.
        camera: of the X-rays. views: of the templates.

    Raises:
        InputError: fewer X-rays in a batch than anything can be learned from.
    """

    method = "rayemb"

    def __init__(
        self,
        subjects: Sequence[Subject],
        held_out: Sequence[Subject],
        options: RayEmbOptions,
        training: TrainingOptions,
        camera: Camera,
        views: TemplateViews,
    ) -> None:
        self.paper_mode, self.encoder_weights = options.paper_mode, options.encoder_weights
        self.mixed_precision = not options.paper_mode
        self.camera, self.views = camera, views
        self.scene_options = _scene_options(options, camera, views)
        least = self.scene_options.least_templates + 2  # an X-ray, a template that is looked for, and those that see its points
        if training.batch_size < least:
            raise InputError(f"the batch size is {training.batch_size}; method 'rayemb' learns from {least} X-rays or more")
        self.stream = RayScenes(subjects, self.scene_options, training.batch_size, training.seed)
        self.judged = list(held_out or subjects)[:_JUDGED_CTS]
        self.seed = training.seed
        self.matching = Matching(TEMPERATURE, RIDGE, ABSENT)
        self._cases: list[_Judged] = []
        self._header: dict[str, Any] = {
            "architecture": {"paper_mode": options.paper_mode, "widths": list(LIGHT_WIDTHS)},
            "input": {"camera": camera_header(camera), "poses": self.scene_options.poses},
            "templates": view_header(views),
            "matching": asdict(self.matching),
            "units": "embeddings of rays; a point is the span of those that meet in it",
            "cts": [ct_header(s) for s in subjects],
            "held_out": [ct_header(s) for s in held_out[:_JUDGED_CTS]],
        }

    def network(self) -> nn.Module:
        """The paper's ViT, from pretrained weights where they are given, or the light U-Net."""
        network = ray_encoder(self._header["architecture"])
        if self.encoder_weights is not None:
            load_pretrained(network.trunk, self.encoder_weights)
        return network

    def batch(self, number: int, device: torch.device) -> RayBatch:
        """Of the stream."""
        return self.stream.batch(number, device)

    def loss(self, network: nn.Module, batch: RayBatch) -> tuple[Tensor, dict[str, float]]:
        """InfoNCE; as published with one right pixel of the full image and a temperature of 1e-4."""
        field = network(batch.image.contiguous(memory_format=torch.channels_last)).float()
        with torch.autocast(field.device.type, enabled=False):
            width, height = self.camera.width, self.camera.height
            if self.paper_mode:
                return contrast(field, batch, width, height, _PAPER_TEMPERATURE, _PAPER_RIDGE, 0.0, None, full_size=True)
            return contrast(field, batch, width, height, TEMPERATURE, RIDGE, SOFT_CELLS, ABSENT)

    def optimizer(self, network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
        """The paper's is Adam."""
        if self.paper_mode:
            return torch.optim.Adam(network.parameters(), lr=options.learning_rate_or(self.learning_rate))
        return super().optimizer(network, options)

    def validate(self, network: nn.Module, device: torch.device) -> Validation:
        """Median mTRE of the proposed poses, and the median distance of the points' peaks from where they are.

        The X-rays are realistic ones; half of those that are learned from are stranger.
        """
        if not self._cases:
            self._cases = [self._judged(s, number) for number, s in enumerate(self.judged)]
        found: list[Any] = []
        true, apart = [], []
        points_ct: list[Any] = []
        for case in self._cases:
            templates = point_features(network, case.windows, self.views, case.points_ct, self.paper_mode)
            for image, cells, pose in zip(case.image, case.open_cells, case.camera_from_ct, strict=True):
                field = network(image[None].to(device))[0].float().cpu()
                apart.append(self._apart(field, cells, templates, pose))
                found.append(self._pose(field, cells, templates))
                true.append(pose)
                points_ct.append(case.subject.bone.surface_points[:200])
        errors = np.concatenate(apart)
        validation = median_mtre(found, true, points_ct)
        details = {"point_px": float(np.median(errors)), "within_5_px": float(np.mean(errors < 5.0))}
        return Validation(validation.median_mm, {**validation.details, **details})

    def _pose(self, field: Tensor, cells: Tensor, templates: Templates) -> Any:
        try:
            if self.paper_mode:
                return find_pose_as_published(field, cells, self.camera, templates, 0)[0].camera_from_ct
            return find_poses(field, cells, self.camera, templates, self.matching, 0)[0].camera_from_ct
        except PnpFailure:
            return None

    def _apart(self, field: Tensor, cells: Tensor, templates: Templates, pose: Any) -> Any:
        """Pixels between peaks and true places, of the points in view, with the templates nearest to the true pose."""
        near = nearest(templates, pose[2, :3])
        pixels = self.camera.project(transform_points(pose, templates.points_ct))
        chosen = np.flatnonzero(self.camera.in_view(pixels))
        if len(chosen) == 0:
            return np.zeros(0)
        basis = soft_basis(templates.features[chosen][:, near], templates.seen[chosen][:, near], RIDGE)
        at = peaks(basis, field, cells, self.camera, self.matching).pixels
        return np.linalg.norm(at - pixels[chosen], axis=1)

    def _judged(self, subject: Subject, number: int) -> _Judged:
        rng = np.random.default_rng([self.seed, _VALIDATION_SEED, number])
        count = max(1, _JUDGED_XRAYS // len(self.judged))
        poses = sample_poses(self.scene_options.poses, subject, self.camera, rng, count, _LEAST_IN_VIEW)
        stride = int(np.gcd(self.camera.width, self.camera.height))
        path = shoot(subject, self.camera, poses, hits_stride=stride).path_mm
        image, field = develop(path, [draw_appearance(rng, self.scene_options.appearances[0]) for _ in poses], self.camera)
        network = self.network()
        stride = network.stride
        cells = nn.functional.avg_pool2d(field[:, None].float(), stride)[:, 0] >= 0.5
        points = spread_points(subject.bone, _JUDGED_POINTS, _JUDGED_INTERIOR)
        image = as_seen(image, field, self.paper_mode)
        return _Judged(subject, image, cells, poses, points, render_windows(subject, self.views))

    def header(self) -> dict[str, Any]:
        """Of the weights file."""
        return self._header


@dataclass(frozen=True)
class _Judged:
    """A CT's X-rays of a validation, and its templates before the network sees them."""

    subject: Subject
    image: Tensor
    open_cells: Tensor
    camera_from_ct: Any
    points_ct: Any
    windows: Windows


def _scene_options(options: RayEmbOptions, camera: Camera, views: TemplateViews) -> SceneOptions:
    if not options.paper_mode:
        templates = replace(AppearanceOptions.clean(), linear_soft=(0.3, 0.8), linear_bone=(1.5, 4.0))
        return SceneOptions(
            camera, camera, options.poses or "xvr", (AppearanceOptions.realistic(), AppearanceOptions.domain_randomisation()),
            templates,
        )  # fmt: skip
    # one of sharpness, contrast, equalisation, inversion and solarisation, of queries and templates alike
    published = replace(
        AppearanceOptions.clean(), linear_bone=(1.0, 10.0), p_filter=0.2, sharpen=(0.3, 0.7), p_window=0.2,
        p_equalise=0.2, p_invert=0.2, p_solarise=0.2,
    )  # fmt: skip
    return SceneOptions(
        camera, views.camera, options.poses or "rayemb", (published,), replace(published, linear_bone=(views.contrast[1],) * 2),
        angle_deg=45.0, depth_mm=(views.depth_mm, views.depth_mm), wide=True, used_templates=4, warped=0.0,
        points=40, absent=0.0, least_templates=1, known_field=1.0, paper_mode=True,
    )  # fmt: skip
