"""Baseline ``dflnet``: landmarks by heatmaps, as the paper on scene coordinates compares with (MICCAI 2023, Table 1).

It is DFLNet without its segmentation and without the refinement that followed it; of ``fixed_landmarks``, another recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from XRayRegistrationLib.errors import MissingDependencyError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.cios import cios_camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, rotation_exp, transform_points
from XRayRegistrationLib.methods.base import Array
from XRayRegistrationLib.methods.fixed_landmarks import FixedLandmarks, Recipe

if TYPE_CHECKING:
    from XRayRegistrationLib.solvers.pnp import PnpPose

_COUNT = 14
_ITERATIONS, _CONFIDENCE = 1000, 0.99
_CAMERA = cios_camera(512)
_RECIPE = Recipe("scr", "heatmaps", 2.5, "none", 0.8, solver="iterative", threshold_px=20.0, subpixel=False, optimizer="adam")
_LIGHT = Recipe("light", "heatmaps", 1.5, "none", 0.8)


@dataclass(frozen=True)
class DflNetOptions:
    """Options of method ``dflnet``.

    Attributes:
        paper_mode: as published: 31 million parameters, 512 x 512 pixels, whole pixels, OpenCV's RANSAC.
        weights: of an earlier training; None looks for those of the CT at hand.
        search_on_failure: search without the network where nothing that it proposes verifies.
        poses: what is trained on, a name in simulation.pose_samplers.POSE_SAMPLERS.
        landmarks: a Slicer markups file with the landmarks of the CT at hand, for weights of other CTs.
    """

    paper_mode: bool = False
    weights: str | None = None
    search_on_failure: bool = True
    poses: str = "scr"
    landmarks: str | None = None


class DflNetBaseline(FixedLandmarks):
    """DFLNet as Shrestha et al. (MICCAI 2023) have it."""

    name: ClassVar[str] = "dflnet"
    summary: ClassVar[str] = "baseline of scene_coordinates: 14 landmarks by heatmaps; trained on each CT"
    reference: ClassVar[str] = "Grupp et al., IPCAI 2020, as in Shrestha et al., MICCAI 2023"
    options_type: ClassVar[type] = DflNetOptions

    def recipe(self, paper_mode: bool) -> tuple[Recipe, Camera | None]:
        """See ``fixed_landmarks``."""
        return (_RECIPE, _CAMERA) if paper_mode else (_LIGHT, None)

    def landmark_count(self, options: Any) -> int:
        """As many as DeepFluoro has."""
        return _COUNT


def iterative_pnp(points_ct: Array, pixels: Array, camera: Camera, threshold_px: float, seed: int) -> PnpPose:
    """OpenCV's RANSAC with 1000 samples of 5 points and Levenberg-Marquardt on the inliers, as published.

    Its cost is the share of outliers; its covariance is not known and infinite.

    Raises:
        PnpFailure: it finds nothing, or a pose behind the source.
        MissingDependencyError: OpenCV is not installed.
    """
    from XRayRegistrationLib.solvers.pnp import PnpFailure, PnpPose

    try:
        import cv2
    except ModuleNotFoundError as error:
        raise MissingDependencyError("opencv-python-headless", "the published PnP", "opencv") from error
    cv2.setRNGSeed(seed)
    try:
        found, turn, at, inliers = cv2.solvePnPRansac(
            points_ct, pixels, camera.K, None, iterationsCount=_ITERATIONS, reprojectionError=threshold_px,
            confidence=_CONFIDENCE, flags=cv2.SOLVEPNP_ITERATIVE,
        )  # fmt: skip
    except cv2.error as error:
        raise PnpFailure(f"OpenCV's PnP fails on {len(pixels)} landmarks: {str(error).splitlines()[-1].strip()}") from error
    if not found or inliers is None:
        raise PnpFailure(f"no pose explains more than three of the {len(pixels)} landmarks")
    pose = from_rotation_translation(rotation_exp(turn[:, 0]), at[:, 0])
    kept = np.zeros(len(pixels), bool)
    kept[inliers[:, 0]] = True
    off = np.linalg.norm(camera.project(transform_points(pose, points_ct)) - pixels, axis=1)
    if not np.isfinite(off[kept]).all():
        raise PnpFailure("the pose that RANSAC finds puts landmarks behind the source")
    message = f"{int(kept.sum())} of {len(kept)} pairs fit"
    rms = float(np.sqrt((off[kept] ** 2).mean()))
    return PnpPose(pose, kept, 1.0 - float(kept.mean()), np.full((6, 6), np.inf), rms, message)
