"""Coarse scores of many orientations at once: renders of the bone slid over the X-ray by FFT.

Every orientation and depth is rendered once, small, with the bone in the middle of a canvas larger
than the X-ray. The correlation of gradients at every shift is three FFTs, so the two in-plane
translations need no search. Masked normalised correlation after Padfield (CVPR 2010): the fixed
image's mask says which pixels of the shifted template count.

Two normalisations are averaged: plain gradients (outlines of the body and of large bones) and
gradients over their local strength (faint bones). Either alone misses cases that the other finds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, rotation_exp
from XRayRegistrationLib.simulation.poses import pose_at
from XRayRegistrationLib.solvers.gradient_residual import gradient, local_strength
from XRayRegistrationLib.solvers.pyramid import LevelView
from XRayRegistrationLib.solvers.search_range import SearchRange

Array = NDArray[np.float64]

_CANVAS = 2  # the canvas over the X-ray's longer side: the centroid may lie anywhere in the X-ray
_BATCH = 256  # templates at a time: bounds the memory
_WINDOWS = ((0, 1.0), (5, 0.3))  # (window in pixels, floor): plain and locally normalised gradients
# What share of a template's gradient energy must fall inside the X-ray's mask: a patient is larger
# than the X-ray, a bone that stands alone is mostly on it.
_LEAST_SHARE, _LEAST_SHARE_ALONE = 0.05, 0.4


@dataclass(frozen=True)
class Matches:
    """The best place of every template.

    Attributes:
        camera_from_ct: (n, 4, 4).
        score: (n,), masked gradient correlation, 1 is perfect.
    """

    camera_from_ct: Array
    score: Array


def match_templates(
    view: LevelView,
    centre_ct: Array,
    search_range: SearchRange,
    *,
    backend: str = "auto",
    check: Callable[[float], None] | None = None,
) -> Matches:
    """Score every orientation and depth of ``search_range`` at its best shift.

    Args:
        view: a coarse level, some 24 pixels wide.
        centre_ct: (3,), the bone's centroid.
        search_range: the poses.
        backend: renderer.
        check: called with the fraction done; raising from it cancels.
    """
    side = _CANVAS * max(view.camera.width, view.camera.height)
    k = view.camera.K.copy()
    k[0, 2] = k[1, 2] = (side - 1) / 2
    canvas = Camera(side, side, k)
    rotations = np.tile(search_range.rotations, (len(search_range.depths_mm), 1, 1))
    depths = np.repeat(search_range.depths_mm, len(search_range.rotations))
    middle = np.full((len(depths), 2), (side - 1) / 2)
    templates = pose_at(rotations, canvas, centre_ct, middle, depths)
    fixed = [_FixedSpectrum(view, side, window, floor) for window, floor in _WINDOWS]
    allowed = _allowed_shifts(view, search_range, centre_ct, side)
    score, pixel = np.empty(len(depths)), np.empty((len(depths), 2))
    for begin in range(0, len(depths), _BATCH):
        if check is not None:
            check(begin / len(depths))
        chunk = slice(begin, begin + _BATCH)
        images = render(view.volume, canvas, templates[chunk], backend=backend, step_mm=view.step_mm)
        g = gradient(images)
        correlation = np.mean([f.correlate(g) for f in fixed], axis=0)
        correlation[:, ~allowed] = -1.0
        best = correlation.reshape(len(g), -1).argmax(axis=1)
        score[chunk] = correlation.reshape(len(g), -1)[np.arange(len(g)), best]
        shift = np.stack(np.unravel_index(best, correlation.shape[1:])[::-1], axis=-1)
        pixel[chunk] = (side - 1) / 2 - _signed(shift, correlation.shape[-1])
    return Matches(_poses_off_axis(rotations, view.camera, centre_ct, pixel, depths), score)


class _FixedSpectrum:
    """The X-ray's side of the masked correlation, under one normalisation."""

    def __init__(self, view: LevelView, side: int, window: int, floor: float):
        self.window, self.floor = window, floor
        self.least_share = _LEAST_SHARE_ALONE if view.alone else _LEAST_SHARE
        mask = view.valid[1:-1, 1:-1].astype(np.float32)
        g = gradient(view.image[None])
        g = (g / local_strength(g, mask, window, floor)[:, None] * mask)[0]
        n = side - 2
        height, width = mask.shape
        field = np.zeros((n, n), np.complex64)
        field[:height, :width] = g[0] + 1j * g[1]
        support = np.zeros((n, n), np.float32)
        support[:height, :width] = mask
        self.energy = float((np.abs(field) ** 2).sum())
        self.field, self.support = np.conj(fft.fft2(field)), np.conj(fft.rfft2(support))

    def correlate(self, g: NDArray[np.float32]) -> NDArray[np.float32]:
        """Correlation (n, s, s) of template gradients (n, 2, s, s); entry (y, x) is the shift of the window."""
        g = g / local_strength(g, np.ones(g.shape[-2:], np.float32), self.window, self.floor)[:, None]
        field = (g[:, 0] + 1j * g[:, 1]).astype(np.complex64)
        numerator = fft.ifft2(fft.fft2(field, workers=-1) * self.field, workers=-1).real
        energy = (g**2).sum(axis=1)
        under = fft.irfft2(fft.rfft2(energy, workers=-1) * self.support, s=energy.shape[-2:], workers=-1)
        least = self.least_share * energy.sum(axis=(-2, -1))[:, None, None] + 1e-12
        return numerator / np.sqrt(np.maximum(under, least) * max(self.energy, 1e-12))


def _signed(shift: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """FFT shifts as -n/4 .. 3n/4: the window may stick out of the canvas a little on either side."""
    return np.where(shift >= 3 * n // 4, shift - n, shift)


def _allowed_shifts(view: LevelView, search_range: SearchRange, centre_ct: Array, side: int) -> NDArray[np.bool_]:
    n = side - 2
    axis = (side - 1) / 2 - _signed(np.arange(n), n)  # the centroid's pixel at each shift
    u, v = np.meshgrid(axis, axis)
    camera = view.camera
    if search_range.near is None:
        # a little beyond the image: the centroid of a long bone need not be in view
        mu, mv = 0.1 * camera.width, 0.1 * camera.height
        return (u > -mu) & (u < camera.width + mu) & (v > -mv) & (v < camera.height + mv)
    at = search_range.near[:3, :3] @ centre_ct + search_range.near[:3, 3]
    pixel = camera.project(at)
    mm_per_px = at[2] / camera.K[0, 0]
    return np.hypot(u - pixel[0], v - pixel[1]) * mm_per_px <= search_range.near_mm + mm_per_px


def _poses_off_axis(rotations: Array, camera: Camera, centre_ct: Array, pixel: Array, depths: Array) -> Array:
    """Poses that show, at ``pixel``, what the template showed in the middle of its canvas.

    Moving a bone sideways turns it against its ray; turning it along keeps the view, so the
    rotation is the shortest one from the optical axis to the ray, after the template's.
    """
    ray = np.ones((len(pixel), 3))
    ray[:, 0] = (pixel[:, 0] - camera.K[0, 2]) / camera.K[0, 0]
    ray[:, 1] = (pixel[:, 1] - camera.K[1, 2]) / camera.K[1, 1]
    at = ray * depths[:, None]
    axis = np.cross([0.0, 0.0, 1.0], ray)
    sine = np.linalg.norm(axis, axis=1, keepdims=True)
    angle = np.arctan2(sine, ray[:, 2:])
    turned = rotation_exp(axis / np.maximum(sine, 1e-12) * angle) @ rotations
    return from_rotation_translation(turned, at - turned @ centre_ct)
