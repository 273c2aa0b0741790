"""X-rays made while a network learns from them: geometry rendered, appearance drawn anew each time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.cios import cios_camera
from XRayRegistrationLib.networks.network_input import standardised
from XRayRegistrationLib.simulation.appearance import Appearance, develop, draw_appearance
from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
from XRayRegistrationLib.simulation.pose_samplers import pose_sampler
from XRayRegistrationLib.simulation.shots import Shots, label_shadows, shoot
from XRayRegistrationLib.simulation.subject import Subject

_GEOMETRY, _APPEARANCE = 1, 2  # of the random numbers

#: The Siemens CIOS Fusion at 128 pixels: SDD 1020 mm, 298 mm detector.
LEARNED_CAMERA = cios_camera(128)


@dataclass(frozen=True)
class XRayBatch:
    """X-rays to learn from.

    Attributes:
        image: (N, 1, H, W), standardised.
        subject: (N,) number of the CT that each shows.
        camera_from_ct: (N, 4, 4).
        hits_ct: (N, 2, 3, h, w) mm, the first and last point on bone, NaN where there is none.
        open_field: (N, H, W) bool, where no collimator is in the way, whether that is known to the network or not.
        shadows: (N, L, h, w) bool, which labels each ray meets, where the stream was asked for them.
    """

    image: Tensor
    subject: NDArray[np.int64]
    camera_from_ct: NDArray[np.float64]
    hits_ct: Tensor
    open_field: Tensor
    shadows: Tensor | None = None


@dataclass(frozen=True)
class Pictures:
    """X-rays as they come out of the simulation.

    Attributes:
        image: (N, H, W), not standardised.
        open_field: (N, H, W) bool, where no collimator is in the way.
        groups: the rendered geometries that they show, in order.
    """

    image: Tensor
    open_field: Tensor
    groups: list[_Group]


@dataclass(frozen=True)
class StreamOptions:
    """What a network learns from.

    Attributes:
        camera: that it looks through.
        poses: a name in simulation.pose_samplers.POSE_SAMPLERS.
        appearance: how the X-rays look.
        appearances: how often a rendered geometry is used, each time with another look; rendering costs about as
            much as learning from an image.
        apart: batches between two uses of a geometry.
        known_field: share of the images whose collimator is known, as it is when it was found in an X-ray.
    """

    camera: Camera
    poses: str
    appearance: AppearanceOptions
    appearances: int = 4
    apart: int = 16
    known_field: float = 0.7


class XRayStream:
    """Batches of X-rays; batch ``number`` is the same whenever it is asked for.

    Args:
        subjects: the CTs; each geometry takes one of them at random.
        batch_size: images a batch, a multiple of ``options.appearances``.
        seed: of everything random.
        hits_stride: pixels a cell of ``hits_ct``.
        labels: the shadows of the subjects' labels are wanted too.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        options: StreamOptions,
        batch_size: int,
        seed: int,
        hits_stride: int = 2,
        labels: bool = False,
    ) -> None:
        self.subjects, self.options, self.seed, self.hits_stride = list(subjects), options, seed, hits_stride
        self.sampler = pose_sampler(options.poses)
        self.labels = labels
        self.appearances = int(np.gcd(options.appearances, batch_size))
        self.group_size = batch_size // self.appearances
        self._groups: OrderedDict[int, _Group] = OrderedDict()

    def batch(self, number: int, device: torch.device) -> XRayBatch:
        """Batch ``number``, from 0. Fewer than ``options.apart`` batches in a row share no geometry."""
        rng = np.random.default_rng([self.seed, _APPEARANCE, number])
        looks = [draw_appearance(rng, self.options.appearance) for _ in range(self.group_size * self.appearances)]
        pictures = self.pictures(number, device, looks)
        image, field, rendered = pictures.image, pictures.open_field, pictures.groups
        shots = [group.shots for group in rendered]
        known = torch.as_tensor(rng.random(len(image)) < self.options.known_field, device=field.device)
        return XRayBatch(
            standardised(image, field | ~known[:, None, None])[:, None],
            np.repeat([group.subject for group in rendered], self.group_size),
            np.concatenate([s.camera_from_ct for s in shots]),
            torch.cat([s.hits_ct for s in shots]),
            field,
            torch.cat([group.shadows for group in rendered if group.shadows is not None]) if self.labels else None,
        )

    def pictures(self, number: int, device: torch.device, looks: Sequence[Appearance]) -> Pictures:
        """What batch ``number`` shows, with a look for each image."""
        groups = [self._group(number - use * self.options.apart, device) for use in range(self.appearances)]
        path_mm = torch.cat([group.shots.path_mm for group in groups])
        image, field = develop(path_mm, looks, self.options.camera)
        return Pictures(image, field, groups)

    def _group(self, group: int, device: torch.device) -> _Group:
        """Rendered poses of one CT; groups below 0 stand in for those that a first batch would use again."""
        if group not in self._groups:
            rng = np.random.default_rng([self.seed, _GEOMETRY, group + (1 << 32)])
            number = int(rng.integers(len(self.subjects)))
            subject = self.subjects[number]
            poses = np.stack([self.sampler.sample(subject, self.options.camera, rng) for _ in range(self.group_size)])
            shots = shoot(subject, self.options.camera, poses, hits_stride=self.hits_stride, device=str(device))
            shadows = None
            if self.labels:
                shadows = label_shadows(subject, self.options.camera, poses, stride=self.hits_stride, device=str(device))
            self._groups[group] = _Group(number, shots, shadows)
            while len(self._groups) > self.appearances * self.options.apart + 1:
                self._groups.popitem(last=False)
        return self._groups[group]


@dataclass(frozen=True)
class _Group:
    """Rendered poses of one CT."""

    subject: int
    shots: Shots
    shadows: Tensor | None
