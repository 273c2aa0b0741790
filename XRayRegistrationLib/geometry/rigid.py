"""Rigid motions: exponential and logarithm of SO(3) and SE(3), and poses as 4x4 matrices.

Everything is float64. A twist is a 6-vector ``(w, v)``: a rotation vector in radians, then a
translation part in mm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError

Array = NDArray[np.float64]

_SMALL_ANGLE = 1e-4  # below it the closed forms lose digits and the series is exact to 1e-16


def skew(w: ArrayLike) -> Array:
    """Cross-product matrix of ``w``: ``skew(w) @ x == cross(w, x)``.

    ``w`` is (..., 3); the result is (..., 3, 3).
    """
    w = np.asarray(w, dtype=np.float64)
    out = np.zeros((*w.shape, 3))
    out[..., 0, 1], out[..., 0, 2] = -w[..., 2], w[..., 1]
    out[..., 1, 0], out[..., 1, 2] = w[..., 2], -w[..., 0]
    out[..., 2, 0], out[..., 2, 1] = -w[..., 1], w[..., 0]
    return out


def rotation_exp(rotation_vector_rad: ArrayLike) -> Array:
    """Rotation matrix (..., 3, 3) of a rotation vector (..., 3) in radians (Rodrigues)."""
    w = np.asarray(rotation_vector_rad, dtype=np.float64)
    a, b, _ = _rodrigues_coefficients(np.linalg.norm(w, axis=-1))
    k = skew(w)
    return np.eye(3) + a[..., None, None] * k + b[..., None, None] * (k @ k)


def rotation_log(rotation: ArrayLike) -> Array:
    """Rotation vector (..., 3) in radians, of norm at most pi, of rotation matrices (..., 3, 3).

    Goes through the unit quaternion, taken from its largest component, so that it keeps its
    digits at 0 and at pi, where the textbook formula by the trace loses half of them.
    """
    r = np.asarray(rotation, dtype=np.float64)
    q = _quaternion(r)
    vector_norm = np.linalg.norm(q[..., 1:], axis=-1)
    angle = 2.0 * np.arctan2(vector_norm, q[..., 0])  # q[0] >= 0, so the angle is in [0, pi]
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(vector_norm > 1e-12, angle / vector_norm, 2.0)
    return q[..., 1:] * scale[..., None]


def se3_exp(twist: ArrayLike) -> Array:
    """Rigid motion (..., 4, 4) of a twist (..., 6) = (w, v): rotation exp(w), translation V(w) v."""
    twist = np.asarray(twist, dtype=np.float64)
    w, v = twist[..., :3], twist[..., 3:]
    _, b, c = _rodrigues_coefficients(np.linalg.norm(w, axis=-1))
    k = skew(w)
    left_jacobian = np.eye(3) + b[..., None, None] * k + c[..., None, None] * (k @ k)
    return from_rotation_translation(rotation_exp(w), (left_jacobian @ v[..., None])[..., 0])


def se3_log(motion: ArrayLike) -> Array:
    """Twist (..., 6) = (w, v) of rigid motions (..., 4, 4); the inverse of :func:`se3_exp`."""
    motion = np.asarray(motion, dtype=np.float64)
    w = rotation_log(motion[..., :3, :3])
    angle = np.linalg.norm(w, axis=-1)
    k = skew(w)
    half = 0.5 * angle
    small = angle < 1e-2
    safe = np.where(small, 1.0, half)
    exact = (1.0 - safe / np.tan(safe)) / (2.0 * safe) ** 2
    series = 1.0 / 12.0 + angle**2 / 720.0 + angle**4 / 30240.0
    d = np.where(small, series, exact)
    inverse_jacobian = np.eye(3) - 0.5 * k + d[..., None, None] * (k @ k)
    v = (inverse_jacobian @ motion[..., :3, 3:])[..., 0]
    return np.concatenate([w, v], axis=-1)


def from_rotation_translation(rotation: ArrayLike, translation: ArrayLike) -> Array:
    """4x4 rigid motion(s) x -> R x + t from R (..., 3, 3) and t (..., 3) in mm."""
    rotation = np.asarray(rotation, dtype=np.float64)
    translation = np.asarray(translation, dtype=np.float64)
    out = np.zeros((*np.broadcast_shapes(rotation.shape[:-2], translation.shape[:-1]), 4, 4))
    out[..., :3, :3] = rotation
    out[..., :3, 3] = translation
    out[..., 3, 3] = 1.0
    return out


def inverse(motion: ArrayLike) -> Array:
    """Inverse of rigid motions (..., 4, 4), exactly rigid."""
    motion = np.asarray(motion, dtype=np.float64)
    rt = np.swapaxes(motion[..., :3, :3], -1, -2)
    return from_rotation_translation(rt, -(rt @ motion[..., :3, 3:])[..., 0])


def transform_points(matrix: ArrayLike, points: ArrayLike) -> Array:
    """Apply an affine 4x4 to points (..., 3)."""
    matrix = np.asarray(matrix, dtype=np.float64)
    return np.asarray(points, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def increment_left(camera_from_ct: ArrayLike, step: ArrayLike, centre_camera: ArrayLike) -> Array:
    """Move the CT by a small motion in camera axes, rotating about a point given in the camera.

    x' = exp(w) (x - c) + c + v, with ``step`` = (w, v) in (rad, mm), (..., 6), and ``c`` =
    ``centre_camera`` (3,), usually the bone's centroid: so in-plane, depth and rotation separate.
    """
    step = np.asarray(step, dtype=np.float64)
    c = np.asarray(centre_camera, dtype=np.float64)
    r = rotation_exp(step[..., :3])
    t = step[..., 3:] + c - (r @ c)
    return from_rotation_translation(r, t) @ np.asarray(camera_from_ct, dtype=np.float64)


def relative_motion(moving: ArrayLike, true: ArrayLike, centre_ct: ArrayLike) -> Array:
    """The step (..., 6), rad and mm, from poses (..., 4, 4) to the true ones: log of the turn, and the shift of the centre.

    ``increment_left(moving, step, moving @ centre) == true``, where ``centre_ct`` (3,) is in ct mm.
    """
    moving, true = np.asarray(moving, dtype=np.float64), np.asarray(true, dtype=np.float64)
    turn = rotation_log(true[..., :3, :3] @ np.swapaxes(moving[..., :3, :3], -1, -2))
    shift = (true - moving)[..., :3, :3] @ np.asarray(centre_ct, dtype=np.float64) + (true - moving)[..., :3, 3]
    return np.concatenate([turn, shift], axis=-1)


def moved_towards(moving: ArrayLike, true: ArrayLike, centre_ct: ArrayLike, share: float) -> Array:
    """The pose (4, 4) that has gone ``share`` of the geodesic from ``moving`` to ``true``."""
    step = share * relative_motion(moving, true, centre_ct)
    return increment_left(moving, step, transform_points(moving, centre_ct))


def rotation_angle(a: ArrayLike, b: ArrayLike) -> Array:
    """Angle in radians between rotations (..., 3, 3), as 2 asin(|A - B|_F / (2 sqrt 2)): stable at 0."""
    d = np.linalg.norm(np.asarray(a) - np.asarray(b), axis=(-2, -1)) / (2.0 * np.sqrt(2.0))
    return 2.0 * np.arcsin(np.clip(d, 0.0, 1.0))


def check_rigid(matrix: ArrayLike, name: str, tolerance: float = 1e-4) -> Array:
    """Return ``matrix`` as a float64 4x4 rigid motion, its rotation made exactly orthonormal.

    Raises:
        InputError: not 4x4, not finite, or not a rotation and a translation.
    """
    try:
        m = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        m = np.empty(0)
    allowed = "allowed is a 4x4 rigid motion (a rotation and a translation in mm, last row 0 0 0 1)"
    if m.shape != (4, 4):
        raise InputError(f"{name} is not a 4x4 matrix of numbers; {allowed}")
    if not np.isfinite(m).all():
        raise InputError(f"{name} has NaN or infinite entries; {allowed}")
    r = m[:3, :3]
    if np.abs(m[3] - [0, 0, 0, 1]).max() > tolerance:
        raise InputError(f"{name} has the last row {m[3].tolist()}; {allowed}")
    if np.abs(r @ r.T - np.eye(3)).max() > tolerance:
        raise InputError(
            f"{name} scales or shears (column lengths {np.linalg.norm(r, axis=0).round(4).tolist()}); {allowed}"
        )
    if np.linalg.det(r) < 0:
        raise InputError(f"{name} mirrors (determinant {np.linalg.det(r):.3f}); {allowed}")
    u, _, vt = np.linalg.svd(r)
    m[:3, :3] = u @ vt
    m[3] = [0, 0, 0, 1]
    return m


def _rodrigues_coefficients(angle: Array) -> tuple[Array, Array, Array]:
    """sin(x)/x, (1 - cos x)/x^2 and (x - sin x)/x^3, by series near 0."""
    small = angle < _SMALL_ANGLE
    x = np.where(small, 1.0, angle)
    x2 = angle**2
    a = np.where(small, 1.0 - x2 / 6.0, np.sin(x) / x)
    b = np.where(small, 0.5 - x2 / 24.0, 2.0 * np.sin(0.5 * x) ** 2 / x**2)
    # x - sin x cancels already at 1e-2, so its series reaches further
    series = 1.0 / 6.0 - x2 / 120.0 + x2**2 / 5040.0
    c = np.where(angle < 1e-2, series, (x - np.sin(x)) / x**3)
    return a, b, c


def _quaternion(r: Array) -> Array:
    """Unit quaternion (..., 4) = (w, x, y, z), w >= 0, of rotation matrices (..., 3, 3).

    The rows of the symmetric 4x4 matrix are all multiples of q (Bar-Itzhack); the one with the
    largest diagonal entry is the one without cancellation.
    """
    d = np.diagonal(r, axis1=-2, axis2=-1)
    trace = d.sum(-1)
    k = np.empty((*r.shape[:-2], 4, 4))
    k[..., 0, 0] = 1.0 + trace
    for i in range(3):
        k[..., i + 1, i + 1] = 1.0 + 2.0 * d[..., i] - trace
    for i, j, m in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        k[..., 0, i + 1] = k[..., i + 1, 0] = r[..., m, j] - r[..., j, m]
        k[..., j + 1, m + 1] = k[..., m + 1, j + 1] = r[..., m, j] + r[..., j, m]
    best = np.argmax(np.diagonal(k, axis1=-2, axis2=-1), axis=-1)
    q = np.take_along_axis(k, best[..., None, None], axis=-2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., :1] < 0, -q, q)
