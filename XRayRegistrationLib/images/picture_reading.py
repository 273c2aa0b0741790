"""What a small network reads off a picture: where it is an X-ray at all, what was painted over it, whether bone is bright.

It learned from simulated X-rays, where all three are known (``training.picture``), and is run in NumPy: every
registration prepares its X-rays with it, with or without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from XRayRegistrationLib.images.masks import reduce_to

CHANNELS = 2
WIDTHS = (16, 32, 48, 64)  # of the network's levels, the first at half of the picture's pixels
READ_PX = 128  # longer side of what the network sees
MULTIPLE = 2 ** len(WIDTHS)  # of which its sides are
VALUE_ENDS = (0.02, 99.98)  # percentiles that count as the darkest and the brightest value
_LEVELS = 65536.0  # over the values' range, that are told apart

Array = NDArray[np.float32]


@dataclass(frozen=True)
class PictureReading:
    """What was read off a picture, at ``READ_PX`` pixels.

    Attributes:
        closed: (h, w) 0..1, the probability that there is no image: collimator, intensifier's rim, shutter.
        painted: (h, w) 0..1, that something covers the image: a box, a label.
        bone_bright: log-odds.
    """

    closed: Array
    painted: Array
    bone_bright: float


def read_picture(values: NDArray[np.floating]) -> PictureReading:
    """Read a picture (height, width) of any scale and either polarity; finite."""
    longer = max(values.shape)
    height, width = (max(1, round(n * READ_PX / longer)) for n in values.shape)
    small = reduce_to(values, height, width)
    below, right = (-n % MULTIPLE for n in (height, width))
    seen = np.pad(picture_channels(small), ((0, 0), (0, below), (0, right)), mode="edge")
    logits, bright = _forward(_weights(), seen)
    closed, painted = 1.0 / (1.0 + np.exp(-np.clip(logits[:, :height, :width], -30, 30)))
    return PictureReading(closed, painted, bright)


def picture_channels(values: Array) -> Array:
    """(2, h, w) of a picture (h, w): each value's rank among all, which no curve over the values changes much; the values.

    Both -1..1.
    """
    low, high = np.percentile(values, VALUE_ENDS)
    linear = (values - low) / max(high - low, 1e-12)
    levels = np.round(_LEVELS * linear)  # or rounding would put flat air in an order
    ordered = np.sort(levels, axis=None)
    place = np.searchsorted(ordered, levels, "left") + np.searchsorted(ordered, levels, "right")
    return np.stack([place / np.float32(values.size) - 1.0, 2.0 * np.clip(linear, 0.0, 1.0) - 1.0]).astype(np.float32)


def _forward(weights: dict[str, Array], x: Array) -> tuple[Array, float]:
    """Logits (2, H, W) of closed and painted, and of bone bright: networks.picture_network's forward."""
    channels, height, width = x.shape
    x = x.reshape(channels, height // 2, 2, width // 2, 2).transpose(1, 3, 0, 2, 4).reshape(height // 2, width // 2, -1)
    levels = []
    for n in range(len(WIDTHS)):
        x = x if n == 0 else x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max((1, 3))
        for k in range(2):
            x = np.maximum(_filtered(weights, f"down.{n}.{k}", x), 0)
        levels.append(x)
    whole = np.concatenate([x.mean((0, 1)), x.max((0, 1))])
    whole = np.maximum(whole @ weights["around.weight"] + weights["around.bias"], 0)
    x = levels.pop() + whole
    for n in reversed(range(len(levels))):
        narrow = x @ weights[f"narrow.{n}.weight"] + weights[f"narrow.{n}.bias"]
        x = np.maximum(_filtered(weights, f"up.{n}.0", levels.pop() + narrow.repeat(2, axis=0).repeat(2, axis=1)), 0)
    out = _filtered(weights, "out", x)
    logits = out.reshape(height // 2, width // 2, 2, 2, 2).transpose(2, 0, 3, 1, 4).reshape(2, height, width)
    return logits, float(whole @ weights["bright.weight"][:, 0] + weights["bright.bias"][0])


def _filtered(weights: dict[str, Array], name: str, x: Array) -> Array:
    """An image (h, w, in) through filters of 3 x 3, with zeros around it."""
    filters = weights[f"{name}.weight"]
    around = sliding_window_view(np.pad(x, ((1, 1), (1, 1), (0, 0))), (3, 3), axis=(0, 1))  # (h, w, in, 3, 3)
    flat = around.transpose(0, 1, 3, 4, 2).reshape(x.shape[0] * x.shape[1], -1)
    return np.asarray((flat @ filters.reshape(-1, filters.shape[-1]) + weights[f"{name}.bias"]).reshape(*x.shape[:2], -1))


@lru_cache(maxsize=1)
def _weights() -> dict[str, Array]:
    path = resources.files("XRayRegistrationLib") / "weights" / "picture.npz"
    with path.open("rb") as file, np.load(file) as stored:
        return {name: stored[name].astype(np.float32) for name in stored.files}
