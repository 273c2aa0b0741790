"""Baselines ``deepim`` and ``dmw``: a network says, again and again, how the pose has to move.

ProST's paper compares with both. One network serves every patient that is like those it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.cios import cios_camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods.base import Array, Needs, Prepared, Progress
from XRayRegistrationLib.methods.learned import PACKAGES, TRAINING_PACKAGES, LearnedMethod, NothingProposedError, square_camera

if TYPE_CHECKING:
    from torch import nn

    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.training.options import TrainingOptions
    from XRayRegistrationLib.training.task import Task

_CAMERA, _PAPER_CAMERA = cios_camera(64), cios_camera(128)
_COST = 1.0  # a network that says a way and not how far it is


@dataclass(frozen=True)
class RelativePoseOptions:
    """Options of methods ``deepim`` and ``dmw``.

    Attributes:
        paper_mode: the published network, 128 x 128 pixels.
        weights: of a training on any CTs; None looks for some.
        search_on_failure: search without the network where nothing that it proposes verifies.
        poses, moving: what is trained on, names in simulation.pose_samplers.POSE_SAMPLERS: of the X-rays, and of the
            poses beside them; None is all starts that ProST tests from, and in paper_mode what it trains on.
        on_the_way: share of the poses beside that are moved part of the way to the true one. paper_mode has none.
    """

    paper_mode: bool = False
    weights: str | None = None
    search_on_failure: bool = True
    poses: str = "prost"
    moving: str | None = None
    on_the_way: float = 0.7


class RelativePoseMethod(LearnedMethod):
    """What both share."""

    name: ClassVar[Literal["deepim", "dmw"]]
    needs: ClassVar[Needs] = Needs(weights=True, packages=PACKAGES, training_packages=TRAINING_PACKAGES)
    options_type: ClassVar[type] = RelativePoseOptions
    patient_specific = False

    def task(
        self,
        subjects: Sequence[Subject],
        held_out: Sequence[Subject],
        options: RelativePoseOptions,
        training: TrainingOptions,
        camera: Camera | None,
    ) -> Task:
        """Training on some CTs, for any.

        Raises:
            InputError: no CT, poses that are unknown, or a camera that the network cannot have.
        """
        from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
        from XRayRegistrationLib.training.relative_pose import RelativePoseTask
        from XRayRegistrationLib.training.xray_stream import StreamOptions

        learned = square_camera(camera or (_PAPER_CAMERA if options.paper_mode else _CAMERA), 16)
        stream = StreamOptions(learned, options.poses, AppearanceOptions.domain_randomisation())
        return RelativePoseTask(self.name, self.some_subjects(subjects), held_out, options, stream, training)

    def network(self, header: dict[str, Any]) -> nn.Module:
        """As the header's architecture says."""
        from XRayRegistrationLib.networks.relative_pose import relative_pose_network

        return relative_pose_network(header["architecture"])

    def prepare_ct(
        self, ct: Volume, bone: BoneModel, options: RelativePoseOptions, data: dict[str, Any], progress: Progress | None
    ) -> dict[str, Any]:
        """The bone as the network sees it."""
        from XRayRegistrationLib.training.similarity import network_volume

        return {"volume": network_volume(bone, data["header"]["input"])}

    def propose_view(
        self, xray: XRay, prepared: Prepared, seed: int, start: Array | None = None
    ) -> list[tuple[Array, float, str]]:
        """Where the steps end, from the start or from the mean of those that the network learned beside."""
        from XRayRegistrationLib.networks.network_input import learned_view
        from XRayRegistrationLib.solvers.learned_steps import walk
        from XRayRegistrationLib.training.headers import camera_of_header

        data, header = prepared.data, prepared.data["header"]
        view = learned_view(xray, camera_of_header(header))
        if not view.field.any():
            raise NothingProposedError("the X-ray shows nothing where the network looks")
        centre = prepared.bone.centroid
        if start is None:
            rotation = np.array(header["start"]["rotation"])
            start = from_rotation_translation(rotation, np.array(header["start"]["centre_camera"]) - rotation @ centre)
        pose = walk(data["network"], data["volume"], view.image, view.camera, start, centre)
        return [(pose, _COST, "step by step as the network says")]


class DeepImBaseline(RelativePoseMethod):
    """DeepIM (Li et al., ECCV 2018), as Gao et al. (TMI 2024) compare with."""

    name: ClassVar[Literal["deepim", "dmw"]] = "deepim"
    summary: ClassVar[str] = "baseline of prost: a network says how the pose has to move, again and again"
    reference: ClassVar[str] = "Li et al., ECCV 2018"


class DmwBaseline(RelativePoseMethod):
    """DMW (Gu et al. 2020), as Gao et al. (TMI 2024) compare with."""

    name: ClassVar[Literal["deepim", "dmw"]] = "dmw"
    summary: ClassVar[str] = "baseline of prost: a network gives the steps of a descent to the pose"
    reference: ClassVar[str] = "Gu et al. 2020"
