"""Path lengths and hits against a sphere, and the torch renderer's hits against the plain one's."""

from __future__ import annotations

import numpy as np
import pytest

from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.drr.render import first_last_hit
from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, inverse, rotation_exp, transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.simulation.pose_samplers import sample_poses
from XRayRegistrationLib.simulation.shots import label_shadows, landmarks_px, shoot
from XRayRegistrationLib.simulation.subject import Subject, make_subject

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

CAMERA = Camera.from_spacing(64, 48, 4.0, 1000.0, (30.2, 24.1))
RADIUS, BALL, HU = 30.0, np.array([8.0, -4.0, 3.0]), 700.0


@pytest.fixture(scope="module")
def ball() -> Subject:
    """A ball of bone in a block of water."""
    n = 80
    ras_from_ijk = np.eye(4)
    ras_from_ijk[:3, 3] = -(n - 1) / 2
    k, j, i = np.indices((n, n, n))
    x = np.stack([i, j, k], axis=-1) - (n - 1) / 2
    inside = np.linalg.norm(x - BALL, axis=-1) <= RADIUS
    ct = Volume(np.where(inside, HU, 0.0).astype(np.float32), ras_from_ijk)
    labels = Volume(np.where(inside, np.where(x[..., 0] < BALL[0], 2, 5), 0).astype(np.uint8), ras_from_ijk)
    return make_subject(ct, bone=build_bone_model(ct, bone=labels), labels=labels, voxel_mm=1.0, landmarks=[BALL, BALL + 200])


def _poses() -> np.ndarray:
    rotation = rotation_exp([[0.3, 1.1, -0.4], [0.0, -2.0, 0.2]])
    return from_rotation_translation(rotation, np.array([[5.0, -9.0, 640.0], [-20.0, 3.0, 700.0]]) - rotation @ BALL)


def _missed_by(poses: np.ndarray, camera: Camera) -> np.ndarray:
    """(N, h, w) distance of each ray from the ball's centre."""
    d = camera.ray_directions()
    d /= np.linalg.norm(d, axis=-1, keepdims=True)
    centre = (poses[:, :3, :3] @ BALL + poses[:, :3, 3])[:, None, None]
    return np.linalg.norm(np.cross(d[None], centre), axis=-1)


def test_paths_through_a_ball_of_bone_in_water(ball):
    poses = _poses()
    shots = shoot(ball, CAMERA, poses)
    assert shots.path_mm.shape == (2, 3, 48, 64)
    assert shots.path_mm.dtype == torch.float32
    missed = _missed_by(poses, CAMERA)
    chord = 2 * np.sqrt(np.clip(RADIUS**2 - missed**2, 0, None))
    share = HU * 0.0192 / 1000 / (0.0515 - 0.0192)  # of cortical bone in a voxel of 700 HU
    bone = shots.path_mm[:, 1].numpy()
    inner = missed < 0.8 * RADIUS
    np.testing.assert_allclose(bone[inner], share * chord[inner], rtol=0.02)
    assert bone[missed > RADIUS + 2].max() == 0
    assert not shots.path_mm[:, 2].any()


def test_hits_lie_on_the_ball_and_on_their_pixels(ball):
    poses = _poses()
    shots = shoot(ball, CAMERA, poses, hits_stride=2)
    hits = shots.hits_ct.numpy().astype(float)
    assert (shots.hits_camera.width, shots.hits_camera.height) == (32, 24)
    missed = _missed_by(poses, shots.hits_camera)
    met = ~np.isnan(hits[:, 0, 0])
    assert met[missed < RADIUS - 1].all()
    assert not met[missed > RADIUS + 1].any()
    np.testing.assert_array_equal(np.isnan(hits).any(axis=(1, 2)), ~met)
    v, u = np.mgrid[:24, :32]
    for n, pose in enumerate(poses):
        entry, leaving = (hits[n, e][:, met[n]].T for e in (0, 1))
        for points in (entry, leaving):
            assert np.abs(np.linalg.norm(points - BALL, axis=1) - RADIUS).max() < 1.0  # the mask is of voxels of 1 mm
            pixels = shots.hits_camera.project(transform_points(pose, points))
            np.testing.assert_allclose(pixels, np.stack([u[met[n]], v[met[n]]], axis=-1), atol=1e-3)
        source = inverse(pose)[:3, 3]
        thickness = np.linalg.norm(leaving - source, axis=1) - np.linalg.norm(entry - source, axis=1)
        expected = 2 * np.sqrt(np.clip(RADIUS**2 - missed[n][met[n]] ** 2, 0, None))
        np.testing.assert_allclose(thickness[expected > 30], expected[expected > 30], atol=1.5)


def test_landmarks_are_where_the_hits_say(ball):
    poses = _poses()
    pixels, in_view = landmarks_px(ball, CAMERA, poses)
    assert pixels.shape == (2, 2, 2)
    np.testing.assert_allclose(pixels[0, 0], [30.2 + 250 * 5 / 640, 24.1 - 250 * 9 / 640])
    assert in_view.tolist() == [[True, False], [True, False]]


def test_label_shadows_cover_the_bone_between_them(ball):
    poses = _poses()
    shadows = label_shadows(ball, CAMERA, poses)
    assert shadows.shape == (2, 2, 24, 32)
    assert shadows.dtype == torch.bool
    missed = _missed_by(poses, CAMERA.resized(32, 24))
    either = shadows.any(dim=1).numpy()
    assert either[missed < RADIUS - 1].all()
    assert not either[missed > RADIUS + 1].any()
    assert (shadows[:, 0] != shadows[:, 1]).any()  # seen from the side, each has rays of its own


def test_the_torch_hits_agree_with_the_plain_ones(ball):
    shell = AttenuationVolume(ball.bone_share.mu, ball.bone_share.ct_from_ijk)
    cut = AttenuationVolume(shell.mu[:, 20:, :30], shell.ct_from_ijk)  # bone at the edge of the grid
    for volume in (shell, cut):
        plain, ours = (first_last_hit(volume, CAMERA, _poses(), 0.5, backend=b) for b in ("scipy", "torch"))
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(plain))
        np.testing.assert_allclose(ours, plain, atol=5e-3)
        assert np.isfinite(plain).sum() > 200


def test_the_torch_path_gives_the_same_shots(ball):
    from XRayRegistrationLib.drr import backend_torch

    poses = _poses()
    shots = shoot(ball, CAMERA, poses)
    path = backend_torch.line_integrals(ball.rendered, CAMERA, poses, 0.5, device="cpu")
    other = shots.path_mm[:, list(ball.present)]
    inner = torch.as_tensor(_missed_by(poses, CAMERA) < 0.8 * RADIUS)[:, None].expand_as(path)
    assert (path - other)[inner].abs().max() < 0.5  # mm


def test_one_pose_and_bad_ones(ct, model):
    subject = make_subject(ct, bone=model)
    pose = sample_poses("sopi", subject, CAMERA, np.random.default_rng(0), 1)[0]
    assert shoot(subject, CAMERA, pose, hits_stride=1).hits_ct.shape == (1, 2, 3, 48, 64)
    with pytest.raises(InputError, match="stride 5 does not divide"):
        shoot(subject, CAMERA, pose, hits_stride=5)
    with pytest.raises(InputError, match=r"shape \(1, 3, 4\)"):
        shoot(subject, CAMERA, pose[:3])
