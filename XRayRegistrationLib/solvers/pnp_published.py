"""PnP as the papers call it: OpenCV's RANSAC with their settings, for what is compared with them. Ours is in ``pnp``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.errors import MissingDependencyError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, rotation_exp, transform_points
from XRayRegistrationLib.solvers.pnp import PnpFailure, PnpPose
from XRayRegistrationLib.solvers.pnp_pairs import LEAST_POINTS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PublishedPnp:
    """Arguments of OpenCV's ``solvePnPRansac``.

    Attributes:
        sampling: "iterative", 5 points a sample and Levenberg-Marquardt on the inliers, or "magsac".
        iterations: samples at most. confidence: that one of them has no outlier.
    """

    sampling: Literal["iterative", "magsac"]
    iterations: int
    confidence: float


#: Shrestha et al., MICCAI 2023, of scene coordinates and of their DFLNet; Shrestha et al., ACCV 2024.
SCR2023 = PublishedPnp("iterative", 1000, 0.99)
RAYEMB2024 = PublishedPnp("magsac", 10_000, 0.9999)


def pnp_as_published(
    points_ct: Array, pixels: Array, camera: Camera, threshold_px: float, published: PublishedPnp, seed: int
) -> PnpPose:
    """The pose of points (n, 3) mm that are seen at pixels (n, 2).

    Its cost is the share of outliers; its covariance is not known and infinite.

    Args:
        threshold_px: of an inlier.

    Raises:
        PnpFailure: too few points, no pose, or one behind the source.
        MissingDependencyError: OpenCV is not installed.
    """
    if len(pixels) < LEAST_POINTS:
        raise PnpFailure(f"{len(pixels)} points are too few for a pose; at least {LEAST_POINTS} are needed")
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise MissingDependencyError("opencv-python-headless", "the published PnP", "opencv") from error
    flags = {"iterative": cv2.SOLVEPNP_ITERATIVE, "magsac": cv2.USAC_MAGSAC}[published.sampling]
    cv2.setRNGSeed(seed)
    try:
        found, turn, at, inliers = cv2.solvePnPRansac(
            points_ct, pixels, camera.K, None, iterationsCount=published.iterations, reprojectionError=threshold_px,
            confidence=published.confidence, flags=flags,
        )  # fmt: skip
    except cv2.error as error:
        raise PnpFailure(f"OpenCV's PnP fails on {len(pixels)} points: {str(error).splitlines()[-1].strip()}") from error
    if not found or inliers is None:
        raise PnpFailure(f"no pose explains more than three of the {len(pixels)} pairs")
    pose = from_rotation_translation(rotation_exp(turn[:, 0]), at[:, 0])
    kept = np.zeros(len(pixels), bool)
    kept[inliers[:, 0]] = True
    off = np.linalg.norm(camera.project(transform_points(pose, points_ct)) - pixels, axis=1)
    if not np.isfinite(off[kept]).all():
        raise PnpFailure("the pose that RANSAC finds puts points behind the source")
    message = f"{int(kept.sum())} of {len(kept)} pairs fit"
    rms = float(np.sqrt((off[kept] ** 2).mean()))
    return PnpPose(pose, kept, 1.0 - float(kept.mean()), np.full((6, 6), np.inf), rms, message)
