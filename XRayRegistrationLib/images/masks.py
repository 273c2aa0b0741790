"""Which pixels of an X-ray may be believed: inside the collimator and the image intensifier, not saturated.

A field of view is convex, bounded by straight blades, the eight leaves of an iris, a circle, or blades
and a circle; what other outlines or noise hide, a network finds (``field_choice``). Outside of it the
image is flat, at the dark end of a raw image or at either end of a processed one, and the change is a
step. That tells it from open air around a patient, which is neither of such a shape nor bounded by a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from XRayRegistrationLib.images.weights import resample_weights

_WORKING_PX = 256  # longer side of the reduced image that the field is searched in
_LEVELS = (0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.1, 0.15, 0.22, 0.3)  # of the value range, above its end
_OUTSIDE = (0.004, 0.75)  # least and most of the image that may lie outside of the field
_FILLED = 0.93  # of the field, that is not as flat as the outside
_LARGEST_CIRCLE = 0.75  # radius over the longer side; beyond, it bounds nothing
# Overlap with the best shape; a patient's outline comes nearer to an octagon than to the others.
_SHAPE = {"box": 0.955, "circle": 0.955, "octagon": 0.975}
# Of a field's shape: below, a head or a crop box against air looks alike; above, too little of its outline is seen.
_SURE_FIT = (0.9875, 1.02)
_RISE = 0.02  # of the value range: the least change at the edge
_FLAT = 0.35  # spread of the outside over the change at its edge
_PAINTED = 0.99  # of the outside's pixels, that have one value
_STEP = {"box": 0.75, "circle": 0.5, "octagon": 0.75}  # of the change, that happens within two reduced pixels of the edge
_EQUAL = 0.02  # difference of scores that means nothing
_MARGIN_PX = 1.5  # penumbra, in reduced pixels
_PLATEAU = 8.0  # a histogram's last level this many times its neighbours is saturation
_FEW_PIXELS = 2e-4  # of the field: fewer saturated pixels are chance
_MOST_SATURATED = 0.3  # more is the picture's style, not a fault


@dataclass(frozen=True)
class Field:
    """The field of view found in an image.

    Attributes:
        mask: (height, width) bool, True inside.
        outside: ``"dark"`` or ``"bright"``, how the image is outside; ``""`` where it is neither, as behind blades in a
            picture whose contrast was made even.
        painted: the outside has exactly one value, as a shutter drawn into the picture has.
        fit: overlap (intersection over union) of the field's shape with a box, an octagon or a circle; 0 where it was
            read; above 1 where the outline is seen on few sides only.
    """

    mask: NDArray[np.bool_]
    outside: str = ""
    painted: bool = False
    fit: float = 0.0


def field_candidates(values: NDArray[np.floating]) -> list[Field]:
    """Fields of view that collimator blades, a round image intensifier or a painted shutter may have left.

    At most one for a dark and one for a bright outside. Which to believe depends on the polarity:
    blades let the least light through, so theirs is the end of the value range where the bone is.

    Args:
        values: (height, width), either polarity, finite.
    """
    height, width = values.shape
    factor = max(1.0, max(height, width) / _WORKING_PX)
    small = reduce_to(values, max(1, round(height / factor)), max(1, round(width / factor)))
    low, high = (float(x) for x in np.percentile(small, [0.02, 99.98]))
    if min(small.shape) < 16 or high <= low:
        return []
    smooth = (ndimage.median_filter(small, 3) - low) / (high - low)
    scale = np.array([small.shape[1] / width, small.shape[0] / height])
    u = (np.arange(width) + 0.5) * scale[0] - 0.5
    v = (np.arange(height) + 0.5) * scale[1] - 0.5
    found = []
    for outside, scaled in (("dark", smooth), ("bright", 1.0 - smooth)):
        fits = [found for found in (_field_at(scaled, level) for level in _LEVELS) if found is not None]
        if not fits:
            continue
        end = values.min() if outside == "dark" else values.max()
        best = max(score for score, _, _ in fits)
        good = [fit for fit in fits if fit[0] > best - _EQUAL]
        # The lowest level shows whether the outside has one value; the highest lies farthest in from the penumbra.
        beyond = values[~_inside(good[0][2], u, v, small.shape, margin=-_MARGIN_PX)]
        painted = bool(beyond.size and np.mean(beyond == end) > _PAINTED)
        _, fit, planes = good[0 if painted else -1]
        found.append(Field(_inside(planes, u, v, small.shape), outside, painted, fit))
    return found


def convex_field(inside: NDArray[np.bool_], shape: tuple[int, ...], margin_px: float) -> NDArray[np.bool_] | None:
    """The convex hull of what is ``inside`` of a reduced image, less a margin in its pixels, at the full size ``shape``.

    None where it has no area.
    """
    v, u = np.nonzero(inside ^ ndimage.binary_erosion(inside))
    try:
        hull = ConvexHull(np.stack([u, v], axis=1).astype(np.float64))
    except (QhullError, ValueError):  # no point, or all of them on one line
        return None
    u_all, v_all = ((np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(shape[::-1], inside.shape[::-1], strict=True))
    return _inside(hull.equations, u_all, v_all, inside.shape, margin=margin_px)


def saturated(values: NDArray[np.floating], field: NDArray[np.bool_], dense_end: str) -> NDArray[np.bool_]:
    """Pixels clipped at the end where the dense bone is (``"dark"`` or ``"bright"``): there the value is only a bound.

    A clipped open beam is left alone: it says "nothing here", which is true and keeps bone out of it. So are single
    pixels that noise drove to the end: they are off by no more than the noise, and bone full of such holes has no edges.
    """
    inside = values[field]
    if inside.size == 0:
        return np.zeros(values.shape, bool)
    end = float(inside.min() if dense_end == "dark" else inside.max())
    clipped = values == end
    count = np.count_nonzero(clipped & field)
    levels, counts = np.unique(inside, return_counts=True)
    near = counts[1:9] if dense_end == "dark" else counts[-9:-1]
    plateau = len(levels) > 8 and count > _PLATEAU * max(1.0, float(near.mean()))
    if not plateau or not _FEW_PIXELS < count / inside.size < _MOST_SATURATED:
        return np.zeros(values.shape, bool)
    clipped &= field
    areas = ndimage.binary_erosion(clipped, np.ones((3, 3)), border_value=1)
    return clipped & ndimage.binary_dilation(areas, np.ones((3, 3)), iterations=2)


def fill_masked(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Replace masked pixels by a smooth continuation of the valid ones.

    Filters that do not know the mask then see no edge at its border. Coarser and coarser averages
    of the valid pixels, 2 x 2 at a time, fill what the finer ones leave open.
    """
    if mask.all() or not mask.any():
        return np.where(mask, values, np.float32(0))
    height, width = values.shape
    if max(height, width) == 1:
        return values
    small = (-(-height // 2), -(-width // 2))
    padding = ((0, 2 * small[0] - height), (0, 2 * small[1] - width))
    weight = np.pad(mask, padding).reshape(small[0], 2, small[1], 2).sum((1, 3), dtype=np.float32)
    total = np.pad(np.where(mask, values, np.float32(0)), padding).reshape(small[0], 2, small[1], 2).sum((1, 3))
    mean = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    coarse = fill_masked(mean, weight > 0)
    grown = (resample_weights(small[0], 2 * small[0]) @ coarse) @ resample_weights(small[1], 2 * small[1]).T
    return np.where(mask, values, np.asarray(grown[:height, :width], dtype=np.float32))


def reduce_to(values: NDArray[np.floating], height: int, width: int) -> NDArray[np.float32]:
    """At the size (height, width): averages of area where it shrinks, linear where it grows."""
    rows, columns = resample_weights(values.shape[0], height), resample_weights(values.shape[1], width)
    return np.asarray((rows @ values.astype(np.float32)) @ columns.T, dtype=np.float32)


def is_sure(fit: float) -> bool:
    """Whether a field with this fit is one for certain."""
    return _SURE_FIT[0] <= fit <= _SURE_FIT[1]


def _field_at(scaled: NDArray[np.floating], level: float) -> tuple[float, float, NDArray[np.float64]] | None:
    """The field when everything below ``level`` that touches the border is outside: (score, fit, half-planes)."""
    if scaled[[0, 0, -1, -1], [0, -1, 0, -1]].min() >= level:  # a convex field leaves a corner out, if anything
        return None
    dark, _ = ndimage.label(scaled < level)
    touching = np.unique(np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]]))
    outside = np.isin(dark, touching[touching > 0])
    inside = ndimage.binary_opening(np.pad(~outside, 4, mode="edge"), iterations=2)[4:-4, 4:-4]
    parts, count = ndimage.label(inside)
    if count == 0:
        return None
    inside = parts == 1 + int(np.argmax(ndimage.sum_labels(inside, parts, np.arange(1, count + 1))))
    v, u = np.nonzero(inside ^ ndimage.binary_erosion(inside))
    try:
        hull = ConvexHull(np.stack([u, v], axis=1).astype(np.float64))
    except QhullError:
        return None
    v_all, u_all = (np.arange(n, dtype=np.float64) for n in scaled.shape)
    field = _inside(hull.equations, u_all, v_all, scaled.shape, margin=0.0)
    left_out = 1.0 - float(field.mean())
    filled = float((inside & field).sum() / max(1, field.sum()))
    if not _OUTSIDE[0] < left_out < _OUTSIDE[1] or filled < _FILLED:
        return None
    step = _step(scaled, field)
    good = [fit for kind, fit in _shape_fits(field).items() if fit >= _SHAPE[kind] and step >= _STEP[kind]]
    if not good:
        return None
    return filled + max(good) + min(step, 1.0), max(good), np.asarray(hull.equations, dtype=np.float64)


