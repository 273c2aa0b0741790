"""The field of view behind a thick patient, where hardly more light comes through than through the blades.

There the collimator's edge is faint, vanishes in places or turns its sign, and only the statistics of
the whole picture tell: outside of the field all is one level plus noise, inside it is not. So every
block of pixels votes, as in the detection of change points: at z standard deviations from the
outside's level it counts min(z^2, 9) - 2, and the field is the box or circle that gathers the most.

Level and noise are those of the image's corners, of which each convex field leaves one out, and then
those outside of the shape found. Whether it is a field shows at its edge: the change is a step nearly
all around, where air thins out and a patient's outline wanders off from any box or circle.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from XRayRegistrationLib.images.field_shapes import Shape, best_shape, refined_shape

_BLOCK_PX = 4  # squared: what votes
_CORNER_PX = 6  # side of the square at each corner that shows what outside may be
_ALIKE = 4.0  # standard errors by which corners of one level differ at most
_LEAST_NOISE = 1e-3  # of the value range
_OUTSIDE = (0.004, 0.75)  # least and most of the image that may lie outside of the field
_SECTORS = 24  # of the field's edge
_RINGS_PX = ((-4.0, -1.0), (2.0, 5.0), (6.0, 10.0))  # beyond, near and deep: distance inwards from the edge
_SEEN = (4.0, 0.6)  # standard errors by which a sector is seen to change at the edge; least share of such sectors
_STEP = 0.6  # of the change from the outside to deep in the field, that happens at the edge
_BEYOND = 0.15  # of the change at the edge, that is left beyond it
_BLURRED = 0.1  # of the change at the edge: what the penumbra may differ by and yet vote for being outside


def faint_shapes(image: NDArray[np.floating]) -> Iterator[tuple[Shape, float]]:
    """Shapes of fields of view, in pixels, and the level outside of each.

    Args:
        image: (height, width), values from 0 to 1, about 256 pixels wide: the blocks are made for that.
    """
    if min(image.shape) < 8 * _BLOCK_PX:
        return
    for level, noise in _corner_levels(image):
        shape = _shape_against(image, level, noise)
        if shape is not None:
            yield shape, level


def _corner_levels(image: NDArray[np.floating]) -> Iterator[tuple[float, float]]:
    """Mean and standard deviation of each group of corners that are alike."""
    ends = (slice(_CORNER_PX), slice(-_CORNER_PX, None))
    corners = [image[rows, columns].ravel() for rows in ends for columns in ends]
    done = set()
    for corner in corners:
        most = _ALIKE * max(float(corner.std()), _LEAST_NOISE) / _CORNER_PX
        alike = tuple(i for i, other in enumerate(corners) if abs(corner.mean() - other.mean()) < most)
        if alike not in done:
            done.add(alike)
            group = np.concatenate([corners[i] for i in alike])
            yield float(group.mean()), max(float(group.std()), _LEAST_NOISE)


def _shape_against(image: NDArray[np.floating], level: float, noise: float) -> Shape | None:
    """The field when everything outside has this level; None when there is none."""
    rows, columns = (n // _BLOCK_PX for n in image.shape)
    blocks = image[: rows * _BLOCK_PX, : columns * _BLOCK_PX].reshape(rows, _BLOCK_PX, columns, _BLOCK_PX)
    coarse = blocks.mean((1, 3))
    least, noise = _LEAST_NOISE / _BLOCK_PX, noise / _BLOCK_PX
    for _ in range(2):
        shape = best_shape(_votes(coarse, level, noise))
        beyond = coarse[shape.depth_of(coarse.shape) < -1.0]
        if not _OUTSIDE[0] < beyond.size / coarse.size < _OUTSIDE[1]:
            return None
        level = float(np.median(beyond))
        noise = max(1.4826 * float(np.median(np.abs(beyond - level))), least)
    fine = ndimage.uniform_filter(image, 3)
    shape = shape.scaled(_BLOCK_PX)
    depth = shape.depth_of(image.shape)
    noise = max(float(fine[depth < -1.5 * _BLOCK_PX].std()), least)
    rim = (depth > 0) & (depth < 2 * _BLOCK_PX)
    blurred = _BLURRED * float(np.median(np.abs(fine[rim] - level))) if rim.any() else 0.0
    shape = refined_shape(_votes(fine, level, max(noise, blurred)), shape)
    return shape if _has_an_edge(image, shape, level) else None


def _votes(values: NDArray[np.floating], level: float, noise: float) -> NDArray[np.floating]:
    return np.minimum(((values - level) / noise) ** 2, 9.0) - 2.0


def _has_an_edge(image: NDArray[np.floating], shape: Shape, level: float) -> bool:
    """Whether the image leaves the outside's level within a few pixels of the shape's edge, and all around."""
    depth = shape.depth_of(image.shape)
    outside = image[depth < _RINGS_PX[0][1]]
    if not _OUTSIDE[0] < outside.size / image.size < _OUTSIDE[1]:
        return False
    v, u = np.mgrid[: image.shape[0], : image.shape[1]]
    middle_v, middle_u = v[depth > 0].mean(), u[depth > 0].mean()
    sums, counts = [], []
    for first, last in _RINGS_PX:
        ring = (depth > first) & (depth <= last)
        turn = np.arctan2(v[ring] - middle_v, u[ring] - middle_u) / (2 * np.pi) + 0.5
        sector = np.minimum((turn * _SECTORS).astype(np.int32), _SECTORS - 1)
        counts.append(np.bincount(sector, minlength=_SECTORS))
        sums.append(np.bincount(sector, image[ring], minlength=_SECTORS))
    used = np.min(counts, axis=0) > 8
    if not used.any():
        return False
    number = np.array(counts)[:, used]
    beyond, near, deep = np.abs(np.array(sums)[:, used] / number - level)
    error = max(float(outside.std()), _LEAST_NOISE) / np.sqrt(number[1])
    seen = float(np.mean(near > _SEEN[0] * error)) >= _SEEN[1]
    return seen and near.mean() > _STEP * deep.mean() and beyond.mean() < _BEYOND * near.mean()
