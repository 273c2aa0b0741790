"""What the trainings of learned similarities share: at a pose beside the true one, the slope is to lead there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from XRayRegistrationLib.drr.volume import AttenuationVolume, cropped
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.networks.derivative_images import derivative_images
from XRayRegistrationLib.networks.similarity_network import SimilarityNetwork
from XRayRegistrationLib.solvers.learned_descent import Descended, Slope, similarity_slope
from XRayRegistrationLib.training.headers import camera_header, ct_header
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.pose_pairs import PairStream, PosePairs
from XRayRegistrationLib.training.pose_slope import distance_loss, points_to_the_truth, pose_slope
from XRayRegistrationLib.training.task import Task, Validation
from XRayRegistrationLib.training.validation import median_mtre
from XRayRegistrationLib.training.xray_stream import XRayBatch

if TYPE_CHECKING:
    from XRayRegistrationLib.bone.model import BoneModel
    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.training.xray_stream import StreamOptions

Array = NDArray[np.float64]

LENGTH_MM = 100.0
VALIDATION_STEPS = 30  # of a published descent, which has up to 500: a validation is not to outlast the training
_VALIDATION_BATCHES = 4
_VALUE = 0.1  # of the loss of the similarity's value, next to that of its slope


class SimilarityTask(Task):
    """Some CTs, and a similarity of any CT with its X-rays.

    Args:
        subjects: to learn from. held_out: to validate on; none are other poses of ``subjects``.
        stream: what X-rays it learns from.
        moving, on_the_way: the poses beside (training.pose_pairs).
        volume, voxels: what the network sees of a CT (:func:`network_volume`).
        training: batch size and seed.
    """

    mixed_precision = False  # the slope is a small difference of large numbers

    def __init__(
        self,
        subjects: Sequence[Subject],
        held_out: Sequence[Subject],
        stream: StreamOptions,
        moving: str,
        on_the_way: float,
        volume: str,
        voxels: int,
        training: TrainingOptions,
    ) -> None:
        self.subjects, self.judged_on = list(subjects), list(held_out or subjects)
        self.stream_options = stream
        size, seed = training.batch_size, training.seed
        self.pairs = PairStream(self.subjects, stream, moving, on_the_way, size, seed)
        self.held_out = PairStream(self.judged_on, stream, moving, on_the_way, size, seed, held_out=True)
        seen = {"volume": volume, "voxels": voxels}
        self._header: dict[str, Any] = {
            "input": {"camera": camera_header(stream.camera), "poses": stream.poses, "moving": moving, **seen},
            "units": f"distance in {LENGTH_MM:.0f} mm, and as many radians",
            "cts": [ct_header(s) for s in self.subjects],
        }
        self.volumes = {id(s): network_volume(s.bone, seen) for s in (*self.subjects, *self.judged_on)}
        self._judged: list[PosePairs] = []

    @abstractmethod
    def descend(self, slope: Slope, starts: Array, centre_ct: Array) -> Descended:
        """Where starts (n, 4, 4) end, by the descent that belongs to the network."""

    def starts(self, network: nn.Module, xrays: XRayBatch, number: int, moving: Array) -> Array:
        """(n, 4, 4) where the descent of one X-ray of a validation begins: at its moving pose."""
        return moving[None]

    def header(self) -> dict[str, Any]:
        """Of the weights file."""
        return self._header

    def batch(self, number: int, device: torch.device) -> PosePairs:
        """Of the stream, each X-ray with a pose beside it."""
        return self.pairs.batch(number, device)

    def slopes(self, network: nn.Module, batch: PosePairs, subjects: Sequence[Subject]) -> tuple[Tensor, ...]:
        """Similarity (N,), its slope (N, 6), and what else the network gives of each pair."""
        found = []
        order = np.argsort(np.argsort(batch.xrays.subject, kind="stable"))
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
            similarity, projections, jacobian, *more = network(self.values(subject, image.device), project, image)
            found.append((similarity, pose_slope(similarity, projections, jacobian), *more))
        return tuple(torch.cat(parts)[order] for parts in zip(*found, strict=True))

    def values(self, subject: Subject, device: torch.device) -> Tensor:
        """(1, nk, nj, ni) of a CT as the network sees it."""
        return torch.as_tensor(self.volumes[id(subject)].mu, device=device)[None]

    def distance_parts(
        self, similarity: Tensor, slope: Tensor, motion: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, float]]:
        """Losses of slope and value as of a distance, their weighted sum being ours; and the log's parts."""
        of_slope, of_value = (x.mean() for x in distance_loss(similarity, slope, motion, LENGTH_MM))
        right = points_to_the_truth(slope.detach(), motion).float().mean()
        parts = {"slope": float(of_slope.detach()), "value": float(of_value.detach()), "direction": float(right)}
        return of_slope + _VALUE * of_value, of_value, parts

    def validate(self, network: nn.Module, device: torch.device) -> Validation:
        """Where descents end; how often the slope points to the truth, and how the value goes with the distance."""
        with torch.inference_mode(False), torch.enable_grad():
            if not self._judged:
                self._judged = [self.held_out.batch(n, device) for n in range(_VALIDATION_BATCHES)]
            right, distances, values = [], [], []
            for batch in self._judged:
                similarity, slope = self.slopes(network, batch, self.judged_on)[:2]
                right.append(points_to_the_truth(slope.detach(), batch.motion))
                distances.append((batch.motion * slope.new_tensor([LENGTH_MM] * 3 + [1.0] * 3)).norm(dim=1))
                values.append(similarity.detach())
            ended = self._ended(network)
        share = float(torch.cat(right).float().mean())
        both = torch.stack([torch.cat(distances), torch.cat(values)])
        details = {"direction": share, "correlation": float(torch.corrcoef(both)[0, 1])}
        return replace(ended, details={**ended.details, **details})

    def _ended(self, network: nn.Module) -> Validation:
        """The pose after a descent, of a quarter of the validation's pairs."""
        found, true, points = [], [], []
        features: dict[int, Tensor] = {}
        assert isinstance(network, SimilarityNetwork)
        for batch in self._judged[: max(1, _VALIDATION_BATCHES // 4)]:
            for n, number in enumerate(batch.xrays.subject):
                subject = self.judged_on[number]
                if id(subject) not in features:
                    with torch.no_grad():
                        features[id(subject)] = network.features(self.values(subject, batch.motion.device))
                slope = similarity_slope(
                    network, features[id(subject)], self.volumes[id(subject)], batch.xrays.image[n : n + 1],
                    self.stream_options.camera, subject.centre_ct,
                )  # fmt: skip
                starts = self.starts(network, batch.xrays, n, batch.moving[n])
                found.append(self.descend(slope, starts, subject.centre_ct).camera_from_ct[0])
                true.append(batch.xrays.camera_from_ct[n])
                points.append(subject.bone.surface_points[:200])
        return median_mtre(found, true, points)


def network_volume(bone: BoneModel, seen: Mapping[str, Any]) -> AttenuationVolume:
    """The bone, or the whole CT, as a network sees it: about so many voxels on the longest side, values up to 1.

    Voxels are whole blocks of the CT's, so that line integrals keep their value; there may be half as many again on a side.

    Args:
        seen: ``input`` of the weights' header: ``volume`` ("bone" or "full") and ``voxels``.
    """
    volume = cropped(bone.bone if seen["volume"] == "bone" else bone.full)
    longest_mm = float((volume.spacing_mm * volume.mu.shape[:-4:-1]).max())
    small = volume.coarser(longest_mm / seen["voxels"])
    return AttenuationVolume(small.mu / max(float(small.mu.max()), 1e-6), small.ct_from_ijk)
