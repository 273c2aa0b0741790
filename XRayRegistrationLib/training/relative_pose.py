"""Training of DeepIM and DMW: at a pose beside the true one, the network is to say the way there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from XRayRegistrationLib.networks.relative_pose import LENGTH_MM, Kind, RelativePoseNetwork, moved, relative_pose_network
from XRayRegistrationLib.solvers.learned_steps import projected, rotations_and_places, walk
from XRayRegistrationLib.training.headers import camera_header, ct_header, poses_header
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.pose_pairs import PairStream, PosePairs, moving_poses
from XRayRegistrationLib.training.pose_slope import rotation_angle
from XRayRegistrationLib.training.similarity import network_volume
from XRayRegistrationLib.training.task import Task, Validation
from XRayRegistrationLib.training.validation import median_mtre

if TYPE_CHECKING:
    from XRayRegistrationLib.methods.relative_pose import RelativePoseOptions
    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.training.xray_stream import StreamOptions

Array = NDArray[np.float64]

VOXELS, PAPER_VOXELS = 64, 128  # on the volume's longest side
_POINTS = 64
_VALIDATION_BATCHES = 2
_PAPER_RATE = 1e-4


class RelativePoseTask(Task):
    """Some CTs, and a network that leads to the pose of any CT's X-ray.

    Args:
        kind: whose network and loss. subjects: to learn from. held_out: to validate on; none are other poses of ``subjects``.
        options: of the method.
        stream: what X-rays it learns from.
        training: batch size and seed.
    """

    def __init__(
        self,
        kind: Kind,
        subjects: Sequence[Subject],
        held_out: Sequence[Subject],
        options: RelativePoseOptions,
        stream: StreamOptions,
        training: TrainingOptions,
    ) -> None:
        self.method, self.kind, self.published, self.stream_options = kind, kind, options.paper_mode, stream
        self.mixed_precision = not options.paper_mode
        self.learning_rate = 1e-3 if kind == "deepim" else 2e-3
        self.subjects, self.judged_on = list(subjects), list(held_out or subjects)
        on_the_way = 0.0 if options.paper_mode else options.on_the_way
        size, seed = training.batch_size, training.seed
        moving = moving_poses(options.moving, options.paper_mode)
        self.pairs = PairStream(self.subjects, stream, moving, on_the_way, size, seed)
        self.held_out = PairStream(self.judged_on, stream, moving, on_the_way, size, seed, held_out=True)
        seen = {"volume": "bone", "voxels": PAPER_VOXELS if options.paper_mode else VOXELS}
        self._header: dict[str, Any] = {
            "architecture": {"kind": kind, "published": self.published, "size": stream.camera.width},
            "input": {"camera": camera_header(stream.camera), "poses": stream.poses, "moving": moving, **seen},
            "units": "numbers of networks.relative_pose",
            "start": poses_header(moving, stream.camera),
            "cts": [ct_header(s) for s in self.subjects],
        }
        self.volumes = {id(s): network_volume(s.bone, seen) for s in (*self.subjects, *self.judged_on)}
        self._judged: list[PosePairs] = []

    def network(self) -> RelativePoseNetwork:
        """A new one."""
        return relative_pose_network(self._header["architecture"])

    def header(self) -> dict[str, Any]:
        """Of the weights file."""
        return self._header

    def batch(self, number: int, device: torch.device) -> PosePairs:
        """Of the stream, each X-ray with a pose beside it."""
        return self.pairs.batch(number, device)

    def loss(self, network: nn.Module, batch: PosePairs) -> tuple[Tensor, dict[str, float]]:
        """DeepIM: distance of points from where they should be, by components. DMW: squared geodesic distance of the motion."""
        image, camera = batch.xrays.image, self.stream_options.camera
        projections = torch.empty_like(image)
        offsets = torch.empty((len(image), _POINTS, 3), device=image.device)
        for number in np.unique(batch.xrays.subject):
            of_ct, subject = np.flatnonzero(batch.xrays.subject == number), self.subjects[number]
            projections[of_ct] = projected(self.volumes[id(subject)], camera, batch.moving[of_ct]).to(image.device)
            offsets[of_ct] = offsets.new_tensor(subject.bone.surface_points[:_POINTS] - subject.centre_ct)
        numbers = network(projections, image).float()
        rotation, place, true_rotation, true_place = (x.to(numbers) for x in self._poses(batch))
        focal = numbers.new_tensor(np.diag(camera.K)[:2].copy())
        turned, at = moved(self.kind, numbers, rotation, place, focal, camera.width)
        there, right = (
            offsets @ r.transpose(1, 2) + p[:, None] for r, p in ((turned, at), (true_rotation, true_place))
        )
        apart = (there - right).abs().mean() / LENGTH_MM
        if self.kind == "deepim":
            return apart, {"points_mm": LENGTH_MM * float(apart.detach())}
        unit = batch.motion.new_tensor([1.0] * 3 + [LENGTH_MM] * 3)
        true = batch.motion / unit
        turn = rotation_angle(numbers[:, :3], true[:, :3])
        loss = (turn.square() + (numbers[:, 3:] - true[:, 3:]).square().sum(1)).mean()
        return loss, {"points_mm": LENGTH_MM * float(apart.detach())}

    def _poses(self, batch: PosePairs) -> list[Tensor]:
        """Rotations and places of the moving poses, and of the true ones."""
        centres = [self.subjects[s].centre_ct for s in batch.xrays.subject]
        out: list[Tensor] = []
        for poses in (batch.moving, batch.xrays.camera_from_ct):
            each = [rotations_and_places(pose[None], centre) for pose, centre in zip(poses, centres, strict=True)]
            out += [torch.cat(parts) for parts in zip(*each, strict=True)]
        return out

    def optimizer(self, network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
        """ProST's authors trained both with Adam, beta1 0.8."""
        if self.published:
            return torch.optim.Adam(network.parameters(), lr=options.learning_rate_or(_PAPER_RATE), betas=(0.8, 0.999))
        return super().optimizer(network, options)

    def validate(self, network: nn.Module, device: torch.device) -> Validation:
        """Where the steps lead from the validation's moving poses."""
        assert isinstance(network, RelativePoseNetwork)
        if not self._judged:
            self._judged = [self.held_out.batch(n, device) for n in range(_VALIDATION_BATCHES)]
        found, true, points = [], [], []
        for batch in self._judged:
            for n, number in enumerate(batch.xrays.subject):
                subject = self.judged_on[number]
                image, camera = batch.xrays.image[n : n + 1], self.stream_options.camera
                found.append(walk(network, self.volumes[id(subject)], image, camera, batch.moving[n], subject.centre_ct))
                true.append(batch.xrays.camera_from_ct[n])
                points.append(subject.bone.surface_points[:200])
        return median_mtre(found, true, points)
