"""A start from landmarks: the pose under which points of the CT project to where a person saw them.

The reprojection error is minimised from a fixed set of orientations all around (so no start is needed and the answer
is repeatable), all at once, by Levenberg-Marquardt. A C-arm sees the patient from far away, where few or
nearly coplanar points leave two poses that fit alike, as in Necker's cube; the other one is looked for on purpose and
said. What no pose explains is refused, with the landmarks that do not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, rotation_angle, rotation_exp, skew

Array = NDArray[np.float64]

LEAST_POINTS = 4
_APART_MM = 0.5  # landmarks that are closer are one
_LINE = 0.03  # width over length of points that lie on a line
_CLICK_MM = 1.0  # how exactly a person finds a landmark, in the patient
_WEAK_DEG = 5.0  # of turn that such errors make, from which the geometry is called weak
_RIVAL = 1.5  # times the best's error: a pose up to it might be the right one
_OTHER_RAD = np.deg2rad(5.0)  # poses that are turned by less are the same one
# errors of the landmarks, estimated from how badly the best pose fits: what is said, and what is refused (above both)
_DOUBTED_MM = 4.0
_REFUSED_MM, _REFUSED_SHARE = 10.0, 0.1  # of the landmarks' spread
_SUSPECTS = 14  # landmarks up to which pairs are looked at
_FIRST_STEPS, _STEPS, _LAST_STEPS = 12, 30, 50
_KEPT, _MIRRORED = 50, 20  # of the starts, after the first steps


@dataclass(frozen=True)
class LandmarkPose:
    """A pose from landmarks.

    Attributes:
        camera_from_ct: 4x4, ct in mm.
        residuals_px: (n,) distance in the image between each landmark's projection and where it was seen.
        residuals_mm: (n,) the same at the landmark's depth, in the patient.
        rms_px: root of the mean square of ``residuals_px``.
        warning: a sentence where the landmarks fit badly or hardly determine the pose, else "".
        rival_camera_from_ct: 4x4, another pose that fits nearly as well; None where there is none.
    """

    camera_from_ct: Array
    residuals_px: Array
    residuals_mm: Array
    rms_px: float
    warning: str = ""
    rival_camera_from_ct: Array | None = None


def pose_from_landmarks(
    points_ct: ArrayLike, pixels: ArrayLike, camera: Camera, names: Sequence[str] | None = None
) -> LandmarkPose:
    """The pose that projects points of the CT to pixels of the X-ray.

    Args:
        points_ct: (n, 3) mm, n >= 4, not on a line.
        pixels: (n, 2) = (u, v), where each is seen; integer = pixel centre.
        camera: of the X-ray.
        names: n, for messages; None counts from 1.

    Raises:
        InputError: too few points, on a line, twice the same, not finite; or no pose fits them.
    """
    points, seen, labels = _checked(points_ct, pixels, names)
    problem = _Problem.of(points, seen, camera)
    poses, errors = _solve(problem, _orientations())
    best = int(np.argmin(errors))
    depth_mm = float(poses.centre[best, 2])
    # six parameters take up their share of the errors: few landmarks fit better than they are
    error_mm = float(np.sqrt(errors[best] * len(points) / (len(points) - 3))) * depth_mm / _focal(camera)
    spread_mm = float(np.sqrt((problem.points**2).sum(axis=1).mean()))
    if error_mm > max(_REFUSED_MM, _REFUSED_SHARE * spread_mm):
        reason = _diagnosis(problem, poses, best, labels, points, camera)
        raise InputError(f"no pose fits these landmarks, whose errors would be about {error_mm:.0f} mm; {reason}")
    camera_from_ct = poses.matrix(best, points)
    offsets = camera.project(points @ camera_from_ct[:3, :3].T + camera_from_ct[:3, 3]) - seen
    depths = points @ camera_from_ct[2, :3] + camera_from_ct[2, 3]
    residuals_px = np.linalg.norm(offsets, axis=1)
    residuals_mm = np.linalg.norm(offsets * depths[:, None] / np.diag(camera.K)[:2], axis=1)
    rival = _rival(poses, errors, best, _CLICK_MM * _focal(camera) / depth_mm)
    turn = _turn_by_clicks_deg(problem, poses, best)
    warnings = []
    if error_mm > _DOUBTED_MM:
        reason = _diagnosis(problem, poses, best, labels, points, camera)
        warnings.append(f"the landmarks have errors of about {error_mm:.0f} mm; {reason}")
    if rival is not None:
        apart = np.rad2deg(rotation_angle(poses.rotation[best], poses.rotation[rival]))
        warnings.append(
            f"another pose, turned by {apart:.0f} degrees, fits these landmarks nearly as well "
            f"({np.sqrt(errors[rival]):.1f} px against {np.sqrt(errors[best]):.1f} px); "
            "look which one is right, or add landmarks that lie off the plane of the others"
        )
    elif turn > _WEAK_DEG:
        warnings.append(
            f"errors of {_CLICK_MM:g} mm in these landmarks turn the pose by {turn:.0f} degrees; "
            "add landmarks, further apart and in different depths"
        )
    return LandmarkPose(
        camera_from_ct=camera_from_ct,
        residuals_px=residuals_px,
        residuals_mm=residuals_mm,
        rms_px=float(np.sqrt((residuals_px**2).mean())),
        warning=". ".join(warnings),
        rival_camera_from_ct=None if rival is None else poses.matrix(rival, points),
    )


def _checked(points_ct: ArrayLike, pixels: ArrayLike, names: Sequence[str] | None) -> tuple[Array, Array, list[str]]:
    try:
        points, seen = np.array(points_ct, dtype=np.float64), np.array(pixels, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("the landmarks are no numbers; allowed are (n, 3) mm in the CT and (n, 2) pixels") from error
    if points.size == 0:
        points, seen = points.reshape(0, 3), seen.reshape(-1, 2) if seen.size % 2 == 0 else seen
    if points.ndim != 2 or points.shape[1:] != (3,) or seen.ndim != 2 or seen.shape[1:] != (2,):
        raise InputError(
            f"the landmarks have the shapes {points.shape} and {seen.shape}; allowed are (n, 3) mm in the CT and "
            "(n, 2) pixels in the X-ray"
        )
    n = len(points)
    if len(seen) != n:
        raise InputError(
            f"there are {n} landmarks in the CT and {len(seen)} in the X-ray; give each of them in both, in the same order"
        )
    labels = [str(i + 1) for i in range(n)] if names is None else [str(name) for name in names]
    if len(labels) != n:
        raise InputError(f"there are {n} landmarks and {len(labels)} names; give one name each, or none")
    if n < LEAST_POINTS:
        few = "three leave up to four poses" if n == 3 else f"{n} leave the pose open"
        raise InputError(f"there are {n} landmarks; allowed are at least {LEAST_POINTS} ({few}); mark more of them")
    for what, values in (("in the CT", points), ("in the X-ray", seen)):
        bad = [labels[i] for i in np.flatnonzero(~np.isfinite(values).all(axis=1))]
        if bad:
            raise InputError(f"landmark {', '.join(bad)} has no finite position {what}; place it, or leave it out")
    for i, j in combinations(range(n), 2):
        if np.linalg.norm(points[i] - points[j]) < _APART_MM:
            raise InputError(
                f"landmarks {labels[i]} and {labels[j]} are at the same place in the CT; allowed are points at least "
                f"{_APART_MM:g} mm apart; move or remove one of them"
            )
    extent = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if extent[1] < _LINE * extent[0]:
        raise InputError(
            f"the {n} landmarks lie on a line in the CT, which leaves the turn about it open; "
            "add one that lies well beside the line"
        )
    if np.linalg.norm(seen - seen.mean(axis=0), axis=1).max() < 1.0:
        raise InputError(f"the {n} landmarks are at the same pixel of the X-ray; mark each where it is seen")
    return points, seen, labels


@dataclass(frozen=True)
class _Problem:
    """Points (n, 3) mm about their centroid; pixels (b, n, 2) or (1, n, 2); focal lengths (2,) and centre (2,) in px;
    the weights (b, n) or (1, n) of the points."""

    points: Array
    pixels: Array
    focal: Array
    centre: Array
    weights: Array

    @classmethod
    def of(cls, points: Array, pixels: Array, camera: Camera) -> _Problem:
        centred = points - points.mean(axis=0)
        k = camera.K
        return cls(centred, pixels.reshape(-1, len(points), 2), np.diag(k)[:2].copy(), k[:2, 2], np.ones((1, len(points))))

    def several(self, pixels: Array, weights: Array, starts: int) -> _Problem:
        """One variant after the other, each ``starts`` times."""
        return _Problem(self.points, np.repeat(pixels, starts, 0), self.focal, self.centre, np.repeat(weights, starts, 0))


@dataclass(frozen=True)
class _Poses:
    """rotation (b, 3, 3) camera from ct; centre (b, 3), the landmarks' centroid in the camera, mm."""

    rotation: Array
    centre: Array

    def matrix(self, i: int, points: Array) -> Array:
        rotation = self.rotation[i]
        return from_rotation_translation(rotation, self.centre[i] - rotation @ points.mean(axis=0))


