"""Training of landmark detection (Grupp et al., IPCAI 2020, and ours): which landmarks, losses, validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from XRayRegistrationLib.bone.sampling import surface_points
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.landmarks import Landmarks
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.methods.fixed_landmarks import LEAST_LANDMARKS, Recipe, matched_landmarks, propose_pose
from XRayRegistrationLib.networks.heatmaps import gaussian_heatmaps, location_loss, ncc_loss
from XRayRegistrationLib.networks.landmark_networks import landmark_network
from XRayRegistrationLib.training.headers import camera_header, ct_header, poses_header
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.task import Task, Validation
from XRayRegistrationLib.training.validation import median_mtre
from XRayRegistrationLib.training.xray_stream import XRayBatch, XRayStream

if TYPE_CHECKING:
    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.training.xray_stream import StreamOptions

Array = NDArray[np.float64]

_VALIDATION_BATCHES, _VALIDATION_SEED = 4, 1 << 20
_NEAR_VOXELS = 8  # within which a landmark takes the label of what it lies beside
_SGD_RATE, _ADAM_RATE = 0.1, 1e-4  # as published


class FixedLandmarksTask(Task):
    """Landmarks of one CT, or the landmarks of the same names of several.

    Args:
        method: name of the method.
        subjects: CTs to learn from.
        held_out: CTs to validate on; none: other poses of ``subjects``.
        recipe: of the method.
        count: landmarks that are chosen where the CT brings none.
        stream: what X-rays it learns from.
        training: batch size and seed.

    Raises:
        InputError: fewer than four landmarks, one outside its CT, or CTs whose landmarks or labels are not the same.
    """

    def __init__(
        self,
        method: str,
        subjects: Sequence[Subject],
        held_out: Sequence[Subject],
        recipe: Recipe,
        count: int,
        stream: StreamOptions,
        training: TrainingOptions,
    ) -> None:
        self.method, self.recipe, self.stream_options = method, recipe, stream
        self.subjects, self.judged_on = list(subjects), list(held_out) or list(subjects)
        everyone = [*subjects, *held_out]
        names, points = same_landmarks(everyone, count)
        self.points_ct = dict(zip(map(id, everyone), points, strict=True))
        self.label_values = same_labels(everyone) if recipe.segmentation != "none" else ()
        self.mixed_precision = recipe.network == "light"
        labels = {"none": 0, "shadows": max(1, len(self.label_values)), "classes": 1 + max(1, len(self.label_values))}
        architecture = {"network": recipe.network, "landmarks": len(names), "labels": labels[recipe.segmentation]}
        self.stride = 4 if recipe.network == "light" else 1
        shadows = bool(self.label_values)
        size, seed = training.batch_size, training.seed
        self.stream = XRayStream(self.subjects, stream, size, seed, self.stride, shadows)
        self.held_out = XRayStream(self.judged_on, stream, size, seed + _VALIDATION_SEED, self.stride, shadows)
        self._judged: list[XRayBatch] = []
        self._header: dict[str, Any] = {
            "architecture": architecture,
            "recipe": asdict(recipe),
            "input": {"camera": camera_header(stream.camera), "poses": stream.poses},
            "units": "cells of each map, one for stride x stride pixels; landmarks in ct mm",
            "landmarks": {"names": list(names), "classes": label_classes(subjects[0], points[0], self.label_values)},
            "label_values": list(self.label_values),
            "prior": poses_header(stream.poses, stream.camera),
            "cts": [{**ct_header(s), "landmarks_ct": self.points_ct[id(s)].tolist()} for s in self.subjects],
        }

    def network(self) -> nn.Module:
        """As the recipe says."""
        return landmark_network(self._header["architecture"])

    def batch(self, number: int, device: torch.device) -> XRayBatch:
        """Of the stream."""
        return self.stream.batch(number, device)

    def loss(self, network: nn.Module, batch: XRayBatch) -> tuple[Tensor, dict[str, float]]:
        """Where the landmarks are, and, where that is asked for, where the labels are."""
        pixels, visible = self.seen(self.subjects, batch)
        maps, labels = network(batch.image.contiguous(memory_format=torch.channels_last))
        maps = maps.float()
        if self.recipe.maps == "locations":
            where = location_loss(maps, pixels, visible, self.stride, self.recipe.sigma)
        else:
            height, width = maps.shape[-2:]
            target = gaussian_heatmaps(pixels, visible, height, width, self.stride, self.recipe.sigma)
            where = ncc_loss(maps, target)
        parts = {"landmarks": float(where.detach())}
        if self.recipe.segmentation == "none":
            return where, parts
        bone = torch.isfinite(batch.hits_ct[:, 0, 0])[:, None] if batch.shadows is None else batch.shadows
        if self.recipe.segmentation == "classes":
            extra = dice_loss(labels.float(), bone)
            loss = 0.5 * (where + extra)
        else:
            extra = nn.functional.binary_cross_entropy_with_logits(labels.float(), bone.float())
            loss = where + extra
        return loss, {**parts, "labels": float(extra.detach())}

    def seen(self, subjects: Sequence[Subject], batch: XRayBatch) -> tuple[Tensor, Tensor]:
        """Pixels (N, n, 2) of the landmarks, and (N, n) whether each is on the image and not under the collimator."""
        camera = self.stream_options.camera
        points = np.stack([self.points_ct[id(subjects[n])] for n in batch.subject])
        at = points @ np.swapaxes(batch.camera_from_ct[:, :3, :3], 1, 2) + batch.camera_from_ct[:, None, :3, 3]
        pixels = camera.project(at)
        inside = camera.in_view(pixels)
        device = batch.image.device
        u, v = (
            torch.as_tensor(np.clip(np.rint(np.nan_to_num(pixels[..., a])), 0, n - 1), dtype=torch.long, device=device)
            for a, n in ((0, camera.width), (1, camera.height))
        )
        open_there = batch.open_field[torch.arange(len(points), device=device)[:, None], v, u]
        # far-off pixels would overflow in float32's Gaussians
        near = np.clip(np.nan_to_num(pixels), -1e4, 1e4)
        return torch.as_tensor(near, dtype=torch.float32, device=device), torch.as_tensor(inside, device=device) & open_there

    def optimizer(self, network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
        """The papers have SGD at 0.1 and Adam at 1e-4."""
        if self.recipe.optimizer == "sgd":
            rate = options.learning_rate_or(_SGD_RATE)
            return torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=1e-4)
        if self.recipe.optimizer == "adam":
            return torch.optim.Adam(network.parameters(), lr=options.learning_rate_or(_ADAM_RATE))
        return super().optimizer(network, options)

    def validate(self, network: nn.Module, device: torch.device) -> Validation:
        """Median mTRE of the proposed poses, of X-rays from other poses or of other CTs."""
        if not self._judged:
            self._judged = [self.held_out.batch(n, device) for n in range(_VALIDATION_BATCHES)]
        found: list[Any] = []
        true, surfaces = [], []
        camera = self.stream_options.camera
        field = np.ones((camera.height, camera.width), bool)
        for batch in self._judged:
            maps, labels = (x.float().cpu() for x in network(batch.image))
            for n, subject in enumerate(self.judged_on[number] for number in batch.subject):
                points, centre = self.points_ct[id(subject)], subject.bone.centroid
                found.append(propose_pose(maps[n], labels[n], camera, field, self._header, points, centre))
                true.append(batch.camera_from_ct[n])
                surfaces.append(subject.bone.surface_points[:200])
        return median_mtre(found, true, surfaces)

    def header(self) -> dict[str, Any]:
        """Of the weights file."""
        return self._header


def dice_loss(logits: Tensor, shadows: Tensor) -> Tensor:
    """Mean of 1 - 2 sum(ab) / (sum(a^2) + sum(b^2)) over classes: background, and each label where it is the first met.

    In projection labels overlap; a pixel has the class of the first one in the list.

    Args:
        logits: (N, L + 1, h, w), softmax over classes. shadows: (N, L, h, w) bool.
    """
    classes = torch.where(shadows.any(1), shadows.to(torch.uint8).argmax(1) + 1, 0)
    b = nn.functional.one_hot(classes, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    a = logits.softmax(1)
    overlap, sizes = (a * b).sum((-2, -1)), (a.square() + b.square()).sum((-2, -1))
    return (1.0 - 2.0 * overlap / sizes.clamp(min=1e-6)).mean()


def same_landmarks(subjects: Sequence[Subject], count: int) -> tuple[tuple[str, ...], list[Array]]:
    """Names of the landmarks, and their places (n, 3) in each CT: the user's, or spread over the bone of the only one.

    Raises:
        InputError: fewer than four, one outside its CT, or CTs that do not have the same.
    """
    if len(subjects) == 1 and not _chosen(subjects[0]):
        # in farthest-point order: spread evenly, on what is seen from everywhere
        points = surface_points(subjects[0].bone.mask, count)
        return tuple(f"P{n + 1}" for n in range(len(points))), [points]
    for subject in subjects:
        if not _chosen(subject):
            raise InputError(
                f"{subject.name} has no landmarks, and several CTs learn by theirs; give --landmarks for each CT, or one --ct"
            )
        _check_landmarks(subject)
    names = subjects[0].landmark_names
    places = []
    for subject in subjects:
        points = matched_landmarks(Landmarks(subject.landmarks_ct, subject.landmark_names), names, subject.name)
        missing = [name for name, point in zip(names, points, strict=True) if not np.isfinite(point).all()]
        if missing:
            raise InputError(
                f"{subject.name} has no landmark {', '.join(missing)}; allowed are CTs that have all of {subjects[0].name}'s"
            )
        places.append(points)
    return names, places


def _chosen(subject: Subject) -> bool:
    """Whether somebody chose its landmarks: make_subject fills in the bone's first surface points."""
    own = subject.bone.surface_points[: len(subject.landmarks_ct)]
    return not (len(own) > 0 and np.array_equal(subject.landmarks_ct, own))


