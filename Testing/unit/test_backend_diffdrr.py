"""DiffDRR's renderers as backends: the same image at the same pose, hence the same frames."""

from __future__ import annotations

import numpy as np
import pytest

from XRayRegistrationLib.drr import AttenuationVolume, render
from XRayRegistrationLib.drr.render import render_with_jacobian
from XRayRegistrationLib.geometry import rigid
from XRayRegistrationLib.geometry.camera import Camera

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("diffdrr.drr", reason="the extra diffdrr is not installed")

from XRayRegistrationLib.drr import backend_diffdrr, backend_diffdrr_trilinear  # noqa: E402

OBLIQUE = rigid.from_rotation_translation(rigid.rotation_exp([0.3, -0.2, 0.9]), [-40.0, 55.0, 20.0])
# off centre, oblong, non-square pixels, an odd and an even side: what a wrong half pixel would show in
CAMERA = Camera.from_spacing(33, 26, (3.0, 4.0), 1000.0, principal_point_px=(19.3, 9.6))


def smooth_phantom() -> AttenuationVolume:
    """Three Gaussian blobs on a flipped, anisotropic, oblique grid."""
    k, j, i = np.meshgrid(np.arange(36), np.arange(44), np.arange(40), indexing="ij")
    mu = np.zeros(i.shape)
    for centre, width, height in (((18, 20, 17), 5.0, 0.03), ((26, 30, 22), 3.5, 0.04), ((12, 14, 12), 4.0, 0.02)):
        squared = sum(((x - c) / width) ** 2 for x, c in zip((i, j, k), centre, strict=True))
        mu += height * np.exp(-0.5 * squared)
    return AttenuationVolume(mu.astype(np.float32), OBLIQUE @ np.diag([-1.5, 1.25, 2.0, 1.0]))