def _orientations() -> Array:
    """(b, 3, 3) rotations all around, evenly spread: turns in the picture times directions of the beam."""
    directions, turns = 40, 6
    k = np.arange(directions) + 0.5
    polar, azimuth = np.arccos(1 - 2 * k / directions), np.pi * (1 + 5**0.5) * k  # Fibonacci's lattice
    tilt = rotation_exp(np.stack([-np.sin(azimuth), np.cos(azimuth), 0 * k], axis=-1) * polar[:, None])
    roll = rotation_exp(np.stack([np.zeros(turns), np.zeros(turns), 2 * np.pi * np.arange(turns) / turns], axis=-1))
    return (roll[:, None] @ np.swapaxes(tilt, -1, -2)[None]).reshape(-1, 3, 3)


def _solve(problem: _Problem, rotations: Array) -> tuple[_Poses, Array]:
    """Minima from all starts, and the mirrored ones of the best: poses, and their mean squared errors in px^2."""
    poses, errors = _descend(problem, _start(problem, rotations), _FIRST_STEPS)
    kept = np.argsort(errors, kind="stable")[:_KEPT]
    poses, errors = _descend(problem, _Poses(poses.rotation[kept], poses.centre[kept]), _STEPS)
    leading = np.argsort(errors, kind="stable")[:_MIRRORED]
    # seen from afar, depth may be inverted: mirrored along the beam, and along the landmarks' thinnest direction
    normal = np.linalg.svd(problem.points)[2][-1]
    mirrored = np.diag([1.0, 1.0, -1.0]) @ poses.rotation[leading] @ (np.eye(3) - 2 * np.outer(normal, normal))
    again = np.concatenate([poses.rotation[leading], mirrored])
    centres = np.concatenate([poses.centre[leading], poses.centre[leading]])
    return _descend(problem, _Poses(again, _in_front(problem, again, centres)), _LAST_STEPS)


