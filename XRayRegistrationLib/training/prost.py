"""Training of ProST: at a pose beside the true one, the similarity's slope is to lead there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from XRayRegistrationLib.drr.volume import AttenuationVolume, cropped
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.networks.derivative_images import derivative_images
from XRayRegistrationLib.networks.prost import ProstNetwork, prost_network
from XRayRegistrationLib.simulation.pose_samplers import pose_sampler
from XRayRegistrationLib.solvers.learned_descent import (
    MICCAI2020,
    TMI2024,
    Slope,
    descend,
    descend_as_published,
    similarity_slope,
)
from XRayRegistrationLib.training.headers import camera_header, ct_header
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.pose_slope import (
    direction_loss,
    distance_loss,
    geodesic_loss,
    moved_towards,
    points_to_the_truth,
    pose_slope,
    relative_motion,
)
from XRayRegistrationLib.training.task import Task, Validation
from XRayRegistrationLib.training.validation import median_mtre
from XRayRegistrationLib.training.xray_stream import XRayBatch, XRayStream

if TYPE_CHECKING:
    from XRayRegistrationLib.bone.model import BoneModel
    from XRayRegistrationLib.methods.prost import ProstOptions
    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.training.xray_stream import StreamOptions

Array = NDArray[np.float64]

LENGTH_MM = 100.0
VOXELS, PAPER_VOXELS = 64, 128  # on the volume's longest side
_MOVING = 2  # of the random numbers
_VALIDATION_BATCHES, _VALIDATION_SEED = 4, 1 << 20
_VALUE = 0.1  # of the loss of the similarity's value, next to that of its slope
_PAPER_RATE = 1e-4


@dataclass(frozen=True)
class PosePairs:
    """X-rays, and a pose beside each one's own.

    Attributes:
        xrays: N of them. moving: (N, 4, 4) camera_from_ct. motion: (N, 6) rad and mm, from there to the true pose.
    """

    xrays: XRayBatch
    moving: Array
    motion: Tensor


class ProstTask(Task):
    """Some CTs, and a similarity of any CT with its X-rays.

    Args:
        subjects: to learn from. held_out: to validate on; none are other poses of ``subjects``.
        options: of the method.
        stream: what X-rays it learns from.
        training: batch size and seed.
    """

    method = "prost"
    mixed_precision = False  # the slope is a small difference of large numbers

    def __init__(
        self,
        subjects: Sequence[Subject],
        held_out: Sequence[Subject],
        options: ProstOptions,
        stream: StreamOptions,
        training: TrainingOptions,
    ) -> None:
        self.subjects, self.judged_on = list(subjects), list(held_out or subjects)
        self.options, self.stream_options, self.seed = options, stream, training.seed
        self.sampler = pose_sampler(options.moving)
        self.on_the_way = 0.0 if options.paper_mode else options.on_the_way
        size = none = stream.camera.width  # no first and last hits are wanted
        self.stream = XRayStream(self.subjects, stream, training.batch_size, training.seed, hits_stride=none)
        self.held_out = XRayStream(
            self.judged_on, stream, training.batch_size, training.seed + _VALIDATION_SEED, hits_stride=none
        )
        voxels = PAPER_VOXELS if options.paper_mode else VOXELS
        kind = options.variant if options.paper_mode else "light"
        self._header: dict[str, Any] = {
            "architecture": {"kind": kind, "size": size, "volume_network": options.volume_network},
            "input": {
                "camera": camera_header(stream.camera),
                "poses": stream.poses,
                "moving": options.moving,
                "volume": options.volume,
                "voxels": voxels,
            },
            "units": f"distance in {LENGTH_MM:.0f} mm, and as many radians",
            "cts": [ct_header(s) for s in self.subjects],
        }
        seen = self._header["input"]
        self.volumes = {id(s): network_volume(s.bone, seen) for s in (*self.subjects, *self.judged_on)}
        self._judged: list[PosePairs] = []

    def network(self) -> ProstNetwork:
        """A new one."""
        return prost_network(self._header["architecture"])

    def batch(self, number: int, device: torch.device) -> PosePairs:
        """Of the stream, each X-ray with a pose beside it."""
        return self._pairs(self.stream.batch(number, device), self.subjects, [self.seed, _MOVING, number], device)

    def _pairs(self, xrays: XRayBatch, subjects: Sequence[Subject], key: list[int], device: torch.device) -> PosePairs:
        rng = np.random.default_rng(key)
        moving, motion = [], []
        for s, true in zip(xrays.subject, xrays.camera_from_ct, strict=True):
            pose = self.sampler.sample(subjects[s], self.stream_options.camera, rng)
            if rng.random() < self.on_the_way:
                pose = moved_towards(pose, true, subjects[s].centre_ct, rng.random())
            moving.append(pose)
            motion.append(relative_motion(pose[None], true[None], subjects[s].centre_ct)[0])
        return PosePairs(xrays, np.stack(moving), torch.as_tensor(np.stack(motion), dtype=torch.float32, device=device))

    def loss(self, network: nn.Module, batch: PosePairs) -> tuple[Tensor, dict[str, float]]:
        """Of the slope, each variant's own; with it, ours also of the similarity itself."""
        similarity, slope, motion = self.slopes(network, batch, self.subjects)
        of_slope, of_value = distance_loss(similarity, slope, motion, LENGTH_MM)
        kind = self._header["architecture"]["kind"]
        if self.options.loss == "mse":
            loss = of_value.mean()
        elif kind == "tmi2024":
            loss = geodesic_loss(slope, motion, LENGTH_MM).mean()
        elif kind == "miccai2020":
            loss = direction_loss(slope, motion).mean()
        else:
            loss = of_slope.mean() + _VALUE * of_value.mean()
        right = points_to_the_truth(slope.detach(), motion, LENGTH_MM).float().mean()
        parts = {"slope": float(of_slope.detach().mean()), "value": float(of_value.detach().mean()), "direction": float(right)}
        return loss, parts

    def optimizer(self, network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
        """The papers' is SGD with momentum; its rate went up and down between 1e-6 and 1e-4."""
        if self.options.paper_mode:
            return torch.optim.SGD(network.parameters(), lr=options.learning_rate_or(_PAPER_RATE), momentum=0.9)
        return super().optimizer(network, options)

    def slopes(
        self, network: nn.Module, batch: PosePairs, subjects: Sequence[Subject]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Similarity (N,), its slope (N, 6) and the motion (N, 6) to the truth, CT by CT."""
        found = []
        for number in np.unique(batch.xrays.subject):
            of_ct = np.flatnonzero(batch.xrays.subject == number)
            subject = subjects[number]
            image = batch.xrays.image[of_ct]
            volume = self.volumes[id(subject)]
            poses = batch.moving[of_ct]
            centre = np.stack([transform_points(pose, subject.centre_ct) for pose in poses])
            project = partial(
                derivative_images, ct_from_ijk=volume.ct_from_ijk, camera=self.stream_options.camera, camera_from_ct=poses,
                centre_camera=centre, step_mm=float(volume.spacing_mm.min()),
            )  # fmt: skip
            values = torch.as_tensor(volume.mu, device=image.device)[None]
            similarity, projections, jacobian = network(values, project, image)
            found.append((similarity, pose_slope(similarity, projections, jacobian), batch.motion[of_ct]))
        similarity, slope, motion = (torch.cat(parts) for parts in zip(*found, strict=True))
        return similarity, slope, motion

    def validate(self, network: nn.Module, device: torch.device) -> Validation:
        """Where descents from the validation's moving poses end; how often the slope points to the truth."""
        with torch.inference_mode(False), torch.enable_grad():
            if not self._judged:
                for n in range(_VALIDATION_BATCHES):
                    xrays = self.held_out.batch(n * self.stream_options.apart, device)
                    key = [self.seed + _VALIDATION_SEED, _MOVING, n]
                    self._judged.append(self._pairs(xrays, self.judged_on, key, device))
            right, distances, values = [], [], []
            for batch in self._judged:
                similarity, slope, motion = self.slopes(network, batch, self.judged_on)
                right.append(points_to_the_truth(slope.detach(), motion, LENGTH_MM))
                distances.append((motion * motion.new_tensor([LENGTH_MM] * 3 + [1.0] * 3)).norm(dim=1))
                values.append(similarity.detach())
            ended = self._descend(network)
        share = float(torch.cat(right).float().mean())
        both = torch.stack([torch.cat(distances), torch.cat(values)])
        details = {"direction": share, "correlation": float(torch.corrcoef(both)[0, 1])}
        return replace(ended, details={**ended.details, **details})

    def _descend(self, network: nn.Module) -> Validation:
        """The pose after a descent, of a quarter of the validation's pairs."""
        found, true, points = [], [], []
        features: dict[int, Tensor] = {}
        assert isinstance(network, ProstNetwork)
        for batch in self._judged[: max(1, _VALIDATION_BATCHES // 4)]:
            for n, number in enumerate(batch.xrays.subject):
                subject = self.judged_on[number]
                volume = self.volumes[id(subject)]
                if id(subject) not in features:
                    with torch.no_grad():
                        values = torch.as_tensor(volume.mu, device=batch.motion.device)[None]
                        features[id(subject)] = network.features(values)
                slope = similarity_slope(
                    network, features[id(subject)], volume, batch.xrays.image[n : n + 1], self.stream_options.camera,
                    subject.centre_ct,
                )  # fmt: skip
                found.append(self._end(slope, batch.moving[n : n + 1], subject.centre_ct))
                true.append(batch.xrays.camera_from_ct[n])
                points.append(subject.bone.surface_points[:200])
        return median_mtre(found, true, points)

    def _end(self, slope: Slope, start: Array, centre_ct: Array) -> Array:
        """Where one start (1, 4, 4) ends, by the descent that belongs to the network."""
        kind = self._header["architecture"]["kind"]
        if kind == "light":
            return descend(slope, start, centre_ct).camera_from_ct[0]
        published = TMI2024 if kind == "tmi2024" else MICCAI2020
        return descend_as_published(slope, start, centre_ct, published).camera_from_ct[0]

    def header(self) -> dict[str, Any]:
        """Of the weights file."""
        return self._header


def network_volume(bone: BoneModel, seen: Mapping[str, Any]) -> AttenuationVolume:
    """The bone, or the whole CT, as a network sees it: so many voxels on the longest side, values up to 1.

    Args:
        seen: ``input`` of the weights' header: ``volume`` ("bone" or "full") and ``voxels``.
    """
    volume = cropped(bone.bone if seen["volume"] == "bone" else bone.full)
    longest_mm = float((volume.spacing_mm * volume.mu.shape[:-4:-1]).max())
    small = volume.coarser(longest_mm / seen["voxels"])
    return AttenuationVolume(small.mu / max(float(small.mu.max()), 1e-6), small.ct_from_ijk)
