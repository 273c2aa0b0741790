"""The registry of methods, options by name, and method diffdrr with the solvers that need a start."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pytest
import solver_phantom as phantom

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.drr.volume import WATER_MU_PER_MM
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry import rigid
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import named_view
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.methods import METHODS, Method, get_method
from XRayRegistrationLib.methods.diffdrr import DiffDrrOptions
from XRayRegistrationLib.methods.options import options_from
from XRayRegistrationLib.solvers import cma_es, first_order
from XRayRegistrationLib.solvers.problem import SolveResult

NAMES = ("diffdrr", "rayemb", "scene_coordinates", "prost", "sopi", "fixed_landmarks", "dflnet", "posenet", "deepim", "dmw")


# --- the registry


def test_all_are_listed_and_say_what_they_need():
    assert tuple(METHODS) == NAMES
    keys = {
        "summary",
        "reference",
        "training_per_patient",
        "trained_weights",
        "labels_or_landmarks",
        "start_pose",
        "optional_packages",
    }
    for name, method in METHODS.items():
        assert isinstance(method, Method)
        assert get_method(name) is method
        assert method.name == name
        assert set(method.describe()) == keys
    assert METHODS["scene_coordinates"].describe()["training_per_patient"] is True
    default = METHODS["diffdrr"].describe()
    assert not any(default[key] for key in keys - {"summary", "reference"})


@pytest.mark.parametrize(
    ("name", "nearest"), [("difdrr", "'diffdrr'"), ("ProsT", "'prost'"), ("fixed-landmark", "'fixed_landmarks'")]
)
def test_an_unknown_method_gets_the_nearest_names(name, nearest):
    with pytest.raises(InputError, match=f"method '{name}' is unknown; allowed are diffdrr, .*did you mean {nearest}"):
        get_method(name)


def test_an_unknown_method_far_from_all_names_lists_them():
    with pytest.raises(InputError, match=r"posenet, deepim, dmw$"):
        get_method("zzzz")
    with pytest.raises(InputError, match="method None is unknown"):
        get_method(None)


def test_diffdrr_has_nothing_to_train():
    with pytest.raises(InputError, match="learns nothing"):
        get_method("diffdrr").train()


# --- options by name


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5


@dataclass(frozen=True)
class Outer:
    count: int = 3
    rate: float = 1.0
    name: Literal["a", "b"] = "a"
    size: tuple[float, float] = (1.0, 2.0)
    limit: float | None = None
    flag: bool = False
    inner: Inner = field(default_factory=Inner)


def test_options_take_what_fits():
    assert options_from(Outer, None, "x") == Outer()
    got = options_from(Outer, {"rate": 2, "size": [3, 4.5], "limit": 7, "inner": {"rate": 0.1}, "flag": True}, "x")
    assert got == Outer(rate=2.0, size=(3.0, 4.5), limit=7.0, inner=Inner(0.1), flag=True)
    assert isinstance(got.rate, float)
    assert isinstance(got.size[0], float)
    assert isinstance(got.limit, float)
    assert options_from(Outer, {"inner": Inner(0.2), "limit": None}, "x").inner == Inner(0.2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cuont": 1}, "option 'cuont' of x is unknown; allowed are count, .*did you mean 'count'"),
        ({"inner": {"rte": 1}}, "option 'rte' of inner of x is unknown; .*did you mean 'rate'"),
        ({"count": 1.5}, "option 'count' of x is 1.5; allowed is a whole number"),
        ({"count": True}, "allowed is a whole number"),
        ({"rate": "fast"}, "option 'rate' of x is 'fast'; allowed is a number"),
        ({"name": "c"}, "allowed is one of 'a', 'b'"),
        ({"size": [1.0]}, "allowed is 2 values, each a number"),
        ({"limit": "no"}, "allowed is a number or None"),
        ({"flag": 1}, "allowed is True or False"),
        ({"inner": 3}, "options of inner of x are 3; allowed is a dictionary"),
    ],
)
def test_options_that_do_not_fit_fail_loudly(values, message):
    with pytest.raises(InputError, match=message):
        options_from(Outer, values, "x")


def test_diffdrrs_options_by_name():
    method = get_method("diffdrr")
    assert method.options() == DiffDrrOptions()
    options = method.options({"solver": "cma_es", "cma_es": {"population": 10, "sigma_deg": [1, 2, 3]}})
    assert options.cma_es.population == 10
    assert options.cma_es.sigma_deg == (1.0, 2.0, 3.0)
    with pytest.raises(InputError, match=r"of method 'diffdrr' is unknown.*did you mean 'paper_mode'"):
        method.options({"papermode": True})
    with pytest.raises(InputError, match="allowed is one of 'lm', 'cma_es', 'adam'"):
        method.options({"solver": "lbfgs"})
    with pytest.raises(InputError, match="choose one of the two"):
        method.options({"solver": "cma_es", "paper_mode": True})
    with pytest.raises(InputError, match="keeps the published settings"):
        method.options({"paper_mode": True, "adam": {"iterations": 5}})
    with pytest.raises(InputError, match=r"source_object_fraction is 1\.5"):
        method.options({"source_object_fraction": 1.5})


# --- the solvers of method diffdrr that need a start

CAMERA = Camera.from_spacing(30, 26, 6.0, 800.0)


def case(camera: Camera = CAMERA):
    """A CT in HU, its bone model, an X-ray of it and the true pose."""
    volume = phantom.ellipsoids()
    hu = volume.mu / WATER_MU_PER_MM * 1000.0 - 1000.0
    ct = Volume(hu.astype(np.int16), volume.ct_from_ijk)
    mask = (volume.mu > 0.02).astype(np.uint8)
    k, j, i = np.nonzero(mask)
    points = rigid.transform_points(volume.ct_from_ijk, np.stack([i, j, k], axis=1))
    bone = BoneModel(volume, volume, points[::40], points.mean(axis=0), Volume(mask, volume.ct_from_ijk), False)
    truth = phantom.true_pose(volume)
    rig = np.eye(4) if camera.camera_from_rig is None else camera.camera_from_rig
    return ct, bone, phantom.xray_at(volume, camera, rig @ truth), truth


def fake_solver(seen):
    def solve(views, start, centre_ct, options, progress=None):
        seen.append((views, start, centre_ct, options))
        return SolveResult(start, 0.25, 0.5, 7, True, "a message", ({"step": 1},))

    return solve


def propose(values, start="none", camera=CAMERA, **kwargs):
    method = get_method("diffdrr")
    ct, bone, xray, _ = case(camera)
    return method.propose([xray], method.prepare(ct, bone, method.options(values)), start, **kwargs)


def test_paper_mode_is_the_published_baseline_from_ap(monkeypatch):
    seen = []
    monkeypatch.setattr(first_order, "solve", fake_solver(seen))
    proposal = propose({"paper_mode": True})
    ((views, start, _, options),) = seen
    assert options == first_order.FirstOrderOptions()
    ct, _, _, _ = case()
    # the whole CT as it is, its centre midway between source and detector, seen from the front
    assert views[0].volume.mu.shape == ct.values.shape
    centre = views[0].volume.centre_ct
    np.testing.assert_allclose(start, named_view("ap", centre, 400.0), atol=1e-9)
    np.testing.assert_allclose(rigid.transform_points(start, centre), [0, 0, 400.0], atol=1e-9)
    np.testing.assert_allclose(start[2, :3], [0, -1, 0], atol=1e-12)  # the beam runs from front to back
    assert proposal.finished
    assert proposal.message == "a message"
    (candidate,) = proposal.candidates
    assert (candidate.cost, candidate.origin) == (0.25, "Adam from the view 'ap'")
    assert candidate.diagnostics == {"start_cost": 0.5, "iterations": 7, "converged": True}


def test_a_given_start_is_used_and_checked(monkeypatch):
    seen = []
    monkeypatch.setattr(first_order, "solve", fake_solver(seen))
    given = named_view("lat-left", [0, 0, 0], 600.0)
    assert propose({"paper_mode": True}, given).candidates[0].origin == "Adam from the given start"
    np.testing.assert_allclose(seen[0][1], given, atol=1e-9)
    propose({"solver": "adam", "source_object_fraction": 0.6}, "pa")
    np.testing.assert_allclose(seen[1][1], named_view("pa", seen[1][2], 480.0), atol=1e-9)
    with pytest.raises(InputError, match="the start pose scales"):
        propose({"paper_mode": True}, np.diag([2.0, 2.0, 2.0, 1.0]))
    with pytest.raises(InputError, match="view is 'app'"):
        propose({"paper_mode": True}, "app")
    with pytest.raises(InputError, match="no source_detector_distance_mm"):
        propose({"paper_mode": True}, camera=Camera(30, 26, CAMERA.K))


def test_a_named_start_of_a_rig_is_the_first_cameras(monkeypatch):
    seen = []
    monkeypatch.setattr(first_order, "solve", fake_solver(seen))
    camera_from_rig = rigid.from_rotation_translation(rigid.rotation_exp([0.1, 0.8, 0.0]), [100.0, 0.0, 50.0])
    propose({"paper_mode": True}, camera=replace(CAMERA, camera_from_rig=camera_from_rig))
    views, start, centre, _ = seen[0]
    np.testing.assert_allclose(views[0].camera_from_rig, camera_from_rig)
    np.testing.assert_allclose(camera_from_rig @ start, named_view("ap", centre, 400.0), atol=1e-9)


def test_cma_es_gets_the_bone_the_backend_and_the_seed(monkeypatch):
    seen = []
    monkeypatch.setattr(cma_es, "solve", fake_solver(seen))
    proposal = propose({"solver": "cma_es"}, "lat-right", backend="scipy", seed=5)
    ((views, start, centre, options),) = seen
    assert options == cma_es.CmaEsOptions(backend="scipy", seed=5)
    _, bone, _, _ = case()
    np.testing.assert_allclose(centre, bone.centroid)
    np.testing.assert_allclose(start, named_view("lat-right", bone.centroid, 0.7 * 800.0), atol=1e-9)
    np.testing.assert_array_equal(views[0].volume.mu, bone.bone.mu)
    assert proposal.finished
    assert proposal.candidates[0].origin == "CMA-ES from the view 'lat-right'"


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or importlib.util.find_spec("diffdrr") is None,
    reason="the extras torch and diffdrr are not installed",
)
def test_adam_end_to_end_from_a_start_nearby():
    method = get_method("diffdrr")
    ct, bone, xray, truth = case()
    settings = {"iterations": 20, "patch_px": 7, "rotation_rate": 1e-2, "translation_rate": 1.5}
    prepared = method.prepare(ct, bone, method.options({"solver": "adam", "adam": settings}))
    start = phantom.moved(bone.full, truth, [3.0, -2.0, 3.0, 4.0, -4.0, 10.0])
    seen = []
    proposal = method.propose([xray], prepared, start, progress=lambda fraction, text: seen.append(fraction))
    pose = proposal.candidates[0].rig_from_ct
    assert phantom.distance_mm(bone.full, pose, truth) < phantom.distance_mm(bone.full, start, truth)
    assert proposal.candidates[0].cost < proposal.candidates[0].diagnostics["start_cost"] - 0.1
    assert seen[-1] == 1.0


@pytest.mark.skipif(importlib.util.find_spec("cma") is None, reason="the extra cma is not installed")
@pytest.mark.parametrize("volume", ["bone", "full"])
def test_cma_es_renders_what_is_asked_for(monkeypatch, volume):
    seen = []
    monkeypatch.setattr(cma_es, "solve", fake_solver(seen))
    ct, bone, xray, _ = case()
    bone = replace(bone, full=replace(bone.bone, mu=2 * bone.bone.mu))
    method = get_method("diffdrr")
    method.propose([xray], method.prepare(ct, bone, method.options({"solver": "cma_es", "volume": volume})))
    (view,) = seen[0][0]
    assert view.volume is getattr(bone, volume)


def test_cma_es_end_to_end_from_a_start_nearby():
    method = get_method("diffdrr")
    ct, bone, xray, truth = case(Camera.from_spacing(60, 52, 3.0, 800.0))
    settings = {"full_size_px": 240, "population": 20, "sigma_deg": [4, 4, 4], "sigma_mm": [6, 6, 15],
                "max_generations": 15, "box_evaluations": 60, "step_mm": 2.0}  # fmt: skip
    prepared = method.prepare(ct, bone, method.options({"solver": "cma_es", "cma_es": settings}))
    start = phantom.moved(bone.full, truth, [3.0, -2.0, 3.0, 4.0, -4.0, 10.0])
    pose = method.propose([xray], prepared, start, seed=1).candidates[0].rig_from_ct
    assert phantom.distance_mm(bone.full, pose, truth) < 0.4 * phantom.distance_mm(bone.full, start, truth)
