"""Training of SOPI: its initial pose, and the slope of its similarity, on the same pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.networks.derivative_images import derivative_images
from XRayRegistrationLib.networks.initial_pose import PoseBounds, paper_voxels
from XRayRegistrationLib.networks.similarity_network import levelled
from XRayRegistrationLib.networks.sopi import SopiNetwork, sopi_network
from XRayRegistrationLib.solvers.learned_descent import SOPI2024, Descended, Slope, descend, descend_as_published
from XRayRegistrationLib.training.gradient_difference import gradient_difference_loss
from XRayRegistrationLib.training.headers import poses_header
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.pose_pairs import PosePairs
from XRayRegistrationLib.training.pose_slope import direction_loss
from XRayRegistrationLib.training.similarity import VALIDATION_STEPS, Array, SimilarityTask

if TYPE_CHECKING:
    from XRayRegistrationLib.methods.sopi import SopiOptions
    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.training.xray_stream import StreamOptions, XRayBatch

VOXELS = 64
# weights of the initial pose's error, of its distance from the mean, and of its picture's; the paper's are not known
_INITIAL, _PRIOR, _PICTURE = 20.0, 1e-3, 1.0
_PAPER_RATE = 1e-4


class SopiTask(SimilarityTask):
    """Some CTs, and SOPI's two stages for any CT.

    Args:
        subjects: to learn from. held_out: to validate on; none are other poses of ``subjects``.
        options: of the method.
        stream: what X-rays it learns from.
        training: batch size and seed.
    """

    method = "sopi"

    def __init__(
        self,
        subjects: Sequence[Subject],
        held_out: Sequence[Subject],
        options: SopiOptions,
        stream: StreamOptions,
        training: TrainingOptions,
    ) -> None:
        self.published = options.paper_mode
        voxels = paper_voxels(stream.camera.width) if self.published else VOXELS
        on_the_way = 0.0 if self.published else options.on_the_way
        super().__init__(subjects, held_out, stream, options.moving, on_the_way, "bone", voxels, training)
        self.bounds = PoseBounds.of_poses(poses_header(stream.poses, stream.camera), stream.camera)
        architecture = {"published": self.published, "size": stream.camera.width}
        self._header |= {"architecture": architecture, "bounds": self.bounds.header()}

    def network(self) -> SopiNetwork:
        """A new one."""
        return sopi_network(self._header["architecture"])

    def loss(self, network: nn.Module, batch: PosePairs) -> tuple[Tensor, dict[str, float]]:
        """Of the slope and of the initial pose, which share no weights."""
        similarity, slope, numbers = self.slopes(network, batch, self.subjects)
        ours, _, parts = self.distance_parts(similarity, slope, batch.motion)
        of_slope = direction_loss(slope, batch.motion).mean() if self.published else ours
        true = self.true_numbers(batch.xrays, self.subjects).clamp(0.0, 1.0)
        of_start = (numbers - true).square().mean()
        prior = (numbers - 0.5).square().mean()
        parts["initial"] = float(of_start.detach())
        loss = of_slope + _INITIAL * of_start + _PRIOR * prior
        if self.published:
            picture = gradient_difference_loss(self.pictures(numbers, batch.xrays, self.subjects), batch.xrays.image).mean()
            parts["picture"] = float(picture.detach())
            loss = loss + _PICTURE * picture
        return loss, parts

    def pictures(self, numbers: Tensor, xrays: XRayBatch, subjects: Sequence[Subject]) -> Tensor:
        """(N, 1, H, W), standardised: the bone from the initial poses, to first order in their numbers (N, 6)."""
        camera = self.stream_options.camera
        out = []
        for row, number in zip(numbers, xrays.subject, strict=True):
            subject = subjects[number]
            volume, at = self.volumes[id(subject)], row.detach().double().cpu().numpy()[None]
            pose = self.bounds.camera_from_ct(at, subject.centre_ct, camera)
            centre = transform_points(pose[0], subject.centre_ct)[None]
            with torch.no_grad():
                image, jacobian = derivative_images(
                    self.values(subject, numbers.device), volume.ct_from_ijk, camera, pose, centre, float(volume.spacing_mm.min())
                )
            motions = row.new_tensor(self.bounds.motions(at, subject.centre_ct, camera)[0])
            out.append(image + torch.einsum("nckhw,k->nchw", jacobian, motions @ (row - row.detach())))
        return levelled(torch.cat(out))

    def true_numbers(self, xrays: XRayBatch, subjects: Sequence[Subject]) -> Tensor:
        """(N, 6) that the initialisation is to give."""
        poses = zip(xrays.camera_from_ct, xrays.subject, strict=True)
        true = [self.bounds.numbers(pose[None], subjects[s].centre_ct)[0] for pose, s in poses]
        return torch.as_tensor(np.stack(true), dtype=xrays.image.dtype, device=xrays.image.device)

    def optimizer(self, network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
        """The paper's are SGD for the similarity and Adam for the initialisation; one Adam does for both."""
        if self.published:
            return torch.optim.Adam(network.parameters(), lr=options.learning_rate_or(_PAPER_RATE), weight_decay=1e-2)
        return super().optimizer(network, options)

    def starts(self, network: nn.Module, xrays: XRayBatch, number: int, moving: Array) -> Array:
        """The initial pose of one X-ray."""
        assert isinstance(network, SopiNetwork)
        subject = self.judged_on[xrays.subject[number]]
        with torch.no_grad():
            numbers = network.guess(self.values(subject, xrays.image.device), xrays.image[number : number + 1])
        return self.bounds.camera_from_ct(numbers.double().cpu().numpy(), subject.centre_ct, self.stream_options.camera)

    def descend(self, slope: Slope, starts: Array, centre_ct: Array) -> Descended:
        """By the descent that belongs to the network, cut short."""
        return sopi_descent(self.published, slope, starts, centre_ct, VALIDATION_STEPS)


def sopi_descent(
    published: bool, slope: Slope, starts: Array, centre_ct: Array, most_steps: int | None = None
) -> Descended:
    """The paper's, or ours."""
    if published:
        return descend_as_published(slope, starts, centre_ct, SOPI2024, most_steps)
    return descend(slope, starts, centre_ct)
