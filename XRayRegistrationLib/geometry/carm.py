"""C-arm angles and named views: where source and detector stand about the patient.

DICOM (PS3.3 C.8.7.5) gives the **detector's** place about a patient who lies head first and
supine: primary angle 0 in front of the chest, +90 at the patient's left (LAO), -90 at the right
(RAO), 180 at the back; secondary angle +90 towards the head (cranial), -90 towards the feet
(caudal). So (0, 0) is the usual C-arm with the tube under the table: the beam runs from back to
front (PA), and AP is (180, 0).

In ct axes (RAS: +x right, +y anterior, +z superior), with a = primary and b = secondary, the beam
from source to detector is

    d = (-sin a cos b, cos a cos b, sin b)

and the picture's up is the patient's head as far as the beam allows. The picture is the one that the
source sees, without mirroring: from behind (PA) the patient's right is on the picture's right.
Stations usually store PA images as they are shown, with the patient's left on the right: mirrored.
:func:`is_mirrored` finds out from DICOM's PatientOrientation; such an image must be mirrored back
before use, because no pose of a camera makes a mirrored picture.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.rigid import from_rotation_translation

Array = NDArray[np.float64]

# (primary, secondary) in degrees; a lateral is named for the side that is at the detector
NAMED_VIEWS: dict[str, tuple[float, float]] = {
    "ap": (180.0, 0.0),
    "pa": (0.0, 0.0),
    "lat-left": (90.0, 0.0),
    "lat-right": (-90.0, 0.0),
}

# rows: the camera's x, y, z in ct axes at angles (0, 0): right, down the patient, forward
_CAMERA_AT_ZERO = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True)
class CArmPose:
    """A pose as C-arm angles about a point of the CT.

    Attributes:
        primary_deg: -180..180, positive towards LAO.
        secondary_deg: -90..90, positive cranial.
        roll_deg: -180..180, turn of the patient in the picture, clockwise positive.
        source_object_distance_mm: depth of the point along the central ray.
        offset_mm: (x, y) of the point in the camera frame: right of and below the central ray.
    """

    primary_deg: float
    secondary_deg: float
    roll_deg: float
    source_object_distance_mm: float
    offset_mm: tuple[float, float]


def camera_from_ct_from_angles(
    primary_deg: float,
    secondary_deg: float,
    roll_deg: float = 0.0,
    *,
    centre_ct: ArrayLike,
    source_object_distance_mm: float,
    offset_mm: tuple[float, float] = (0.0, 0.0),
) -> Array:
    """Pose ``camera_from_ct`` (4x4) of a C-arm at DICOM positioner angles in degrees.

    ``centre_ct`` (3,) mm, such as the isocentre or the bone's centroid, comes to lie at
    (offset x, offset y, source-object distance) in the camera frame:

    camera_from_ct = [R | (offset, SOD) - R centre],  R = Rz(roll) R0 (Rz(primary) Rx(secondary))^T

    Raises:
        InputError: an angle is not finite, or the distance is not positive.
    """
    angles = np.array([primary_deg, secondary_deg, roll_deg], dtype=np.float64)
    if not np.isfinite(angles).all():
        raise InputError(f"C-arm angles are {angles.tolist()}; allowed are finite degrees")
    if not (np.isfinite(source_object_distance_mm) and source_object_distance_mm > 0):
        raise InputError(
            f"source_object_distance_mm is {source_object_distance_mm!r}; allowed is a positive length in mm"
        )
    a, b, r = np.deg2rad(angles)
    rotation = _about_z(r) @ _CAMERA_AT_ZERO @ (_about_z(a) @ _about_x(b)).T
    centre_camera = np.array([offset_mm[0], offset_mm[1], source_object_distance_mm])
    return from_rotation_translation(rotation, centre_camera - rotation @ np.asarray(centre_ct, dtype=np.float64))


def angles_from_camera_from_ct(camera_from_ct: ArrayLike, centre_ct: ArrayLike) -> CArmPose:
    """C-arm angles of a pose; the inverse of :func:`camera_from_ct_from_angles`.

    Looking straight along the patient (secondary +-90) primary and roll turn about the same axis:
    then the primary angle is taken as 0.
    """
    pose = np.asarray(camera_from_ct, dtype=np.float64)
    rotation = pose[:3, :3]
    beam = rotation[2]
    across = np.hypot(beam[0], beam[1])
    a = np.arctan2(-beam[0], beam[1]) if across > 1e-9 else 0.0
    b = np.arctan2(beam[2], across)
    roll = rotation @ _about_z(a) @ _about_x(b) @ _CAMERA_AT_ZERO.T
    x, y, z = rotation @ np.asarray(centre_ct, dtype=np.float64) + pose[:3, 3]
    return CArmPose(
        primary_deg=float(np.rad2deg(a)),
        secondary_deg=float(np.rad2deg(b)),
        roll_deg=float(np.rad2deg(np.arctan2(roll[1, 0], roll[0, 0]))),
        source_object_distance_mm=float(z),
        offset_mm=(float(x), float(y)),
    )


def named_view(name: str, centre_ct: ArrayLike, source_object_distance_mm: float) -> Array:
    """Pose ``camera_from_ct`` (4x4) of ``"ap"``, ``"pa"``, ``"lat-left"`` or ``"lat-right"``.

    The patient's head is up in all. AP: the source is in front, and the patient's left is on the
    picture's right. PA: the source is behind, and the patient's right is on the picture's right.
    Lateral left: the source is at the patient's right and the left side at the detector; the
    front is on the picture's right. Lateral right: the other way round.

    Raises:
        InputError: another name (upper or lower case), or a distance that is not positive.
    """
    key = name.strip().lower()
    if key not in NAMED_VIEWS:
        near = difflib.get_close_matches(key, NAMED_VIEWS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise InputError(f"view is {name!r}{hint}; allowed are {', '.join(NAMED_VIEWS)}")
    primary, secondary = NAMED_VIEWS[key]
    return camera_from_ct_from_angles(
        primary, secondary, centre_ct=centre_ct, source_object_distance_mm=source_object_distance_mm
    )


def is_mirrored(patient_orientation: Sequence[str], camera_from_ct: ArrayLike) -> bool | None:
    """Whether a stored image is the mirror image of what the source sees.

    Args:
        patient_orientation: DICOM (0020,0020): where the rows run to and where the columns run to, such
            as ``("L", "F")`` or ``("AL", "FR")``.
        camera_from_ct: 4x4, at least roughly right, such as that of the positioner angles.

    Returns:
        Seen by the source, rows to the right and columns downwards make a right-handed frame with the
        beam: mirrored where (row x column) . beam < 0. None where the orientation does not tell
        (missing, or nearly along the beam).
    """
    if len(patient_orientation) != 2:
        return None
    row, column = (_direction(code) for code in patient_orientation)
    beam = np.asarray(camera_from_ct, dtype=np.float64)[2, :3]
    turn = float(np.cross(row, column) @ beam)
    return None if abs(turn) < 0.2 else turn < 0.0


def _direction(code: str) -> Array:
    """Unit vector in RAS of DICOM's letters; the first letter counts most."""
    letters = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "H": (2, 1), "F": (2, -1)}
    out = np.zeros(3)
    for place, letter in enumerate(code.strip().upper()):
        if letter in letters:
            axis, sign = letters[letter]
            out[axis] += sign * 0.5**place
    length = float(np.linalg.norm(out))
    return out / length if length > 0 else out


def _about_x(angle_rad: float) -> Array:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def _about_z(angle_rad: float) -> Array:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
