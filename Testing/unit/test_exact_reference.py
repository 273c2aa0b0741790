"""The benchmark's exact line integrals, against hand-made fields and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from Testing.benchmarks.exact import integrate_piecewise_constant, integrate_trilinear, project
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, inverse, rotation_exp, transform_points


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


def test_an_image_is_the_integral_of_every_pixels_ray():
    """Two materials at once, in mm, on an anisotropic flipped grid; and each material is what it is alone."""
    rng = np.random.default_rng(3)
    channels = rng.random((2, 6, 8, 7)).astype(np.float32)
    ct_from_ijk = np.diag([-2.0, 3.0, 4.0, 1.0])
    ct_from_ijk[:3, 3] = [7.0, -11.0, -9.0]
    camera = Camera.from_spacing(9, 5, (6.0, 7.0), 500.0)
    camera_from_ct = from_rotation_translation(rotation_exp([0.3, -0.2, 0.4]), [3.0, 1.0, 300.0])
    image = project(channels, ct_from_ijk, camera, camera_from_ct)
    assert image.shape == (2, 5, 9)
    ijk_from_camera = np.linalg.inv(ct_from_ijk) @ inverse(camera_from_ct)
    ends = 500.0 * camera.ray_directions().reshape(-1, 3)  # on the detector, at depth 500 mm
    source, targets = ijk_from_camera[:3, 3], transform_points(ijk_from_camera, ends)
    for values, mu in zip(image, channels, strict=True):
        expected = integrate_trilinear(mu, source, targets, np.linalg.norm(ends, axis=1))
        assert (expected > 1).sum() > 10
        np.testing.assert_allclose(values.ravel(), expected, atol=1e-12 * expected.max())
    np.testing.assert_array_equal(project(channels[1:], ct_from_ijk, camera, camera_from_ct)[0], image[1])


def test_a_ray_within_the_planes_of_the_grid():
    """Along an axis, through voxel centres (trilinear) and voxel borders (constant): no piece lost, none twice."""
    mu = np.arange(5 * 4 * 3, dtype=np.float32).reshape(5, 4, 3)
    source, target, length = np.array([1.0, 2.0, -8.0]), np.array([[1.0, 2.0, 12.0]]), np.array([20.0])
    assert integrate_trilinear(mu, source, target, length)[0] == pytest.approx(mu[:, 2, 1].sum(), abs=1e-12)
    border = np.array([0.5, 0.0, 0.0])  # the box that the border is counted to is either one
    found = integrate_piecewise_constant(mu, source + border, target + border, length)[0]
    assert min(abs(found - mu[:, 2, 1].sum()), abs(found - mu[:, 2, 2].sum())) < 1e-12
