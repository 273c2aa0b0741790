"""The one flow: CT and X-rays in; propose, refine, verify; a result out (design of the library)."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import XRayRegistrationLib
from XRayRegistrationLib.bone.model import BoneModel, build_bone_model
from XRayRegistrationLib.drr.render import resolve_backend
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.rigid import check_rigid, from_rotation_translation, transform_points
from XRayRegistrationLib.images.resize import mirror_xray
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods import get_method
from XRayRegistrationLib.methods.base import Method, Prepared, Proposal
from XRayRegistrationLib.result import Result, percentage
from XRayRegistrationLib.result import View as ResultView
from XRayRegistrationLib.similarity import SIMILARITIES
from XRayRegistrationLib.solvers.problem import View, views_of
from XRayRegistrationLib.solvers.pyramid import build_level
from XRayRegistrationLib.solvers.refinement import Refined, RefinementOptions, against, refine_candidates
from XRayRegistrationLib.solvers.search_range import NAMED_VIEWS
from XRayRegistrationLib.verification import Verdict, against_mirrored, features, probability_of, verify

Array = NDArray[np.float64]
Progress = Callable[[float, str], None]

# The last round of the refinement changes the probability by 0.2 at most (43 poses of six CTs), and takes longest: a
# pose that is further from passing is refined to the end only when nothing better is found.
_WORTH_FINISHING = 0.4
_DEFAULT_LANDMARKS = 12  # points of the bone's surface that are projected when no landmarks are given


def register(
    ct: Volume | str | Path,
    xrays: XRay | str | Path | Sequence[XRay | str | Path],
    *,
    method: str = "diffdrr",
    bone: str | Volume | BoneModel = "auto",
    labels: Sequence[int] | None = None,
    start: str | ArrayLike = "none",
    landmarks: ArrayLike | None = None,
    options: Mapping[str, Any] | None = None,
    backend: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Find where X-rays were taken from.

    Args:
        ct: HU in patient space, or a path to read it from.
        xrays: one prepared X-ray, or a path whose header carries the camera, or several that share
            one pose (each camera then has ``camera_from_rig``).
        method: a name in ``methods.METHODS``.
        bone: ``"auto"`` (segmented), ``"full"`` (everything in the patient), a label map, or a
            model that was built before.
        labels: numbers in the label map; None for all above 0.
        start: ``"none"``, ``"ap"``, ``"pa"``, ``"lat-left"``, ``"lat-right"``, or a 4x4
            camera_from_ct (rig_from_ct where the cameras have ``camera_from_rig``).
        landmarks: (n, 3) ct mm, projected into the result; None takes points of the bone's surface.
        options: of the method.
        backend: of the renderer: ``"auto"``, ``"scipy"``, ``"numba"``, ``"torch"``, ``"diffdrr"``.
        seed: of everything random.
        progress: called with (fraction done, what is being done); raising from it cancels.

    Returns:
        The result. A pose that the verification does not believe has the status ``"failure"``.

    Raises:
        InputError: something given cannot be used; the message says what is allowed.
    """
    tell = progress or (lambda fraction, text: None)
    chosen = get_method(method)
    settings = chosen.options(options)
    backend = resolve_backend(backend)
    start_pose = _checked_start(start)
    clock = _Clock()
    tell(0.0, "reading")
    images = _read_xrays(xrays)
    rigs = _rigs(images)
    volume, model = _read_ct(ct, bone, labels, seed, tell)
    if not isinstance(start_pose, str):
        _check_in_front(rigs @ start_pose, model)
    clock.lap("prepare_s")

    prepared = chosen.prepare(volume, model, settings, progress=lambda f, text: tell(0.1 + 0.05 * f, text))
    attempts: list[_Attempt] = []
    trace: list[dict[str, Any]] = []
    for candidates in _polarities(images):
        attempts.append(_attempt(chosen, candidates, prepared, start_pose, rigs, backend, seed, tell, clock, trace))
        if attempts[-1].verdict.success:
            break
    best = _most_probable(attempts)
    refined, verdict, proposal, images = best.refined, best.verdict, best.proposal, best.images
    proposed = proposal.candidates[0].rig_from_ct if proposal.proposed is None else proposal.proposed
    tell(0.95, "verifying")
    points, names = _landmarks(landmarks, model)
    depth_mm = float(transform_points(rigs[0] @ refined.rig_from_ct, model.centroid)[2])
    result = Result(
        status="success" if verdict.success else "failure",
        message=_message(verdict, refined, start, images, depth_mm),
        method=method,
        views=tuple(ResultView(x.camera, x.source, dict(x.provenance)) for x in images),
        camera_from_ct_views=rigs @ refined.rig_from_ct,
        proposed_camera_from_ct_views=rigs @ proposed,
        probability=verdict.probability,
        covariance=verdict.covariance,
        centre_ct=model.centroid,
        similarity=_similarities(best.views[refined.volume], refined, depth_mm, backend),
        ambiguity=verdict.ambiguity,
        rig_from_ct=refined.rig_from_ct if _is_rig(images) else None,
        landmarks_ct=points,
        landmark_names=names,
        timings_s=clock.total(),
        inputs={"ct": volume.source, "xrays": [x.source for x in images], "rendered": refined.volume},
        versions=_versions(),
        seed=seed,
        trace=tuple(trace),
    )
    tell(1.0, "done")
    return result