def _inside(
    planes: NDArray[np.float64],
    u: NDArray[np.floating],
    v: NDArray[np.floating],
    shape: tuple[int, ...],
    margin: float = _MARGIN_PX,
) -> NDArray[np.bool_]:
    """Pixels within all half-planes a u + b v + c <= 0 by a margin, which does not count along the image's edge."""
    mask = np.ones((len(v), len(u)), bool)
    for a, b, c in planes:
        on_edge = max(a * e + b * f + c for e in (0, shape[1] - 1) for f in (0, shape[0] - 1)) < 0.5
        mask &= a * u[None, :] + b * v[:, None] + c <= (0.5 if on_edge else -margin)
    return mask


def _shape_fits(field: NDArray[np.bool_]) -> dict[str, float]:
    """Overlap (intersection over union) with the best box or octagon, upright or turned, and circle cut by the upright box."""
    v, u = np.nonzero(field)
    v0, v1, u0, u1 = v.min(), v.max(), u.min(), u.max()
    box = (v1 - v0 + 1) * (u1 - u0 + 1)
    fits = {"box": len(u) / float(box), "circle": 0.0, "octagon": 0.0}
    edge = field ^ ndimage.binary_erosion(field, border_value=1)
    ev, eu = np.nonzero(edge)
    points = np.stack([eu, ev], axis=1).astype(np.float64)
    angles = np.deg2rad(np.arange(0.5, 90, 0.5))
    along, across = np.array([[np.cos(angles), np.sin(angles)], [-np.sin(angles), np.cos(angles)]])
    if len(points) > 2:
        boxes = (np.ptp(points @ along, axis=0) + 1) * (np.ptp(points @ across, axis=0) + 1)
        fits["box"] = max(fits["box"], len(u) / float(boxes.min()))
        octagons = boxes - _corners(points @ along, points @ across)
        reaches = sum(int(a.any()) for a in (field[0], field[-1], field[:, 0], field[:, -1]))
        if reaches <= 2 and (octagons > 0.98 * len(u)).all():  # an iris is seen all around, or it is no evidence
            fits["octagon"] = len(u) / float(octagons.min())
    rim = (ev > v0 + 2) & (ev < v1 - 2) & (eu > u0 + 2) & (eu < u1 - 2)
    if np.count_nonzero(rim) >= 12:
        a = np.stack([eu[rim], ev[rim], np.ones(np.count_nonzero(rim))], axis=1).astype(np.float64)
        x, y, c = np.linalg.lstsq(a, (a[:, :2] ** 2).sum(1), rcond=None)[0]  # (Kasa) 2 cx u + 2 cy v + c = u^2 + v^2
        vv, uu = np.mgrid[v0 : v1 + 1, u0 : u1 + 1]
        disk = (uu - x / 2) ** 2 + (vv - y / 2) ** 2 <= c + (x / 2) ** 2 + (y / 2) ** 2
        inside = field[v0 : v1 + 1, u0 : u1 + 1]
        radius = np.sqrt(max(0.0, c + (x / 2) ** 2 + (y / 2) ** 2))
        if radius < _LARGEST_CIRCLE * max(field.shape) and 0 <= x / 2 < field.shape[1] and 0 <= y / 2 < field.shape[0]:
            fits["circle"] = float((disk & inside).sum() / (disk | inside).sum())
    return fits


