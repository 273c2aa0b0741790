"""Oblique, flipped, permuted and anisotropic CTs: files, bone and DRRs agree on where a point is."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk
from bone_phantoms import ball, centred, ras
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import named_view
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.ct import read_ct

CENTRE = np.array([40.0, -150.0, 620.0])
SPACING = (0.8, 1.1, 2.4)  # along i, j, k
# marks on no common line or plane, in mm from the centre: right, front and head are told apart
MARKS = CENTRE + np.array([[18.0, 4.0, 6.0], [-6.0, 15.0, -12.0], [2.0, -9.0, 20.0]])


def itk_image(values: np.ndarray, direction: np.ndarray, centre_lps: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(SPACING)
    image.SetDirection(direction.ravel().tolist())
    middle = (np.array(values.shape[::-1]) - 1) / 2
    image.SetOrigin((centre_lps - direction @ (middle * SPACING)).tolist())
    return image


def directions() -> list[np.ndarray]:
    """The 24 rotations of a box and some mirrored and oblique axes."""
    out = []
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            m = np.zeros((3, 3))
            m[list(order), range(3)] = signs
            out.append(m)
    return [*out, *Rotation.random(6, random_state=3).as_matrix()]


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
@pytest.mark.parametrize("index", [0, 7, 21, 46, 49, 52])
def test_a_read_ct_has_its_voxels_where_itk_has_them(tmp_path, suffix, index):
    direction = directions()[index]
    values = np.random.default_rng(1).integers(-1000, 2000, (5, 6, 7)).astype(np.int16)
    image = itk_image(values, direction, CENTRE * [-1, -1, 1])
    sitk.WriteImage(image, str(tmp_path / f"ct.{suffix}"))
    ct = read_ct(tmp_path / f"ct.{suffix}")
    for i, j, k in [(0, 0, 0), (6, 0, 0), (0, 5, 0), (0, 0, 4), (3, 2, 1)]:
        where = transform_points(ct.ras_from_ijk, [i, j, k])
        x, y, z = image.TransformIndexToPhysicalPoint((i, j, k))
        np.testing.assert_allclose(where, [-x, -y, z], atol=1e-3)  # NIfTI keeps float32
        assert ct.values[k, j, i] == values[k, j, i]
    np.testing.assert_allclose(ct.spacing_mm, SPACING, rtol=1e-5)


@pytest.mark.parametrize("index", range(0, 54, 5))
def test_marks_cast_their_shadow_where_the_camera_projects_them(index):
    axes = np.diag([-1.0, -1.0, 1.0]) @ directions()[index]
    extent = 72.0  # mm, along every axis
    shape = tuple(int(np.ceil(extent / s)) for s in SPACING[::-1])
    matrix = centred(shape, SPACING, CENTRE, rotation=axes)
    x = ras(shape, matrix)
    camera = Camera.from_spacing(120, 100, (1.0, 1.2), 1000.0, (55.0, 52.0))
    pose = named_view("lat-left", CENTRE, 650.0)
    v, u = np.indices((camera.height, camera.width))
    for mark in MARKS:
        # a smooth blob, so that the grid's phase does not move its shadow's centre
        blob = np.exp(-0.5 * (np.linalg.norm(x - mark, axis=-1) / 3.0) ** 2)
        image = render(AttenuationVolume(0.02 * blob, matrix), camera, pose, backend="scipy", step_mm=1.0)
        shadow = np.array([(image * u).sum(), (image * v).sum()]) / image.sum()
        np.testing.assert_allclose(shadow, camera.project(transform_points(pose, mark)), atol=0.05)


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1))
def test_any_axes_give_the_same_shadow(seed):
    rng = np.random.default_rng(seed)
    spacing = tuple(rng.uniform(1.5, 3.5, 3))
    axes = Rotation.random(random_state=rng.integers(2**31)).as_matrix() @ np.diag(rng.choice([-1, 1], 3))
    shape = tuple(int(np.ceil(60 / s)) for s in spacing[::-1])
    matrix = centred(shape, spacing, CENTRE, rotation=axes)
    camera = Camera.from_spacing(40, 40, 3.0, 1000.0)
    pose = named_view("ap", CENTRE, 650.0)
    mark = CENTRE + rng.uniform(-10, 10, 3)
    blob = np.exp(-0.5 * (np.linalg.norm(ras(shape, matrix) - mark, axis=-1) / 5.0) ** 2)
    image = render(AttenuationVolume(blob, matrix), camera, pose, backend="scipy", step_mm=1.0)
    v, u = np.indices(image.shape)
    shadow = np.array([(image * u).sum(), (image * v).sum()]) / image.sum()
    np.testing.assert_allclose(shadow, camera.project(transform_points(pose, mark)), atol=0.05)
    # all line integrals together, each over a pixel's area at the mark, make up the blob: (sigma sqrt(2 pi))^3
    depth = transform_points(pose, mark)[2]
    assert image.sum() * (3.0 * depth / 1000) ** 2 == pytest.approx((5.0 * np.sqrt(2 * np.pi)) ** 3, rel=0.01)


def test_the_voxel_size_is_the_length_of_the_affines_columns():
    matrix = centred((4, 4, 4), SPACING, CENTRE, rotation=Rotation.random(random_state=0).as_matrix())
    np.testing.assert_allclose(AttenuationVolume(np.zeros((4, 4, 4)), matrix).spacing_mm, SPACING)
    np.testing.assert_allclose(AttenuationVolume(np.zeros((4, 4, 4)), matrix).centre_ct, CENTRE)
    assert ball(ras((4, 4, 4), matrix), CENTRE, 100).all()
