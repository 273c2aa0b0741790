"""Training of PoseNet (Kendall et al. 2017), by what its poses do to points: on the detector, and in space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from XRayRegistrationLib.networks.pose_parameters import PoseParameters
from XRayRegistrationLib.networks.resnet import pose_network
from XRayRegistrationLib.training.headers import camera_header, ct_header, poses_header
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.task import Task, Validation
from XRayRegistrationLib.training.validation import median_mtre
from XRayRegistrationLib.training.xray_stream import XRayBatch, XRayStream

if TYPE_CHECKING:
    from XRayRegistrationLib.geometry.camera import Camera
    from XRayRegistrationLib.methods.posenet import PoseNetOptions
    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.training.xray_stream import StreamOptions

_VALIDATION_BATCHES, _VALIDATION_SEED = 4, 1 << 20
_POINTS, _PAPER_POINTS = 64, 14
_LIGHT_WIDTH = 24
_PAPER_RATE = 1e-4
_NEAREST_MM = 50.0  # to the source, of a point that is projected


class PoseNetTask(Task):
    """One CT, and a network that gives the pose itself.

    Args:
        subject: the CT.
        options: of the method.
        stream: what X-rays it learns from.
        training: batch size and seed.
    """

    method = "posenet"

    def __init__(self, subject: Subject, options: PoseNetOptions, stream: StreamOptions, training: TrainingOptions) -> None:
        self.subject, self.paper_mode, self.stream_options = subject, options.paper_mode, stream
        self.mixed_precision = not options.paper_mode
        mean = poses_header(stream.poses, stream.camera)
        self.parameters = PoseParameters(
            "metric" if options.paper_mode else "detector",
            np.array(mean["rotation"]),
            np.array(mean["centre_camera"]),
            subject.bone.centroid,
            float(stream.camera.K[0, 0]),
        )
        points = subject.bone.surface_points[: _PAPER_POINTS if options.paper_mode else _POINTS]
        self.offsets = points - subject.bone.centroid
        self.stream = XRayStream([subject], stream, training.batch_size, training.seed)
        self.held_out = XRayStream([subject], stream, training.batch_size, training.seed + _VALIDATION_SEED)
        self._judged: list[XRayBatch] = []
        self._header: dict[str, Any] = {
            "architecture": {"paper_mode": options.paper_mode, "width": 64 if options.paper_mode else _LIGHT_WIDTH},
            "input": {"camera": camera_header(stream.camera), "poses": stream.poses},
            "units": "numbers of networks.pose_parameters",
            "parameters": self.parameters.header(),
            "cts": [ct_header(subject)],
        }

    def network(self) -> nn.Module:
        """ResNet-50, or a thin ResNet-18, that starts at the mean pose."""
        network = pose_network(self._header["architecture"])
        last = network.out
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)
        return network

    def batch(self, number: int, device: torch.device) -> XRayBatch:
        """Of the stream."""
        return self.stream.batch(number, device)

    def loss(self, network: nn.Module, batch: XRayBatch) -> tuple[Tensor, dict[str, float]]:
        """Distances on the detector (the paper's), and ours also in space; in pixels, and in the same number of mm."""
        numbers = network(batch.image.contiguous(memory_format=torch.channels_last)).float()
        camera = self.stream_options.camera
        rotation, place = self.parameters.poses(numbers, camera)
        offsets = torch.as_tensor(self.offsets, dtype=torch.float32, device=numbers.device)
        true = torch.as_tensor(self.truth(batch), dtype=torch.float32, device=numbers.device)
        points = offsets @ rotation.transpose(1, 2) + place[:, None]
        projected, in_space = point_distances(points, true, camera)
        parts = {"detector_px": float(projected.detach()), "space_mm": float(in_space.detach())}
        if self.paper_mode:
            return projected / 100.0, parts
        return (projected * float(self.parameters.centre_camera[2] / camera.K[0, 0]) + in_space) / 100.0, parts

    def truth(self, batch: XRayBatch) -> Any:
        """(N, n, 3) mm, the points in the camera."""
        points_ct = self.offsets + self.subject.bone.centroid
        return points_ct @ np.swapaxes(batch.camera_from_ct[:, :3, :3], 1, 2) + batch.camera_from_ct[:, None, :3, 3]

    def optimizer(self, network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
        """The paper's is Adam."""
        if self.paper_mode:
            return torch.optim.Adam(network.parameters(), lr=options.learning_rate_or(_PAPER_RATE))
        return super().optimizer(network, options)

    def validate(self, network: nn.Module, device: torch.device) -> Validation:
        """Median mTRE, of X-rays from other poses."""
        if not self._judged:
            self._judged = [self.held_out.batch(n, device) for n in range(_VALIDATION_BATCHES)]
        found: list[Any] = []
        true = []
        for batch in self._judged:
            found += list(self.parameters.camera_from_ct(network(batch.image).float(), self.stream_options.camera))
            true += list(batch.camera_from_ct)
        return median_mtre(found, true, self.subject.bone.surface_points[:200])

    def header(self) -> dict[str, Any]:
        """Of the weights file."""
        return self._header


def point_distances(points: Tensor, true: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Mean distance of points (N, n, 3) from the true ones, in pixels where they are projected, and in mm."""
    focal = points.new_tensor([float(camera.K[0, 0]), float(camera.K[1, 1])])
    a, b = (focal * x[..., :2] / x[..., 2:].clamp(min=_NEAREST_MM) for x in (points, true))
    on_detector, in_space = ((x.square().sum(-1) + 1e-6).sqrt().mean() for x in (a - b, points - true))
    return on_detector, in_space
