"""CMA-ES, then a bounded local search, on patch gradient NCC: the intensity registration of xReg.

The recipe of the single-view pelvis registration of Grupp et al. 2020 (methods sheets 8.2 to 8.4,
A8). Level 1: CMA-ES over a twist about the bone's centre in the axes of the camera, at an eighth
of the detector's resolution, with a penalty on leaving the start. Level 2: a derivative-free
trust-region search in a small box, at a quarter. They use BOBYQA, we its successor COBYQA, which
SciPy has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.errors import InputError, MissingDependencyError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import check_rigid, inverse, se3_exp, transform_points
from XRayRegistrationLib.similarity.gradient_information import gradient_information
from XRayRegistrationLib.similarity.gradient_ncc import gradient_ncc
from XRayRegistrationLib.similarity.ncc_and_laplacian import ncc_and_laplacian
from XRayRegistrationLib.similarity.patch_gradient_ncc import PatchGradientNcc, patch_radius
from XRayRegistrationLib.solvers.problem import SolveResult, View
from XRayRegistrationLib.solvers.pyramid import reduce_image

Array = NDArray[np.float64]
Progress = Callable[[float, str], None]

Similarity = Literal["patch_gradient_ncc", "ncc_and_laplacian", "gradient_information", "gradient_ncc"]

_AT_ONCE = 1 << 18  # pixels rendered and compared in one batch: what a cache holds


@dataclass(frozen=True)
class CmaEsOptions:
    """xReg's preset; each default is the sheet's (8.3) unless it says otherwise.

    Attributes:
        downsampling: of level 1, where 1 is a detector of ``full_size_px``.
        full_size_px: longer side of the cropped CIOS detector, to which downsampling relates.
        population: poses a generation.
        sigma_deg, sigma_mm: the first standard deviations about and along the camera's x, y, z.
        tolerance_x: level 1 ends when all standard deviations are below it (rad and mm).
        tolerance_cost: or when the costs of recent generations differ by less.
        max_generations: our own bound on the budget.
        penalty_weight: w in (1 - w) (1 - similarity) + w penalty, level 1 only.
        prior_deg, prior_mm: standard deviations of the normal prior on the Euler angles (about the
            camera's fixed x, y, z) and the translation of the increment; penalty = 1/2 sum (x / sd)^2.
        box_downsampling: of level 2; None leaves level 2 out.
        box_deg, box_mm: half sides of level 2's box.
        box_tolerance: last trust radius, in units of the half sides.
        box_evaluations: our own bound on the budget.
        step_mm: distance of the samples along a ray.
        voxel_mm: render from a volume averaged to about this voxel size; None for the volume as
            it is (the paper's), of which level 1 sees little at eight times its pixels.
        backend: renderer.
        similarity: xReg's, or that of one of SOPI's baselines, Opt-NCCL, Opt-NGI and Opt-GC (sheet 8.6).
        seed: of the populations.
    """

    downsampling: float = 0.125
    full_size_px: int = 1436
    population: int = 100
    sigma_deg: tuple[float, float, float] = (15.0, 15.0, 30.0)
    sigma_mm: tuple[float, float, float] = (50.0, 50.0, 100.0)
    tolerance_x: float = 0.01
    tolerance_cost: float = 0.01
    max_generations: int = 300
    penalty_weight: float = 0.1
    prior_deg: tuple[float, float, float] = (15.0, 15.0, 10.0)
    prior_mm: tuple[float, float, float] = (30.0, 30.0, 150.0)
    box_downsampling: float | None = 0.25
    box_deg: tuple[float, float, float] = (2.5, 2.5, 2.5)
    box_mm: tuple[float, float, float] = (5.0, 5.0, 10.0)
    box_tolerance: float = 1e-4
    box_evaluations: int = 500
    step_mm: float = 1.0
    voxel_mm: float | None = None
    backend: str = "auto"
    similarity: Similarity = "patch_gradient_ncc"
    seed: int = 0

    def __post_init__(self) -> None:
        positive = (
            "downsampling", "full_size_px", "tolerance_x", "tolerance_cost", "step_mm", "box_tolerance", "sigma_deg", "sigma_mm",
            "prior_deg", "prior_mm", "box_deg", "box_mm", "box_downsampling", "voxel_mm",
        )  # fmt: skip
        for name in positive:
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) & (np.asarray(value) > 0)).all():
                many = " for each axis" if isinstance(value, tuple) else ""
                raise InputError(f"{name} is {value!r}; allowed is a positive number{many}")
        for name, least in (("population", 4), ("max_generations", 1), ("box_evaluations", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)!r}; allowed is {least} or more")
        if not 0.0 <= self.penalty_weight < 1.0:
            raise InputError(f"penalty_weight is {self.penalty_weight!r}; allowed is 0 to below 1")

    @classmethod
    def prost_benchmark(cls, **changes: Any) -> CmaEsOptions:
        """The variant that ProST compares with: population 300, sigmas 45 degrees and 200 mm.

        Its other settings are not stated and are those of the preset (methods sheet 8.4), but for the prior: one of 30 mm
        about starts that are 250 mm off would keep every pose where it is.
        """
        settings: dict[str, Any] = {
            "population": 300, "sigma_deg": (45.0,) * 3, "sigma_mm": (200.0,) * 3, "penalty_weight": 0.0
        }  # fmt: skip
        return cls(**{**settings, **changes})

    @classmethod
    def sopi_baseline(cls, similarity: Similarity, **changes: Any) -> CmaEsOptions:
        """A baseline of SOPI: its similarity; the optimiser, which is not stated, is ours: population 40 on about 64
        pixels, then the box on about 128, from sigmas like the paper's starts, without a prior.
        """
        settings: dict[str, Any] = {
            "similarity": similarity, "population": 40, "sigma_deg": (6.0,) * 3, "sigma_mm": (10.0, 10.0, 30.0),
            "downsampling": 64 / 1436, "box_downsampling": 128 / 1436, "tolerance_cost": 1e-4, "penalty_weight": 0.0,
        }  # fmt: skip
        return cls(**{**settings, **changes})


def solve(
    views: Sequence[View],
    start_rig_from_ct: ArrayLike,
    centre_ct: ArrayLike,
    options: CmaEsOptions | None = None,
    progress: Progress | None = None,
) -> SolveResult:
    """Register by CMA-ES and a bounded search.

    Args:
        views: X-rays that share one pose, each with the volume to render (xReg: the bone alone).
        start_rig_from_ct: 4x4; of a single view this is camera_from_ct.
        centre_ct: (3,), centre of rotation, ct mm.
        options: None for xReg's preset.
        progress: ``(fraction, text)``; raising from it cancels.

    Returns:
        The best pose; its cost is 1 - similarity at the last level, mean over views, and never
        larger than the start's.

    Raises:
        MissingDependencyError: ``cma`` is not installed, or SciPy is older than 1.14.
        InputError: no view, or a start that is not rigid.
    """
    options = options or CmaEsOptions()
    if not views:
        raise InputError("there is no view to register; allowed is one X-ray or several")
    start = check_rigid(start_rig_from_ct, "the start pose")
    centre = np.asarray(centre_ct, dtype=np.float64)
    cma = _cma()
    _require_cobyqa(options)
    level = _Level(views, options.downsampling, options)
    last = level if options.box_downsampling is None else _Level(views, options.box_downsampling, options)
    candidates, trace = [start], []

    pose, generations, stop = _evolve(cma, level, views, start, centre, options, progress)
    candidates.append(pose)
    trace.append({"level": "cma-es", "pixels": level.pixels, "generations": generations, "stop": stop})
    iterations, converged = generations, stop != "maxiter"
    if options.box_downsampling is not None:
        pose, evaluations, success = _search_box(last, views, pose, centre, options, progress)
        candidates.append(pose)
        trace.append({"level": "box", "pixels": last.pixels, "evaluations": evaluations, "converged": success})
        iterations, converged = iterations + evaluations, converged and success

    costs = last.costs(np.stack(candidates))
    best = int(np.argmin(costs))  # the first of equals: the start, if nothing is better
    message = "the search converged" if converged else "the search ended with its budget"
    if best == 0:
        message += "; nothing it found is better than the start"
    for entry, cost in zip(trace, costs[1:], strict=True):
        entry["cost"] = float(cost)
    if progress is not None:
        progress(1.0, "CMA-ES done")
    return SolveResult(
        candidates[best], float(costs[best]), float(costs[0]), iterations, converged, message, tuple(trace)
    )


class _Level:
    """All views at one resolution, and the cost of poses there."""

    def __init__(self, views: Sequence[View], downsampling: float, options: CmaEsOptions):
        self.options = options
        self.views: list[tuple[AttenuationVolume, Camera, Array, Callable[[NDArray[np.float32]], Array]]] = []
        self.pixels = 0
        for view in views:
            camera = view.xray.camera
            side = max(camera.width, camera.height)
            factor = max(1, round(side / (downsampling * options.full_size_px)))
            image, valid, small = reduce_image(view.xray.line_integrals, view.xray.mask, camera, factor)
            volume = view.volume if options.voxel_mm is None else view.volume.coarser(options.voxel_mm)
            small_side = max(small.width, small.height)
            # the patch keeps its size relative to the field of view, also of a smaller detector
            radius = patch_radius(small_side / options.full_size_px)
            to_image = _similarity(options.similarity, image, valid, radius)
            self.views.append((volume, small, view.camera_from_rig, to_image))
            self.pixels = max(self.pixels, small_side)

    def costs(self, rig_from_ct: Array) -> Array:
        """1 - similarity, mean over views, of poses (n, 4, 4): (n,) in [0, 2]."""
        total = np.zeros(len(rig_from_ct))
        for volume, camera, camera_from_rig, to_image in self.views:
            poses = camera_from_rig @ rig_from_ct
            size = max(1, _AT_ONCE // (camera.width * camera.height))
            for begin in range(0, len(poses), size):
                images = render(
                    volume,
                    camera,
                    poses[begin : begin + size],
                    backend=self.options.backend,
                    step_mm=self.options.step_mm,
                )
                total[begin : begin + size] += 1.0 - to_image(images)
        return total / len(self.views)


def _similarity(
    name: Similarity, fixed: NDArray[np.float32], valid: NDArray[np.bool_], radius: int
) -> Callable[[NDArray[np.float32]], Array]:
    """Similarities (n,) of images (n, H, W) with a fixed one; larger is more alike."""
    if name == "patch_gradient_ncc":
        inside = np.where(valid, fixed, 0.0).astype(np.float64)
        return PatchGradientNcc(inside, valid, radius=radius, min_valid_fraction=1.0)
    one = {
        "ncc_and_laplacian": ncc_and_laplacian, "gradient_information": gradient_information, "gradient_ncc": gradient_ncc
    }[name]  # fmt: skip
    return lambda images: np.array([one(image, fixed, valid) for image in images])


def moved(rig_from_ct: Array, camera_from_rig: Array, centre_ct: Array, twists: Array) -> Array:
    """Poses (n, 4, 4) at twists (n, 6) from ``rig_from_ct``, about the centre in camera axes.

    camera_from_ct' = C exp(twist) C^-1 camera_from_ct with C the translation to the centre
    ("CamAlignRefFrameWithCurPose", sheet 8.1).
    """
    camera_from_ct = camera_from_rig @ rig_from_ct
    to_centre = np.eye(4)
    to_centre[:3, 3] = transform_points(camera_from_ct, centre_ct)
    return inverse(camera_from_rig) @ to_centre @ se3_exp(twists) @ inverse(to_centre) @ camera_from_ct


def penalty(twists: Array, prior_deg: Sequence[float], prior_mm: Sequence[float]) -> Array:
    """-log of the normal prior's density over its largest, of twists (n, 6): (n,).

    1/2 sum (x / sd)^2 over the Euler angles about the camera's fixed x, y, z and the translation.
    """
    motion = se3_exp(twists)
    angles = Rotation.from_matrix(motion[:, :3, :3]).as_euler("xyz", degrees=True)
    scaled = np.concatenate([angles / np.asarray(prior_deg), motion[:, :3, 3] / np.asarray(prior_mm)], axis=1)
    return 0.5 * (scaled**2).sum(axis=1)


def _evolve(
    cma: Any,
    level: _Level,
    views: Sequence[View],
    start: Array,
    centre_ct: Array,
    options: CmaEsOptions,
    progress: Progress | None,
) -> tuple[Array, int, str]:
    """Level 1: best pose, number of generations, and cma's name for why it stopped."""
    rng = np.random.default_rng(options.seed)
    sigma = np.concatenate([np.radians(options.sigma_deg), options.sigma_mm])
    strategy = cma.CMAEvolutionStrategy(
        np.zeros(6),
        1.0,
        {
            "CMA_stds": sigma,
            "popsize": options.population,
            "tolx": options.tolerance_x,
            "tolfun": options.tolerance_cost,
            "maxiter": options.max_generations,
            # its own generator: NumPy's global one belongs to the caller
            "randn": lambda *shape: rng.standard_normal(shape),
            "seed": np.nan,
            "verbose": -9,
        },
    )
    best_cost, best = np.inf, np.zeros(6)
    generation = 0
    stop: dict[str, Any] = {}
    while not stop:
        twists = np.array(strategy.ask())
        cost = level.costs(moved(start, views[0].camera_from_rig, centre_ct, twists))
        cost = (1.0 - options.penalty_weight) * cost
        if options.penalty_weight > 0.0:
            cost = cost + options.penalty_weight * penalty(twists, options.prior_deg, options.prior_mm)
        strategy.tell(list(twists), cost.tolist())
        if cost.min() < best_cost:
            best_cost, best = float(cost.min()), twists[int(cost.argmin())]
        generation += 1
        stop = strategy.stop()
        if progress is not None:
            # how many generations it takes is not known beforehand: most often 30 to 60
            progress(0.8 * (1.0 - 0.5 ** (generation / 20.0)), f"CMA-ES generation {generation}, cost {best_cost:.4f}")
    pose = moved(start, views[0].camera_from_rig, centre_ct, best[None])[0]
    return pose, generation, "+".join(sorted(stop))


def _search_box(
    level: _Level,
    views: Sequence[View],
    start: Array,
    centre_ct: Array,
    options: CmaEsOptions,
    progress: Progress | None,
) -> tuple[Array, int, bool]:
    """Level 2: best pose, number of evaluations, and whether the tolerance was met."""
    from scipy.optimize import minimize

    half = np.concatenate([np.radians(options.box_deg), options.box_mm])
    evaluations = 0

    def cost(x: Array) -> float:
        nonlocal evaluations
        evaluations += 1
        if progress is not None:
            done = evaluations / options.box_evaluations
            progress(0.8 + 0.2 * min(done, 0.99), f"bounded search, evaluation {evaluations}")
        twist = (np.clip(x, -1.0, 1.0) * half)[None]
        return float(level.costs(moved(start, views[0].camera_from_rig, centre_ct, twist))[0])

    result = minimize(
        cost,
        np.zeros(6),
        method="COBYQA",
        bounds=[(-1.0, 1.0)] * 6,
        options={
            "maxfev": options.box_evaluations,
            "initial_tr_radius": 0.5,
            "final_tr_radius": options.box_tolerance,
        },
    )
    pose = moved(start, views[0].camera_from_rig, centre_ct, (np.clip(result.x, -1.0, 1.0) * half)[None])[0]
    return pose, evaluations, bool(result.success)


def _cma() -> Any:
    try:
        import cma
    except ModuleNotFoundError as error:
        if error.name != "cma":
            raise
        raise MissingDependencyError("cma", "the CMA-ES solver", "cma") from error
    return cma


def _require_cobyqa(options: CmaEsOptions) -> None:
    import scipy

    version = tuple(int(n) for n in scipy.__version__.split(".")[:2])
    if options.box_downsampling is not None and version < (1, 14):
        raise MissingDependencyError("scipy>=1.14", "the bounded search after CMA-ES (COBYQA)", "cma")
