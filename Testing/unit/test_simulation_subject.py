"""A CT made ready for simulation: its materials, bone, landmarks and labels."""

from __future__ import annotations

import numpy as np
import pytest

from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.landmarks import Landmarks
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.simulation.materials import BONE_MU_PER_MM, material_volume
from XRayRegistrationLib.simulation.subject import make_subject, three_materials


def test_materials_keep_the_attenuation_of_every_voxel_at_70_kev():
    hu = np.array([[[-1000.0, -500.0, 0.0, 80.0], [150.0, 700.0, 1500.0, 2400.0]]], np.float32).repeat(2, axis=0)
    soft, bone, metal = three_materials(Volume(hu, np.eye(4))).mu
    mu = 0.0192 * soft + BONE_MU_PER_MM * bone
    expected = np.where(hu < -900, 0.0, 0.0192 * (1 + hu / 1000))
    rich = bone > 1.0  # denser than cortical bone: no water is left in it
    np.testing.assert_allclose(mu[~rich], expected[~rich], rtol=1e-5)
    assert not metal.any()
    plain = material_volume(Volume(hu, np.eye(4)))
    np.testing.assert_array_equal(np.stack([soft, bone]), plain.mu)


def test_metal_grows_with_hu_and_takes_the_place_of_bone():
    hu = np.array([[[2400.0, 2500.0, 2750.0, 3000.0, 3071.0]]], np.float32).repeat(2, axis=0).repeat(2, axis=1)
    _, bone, metal = three_materials(Volume(hu, np.eye(4))).mu[:, 0, 0]
    np.testing.assert_allclose(metal, [0, 0, 0.5, 1, 1])
    assert bone[0] > 0
    assert bone[3] == bone[4] == 0
    assert not three_materials(Volume(hu, np.eye(4)), metal=False).mu[2].any()


def test_bone_may_begin_at_another_hu():
    hu = np.array([[[150.0, 250.0]]], np.float32).repeat(2, axis=0).repeat(2, axis=1)
    soft, bone, _ = three_materials(Volume(hu, np.eye(4)), bone_from_hu=200.0).mu[:, 0, 0]
    np.testing.assert_allclose(soft[0], 1.15)
    assert bone[0] == 0 < bone[1]


def test_a_subject_of_the_phantom(ct, model):
    subject = make_subject(ct, bone=model, name="phantom", voxel_mm=5.0)
    assert subject.materials.mu.shape[0] == 3
    assert subject.present == (0, 1)
    assert subject.rendered.mu.shape[0] == 2
    np.testing.assert_allclose(subject.materials.spacing_mm, 5.0)
    np.testing.assert_array_equal(subject.landmarks_ct, model.surface_points[:14])
    assert len(subject.landmark_names) == 14
    # what is averaged keeps its amount
    fine = make_subject(ct, bone=model, voxel_mm=2.5)
    amount, coarse = (s.materials.mu.sum((1, 2, 3)) * s.materials.spacing_mm.prod() for s in (fine, subject))
    np.testing.assert_allclose(coarse, amount, rtol=1e-4)
    # the share of bone lies where the mask does
    share = fine.bone_share
    k, j, i = np.nonzero(share.mu > 0.5)
    points = transform_points(share.ct_from_ijk, np.stack([i, j, k], axis=-1))
    np.testing.assert_allclose(points.mean(axis=0), model.centroid, atol=1e-6)


def test_landmarks_by_name_and_by_hand(ct, model):
    named = make_subject(ct, bone=model, landmarks=Landmarks(np.ones((2, 3)), ("left", "right")))
    assert named.landmark_names == ("left", "right")
    assert make_subject(ct, bone=model, landmarks=[[0.0, 1.0, 2.0]]).landmarks_ct.shape == (1, 3)
    with pytest.raises(InputError, match=r"landmarks have the shape \(3,\)"):
        make_subject(ct, bone=model, landmarks=[0.0, 1.0, 2.0])


def test_labels_are_on_the_grid_of_the_ct(ct, model):
    values = np.zeros(ct.values.shape, np.uint8)
    values[20:30, 20:30, 20:30], values[40:50, 30:40, 20:30] = 3, 7
    subject = make_subject(ct, bone=model, labels=Volume(values, ct.ras_from_ijk), voxel_mm=2.5)
    assert subject.label_values == (3, 7)
    assert subject.label_share.mu.sum((1, 2, 3)).tolist() == [1000.0, 1000.0]
    k, j, i = np.nonzero(subject.label_share.mu[1])
    middle = transform_points(subject.label_share.ct_from_ijk, np.stack([i, j, k], axis=-1)).mean(axis=0)
    np.testing.assert_allclose(middle, transform_points(ct.ras_from_ijk, [24.5, 34.5, 44.5]))
    with pytest.raises(InputError, match="on the CT's grid"):
        make_subject(ct, bone=model, labels=Volume(values[1:], ct.ras_from_ijk))
    with pytest.raises(InputError, match="has no labels"):
        _ = make_subject(ct, bone=model).label_share


def test_bone_alone_in_units_of_its_own_has_no_metal():
    values = np.zeros((30, 30, 30), np.int16)
    values[8:22, 8:22, 8:22] = 3900  # as HU it would be metal; water is about 1000
    ct = Volume(values, np.eye(4))
    subject = make_subject(ct, bone=build_bone_model(ct, bone=Volume((values > 0).astype(np.uint8), np.eye(4))))
    assert subject.present == (1,)
    assert subject.materials.mu[1].max() == pytest.approx(2900 * 0.0192 / 1000 / (BONE_MU_PER_MM - 0.0192), rel=1e-3)


def test_a_voxel_size_that_is_none(ct, model):
    with pytest.raises(InputError, match="voxel_mm is 0"):
        make_subject(ct, bone=model, voxel_mm=0)
