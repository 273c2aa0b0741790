"""The C-arm that the papers simulate and that the DeepFluoro images were taken with."""

from __future__ import annotations

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera

SDD_MM, DETECTOR_PX, PIXEL_MM = 1020.0, 1536, 0.194
BORDER_PX = 50  # of DeepFluoro's images, where the collimator is; the papers crop it on every side


def cios_camera(size_px: int, border_px: int = 0) -> Camera:
    """The Siemens CIOS Fusion's whole detector (298 mm), or that without a border, at ``size_px`` x ``size_px`` pixels.

    Raises:
        InputError: a size below 16 or above 1536 pixels.
    """
    if not 16 <= size_px <= DETECTOR_PX:
        raise InputError(f"the size {size_px} is out of range; allowed are 16 to {DETECTOR_PX} pixels")
    width_mm = (DETECTOR_PX - 2 * border_px) * PIXEL_MM
    return Camera.from_spacing(size_px, size_px, width_mm / size_px, SDD_MM)
