"""The tone curve between a line integral and what a detector made of it.

Beam hardening, scatter, and a display's window bend an X-ray's grey values. Most of that is one
smooth rising curve phi of the line integral m: scatter of constant strength s gives exactly
-log(exp(-m) + s). Left alone it moves edges that lie on a slope, which shows as a depth error of a
millimetre or two. So the rendered image is bent by the curve that fits best before it is compared.

The curve's slope is linear between knots and nowhere negative (behind metal it is 0: no light came
through). The fit is of gradients, as the cost is, so slowly varying offsets do not matter:
minimise sum w |grad x - phi'(m) grad m|^2 over the slopes at the knots, by non-negative least squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from XRayRegistrationLib.solvers.gradient_residual import gradient

Image = NDArray[np.float32]

KNOTS = 7
SAMPLES = 2000  # about so many pixels decide where the knots lie
LEAST_SHOWN = 50  # pixels that show anything; with fewer the image is left as it is


@dataclass(frozen=True)
class ToneCurve:
    """A rising curve: ``slope`` (k,) at the line integrals ``knots`` (k,), linear between, constant beyond."""

    knots: NDArray[np.float64]
    slope: NDArray[np.float64]

    def __call__(self, moving: Image) -> tuple[Image, Image]:
        """phi(m) and phi'(m) of an image."""
        cell, t = _place(moving, self.knots)
        width = np.diff(self.knots)
        rise = np.diff(self.slope)
        start = np.concatenate([[0.0], np.cumsum(width * (self.slope[1:] + self.slope[:-1]) / 2)])[:-1]
        start_at, width_of, low, rise_of = (a.astype(np.float32)[cell] for a in (start, width, self.slope[:-1], rise))
        inside = np.clip(t, 0.0, 1.0)
        slope = low + inside * rise_of
        value = start_at + width_of * inside * (low + 0.5 * inside * rise_of)
        value += width_of * (t - inside) * slope  # straight on beyond the last knot
        return value, slope


def fit_tone_curve(moving: Image, fixed_gradient: Image, weight: Image, knots: int = KNOTS) -> ToneCurve:
    """The best rising curve from ``moving`` to the X-ray.

    Args:
        moving: (h, w) rendered line integrals m.
        fixed_gradient: (2, h - 2, w - 2), of the X-ray.
        weight: (h - 2, w - 2), 0 where a pixel is not to count.
        knots: their number, at equal shares of the pixels that show anything.
    """
    m = moving[1:-1, 1:-1]
    shown = m[(weight > 0) & (m > 0)]
    if shown.size < LEAST_SHOWN:
        return ToneCurve(np.array([0.0, 1.0]), np.ones(2))
    at = np.quantile(shown[:: max(1, shown.size // SAMPLES)].astype(np.float64), np.linspace(0.0, 1.0, knots))
    at = np.maximum.accumulate(at + np.arange(knots) * 1e-4 * max(at[-1], 1e-6))
    g = gradient(moving)
    a = ((g[0] ** 2 + g[1] ** 2) * weight).ravel()
    b = ((g[0] * fixed_gradient[0] + g[1] * fixed_gradient[1]) * weight).ravel()
    cell, t = _place(m.ravel(), at)
    t = np.clip(t, 0.0, 1.0)
    upper, lower = a * t, a * (1 - t)

    def at_knot(low: Image, high: Image) -> NDArray[Any]:
        return np.bincount(cell, low, knots) + np.bincount(cell + 1, high, knots)

    normal = np.diag(at_knot(lower * (1 - t), upper * t))
    cross = np.bincount(cell, upper * (1 - t), knots)[:-1]
    normal += np.diag(cross, 1) + np.diag(cross, -1)
    rhs = at_knot(b * (1 - t), b * t)
    return ToneCurve(at, rising_slopes(normal[None], rhs[None])[0])


def rising_slopes(normal: NDArray[np.float64], rhs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slopes (n, k), nowhere negative, that solve the normal equations (n, k, k), (n, k) best; 1 where all are 0."""
    n, knots = rhs.shape
    # a little smoothness joins knots that hold no edges to their neighbours
    bend = np.diff(np.eye(knots), 2, axis=0)
    trace = np.trace(normal, axis1=1, axis2=2)[:, None, None]
    normal = normal + 1e-3 * trace / knots * (bend.T @ bend) + (1e-9 * trace + 1e-30) * np.eye(knots)
    factor = np.linalg.cholesky(normal)
    target = np.linalg.solve(factor, rhs[..., None])[..., 0]
    slopes = np.stack([nnls(factor[i].T, target[i])[0] for i in range(n)])
    slopes[slopes.max(axis=1) <= 0] = 1.0
    return slopes


def _place(m: Image, knots: NDArray[np.float64]) -> tuple[NDArray[np.intp], Image]:
    """The interval between knots that each value lies in or next to, and how far along it."""
    cell = np.clip(np.searchsorted(knots, m, side="right") - 1, 0, len(knots) - 2)
    k = knots.astype(np.float32)
    return cell, (m - k[cell]) / (k[cell + 1] - k[cell])
