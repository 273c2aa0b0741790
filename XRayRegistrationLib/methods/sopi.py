"""Method ``sopi``: a network guesses the pose from CT and X-ray, then walks down a learned similarity (Chen et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.cios import cios_camera
from XRayRegistrationLib.geometry.perlove import perlove_camera
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods.base import Array, Needs, Prepared
from XRayRegistrationLib.methods.learned import SLOPE_PACKAGES, TRAINING_PACKAGES, square_camera
from XRayRegistrationLib.methods.learned_similarity import LearnedSimilarityMethod

if TYPE_CHECKING:
    from torch import nn

    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.training.options import TrainingOptions
    from XRayRegistrationLib.training.task import Task

_CAMERA, _PAPER_CAMERA = cios_camera(64), perlove_camera()


@dataclass(frozen=True)
class SopiOptions:
    """Options of method ``sopi``.

    Attributes:
        paper_mode: the published networks, loss and descent, and X-rays that are plain projections of 256 x 256 pixels. The
            similarity has three scales in training too, as the paper says; their code trains the coarsest alone.
        weights: of a training on any CTs; None looks for some.
        search_on_failure: search without the network where nothing that it proposes verifies.
        descend: walk down the similarity; otherwise the guess is all.
        poses, moving: what is trained on, names in simulation.pose_samplers.POSE_SAMPLERS: of the X-rays, and of the
            poses beside them.
        on_the_way: share of the poses beside that are moved part of the way to the true one, as a descent would.
            paper_mode has none.
    """

    paper_mode: bool = False
    weights: str | None = None
    search_on_failure: bool = True
    descend: bool = True
    poses: str = "sopi"
    moving: str = "sopi-start"
    on_the_way: float = 0.7


class Sopi(LearnedSimilarityMethod):
    """Similarity of projections and initialisation (Chen et al., ICASSP 2024)."""

    name: ClassVar[str] = "sopi"
    summary: ClassVar[str] = "guesses the pose, then walks down a learned similarity; one network for all patients"
    reference: ClassVar[str] = "Chen et al., ICASSP 2024"
    needs: ClassVar[Needs] = Needs(weights=True, packages=SLOPE_PACKAGES, training_packages=TRAINING_PACKAGES)
    options_type: ClassVar[type] = SopiOptions

    def task(
        self,
        subjects: Sequence[Subject],
        held_out: Sequence[Subject],
        options: SopiOptions,
        training: TrainingOptions,
        camera: Camera | None,
    ) -> Task:
        """Training on some CTs, for any.

        Raises:
            InputError: no CT, poses that are unknown, or a camera that the network cannot have.
        """
        from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
        from XRayRegistrationLib.training.sopi import SopiTask
        from XRayRegistrationLib.training.xray_stream import StreamOptions

        learned = square_camera(camera or (_PAPER_CAMERA if options.paper_mode else _CAMERA), 16)
        look = AppearanceOptions.clean() if options.paper_mode else AppearanceOptions.domain_randomisation()
        return SopiTask(self.some_subjects(subjects), held_out, options, StreamOptions(learned, options.poses, look), training)

    def network(self, header: dict[str, Any]) -> nn.Module:
        """As the header's architecture says."""
        from XRayRegistrationLib.networks.sopi import sopi_network

        return sopi_network(header["architecture"])

    def propose_view(
        self, xray: XRay, prepared: Prepared, seed: int, start: Array | None = None
    ) -> list[tuple[Array, float, str]]:
        """Where the descents from the guess and from a given start end, lowest first; or the guess."""
        import torch

        from XRayRegistrationLib.networks.initial_pose import PoseBounds
        from XRayRegistrationLib.training.sopi import sopi_descent

        data, header, centre = prepared.data, prepared.data["header"], prepared.bone.centroid
        similarity = self.slope_of(xray, prepared)
        with torch.inference_mode():
            numbers = data["network"].guess(data["features"], similarity.view.image).double().numpy()
        guess = PoseBounds.of_header(header["bounds"]).camera_from_ct(numbers, centre, similarity.view.camera)
        if not prepared.options.descend:
            return [(guess[0], float(similarity.slope(guess)[0][0]), "the network's guess")]
        starts = guess if start is None else np.concatenate([guess, start[None]])
        return self.ended(sopi_descent(header["architecture"]["published"], similarity.slope, starts, centre))
