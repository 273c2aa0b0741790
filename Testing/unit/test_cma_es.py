"""CMA-ES with a bounded search: it finds the pose, and keeps its promises about the budget and the start."""

from __future__ import annotations

import builtins
from dataclasses import fields, replace

import numpy as np
import pytest
import solver_phantom as phantom

from XRayRegistrationLib.errors import InputError, MissingDependencyError
from XRayRegistrationLib.geometry import rigid
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.solvers.cma_es import CmaEsOptions, moved, penalty, solve
from XRayRegistrationLib.solvers.problem import View

CAMERA = Camera.from_spacing(60, 52, 3.0, 800.0)
SMALL = CmaEsOptions(
    full_size_px=240,  # so that level 1 has 30 px and level 2 has 60
    population=24,
    sigma_deg=(4.0, 4.0, 4.0),
    sigma_mm=(6.0, 6.0, 15.0),
    tolerance_cost=1e-3,
    box_evaluations=150,
    step_mm=2.0,
    seed=3,
)


def test_presets_are_the_sheets():
    preset = CmaEsOptions()
    assert preset.population == 100
    assert preset.sigma_deg == (15.0, 15.0, 30.0)
    assert preset.sigma_mm == (50.0, 50.0, 100.0)
    assert (preset.tolerance_x, preset.tolerance_cost) == (0.01, 0.01)
    assert preset.penalty_weight == 0.1
    assert preset.prior_deg == (15.0, 15.0, 10.0)
    assert preset.prior_mm == (30.0, 30.0, 150.0)
    assert (preset.downsampling, preset.box_downsampling) == (0.125, 0.25)
    assert preset.box_deg == (2.5, 2.5, 2.5)
    assert preset.box_mm == (5.0, 5.0, 10.0)
    benchmark = CmaEsOptions.prost_benchmark(seed=7)
    changed = {f.name for f in fields(preset) if getattr(preset, f.name) != getattr(benchmark, f.name)}
    assert changed == {"population", "sigma_deg", "sigma_mm", "penalty_weight", "seed"}
    assert benchmark.penalty_weight == 0.0  # a start 250 mm off may be left
    assert benchmark.population == 300
    assert benchmark.sigma_deg == (45.0, 45.0, 45.0)
    assert benchmark.sigma_mm == (200.0, 200.0, 200.0)


def test_the_penalty_by_hand():
    twists = np.zeros((4, 6))
    twists[1, 2] = np.radians(10.0)  # one standard deviation about z
    twists[2, 5] = 300.0  # two along z
    twists[3, [0, 3]] = np.radians(30.0), 15.0  # two about x and half along x, which do not mix
    expected = [0.0, 0.5, 2.0, 2.0 + 0.125]
    np.testing.assert_allclose(penalty(twists, (15, 15, 10), (30, 30, 150)), expected, atol=1e-12)


def test_poses_move_about_the_centre_in_camera_axes():
    rig_from_ct = rigid.from_rotation_translation(rigid.rotation_exp([0.4, 1.0, -0.2]), [10.0, 20.0, 500.0])
    camera_from_rig = rigid.from_rotation_translation(rigid.rotation_exp([0.0, 1.4, 0.1]), [300.0, 0.0, 100.0])
    centre_ct = np.array([5.0, -6.0, 7.0])
    twists = np.array([[0.0, 0.0, 0.3, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]])
    turned, shifted = camera_from_rig @ moved(rig_from_ct, camera_from_rig, centre_ct, twists)
    before = camera_from_rig @ rig_from_ct
    c = rigid.transform_points(before, centre_ct)
    np.testing.assert_allclose(rigid.transform_points(turned, centre_ct), c, atol=1e-9)
    np.testing.assert_allclose(turned[:3, :3], rigid.rotation_exp([0, 0, 0.3]) @ before[:3, :3], atol=1e-12)
    np.testing.assert_allclose(rigid.transform_points(shifted, centre_ct), c + np.array([1, 2, 3]), atol=1e-9)


@pytest.fixture(scope="module")
def problem():
    pytest.importorskip("cma", reason="the extra cma is not installed")
    volume = phantom.ellipsoids()
    truth = phantom.true_pose(volume)
    view = View(volume, phantom.xray_at(volume, CAMERA, truth))
    return volume, truth, view


