"""C-arm angles and named views on hand-made geometry: a patient with marks on every side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import (
    NAMED_VIEWS,
    angles_from_camera_from_ct,
    camera_from_ct_from_angles,
    is_mirrored,
    named_view,
)
from XRayRegistrationLib.geometry.rigid import inverse, se3_exp, transform_points

CENTRE = np.array([12.0, -130.0, 455.0])  # far from the CT's origin
CAMERA = Camera.from_spacing(401, 401, 1.0, 1000.0)
# 50 mm from the centre to each side of the patient, in RAS
SIDES = {
    "right": (50, 0, 0), "left": (-50, 0, 0), "front": (0, 50, 0), "back": (0, -50, 0), "head": (0, 0, 50),
    "feet": (0, 0, -50),
}  # fmt: skip


def seen(camera_from_ct: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """For each side of the patient: columns right of and rows below the centre, mm beyond it."""
    out = {}
    for side, offset in SIDES.items():
        x = transform_points(camera_from_ct, CENTRE + offset)
        u, v = CAMERA.project(x) - 200
        out[side] = (round(float(u), 6), round(float(v), 6), round(float(x[2] - 600), 6))
    return out


def source(camera_from_ct: np.ndarray) -> np.ndarray:
    return inverse(camera_from_ct)[:3, 3] - CENTRE


@pytest.mark.parametrize(
    ("name", "source_side", "right_of_picture", "left_of_picture"),
    [
        ("ap", "front", "left", "right"),  # as a radiograph hangs: the patient's left on the viewer's right
        ("pa", "back", "right", "left"),  # as the source behind the patient sees it
        ("lat-left", "right", "front", "back"),  # the left side at the detector
        ("lat-right", "left", "back", "front"),
    ],
)
def test_named_views(name, source_side, right_of_picture, left_of_picture):
    pose = named_view(name, CENTRE, 600.0)
    np.testing.assert_allclose(source(pose), 12.0 * np.array(SIDES[source_side]), atol=1e-9)
    at = seen(pose)
    shift = pytest.approx(50 * 1000 / 600, abs=1e-4)
    assert at[right_of_picture][:2] == (shift, 0)
    assert -at[left_of_picture][0] == shift
    assert (at["head"][0], -at["head"][1]) == (0, shift)  # up
    assert at["feet"][1] == shift
    assert at[source_side][2] == -50  # nearer to the source
    np.testing.assert_allclose(CAMERA.project(transform_points(pose, CENTRE)), [200, 200], atol=1e-9)


def test_names_in_any_case_and_the_nearest_name_for_a_wrong_one():
    np.testing.assert_array_equal(named_view("Lat-Left", CENTRE, 600.0), named_view("lat-left", CENTRE, 600.0))
    with pytest.raises(InputError, match=r"'lat-lef' \(did you mean 'lat-left'\?\); allowed are ap, pa, lat-left"):
        named_view("lat-lef", CENTRE, 600.0)


@pytest.mark.parametrize(
    ("primary", "secondary", "detector"),
    [
        # DICOM PS3.3 C.8.7.5.1.2: (0, 0) the patient faces the detector, +90 left, -90 right, secondary +90 head
        (0, 0, (0, 1, 0)),
        (90, 0, (-1, 0, 0)),
        (-90, 0, (1, 0, 0)),
        (180, 0, (0, -1, 0)),
        (0, 90, (0, 0, 1)),
        (0, -90, (0, 0, -1)),
        (45, 0, (-np.sqrt(0.5), np.sqrt(0.5), 0)),  # LAO 45
        (0, 30, (0, np.sqrt(3) / 2, 0.5)),  # cranial 30
        (-30, -20, (0.5 * np.cos(np.deg2rad(20)), np.sqrt(3) / 2 * np.cos(np.deg2rad(20)), -np.sin(np.deg2rad(20)))),
    ],
)
def test_the_detector_stands_where_dicom_says(primary, secondary, detector):
    pose = camera_from_ct_from_angles(primary, secondary, centre_ct=CENTRE, source_object_distance_mm=600)
    np.testing.assert_allclose(source(pose), -600 * np.array(detector), atol=1e-9)
    beyond = transform_points(inverse(pose), [0, 0, 1000]) - CENTRE  # the detector's middle
    np.testing.assert_allclose(beyond, 400 * np.array(detector), atol=1e-9)
    # the head is up, as far as the beam allows
    head = seen(pose)["head"]
    assert head[0] == pytest.approx(0, abs=1e-4)
    assert head[1] < 0 or abs(secondary) == 90


def test_roll_turns_the_patient_clockwise_and_offset_moves_it_right_and_down():
    straight = seen(named_view("ap", CENTRE, 600.0))
    pose = camera_from_ct_from_angles(180, 0, 90, centre_ct=CENTRE, source_object_distance_mm=600)
    turned = seen(pose)
    # clockwise by a quarter: what was up is now right, what was right is now down
    assert turned["head"] == pytest.approx((-straight["head"][1], 0, 0), abs=1e-4)
    assert turned["left"] == pytest.approx((0, straight["left"][0], 0), abs=1e-4)
    moved = camera_from_ct_from_angles(
        180, 0, centre_ct=CENTRE, source_object_distance_mm=500, offset_mm=(20.0, 30.0)
    )
    np.testing.assert_allclose(transform_points(moved, CENTRE), [20, 30, 500], atol=1e-9)
    np.testing.assert_allclose(CAMERA.project(transform_points(moved, CENTRE)), [240, 260], atol=1e-9)


@settings(max_examples=200)
@given(
    st.floats(-179.9, 180), st.floats(-89, 89), st.floats(-179.9, 180), st.floats(100, 2000), st.floats(-300, 300),
    st.floats(-300, 300),
)  # fmt: skip
def test_angles_come_back(primary, secondary, roll, sod, x, y):
    pose = camera_from_ct_from_angles(
        primary, secondary, roll, centre_ct=CENTRE, source_object_distance_mm=sod, offset_mm=(x, y)
    )
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-14)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
    found = angles_from_camera_from_ct(pose, CENTRE)
    turn = [found.primary_deg - primary, found.secondary_deg - secondary, found.roll_deg - roll]
    np.testing.assert_allclose((np.array(turn) + 180) % 360 - 180, 0, atol=1e-6)
    np.testing.assert_allclose([found.source_object_distance_mm, *found.offset_mm], [sod, x, y], atol=1e-8)


@settings(max_examples=100)
@given(st.integers(0, 10_000))
def test_every_pose_has_angles(seed):
    rng = np.random.default_rng(seed)
    pose = se3_exp([*rng.normal(size=3) * 2, 0, 0, 0])
    pose[:3, 3] = [30, -20, 700] - pose[:3, :3] @ CENTRE
    found = angles_from_camera_from_ct(pose, CENTRE)
    again = camera_from_ct_from_angles(
        found.primary_deg, found.secondary_deg, found.roll_deg, centre_ct=CENTRE,
        source_object_distance_mm=found.source_object_distance_mm, offset_mm=found.offset_mm,
    )  # fmt: skip
    np.testing.assert_allclose(again, pose, atol=1e-9)


@pytest.mark.parametrize("secondary", [90.0, -90.0])
def test_straight_along_the_patient_the_pose_still_comes_back(secondary):
    pose = camera_from_ct_from_angles(35, secondary, 10, centre_ct=CENTRE, source_object_distance_mm=600)
    found = angles_from_camera_from_ct(pose, CENTRE)
    assert found.primary_deg == pytest.approx(0.0, abs=1e-9)
    again = camera_from_ct_from_angles(
        found.primary_deg, found.secondary_deg, found.roll_deg, centre_ct=CENTRE, source_object_distance_mm=600
    )
    np.testing.assert_allclose(again, pose, atol=1e-9)


@pytest.mark.parametrize(
    ("view", "orientation", "mirrored"),
    [
        # radiographs hang with the patient's left on the right: so the source in front sees it, not the one behind
        ("ap", ("L", "F"), False),
        ("pa", ("L", "F"), True),
        ("pa", ("R", "F"), False),
        ("pa", ("R", "H"), True),  # upside down and mirrored
        ("pa", ("L", "H"), False),  # turned by 180 degrees
        ("lat-left", ("A", "F"), False),
        ("lat-left", ("P", "F"), True),
        ("lat-right", ("P", "F"), False),
        ("pa", ("LA", "F"), True),
        ("ap", ("A", "F"), None),  # the picture of a lateral
        ("ap", (), None),
        ("ap", ("", ""), None),
    ],
)
def test_a_stored_picture_is_told_from_its_mirror_image(view, orientation, mirrored):
    assert is_mirrored(orientation, named_view(view, CENTRE, 600.0)) is mirrored


def test_an_oblique_picture_too():
    lao = camera_from_ct_from_angles(45, 20, centre_ct=CENTRE, source_object_distance_mm=600)
    assert is_mirrored(("LP", "FA"), lao) is True  # shown as a radiograph, the source behind
    assert is_mirrored(("RA", "FA"), lao) is False


@pytest.mark.parametrize(("angle", "sod"), [(np.nan, 600.0), (np.inf, 600.0), (0.0, 0.0), (0.0, np.nan)])
def test_what_is_no_place_is_refused(angle, sod):
    with pytest.raises(InputError, match="allowed"):
        camera_from_ct_from_angles(angle, 0, centre_ct=CENTRE, source_object_distance_mm=sod)


def test_the_search_means_the_same_by_its_orbital_angle():
    from XRayRegistrationLib.simulation.poses import rotation_from_angles

    for name, orbital in (("ap", 0.0), ("lat-left", 90.0), ("pa", 180.0), ("lat-right", -90.0)):
        assert name in NAMED_VIEWS
        np.testing.assert_allclose(
            rotation_from_angles(orbital, 0.0, 0.0), named_view(name, CENTRE, 600.0)[:3, :3], atol=1e-12
        )
