"""Maps that say where a landmark is: how they are made from pixels, how a network is judged by them, how they are read.

A map of stride s has a cell for s x s pixels; cell (i, j) lies at the pixel (u, v) = (s (j + 1/2) - 1/2, s (i + 1/2) - 1/2).
Two kinds: *heatmaps* that resemble a Gaussian about the landmark (Grupp et al., IPCAI 2020), and *locations*, a
probability of each cell and of none, which say how sure they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from XRayRegistrationLib.networks.network_input import cells_from_pixels, pixels_from_cells

Array = NDArray[np.float64]

_WINDOW = 3.0  # cells, sigma of the weights with which a peak is measured
_STEPS = 12  # towards the middle of those weights: the error falls to a tenth or so in each
_UNCUT_STEPS = 40  # for a Gaussian whose middle lies on the edge
_LEAST_SIGMA = 0.1  # cells: no network is surer than that


@dataclass(frozen=True)
class Located:
    """Where landmarks were seen.

    Attributes:
        pixels: (n, 2) = (u, v).
        covariance_px: (n, 2, 2) px^2.
        confidence: (n,) 0 to 1: the probability that it is there, or how well the heatmap resembles a Gaussian.
    """

    pixels: Array
    covariance_px: Array
    confidence: Array


def gaussian_heatmaps(pixels: Tensor, visible: Tensor, height: int, width: int, stride: int, sigma: float) -> Tensor:
    """Gaussians of peak 1 and ``sigma`` cells, (..., height, width), about pixels (..., 2); 0 where not ``visible`` (...)."""
    cells = cells_from_pixels(torch.nan_to_num(pixels), stride)
    columns = torch.arange(width, device=pixels.device, dtype=cells.dtype)
    rows = torch.arange(height, device=pixels.device, dtype=cells.dtype)
    across = torch.exp(-0.5 * ((columns - cells[..., :1]) / sigma).square())
    down = torch.exp(-0.5 * ((rows - cells[..., 1:]) / sigma).square()) * visible[..., None]
    return down[..., :, None] * across[..., None, :]


# --- heatmaps


def ncc_loss(heatmaps: Tensor, target: Tensor) -> Tensor:
    """Mean of (1 - NCC) / 2 over maps (..., h, w); a target of zeros, of a landmark out of view, has NCC 0 with all."""
    a, b = (x - x.mean((-2, -1), keepdim=True) for x in (heatmaps, target))
    product = (a * b).sum((-2, -1))
    energy = a.square().sum((-2, -1)) * b.square().sum((-2, -1))
    return 0.5 * (1.0 - product / (energy + 1e-12).sqrt()).mean()


def template_ncc(heatmap: Array, row: int, column: int, sigma: float) -> float:
    """NCC of a heatmap (h, w) about a cell with the Gaussian of ``sigma`` cells, over 25 x 25 cells if that is 2.5.

    Cells beyond the map's edge are left out.
    """
    reach = max(1, round(4.8 * sigma))
    height, width = heatmap.shape
    rows = np.arange(max(0, row - reach), min(height, row + reach + 1))
    columns = np.arange(max(0, column - reach), min(width, column + reach + 1))
    template = np.exp(-0.5 * ((rows[:, None] - row) ** 2 + (columns - column) ** 2) / sigma**2)
    a, b = heatmap[np.ix_(rows, columns)], template - template.mean()
    a = a - a.mean()
    energy = float((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / math.sqrt(energy)) if energy > 0 else 0.0


def read_heatmaps(heatmaps: Array, allowed: NDArray[np.bool_], stride: int, sigma: float, *, subpixel: bool = True) -> Located:
    """The highest cell of each heatmap (n, h, w) among ``allowed`` cells (h, w) or (n, h, w), and the Gaussian's NCC there.

    Args:
        sigma: cells, of the Gaussian that the network learned.
        subpixel: between the cells; the covariance is then measured, else that of a cell.
    """
    n, _, width = heatmaps.shape
    allowed_cells = np.broadcast_to(allowed, heatmaps.shape)
    masked = np.where(allowed_cells, heatmaps, -np.inf)
    cells, covariance, confidence = np.zeros((n, 2)), np.tile(np.eye(2) / 12.0, (n, 1, 1)), np.zeros(n)
    for number in range(n):
        row, column = divmod(int(masked[number].argmax()), width)
        cells[number] = column, row
        if not np.isfinite(masked[number, row, column]):
            continue
        confidence[number] = template_ncc(heatmaps[number], row, column, sigma)
        if subpixel:
            above = heatmaps[number] - np.median(heatmaps[number])
            # the foot of the peak is the network's noise
            weight = np.maximum(above - 0.1 * above[row, column], 0.0)
            if weight[row, column] > 0:
                cells[number] = _centre(weight, row, column, 1.5 * sigma, allowed_cells[number])[0]
                covariance[number] = np.eye(2) * (0.5 * sigma) ** 2
    return Located(np.asarray(pixels_from_cells(cells, stride)), covariance * stride**2, np.clip(confidence, 0.0, 1.0))


# --- locations


def log_locations(logits: Tensor) -> Tensor:
    """(..., h, w) to log probabilities (..., h w + 1), the last that the landmark is nowhere on the image.

    A network that gives 0 everywhere says: as likely out of view as in it.
    """
    flat = logits.flatten(-2)
    nowhere = torch.full_like(flat[..., :1], math.log(flat.shape[-1]))
    return torch.cat([flat, nowhere], -1).log_softmax(-1)


def location_loss(logits: Tensor, pixels: Tensor, visible: Tensor, stride: int, sigma: float) -> Tensor:
    """Mean cross-entropy of where landmarks are: a Gaussian of ``sigma`` cells about pixels (..., 2), or nowhere.

    Args:
        logits: (..., h, w). visible: (...) bool.
    """
    height, width = logits.shape[-2:]
    target = gaussian_heatmaps(pixels, visible, height, width, stride, sigma).flatten(-2)
    target = target / target.sum(-1, keepdim=True).clamp(min=1e-6)
    target = torch.cat([target, (~visible)[..., None].to(target.dtype)], -1)
    return -(target * log_locations(logits)).sum(-1).mean()


def read_locations(logits: Tensor, field: NDArray[np.bool_], stride: int, sigma: float) -> Located:
    """The likeliest place of each landmark, from logits (n, h, w), among the cells of ``field`` (h, w).

    Mean and covariance are measured under Gaussian weights about the peak, which are then taken out again, so both are
    exact for a Gaussian; the ``sigma`` cells that the target had are taken off the covariance.
    """
    n, height, width = logits.shape
    probability = log_locations(logits.detach().double()).exp()[:, :-1].reshape(n, height, width).cpu().numpy() * field
    smooth = torch.nn.functional.avg_pool2d(torch.as_tensor(probability), 3, 1, 1, count_include_pad=True).numpy()
    cells, covariance, confidence = np.zeros((n, 2)), np.zeros((n, 2, 2)), np.zeros(n)
    for number in range(n):
        row, column = divmod(int(smooth[number].argmax()), width)
        cells[number], spread, confidence[number] = _centre(probability[number], row, column, _WINDOW, field)
        covariance[number] = _bounded(spread - sigma**2 * np.eye(2))
    cells = np.clip(cells, -0.5, np.array([width, height]) - 0.5)  # what is seen is on the image
    return Located(np.asarray(pixels_from_cells(cells, stride)), covariance * stride**2, confidence)


def _centre(weight: Array, row: int, column: int, window: float, there: NDArray[np.bool_]) -> tuple[Array, Array, float]:
    """Mean (x, y), covariance and sum of ``weight`` near a cell, as if it were a Gaussian cut off where nothing is ``there``.

    Under weights exp(-|x - m|^2 / 2 w^2) about its own mean m, a Gaussian of covariance C keeps its mean and has
    (C^-1 + w^-2)^-1. Near the image's edge the part beyond is missing and the mean lies too far in: what counts is the
    Gaussian that would have these moments on the cells that are there.
    """
    height, width = weight.shape
    reach = math.ceil(4 * window)
    top, left = max(0, row - reach), max(0, column - reach)
    box = np.s_[top : min(height, row + reach + 1), left : min(width, column + reach + 1)]
    near, there = weight[box], there[box]
    y, x = (np.arange(n) + o for n, o in zip(near.shape, (top, left), strict=True))
    mean, seen = np.array([column, row], dtype=np.float64), np.eye(2)
    for _ in range(_STEPS):
        w = near * (np.exp(-0.5 * ((y - mean[1]) / window) ** 2)[:, None] * np.exp(-0.5 * ((x - mean[0]) / window) ** 2))
        if w.sum() <= 0:
            return mean, np.eye(2) * window**2, 0.0
        moved, seen = _moments(w, x, y)
        step, mean = float(np.abs(moved - mean).max()), moved
        if step < 1e-3:
            break
    whole, spread = _uncut(mean, seen, x, y, there)
    values, axes = np.linalg.eigh(spread)
    values = 1.0 / np.maximum(1.0 / np.maximum(values, 1e-6) - 1.0 / window**2, 1.0 / (4.0 * window**2))
    covariance = (axes * values) @ axes.T
    # the weights were about the mean as it was seen, and held the whole one back
    whole = mean + (np.eye(2) + covariance / window**2) @ (whole - mean)
    disc = (y[:, None] - mean[1]) ** 2 + (x - mean[0]) ** 2 <= (3.0 * window) ** 2
    return whole, covariance, float(near[disc].sum())


def _moments(w: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Mean (x, y) and covariance of weights (h, w) at columns x and rows y."""
    total, along, down = float(w.sum()), w.sum(axis=0), w.sum(axis=1)
    mean = np.array([along @ x, down @ y]) / total
    dx, dy = x - mean[0], y - mean[1]
    mixed = dy @ w @ dx
    return mean, np.array([[along @ dx**2, mixed], [mixed, down @ dy**2]]) / total


