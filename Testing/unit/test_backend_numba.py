"""The compiled renderer's own shortcuts: voxel planes instead of steps, and empty blocks left out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("numba")

from XRayRegistrationLib.drr import AttenuationVolume, render, render_with_jacobian
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, rotation_exp

CAMERA = Camera.from_spacing(40, 36, 6.0, 1000.0)
CENTRE = np.array([6.0, -9.0, 610.0])
# a view along each voxel axis, either way, off it by up to 40 degrees
VIEWS = {
    "i": (0.1, 1.45, 0.0), "-i": (0.3, -1.2, 0.2), "j": (1.5, 0.2, 0.1), "-j": (-1.3, 0.1, 0.5),
    "k": (0.4, 0.4, 1.0), "-k": (0.2, 2.9, 0.3), "between": (0.1, 0.78, 0.0),
}  # fmt: skip


def _pose(view: str) -> np.ndarray:
    r = rotation_exp(VIEWS[view])
    return from_rotation_translation(r, CENTRE)


def _volume(mu: np.ndarray) -> AttenuationVolume:
    affine = np.diag([2.0, 1.8, 2.2, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(mu.shape[::-1]) - 1) / 2)
    return AttenuationVolume(mu.astype(np.float32), affine)


def _islands() -> AttenuationVolume:
    """Small bright islands, and one voxel in a corner, in a grid that is empty elsewhere."""
    rng = np.random.default_rng(3)
    mu = np.zeros((70, 61, 52))
    mu[tuple(rng.integers(4, [66, 57, 48], size=(12, 3)).T)] = 20.0
    mu = ndimage.gaussian_filter(mu, 1.5, truncate=3)
    mu[0, 0, 0] = mu[-1, -1, -1] = 0.05
    return _volume(mu)


@pytest.mark.parametrize("view", VIEWS)
def test_planes_err_no_more_than_steps_of_their_distance(view: str) -> None:
    mu = ndimage.gaussian_filter(np.random.default_rng(0).random((60, 64, 58)), 2.0) - 0.45
    volume, pose = _volume(np.clip(mu, 0.0, None)), _pose(view)
    axis = int(np.abs(pose[2, :3] / volume.spacing_mm).argmax())
    distance = volume.spacing_mm[axis]

    def both(backend: str, step_mm: float) -> np.ndarray:
        image, jacobian = render_with_jacobian(volume, CAMERA, pose, CENTRE, backend=backend, step_mm=step_mm)
        return np.concatenate([image[None], jacobian])

    exact, steps, planes = both("scipy", 0.1), both("scipy", distance), both("numba", distance)
    size = np.sqrt((exact**2).mean(axis=(1, 2)))
    error_of_steps, error = (np.sqrt(((x - exact) ** 2).mean(axis=(1, 2))) / size for x in (steps, planes))
    assert error[0] < 2e-3
    assert (error < 1.7 * error_of_steps).all()  # between two axes the planes lie 1.4 times as far apart along a ray
    np.testing.assert_allclose(render(volume, CAMERA, pose, backend="numba", step_mm=distance), planes[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.parametrize(("axis", "turn"), [(0, (0.05, 1.5, 0.0)), (1, (1.45, 0.05, 0.0)), (2, (0.1, 0.05, 1.0))])
def test_a_step_of_several_planes_renders_the_volume_without_the_others(
    axis: int, turn: tuple[float, float, float], every: int
) -> None:
    volume, pose = _islands(), from_rotation_translation(rotation_exp(turn), CENTRE)

    def both(volume: AttenuationVolume) -> np.ndarray:
        step = every * _islands().spacing_mm[axis]
        image, jacobian = render_with_jacobian(volume, CAMERA, pose, CENTRE, backend="numba", step_mm=step)
        return np.concatenate([image[None], jacobian])

    found = both(volume)
    size = np.abs(found).max(axis=(1, 2))
    error = []
    for first in range(every):
        affine = volume.ct_from_ijk.copy()
        affine[:3, 3] += first * affine[:3, axis]
        affine[:3, axis] *= every
        kept = np.ascontiguousarray(np.moveaxis(np.moveaxis(volume.mu, 2 - axis, 0)[first::every], 0, 2 - axis))
        error.append((np.abs(both(AttenuationVolume(kept, affine)) - found).max(axis=(1, 2)) / size).max())
    assert sorted(error)[0] < 1e-3 < sorted(error)[1]  # one choice of planes, and no other


@pytest.mark.parametrize("step_mm", [0.4, 2.3, 7.0])
@pytest.mark.parametrize("view", VIEWS)
def test_empty_blocks_are_left_out_and_nothing_else(view: str, step_mm: float) -> None:
    islands = _islands()
    everywhere = AttenuationVolume(islands.mu + np.float32(1e-4), islands.ct_from_ijk)  # no block is empty
    flat = AttenuationVolume(np.full_like(islands.mu, 1e-4), islands.ct_from_ijk)

    def image(volume: AttenuationVolume) -> np.ndarray:
        return render(volume, CAMERA, _pose(view), backend="numba", step_mm=step_mm)

    # 16-bit voxels: a unit of the brightest voxel over the ray's length
    tolerance = 1.5 * float(everywhere.mu.max()) / 65535 * 150
    np.testing.assert_allclose(image(islands), image(everywhere) - image(flat), atol=tolerance)


def test_a_wide_field_of_view_is_sampled_in_steps() -> None:
    volume = _islands()
    wide = Camera.from_spacing(30, 30, 60.0, 1000.0)  # half of it 42 degrees: some rays run along the planes
    a = render(volume, wide, _pose("between"), backend="scipy", step_mm=2.3)
    b = render(volume, wide, _pose("between"), backend="numba", step_mm=2.3)
    assert np.abs(a - b).max() <= 1e-3 * a.max()
