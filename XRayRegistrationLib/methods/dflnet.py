"""Baseline ``dflnet``: landmarks by heatmaps, as the paper on scene coordinates compares with (MICCAI 2023, Table 1).

It is DFLNet without its segmentation and without the refinement that followed it; of ``fixed_landmarks``, another recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.cios import cios_camera
from XRayRegistrationLib.methods.fixed_landmarks import FixedLandmarks, Recipe

_COUNT = 14
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
