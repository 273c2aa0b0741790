"""Resampling and cropping: a point stays where the camera projects it, and masked pixels do not bleed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.resize import crop_xray, mirror_xray, resize_xray
from XRayRegistrationLib.images.weights import resample_weights
from XRayRegistrationLib.images.xray import XRay

WIDTH, HEIGHT = 60, 45


def spots(points: np.ndarray, width: int, height: int, sigma: tuple[float, float]) -> np.ndarray:
    v, u = np.mgrid[:height, :width]
    return sum(np.exp(-0.5 * (((u - x) / sigma[0]) ** 2 + ((v - y) / sigma[1]) ** 2)) for x, y in points)


def xray(values: np.ndarray, mask: np.ndarray | None = None) -> XRay:
    camera = Camera.from_spacing(values.shape[1], values.shape[0], (0.5, 0.6), 1000.0, (31.5, 20.25))
    values = values.astype(np.float32)
    return XRay(values, np.ones(values.shape, bool) if mask is None else mask, camera)


def centre_of(image: np.ndarray) -> np.ndarray:
    v, u = np.indices(image.shape)
    return np.array([(image * u).sum(), (image * v).sum()]) / image.sum()


@settings(max_examples=40)
@given(size=st.tuples(st.integers(20, 130), st.integers(20, 130)), seed=st.integers(0, 1000))
def test_a_point_stays_where_the_camera_projects_it(size, seed):
    point = np.random.default_rng(seed).uniform([-50, -25, 900], [40, 30, 1000])
    before = xray(np.zeros((HEIGHT, WIDTH)))
    u, v = before.camera.project(point)
    before = xray(spots(np.array([[u, v]]), WIDTH, HEIGHT, (2.5, 2.5)))
    after = resize_xray(before, *size)
    assert after.line_integrals.shape == after.mask.shape == size[::-1]
    assert (after.camera.width, after.camera.height) == size
    moved = after.camera.project(point) - [
        (u + 0.5) * size[0] / WIDTH - 0.5,
        (v + 0.5) * size[1] / HEIGHT - 0.5,
    ]
    np.testing.assert_allclose(moved, 0, atol=1e-9)
    inside = (8 < u < WIDTH - 9) and (8 < v < HEIGHT - 9)
    if inside:
        np.testing.assert_allclose(centre_of(after.line_integrals), after.camera.project(point), atol=0.02)


def test_shrinking_averages_areas():
    values = np.arange(24.0).reshape(4, 6)
    small = resize_xray(xray(values), 2, 2).line_integrals
    np.testing.assert_allclose(small, values.reshape(2, 2, 2, 3).mean((1, 3)))
    # 5 to 3: weights 1, 2/3 | 1/3, 1, 1/3 | 2/3, 1 over 5/3
    third = resample_weights(5, 3).toarray()
    np.testing.assert_allclose(third * 5 / 3, [[1, 2 / 3, 0, 0, 0], [0, 1 / 3, 1, 1 / 3, 0], [0, 0, 0, 2 / 3, 1]], atol=1e-6)


def test_growing_interpolates_between_centres():
    double = resample_weights(3, 6).toarray()
    np.testing.assert_allclose(double @ [0, 4, 8], [0, 1, 3, 5, 7, 8], atol=1e-6)


@settings(max_examples=40)
@given(old=st.integers(1, 200), new=st.integers(1, 200))
def test_every_row_of_weights_sums_to_one_and_none_is_negative(old, new):
    weights = resample_weights(old, new).toarray()
    assert weights.shape == (new, old)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    if new <= old:
        np.testing.assert_allclose(weights.sum(0), new / old, rtol=1e-4)  # every old pixel counts alike


@settings(max_examples=30)
@given(size=st.tuples(st.integers(5, 90), st.integers(5, 90)), seed=st.integers(0, 1000))
def test_masked_pixels_do_not_bleed(size, seed):
    rng = np.random.default_rng(seed)
    values = rng.uniform(1, 2, (HEIGHT, WIDTH))
    mask = np.hypot(*(np.mgrid[:HEIGHT, :WIDTH] - rng.uniform(15, 30, (2, 1, 1)))) < rng.uniform(8, 20)
    spoiled = np.where(mask, values, 1e5)
    after = resize_xray(xray(spoiled, mask), *size)
    assert after.line_integrals.max() <= 2.001
    assert after.mask.any()
    same = resize_xray(xray(np.where(mask, values, -7.0), mask), *size)
    np.testing.assert_allclose(after.line_integrals, same.line_integrals, rtol=1e-5)
    assert after.mask.mean() == pytest.approx(mask.mean(), abs=0.12)


def test_cropping_keeps_pixels_and_points():
    values = np.random.default_rng(0).random((HEIGHT, WIDTH))
    before = xray(values)
    after = crop_xray(before, 7, 5, 40, 30)
    np.testing.assert_array_equal(after.line_integrals, before.line_integrals[5:35, 7:47])
    point = [5.0, -3.0, 800.0]
    np.testing.assert_allclose(after.camera.project(point), before.camera.project(point) - [7, 5])


def test_the_other_polarity_follows():
    before = xray(np.random.default_rng(0).random((HEIGHT, WIDTH)))
    other = xray(np.random.default_rng(1).random((HEIGHT, WIDTH)))
    both = XRay(before.line_integrals, before.mask, before.camera, alternative=other)
    for change in (lambda x: resize_xray(x, 20, 10), lambda x: crop_xray(x, 1, 2, 20, 10)):
        assert change(both).alternative is not None
        np.testing.assert_array_equal(change(both).alternative.line_integrals, change(other).line_integrals)


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (2.5, 4), (True, 4)])
def test_sizes_that_are_none(size):
    with pytest.raises(InputError, match="whole number of pixels"):
        resize_xray(xray(np.eye(9)), *size)


@pytest.mark.parametrize("corner", [(-1, 0, 4, 4), (0, -1, 4, 4), (6, 0, 4, 4), (0, 6, 4, 4)])
def test_boxes_that_reach_over_the_edge(corner):
    with pytest.raises(InputError, match="9 x 9"):
        crop_xray(xray(np.eye(9)), *corner)


def test_mirrored_it_is_what_a_mirrored_world_shows():
    camera = Camera.from_spacing(40, 30, (1.5, 2.0), 900.0, (17.0, 12.0))
    rng = np.random.default_rng(0)
    xray = XRay(rng.random((30, 40)).astype(np.float32), rng.random((30, 40)) > 0.2, camera)
    other = mirror_xray(xray)
    points = rng.normal(size=(20, 3)) * 50 + [0, 0, 700]
    pixels = camera.project(points)
    np.testing.assert_allclose(
        other.camera.project(points * [-1, 1, 1]), np.stack([39 - pixels[:, 0], pixels[:, 1]], axis=-1), atol=1e-9
    )
    np.testing.assert_array_equal(other.line_integrals, xray.line_integrals[:, ::-1])
    again = mirror_xray(other)
    np.testing.assert_array_equal(again.mask, xray.mask)
    np.testing.assert_allclose(again.camera.K, camera.K)