@dataclass(frozen=True)
class _Attempt:
    """One run of propose, refine and verify."""

    images: list[XRay]
    views: dict[str, list[View]]
    proposal: Proposal
    refined: Refined
    verdict: Verdict


def _polarities(images: list[XRay]) -> list[list[XRay]]:
    """The X-rays as they are, then with the other polarity where that was not certain."""
    if all(x.alternative is None for x in images):
        return [images]
    return [images, [x if x.alternative is None else x.alternative for x in images]]


def _attempt(
    method: Method,
    images: list[XRay],
    prepared: Prepared,
    start: str | Array,
    rigs: Array,
    backend: str,
    seed: int,
    tell: Progress,
    clock: _Clock,
    trace: list[dict[str, Any]],
) -> _Attempt:
    """Propose, refine and verify, and again for as long as the method has more to try and nothing verifies for certain."""
    model = prepared.bone
    views = {name: views_of(images, rendering.volume, rendering.alone) for name, rendering in model.renderings.items()}
    tell(0.15, "searching")
    proposal: Proposal | None = method.propose(
        images, prepared, start, backend=backend, seed=seed, progress=lambda f, text: tell(0.15 + 0.4 * f, text)
    )
    clock.lap("propose_s")
    found: list[_Attempt] = []
    while proposal is not None:
        tell(0.6, "refining")
        refined = _refined(proposal, views, model, backend, lambda f: tell(0.6 + 0.3 * f, "refining"))
        found.append(_Attempt(images, views, proposal, refined, verify(refined, rigs[0])))
        found = _compared(found, model, rigs[0])
        trace.append(_trace_of(found[-1]))
        best = _most_probable(found)
        clock.lap("refine_s")
        if proposal.more is None or (best.verdict.success and best.verdict.probability >= proposal.sure):
            break
        tell(0.6, "looking around what was found" if best.verdict.success else "not found yet: searching further")
        proposal = proposal.more()
        clock.lap("propose_s")
    best = _most_probable(found)
    if best.refined.finish is not None:
        refined = against(best.refined.finish(), [other.refined for other in found if other is not best], model.surface_points)
        best = replace(best, refined=refined, verdict=verify(refined, rigs[0]))
        trace.append(_trace_of(best))
        clock.lap("refine_s")
    if best.verdict.success and len(images) == 1 and not best.proposal.finished:  # that one is refined no further either
        mirrored = _mirrored(best, model, backend)
        best = replace(best, verdict=against_mirrored(best.verdict, best.refined, mirrored))
        clock.lap("refine_s")
    return best


def _mirrored(attempt: _Attempt, model: BoneModel, backend: str) -> Refined:
    """What explains the mirrored X-ray best, near what the pose found would be of it: the opposite view, and that of a
    patient whose sides are alike."""
    xray, centre = mirror_xray(attempt.images[0]), model.centroid
    camera_from_rig = attempt.images[0].camera.camera_from_rig
    pose = attempt.refined.rig_from_ct if camera_from_rig is None else camera_from_rig @ attempt.refined.rig_from_ct
    at = transform_points(pose, centre) * np.array([-1.0, 1.0, 1.0])
    poses = []
    for turn in (np.diag([-1.0, 1.0, -1.0]) @ pose[:3, :3], np.diag([-1.0, 1.0, 1.0]) @ pose[:3, :3] @ np.diag([-1.0, 1.0, 1.0])):
        poses.append(from_rotation_translation(turn, at - turn @ centre))
    rendering = model.renderings[attempt.refined.volume]
    views = {attempt.refined.volume: views_of([xray], rendering.volume, rendering.alone)}
    return refine_candidates(
        views, np.stack(poses), centre, model.surface_points, backend=backend, worth=lambda refined: False
    )


