"""Is this a CT, and of which kind? Looked at before anything is built from it."""

from __future__ import annotations

import numpy as np

from XRayRegistrationLib.drr.volume import AIR_HU
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.images.volume import Volume

_EMPTY_SHARE = 0.3  # of the voxels, at one and the same value, for an empty background
_SAMPLES = 2_000_000


def check_ct(ct: Volume) -> None:
    """Raise if the volume cannot be a CT.

    Raises:
        InputError: not 3D, a single slice, not finite, all one value, values of an 8-bit picture,
            or stored numbers whose rescale intercept was lost.
    """
    name = ct.source or "the CT"
    if ct.values.ndim != 3:
        raise InputError(
            f"{name} has {ct.values.ndim} dimensions {ct.values.shape}; allowed is a CT volume with three; "
            "give the volume, not a picture or a colour image"
        )
    if min(ct.values.shape) < 2:
        nk, nj, ni = ct.values.shape
        raise InputError(
            f"{name} is a single slice ({ni} x {nj} x {nk} voxels); allowed is a volume of at least 2 voxels along "
            "each axis; give the folder of the whole series"
        )
    low, high = float(ct.values.min()), float(ct.values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{name} holds NaN or infinite values; allowed are finite HU; export the CT again")
    if low == high:
        raise InputError(f"{name} has the value {low:g} everywhere; allowed is a CT in HU; check the file")
    if low >= 0 and high <= 255:
        raise InputError(
            f"{name} has values {low:g} to {high:g}, as an 8-bit picture has; allowed is a CT in HU "
            "(air -1000, water 0, bone above 300); export the CT itself, not a picture of it"
        )


def empty_background(ct: Volume) -> float | None:
    """The one value of an empty background that is not air, or None for an ordinary CT.

    A CT that was masked to bone has such a background (often 0, which as HU would be water). It
    is what the corners hold, and at least three voxels in ten. Air (below -900 HU) is none: a CT
    masked to air reads as an ordinary one.

    Raises:
        InputError: the rest looks like a body stored without its rescale intercept.
    """
    values = ct.values
    corners = values[np.ix_(*[(0, -1)] * 3)].ravel()
    candidates, counts = np.unique(corners, return_counts=True)
    background = float(candidates[np.argmax(counts)])
    if background < AIR_HU:
        return None
    step = max(1, int((values.size / _SAMPLES) ** (1 / 3)))
    sample = values[::step, ::step, ::step].ravel()
    other = sample[sample != background]
    if other.size > (1.0 - _EMPTY_SHARE) * sample.size:
        return None
    # flesh is 900..1100 in numbers stored with an intercept of -1000 or -1024, and most of a body is flesh
    if background >= 0 and other.size and np.mean((other > 850) & (other < 1150)) > 0.6:
        raise InputError(
            f"{ct.source or 'the CT'} has a background of {background:g} and most other values around 1000, as stored "
            "numbers without their rescale intercept; allowed are HU; add the intercept (often -1024) and save again"
        )
    return background


def in_hounsfield(ct: Volume, background: float) -> bool:
    """Whether a bone-only CT is in HU rather than in arbitrary units proportional to attenuation.

    Whole bones have a median of 100 to 700 HU (marrow included); a median above 900, with nothing
    below the background, is another unit, such as 12-bit numbers in which water is about 1000.
    """
    bone = ct.values[ct.values != background]
    return bool(bone.min() < background or np.median(bone) < 900)
