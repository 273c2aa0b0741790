"""The renderer against analytic line integrals, finite differences, and itself on other backends."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from XRayRegistrationLib.drr import AttenuationVolume, first_last_hit, render, render_with_jacobian
from XRayRegistrationLib.drr.volume import attenuation_from_hu, cropped
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, increment_left, rotation_exp

HAS_NUMBA = importlib.util.find_spec("numba") is not None
BACKENDS = ["scipy", pytest.param("numba", marks=pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed"))]
CAMERA = Camera.from_spacing(48, 40, (4.0, 5.0), 1000.0, (21.3, 22.9))
MU, RADIUS = 0.03, 40.0


def _pose(rotation_vector: tuple[float, float, float], at: tuple[float, float, float], centre: np.ndarray) -> np.ndarray:
    r = rotation_exp(rotation_vector)
    return from_rotation_translation(r, np.array(at) - r @ centre)


def _affine(n: tuple[int, int, int], spacing: tuple[float, float, float], turn: tuple[float, float, float]) -> np.ndarray:
    """An oblique, flipped, anisotropic grid around the origin."""
    a = np.eye(4)
    a[:3, :3] = rotation_exp(turn) @ np.diag([-spacing[0], spacing[1], spacing[2]])
    a[:3, 3] = -a[:3, :3] @ ((np.array(n) - 1) / 2)
    return a


def _sphere() -> AttenuationVolume:
    """A sphere about the ct origin, its edge voxels filled by their share (5^3 sub-samples)."""
    n, spacing = (101, 90, 61), (1.0, 1.1, 1.6)
    affine = _affine(n, spacing, (0.4, -0.3, 0.9))
    sub = (np.arange(5) - 2) / 5
    mu = np.zeros(n[::-1])
    k, j, i = np.meshgrid(*(np.arange(m, dtype=float) for m in n[::-1]), indexing="ij")
    half = (np.array(n) - 1) / 2
    for di in sub:
        for dj in sub:
            for dk in sub:
                x = (np.stack([i + di, j + dj, k + dk], axis=-1) - half) * spacing
                mu += (np.linalg.norm(x, axis=-1) <= RADIUS) / 125
    return AttenuationVolume((mu * MU).astype(np.float32), affine)


@pytest.fixture(scope="module")
def sphere() -> AttenuationVolume:
    return _sphere()


@pytest.mark.parametrize("backend", BACKENDS)
def test_sphere_has_its_chords_and_no_shift(sphere: AttenuationVolume, backend: str) -> None:
    pose = _pose((0.3, 1.1, -0.4), (12.0, -8.0, 640.0), np.zeros(3))
    image = render(sphere, CAMERA, pose, backend=backend)
    d = CAMERA.ray_directions()
    d /= np.linalg.norm(d, axis=-1, keepdims=True)
    c = pose[:3, 3]
    closest = np.linalg.norm(np.cross(d, c), axis=-1)
    chord = 2 * MU * np.sqrt(np.clip(RADIUS**2 - closest**2, 0, None))
    inner = closest < 0.6 * RADIUS
    assert inner.sum() > 30
    assert np.abs(image[inner] / chord[inner] - 1).max() < 6e-3  # off the middle the voxels are not a perfect sphere
    middle = np.unravel_index(np.argmin(closest), closest.shape)
    assert image[middle] == pytest.approx(chord[middle], rel=1e-3)
    # the centre of mass would show half a pixel or half a voxel (0.25 px here and more)
    v, u = np.mgrid[:40, :48]
    for axis in (u, v):
        assert (image * axis).sum() / image.sum() == pytest.approx((chord * axis).sum() / chord.sum(), abs=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_box_has_its_exact_length(backend: str) -> None:
    mu = np.zeros((20, 24, 30), np.float32)
    mu[4:14, 6:20, 5:25] = MU  # voxels of 2 x 1.5 x 3 mm: 40 x 21 x 30 mm
    volume = AttenuationVolume(mu, np.diag([2.0, 1.5, 3.0, 1.0]))
    centre = np.array([14.5 * 2.0, 12.5 * 1.5, 8.5 * 3.0])
    camera = Camera.from_spacing(21, 21, 1.0, 1000.0)  # the middle ray runs along z
    for rotation, length in (((0, 0, 0), 30.0), ((np.pi / 2, 0, 0), 21.0), ((0, np.pi / 2, 0), 40.0)):
        image = render(volume, camera, _pose(rotation, (0, 0, 500.0), centre), backend=backend, step_mm=0.05)
        assert image[10, 10] == pytest.approx(MU * length, rel=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_edge_of_a_box_is_where_it_projects(backend: str) -> None:
    mu = np.zeros((12, 40, 40), np.float32)
    mu[4:8, 10:30, 10:30] = MU
    volume = AttenuationVolume(mu, np.eye(4))  # the box ends at 9.5 and 29.5 mm
    camera = Camera.from_spacing(400, 3, 0.1, 1000.0, (10.0, 1.0))
    image = render(volume, camera, _pose((0, 0, 0), (0, 0, 500.0), np.array([19.5, 19.5, 5.5])), backend=backend)
    half = image[1] > 0.5 * image[1].max()
    edge = np.flatnonzero(half)[-1] + 0.5  # first pixel below half
    # at the box's middle depth 10 mm is 10 / 500 * 1000 / 0.1 = 200 px from the axis
    assert edge == pytest.approx(10.0 + 200.0, abs=1.5)  # 0.1 mm: half a voxel would be 10 px


def _blob() -> AttenuationVolume:
    n = (50, 46, 40)
    k, j, i = np.meshgrid(*(np.arange(m, dtype=float) for m in n[::-1]), indexing="ij")
    mu = 0.05 * np.exp(-(((i - 24) / 7) ** 2 + ((j - 20) / 5.5) ** 2 + ((k - 21) / 6) ** 2))
    mu += 0.03 * np.exp(-(((i - 33) / 4.5) ** 2 + ((j - 27) / 5) ** 2 + ((k - 15) / 4) ** 2))
    return AttenuationVolume(mu.astype(np.float32), _affine(n, (1.9, 1.6, 2.2), (0.2, 0.7, -0.3)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_jacobian_agrees_with_central_differences(backend: str) -> None:
    volume = _blob()
    centre = np.array([6.0, -9.0, 610.0])
    pose = _pose((0.5, -0.4, 1.2), (6.0, -9.0, 610.0), np.zeros(3))
    # A fine step: the differences of a coarse sum show its own ripple, in depth above all.
    _, jacobian = render_with_jacobian(volume, CAMERA, pose, centre, backend=backend, step_mm=0.2)
    for axis in range(6):
        h = 0.01 if axis < 3 else 1.0
        step = np.zeros(6)
        step[axis] = h
        forward = render(volume, CAMERA, increment_left(pose, step, centre), backend=backend, step_mm=0.2)
        backward = render(volume, CAMERA, increment_left(pose, -step, centre), backend=backend, step_mm=0.2)
        difference = (forward.astype(np.float64) - backward) / (2 * h)
        assert np.abs(difference - jacobian[axis]).max() <= 0.01 * np.abs(difference).max(), axis


def test_backends_agree() -> None:
    pytest.importorskip("numba")
    volume = _blob()
    poses = np.stack([_pose((0.5, -0.4, 1.2 + 0.1 * n), (6.0, -9.0, 610.0), np.zeros(3)) for n in range(3)])
    centre = np.array([6.0, -9.0, 610.0])
    a, ja = render_with_jacobian(volume, CAMERA, poses, centre, backend="scipy", step_mm=0.9)
    b, jb = render_with_jacobian(volume, CAMERA, poses, centre, backend="numba", step_mm=0.9)
    assert np.abs(a - b).max() <= 1e-4 * a.max()
    for axis in range(6):
        assert np.abs(ja[:, axis] - jb[:, axis]).max() <= 3e-3 * np.abs(ja[:, axis]).max()
    np.testing.assert_allclose(b, render(volume, CAMERA, poses, backend="numba", step_mm=0.9), atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_and_channels_are_the_single_images(backend: str) -> None:
    one = _blob()
    other = np.roll(one.mu, 3, axis=2)
    both = AttenuationVolume(np.stack([one.mu, other]), one.ct_from_ijk)
    poses = np.stack([_pose((0.5, 0.2, 0.1 * n), (0, 5.0 * n, 600.0), np.zeros(3)) for n in range(2)])
    image = render(both, CAMERA, poses, backend=backend, step_mm=1.0)
    assert image.shape == (2, 2, CAMERA.height, CAMERA.width)
    for n in range(2):
        for c, mu in enumerate((one.mu, other)):
            alone = render(AttenuationVolume(mu, one.ct_from_ijk), CAMERA, poses[n], backend=backend, step_mm=1.0)
            np.testing.assert_allclose(image[n, c], alone, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_first_and_last_hit_of_a_sphere(sphere: AttenuationVolume, backend: str) -> None:
    pose = _pose((0.0, 0.7, 0.0), (5.0, 3.0, 600.0), np.zeros(3))
    depth = first_last_hit(sphere, CAMERA, pose, MU / 2, backend=backend, step_mm=0.5)
    d = CAMERA.ray_directions()
    unit = d / np.linalg.norm(d, axis=-1, keepdims=True)
    along = unit @ pose[:3, 3]
    closest = np.sqrt((pose[:3, 3] ** 2).sum() - along**2)
    inner = closest < 0.8 * RADIUS
    half = np.sqrt(np.clip(RADIUS**2 - closest**2, 0, None))
    for hit, expected in zip(depth, (along - half, along + half), strict=True):
        assert np.abs(hit[inner] - (expected * unit[..., 2])[inner]).max() < 0.5
    assert np.isnan(depth[:, closest > 1.1 * RADIUS]).all()


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (0.0, np.pi / 2, 0.0), (1.2, -0.4, 0.3)])
def test_empty_space_that_is_leapt_over_hides_no_matter(turn: tuple[float, float, float]) -> None:
    """Specks, a plate and a hollow block in much air: every sample's answer, and that of the leaps."""
    rng = np.random.default_rng(0)
    n = (70, 60, 50)
    mu = np.zeros(n[::-1], np.float32)
    mu[tuple(rng.integers(0, np.array(n[::-1])[:, None], (3, 60)))] = 1.0
    mu[20:40, 10:30, 40:60] = 0.7
    mu[25:35, 15:25, 45:55] = 0.0
    mu[:, 50, :] = 0.6
    volume = AttenuationVolume(mu, _affine(n, (1.5, 1.5, 2.0), (0.2, 0.1, -0.3)))
    pose = _pose(turn, (10.0, -5.0, 500.0), np.zeros(3))
    every, leaping = (first_last_hit(volume, CAMERA, pose, 0.5, backend=b, step_mm=0.7) for b in ("scipy", "numba"))
    met = np.isfinite(every)
    assert met.mean() > 0.1
    assert (met == np.isfinite(leaping)).mean() > 0.998  # the voxels of one backend have 16 bits
    both = met & np.isfinite(leaping)
    assert (np.abs(every - leaping)[both] < 0.05).mean() > 0.998


