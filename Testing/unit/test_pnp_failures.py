"""What PnP refuses, and what it says then."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.benchmarks.pnp import CAMERA
from XRayRegistrationLib.errors import InputError, MissingDependencyError
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.solvers import pnp_sampling
from XRayRegistrationLib.solvers.pnp import PnpFailure, PnpOptions, solve_pnp
from XRayRegistrationLib.solvers.pnp_pairs import checked_pairs, thinned

RNG = np.random.default_rng(0)
POINTS, PIXELS = RNG.uniform(-50, 50, (9, 3)), RNG.uniform(0, 127, (9, 2))
LINE = np.outer(np.arange(9.0), [1, 2, 3])
HOLES = np.where(np.arange(9)[:, None] == 4, np.nan, POINTS)


@pytest.mark.parametrize(
    ("points", "pixels", "words"),
    [
        (np.zeros((0, 3)), np.zeros((0, 2)), "0 pairs leave the pose open"),
        (POINTS[:3], PIXELS[:3], "3 pairs leave the pose open"),
        (HOLES, PIXELS, r"1 of 9 pairs are not finite \(numbers 4\)"),
        (POINTS, np.where(np.arange(9)[:, None] < 2, np.inf, PIXELS), r"2 of 9 .*\(numbers 0, 1\)"),
        (LINE, PIXELS, "on a line"),
        (np.zeros((9, 3)), PIXELS, "on a line"),
        (POINTS, np.full((9, 2), 7.0), "one spot"),
    ],
)
def test_pairs_that_determine_no_pose(points: np.ndarray, pixels: np.ndarray, words: str) -> None:
    with pytest.raises(PnpFailure, match=words):
        solve_pnp(points, pixels, CAMERA)


@pytest.mark.parametrize("n", [6, 14, 40, 2000, 30_000])
def test_pairs_at_random_have_no_pose(n: int) -> None:
    for seed in range(3):
        rng = np.random.default_rng([seed, n])
        with pytest.raises(PnpFailure, match=r"chance|at least 4"):
            solve_pnp(rng.uniform(-50, 50, (n, 3)), rng.uniform(0, 127, (n, 2)), CAMERA, sigma_px=2.0)


def test_unsure_pairs_give_a_pose_where_it_is_judged_later() -> None:
    """Points whose errors are said to be large: chance would do as well, and still the direction is right."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-60, 60, (400, 3))
    pixels = CAMERA.project(points + np.array([5.0, -8.0, 700.0]))
    said = points + rng.normal(0, 15.0, points.shape)
    sigma = np.full(400, 150.0)
    with pytest.raises(PnpFailure, match="chance"):
        solve_pnp(said, pixels, CAMERA, sigma_mm=sigma)
    pose = solve_pnp(said, pixels, CAMERA, sigma_mm=sigma, options=PnpOptions(refuse_chance=False))[0]
    off = transform_points(pose.camera_from_ct, points) - (points + np.array([5.0, -8.0, 700.0]))
    assert np.linalg.norm(off[:, :2], axis=1).max() < 10.0  # the direction; the depth is as unsure as was said


def test_right_pairs_on_a_line_among_wrong_ones() -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(-50, 50, (300, 3))
    points[:200] = np.outer(rng.uniform(-50, 50, 200), [1.0, 0.3, 0.2]) + rng.normal(0, 0.3, (200, 3))
    pixels = CAMERA.project(points + np.array([0, 0, 700]))
    pixels[200:] = rng.uniform(0, 127, (100, 2))
    with pytest.raises(PnpFailure, match="lie on a line"):
        solve_pnp(points, pixels, CAMERA, sigma_px=0.5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sigma_px": np.zeros(9)}, "sigma_px of pair 0 is 0"),
        ({"sigma_mm": np.where(np.arange(9) == 5, np.nan, 1.0)}, "sigma_mm of pair 5 is nan"),
        ({"sigma_px": np.ones(8)}, "shape"),
        ({"covariance_px": np.ones((9, 2, 2))}, "positive definite"),
        ({"covariance_px": np.ones((9, 2))}, "shape"),
        ({"covariance_px": np.tile(np.eye(2), (9, 1, 1)), "sigma_px": 1.0}, "both"),
        ({"prior": (np.eye(4), np.zeros(6))}, "six positive"),
        ({"prior": (np.diag([1.0, 1, 1, 2]), np.ones(6))}, "last row"),
    ],
)
def test_uncertainties_that_are_none(given: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        solve_pnp(POINTS, PIXELS, CAMERA, **given)


def test_a_prior_behind_the_source() -> None:
    behind = np.eye(4)
    behind[2, 3] = -500.0
    with pytest.raises(InputError, match="behind the source"):
        solve_pnp(POINTS, PIXELS, CAMERA, prior=(behind, np.ones(6)))


def test_shapes() -> None:
    with pytest.raises(InputError, match=r"\(9, 3\) and \(8, 2\)"):
        solve_pnp(POINTS, PIXELS[:8], CAMERA)


@pytest.mark.parametrize(
    "values",
    [
        {"threshold_px": 0.0},
        {"threshold_sigma": -1.0},
        {"confidence": 1.0},
        {"modes": 0},
        {"max_pairs": 10},
        {"solver": "epnp"},
        {"point_errors": "none"},
    ],
)
def test_options(values: dict) -> None:
    with pytest.raises(InputError, match=next(iter(values))):
        PnpOptions(**values)


def test_without_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"cv2"}
    monkeypatch.setattr(pnp_sampling, "find_spec", lambda name: name if name in there else None)
    assert pnp_sampling.chosen_solver("auto") == "opencv"
    with pytest.raises(MissingDependencyError, match="poselib"):
        pnp_sampling.chosen_solver("poselib")
    there.clear()
    with pytest.raises(MissingDependencyError, match=r"xrayregistration\[poselib\]"):
        solve_pnp(POINTS, PIXELS, CAMERA)


def test_thinning_keeps_the_surest_of_each_place() -> None:
    rng = np.random.default_rng(1)
    n = 40_000
    # three quarters in one corner
    pixels = np.where(rng.random((n, 1)) < 0.75, rng.uniform(0, 20, (n, 2)), rng.uniform(0, 127, (n, 2)))
    sigma = rng.uniform(1, 3, n)
    pairs = checked_pairs(rng.uniform(-50, 50, (n, 3)), pixels, CAMERA, sigma, None, None, plain_sigma_px=1.0)
    kept = thinned(pairs, 1000, rng, ranked=True)
    assert 900 < len(kept) <= 1000
    assert len(np.unique(kept)) == len(kept)
    assert (np.diff(sigma[kept]) > -0.02).all()  # surest first, to the eighth bit
    corner = (pixels[kept] < 20).all(axis=1)
    assert 0.15 < corner.mean() < 0.5  # neither its 1/40 of the image nor its 3/4 of the pairs
    assert sigma[kept][corner].max() < 1.1  # of very many, only the best
    assert len(thinned(pairs, n, rng, ranked=True)) == n
