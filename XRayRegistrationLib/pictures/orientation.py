"""What a reader of radiographs expects at a picture's edges: orientation letters and a scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import transform_points

_LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))  # RAS: + and - of each axis
_MINOR = 0.35  # a second letter when the direction leans at least about 20 degrees that way


def direction_letters(direction_ct: ArrayLike) -> str:
    """One or two letters for a direction (3,) in RAS, the larger part first: ``"L"``, ``"AR"``.

    R, L right and left of the patient; A, P front and back; S, I towards head and feet.
    """
    d = np.asarray(direction_ct, dtype=np.float64)
    d = d / np.linalg.norm(d)
    order = np.argsort(-np.abs(d), kind="stable")
    letters = [_LETTERS[axis][0 if d[axis] > 0 else 1] for axis in order]
    return letters[0] + (letters[1] if abs(d[order[1]]) > _MINOR else "")


def edge_letters(camera_from_ct: ArrayLike) -> dict[str, str]:
    """The patient's directions at the image's ``left``, ``right``, ``top`` and ``bottom`` edge."""
    ct_from_camera_rotation = np.asarray(camera_from_ct, dtype=np.float64)[:3, :3].T
    x, y = ct_from_camera_rotation[:, 0], ct_from_camera_rotation[:, 1]
    return {
        "left": direction_letters(-x),
        "right": direction_letters(x),
        "top": direction_letters(-y),
        "bottom": direction_letters(y),
    }


def beam_words(camera_from_ct: ArrayLike) -> str:
    """How the beam runs through the patient, such as ``"front to back"``, for the nearest main direction."""
    z = np.asarray(camera_from_ct, dtype=np.float64)[2, :3]
    axis = int(np.argmax(np.abs(z)))
    names = (("right", "left"), ("front", "back"), ("head", "feet"))
    plus, minus = names[axis]
    return f"{minus} to {plus}" if z[axis] > 0 else f"{plus} to {minus}"


def scale_bar(camera: Camera, camera_from_ct: ArrayLike, centre_ct: ArrayLike) -> tuple[float, float] | None:
    """A round length in mm at the depth of ``centre_ct``, and its length in pixels along a row.

    px = mm fx / z. About a fifth of the image's width; None when the centre is behind the source.
    """
    depth = float(transform_points(np.asarray(camera_from_ct), centre_ct)[2])
    if depth <= 0:
        return None
    px_per_mm = float(camera.K[0, 0]) / depth
    goal = 0.22 * camera.width / px_per_mm
    length = max((n * 10.0**e for e in range(-2, 4) for n in (1, 2, 5) if n * 10.0**e <= goal), default=goal)
    return float(length), float(length * px_per_mm)
