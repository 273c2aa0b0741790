"""The bone model: fields, frames, label maps and bone-only CTs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bone_phantoms import OBLIQUE, ball, body_ct, centred, ras, shared_data
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from XRayRegistrationLib.bone import build_bone_model
from XRayRegistrationLib.drr.volume import WATER_MU_PER_MM, AttenuationVolume, attenuation_from_hu
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.ct import read_ct
from XRayRegistrationLib.images.volume import Volume

needs_data = pytest.mark.skipif(shared_data() is None, reason="../shared/data (or XRAYREG_DATA) is absent")
AXES = [{}, {"flip": (-1, -1, 1)}, {"flip": (1, -1, -1)}, {"rotation": OBLIQUE}]


def at(field: AttenuationVolume, points_ct: np.ndarray) -> np.ndarray:
    """Nearest voxel's attenuation at points (n, 3) in ct mm, 0 outside the grid."""
    ijk = np.rint(transform_points(np.linalg.inv(field.ct_from_ijk), points_ct)).astype(int)
    inside = ((ijk >= 0) & (ijk < np.array(field.mu.shape[::-1]))).all(axis=1)
    out = np.zeros(len(points_ct))
    i, j, k = ijk[inside].T
    out[inside] = field.mu[k, j, i]
    return out


def labels_of(part: dict, ct: Volume) -> Volume:
    values = np.zeros(ct.values.shape, dtype=np.int16)
    values[part["bone"]], values[part["pool"]] = 4, 9
    return Volume(values, ct.ras_from_ijk, "labels.nii")


@pytest.mark.parametrize("axes", AXES, ids=["plain", "flipped i, j", "flipped j, k", "oblique"])
def test_fields_lie_where_the_ct_says(axes):
    ct, _ = body_ct(noise=0.0, **axes)
    model = build_bone_model(ct, n_points=300)
    centre, cortex, flesh, pool, table, air = np.array(
        [[-30, 0, 0], [-30, 22.5, 0], [0, 55, 0], [35, 20, 0], [60, -88, 0], [60, 88, 0]], dtype=float
    )
    np.testing.assert_allclose(model.centroid, centre, atol=0.3)
    full = at(model.full, np.stack([centre, cortex, flesh, pool, table, air]))
    np.testing.assert_allclose(full, [*attenuation_from_hu([60, 900, 40, 350]), 0, 0], rtol=1e-5)
    bone = at(model.bone, np.stack([cortex, flesh, pool, table, air]))
    above = attenuation_from_hu([900])[0] - attenuation_from_hu([40])[0]
    np.testing.assert_allclose(bone, [above, 0, 0, 0, 0], rtol=1e-4)
    assert model.mask.values.shape == ct.values.shape
    assert not model.bone_only_ct
    assert np.abs(np.linalg.norm(model.surface_points - centre, axis=1) - 25).max() < 2.5
    assert model.surface_points.shape == (300, 3)


def test_the_bone_field_is_cropped_to_its_box_and_its_edge_is_soft():
    ct, part = body_ct(noise=0.0)
    field = build_bone_model(ct).bone
    # a ball of 50 mm on voxels of 2, 2 and 2.5 mm, and a few voxels around
    assert all(n <= 50 / s + 9 for n, s in zip(field.mu.shape[::-1], (2.0, 2.0, 2.5), strict=True))
    faces = [field.mu.take(end, axis=axis).max() for axis in range(3) for end in (0, -1)]
    assert max(faces) == 0.0
    assert field.mu.min() == 0.0
    # bright flesh just outside the mask fades out over voxels and is not cut off
    ct.values[~part["bone"] & ball(ras(ct.values.shape, ct.ras_from_ijk), (-30, 0, 0), 40)] = 120.0
    profile = at(build_bone_model(ct).bone, np.array([[-30.0, y, 1.0] for y in range(20, 40, 2)]))
    assert (np.diff(profile[2:]) <= 1e-7).all()


