"""Method ``diffdrr``: registration by rendering, with no training.

By default a search over the C-arm's plausible poses, which needs no start, and our second-order
refinement. In ``paper_mode`` exactly the baseline of the literature: DiffDRR's renderer and Adam
from an AP start (methods sheets 1.6, 6.2, A7). The other solvers can be chosen too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.drr.volume import AttenuationVolume, attenuation_from_hu
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.carm import named_view
from XRayRegistrationLib.geometry.rigid import check_rigid, inverse
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods.base import Array, Candidate, Method, Needs, Prepared, Progress, Proposal, Start
from XRayRegistrationLib.solvers import cma_es, first_order
from XRayRegistrationLib.solvers.problem import SolveResult, views_of
from XRayRegistrationLib.solvers.search import search
from XRayRegistrationLib.solvers.search_range import (
    NOMINAL_DEPTH,
    SearchRange,
    any_orientation_range,
    c_arm_range,
    plausible_depths,
    rig_depths,
    start_range,
)

_ISOCENTRE = 0.5  # of the SDD: the paper's pose has the CT's centre midway between source and detector


@dataclass(frozen=True)
class DiffDrrOptions:
    """Options of method ``diffdrr``.

    Attributes:
        paper_mode: the published baseline: DiffDRR's Siddon renderer on the whole CT, 1/2 NCC +
            1/2 patch NCC, 100 iterations of Adam, from AP unless a start is given.
        solver: ``"lm"`` is our search and Levenberg-Marquardt; ``"cma_es"`` is xReg's recipe;
            ``"adam"`` is DiffDRR's. The last two start from AP unless a start is given.
        source_object_fraction: distance of the CT's (CMA-ES: the bone's) centre from the source
            over the SDD, at a named start; None is 0.5 for Adam (DiffDRR's isocentre), 0.7 for CMA-ES.
        adam: settings of ``solver="adam"``; ``paper_mode`` keeps the published ones.
        cma_es: settings of ``solver="cma_es"``.
        volume: what that solver renders, the bone or the whole CT; others choose by themselves.
    """

    paper_mode: bool = False
    solver: Literal["lm", "cma_es", "adam"] = "lm"
    source_object_fraction: float | None = None
    adam: first_order.FirstOrderOptions = field(default_factory=first_order.FirstOrderOptions)
    cma_es: cma_es.CmaEsOptions = field(default_factory=cma_es.CmaEsOptions)
    volume: Literal["bone", "full"] = "bone"

    def __post_init__(self) -> None:
        if self.paper_mode and self.solver == "cma_es":
            raise InputError("paper_mode of method 'diffdrr' is Adam and solver is 'cma_es'; choose one of the two")
        if self.paper_mode and self.adam != first_order.FirstOrderOptions():
            raise InputError("paper_mode keeps the published settings of Adam; for others use solver 'adam' without it")
        fraction = self.source_object_fraction
        if fraction is not None and not 0.0 < fraction < 1.0:
            raise InputError(f"source_object_fraction is {fraction!r}; allowed is between 0 and 1 of the SDD")


class DiffDrr(Method):
    """Registration by rendering (Gopalakrishnan and Golland 2022)."""

    name: ClassVar[str] = "diffdrr"
    summary: ClassVar[str] = "renders the CT until it matches the X-ray; no training, no start pose"
    reference: ClassVar[str] = "Gopalakrishnan and Golland, CLIP 2022"
    needs: ClassVar[Needs] = Needs()
    options_type: ClassVar[type] = DiffDrrOptions

    def prepare(self, ct: Volume, bone: BoneModel, options: Any, *, progress: Progress | None = None) -> Prepared:
        """Nothing beyond the bone model is needed."""
        return Prepared(self.name, ct, bone, options)

    def propose(
        self,
        xrays: Sequence[XRay],
        prepared: Prepared,
        start: Start = "none",
        *,
        backend: str = "auto",
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Proposal:
        """Candidates of the search, or the one pose of the chosen solver.

        ``paper_mode`` and ``solver="adam"`` bring their own renderer and take no notice of ``backend``.

        Raises:
            InputError: a named start and a camera without SDD, or a start that is no rigid motion.
            MissingDependencyError: the solver's packages are not installed.
        """
        options: DiffDrrOptions = prepared.options
        if options.paper_mode or options.solver == "adam":
            # the CT as it is, table and all, as DiffDRR takes it
            volume = AttenuationVolume(attenuation_from_hu(prepared.ct.values), prepared.ct.ras_from_ijk)
            pose, origin = self._start(xrays, volume.centre_ct, start, options, _ISOCENTRE)
            result = first_order.solve(views_of(xrays, volume), pose, volume.centre_ct, options.adam, progress)
            return _finished(result, f"Adam from {origin}")
        if options.solver == "cma_es":
            bone = prepared.bone
            settings = replace(options.cma_es, backend=backend if backend != "auto" else options.cma_es.backend)
            settings = replace(settings, seed=seed or settings.seed)
            pose, origin = self._start(xrays, bone.centroid, start, options, NOMINAL_DEPTH)
            rendered = bone.full if options.volume == "full" else bone.bone
            result = cma_es.solve(views_of(xrays, rendered), pose, bone.centroid, settings, progress)
            return _finished(result, f"CMA-ES from {origin}")
        ranges = search_ranges(xrays, prepared.bone.centroid, start)
        return search_stages(xrays, prepared.bone, ranges, backend, progress)

    def _start(
        self, xrays: Sequence[XRay], centre_ct: Array, start: Start, options: DiffDrrOptions, fraction: float
    ) -> tuple[Array, str]:
        """rig_from_ct of the start, and its name."""
        if not isinstance(start, str):
            return check_rigid(start, "the start pose"), "the given start"
        view = "ap" if start == "none" else start
        camera = xrays[0].camera
        if camera.source_detector_distance_mm is None:
            raise InputError(
                f"the camera has no source_detector_distance_mm, so an {view!r} start has no distance; "
                "give the SDD in the camera, or a start pose"
            )
        if options.source_object_fraction is not None:
            fraction = options.source_object_fraction
        camera_from_ct = named_view(view, centre_ct, fraction * camera.source_detector_distance_mm)
        if camera.camera_from_rig is not None:
            camera_from_ct = inverse(camera.camera_from_rig) @ camera_from_ct
        return camera_from_ct, f"the view {view!r}"


def search_stages(
    xrays: Sequence[XRay], model: BoneModel, ranges: Sequence[SearchRange], backend: str, progress: Progress | None
) -> Proposal:
    """The first stage of a search through ``ranges``, each with each volume; the proposal's ``more`` is the next one."""
    views = {name: views_of(xrays, rendering.volume, rendering.alone) for name, rendering in model.renderings.items()}
    stages = [(r, name) for r in ranges for name in views]

    def run(number: int) -> Proposal:
        search_range, volume = stages[number]
        say = f"searching: {search_range.name}, {volume}"
        found = search(
            views[volume],
            model.centroid,
            model.surface_points,
            search_range,
            backend=backend,
            check=None if progress is None else lambda fraction: progress(fraction, say),
        )
        candidates = tuple(
            Candidate(pose, float(cost), f"{search_range.name}, {volume}", {"starts": int(starts)})
            for pose, cost, starts in zip(found.rig_from_ct, found.cost, found.starts, strict=True)
        )
        more = None if number + 1 == len(stages) else lambda: run(number + 1)
        return Proposal(candidates, more=more, message=f"{say}: {found.templates} templates")

    return run(0)


def search_ranges(xrays: Sequence[XRay], centre_ct: Array, start: Start) -> list[SearchRange]:
    """Where to look, in turn: around the start; in the named view; or all C-arm poses, then any pose at all.

    Nothing says how a rig's cameras lie to the table, so a rig is looked for in any orientation at once.
    """
    camera = xrays[0].camera
    first = np.eye(4) if camera.camera_from_rig is None else camera.camera_from_rig
    if not isinstance(start, str):
        return [start_range(first @ start, centre_ct)]
    if len(xrays) > 1:
        depths = rig_depths([np.asarray(x.camera.camera_from_rig) for x in xrays])
    else:
        depths = plausible_depths(camera, xrays[0].metadata.get("source_object_distance_mm"))
    if start != "none":
        return [c_arm_range(depths, start)]
    if len(xrays) > 1:
        return [any_orientation_range(depths)]
    return [c_arm_range(depths), any_orientation_range(depths)]


def _finished(result: SolveResult, origin: str) -> Proposal:
    diagnostics = {
        "start_cost": result.start_cost,
        "iterations": result.iterations,
        "converged": result.converged,
    }
    candidate = Candidate(result.rig_from_ct, result.cost, origin, diagnostics)
    return Proposal((candidate,), finished=True, message=result.message, trace=result.trace)