def _start(problem: _Problem, rotations: Array) -> _Poses:
    """The centroid on the ray of the pixels' middle, as deep as the landmarks' spread in the image says."""
    rays = (problem.pixels - problem.centre) / problem.focal
    middle = rays.mean(axis=1)
    spread = np.sqrt(((rays - middle[:, None]) ** 2).sum(axis=2).mean(axis=1))
    across = np.sqrt(((rotations[:, :2] @ problem.points.T) ** 2).sum(axis=1).mean(axis=1))
    depth = across / np.maximum(spread, 1e-9)
    centre = np.concatenate([np.broadcast_to(middle, (len(rotations), 2)), np.ones((len(rotations), 1))], axis=1)
    return _Poses(rotations, _in_front(problem, rotations, centre * depth[:, None]))


def _in_front(problem: _Problem, rotations: Array, centres: Array) -> Array:
    """Centroids moved along their rays until every landmark is in front of the source."""
    nearest = (rotations[:, 2] @ problem.points.T).min(axis=1)
    return centres * np.maximum(1.0, -1.5 * nearest / centres[:, 2])[:, None]


def _descend(problem: _Problem, poses: _Poses, steps: int) -> tuple[_Poses, Array]:
    """Levenberg-Marquardt of all poses at once; a step that does not lower a pose's error is not taken.

    Six parameters: a turn about the centroid in camera axes, the centroid's ray (x / z, y / z), and log z, which
    keeps it in front of the source.
    """
    rotation, centre = poses.rotation.copy(), poses.centre.copy()
    damping = np.full(len(rotation), 1e-3)
    errors = _errors(problem, rotation, centre)
    running = np.ones(len(rotation), bool)
    for _ in range(steps):
        gram, slope = _linearised(problem, rotation, centre)
        diagonal = np.diagonal(gram, axis1=1, axis2=2)
        ridge = damping[:, None] * diagonal + 1e-12 * diagonal.max(axis=1, keepdims=True)
        step = -np.linalg.solve(gram + ridge[:, :, None] * np.eye(6), slope[..., None])[..., 0]
        size = np.linalg.norm(step[:, :3], axis=1)
        step *= np.minimum(1.0, 0.6 / np.maximum(size, 1e-12))[:, None]  # rad
        step[:, 5] = np.clip(step[:, 5], -0.7, 0.7)
        new_rotation = rotation_exp(step[:, :3]) @ rotation
        new_centre = centre.copy()
        new_centre[:, :2] += step[:, 3:5] * centre[:, 2:]
        new_centre *= np.exp(step[:, 5:])
        new_errors = _errors(problem, new_rotation, new_centre)
        better = running & (new_errors < errors)
        done = better & (errors - new_errors < 1e-14 * errors + 1e-24) | (damping > 1e9)
        rotation = np.where(better[:, None, None], new_rotation, rotation)
        centre = np.where(better[:, None], new_centre, centre)
        errors = np.where(better, new_errors, errors)
        damping = np.where(better, np.maximum(damping / 10, 1e-12), damping * 6)
        running &= ~done
        if not running.any():
            break
    return _Poses(rotation, centre), errors