def test_a_label_map_chooses_the_bone():
    ct, part = body_ct()
    labels = labels_of(part, ct)
    both = build_bone_model(ct, bone=labels, n_points=50)
    np.testing.assert_array_equal(both.mask.values > 0, part["bone"] | part["pool"])
    one = build_bone_model(ct, bone=labels, labels=[9], n_points=50)
    np.testing.assert_array_equal(one.mask.values > 0, part["pool"])
    np.testing.assert_allclose(one.centroid, [35, 20, 0], atol=0.5)
    assert at(one.bone, np.array([[-30.0, 22.5, 0.0]])) == 0.0


def test_a_label_map_on_another_grid_finds_its_place():
    ct, part = body_ct(rotation=OBLIQUE)
    labels = labels_of(part, ct)
    box = (slice(10, 60), slice(20, 80), slice(5, 90))
    shift = np.eye(4)
    shift[:3, 3] = [5, 20, 10]
    turned = np.ascontiguousarray(labels.values[box].transpose(2, 1, 0))  # and its axes exchanged
    crop = Volume(turned, (labels.ras_from_ijk @ shift)[:, [2, 1, 0, 3]], "crop.nii")
    model = build_bone_model(ct, bone=crop, labels=[4], n_points=50)
    np.testing.assert_array_equal(model.mask.values > 0, part["bone"])


def test_labels_that_do_not_exist_are_named_and_so_are_those_that_do():
    ct, part = body_ct()
    with pytest.raises(InputError, match=r"labels 7 are not in labels\.nii; allowed are 4, 9"):
        build_bone_model(ct, bone=labels_of(part, ct), labels=[4, 7])
    with pytest.raises(InputError, match="without a label map"):
        build_bone_model(ct, labels=[4])
    far = Volume(labels_of(part, ct).values, ct.ras_from_ijk + _shift(5000), "far.nii")
    with pytest.raises(InputError, match=r"far\.nii has none of its chosen labels inside"):
        build_bone_model(ct, bone=far)
    empty = Volume(np.zeros((4, 4, 4), dtype=np.uint8), np.eye(4), "empty.nii")
    with pytest.raises(InputError, match="holds no label"):
        build_bone_model(ct, bone=empty)
    with pytest.raises(InputError, match="'auto', 'full' or a label map"):
        build_bone_model(ct, bone="pelvis")  # type: ignore[arg-type]


def test_full_renders_the_whole_patient_with_the_points_of_the_bone():
    ct, part = body_ct(noise=0.0)
    model = build_bone_model(ct, bone="full", n_points=50)
    assert model.bone is model.full
    np.testing.assert_allclose(model.centroid, [-30, 0, 0], atol=0.3)
    water = Volume(np.where(part["body"], 0.0, -1000.0).astype(np.float32), ct.ras_from_ijk, "water")
    model = build_bone_model(water, bone="full", n_points=50)  # a phantom without bone
    np.testing.assert_allclose(model.centroid, [0, 0, 0], atol=1.0)
    with pytest.raises(InputError, match="no bone found in water"):
        build_bone_model(water)


@pytest.mark.parametrize("background", [0.0, -1000.0])
def test_bone_on_nothing_keeps_its_whole_attenuation(background):
    shape = (30, 36, 40)
    matrix = centred(shape, (1.0, 1.0, 1.2), (100, 0, -50))
    bone = ball(ras(shape, matrix), (100, 0, -50), 12)
    values = np.where(bone, 400.0, background)
    values[bone & ball(ras(shape, matrix), (100, 0, -50), 9)] = 90.0
    model = build_bone_model(Volume(values.astype(np.float32), matrix, "hip"), n_points=60)
    assert model.bone_only_ct
    np.testing.assert_allclose(model.centroid, [100, 0, -50], atol=0.2)
    expected = [*attenuation_from_hu([90, 400]), 0.0]
    points = np.array([[100, 0, -50], [110.5, 0, -50], [114, 0, -50]], dtype=float)
    np.testing.assert_allclose(at(model.full, points), expected, rtol=1e-5)
    np.testing.assert_allclose(at(model.bone, points), expected, rtol=1e-5)
    # all that the X-ray shows, or more is around it; bone that was chosen stands alone
    assert [(r.volume is model.full, r.alone) for r in model.renderings.values()] == [(True, True), (True, False)]
    chosen = replace(model, rendered=("bone",)).renderings
    assert [(r.volume is model.bone, r.alone) for r in chosen.values()] == [(True, True)]


