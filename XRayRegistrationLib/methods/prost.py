"""Method ``prost``: down the slope of a learned similarity between a CT and an X-ray, from rough starts.

A network projects the CT and compares it with the X-ray; it is trained so that its slope in the pose leads to the true
one (Gao et al., TMI 2024). One network serves every patient that is like those it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.cios import cios_camera
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods.base import Array, Candidate, Needs, Prepared, Progress, Proposal
from XRayRegistrationLib.methods.learned import SLOPE_PACKAGES, TRAINING_PACKAGES, square_camera
from XRayRegistrationLib.methods.learned_similarity import LearnedSimilarityMethod
from XRayRegistrationLib.solvers import cma_es
from XRayRegistrationLib.solvers.cma_es import CmaEsOptions
from XRayRegistrationLib.solvers.problem import views_of

if TYPE_CHECKING:
    from torch import nn

    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.training.options import TrainingOptions
    from XRayRegistrationLib.training.task import Task

_STARTS = 3  # of the random numbers
_CAMERA, _PAPER_CAMERA = cios_camera(64), cios_camera(128)


@dataclass(frozen=True)
class ProstOptions:
    """Options of method ``prost``.

    Attributes:
        paper_mode: a published network, its loss and its descent, 128 x 128 pixels. Unlike theirs its projections are
            standardised, so that X-ray and projection have one scale; their CMA-ES at the end is ``finish``.
        variant: which one: of TMI 2024, or of MICCAI 2020.
        weights: of a training on any CTs; None looks for some.
        search_on_failure: search without the network where nothing that it proposes verifies.
        starts: poses that the descent begins from.
        finish: our refinement of where the descents end, or CMA-ES from the lowest of them, as the papers have it.
        cma_es: its settings.
        poses, moving: what is trained on, names in simulation.pose_samplers.POSE_SAMPLERS: of the X-rays, and of the
            poses beside them; None is all starts that the papers test from, and in paper_mode what they train on.
        on_the_way: share of the poses beside that are moved part of the way to the true one, as a descent would.
            paper_mode has none.
        volume: the network sees the bone, or the whole CT.
        volume_network, randomised, loss: the papers' ablations: no network on the volume; X-rays that all look alike;
            the similarity is to be the distance, and its slope is not looked at (``mse``).
    """

    paper_mode: bool = False
    variant: Literal["tmi2024", "miccai2020"] = "tmi2024"
    weights: str | None = None
    search_on_failure: bool = True
    starts: int = 16
    finish: Literal["refinement", "cma_es"] = "refinement"
    cma_es: CmaEsOptions = field(default_factory=CmaEsOptions.prost_benchmark)
    poses: str = "prost"
    moving: str | None = None
    on_the_way: float = 0.7
    volume: Literal["bone", "full"] = "bone"
    volume_network: bool = True
    randomised: bool = True
    loss: Literal["slope", "mse"] = "slope"


class Prost(LearnedSimilarityMethod):
    """Projective spatial transformers (Gao et al., TMI 2024)."""

    name: ClassVar[str] = "prost"
    summary: ClassVar[str] = "walks from rough starts down a learned similarity; one network for all patients"
    reference: ClassVar[str] = "Gao et al., IEEE TMI 2024"
    needs: ClassVar[Needs] = Needs(weights=True, packages=SLOPE_PACKAGES, training_packages=TRAINING_PACKAGES)
    options_type: ClassVar[type] = ProstOptions

    def task(
        self,
        subjects: Sequence[Subject],
        held_out: Sequence[Subject],
        options: ProstOptions,
        training: TrainingOptions,
        camera: Camera | None,
    ) -> Task:
        """Training on some CTs, for any.

        Raises:
            InputError: no CT, poses that are unknown, or a camera that the network cannot have.
        """
        from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
        from XRayRegistrationLib.training.prost import ProstTask
        from XRayRegistrationLib.training.xray_stream import StreamOptions

        multiple = 64 if options.paper_mode and options.variant == "tmi2024" else 16
        learned = square_camera(camera or (_PAPER_CAMERA if options.paper_mode else _CAMERA), multiple)
        look = AppearanceOptions.domain_randomisation() if options.randomised else AppearanceOptions.clean()
        stream = StreamOptions(learned, options.poses, look)
        return ProstTask(self.some_subjects(subjects), held_out, options, stream, training)

    def network(self, header: dict[str, Any]) -> nn.Module:
        """As the header's architecture says."""
        from XRayRegistrationLib.networks.prost import prost_network

        return prost_network(header["architecture"])

    def published(self, architecture: dict[str, Any], options: ProstOptions) -> bool:
        """Of the variant that is asked for."""
        return architecture.get("kind") == options.variant

    def finish(
        self,
        candidates: Sequence[Candidate],
        xrays: Sequence[XRay],
        prepared: Prepared,
        backend: str,
        seed: int,
        progress: Progress | None,
    ) -> Proposal:
        """Where the descents end; or the pose that CMA-ES finds from the lowest of them."""
        options: ProstOptions = prepared.options
        if options.finish != "cma_es":
            return super().finish(candidates, xrays, prepared, backend, seed, progress)
        begin = candidates[0]
        settings = replace(options.cma_es, backend=backend if backend != "auto" else options.cma_es.backend, seed=seed)
        bone = prepared.bone
        result = cma_es.solve(views_of(xrays, bone.bone), begin.rig_from_ct, bone.centroid, settings, progress)
        found = Candidate(result.rig_from_ct, result.cost, f"CMA-ES from {begin.origin}", {"iterations": result.iterations})
        return Proposal(
            (found,), finished=True, message=result.message, trace=result.trace, proposed=begin.rig_from_ct
        )

    def propose_view(
        self, xray: XRay, prepared: Prepared, seed: int, start: Array | None = None
    ) -> list[tuple[Array, float, str]]:
        """Where the descents end, lowest first."""
        from XRayRegistrationLib.training.prost import prost_descent

        similarity = self.slope_of(xray, prepared)
        starts = self._starts(prepared, similarity.view.camera, seed, start)
        kind = prepared.data["header"]["architecture"]["kind"]
        return self.ended(prost_descent(kind, similarity.slope, starts, prepared.bone.centroid))

    def _starts(self, prepared: Prepared, camera: Camera, seed: int, start: Array | None) -> Array:
        """The given start and others like the poses that the network learned beside, or such poses alone."""
        from XRayRegistrationLib.simulation.pose_samplers import pose_sampler

        rng = np.random.default_rng([seed, _STARTS])
        sampler = pose_sampler(prepared.data["header"]["input"]["moving"])
        count = max(1, prepared.options.starts)
        drawn = [sampler.sample(prepared.bone.centroid, camera, rng) for _ in range(count)]
        return np.stack(drawn if start is None else [start, *drawn[1:]])
