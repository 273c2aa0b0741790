"""One X-ray and the CT seen from its pose, brought to a picture's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.drr.render import default_step_mm, render, resolve_backend
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.resize import resize_xray
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.pictures.raster import Gray, Mask, matched, outlines, processed, windowed

_SLOW_BACKEND_SIZE = 320  # the scipy renderer takes a microsecond a sample: render small and enlarge


@dataclass(frozen=True)
class PictureView:
    """What the pictures of one X-ray are made of, all at the picture's size with square pixels.

    Attributes:
        camera: of the picture.
        camera_from_ct: 4x4.
        centre_ct: (3,) ct mm, where the scale bar holds.
        xray, drr: grey values 0..1, bone bright; the DRR's contrast is matched to the X-ray's.
        line_integrals: the DRR itself, unitless.
        mask: which pixels of the X-ray may be believed.
        edges: the bone's outlines in the DRR, where the mask believes the X-ray.
        bone_only: the CT shows bone without the flesh around it.
        landmarks_px: (n, 2) in the picture's pixels, NaN behind the source; landmark_names: n.
    """

    camera: Camera
    camera_from_ct: NDArray[np.float64]
    centre_ct: NDArray[np.float64]
    xray: Gray
    drr: Gray
    line_integrals: NDArray[np.float32]
    mask: Mask
    edges: Mask
    bone_only: bool
    landmarks_px: NDArray[np.float64]
    landmark_names: tuple[str, ...]


def picture_view(
    xray: XRay,
    model: BoneModel,
    camera_from_ct: ArrayLike,
    landmarks_ct: ArrayLike = (),
    landmark_names: Sequence[str] = (),
    *,
    backend: str = "auto",
    longest_side: int = 640,
) -> PictureView:
    """Resize the X-ray, render the CT and its bone from the same place, and find the bone's outlines."""
    pose = np.asarray(camera_from_ct, dtype=np.float64)
    width, height = picture_size(xray.camera, longest_side)
    small = resize_xray(xray, width, height)
    drawn = small.camera
    if resolve_backend(backend) == "scipy" and max(width, height) > _SLOW_BACKEND_SIZE:
        drawn = small.camera.resized(*picture_size(small.camera, _SLOW_BACKEND_SIZE))
    # pictures need no 0.1 %: one sample a voxel is enough
    full, bone = (
        enlarged(render(volume, drawn, pose, backend=backend, step_mm=2 * default_step_mm(volume)), drawn, small.camera)
        for volume in (model.full, model.bone)
    )
    mask = small.mask if small.mask.any() else np.ones_like(small.mask)
    xray_gray = processed(small.line_integrals, mask)
    points = np.asarray(landmarks_ct, dtype=np.float64).reshape(-1, 3)
    return PictureView(
        camera=small.camera,
        camera_from_ct=pose,
        centre_ct=np.asarray(model.centroid, dtype=np.float64),
        xray=xray_gray,
        # a CT of one bone has nothing to match the rest of the X-ray with
        drr=windowed(full) if model.bone_only_ct else matched(processed(full, mask), xray_gray, mask),
        line_integrals=full,
        mask=mask,
        edges=outlines(bone) & mask,
        bone_only=model.bone_only_ct,
        landmarks_px=small.camera.project(transform_points(pose, points)),
        landmark_names=tuple(landmark_names) or tuple(str(i + 1) for i in range(len(points))),
    )


def picture_size(camera: Camera, longest_side: int) -> tuple[int, int]:
    """(width, height) with square pixels and this longest side; small X-rays are enlarged to it."""
    width, height = camera.width / camera.K[0, 0], camera.height / camera.K[1, 1]  # in units of the focal length
    scale = longest_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def enlarged(image: NDArray[np.float32], drawn: Camera, wanted: Camera) -> NDArray[np.float32]:
    """The same image of another size, bilinear; both show the same field of view."""
    if (drawn.width, drawn.height) == (wanted.width, wanted.height):
        return image
    v = (np.arange(wanted.height) + 0.5) * drawn.height / wanted.height - 0.5
    u = (np.arange(wanted.width) + 0.5) * drawn.width / wanted.width - 0.5
    # where it gets smaller, first blur away what the new pixels cannot hold
    shrink = np.array([drawn.height / wanted.height, drawn.width / wanted.width])
    if (shrink > 1).any():
        image = ndimage.gaussian_filter(image, 0.4 * np.maximum(shrink - 1, 0))
    return ndimage.map_coordinates(image, np.meshgrid(v, u, indexing="ij"), order=1, mode="nearest").astype(np.float32)