def test_arbitrary_units_become_attenuation_in_proportion():
    shape = (20, 20, 20)
    matrix = centred(shape, (1.0, 1.0, 1.0))
    bone = ball(ras(shape, matrix), (0, 0, 0), 7)
    values = np.where(bone, 1500, 0)
    values[8:12, 8:12, 8:12] = 3000
    model = build_bone_model(Volume(values.astype(np.uint16), matrix, "radius"), n_points=20)
    assert model.bone_only_ct
    np.testing.assert_allclose(
        at(model.full, np.array([[0.5, 0.5, 0.5], [5.5, 0.5, 0.5]])), [3.0 * WATER_MU_PER_MM, 1.5 * WATER_MU_PER_MM]
    )


def test_the_model_is_repeatable():
    ct, _ = body_ct()
    a, b = build_bone_model(ct, n_points=100, seed=3), build_bone_model(ct, n_points=100, seed=3)
    np.testing.assert_array_equal(a.surface_points, b.surface_points)
    np.testing.assert_array_equal(a.bone.mu, b.bone.mu)


@needs_data
@pytest.mark.parametrize(
    ("file", "bone_only"),
    [("pelvis_hips_a.mha", True), ("wrist/radius.nrrd", True), ("abdomen_pelvis.nii.gz", False)],
)
def test_real_cts(file, bone_only):
    ct = read_ct(shared_data() / file)
    model = build_bone_model(ct, n_points=500)
    assert model.bone_only_ct == bone_only
    assert model.bone.mu.max() > 0.02
    # points and centroid lie in the bone field's box
    ijk = transform_points(np.linalg.inv(model.bone.ct_from_ijk), np.vstack([model.surface_points, model.centroid]))
    assert (ijk > -1).all()
    assert (ijk < np.array(model.bone.mu.shape[::-1])).all()


@settings(max_examples=150)
@given(
    st.integers(0, 2**31 - 1),
    st.tuples(*[st.integers(1, 13)] * 3),
    st.sampled_from(["f4", "f8", "i2", "u2", "u1", "i4"]),
    st.sampled_from(["noise", "two values", "half bone", "smooth", "extremes"]),
    st.sampled_from(["auto", "full"]),
)
def test_any_volume_makes_a_model_or_is_refused_in_one_line(seed, shape, dtype, kind, bone):
    rng = np.random.default_rng(seed)
    values = {
        "noise": lambda: rng.normal(0, 600, shape),
        "two values": lambda: np.where(rng.random(shape) < 0.4, rng.integers(0, 3000), 0),
        "half bone": lambda: np.where(np.indices(shape)[0] * 3 < shape[0], -1000.0, 1200.0),
        "smooth": lambda: ndimage.gaussian_filter(rng.normal(0, 3000, shape), 1.0),
        "extremes": lambda: rng.choice([-1000, 40, 500, 3000, -32768], shape),
    }[kind]()
    info = np.iinfo(dtype) if dtype[0] in "iu" else np.finfo(dtype)
    matrix = centred(shape, tuple(rng.uniform(0.2, 8, 3)), rotation=OBLIQUE)
    ct = Volume(np.clip(values, info.min, info.max).astype(dtype), matrix, "any.nii")
    refusal = ""
    try:
        model = build_bone_model(ct, bone=bone, n_points=20)
    except InputError as error:
        refusal = str(error)
    if refusal:
        assert "\n" not in refusal
        assert "any.nii" in refusal
        assert "allowed" in refusal
        return
    assert np.isfinite(model.centroid).all()
    assert np.isfinite(model.bone.mu).all()
    assert model.bone.mu.min() >= 0
    assert 1 <= len(model.surface_points) <= 20
    assert model.mask.values.shape == shape


def _shift(mm: float) -> np.ndarray:
    out = np.zeros((4, 4))
    out[0, 3] = mm
    return out
