"""One resolution of a registration: small X-rays, their masks and features, and a volume to match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.solvers.problem import View

Image = NDArray[np.float32]

_LARGEST_MAGNIFICATION = 4.0  # of the wanted pixels, for a small bone in a large X-ray


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
        alone: compare only where the volume projects (solvers.problem.View).
        weight: (height - 2, width - 2), how much each gradient counts, 0..1; None for 1 (solvers.robust).
    """

    volume: AttenuationVolume
    camera: Camera
    camera_from_rig: NDArray[np.float64]
    image: Image
    valid: NDArray[np.bool_]
    step_mm: float
    alone: bool = False
    weight: Image | None = None


def build_level(
    views: Sequence[View],
    pixels: int,
    depth_mm: float,
    *,
    fineness: float = 0.7,
    around: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    at_most: int | None = None,
) -> list[LevelView]:
    """Reduce every view to about ``pixels`` on its longer side, and its volume to match.

    A small bone alone in a large X-ray gets more pixels: as many as if the X-ray showed twice its size.

    Args:
        views: at full resolution.
        pixels: wanted size; images are reduced by whole factors, so no pixel is interpolated.
        depth_mm: distance of the bone from the source, which decides how large a pixel is there.
        fineness: voxel edge of the volume over the size of a pixel at the bone.
        around: (poses (n, 4, 4) rig_from_ct, points (m, 3) ct mm); a volume that stands alone is
            then looked for only where these poses put these points, and a margin.
        at_most: pixels on the longer side, however small the bone.
    """
    out = []
    for view in views:
        camera, whole, believed = view.xray.camera, view.xray.line_integrals, view.xray.mask
        magnified = _magnification(view, depth_mm) if view.alone else 1.0
        wanted = pixels * magnified if at_most is None else min(pixels * magnified, at_most)
        factor = max(1, round(max(camera.width, camera.height) / wanted))
        if view.alone and around is not None:
            left, top, right, bottom = _box(view, *around, factor)
            camera = camera.cropped(left, top, right - left, bottom - top)
            whole, believed = whole[top:bottom, left:right], believed[top:bottom, left:right]
        image, mask, small = reduce_image(whole, believed, camera, factor)
        pixel_mm = depth_mm / float(small.K[0, 0])
        volume = view.volume.coarser(fineness * pixel_mm)
        valid = ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=0)
        step = max(float(volume.spacing_mm.min()), 0.5 * fineness * pixel_mm)
        out.append(LevelView(volume, small, view.camera_from_rig, image, valid, step, view.alone))
    return out


def _magnification(view: View, depth_mm: float) -> float:
    camera = view.xray.camera
    field_mm = max(camera.width, camera.height) * depth_mm / float(camera.K[0, 0])
    size_mm = float(np.prod(view.volume.spacing_mm * view.volume.mu.shape[:-4:-1]) ** (1.0 / 3.0))
    return float(np.clip(field_mm / (2.0 * size_mm), 1.0, _LARGEST_MAGNIFICATION))


def _box(
    view: View, rig_from_ct: NDArray[np.float64], points: NDArray[np.float64], factor: int
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels, whole blocks of ``factor``, never empty."""
    camera = view.xray.camera
    pixels = np.concatenate([camera.project(transform_points(view.camera_from_rig @ p, points)) for p in rig_from_ct])
    pixels = pixels[np.isfinite(pixels).all(axis=1)]
    size = np.array([camera.width, camera.height])
    if len(pixels) == 0:
        return 0, 0, camera.width, camera.height
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    margin = 0.2 * (high - low).max() + 4 * factor
    low = np.clip(np.floor((low - margin) / factor) * factor, 0, None).astype(int)
    high = np.minimum(np.ceil((high + margin) / factor) * factor, size // factor * factor).astype(int)
    if ((high - low) < 8 * factor).any():
        return 0, 0, camera.width, camera.height
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


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