def _check_landmarks(subject: Subject) -> None:
    points, names = np.asarray(subject.landmarks_ct).reshape(-1, 3), subject.landmark_names
    if len(points) < LEAST_LANDMARKS:
        raise InputError(
            f"{subject.name} has {len(points)} landmarks; allowed are at least {LEAST_LANDMARKS} (better 14 or more), or none "
            "given, and they are spread over the bone"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{subject.name} has several landmarks of the name {twice[0]!r}; allowed is each name once")
    ijk = transform_points(np.linalg.inv(subject.ct.ras_from_ijk), points)
    size = np.array(subject.ct.values.shape[::-1])
    outside = ~((ijk >= -0.5) & (ijk <= size - 0.5)).all(axis=1)
    if outside.any():
        n = int(np.argmax(outside))
        place = ", ".join(f"{x:.0f}" for x in points[n])
        raise InputError(
            f"landmark {names[n]!r} of {subject.name} lies at ({place}) mm RAS, outside the CT; place it on the bone, or "
            "leave it out"
        )


def same_labels(subjects: Sequence[Subject]) -> tuple[int, ...]:
    """The labels that all CTs have; none where no CT brings labels, and bone is what is segmented.

    Raises:
        InputError: some CTs have labels, or other ones, and some do not.
    """
    values = subjects[0].label_values
    for subject in subjects[1:]:
        if subject.label_values != values:
            raise InputError(
                f"{subject.name} has the labels {list(subject.label_values)} and {subjects[0].name} {list(values)}; "
                "allowed are the same labels in every CT, or none"
            )
    return values


def label_classes(subject: Subject, points_ct: Array, label_values: Sequence[int]) -> list[int]:
    """For each landmark the number (from 1) of its label in ``label_values``: the nearest within some voxels, 0 for none.

    Without labels all lie on the one class there is, bone.
    """
    if not label_values or subject.labels is None:
        return [1] * len(points_ct)
    labels = subject.labels
    spacing = labels.spacing_mm
    numbers = []
    for i, j, k in np.rint(transform_points(np.linalg.inv(labels.ras_from_ijk), points_ct)).astype(int):
        start = np.maximum([k - _NEAR_VOXELS, j - _NEAR_VOXELS, i - _NEAR_VOXELS], 0)
        box = labels.values[start[0] : k + _NEAR_VOXELS + 1, start[1] : j + _NEAR_VOXELS + 1, start[2] : i + _NEAR_VOXELS + 1]
        where = np.argwhere(box > 0)
        if len(where) == 0:
            numbers.append(0)
            continue
        off = ((where + start - [k, j, i]) * spacing[::-1]) ** 2
        nearest = where[int(off.sum(axis=1).argmin())]
        numbers.append(1 + list(label_values).index(int(box[tuple(nearest)])))
    return numbers
