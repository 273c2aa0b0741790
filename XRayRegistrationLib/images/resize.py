"""Resampling and cropping an X-ray together with its mask and camera."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.masks import fill_masked
from XRayRegistrationLib.images.weights import resample_weights
from XRayRegistrationLib.images.xray import XRay

_COVERED = 0.5  # a new pixel is valid when at least this much of it was


def resize_xray(xray: XRay, width: int, height: int) -> XRay:
    """Resample to width x height: averages of area where it shrinks, linear where it grows.

    Masked pixels have no weight, so nothing of them bleeds into valid ones; a new pixel is valid
    when at least half of its weight was. The camera follows by u' = (u + 0.5) s - 0.5.

    Raises:
        InputError: a size that is not a whole number of pixels, at least 1.
    """
    camera = xray.camera.resized(_pixels(width, "width"), _pixels(height, "height"))
    values, mask = resize_masked(xray.line_integrals, xray.mask, camera.width, camera.height)
    other = None if xray.alternative is None else resize_xray(xray.alternative, width, height)
    return replace(xray, line_integrals=values, mask=mask, camera=camera, alternative=other)


def crop_xray(xray: XRay, left: int, top: int, width: int, height: int) -> XRay:
    """The sub-image that starts at pixel (left, top).

    Raises:
        InputError: the box reaches over the image's edge.
    """
    h, w = xray.mask.shape
    if left < 0 or top < 0 or left + _pixels(width, "width") > w or top + _pixels(height, "height") > h:
        raise InputError(
            f"the crop of {width} x {height} pixels at ({left}, {top}) reaches over the image of {w} x {h}; "
            "allowed is a box inside it"
        )
    other = None if xray.alternative is None else crop_xray(xray.alternative, left, top, width, height)
    box = np.s_[top : top + height, left : left + width]
    return replace(
        xray,
        line_integrals=xray.line_integrals[box].copy(),
        mask=xray.mask[box].copy(),
        camera=xray.camera.cropped(left, top, width, height),
        alternative=other,
    )


def mirror_xray(xray: XRay) -> XRay:
    """The X-ray mirrored left to right, camera and all, as if it were a picture of its own: in no rig."""
    return replace(
        xray,
        line_integrals=xray.line_integrals[:, ::-1].copy(),
        mask=xray.mask[:, ::-1].copy(),
        camera=replace(xray.camera.mirrored(), camera_from_rig=None),
        alternative=None,
    )


def resize_masked(
    values: NDArray[np.float32], mask: NDArray[np.bool_], width: int, height: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Masked resampling of an image (h, w): sum of weight x mask x value / sum of weight x mask."""
    rows = resample_weights(values.shape[0], height)
    columns = resample_weights(values.shape[1], width).T
    if mask.all():
        return _apply(rows, values, columns), np.ones((height, width), bool)
    weight = _apply(rows, mask.astype(np.float32), columns)
    total = _apply(rows, np.where(mask, values, np.float32(0)), columns)
    valid = weight >= _COVERED
    mean = np.divide(total, weight, out=np.zeros_like(total), where=valid)
    return fill_masked(mean, valid), valid


def _apply(rows: sparse.csr_matrix, image: NDArray[np.float32], columns: sparse.csr_matrix) -> NDArray[np.float32]:
    return np.asarray((rows @ image) @ columns, dtype=np.float32)


def _pixels(value: int, name: str) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise InputError(f"{name} is {value!r}; allowed is a whole number of pixels, at least 1")
    return int(value)
