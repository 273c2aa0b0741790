"""Collimated fields that are hardly brighter than the blades around them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from XRayRegistrationLib.images.faint_field import faint_shapes
from XRayRegistrationLib.images.field_shapes import Shape, best_shape, refined_shape

SIZE = (200, 256)  # height, width
BOX = Shape(sides=(39.5, 219.5, 23.5, 170.5))
TURNED = Shape(np.deg2rad(15.0), (95.0, 240.0, 8.0, 130.0))
CIRCLE = Shape(circle=(128.0, 99.0, 92.0))
SHAPES = {"box": BOX, "turned box": TURNED, "circle": CIRCLE}


def _thick_patient(seed: int = 0) -> np.ndarray:
    """What little comes through a patient who fills the picture."""
    rng = np.random.default_rng(seed)
    structure = ndimage.gaussian_filter(rng.standard_normal(SIZE), 12)
    return 0.03 + 0.01 * structure / structure.std()


def _image(shape: Shape | None, seed: int = 0) -> np.ndarray:
    image = np.clip(_thick_patient(seed), 0.005, None)
    if shape is not None:
        image = np.where(shape.depth_of(SIZE) > 0, image, 0.0)
    return 0.1 + image + np.random.default_rng(seed + 1).normal(0, 0.008, SIZE)


def _overlap(a: Shape, b: Shape) -> float:
    inside_a, inside_b = a.depth_of(SIZE) > 0, b.depth_of(SIZE) > 0
    return float((inside_a & inside_b).sum() / (inside_a | inside_b).sum())


@pytest.mark.parametrize("name", SHAPES)
def test_a_field_of_little_light_is_found(name: str) -> None:
    ((shape, level), *_) = faint_shapes(_image(SHAPES[name]))
    assert level == pytest.approx(0.1, abs=0.003)
    assert _overlap(shape, SHAPES[name]) > 0.95


def test_a_field_in_a_bright_surround_is_found() -> None:
    ((shape, level), *_) = faint_shapes(1.0 - _image(BOX))
    assert level == pytest.approx(0.9, abs=0.003)
    assert _overlap(shape, BOX) > 0.96


def test_a_blade_on_one_side_is_found() -> None:
    side = Shape(sides=(-np.inf, np.inf, 30.0, np.inf))
    ((shape, _), *_) = faint_shapes(_image(side))
    assert _overlap(shape, side) > 0.97


@pytest.mark.parametrize("seed", range(4))
def test_an_open_field_has_no_edge(seed: int) -> None:
    assert list(faint_shapes(_image(None, seed))) == []


def test_an_outline_that_fades_is_no_edge() -> None:
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    thin = np.clip(1.0 - np.hypot((u - 128) / 125, (v - 100) / 98), 0, 1)  # a limb in the open beam
    image = 0.9 - 0.8 * np.sqrt(thin) + np.random.default_rng(0).normal(0, 0.005, SIZE)
    assert list(faint_shapes(image)) == []


def test_an_image_too_small_or_flat_has_none() -> None:
    assert list(faint_shapes(np.zeros((20, 20)))) == []
    assert list(faint_shapes(np.full(SIZE, 0.5))) == []


@pytest.mark.parametrize("name", SHAPES)
def test_the_shape_with_the_most_votes(name: str) -> None:
    inside = SHAPES[name].depth_of(SIZE) > 0
    votes = np.where(inside, 1.0, -1.0)
    shape = refined_shape(votes, best_shape(votes))
    assert _overlap(shape, SHAPES[name]) > 0.98


def test_depth_is_in_pixels() -> None:
    assert BOX.depth(np.array(50.0), np.array(100.0)) == pytest.approx(10.5)
    assert BOX.depth(np.array(30.0), np.array(100.0)) == pytest.approx(-9.5)
    assert CIRCLE.depth(np.array(128.0), np.array(19.0)) == pytest.approx(12.0)


@pytest.mark.parametrize("name", SHAPES)
def test_a_scaled_shape_covers_the_same_area(name: str) -> None:
    fine = SHAPES[name].scaled(4.0)
    u, v = np.meshgrid(np.arange(4 * SIZE[1]), np.arange(4 * SIZE[0]))
    inside = (fine.depth(u, v) > 0).reshape(SIZE[0], 4, SIZE[1], 4).mean((1, 3))
    # the middle of a block of 4 pixels is the middle of the pixel that it came from
    assert abs(inside - (SHAPES[name].depth_of(SIZE) > 0)).max() <= 0.75
    assert abs(inside.sum() - (SHAPES[name].depth_of(SIZE) > 0).sum()) < 0.01 * inside.sum()
