"""Which field of view to believe: an outline that the eye for shapes found, or what the network reads off the picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from XRayRegistrationLib.images.masks import Field, convex_field, field_candidates, is_sure, reduce_to
from XRayRegistrationLib.images.picture_reading import VALUE_ENDS, PictureReading

_CLOSED, _PAINTED = 0.5, 0.4  # probabilities
_END = 0.1  # of the value range; what is further from both ends is neither dark nor bright
_CONVINCED = 0.86  # mean probability outside of a field: 0.92 to 0.98 of most that are there, at most 0.85 of others
_LEAST_CLOSED = 0.004  # of the picture; less is no field's border
_ALIKE = 0.03  # of the picture: outlines that differ by less are the same
_READ_MARGIN_PX = -0.5  # of what the network saw; it learned to stay off the penumbra itself
_MOST_PAINTED = 0.5  # of the field; more is the picture's style, not boxes over it
_PAINTED_MARGIN_PX = 1
_BLANK = 0.5  # of a painted piece that was read has one value: 0.63 and more of those that are there, at most 0.4 of others
_SAME = 0.002  # of the value range
_MOST_GROWN = 3.0  # times the area that was read
_AIR = 0.02  # of the value range, next to its end


def choose_fields(values: NDArray[np.floating], reading: PictureReading) -> list[Field]:
    """Fields of view to be believed, at most one for a dark and one for a bright outside.

    An outline that is a box, a circle or an octagon for certain, or a shutter's, needs no second opinion, and is sharper
    than what was read. Any other is believed where the reading says the same; else the reading itself is.

    Args:
        values: (height, width), either polarity, finite.
    """
    found = field_candidates(values)
    if any(field.painted or is_sure(field.fit) for field in found):
        return found
    read = _read_field(values, reading)
    if read is None:
        return []
    alike = [field for field in found if (field.mask ^ read.mask).mean() < _ALIKE]
    return alike or [read]


def painted_over(
    values: NDArray[np.floating], reading: PictureReading, field: NDArray[np.bool_], dense_end: str
) -> NDArray[np.bool_]:
    """(height, width) where blank boxes or labels lie over the field; nowhere if that would be most of it.

    What was read is coarse, what was painted has one value: a piece counts where most of it has, and its pixels are those of
    that value. Pixels at the air's end of the values are left alone: an open beam that the detector or a window clips is as
    flat as a blank box, and says "nothing here", which is true.

    Args:
        values: (height, width).
        dense_end: ``"dark"`` or ``"bright"``, where dense bone is.
    """
    read = ndimage.binary_dilation(reading.painted > _PAINTED, np.ones((3, 3)), iterations=_PAINTED_MARGIN_PX)
    low, high = np.percentile(values, VALUE_ENDS)
    level = (values - low) / max(high - low, 1e-12)
    into = 1.0 - level if dense_end == "dark" else level
    found = field & (into > _AIR) & _blank(level, field & (reduce_to(read, *field.shape) > 0.5))
    return found if found.sum() <= _MOST_PAINTED * field.sum() else np.zeros_like(found)


def _blank(level: NDArray[np.floating], read: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of each piece that was read, the pixels of its one value, all that are connected to them, and what they enclose of it."""
    out = np.zeros_like(read)
    pieces, count = ndimage.label(read)
    for number, place in enumerate(ndimage.find_objects(pieces, count), 1):
        inside = pieces[place] == number
        value = np.median(level[place][inside])
        if (abs(level[place][inside] - value) <= _SAME).mean() < _BLANK:
            continue
        piece, same = pieces == number, abs(level - value) <= _SAME
        whole = ndimage.binary_propagation(same & piece, mask=same)
        if whole.sum() > _MOST_GROWN * piece.sum():  # it runs out into something else of this value
            whole &= piece
        out |= whole | (piece & ndimage.binary_fill_holes(whole))
    return ndimage.binary_dilation(out, np.ones((3, 3)))  # its edge, where the picture was made smaller


def _read_field(values: NDArray[np.floating], reading: PictureReading) -> Field | None:
    """What the network takes for the field, made convex as every field is; None where nothing is closed."""
    opened = ndimage.binary_opening(np.pad(reading.closed < _CLOSED, 2, mode="edge"))[2:-2, 2:-2]
    parts, count = ndimage.label(opened)
    if count == 0:
        return None
    opened = parts == 1 + int(np.argmax(ndimage.sum_labels(opened, parts, np.arange(1, count + 1))))
    hull = convex_field(opened, opened.shape, 0.0)
    if hull is None or hull.all() or reading.closed[~hull].mean() < _CONVINCED:
        return None
    mask = convex_field(opened, values.shape, _READ_MARGIN_PX)
    if mask is None or 1.0 - mask.mean() < _LEAST_CLOSED:
        return None
    low, high = np.percentile(values, VALUE_ENDS)
    level = (float(np.median(values[~mask])) - low) / max(high - low, 1e-12)
    return Field(mask, "dark" if level < _END else "bright" if level > 1.0 - _END else "")
