"""How far a pose is from the true one, and how a set of such errors is summed up.

Poses are ``camera_from_ct`` (4, 4), points ct mm. Registration papers report the same words for
different numbers, so each function says what it is:

- mTRE: mean target registration error, mean_k |T X_k - T_true X_k| in mm, of all points, in view
  or not (a rigid motion keeps lengths, so it is the same in the camera's and in the CT's frame).
- mPD, or projected mTRE: the mean distance of the points' projections on the detector in mm, again
  of all points (SCR's "proj. mTRE", RayEmb's "mPD"; RayEmb's own code overstates it by 7 %).
- GFR@x, gross failure rate: the fraction of **all** cases whose error is not at most x mm. A case
  without a pose has an infinite error and stays in the denominator; SCR's evaluator dropped such.
- Percentiles are of all cases too, so that they are infinite where too many have no pose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import rotation_angle, rotation_log, transform_points

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""From (..., n) values to (...): one number for each set of n."""


@dataclass(frozen=True)
class PoseError:
    """How far one pose is from the true one; everything is infinite where there is no pose.

    Attributes:
        mtre_landmarks_mm, mtre_surface_mm: over the landmarks, and over points of the bone's surface.
        mpd_mm: over the landmarks, on the detector; None where the camera has no SDD.
        in_plane_mm, depth_mm: means over the surface points of the parts across and along the beam.
        rotation_deg: the angle between the two rotations (geodesic).
        about_deg, along_mm: (x, y, z) of the motion from the true pose to this one in camera axes:
            its rotation vector, and the way of the bone's centroid.
    """

    mtre_landmarks_mm: float
    mtre_surface_mm: float
    mpd_mm: float | None
    in_plane_mm: float
    depth_mm: float
    rotation_deg: float
    about_deg: tuple[float, float, float]
    along_mm: tuple[float, float, float]


def pose_error(
    found: ArrayLike | None,
    true: ArrayLike,
    camera: Camera,
    landmarks_ct: ArrayLike,
    surface_ct: ArrayLike,
    centroid_ct: ArrayLike,
) -> PoseError:
    """Every error of a pose; ``found`` is None where a method gave none.

    Args:
        found, true: camera_from_ct (4, 4).
        camera: of the X-ray.
        landmarks_ct, surface_ct: (n, 3) ct mm.
        centroid_ct: (3,) ct mm, what rotations and translations are told apart about.
    """
    has_detector = camera.source_detector_distance_mm is not None
    if found is None:
        inf = float("inf")
        nowhere = (inf, inf, inf)
        return PoseError(inf, inf, inf if has_detector else None, inf, inf, inf, nowhere, nowhere)
    in_plane, depth = in_plane_and_depth_mm(found, true, surface_ct)
    about, along = axis_errors(found, true, centroid_ct)
    return PoseError(
        mtre_landmarks_mm=mtre_mm(found, true, landmarks_ct),
        mtre_surface_mm=mtre_mm(found, true, surface_ct),
        mpd_mm=projected_mtre_mm(found, true, landmarks_ct, camera) if has_detector else None,
        in_plane_mm=in_plane,
        depth_mm=depth,
        rotation_deg=rotation_error_deg(found, true),
        about_deg=(float(about[0]), float(about[1]), float(about[2])),
        along_mm=(float(along[0]), float(along[1]), float(along[2])),
    )


def mtre_mm(found: ArrayLike, true: ArrayLike, points_ct: ArrayLike) -> float:
    """mTRE = mean_k |T X_k - T_true X_k|, mm."""
    return float(np.linalg.norm(_displacement(found, true, points_ct), axis=1).mean())


def projected_mtre_mm(found: ArrayLike, true: ArrayLike, points_ct: ArrayLike, camera: Camera) -> float:
    """Mean distance on the detector, mm, of the projections of all points, in view or not (mPD).

    Infinite where the pose that was found puts a point behind the source.

    Raises:
        InputError: the camera has no source-detector distance, so that pixels have no size.
    """
    spacing = camera.pixel_spacing_mm
    if spacing is None:
        raise InputError("the camera has no source_detector_distance_mm, so a distance on its detector has no mm; give it")
    points = np.asarray(points_ct, dtype=np.float64)
    px_found, px_true = (camera.project(transform_points(np.asarray(pose), points)) for pose in (found, true))
    distances = np.linalg.norm((px_found - px_true) * np.array(spacing), axis=1)
    return float(np.where(np.isnan(distances), np.inf, distances).mean())