def poses(volume: AttenuationVolume, n: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rotation = rigid.rotation_exp(rng.normal(size=(n, 3)))
    centre_camera = np.array([0.0, 0.0, 650.0]) + rng.normal(size=(n, 3)) * [5, 5, 30]
    return rigid.from_rotation_translation(rotation, centre_camera - rotation @ volume.centre_ct)


def centroid(image: np.ndarray) -> np.ndarray:
    v, u = np.indices(image.shape)
    return np.array([(u * image).sum(), (v * image).sum()]) / image.sum()


@pytest.mark.parametrize(("module", "tolerance"), [(backend_diffdrr, 0.015), (backend_diffdrr_trilinear, 0.002)])
def test_the_image_is_ours(module, tolerance):
    volume = smooth_phantom()
    camera_from_ct = poses(volume, 3)
    ours = render(volume, CAMERA, camera_from_ct, backend="scipy", step_mm=0.5)
    theirs = module.render_rays(volume, CAMERA, camera_from_ct, 0.5)[:, 0]
    assert ours.max() > 0.5
    assert np.abs(theirs - ours).max() < tolerance * ours.max()
    for a, b in zip(ours, theirs, strict=True):
        # half a voxel is 0.3 px here
        np.testing.assert_allclose(centroid(a), centroid(b), atol=0.005)


def test_half_a_voxel_would_show():
    volume = smooth_phantom()
    camera_from_ct = poses(volume, 1)
    ours = render(volume, CAMERA, camera_from_ct, backend="scipy", step_mm=0.5)[0]
    for axis in range(3):
        shift = np.eye(4)
        shift[axis, 3] = 0.5
        moved = AttenuationVolume(volume.mu, volume.ct_from_ijk @ shift)
        theirs = backend_diffdrr_trilinear.render_rays(moved, CAMERA, camera_from_ct, 0.5)[0, 0]
        assert np.abs(theirs - ours).max() > 0.008 * ours.max()


def test_the_trilinear_jacobian_is_ours():
    volume = smooth_phantom()
    camera_from_ct = poses(volume, 2, seed=2)
    centres = np.stack([rigid.transform_points(m, volume.centre_ct) for m in camera_from_ct])
    image, expected = render_with_jacobian(volume, CAMERA, camera_from_ct, centres, backend="scipy", step_mm=0.05)
    value, got = backend_diffdrr_trilinear.render_rays_with_jacobian(volume, CAMERA, camera_from_ct, centres, 0.05)
    assert got.shape == (2, 1, 6, 26, 33)
    np.testing.assert_allclose(value[:, 0], image, atol=0.002 * image.max())
    norm = np.sqrt((expected**2).mean(axis=(-2, -1)))
    error = np.sqrt(((got[:, 0] - expected) ** 2).mean(axis=(-2, -1)))
    # depth (last) is 20 times weaker than in-plane here, and the samples' phase shows in it
    assert (error < np.array([0.01] * 5 + [0.05]) * norm).all(), error / norm


def test_siddons_jacobian_is_ours_but_for_its_noise():
    volume = smooth_phantom()
    camera_from_ct = poses(volume, 2, seed=3)
    centres = np.stack([rigid.transform_points(m, volume.centre_ct) for m in camera_from_ct])
    _, expected = render_with_jacobian(volume, CAMERA, camera_from_ct, centres, backend="scipy", step_mm=0.1)
    image, got = backend_diffdrr.render_rays_with_jacobian(volume, CAMERA, camera_from_ct, centres, 1.0)
    assert image.shape == (2, 1, 26, 33)
    for n in range(2):
        for parameter in range(6):
            ours, theirs = expected[n, parameter], got[n, 0, parameter]
            strong = np.abs(ours) > 0.2 * np.abs(ours).max()
            # noisy, hence the median; beams along a plane of voxels, which are far off, are avoided
            assert np.median(theirs[strong] / ours[strong]) == pytest.approx(1.0, abs=0.03)


def test_siddons_jacobian_against_its_own_central_differences():
    volume = smooth_phantom()
    camera_from_ct = poses(volume, 1, seed=3)
    centre = rigid.transform_points(camera_from_ct[0], volume.centre_ct)
    _, jacobian = backend_diffdrr.render_rays_with_jacobian(volume, CAMERA, camera_from_ct, centre[None], 1.0)
    for parameter, h in enumerate([2e-3] * 3 + [0.2] * 3):  # rad, mm: large, for its images are float32
        step = np.zeros((2, 6))
        step[:, parameter] = [h, -h]
        moved = rigid.increment_left(camera_from_ct, step, centre)
        up, down = backend_diffdrr.render_rays(volume, CAMERA, moved, 1.0)[:, 0]
        difference = (up - down) / (2 * h)
        error = np.sqrt(((jacobian[0, 0, parameter] - difference) ** 2).mean())
        assert error < 0.08 * np.sqrt((difference**2).mean())


@pytest.mark.parametrize("module", [backend_diffdrr, backend_diffdrr_trilinear])
def test_chunks_channels_and_a_camera_without_distance(module, monkeypatch):
    volume = smooth_phantom()
    two = AttenuationVolume(np.stack([volume.mu, volume.mu**2]), volume.ct_from_ijk)
    camera_from_ct = poses(volume, 1)
    k_only = Camera(CAMERA.width, CAMERA.height, CAMERA.K)
    expected = render(two, CAMERA, camera_from_ct, backend="scipy", step_mm=0.5)
    monkeypatch.setattr(backend_diffdrr, "_SAMPLES_AT_ONCE", 20_000)
    got = module.render_rays(two, k_only, camera_from_ct, 0.5)
    assert got.shape == expected.shape == (1, 2, 26, 33)
    for c in range(2):
        assert np.abs(got[0, c] - expected[0, c]).max() < 0.05 * expected[0, c].max()


@pytest.mark.parametrize("module", [backend_diffdrr, backend_diffdrr_trilinear])
def test_a_volume_that_reaches_behind_the_detector_is_seen_whole(module):
    volume = smooth_phantom()
    camera_from_ct = poses(volume, 1)
    near = Camera(CAMERA.width, CAMERA.height, CAMERA.K, source_detector_distance_mm=640.0)
    expected = render(volume, CAMERA, camera_from_ct, backend="scipy", step_mm=0.5)
    got = module.render_rays(volume, near, camera_from_ct, 0.5)[:, 0]
    assert np.abs(got - expected).max() < 0.015 * expected.max()


def test_a_single_slice_is_a_volume():
    volume = AttenuationVolume(np.full((1, 20, 20), 0.01), np.diag([2.0, 2.0, 4.0, 1.0]))
    along_k = rigid.from_rotation_translation(np.eye(3), [-19.0, -19.0, 600.0])
    image = backend_diffdrr.render_rays(volume, Camera.from_spacing(3, 3, 4.0, 1000.0), along_k[None], 1.0)
    # through 4 mm of 0.01 / mm, nearly straight
    np.testing.assert_allclose(image[0, 0], 0.04, rtol=1e-3)