def _uncut(mean: Array, seen: Array, x: Array, y: Array, there: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Mean and covariance of the Gaussian that has mean ``mean`` and covariance ``seen`` on the cells that are there."""
    if there.all() and (np.minimum(mean - [x[0], y[0]], [x[-1], y[-1]] - mean) > 4.0 * np.sqrt(np.diag(seen))).all():
        return mean, seen
    floor = _LEAST_SIGMA**2 * np.eye(2)
    whole, spread = mean.copy(), seen + floor
    for _ in range(_UNCUT_STEPS):
        inverse = np.linalg.inv(spread)
        dx, dy = (x - whole[0])[None], (y - whole[1])[:, None]
        w = np.exp(-0.5 * (inverse[0, 0] * dx**2 + 2.0 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2)) * there
        if w.sum() <= 1e-12:
            return mean, seen
        got, got_spread = _moments(w, x, y)
        limit = 2.0 * np.sqrt(np.diag(spread))
        whole = whole + np.clip(mean - got, -limit, limit)
        values, axes = np.linalg.eigh(spread + seen - got_spread)
        spread = (axes * np.clip(values, _LEAST_SIGMA**2, 4.0 * np.trace(seen) + _LEAST_SIGMA**2)) @ axes.T
    return whole, spread


def _bounded(covariance: Array) -> Array:
    values, axes = np.linalg.eigh(covariance)
    return np.asarray((axes * np.maximum(values, _LEAST_SIGMA**2)) @ axes.T)
