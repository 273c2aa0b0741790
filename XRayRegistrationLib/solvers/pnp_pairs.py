"""Pairs of a CT point and the pixel where it is seen: what was given, checked, and thinned.

Everything after this file works on :class:`Pairs`: coordinates by rows, (3, n) and (2, n), for that is what makes
100,000 of them cheap in numpy; points about their centroid and pixels about the principal point, for the digits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.errors import InputError, XRayRegistrationError
from XRayRegistrationLib.geometry.camera import Camera

Array = NDArray[np.float64]
Index = NDArray[np.intp]

LEAST_POINTS = 4
_LINE = 0.03  # width over length of points that lie on a line
_SPOT_PX = 1.0  # radius of an image area that counts as one spot
_GRID = 16  # cells of the thinning along each side of what the pixels cover
_PART = 8192
_USUAL_DEPTH = 0.7  # of a bone over the SDD, until the pose is known


class PnpFailure(XRayRegistrationError):
    """No pose can be had from these pairs; the message is one sentence that says why."""


@dataclass(frozen=True)
class Pairs:
    """Checked pairs.

    Attributes:
        points: (3, n) mm, CT axes, about ``centre_ct``.
        pixels: (2, n) px, about the principal point.
        focal: (2,) px.
        centre_ct: (3,) mm, the centroid of all points that were given.
        covariance_px: (3, n) px^2 = (uu, vv, uv) of where each was seen; (1, n) where both are alike and uv is 0.
        variance_mm2: (n,) of each point along each axis, or None: the points are exact.
        depth_mm: a guess of how far the points are from the source, for ranking only.
    """

    points: Array
    pixels: Array
    focal: Array
    centre_ct: Array
    covariance_px: Array
    variance_mm2: Array | None
    depth_mm: float

    def __len__(self) -> int:
        return self.points.shape[1]

    def at(self, chosen: NDArray | slice) -> Pairs:
        """The pairs at these places, by index or mask; views of them, by slice."""
        variance = None if self.variance_mm2 is None else self.variance_mm2[chosen]
        points, pixels, covariance = self.points[:, chosen], self.pixels[:, chosen], self.covariance_px[:, chosen]
        return Pairs(points, pixels, self.focal, self.centre_ct, covariance, variance, self.depth_mm)

    def parts(self) -> list[Pairs]:
        """Runs of pairs that fit into a processor's cache, which makes 100,000 of them several times faster."""
        return [self.at(slice(i, i + _PART)) for i in range(0, len(self), _PART)]

    def covariance_at(self, depth: Array) -> tuple[Array, Array, Array | None]:
        """Sigma_u + (f sigma_X / z)^2 I as (uu, vv, uv), each (..., n) px^2, with the points at ``depth`` (..., n) mm.

        uv is None where it is 0.
        """
        uu, vv, uv = self.covariance_px if len(self.covariance_px) == 3 else (*self.covariance_px, *self.covariance_px, None)
        if self.variance_mm2 is not None:
            spread = self.variance_mm2 / depth**2
            uu, vv = uu + self.focal[0] ** 2 * spread, vv + self.focal[1] ** 2 * spread
        return uu, vv, uv

    def sigma_px(self) -> Array:
        """(n,) px, what each pair's error would be in one direction at ``depth_mm``: to rank by."""
        uu, vv, _ = self.covariance_at(np.array(self.depth_mm))
        return np.sqrt(0.5 * (uu + vv))

    def bearings(self) -> Array:
        """(n, 3) unit vectors from the source towards the pixels."""
        rays = np.stack([*(self.pixels / self.focal[:, None]), np.ones(len(self))], axis=1)
        return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def checked_pairs(
    points_ct: ArrayLike,
    pixels: ArrayLike,
    camera: Camera,
    sigma_px: ArrayLike | None,
    covariance_px: ArrayLike | None,
    sigma_mm: ArrayLike | None,
    plain_sigma_px: float,
) -> Pairs:
    """Pairs from what a caller has; ``plain_sigma_px`` where no uncertainty is given.

    Raises:
        InputError: shapes that do not belong together, or an uncertainty that is none.
        PnpFailure: too few pairs, not finite, on a line, or in one spot of the image.
    """
    points, seen = np.asarray(points_ct, dtype=np.float64), np.asarray(pixels, dtype=np.float64)
    n = len(points) if points.ndim else 0
    if n == 0 and len(seen) == 0:
        points, seen = np.zeros((0, 3)), np.zeros((0, 2))
    if points.shape != (n, 3) or seen.shape != (n, 2):
        raise InputError(f"pairs have the shapes {points.shape} and {seen.shape}; allowed are (n, 3) mm and (n, 2) pixels")
    if n < LEAST_POINTS:
        raise PnpFailure(f"{n} pairs leave the pose open; at least {LEAST_POINTS} are needed")
    if not (np.isfinite(points).all() and np.isfinite(seen).all()):
        bad = np.flatnonzero(~(np.isfinite(points).all(axis=1) & np.isfinite(seen).all(axis=1)))
        some = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise PnpFailure(f"{len(bad)} of {n} pairs are not finite (numbers {some}); leave them out")
    covariance = _covariance(n, sigma_px, covariance_px, sigma_mm, plain_sigma_px)
    variance_mm2 = None if sigma_mm is None else _sigmas(n, sigma_mm, "sigma_mm", "mm") ** 2
    k = camera.K
    by_rows = np.array(points.T, order="C")
    centre = by_rows.mean(axis=1)
    by_rows -= centre[:, None]
    pairs = Pairs(
        points=by_rows,
        pixels=np.array(seen.T, order="C") - k[:2, 2:],
        focal=np.diag(k)[:2].copy(),
        centre_ct=centre,
        covariance_px=covariance,
        variance_mm2=variance_mm2,
        depth_mm=1.0,
    )
    reason = degenerate(pairs)
    if reason:
        raise PnpFailure(f"the {n} points {reason}")
    return replace(pairs, depth_mm=_depth_guess(pairs, camera))