def test_it_finds_the_pose(problem):
    volume, truth, view = problem
    start = phantom.moved(volume, truth, [4.0, -3.0, 4.0, 6.0, -5.0, 12.0])
    assert phantom.distance_mm(volume, start, truth) > 12.0
    seen = []
    result = solve([view], start, volume.centre_ct, SMALL, lambda fraction, text: seen.append((fraction, text)))
    assert phantom.distance_mm(volume, result.rig_from_ct, truth) < 2.5
    assert result.cost < 0.8 * result.start_cost
    rigid.check_rigid(result.rig_from_ct, "result", tolerance=1e-9)
    assert [entry["pixels"] for entry in result.trace] == [30, 60]
    assert result.iterations == result.trace[0]["generations"] + result.trace[1]["evaluations"]
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert "generation" in seen[0][1]


def test_the_same_seed_gives_the_same_pose_and_numpys_global_generator_is_left_alone(problem):
    volume, truth, view = problem
    start = phantom.moved(volume, truth, [2.0, 0.0, 0.0, 3.0, 0.0, 0.0])
    options = replace(SMALL, population=8, max_generations=2, box_downsampling=None)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - it is the global one that is tested
    first, second = (solve([view], start, volume.centre_ct, options).rig_from_ct for _ in range(2))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    np.testing.assert_array_equal(first, second)
    other = solve([view], start, volume.centre_ct, replace(options, seed=4)).rig_from_ct
    assert not np.array_equal(first, other)


def test_it_never_returns_worse_than_its_start(problem):
    volume, truth, view = problem
    # from the truth, with a budget too small to find anything better
    options = replace(SMALL, population=4, max_generations=1, box_downsampling=None, downsampling=0.25)
    result = solve([view], truth, volume.centre_ct, options)
    assert result.cost <= result.start_cost
    np.testing.assert_allclose(result.rig_from_ct, truth, atol=1e-12)
    assert "nothing it found is better" in result.message
    assert not result.converged


def test_two_views_share_one_pose(problem):
    volume, truth, view = problem
    # the second camera looks across, at the same distance
    side = rigid.from_rotation_translation(rigid.rotation_exp([0.0, np.pi / 2, 0.0]), [-500.0, 0.0, 500.0])
    second = View(volume, phantom.xray_at(volume, CAMERA, side @ truth, seed=1), side)
    start = phantom.moved(volume, truth, [3.0, -3.0, 2.0, 3.0, -5.0, 12.0])
    result = solve([view, second], start, volume.centre_ct, replace(SMALL, box_evaluations=80))
    assert phantom.distance_mm(volume, result.rig_from_ct, truth) < 2.0


def test_raising_from_the_progress_cancels(problem):
    volume, truth, view = problem

    def cancel(fraction: float, text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve([view], truth, volume.centre_ct, SMALL, cancel)


def test_bad_input_says_what_is_allowed(problem):
    volume, truth, view = problem
    with pytest.raises(InputError, match="no view"):
        solve([], truth, volume.centre_ct)
    with pytest.raises(InputError, match="the start pose mirrors"):
        solve([view], np.diag([1.0, 1.0, -1.0, 1.0]), volume.centre_ct)
    with pytest.raises(InputError, match="step_mm is 0"):
        CmaEsOptions(step_mm=0.0)
    for name, value in (
        ("population", 2), ("max_generations", 0), ("box_evaluations", 0), ("box_downsampling", 0.0), ("voxel_mm", 0.0),
        ("sigma_mm", (0.0, 0.0, 0.0)), ("prior_deg", (0.0, 1.0, 1.0)), ("box_deg", (1.0, float("nan"), 1.0)),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"^{name} is .*; allowed is"):
            CmaEsOptions(**{name: value})
    assert CmaEsOptions(voxel_mm=None, box_downsampling=None).voxel_mm is None
    with pytest.raises(InputError, match="penalty_weight is 1"):
        CmaEsOptions(penalty_weight=1.0)


def test_without_cma_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without_cma(name, *args, **kwargs):
        if name == "cma":
            raise ModuleNotFoundError("No module named 'cma'", name="cma")
        return real(name, *args, **kwargs)

    volume = phantom.ellipsoids()
    truth = phantom.true_pose(volume)
    view = View(volume, phantom.xray_at(volume, CAMERA, truth))
    monkeypatch.setattr(builtins, "__import__", without_cma)
    with pytest.raises(MissingDependencyError, match=r"xrayregistration\[cma\]"):
        solve([view], truth, volume.centre_ct)
