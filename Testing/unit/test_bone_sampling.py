"""Surface points: on the surface, evenly spread, repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from bone_phantoms import OBLIQUE, ball, centred, ras
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from XRayRegistrationLib.bone.sampling import farthest_point_order, surface_points
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.volume import Volume

RADIUS, CENTRE = 18.0, np.array([40.0, -25.0, 310.0])


def ball_mask(spacing=(1.0, 1.5, 2.5), **axes) -> Volume:
    shape = tuple(int(2 * RADIUS / s) + 6 for s in spacing[::-1])
    matrix = centred(shape, spacing, CENTRE, rotation=OBLIQUE, **axes)
    return Volume(ball(ras(shape, matrix), CENTRE, RADIUS).astype(np.uint8), matrix, "ball")


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_points_lie_on_the_surface_without_a_bias(flip):
    points = surface_points(ball_mask(flip=flip), 800, seed=1)
    assert points.shape == (800, 3)
    assert points.dtype == np.float64
    depth = np.linalg.norm(points - CENTRE, axis=1) - RADIUS
    assert np.abs(depth).max() < 0.5 * np.linalg.norm([1.0, 1.5, 2.5])
    # voxel centres of the mask's rim would be half a voxel (0.8 mm) too deep
    assert abs(depth.mean()) < 0.15
    np.testing.assert_allclose(points.mean(axis=0), CENTRE, atol=0.4)


def test_points_are_spread_evenly_and_every_beginning_of_them_too():
    points = surface_points(ball_mask(), 400, seed=0)
    area = 4 * np.pi * RADIUS**2
    everywhere = CENTRE + RADIUS * _directions(3000)
    for n in (50, 150, 400):
        patch = np.sqrt(area / n)  # mm, the side of a point's share of the surface
        gap = cKDTree(points[:n]).query(everywhere)[0].max()
        apart = cKDTree(points[:n]).query(points[:n], k=2)[0][:, 1].min()
        assert gap < 1.3 * patch
        assert apart > 0.6 * patch
    # drawn at random, 400 points leave wider gaps and lie on top of one another
    drawn = CENTRE + RADIUS * np.random.default_rng(0).permutation(_directions(3000))[:400]
    assert cKDTree(drawn).query(drawn, k=2)[0][:, 1].min() < 0.6 * np.sqrt(area / 400)


def test_the_same_seed_gives_the_same_points_and_another_does_not():
    mask = ball_mask()
    np.testing.assert_array_equal(surface_points(mask, 40, seed=5), surface_points(mask, 40, seed=5))
    assert not np.array_equal(surface_points(mask, 40, seed=5), surface_points(mask, 40, seed=6))


def test_a_cut_at_the_edge_of_the_ct_is_no_surface():
    values = np.zeros((10, 8, 8), dtype=np.uint8)
    values[:, 2:6, 2:6] = 1  # a shaft that runs through the whole CT
    points = surface_points(Volume(values, np.eye(4)), 5000)
    assert len(points) == 10 * 4 * 4  # ten slices, four sides of four voxels
    across = np.abs(points[:, :2] - 3.5).max(axis=1)
    np.testing.assert_allclose(across, 2.0)
    with pytest.raises(InputError, match="no surface"):
        surface_points(Volume(np.ones((4, 4, 4), dtype=np.uint8), np.eye(4)), 10)


def test_no_points_is_refused():
    with pytest.raises(InputError, match="number of surface points is 0"):
        surface_points(ball_mask(), 0)


@settings(max_examples=25)
@given(m=st.integers(2, 60), seed=st.integers(0, 1000))
def test_farthest_point_order_is_greedy(m, seed):
    points = np.random.default_rng(seed).normal(size=(m, 3)) * [1, 5, 20]
    order = farthest_point_order(points, m)
    assert sorted(order) == list(range(m))
    first = np.linalg.norm(points - points.mean(axis=0), axis=1)
    assert first[order[0]] == pytest.approx(first.max(), rel=1e-5)
    for n in range(1, m):
        distance = np.linalg.norm(points[:, None] - points[None, order[:n]], axis=2).min(axis=1)
        assert distance[order[n]] == pytest.approx(distance.max(), rel=1e-5)


def _directions(n: int) -> np.ndarray:
    """Evenly spread unit vectors (Fibonacci's spiral)."""
    k = np.arange(n) + 0.5
    z, turn = 1 - 2 * k / n, np.pi * (1 + 5**0.5) * k
    return np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=1)
