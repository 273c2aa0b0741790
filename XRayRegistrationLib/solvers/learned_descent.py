"""Down a learned similarity, from many starts at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.geometry.rigid import increment_left, transform_points

if TYPE_CHECKING:
    from torch import Tensor

    from XRayRegistrationLib.drr.volume import AttenuationVolume
    from XRayRegistrationLib.geometry.camera import Camera
    from XRayRegistrationLib.networks.similarity_network import SimilarityNetwork

Array = NDArray[np.float64]

_AT_ONCE = 16  # poses, whose activations are kept until their slope is known
_SETTLED = 10  # similarities in a row that hardly change
#: of the unit of length, within which a learned distance becomes round: 5 mm of 100
ROUND_WITHIN = 0.05
#: the published networks' unit of length: half of their volumes of 128 voxels
PUBLISHED_LENGTH_MM = 149.0
#: similarity (n,) and its slope (n, 6) in (rad, mm) about the bone's centre at poses (n, 4, 4)
Slope = Callable[[Array], tuple[Array, Array]]


@dataclass(frozen=True)
class DescentOptions:
    """Steps of a similarity that is a distance, in ``length_mm`` and as many radians.

    Attributes:
        steps: at most. share: of the distance that a step goes, for slopes are never quite right.
        length_mm: the similarity's unit.
        largest, least: bounds of a step, in that unit; below ``least`` a pose has arrived.
        round_within: the similarity s of a pose is that far from the true one: sqrt(s^2 - round_within^2).
    """

    steps: int = 16
    share: float = 0.6
    length_mm: float = 100.0
    largest: float = 0.8
    least: float = 0.01
    round_within: float = ROUND_WITHIN


@dataclass(frozen=True)
class PublishedDescent:
    """Gradient descent in rad and units of ``length_mm``, as a paper has it.

    Attributes:
        rate: of a step. halved_every: steps, after which the rate is half; 0 for never.
        momentum: share of the last step that is taken again.
        steps: at most. still: ends when the last ten similarities' standard deviation is below; 0 goes to the end.
        length_mm: the unit of length.
    """

    rate: float
    halved_every: int
    momentum: float
    steps: int
    still: float
    length_mm: float = PUBLISHED_LENGTH_MM


#: Gao et al., TMI 2024: "0.1, halved every 15 steps" of a step count that is not given; MICCAI 2020: of its demo.
TMI2024 = PublishedDescent(0.1, 15, 0.0, 75, 0.0)
MICCAI2020 = PublishedDescent(0.01, 0, 0.9, 300, 0.003)
#: Chen et al., ICASSP 2024: the rate went up and down between 4e-4 and 6e-4, and the clock ended it after 4.5 s.
SOPI2024 = PublishedDescent(5e-4, 0, 0.9, 500, 1e-4)


@dataclass(frozen=True)
class Descended:
    """Where starts ended: poses (n, 4, 4) and similarities (n,), lowest first, each the lowest of its way."""

    camera_from_ct: Array
    similarity: Array


def similarity_slope(
    network: SimilarityNetwork, features: Tensor, volume: AttenuationVolume, image: Tensor, camera: Camera, centre_ct: Array
) -> Slope:
    """The slope of a network's similarity with one X-ray; poses that show nothing of the CT have the similarity infinity.

    Args:
        features: (C, nk, nj, ni), of the network, of ``volume``.
        image: (1, 1, H, W), standardised. camera: of it.
    """
    import torch

    from XRayRegistrationLib.networks.derivative_images import derivative_images

    step_mm = float(volume.spacing_mm.min())

    def some(camera_from_ct: Array) -> tuple[Array, Array]:
        centre = np.stack([transform_points(pose, centre_ct) for pose in camera_from_ct])
        with torch.no_grad():
            projections, jacobian = derivative_images(features, volume.ct_from_ijk, camera, camera_from_ct, centre, step_mm)
            empty = (projections == 0).flatten(1).all(1).cpu().numpy()
        with torch.enable_grad():
            projections.requires_grad_()
            similarity = network.similarity(projections, image.expand(len(projections), -1, -1, -1))
            (of_image,) = torch.autograd.grad(similarity.sum(), projections)
        gradient = torch.einsum("nchw,nckhw->nk", of_image, jacobian)
        return np.where(empty, np.inf, similarity.detach().double().cpu().numpy()), gradient.double().cpu().numpy()

    def slope(camera_from_ct: Array) -> tuple[Array, Array]:
        parts = [some(camera_from_ct[n : n + _AT_ONCE]) for n in range(0, len(camera_from_ct), _AT_ONCE)]
        similarity, gradient = zip(*parts, strict=True)
        return np.concatenate(similarity), np.concatenate(gradient)

    return slope


def descend(slope: Slope, starts: Array, centre_ct: Array, options: DescentOptions | None = None) -> Descended:
    """Walk along the slope by the distance that the similarity says is left; each start remembers its lowest pose."""
    options = options or DescentOptions()
    unit = np.array([1.0] * 3 + [options.length_mm] * 3)
    poses = np.array(starts)
    best, lowest = poses.copy(), np.full(len(poses), np.inf)
    moving = np.arange(len(poses))
    for number in range(options.steps + 1):
        similarity, gradient = slope(poses[moving])
        lower = similarity < lowest[moving]
        best[moving[lower]], lowest[moving[lower]] = poses[moving[lower]], similarity[lower]
        if number == options.steps:
            break
        downhill = -gradient * unit
        downhill /= np.maximum(np.linalg.norm(downhill, axis=1, keepdims=True), 1e-12)
        distance = np.sqrt(np.maximum(np.maximum(similarity, 0.0) ** 2 - options.round_within**2, 0.0))
        length = np.clip(options.share * distance, options.least, options.largest)
        step = downhill * length[:, None] * unit
        for n, index in enumerate(moving):
            poses[index] = increment_left(poses[index], step[n], transform_points(poses[index], centre_ct))
        moving = moving[length > options.least]
        if len(moving) == 0:
            break
    order = np.argsort(lowest)
    return Descended(best[order], lowest[order])


def descend_as_published(
    slope: Slope, starts: Array, centre_ct: Array, published: PublishedDescent, most_steps: int | None = None
) -> Descended:
    """Every start where its descent ended, lowest similarity first; a start does not remember where it was lower.

    Args:
        most_steps: fewer than the paper's; None for all.
    """
    unit = np.array([1.0] * 3 + [published.length_mm] * 3)
    poses, velocity = np.array(starts), np.zeros((len(starts), 6))
    seen: list[Array] = []
    for number in range(min(published.steps, most_steps or published.steps)):
        similarity, gradient = slope(poses)
        seen.append(np.where(np.isfinite(similarity), similarity, 0.0))  # what sees nothing of the CT stays where it is
        if published.still and len(seen) >= _SETTLED and (np.std(seen[-_SETTLED:], axis=0) < published.still).all():
            break
        rate = published.rate * 0.5 ** (number // published.halved_every if published.halved_every else 0)
        velocity = published.momentum * velocity - rate * gradient * unit
        poses = np.stack(
            [increment_left(p, v * unit, transform_points(p, centre_ct)) for p, v in zip(poses, velocity, strict=True)]
        )
    similarity = slope(poses)[0]
    order = np.argsort(similarity)
    return Descended(poses[order], similarity[order])