def _errors(problem: _Problem, rotation: Array, centre: Array) -> Array:
    """(b,) mean squared distances in px^2; infinite where a landmark is not in front of the source."""
    x = problem.points @ np.swapaxes(rotation, 1, 2) + centre[:, None]
    depth = x[..., 2]
    ok = (depth > 0).all(axis=1)
    projected = problem.focal * x[..., :2] / np.where(depth > 0, depth, 1.0)[..., None] + problem.centre
    squared = ((projected - problem.pixels) ** 2).sum(axis=2)
    mean = (problem.weights * squared).sum(axis=1) / problem.weights.sum(axis=1)
    return np.where(ok, mean, np.inf)


def _linearised(problem: _Problem, rotation: Array, centre: Array) -> tuple[Array, Array]:
    """J'WJ (b, 6, 6) and J'Wr (b, 6) of the offsets in px."""
    turned = problem.points @ np.swapaxes(rotation, 1, 2)
    x = turned + centre[:, None]
    depth = x[..., 2]
    b, n = depth.shape
    moved = np.zeros((b, n, 3, 6))  # of the point, per parameter
    moved[..., :3] = -skew(turned)
    moved[..., 0, 3] = moved[..., 1, 4] = centre[:, None, 2]
    moved[..., 5] = centre[:, None]
    ratio = x[..., :2] / depth[..., None]
    jacobian = problem.focal[:, None] * (moved[..., :2, :] - ratio[..., None] * moved[..., 2:, :]) / depth[..., None, None]
    offsets = problem.focal * ratio + problem.centre - problem.pixels
    weighted = (jacobian * problem.weights[..., None, None]).reshape(b, 2 * n, 6)
    plain = jacobian.reshape(b, 2 * n, 6)
    gram = np.swapaxes(weighted, 1, 2) @ plain
    return gram, (np.swapaxes(weighted, 1, 2) @ np.reshape(offsets, (b, 2 * n, 1)))[..., 0]


