"""How a similarity looks around the truth: along each axis, and over rough starts (ProST's figures 5 and 6).

Beside each learned similarity stands gradient NCC on the same pixels, which nobody trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.errors import XRayRegistrationError
from XRayRegistrationLib.evaluation.cases import Case, CaseSource
from XRayRegistrationLib.evaluation.predict import MethodRun
from XRayRegistrationLib.geometry.rigid import increment_left, moved_towards, relative_motion, transform_points
from XRayRegistrationLib.methods import METHODS
from XRayRegistrationLib.methods.base import Prepared
from XRayRegistrationLib.methods.learned_similarity import LearnedSimilarityMethod
from XRayRegistrationLib.similarity.gradient_ncc import gradient_ncc
from XRayRegistrationLib.simulation.pose_samplers import pose_sampler

Array = NDArray[np.float64]

AXES = ("about x, degrees", "about y, degrees", "about z, degrees", "along x, mm", "along y, mm", "depth, mm")
REACH = (50.0, 50.0, 50.0, 100.0, 100.0, 200.0)
_STEPS = 21  # along an axis
_STARTS = 48  # rough starts, some moved towards the truth
_MM_PER_RAD = 100.0
BASELINE = "gradient NCC"


@dataclass(frozen=True)
class Landscape:
    """A similarity of one case; smaller is more alike.

    Attributes:
        method: label; ct, number: the case.
        along: (6, 21), at offsets from -reach to reach along each of :data:`AXES`.
        distance_mm: (n,), of poses at random from the truth, a radian counting 100 mm. value: (n,), there.
    """

    method: str
    ct: str
    number: int
    along: Array
    distance_mm: Array
    value: Array

    @property
    def correlation(self) -> float:
        """Pearson's, of value and distance; 0 where the value is the same everywhere."""
        if np.ptp(self.value) == 0.0:
            return 0.0
        return float(np.corrcoef(self.distance_mm, self.value)[0, 1])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}


def landscapes(source: CaseSource, runs: Sequence[MethodRun], cases: int, seed: int = 0) -> list[Landscape]:
    """Of the first ``cases`` of each CT, the learned similarities' and gradient NCC's; none where no run has one."""
    chosen = [run for run in runs if isinstance(METHODS[run.method], LearnedSimilarityMethod)]
    found: list[Landscape] = []
    if not chosen or cases == 0:
        return found
    for name in source.names():
        patient = source.patient(name)
        prepared = {}
        for run in chosen:
            method = METHODS[run.method]
            try:
                prepared[run.label] = method.prepare(patient.ct, patient.bone, method.options(run.options))
            except XRayRegistrationError:
                continue  # every one of its cases says so
        for number in source.numbers(name, cases):
            found += of_case(source.case(name, number), [r for r in chosen if r.label in prepared], prepared, seed)
    return found


def of_case(case: Case, runs: Sequence[MethodRun], prepared: dict[str, Prepared], seed: int) -> list[Landscape]:
    """Of one case; a method that sees nothing of its X-ray is left out."""
    out: list[Landscape] = []
    poses: Array | None = None
    for run in runs:
        method, ready = METHODS[run.method], prepared[run.label]
        assert isinstance(method, LearnedSimilarityMethod)
        centre = ready.bone.centroid
        if poses is None:
            poses = _poses(case, centre, seed)
        try:
            similarity = method.slope_of(case.xray, ready)
        except XRayRegistrationError:
            continue  # its row in the tables says so
        out.append(_landscape(run.label, case, poses, lambda p, s=similarity: s.slope(p)[0], centre))  # type: ignore[misc]
        if not any(found.method == BASELINE for found in out):
            view = similarity.view
            image, volume = view.image[0, 0].numpy(), ready.data["volume"]

            def unlike(at: Array) -> Array:
                images = render(volume, view.camera, at, step_mm=float(volume.spacing_mm.min()))  # noqa: B023 (called at once)
                return np.array([1.0 - gradient_ncc(made, image, view.field) for made in images])  # noqa: B023

            try:
                out.append(_landscape(BASELINE, case, poses, unlike, centre))
            except XRayRegistrationError:
                continue  # a field too small for gradients
    return out


def _poses(case: Case, centre_ct: Array, seed: int) -> Array:
    """Along the axes, then at random."""
    true = case.camera_from_ct
    centre = transform_points(true, centre_ct)
    out = []
    for axis, reach in enumerate(REACH):
        for offset in np.linspace(-reach, reach, _STEPS):
            step = np.zeros(6)
            step[axis] = np.deg2rad(offset) if axis < 3 else offset
            out.append(increment_left(true, step, centre))
    rng = np.random.default_rng([seed, case.number])
    sampler = pose_sampler("prost-start")
    for _ in range(_STARTS):
        start = sampler.sample(centre_ct, case.camera, rng)
        out.append(moved_towards(start, true, centre_ct, rng.random()))
    return np.stack(out)


def _landscape(
    label: str, case: Case, poses: Array, value: Callable[[Array], Array], centre_ct: Array
) -> Landscape:
    values = np.asarray(value(poses), dtype=np.float64)
    seen = values[np.isfinite(values)]
    values = np.minimum(values, seen.max() if len(seen) else 0.0)  # nothing in view: as unlike as the worst
    motions = relative_motion(poses[-_STARTS:], case.camera_from_ct, centre_ct)
    distance = np.linalg.norm(motions * ([_MM_PER_RAD] * 3 + [1.0] * 3), axis=1)
    along = values[:-_STARTS].reshape(len(AXES), _STEPS)
    return Landscape(label, case.ct, case.number, along, distance, values[-_STARTS:])
