"""Whether bone is bright or dark in an X-ray, decided from its pixels.

Headers cannot be trusted on this: readers invert MONOCHROME1, consoles invert for display, exports
lose the tag. The pixels tell by three signs, of which only the first is certain.

1. Where the collimator lets no light through, a raw image is at its dark end, and there bone is dark
   too. (A shutter painted over the picture in one value says nothing.)
2. Open air around the patient is flat, bright, and touches the border.
3. Bones are ridges on the slower shades of flesh: thin structures stick out towards bone's end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.masks import Field, fill_masked, reduce_to

POLARITIES = ("auto", "bone_bright", "bone_dark")

_WORKING_PX = 256
_BORDER_PX = 64  # side of the reduced image whose border is looked at
_FLAT = 0.05  # of the value range, over 5 x 5 reduced pixels
_AIR_SHARE = 0.3  # of the border
_RIDGE_SHARES = (0.02, 0.05)  # widths of ridges, over the image's longer side


def decide_polarity(values: NDArray[np.floating], fields: Sequence[Field]) -> tuple[str, str, bool]:
    """``"bone_bright"`` or ``"bone_dark"``; why, in words; and whether that is certain.

    Args:
        values: (height, width), finite.
        fields: of masks.field_candidates.
    """
    shadow = [f for f in fields if f.outside == "dark" and not f.painted]
    if shadow:
        return "bone_dark", "the area outside the field of view is dark", True
    bright, dark = _flat_border(values)
    if bright >= _AIR_SHARE and bright > dark:
        return "bone_dark", "the border is flat and bright, as open air is", False
    if ridge_balance(values, np.ones(values.shape, bool)) < 0:
        return "bone_dark", "thin structures are darker than what surrounds them", False
    return "bone_bright", "thin structures are brighter than what surrounds them", False


def _flat_border(values: NDArray[np.floating]) -> tuple[float, float]:
    """Shares of the border that are flat and in the upper half of the values, and in the lower."""
    small = ndimage.gaussian_filter(reduce_to(values, _BORDER_PX, _BORDER_PX), 1.0)
    low, high = np.percentile(small, [0.5, 99.5])
    scaled = (small - low) / max(float(high - low), 1e-12)
    flat = ndimage.maximum_filter(scaled, 5) - ndimage.minimum_filter(scaled, 5) < _FLAT
    border = np.ones(flat.shape, bool)
    border[4:-4, 4:-4] = False
    upper = scaled > 0.5
    return float((flat & upper)[border].mean()), float((flat & ~upper)[border].mean())


def ridge_balance(values: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Energy of bright ridges less that of dark ones over their sum, -1..1.

    White and black top-hats of a copy whose histogram is flat, so that neither the logarithm nor a
    display's window changes the answer's sign.
    """
    scale = max(1.0, max(values.shape) / _WORKING_PX)
    size = [max(8, round(s / scale)) for s in values.shape]
    inside = reduce_to(mask.astype(np.float32), *size) > 0.99
    if inside.sum() < 64:
        inside[:] = True
    small = reduce_to(fill_masked(values.astype(np.float32), mask), *size)
    order = np.argsort(small, axis=None)
    flat = np.empty(small.size, np.float32)
    flat[order] = np.linspace(0.0, 1.0, small.size, dtype=np.float32)
    flat = ndimage.gaussian_filter(flat.reshape(small.shape), 1.0)
    bright = dark = 0.0
    for share in _RIDGE_SHARES:
        width = max(3, 2 * round(0.5 * share * max(size)) + 1)
        inner = ndimage.binary_erosion(inside, iterations=width // 2, border_value=1)
        bright += float((ndimage.white_tophat(flat, width)[inner] ** 2).sum())
        dark += float((ndimage.black_tophat(flat, width)[inner] ** 2).sum())
    return (bright - dark) / max(bright + dark, 1e-12)


def check_polarity(polarity: str) -> str:
    """``polarity`` when it is one of :data:`POLARITIES`.

    Raises:
        InputError: it is not.
    """
    if polarity not in POLARITIES:
        raise InputError(f"polarity {polarity!r} is unknown; allowed are {', '.join(POLARITIES)}")
    return polarity
