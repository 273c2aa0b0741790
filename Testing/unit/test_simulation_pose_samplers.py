"""Every distribution of poses: rigid, repeatable, and with the numbers that its paper states."""

from __future__ import annotations

import numpy as np
import pytest

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import rotation_angle, rotation_log, transform_points
from XRayRegistrationLib.simulation.pose_samplers import POSE_SAMPLERS, fraction_in_view, pose_sampler, sample_poses
from XRayRegistrationLib.simulation.poses import AP_CAMERA_FROM_CT
from XRayRegistrationLib.simulation.subject import make_subject

CAMERA = Camera.from_spacing(64, 64, 298.0 / 64, 1020.0)
CENTRE = np.array([30.0, -80.0, 210.0])


def _drawn(name: str, count: int = 1500) -> np.ndarray:
    return sample_poses(name, CENTRE, CAMERA, np.random.default_rng(4), count)


@pytest.mark.parametrize("name", POSE_SAMPLERS)
def test_poses_are_rigid_repeatable_and_before_the_source(name):
    poses = _drawn(name, 60)
    np.testing.assert_allclose(poses[:, :3, :3] @ poses[:, :3, :3].swapaxes(1, 2), np.eye(3) + 0 * poses[:, :3, :3], atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(poses[:, :3, :3]), 1.0)
    np.testing.assert_array_equal(poses, _drawn(name, 60))
    assert all(transform_points(pose, CENTRE)[2] > 100 for pose in poses)


@pytest.mark.parametrize("name", [n for n in POSE_SAMPLERS if n not in ("uniform", "prost-start")])
def test_the_middle_of_each_is_ap_with_the_head_up_and_the_left_on_the_right(name):
    poses = _drawn(name)
    mean = poses[:, :3, :3].mean(axis=0)
    np.testing.assert_allclose(mean / np.linalg.norm(mean, axis=1, keepdims=True), AP_CAMERA_FROM_CT, atol=0.06)


def _at(poses: np.ndarray) -> np.ndarray:
    return poses[:, :3, :3] @ CENTRE + poses[:, :3, 3]


def _turns_deg(poses: np.ndarray) -> np.ndarray:
    """Rotation vectors in camera axes against AP, degrees."""
    return np.rad2deg(rotation_log(poses[:, :3, :3] @ AP_CAMERA_FROM_CT.T))


def test_scr_is_a_grid_of_whole_degrees_about_an_offset_isocentre():
    poses = _drawn("scr")
    beam = poses[:, 2, :3]
    tilt = np.rad2deg(np.arcsin(-beam[:, 2]))
    orbital = np.rad2deg(np.arctan2(beam[:, 0], -beam[:, 1]))
    for angle in (tilt, orbital):
        np.testing.assert_allclose(angle, np.round(angle), atol=1e-9)
        assert np.abs(angle).max() == 45
        assert angle.std() == pytest.approx(90 / np.sqrt(12), rel=0.05)
    isocentre = np.einsum("nba,nb->na", poses[:, :3, :3], np.array([0, 0, 632.0]) - poses[:, :3, 3])
    np.testing.assert_allclose((isocentre - CENTRE).std(axis=0), [90, 30, 30], rtol=0.06)
    np.testing.assert_allclose((isocentre - CENTRE).mean(axis=0), 0, atol=6)


@pytest.mark.parametrize(
    ("name", "low", "high", "deg"),
    [("prost", [-25, -25, 775], [25, 25, 825], 15.0), ("prost-start", [-200, -200, 500], [200, 200, 1100], 50.0)],
)
def test_prost_is_a_box(name, low, high, deg):
    poses = _drawn(name)
    at, width = _at(poses), np.subtract(high, low)
    np.testing.assert_allclose(at.min(axis=0), low, atol=0.01 * width.max())
    np.testing.assert_allclose(at.max(axis=0), high, atol=0.01 * width.max())
    angle = np.rad2deg(rotation_angle(poses[:, :3, :3], AP_CAMERA_FROM_CT))
    assert 1.3 * deg < angle.max() < 1.8 * deg  # the diagonal of three


@pytest.mark.parametrize(
    ("name", "mean", "shift", "turn"),
    [
        ("prost-moving", [0, 0, 800], [25, 25, 60], [25, 25, 25]),
        ("sopi", [0, 0, 900], [9, 4.5, 30], [6, 6, 6]),
        ("sopi-start", [0, 0, 900], [9, 4.5, 30], [3, 3, 6]),
        # DiffPose: 0.2 rad about the lateral, 0.25 about the long and 0.1 about the anterior axis
        ("rayemb", [-10, 5, 760], [70, 50, 90], [11.46, 14.32, 5.73]),
    ],
)
def test_normal_distributions(name, mean, shift, turn):
    poses = _drawn(name)
    at = _at(poses)
    np.testing.assert_allclose(at.mean(axis=0), mean, atol=4.0 * max(shift) / np.sqrt(len(at)) + 1.0)
    np.testing.assert_allclose(at.std(axis=0), shift, rtol=0.08)
    # rotations compose: their logarithms spread a little otherwise where they are large
    np.testing.assert_allclose(_turns_deg(poses).std(axis=0), turn, rtol=0.16 if max(turn) > 20 else 0.08)


def test_xvr_covers_its_box():
    at = _at(_drawn("xvr"))
    np.testing.assert_allclose(at.min(axis=0), [-150, -150, 450], atol=4)
    np.testing.assert_allclose(at.max(axis=0), [150, 150, 1000], atol=4)


def test_a_mixture_has_both_and_hardly_any_view_without_bone(ct, model):
    steep = np.abs(_turns_deg(_drawn("prost-oblique"))).max(axis=1) > 15
    assert 0.2 < steep.mean() < 0.4  # of a share of 0.4, five in six are
    subject = make_subject(ct, bone=model)
    poses = sample_poses("prost-oblique", subject, CAMERA, np.random.default_rng(1), 100)
    assert min(fraction_in_view(model.surface_points, CAMERA, pose) for pose in poses) >= 0.2


def test_poses_that_show_too_little_are_drawn_again(ct, model):
    subject = make_subject(ct, bone=model)

    def least_shown(least: float) -> float:
        poses = sample_poses("scr", subject, CAMERA, np.random.default_rng(1), 40, least)
        return min(fraction_in_view(model.surface_points, CAMERA, pose) for pose in poses)

    assert least_shown(0.0) < 0.5 <= least_shown(0.5)
    narrow = Camera.from_spacing(16, 16, 1.0, 1020.0)
    with pytest.raises(InputError, match=r"show 0\.99 of the bone"):
        sample_poses("sopi", subject, narrow, np.random.default_rng(1), 1, 0.99)


def test_an_unknown_sampler_is_named():
    with pytest.raises(InputError, match="poses 'srcc' are unknown; allowed are scr"):
        pose_sampler("srcc")
    with pytest.raises(InputError, match="the centre of the poses"):
        POSE_SAMPLERS["scr"].sample([1.0, 2.0], CAMERA, np.random.default_rng(0))
