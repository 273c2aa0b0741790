"""The C-arm of SOPI's paper."""

from __future__ import annotations

from XRayRegistrationLib.geometry.camera import Camera

SDD_MM, SIZE_PX = 1011.7, 256
# The released code's 4 x 0.19959 mm; 256 pixels of the printed 0.2 mm would be a field of 51 mm.
PIXEL_MM = 4 * 0.19959


def perlove_camera() -> Camera:
    """The Perlove PLX118F at 256 x 256 pixels: a field of 204 mm."""
    return Camera.from_spacing(SIZE_PX, SIZE_PX, PIXEL_MM, SDD_MM)