def in_plane_and_depth_mm(found: ArrayLike, true: ArrayLike, points_ct: ArrayLike) -> tuple[float, float]:
    """Means over the points of the displacement's parts across and along the camera's z axis, mm.

    One view sees depth five to eight times worse than what is across the beam.
    """
    d = _displacement(found, true, points_ct)
    return float(np.hypot(d[:, 0], d[:, 1]).mean()), float(np.abs(d[:, 2]).mean())


def rotation_error_deg(found: ArrayLike, true: ArrayLike) -> float:
    """Angle between the two rotations, degrees: arccos((tr(R R_true^T) - 1) / 2), stable at 0."""
    a, b = np.asarray(found, dtype=np.float64), np.asarray(true, dtype=np.float64)
    return float(np.degrees(rotation_angle(a[:3, :3], b[:3, :3])))


def axis_errors(found: ArrayLike, true: ArrayLike, centroid_ct: ArrayLike) -> tuple[Array, Array]:
    """((3,) degrees about, (3,) mm along) the camera's x, y, z axes, signed.

    The motion x -> exp(w) (x - c) + c + v that leads from the true pose to the one found, about
    c = T_true centroid (rigid.increment_left): w = log(R R_true^T), v = (T - T_true) centroid.
    """
    a, b = np.asarray(found, dtype=np.float64), np.asarray(true, dtype=np.float64)
    about = np.degrees(rotation_log(a[:3, :3] @ b[:3, :3].T))
    return about, _displacement(a, b, np.asarray(centroid_ct, dtype=np.float64)[None])[0]


def gross_failure_rate(errors: ArrayLike, threshold_mm: float) -> Array:
    """GFR@x of (..., n) errors: the fraction that is not at most ``threshold_mm``; NaN and infinity are failures."""
    values = _errors(errors)
    return np.asarray(1.0 - (values <= threshold_mm).mean(axis=-1))


def success_rate(errors: ArrayLike, threshold_mm: float) -> Array:
    """SR@x of (..., n) errors: the fraction below ``threshold_mm`` (ProST: TRE < 10 mm), of all cases."""
    return np.asarray((_errors(errors) < threshold_mm).mean(axis=-1))


def percentile(errors: ArrayLike, percent: float) -> Array:
    """Percentile of (..., n) errors, linear between order statistics; NaN counts as infinite.

    Between a finite and an infinite one it is infinite, where NumPy's would be NaN.
    """
    if not 0.0 <= percent <= 100.0:
        raise InputError(f"percentile {percent!r} is out of range; allowed is 0 to 100")
    ordered = np.sort(_errors(errors), axis=-1)
    place = percent / 100.0 * (ordered.shape[-1] - 1)
    below = int(np.floor(place + 1e-9))
    weight = place - below
    low = ordered[..., below]
    if weight <= 1e-9:
        return np.asarray(low)
    high = ordered[..., below + 1]
    finite = np.isfinite(high)
    step = np.where(finite, high, 0.0) - np.where(finite, low, 0.0)
    return np.asarray(np.where(finite, low + weight * step, np.inf))


def bootstrap_interval(
    errors: ArrayLike, statistic: Statistic, *, level: float = 0.95, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Confidence interval of a statistic of the n errors: percentiles of it over samples with repeats (Efron 1979).

    Args:
        errors: (n,), infinite where there is no pose.
        statistic: of (..., n) values, such as ``lambda e: percentile(e, 50)``.
        level: what the interval holds, 0 to 1.
        draws: samples of n cases.
        seed: of the draws.

    Raises:
        InputError: no errors, or a level outside of 0 to 1.
    """
    if not 0.0 < level < 1.0:
        raise InputError(f"the level {level!r} of a confidence interval is out of range; allowed is between 0 and 1")
    values = _errors(errors)
    chosen = np.random.default_rng([seed, len(values)]).integers(len(values), size=(draws, len(values)))
    spread = statistic(values[chosen])
    tail = 50.0 * (1.0 - level)
    return float(percentile(spread, tail)), float(percentile(spread, 100.0 - tail))


def _displacement(found: ArrayLike, true: ArrayLike, points_ct: ArrayLike) -> Array:
    """(n, 3) camera mm from where the true pose puts the points to where the found one does."""
    points = np.asarray(points_ct, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise InputError(f"the points have the shape {points.shape}; allowed is (n, 3) ct mm, at least one point")
    moved: Array = transform_points(np.asarray(found), points) - transform_points(np.asarray(true), points)
    return moved


def _errors(errors: ArrayLike | Sequence[float]) -> Array:
    values = np.asarray(errors, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise InputError("there are no errors to sum up; give those of at least one case")
    return np.where(np.isnan(values), np.inf, values)
