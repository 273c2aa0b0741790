"""The compiled comparison of images against the plain one: value and derivatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from Testing.unit.ct_phantom import CAMERA, xray_of
from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.drr.render import render_with_jacobian
from XRayRegistrationLib.geometry.rigid import increment_left, inverse, transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.simulation.poses import pose_at, rotation_from_angles
from XRayRegistrationLib.solvers import levenberg_marquardt
from XRayRegistrationLib.solvers.comparison import ComparisonOptions, agreement, correlation, fixed_features, residual
from XRayRegistrationLib.solvers.gradient_residual import GradientNormalisation
from XRayRegistrationLib.solvers.problem import View
from XRayRegistrationLib.solvers.pyramid import LevelView, build_level

Image = np.ndarray


@pytest.fixture(scope="module", autouse=True)
def _numba() -> None:
    pytest.importorskip("numba")


@pytest.fixture(scope="module")
def poses(model: BoneModel) -> np.ndarray:
    """(5, 4, 4); at the fourth the bone leaves the picture, at the last it is out of it."""
    true = pose_at(rotation_from_angles(35.0, -20.0, 8.0), CAMERA, model.centroid, (52.0, 36.0), 690.0)
    steps = np.zeros((5, 6))
    steps[:3] = np.random.default_rng(2).normal(0, 1, (3, 6)) * [0.1, 0.1, 0.1, 8.0, 8.0, 20.0]
    steps[3, 3], steps[4, 3] = 90.0, 900.0
    centre = transform_points(true, model.centroid)
    return np.stack([increment_left(true, step, centre) for step in steps])


@pytest.fixture(scope="module")
def masked(ct: Volume, poses: np.ndarray) -> XRay:
    xray = xray_of(ct, CAMERA, poses[0])
    mask = np.ones_like(xray.mask)
    mask[:25, :30] = False
    mask[50:60, 70:80] = False
    return XRay(xray.line_integrals, mask, CAMERA)


@pytest.fixture(params=[False, True], ids=["all", "alone"])
def level_view(request: pytest.FixtureRequest, model: BoneModel, masked: XRay) -> LevelView:
    volume = model.bone if request.param else model.full
    return build_level([View(volume, masked, alone=request.param)], 96, 690.0)[0]


@pytest.fixture
def rendered(level_view: LevelView, poses: np.ndarray, model: BoneModel) -> tuple[Image, Image]:
    centre = transform_points(poses[0], model.centroid)
    return render_with_jacobian(
        level_view.volume, level_view.camera, poses, centre, backend="scipy", step_mm=level_view.step_mm
    )


OPTIONS = [
    ComparisonOptions(tone_curve, GradientNormalisation(window, floor))
    for tone_curve in (False, True)
    for window, floor in ((15, 0.5), (6, 0.1), (0, 0.5))
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_compiled_is_as_plain(level_view: LevelView, rendered: tuple[Image, Image], options: ComparisonOptions) -> None:
    image, jacobian = rendered
    fixed = fixed_features(level_view, options)
    plain = agreement(fixed, image, jacobian, options, "scipy")
    compiled = agreement(fixed, image, jacobian, options, "numba")
    np.testing.assert_allclose(compiled.correlation, plain.correlation, atol=1e-5)
    for axes in (np.s_[:, :3], np.s_[:, 3:]):  # radians and millimetres each by their own size
        np.testing.assert_allclose(compiled.slope[axes], plain.slope[axes], atol=2e-4 * np.abs(plain.slope[axes]).max())
    for rows in (np.s_[:3], np.s_[3:]):
        for columns in (np.s_[:3], np.s_[3:]):
            a, b = compiled.normal[:, rows, columns], plain.normal[:, rows, columns]
            np.testing.assert_allclose(a, b, atol=2e-4 * np.abs(b).max())
    for backend in ("scipy", "numba"):
        alone = correlation(fixed, image, options, backend)
        np.testing.assert_allclose(alone, plain.correlation, atol=1e-5)


def test_compiled_is_as_plain_under_weights(level_view: LevelView, rendered: tuple[Image, Image]) -> None:
    weight = np.random.default_rng(1).uniform(0, 1, level_view.valid[1:-1, 1:-1].shape).astype(np.float32)
    weight[20:30, 20:60] = 1e-3
    options = ComparisonOptions()
    fixed = fixed_features(replace(level_view, weight=weight), options)
    plain, compiled = (agreement(fixed, *rendered, options, backend) for backend in ("scipy", "numba"))
    np.testing.assert_allclose(compiled.correlation, plain.correlation, atol=1e-5)
    np.testing.assert_allclose(compiled.slope, plain.slope, atol=2e-4 * np.abs(plain.slope).max())
    np.testing.assert_allclose(compiled.normal, plain.normal, atol=2e-4 * np.abs(plain.normal).max())
    found, counts = residual(fixed, rendered[0], options)
    half_square = 0.5 * (found.astype(np.float64) ** 2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(1.0 - half_square[:3], plain.correlation[:3], atol=1e-5)
    assert counts[0].any()


def test_one_image_is_as_one_of_several(level_view: LevelView, rendered: tuple[Image, Image]) -> None:
    image, jacobian = rendered
    options = ComparisonOptions()
    fixed = fixed_features(level_view, options)
    several, one = (agreement(fixed, image[s], jacobian[s], options, "numba") for s in (np.s_[:], np.s_[1:2]))
    np.testing.assert_allclose(one.slope[0], several.slope[1], rtol=1e-6)
    np.testing.assert_allclose(one.normal[0], several.normal[1], rtol=1e-6)


def test_a_blank_image_agrees_with_nothing_and_pulls_nowhere(level_view: LevelView) -> None:
    image = np.zeros((2, *level_view.image.shape), np.float32)
    jacobian = np.zeros((2, 6, *level_view.image.shape), np.float32)
    options = ComparisonOptions()
    fixed = fixed_features(level_view, options)
    for backend in ("scipy", "numba"):
        found = agreement(fixed, image, jacobian, options, backend)
        assert not found.correlation.any()
        assert not found.slope.any()
        assert not found.normal.any()


def test_two_views_in_the_rigs_axes(
    ct: Volume, model: BoneModel, poses: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # one renderer for both, so that nothing but the comparison differs
    monkeypatch.setattr(
        levenberg_marquardt, "render_with_jacobian", lambda *a, backend, **k: render_with_jacobian(*a, backend="scipy", **k)
    )
    second = pose_at(rotation_from_angles(125.0, -20.0, 8.0), CAMERA, model.centroid, (45.0, 40.0), 700.0)
    second_from_rig = second @ inverse(poses[0])
    views = [
        View(model.full, xray_of(ct, CAMERA, poses[0], 1)),
        View(model.full, xray_of(ct, CAMERA, second, 2), second_from_rig),
    ]
    level = build_level(views, 48, 690.0)
    options = levenberg_marquardt.LevenbergMarquardtOptions()
    fixed = levenberg_marquardt._fixed_features(level, options)
    plain, compiled = (
        levenberg_marquardt._linearise(level, fixed, poses[:3], model.centroid, options, backend)
        for backend in ("scipy", "numba")
    )
    for a, b in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4 * np.abs(b).max())