def _corners(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Area that sides at 45 degrees to a box's take off its corners; a, b (n, k): the points' coordinates in k boxes."""
    total = np.zeros(a.shape[1])
    for x, y in ((a, b), (a, -b), (-a, b), (-a, -b)):
        # how far the corner lies beyond the farthest point that way; half a pixel more on each side, as in the box
        beyond = (x.max(0) + y.max(0) + 1.0 - (x + y).max(0)) / np.sqrt(2.0) - 0.5
        total += np.maximum(beyond, 0.0) ** 2
    return total


def _step(scaled: NDArray[np.floating], field: NDArray[np.bool_]) -> float:
    """Mean change within two pixels of the field's edge over that within six; 0 when the outside is not flat."""
    inner = ndimage.distance_transform_edt(np.pad(field, 1, constant_values=True))[1:-1, 1:-1]
    outer = ndimage.distance_transform_edt(~field)
    far = outer > 2.5
    deep, near = (inner > 5) & (inner <= 7), (inner > 1) & (inner <= 2.5)
    beyond = (outer > 1) & (outer <= 2.5)
    if not (deep.any() and near.any() and beyond.any()):
        return 0.0
    base = float(scaled[beyond].mean())
    rise = float(scaled[deep].mean()) - base
    spread = float(np.ptp(np.percentile(scaled[far], [10, 90]))) if far.any() else 0.0
    return (float(scaled[near].mean()) - base) / rise if rise > _RISE and spread < _FLAT * rise else 0.0
