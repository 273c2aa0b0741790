"""One resolution of a registration: small X-rays, their masks and features, and a volume to match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.solvers.problem import View

Image = NDArray[np.float32]


@dataclass(frozen=True)
class LevelView:
    """One view at one resolution.

    Attributes:
        volume: coarse enough for this resolution.
        camera: of the reduced image.
        camera_from_rig: 4x4.
        image: (height, width), reduced line integrals, 0 where not valid.
        valid: (height, width) bool, pixels whose 3x3 neighbourhood may be believed.
        step_mm: distance between samples along a ray.
    """

    volume: AttenuationVolume
    camera: Camera
    camera_from_rig: NDArray[np.float64]
    image: Image
    valid: NDArray[np.bool_]
    step_mm: float


def build_level(views: Sequence[View], pixels: int, depth_mm: float, *, fineness: float = 0.7) -> list[LevelView]:
    """Reduce every view to about ``pixels`` on its longer side, and its volume to match.

    Args:
        views: at full resolution.
        pixels: wanted size; images are reduced by whole factors, so no pixel is interpolated.
        depth_mm: distance of the bone from the source, which decides how large a pixel is there.
        fineness: voxel edge of the volume over the size of a pixel at the bone.
    """
    out = []
    for view in views:
        camera = view.xray.camera
        factor = max(1, round(max(camera.width, camera.height) / pixels))
        image, mask, small = reduce_image(view.xray.line_integrals, view.xray.mask, camera, factor)
        pixel_mm = depth_mm / float(small.K[0, 0])
        volume = view.volume.coarser(fineness * pixel_mm)
        valid = ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=0)
        step = max(float(volume.spacing_mm.min()), 0.5 * fineness * pixel_mm)
        out.append(LevelView(volume, small, view.camera_from_rig, image, valid, step))
    return out


def reduce_image(
    image: Image, mask: NDArray[np.bool_], camera: Camera, factor: int
) -> tuple[Image, NDArray[np.bool_], Camera]:
    """Average blocks of ``factor`` x ``factor`` pixels, over valid pixels only.

    A block counts as valid when at least three quarters of it are. Rows and columns beyond a whole
    number of blocks are cut off. Where not valid, the image takes the value of the nearest valid
    block, so that filters make no edge there.
    """
    height, width = (s // factor for s in image.shape)
    cut = np.s_[: height * factor, : width * factor]
    weight = mask[cut].astype(np.float32).reshape(height, factor, width, factor)
    value = np.where(mask, image, 0)[cut].astype(np.float32).reshape(height, factor, width, factor)
    count = weight.sum(axis=(1, 3))
    valid = count >= 0.75 * factor * factor
    mean = value.sum(axis=(1, 3)) / np.maximum(count, 1.0)
    if not valid.all() and valid.any():
        nearest = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
        mean = mean[tuple(nearest)]
    small = camera.cropped(0, 0, width * factor, height * factor).resized(width, height)
    return mean.astype(np.float32), valid, small


def with_volume(level: Sequence[LevelView], volume: AttenuationVolume) -> list[LevelView]:
    """The same images, matched with another volume."""
    return [replace(view, volume=volume) for view in level]
