"""The benchmark's exact line integrals, against hand-made fields and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from Testing.benchmarks.exact import integrate_piecewise_constant, integrate_trilinear


def test_one_voxel_seen_along_an_axis_is_a_hat():
    mu = np.zeros((5, 5, 5), np.float32)
    mu[2, 2, 2] = 3.0
    source, target = np.array([-4.0, 2.25, 2.0]), np.array([[9.0, 2.25, 2.0]])
    # area of the hat is 1 voxel of 2 mm, at 3/4 of its height because the ray is 1/4 voxel off in j
    assert integrate_trilinear(mu, source, target, np.array([26.0])) == pytest.approx(3.0 * 0.75 * 2.0, abs=1e-12)
    assert integrate_piecewise_constant(mu, source, target, np.array([26.0])) == pytest.approx(6.0, abs=1e-12)


def test_field_falls_to_zero_one_voxel_outside():
    mu = np.ones((3, 3, 3), np.float32)
    source, target = np.array([1.0, 1.0, -10.0]), np.array([[1.0, 1.0, 10.0]])
    # centres 0, 1, 2: two whole cells and a ramp of area 1/2 at each end
    assert integrate_trilinear(mu, source, target, np.array([20.0])) == pytest.approx(3.0, abs=1e-12)


def test_ray_that_misses_or_ends_before_the_volume_is_zero():
    mu = np.ones((3, 3, 3), np.float32)
    source = np.array([-10.0, 1.0, 1.0])
    targets = np.array([[10.0, 40.0, 1.0], [-5.0, 1.0, 1.0]])
    assert (integrate_trilinear(mu, source, targets, np.array([1.0, 1.0])) == 0).all()
    assert (integrate_piecewise_constant(mu, source, targets, np.array([1.0, 1.0])) == 0).all()


@pytest.mark.parametrize("order", [1, 0])
def test_oblique_rays_agree_with_brute_force(order):
    rng = np.random.default_rng(7)
    mu = rng.random((6, 8, 7)).astype(np.float32)
    source = np.array([-9.0, 2.0, 14.0])
    targets = np.array([[15.0, 5.0, -8.0], [12.0, 7.5, -4.0], [3.0, 2.0, -6.0]])
    length = np.linalg.norm(targets - source, axis=1)
    t = (np.arange(400_000) + 0.5) / 400_000
    expected = []
    for target, mm in zip(targets, length, strict=True):
        x = source + t[:, None] * (target - source)
        values = ndimage.map_coordinates(np.pad(mu, 2).astype(np.float64), x.T[::-1] + 2, order=order)
        expected.append(values.mean() * mm)
    integrate = integrate_trilinear if order == 1 else integrate_piecewise_constant
    # brute force is good to a step at each jump of the piecewise constant field
    np.testing.assert_allclose(integrate(mu, source, targets, length), expected, atol=1e-8 if order == 1 else 2e-3)
