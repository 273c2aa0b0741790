"""How a network sees an X-ray: through a camera of its own, with grey values of mean 0 and deviation 1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.resize import resize_masked
from XRayRegistrationLib.images.xray import XRay

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST = 4.0  # times the side of the images that the network learned from


def standardised(image: Tensor, field: Tensor) -> Tensor:
    """Images (N, H, W) with mean 0 and standard deviation 1 over their fields (N, H, W), and 0 outside."""
    weight = field.to(image.dtype)
    count = weight.sum((-2, -1), keepdim=True).clamp(min=1.0)
    mean = (image * weight).sum((-2, -1), keepdim=True) / count
    centred = (image - mean) * weight
    deviation = (centred.square().sum((-2, -1), keepdim=True) / count).sqrt()
    return centred / deviation.clamp(min=1e-6)


def pixels_from_cells(cells: Any, stride: int) -> Any:
    """Pixels (u, v) of cells (column, row) of a map with a cell for ``stride`` x ``stride`` pixels: s (c + 1/2) - 1/2."""
    return stride * (cells + 0.5) - 0.5


def cells_from_pixels(pixels: Any, stride: int) -> Any:
    """Back from :func:`pixels_from_cells`."""
    return (pixels + 0.5) / stride - 0.5


@dataclass(frozen=True)
class NetworkView:
    """An X-ray as a network gets it.

    Attributes:
        image: (1, 1, H, W), standardised, 0 where there is no X-ray.
        camera: of that image; shares the X-ray's source, so poses are the X-ray's own.
        field: (H, W) where the X-ray may be believed.
    """

    image: Tensor
    camera: Camera
    field: Any


def network_view(xray: XRay, learned: Camera, multiple: int) -> NetworkView:
    """Resample an X-ray to the focal length in pixels that a network learned with, and pad it.

    A homography between cameras at one source is a scaling and a shift, so this is exact for every X-ray: what its
    detector's pixels, size and distance are no longer matters.

    Args:
        learned: the camera that the network was trained with.
        multiple: of which the image's sides are to be.

    Raises:
        InputError: an X-ray that is far larger than what the network learned from.
    """
    import torch

    width = max(1, round(xray.camera.width * learned.K[0, 0] / xray.camera.K[0, 0]))
    height = max(1, round(xray.camera.height * learned.K[1, 1] / xray.camera.K[1, 1]))
    if max(width / learned.width, height / learned.height) > _LARGEST:
        raise InputError(
            f"the X-ray covers {width} x {height} pixels of the network, which learned from {learned.width} x {learned.height}; "
            "check its pixel size and distance, or train with its camera (--camera)"
        )
    values, field = resize_masked(xray.line_integrals, xray.mask, width, height)
    padded_width, padded_height = (-(-n // multiple) * multiple for n in (width, height))
    left, top = (padded_width - width) // 2, (padded_height - height) // 2
    borders = ((top, padded_height - height - top), (left, padded_width - width - left))
    values, field = np.pad(values, borders), np.pad(field, borders)
    camera = xray.camera.resized(width, height).cropped(-left, -top, padded_width, padded_height)
    camera = replace(camera, camera_from_rig=None)
    image = standardised(torch.as_tensor(values)[None], torch.as_tensor(field)[None])[:, None]
    return NetworkView(image, camera, field)


def learned_view(xray: XRay, learned: Camera) -> NetworkView:
    """:func:`network_view` on just the pixels that a network learned with, the beam's foot where it was then.

    For networks that take no other size. What the X-ray shows beyond is left out, what it lacks is 0. The foot is off by
    up to half a pixel, which the camera says.

    Raises:
        InputError: an X-ray that is far larger than what the network learned from.
    """
    import torch

    view = network_view(xray, learned, 1)
    left, top = (round(float(view.camera.K[a, 2] - learned.K[a, 2])) for a in (0, 1))
    image, field = np.zeros((learned.height, learned.width), np.float32), np.zeros((learned.height, learned.width), bool)
    (rows, from_rows), (columns, from_columns) = (
        _overlap(top, learned.height, view.camera.height), _overlap(left, learned.width, view.camera.width)
    )  # fmt: skip
    image[rows, columns] = view.image[0, 0].numpy()[from_rows, from_columns]
    field[rows, columns] = view.field[from_rows, from_columns]
    camera = view.camera.cropped(left, top, learned.width, learned.height)
    return NetworkView(standardised(torch.as_tensor(image)[None], torch.as_tensor(field)[None])[:, None], camera, field)


def _overlap(start: int, length: int, available: int) -> tuple[slice, slice]:
    """Of a window [start, start + length) over [0, available): where in the window, and where in what there is."""
    first, last = max(start, 0), max(min(start + length, available), max(start, 0))
    return slice(first - start, last - start), slice(first, last)
