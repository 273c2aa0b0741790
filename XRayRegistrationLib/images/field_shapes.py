"""The box or circle that gathers the most votes of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_LARGEST_CIRCLE = 0.75  # radius over the longer side; beyond, it bounds nothing
_ANGLES_DEG = np.r_[-40:0:5, 5:41:5]  # of turned boxes
_SIMPLER = 0.01  # of the votes for the field: less is no reason to turn a box


@dataclass(frozen=True)
class Shape:
    """A box, or a circle; the other one is the whole plane.

    Attributes:
        angle_rad: by which the box is turned, from u to v.
        sides: (a0, a1, b0, b1): a0 <= u cos + v sin <= a1 and b0 <= v cos - u sin <= b1, in pixels.
        circle: (u, v, radius), in pixels.
    """

    angle_rad: float = 0.0
    sides: tuple[float, float, float, float] = (-np.inf, np.inf, -np.inf, np.inf)
    circle: tuple[float, float, float] = (0.0, 0.0, np.inf)

    def depth(self, u: ArrayLike, v: ArrayLike) -> Array:
        """Distance of points from the shape's edge in pixels, positive inside (negative: of the nearest line or circle)."""
        u, v = np.asarray(u, dtype=np.float64), np.asarray(v, dtype=np.float64)
        a, b = _turned(u, v, self.angle_rad)
        a0, a1, b0, b1 = self.sides
        depth = np.minimum(np.minimum(a - a0, a1 - a), np.minimum(b - b0, b1 - b))
        if np.isfinite(self.circle[2]):
            depth = np.minimum(depth, self.circle[2] - np.hypot(u - self.circle[0], v - self.circle[1]))
        return depth

    def depth_of(self, shape: tuple[int, ...]) -> Array:
        """:meth:`depth` of an image's pixels."""
        return self.depth(np.arange(shape[1]), np.arange(shape[0])[:, None])

    def scaled(self, factor: float) -> Shape:
        """The same shape where a pixel has become ``factor`` pixels."""
        corner = 0.5 * (factor - 1.0)
        shift_a, shift_b = (float(shift) for shift in _turned(corner, corner, self.angle_rad))
        a0, a1, b0, b1 = self.sides
        sides = (factor * a0 + shift_a, factor * a1 + shift_a, factor * b0 + shift_b, factor * b1 + shift_b)
        u, v, radius = self.circle
        return Shape(self.angle_rad, sides, (factor * u + corner, factor * v + corner, factor * radius))


def best_shape(votes: NDArray[np.floating]) -> Shape:
    """The box, turned box, or circle with the largest sum of votes."""
    height, width = votes.shape
    turned = max((_best_box(votes, float(a)) for a in np.deg2rad(_ANGLES_DEG)), key=lambda fit: fit[0])
    middle = ((width - 1) / 2, (height - 1) / 2)
    circle = _best_circle(votes, middle, max(height, width) / 20, reach=3)
    for step in (1.5, 0.75):
        circle = _best_circle(votes, circle[1].circle[:2], step)
    best = max(_best_box(votes, 0.0), circle, key=lambda fit: fit[0])
    return turned[1] if turned[0] > best[0] + _SIMPLER * abs(best[0]) else best[1]


def refined_shape(votes: NDArray[np.floating], shape: Shape) -> Shape:
    """The best shape of the same kind near one, of an image with finer pixels."""
    if np.isfinite(shape.circle[2]):
        for step in (2.0, 1.0):
            shape = _best_circle(votes, shape.circle[:2], step)[1]
        return shape
    angles = shape.angle_rad + np.deg2rad([-2.0, -1.0, 0.0, 1.0, 2.0]) if shape.angle_rad else [0.0]
    return max((_best_box(votes, float(a)) for a in angles), key=lambda fit: fit[0])[1]


def _best_box(votes: NDArray[np.floating], angle_rad: float) -> tuple[float, Shape]:
    """Its sum, and the box; its two pairs of sides are found in turn."""
    a, b = _turned(np.arange(votes.shape[1]), np.arange(votes.shape[0])[:, None], angle_rad)
    a, b = (np.broadcast_to(x, votes.shape).ravel() for x in (a, b))
    start_a, start_b = a.min(), b.min()
    a, b = np.rint(a - start_a).astype(np.int32), np.rint(b - start_b).astype(np.int32)
    flat, kept = votes.ravel(), np.ones(votes.size, bool)
    for _ in range(3):
        _, *run_a = _best_run(np.bincount(a[kept], flat[kept], minlength=a.max() + 1))
        kept = (a >= run_a[0]) & (a < run_a[1])
        score, *run_b = _best_run(np.bincount(b[kept], flat[kept], minlength=b.max() + 1))
        kept = (b >= run_b[0]) & (b < run_b[1])
    sides = (*_sides(run_a, start_a, a.max() + 1), *_sides(run_b, start_b, b.max() + 1))
    return score, Shape(angle_rad, sides)


def _best_run(sums: NDArray[Any]) -> tuple[float, int, int]:
    """Largest sum of neighbours, where it begins, and where it has ended."""
    total = np.concatenate([[0.0], np.cumsum(sums)])
    gain = total - np.minimum.accumulate(total)
    end = int(np.argmax(gain))
    return float(gain[end]), int(np.argmin(total[: end + 1])), end


def _sides(run: list[int], start: float, count: int) -> tuple[float, float]:
    """Where a run of pixels begins and ends; nowhere at the image's edge."""
    return (start + run[0] - 0.5 if run[0] > 0 else -np.inf, start + run[1] - 0.5 if run[1] < count else np.inf)


def _best_circle(
    votes: NDArray[np.floating], centre: tuple[float, float], step: float, reach: int = 1
) -> tuple[float, Shape]:
    """Its sum, and the circle, of centres on a grid around one."""
    best: tuple[float, Shape] = (-np.inf, Shape())
    flat, limit = votes.ravel(), int(2 * _LARGEST_CIRCLE * max(votes.shape))
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            u, v = centre[0] + i * step, centre[1] + j * step
            distance = np.hypot(np.arange(votes.shape[1]) - u, np.arange(votes.shape[0])[:, None] - v)
            sums = np.cumsum(np.bincount((2 * distance).astype(np.int32).ravel(), flat))[:limit]
            k = int(np.argmax(sums))
            if sums[k] > best[0]:
                best = (float(sums[k]), Shape(circle=(u, v, (k + 1) / 2)))
    return best


def _turned(u: ArrayLike, v: ArrayLike, angle_rad: float) -> tuple[Array, Array]:
    u, v = np.asarray(u, dtype=np.float64), np.asarray(v, dtype=np.float64)
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return c * u + s * v, c * v - s * u
