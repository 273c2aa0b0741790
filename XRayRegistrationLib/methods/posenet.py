"""Baseline ``posenet``: a network gives the pose itself (Kendall et al. 2015 and 2017).

The paper on scene coordinates compares with it: it needs no landmark and always answers, but it has nothing to measure with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.cios import cios_camera
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods.base import Array, Needs, Prepared
from XRayRegistrationLib.methods.learned import PACKAGES, TRAINING_PACKAGES, LearnedMethod, NothingProposedError

if TYPE_CHECKING:
    from torch import nn

    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.training.options import TrainingOptions
    from XRayRegistrationLib.training.task import Task

_PAPER_CAMERA = cios_camera(512)
_COST = 1.0  # a network that says a pose and not how sure it is


@dataclass(frozen=True)
class PoseNetOptions:
    """Options of method ``posenet``.

    Attributes:
        paper_mode: ResNet-50 (28 million parameters, 512 x 512 pixels), quaternion, distances on the detector alone.
        weights: of an earlier training; None looks for those of the CT at hand.
        search_on_failure: search without the network where nothing that it proposes verifies.
        poses: what is trained on, a name in simulation.pose_samplers.POSE_SAMPLERS.
    """

    paper_mode: bool = False
    weights: str | None = None
    search_on_failure: bool = True
    poses: str = "scr"


class PoseNet(LearnedMethod):
    """Pose regression, as Shrestha et al. (MICCAI 2023) compare with."""

    name: ClassVar[str] = "posenet"
    summary: ClassVar[str] = "baseline of scene_coordinates: a network gives the pose itself; trained on each CT"
    reference: ClassVar[str] = "Kendall and Cipolla, CVPR 2017"
    needs: ClassVar[Needs] = Needs(
        training_per_patient=True, weights=True, packages=PACKAGES, training_packages=TRAINING_PACKAGES
    )
    options_type: ClassVar[type] = PoseNetOptions

    def task(
        self,
        subjects: Sequence[Subject],
        held_out: Sequence[Subject],
        options: PoseNetOptions,
        training: TrainingOptions,
        camera: Camera | None,
    ) -> Task:
        """Training on one CT.

        Raises:
            InputError: more than one CT.
        """
        from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
        from XRayRegistrationLib.training.posenet import PoseNetTask
        from XRayRegistrationLib.training.xray_stream import LEARNED_CAMERA, StreamOptions

        subject = self.only_subject(subjects, held_out)
        camera = camera or (_PAPER_CAMERA if options.paper_mode else LEARNED_CAMERA)
        stream = StreamOptions(camera, options.poses, AppearanceOptions.domain_randomisation())
        return PoseNetTask(subject, options, stream, training)

    def network(self, header: dict[str, Any]) -> nn.Module:
        """As the header's architecture says."""
        from XRayRegistrationLib.networks.resnet import pose_network

        return pose_network(header["architecture"])

    def propose_view(
        self, xray: XRay, prepared: Prepared, seed: int, start: Array | None = None
    ) -> list[tuple[Array, float, str]]:
        """The one pose that the network gives."""
        import torch

        from XRayRegistrationLib.networks.network_input import learned_view
        from XRayRegistrationLib.networks.pose_parameters import PoseParameters
        from XRayRegistrationLib.training.headers import camera_of_header

        network, header = prepared.data["network"], prepared.data["header"]
        view = learned_view(xray, camera_of_header(header))
        if not view.field.any():
            raise NothingProposedError("the X-ray shows nothing where the network looks")
        with torch.inference_mode():
            numbers = network(view.image)
        pose = PoseParameters.of_header(header["parameters"]).camera_from_ct(numbers, view.camera)[0]
        return [(pose, _COST, "the network's only guess")]