@pytest.mark.parametrize("step_mm", [0.7, 4.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_in_view_is_zero(backend: str, step_mm: float) -> None:
    away = _pose((0, 0, 0), (2000.0, 0.0, 600.0), np.zeros(3))
    behind = [_pose(turn, (0.0, 0.0, -600.0), np.zeros(3)) for turn in ((0, 0, 0), (0, 1.6, 0), (1.6, 0, 0), (3.1, 0, 0))]
    for pose in (away, *behind):
        image, jacobian = render_with_jacobian(_blob(), CAMERA, pose, np.zeros(3), backend=backend, step_mm=step_mm)
        assert not image.any()
        assert not jacobian.any()


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
@pytest.mark.parametrize("turn", [(0.1, 0.2, 0.0), (0.1, 1.7, 0.0), (1.5, 0.2, 0.3), (3.1, 0.1, 0.0)])
def test_what_lies_behind_the_source_is_left_out(turn: tuple[float, float, float]) -> None:
    volume = _blob()
    poses = np.stack([_pose(turn, (0.0, 0.0, z), np.zeros(3)) for z in (-15.0, 0.0, 15.0, 600.0)])
    plain, compiled = (render(volume, CAMERA, poses, backend=backend, step_mm=4.0) for backend in ("scipy", "numba"))
    assert plain[:3].any(axis=(1, 2)).all()
    np.testing.assert_allclose(compiled[:3], plain[:3], atol=0.002 * plain.max())


def test_coarser_volumes_keep_the_line_integrals() -> None:
    volume = _blob()
    pose = _pose((0.3, 0.2, 0.1), (0, 0, 600.0), np.zeros(3))
    fine, coarse = (render(v, CAMERA, pose, backend="scipy", step_mm=0.5) for v in (volume, volume.coarser(4.0)))
    assert volume.coarser(4.0).mu.size < volume.mu.size / 4
    assert np.abs(fine - coarse).max() < 0.05 * fine.max()
    u = np.arange(CAMERA.width)
    assert (coarse.sum(0) @ u) / coarse.sum() == pytest.approx((fine.sum(0) @ u) / fine.sum(), abs=0.02)
    assert coarse.sum() == pytest.approx(fine.sum(), rel=1e-3)


def test_coarser_volumes_are_kept_by_what_they_are() -> None:
    """Every pose asks for another voxel size; what is kept must not grow with the poses."""
    volume = AttenuationVolume(np.ones((12, 12, 12), np.float32), np.diag([1.0, 1.0, 1.0, 1.0]))
    kept = {id(volume.coarser(size)) for size in np.linspace(0.5, 4.4, 200)}
    assert len(kept) == 4  # 1, 2, 3 and 4 voxels
    assert volume.coarser(1.2) is volume


def test_cropping_leaves_the_image_as_it_was() -> None:
    mu = np.zeros((30, 30, 30), np.float32)
    mu[10:14, 8:20, 12:17] = 0.02
    volume = AttenuationVolume(mu, _affine((30, 30, 30), (2, 2, 2), (0.1, 0.2, 0.3)))
    pose = _pose((0.3, 0.2, 0.1), (0, 0, 600.0), np.zeros(3))
    small = cropped(volume)
    assert small.mu.shape == (6, 14, 7)
    a, b = (render(v, CAMERA, pose, backend="scipy", step_mm=0.7) for v in (volume, small))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_attenuation_of_water_bone_and_air() -> None:
    np.testing.assert_allclose(attenuation_from_hu([0.0, 1000.0, -950.0, -500.0]), [0.0192, 0.0384, 0.0, 0.0096], rtol=1e-5)


def test_unknown_backend_is_named() -> None:
    with pytest.raises(InputError, match=r"'cpu'.*scipy"):
        render(_blob(), CAMERA, np.eye(4), backend="cpu")