def _compared(found: list[_Attempt], model: BoneModel, camera_from_rig: Array) -> list[_Attempt]:
    """Each pose with those that were found elsewhere as its rivals too, and judged again where that matters."""
    out = []
    for one in found:
        refined = against(one.refined, [other.refined for other in found], model.surface_points)
        out.append(one if refined is one.refined else replace(one, refined=refined, verdict=verify(refined, camera_from_rig)))
    return out


def _most_probable(found: Sequence[_Attempt]) -> _Attempt:
    return max(found, key=lambda attempt: attempt.verdict.probability)  # the first of equals


def _checked_start(start: str | ArrayLike) -> str | Array:
    if isinstance(start, str):
        if start not in ("none", *NAMED_VIEWS):
            raise InputError(
                f"start {start!r} is unknown; allowed are none, {', '.join(NAMED_VIEWS)}, or a 4x4 camera_from_ct"
            )
        return start
    return check_rigid(start, "the start pose")


def _check_in_front(camera_from_ct: Array, model: BoneModel) -> None:
    """Raise InputError where a start has the bone behind the source of a view."""
    depth = float((camera_from_ct[:, :3, :3] @ model.centroid + camera_from_ct[:, :3, 3])[:, 2].min())
    if depth <= 0.0:
        raise InputError(
            f"the start pose has the bone {-depth:.0f} mm behind the X-ray source; allowed is in front of it: the z axis of "
            "camera_from_ct points from the source to the detector"
        )


def _read_xrays(xrays: XRay | str | Path | Sequence[XRay | str | Path]) -> list[XRay]:
    given = [xrays] if isinstance(xrays, (XRay, str, Path)) else list(xrays)
    if not given:
        raise InputError("no X-ray was given; give at least one")
    images = []
    for item in given:
        if isinstance(item, XRay):
            images.append(item)
        else:
            from XRayRegistrationLib.images.xray_file import read_xray

            images.append(read_xray(item))
    if len(images) > 1 and any(x.camera.camera_from_rig is None for x in images):
        raise InputError(
            f"{len(images)} X-rays were given, and not every camera has camera_from_rig; X-rays that share one pose "
            "need it, others are registered one at a time"
        )
    return images


def _rigs(images: Sequence[XRay]) -> Array:
    """camera_from_rig of every view; the rig of a camera that says nothing of one is itself."""
    if not _is_rig(images):
        return np.eye(4)[None]
    return np.stack([np.asarray(x.camera.camera_from_rig) for x in images])


def _is_rig(images: Sequence[XRay]) -> bool:
    return len(images) > 1 or images[0].camera.camera_from_rig is not None


def _read_ct(
    ct: Volume | str | Path, bone: str | Volume | BoneModel, labels: Sequence[int] | None, seed: int, tell: Progress
) -> tuple[Volume, BoneModel]:
    if not isinstance(ct, Volume):
        from XRayRegistrationLib.images.ct import read_ct

        ct = read_ct(ct)
    if isinstance(bone, BoneModel):
        return ct, bone
    tell(0.03, "segmenting bone")
    return ct, build_bone_model(ct, bone=bone, labels=labels, seed=seed)  # type: ignore[arg-type]


def _refined(
    proposal: Proposal,
    views: dict[str, list[View]],
    model: BoneModel,
    backend: str,
    check: Callable[[float], None],
) -> Refined:
    poses = np.stack([c.rig_from_ct for c in proposal.candidates])
    options = RefinementOptions()
    if proposal.finished:  # the method's own final pose: judged as it is
        options = RefinementOptions(rounds=tuple((pixels, 1, 1) for pixels, _, _ in options.rounds), settling=1, robust=None)
    return refine_candidates(
        views, poses, model.centroid, model.surface_points, options, backend=backend, check=check,
        worth=lambda refined: proposal.finished or probability_of(refined) >= _WORTH_FINISHING,
    )  # fmt: skip