def degenerate(pairs: Pairs) -> str:
    """Why these points determine no pose whatever their number ("lie on a line ..."), or ""."""
    spread = pairs.points - pairs.points.mean(axis=1, keepdims=True)
    extent = np.sqrt(np.maximum(np.linalg.eigvalsh(spread @ spread.T), 0.0))[::-1]
    if extent[0] == 0.0 or extent[1] < _LINE * extent[0]:
        return "lie on a line in the CT, which leaves the turn about it open"
    middle = pairs.pixels.mean(axis=1, keepdims=True)
    if np.abs(pairs.pixels - middle).max() < _SPOT_PX:
        return "are all in one spot of the image, which leaves their distance and turn open"
    return ""


def thinned(pairs: Pairs, most: int, rng: np.random.Generator, ranked: bool) -> Index:
    """At most ``most`` of the pairs, spread over the image, the surest of each place.

    A grid of 16 x 16 cells over what the pixels cover; of a cell with m pairs the share that goes with sqrt(m) is kept,
    halfway between even cover, which fills up with the stray pairs of empty regions, and a plain draw, which a crowded
    spot fills. Within a cell the pairs with the lowest sigma go first where ``ranked``, else chance decides.

    Returns:
        Indices, the surest pair first: the order for guided sampling.
    """
    n = len(pairs)
    order = rng.permutation(n)  # among equals chance decides, not the order that they came in
    if ranked:
        # the upper bits of a positive float sort as it does, and 16 bits are sorted in linear time
        rough = (pairs.sigma_px().astype(np.float32).view(np.uint32) >> 15).astype(np.uint16)
        order = order[np.argsort(rough[order], kind="stable")]
    if n <= most:
        return order
    low, high = pairs.pixels.min(axis=1, keepdims=True), pairs.pixels.max(axis=1, keepdims=True)
    column, row = np.minimum((pairs.pixels - low) * (_GRID / np.maximum(high - low, 1e-9)), _GRID - 1).astype(np.int16)
    cell = (row * _GRID + column)[order]
    by_cell = np.argsort(cell, kind="stable")
    counts = np.bincount(cell, minlength=_GRID**2)
    quota = _quotas(counts, most)
    rank = np.empty(n, np.intp)
    rank[by_cell] = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[rank < quota[cell]]


def _quotas(counts: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """How many to keep of each cell, together at most ``most``: a multiple of sqrt(count), found by bisection."""
    root = np.sqrt(counts)
    low, high = 0.0, float(most)
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.minimum(counts, np.floor(middle * root)).sum() <= most else (low, middle)
    return np.minimum(counts, np.floor(low * root)).astype(np.intp)


def _covariance(
    n: int, sigma_px: ArrayLike | None, covariance_px: ArrayLike | None, sigma_mm: ArrayLike | None, plain_sigma_px: float
) -> Array:
    if covariance_px is not None:
        if sigma_px is not None:
            raise InputError("both sigma_px and covariance_px are given; give one of them")
        c = np.asarray(covariance_px, dtype=np.float64)
        allowed = "allowed are (n, 2, 2) positive definite matrices in px^2"
        if c.shape != (n, 2, 2):
            raise InputError(f"covariance_px has the shape {c.shape} for {n} pairs; {allowed}")
        uu, vv, uv = c[:, 0, 0], c[:, 1, 1], 0.5 * (c[:, 0, 1] + c[:, 1, 0])
        wrong = np.flatnonzero(~((uu > 0) & (vv > 0) & (uu * vv - uv**2 > 0) & np.isfinite(c).all(axis=(1, 2))))
        if len(wrong):
            raise InputError(f"covariance_px of pair {wrong[0]} is {c[wrong[0]].tolist()}; {allowed}")
        return np.stack([uu, vv, uv])
    if sigma_px is not None:
        variance = _sigmas(n, sigma_px, "sigma_px", "px") ** 2
    else:
        # where only the points are uncertain, the pixels are exact
        variance = np.full(n, plain_sigma_px**2 if sigma_mm is None else 0.0)
    return variance[None]


def _sigmas(n: int, values: ArrayLike, name: str, unit: str) -> Array:
    try:
        sigma = np.broadcast_to(np.asarray(values, dtype=np.float64), (n,))
    except ValueError as error:
        raise InputError(f"{name} has the shape {np.shape(values)} for {n} pairs; allowed is one {unit} value each") from error
    wrong = np.flatnonzero(~(np.isfinite(sigma) & (sigma > 0)))
    if len(wrong):
        raise InputError(f"{name} of pair {wrong[0]} is {sigma[wrong[0]]}; allowed are positive numbers of {unit}")
    return sigma


def _depth_guess(pairs: Pairs, camera: Camera) -> float:
    if camera.source_detector_distance_mm is not None:
        return _USUAL_DEPTH * camera.source_detector_distance_mm
    # of points spread alike in all directions; medians, for outliers may be anywhere
    size_mm = float(np.median(np.abs(pairs.points).sum(axis=0))) / 3
    middle = np.median(pairs.pixels, axis=1, keepdims=True)
    size_px = float(np.median(np.abs(pairs.pixels - middle).sum(axis=0))) / 2
    return float(pairs.focal.mean()) * max(size_mm, 1e-3) / max(size_px, 1e-3)