def _rival(poses: _Poses, errors: Array, best: int, click_px: float) -> int | None:
    """The best pose that is another one and might be right, where a click's error is ``click_px``."""
    apart = rotation_angle(poses.rotation, poses.rotation[best]) > _OTHER_RAD
    close = errors < _RIVAL**2 * max(float(errors[best]), click_px**2)
    candidates = np.flatnonzero(apart & close)
    return None if len(candidates) == 0 else int(candidates[np.argmin(errors[candidates])])


def _turn_by_clicks_deg(problem: _Problem, poses: _Poses, best: int) -> float:
    """Standard deviation of the pose's turn, about its loosest axis, where clicks have an error of 1 mm."""
    gram, _ = _linearised(problem, poses.rotation[best : best + 1], poses.centre[best : best + 1])
    click_px = _CLICK_MM * float(problem.focal.mean()) / float(poses.centre[best, 2])
    covariance = np.linalg.pinv(gram[0], hermitian=True) * click_px**2
    return float(np.rad2deg(np.sqrt(np.linalg.eigvalsh(covariance[:3, :3])[-1])))


def _diagnosis(problem: _Problem, poses: _Poses, best: int, labels: list[str], points: Array, camera: Camera) -> str:
    """Why the landmarks fit badly: a mirrored picture, two of them exchanged, one misplaced, or which fits worst."""
    n, seen = len(labels), problem.pixels[0]
    scale = _focal(camera) / float(poses.centre[best, 2])
    pose = poses.matrix(best, points)
    missed = np.linalg.norm(camera.project(points @ pose[:3, :3].T + pose[:3, 3]) - seen, axis=1)
    found = np.sqrt((missed**2).mean())
    starts = np.concatenate([poses.rotation[:8], _orientations()[::5]])

    def rms(pixels: Array, weights: Array) -> Array:
        """(variants,) px, of other pixels (variants, n, 2) or weights (variants, n)."""
        many = problem.several(pixels, weights, len(starts))
        _, errors = _descend(many, _start(many, np.tile(starts, (len(pixels), 1, 1))), _STEPS)
        return np.asarray(np.sqrt(errors.reshape(len(pixels), -1).min(axis=1)))

    def culprit(errors: Array) -> int | None:
        """The variant that explains it, and clearly better than any other."""
        order = np.argsort(errors)
        clear = errors[order[0]] < 0.3 * found and errors[order[0]] < 0.5 * errors[order[1]]
        return int(order[0]) if clear else None

    ones = np.ones((1, n))
    mirrored = seen * [-1.0, 1.0] + [2 * camera.K[0, 2], 0.0]
    if rms(mirrored[None], ones)[0] < 0.3 * found:
        return "they fit the mirror image: mirror the X-ray left to right"
    if n <= _SUSPECTS:
        pairs = list(combinations(range(n), 2))
        swapped = np.repeat(seen[None], len(pairs), 0)
        for m, (i, j) in enumerate(pairs):
            swapped[m, [i, j]] = seen[[j, i]]
        pair = culprit(rms(swapped, np.repeat(ones, len(pairs), 0)))
        if pair is not None:
            i, j = pairs[pair]
            return f"{labels[i]} and {labels[j]} seem to be exchanged: exchange them in the CT or in the X-ray"
        if n > LEAST_POINTS:
            one = culprit(rms(np.repeat(seen[None], n, 0), 1.0 - np.eye(n)))
            if one is not None:
                return f"without {labels[one]} they fit: place it again, or leave it out"
    worst = int(np.argmax(missed))
    return (
        f"{labels[worst]} fits worst, by {missed[worst] / scale:.0f} mm: look whether each is the same point in CT and "
        "X-ray, in the same order, and whether the camera's geometry is that of this image"
    )


def _focal(camera: Camera) -> float:
    return float(np.diag(camera.K)[:2].mean())