def _trace_of(attempt: _Attempt) -> dict[str, Any]:
    proposal, refined = attempt.proposal, attempt.refined
    return {
        "stage": proposal.message,
        "candidates": [{"cost": c.cost, "origin": c.origin, "rig_from_ct": c.rig_from_ct} for c in proposal.candidates],
        "cost": refined.cost,
        "plain_cost": refined.plain_cost,
        "fine_cost": refined.fine_cost,
        "rival_cost": refined.rival_cost,
        "rendered": refined.volume,
        "features": [float(x) for x in features(refined)],
        "probability": attempt.verdict.probability,
    }


def _similarities(views: Sequence[View], refined: Refined, depth_mm: float, backend: str) -> dict[str, float]:
    """Every similarity at the refined pose, at 128 pixels, mean over the views; those that an image is too small for are
    left out."""
    from XRayRegistrationLib.drr.render import render

    out = {name: 0.0 for name in SIMILARITIES}
    for view in build_level(views, 128, max(depth_mm, 1.0)):
        pose = view.camera_from_rig @ refined.rig_from_ct
        image = render(view.volume, view.camera, pose, backend=backend, step_mm=view.step_mm)
        for name, similarity in SIMILARITIES.items():
            try:
                out[name] += float(similarity(image, view.image, view.valid)) / len(views)
            except InputError:  # a slit, which has no patch
                out[name] = float("nan")
    out["gradient_correlation_64px"] = 1.0 - refined.cost
    return {name: value for name, value in out.items() if np.isfinite(value)}


def _landmarks(landmarks: ArrayLike | None, model: BoneModel) -> tuple[Array, tuple[str, ...]]:
    if landmarks is None:
        points = model.surface_points[:_DEFAULT_LANDMARKS]
        return points, tuple(f"bone {n + 1}" for n in range(len(points)))
    points = np.asarray(landmarks, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise InputError(f"landmarks have the shape {points.shape}; allowed are (n, 3) finite positions in CT RAS mm")
    return points, tuple(str(n + 1) for n in range(len(points)))


def _message(verdict: Verdict, refined: Refined, start: Any, images: Sequence[XRay], depth_mm: float) -> str:
    percent = percentage(verdict.probability)
    if verdict.success:
        sigma = np.sqrt(np.maximum(np.diag(verdict.covariance), 0.0))
        assumed = [
            words
            for name, words in (("source_detector_distance_mm", "source-detector distance"), ("pixel_spacing_mm", "pixel size"))
            if any(x.provenance.get(name, "").startswith("assumed") for x in images)
        ]
        # a wrong distance or pixel size makes the bone larger, which one view cannot tell from a nearer one
        camera = f"errors of the camera come on top: 1 % of its distance or pixel size is {0.01 * depth_mm:.0f} mm in depth"
        camera += f" ({' and '.join(assumed)} assumed)" if assumed else ""
        return (
            f"Registered: the pose is right with a probability of {percent}. Uncertainty from image noise alone: "
            f"{max(sigma[3], sigma[4]):.2f} mm in the image plane, {sigma[5]:.2f} mm in depth, "
            f"{np.degrees(sigma[:3].max()):.2f} degrees; {camera}."
        )
    way_out = (
        "name the view (AP, PA, lateral) or give a rough start pose"
        if isinstance(start, str) and start == "none"
        else "check that the start or view is right, or search without one"
    )
    if verdict.doubt:
        return (
            f"Not registered: the pose found explains the X-ray, but {verdict.doubt}; do not use it. Check that the "
            f"X-ray is not mirrored, and that it shows enough of the bone to tell; {way_out}, or register a second view with it."
        )
    return (
        f"Not registered: the probability that the pose found is right is {percent}; do not use it. Check the distance and "
        f"pixel size of the X-ray, that it shows this CT's bone, its polarity, and that it is not mirrored; {way_out}."
    )


def _versions() -> dict[str, str]:
    import scipy
    import SimpleITK

    versions = {
        "xrayregistration": XRayRegistrationLib.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "SimpleITK": str(SimpleITK.Version_VersionString()),
    }
    return versions


class _Clock:
    """Seconds of each part of the flow."""

    def __init__(self) -> None:
        self.begin = self.last = time.perf_counter()
        self.parts: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.parts[name] = self.parts.get(name, 0.0) + now - self.last
        self.last = now

    def total(self) -> dict[str, float]:
        return {**self.parts, "total_s": time.perf_counter() - self.begin}
