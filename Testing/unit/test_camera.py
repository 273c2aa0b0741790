"""The camera: projection by hand, crop and resize, and what makes no camera."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import se3_exp

POINTS = np.random.default_rng(0).uniform([-60, -60, 500], [60, 60, 900], (50, 3))


def camera(width=640, height=480) -> Camera:
    return Camera.from_spacing(width, height, (0.3, 0.4), 1000.0, (310.25, 250.75))


def test_projection_by_hand():
    c = Camera.from_spacing(101, 51, (0.5, 0.25), 1000.0)
    # the central ray meets the middle pixel's centre
    np.testing.assert_allclose(c.project([0, 0, 700]), [50, 25])
    # 10 mm at half way is 20 mm on the detector: 40 columns, or 80 rows
    np.testing.assert_allclose(c.project([10, 0, 500]), [90, 25])
    np.testing.assert_allclose(c.project([0, -10, 500]), [50, -55])
    assert c.pixel_spacing_mm == pytest.approx((0.5, 0.25))


def test_an_even_image_has_its_centre_between_pixels():
    c = Camera.from_spacing(1536, 1536, 0.194, 1020.0)
    np.testing.assert_allclose(c.K, [[1020 / 0.194, 0, 767.5], [0, 1020 / 0.194, 767.5], [0, 0, 1]])


def test_points_behind_the_source_have_no_pixel():
    pixels = camera().project([[0, 0, 500], [0, 0, 0], [5, 5, -500]])
    assert np.isfinite(pixels[0]).all()
    assert np.isnan(pixels[1:]).all()
    np.testing.assert_array_equal(camera().in_view(pixels), [True, False, False])


def test_the_image_reaches_half_a_pixel_beyond_the_outer_centres():
    c = Camera.from_spacing(4, 3, 1.0, 1000.0)
    inside = [[-0.5, 0], [3.5, 2.5], [0, -0.5]]
    outside = [[-0.51, 0], [3.51, 0], [0, -0.51], [0, 2.51]]
    assert c.in_view(inside).all()
    assert not c.in_view(outside).any()


def test_rays_go_through_their_pixels():
    c = camera(7, 5)
    d = c.ray_directions()
    assert d.shape == (5, 7, 3)
    v, u = np.indices((5, 7))
    np.testing.assert_allclose(c.project(713.0 * d), np.stack([u, v], axis=-1), atol=1e-10)
    np.testing.assert_array_equal(d[..., 2], 1.0)


sizes = st.integers(1, 2000)


@settings(max_examples=100)
@given(st.integers(-300, 300), st.integers(-300, 300), sizes, sizes)
def test_a_crop_shifts_pixels(left, top, width, height):
    c = camera().cropped(left, top, width, height)
    assert (c.width, c.height) == (width, height)
    np.testing.assert_allclose(c.project(POINTS), camera().project(POINTS) - [left, top], atol=1e-9)
    assert c.pixel_spacing_mm == pytest.approx(camera().pixel_spacing_mm)


@settings(max_examples=100)
@given(sizes, sizes)
def test_a_resize_maps_pixel_areas(width, height):
    c = camera().resized(width, height)
    s = np.array([width / 640, height / 480])
    np.testing.assert_allclose(c.project(POINTS), (camera().project(POINTS) + 0.5) * s - 0.5, rtol=1e-9, atol=1e-9)
    # the image's corners stay its corners, whatever the number of pixels
    np.testing.assert_array_equal(c.in_view(c.project(POINTS)), camera().in_view(camera().project(POINTS)))


@settings(max_examples=50)
@given(sizes, sizes, sizes, sizes)
def test_resizes_compose_and_undo(w1, h1, w2, h2):
    np.testing.assert_allclose(camera().resized(w1, h1).resized(w2, h2).K, camera().resized(w2, h2).K, rtol=1e-9)
    np.testing.assert_allclose(camera().resized(w1, h1).resized(640, 480).K, camera().K, rtol=1e-9)


@settings(max_examples=50)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 60), st.integers(1, 60), st.integers(1, 8))
def test_cropping_blocks_before_or_after_shrinking_is_the_same(left, top, width, height, s):
    c = Camera.from_spacing(960, 720, 0.2, 1000.0)
    c = c.cropped(0, 0, 960 - 960 % s, 720 - 720 % s)
    a = c.cropped(left * s, top * s, width * s, height * s).resized(width, height)
    b = c.resized(c.width // s, c.height // s).cropped(left, top, width, height)
    np.testing.assert_allclose(a.K, b.K, rtol=1e-9)


def test_a_two_by_two_mean_by_hand():
    # pixels 0 and 1 become pixel 0, whose centre was at 0.5
    c = Camera.from_spacing(4, 4, 1.0, 1000.0).resized(2, 2)
    np.testing.assert_allclose(c.K, [[500, 0, 0.5], [0, 500, 0.5], [0, 0, 1]])
    assert c.pixel_spacing_mm == pytest.approx((2.0, 2.0))


def test_the_rig_and_the_distance_survive_crop_and_resize():
    rig = se3_exp([0.1, 0.2, 0.3, 10, 20, 900])
    c = Camera.from_spacing(64, 64, 1.0, 1000.0, camera_from_rig=rig).cropped(3, 4, 32, 16).resized(16, 8)
    np.testing.assert_allclose(c.camera_from_rig, rig)
    assert c.source_detector_distance_mm == 1000.0


K = [[5000.0, 0, 31.5], [0, 5000.0, 31.5], [0, 0, 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"height": 2.5}, r"height is 2\.5"),
        ({"width": True}, "width is True"),
        ({"K": np.eye(4)}, "3x3"),
        ({"K": "K"}, "3x3"),
        ({"K": [[np.nan, 0, 0], [0, 1, 0], [0, 0, 1]]}, "finite"),
        ({"K": [[-5000, 0, 31], [0, -5000, 31], [0, 0, 1]]}, "negative focal lengths"),
        ({"K": [[5000, 3, 31], [0, 5000, 31], [0, 0, 1]]}, "allowed is"),
        ({"source_detector_distance_mm": 0.0}, "source_detector_distance_mm is"),
        ({"source_detector_distance_mm": np.inf}, "source_detector_distance_mm is"),
        ({"camera_from_rig": np.diag([2.0, 2, 2, 1])}, "camera_from_rig scales"),
    ],
)
def test_what_makes_no_camera_is_refused_in_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as error:
        Camera(**{"width": 64, "height": 64, "K": K, **arguments})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("spacing", "sdd"), [(0.0, 1000.0), ((0.2, -0.2), 1000.0), (np.nan, 1000.0), (0.2, np.nan)])
def test_spacing_and_distance_must_be_positive(spacing, sdd):
    with pytest.raises(InputError, match="allowed"):
        Camera.from_spacing(64, 64, spacing, sdd)


def test_without_a_distance_there_is_no_spacing_but_there_are_rays():
    c = Camera(64, 64, np.array(K))
    assert c.pixel_spacing_mm is None
    assert np.isfinite(c.ray_directions()).all()
