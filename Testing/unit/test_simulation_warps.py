"""Warped patients: the map and its inverse, what belongs together stays together, the same seed gives the same."""

from __future__ import annotations

import numpy as np
import pytest

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.simulation.subject import Subject, make_subject
from XRayRegistrationLib.simulation.warps import WarpOptions, draw_warp, warped_subject


@pytest.fixture(scope="module")
def subject(ct: Volume, model: BoneModel) -> Subject:
    labels = Volume((ct.values > 850).astype(np.uint8) + (ct.values > 650), ct.ras_from_ijk)
    return make_subject(ct, bone=model, labels=labels, name="phantom")


@pytest.mark.parametrize("seed", range(20))
def test_the_inverse_is_one_and_nothing_folds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    warp = draw_warp(rng, [10.0, -20.0, 300.0], WarpOptions(strain=0.6))
    points = warp.centre + rng.uniform(-250, 250, (500, 3))
    np.testing.assert_allclose(warp.source_of(warp.warped(points)), points, atol=1e-5)
    steps = 1e-3 * np.eye(3)
    jacobian = np.stack([(warp.source_of(points + e) - warp.source_of(points - e)) / 2e-3 for e in steps], axis=-1)
    determinants = np.linalg.det(jacobian)
    assert (np.sign(determinants) == np.sign(warp.linear.prod())).all()


def test_bone_points_labels_and_landmarks_move_together(subject: Subject) -> None:
    warped = warped_subject(subject, 7)
    # surface points lie on the border of the warped mask: inside a voxel of it, and a voxel further in there is more bone
    mask = warped.bone.mask
    ijk = transform_points(np.linalg.inv(mask.ras_from_ijk), warped.bone.surface_points)
    nearest = np.rint(ijk).astype(int)
    around = np.stack(
        [mask.values[tuple((nearest + step)[:, ::-1].T)] for step in np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 3)]
    )
    on_border = (around.min(axis=0) == 0) & (around.max(axis=0) == 1)
    assert on_border.mean() > 0.95
    # what is in the bone is bright in the CT and in the materials
    inside = mask.values > 0
    assert np.median(warped.ct.values[inside]) > 400
    assert np.median(warped.materials.channels[1][inside]) > 0.2
    assert np.median(warped.ct.values[~inside]) < 100
    # labels, of bone brighter than 650 and 850 HU
    assert warped.labels is not None
    assert warped.label_values == subject.label_values == (1, 2)
    assert (inside[warped.labels.values > 0]).mean() > 0.9
    # landmarks are the first surface points, and stay so
    np.testing.assert_allclose(warped.landmarks_ct, warped.bone.surface_points[: len(warped.landmarks_ct)], atol=1e-6)
    assert warped.landmark_names == subject.landmark_names


def test_sizes_follow_the_options_and_bone_stays_on_the_grid(subject: Subject) -> None:
    plain = WarpOptions(size=(1.2, 1.2), stretch=(1.0, 1.0), waves=0, p_mirror=1.0)
    warped = warped_subject(subject, 0, plain)
    extent = np.ptp(subject.bone.surface_points, axis=0)
    np.testing.assert_allclose(np.ptp(warped.bone.surface_points, axis=0), 1.2 * extent, rtol=1e-6)
    mirrored = (warped.bone.surface_points - subject.centre_ct) / 1.2 * [-1.0, 1.0, 1.0] + subject.centre_ct
    np.testing.assert_allclose(mirrored, subject.bone.surface_points, atol=1e-6)

    def volume_mm3(s: Subject) -> float:
        return float(s.materials.channels[1].sum() * np.prod(s.materials.spacing_mm))

    assert volume_mm3(warped) == pytest.approx(1.2**3 * volume_mm3(subject), rel=0.03)


def test_the_same_seed_gives_the_same_patient(subject: Subject) -> None:
    a, b, c = (warped_subject(subject, seed) for seed in ((3, 4), (3, 4), (3, 5)))
    np.testing.assert_array_equal(a.materials.mu, b.materials.mu)
    np.testing.assert_array_equal(a.bone.surface_points, b.bone.surface_points)
    assert np.abs(a.bone.surface_points - c.bone.surface_points).max() > 1.0
