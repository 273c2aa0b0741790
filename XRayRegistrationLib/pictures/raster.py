"""Pictures as arrays: window, bone outlines, checkerboard, blend. NumPy and SciPy only.

All take images with bone bright, (height, width), and return RGB (height, width, 3), 0..1.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

Gray = NDArray[np.float32]
RGB = NDArray[np.float32]
Mask = NDArray[np.bool_]

FAILURE_COLOUR = (1.0, 0.25, 0.25)
OUTLINE_COLOUR = (0.15, 0.95, 1.0)
XRAY_TINT = (1.0, 0.45, 0.15)  # the two tints sum to white, so what agrees is grey
DRR_TINT = (0.0, 0.55, 0.85)
BONE_TINT = (0.25, 0.65, 1.0)


def windowed(image: ArrayLike, mask: Mask | None = None, low: float = 1.0, high: float = 99.7) -> Gray:
    """Grey values 0..1 between two percentiles of what the mask believes."""
    values = np.asarray(image, dtype=np.float32)
    inside = values[mask] if mask is not None and mask.any() else values.ravel()
    bottom, top = np.percentile(inside, [low, high])
    return np.clip((values - bottom) / max(float(top - bottom), 1e-12), 0.0, 1.0).astype(np.float32)


def matched(moving: ArrayLike, fixed: ArrayLike, mask: Mask | None = None) -> Gray:
    """``moving`` with the grey-value distribution that ``fixed`` has inside the mask.

    A radiograph and its simulation differ in contrast, which would hide how well their shapes agree.
    """
    moving, fixed = np.asarray(moving, dtype=np.float32), np.asarray(fixed, dtype=np.float32)
    inside = mask if mask is not None and mask.any() else np.ones(fixed.shape, bool)
    levels = np.linspace(0.0, 100.0, 129)
    source, target = np.percentile(moving[inside], levels), np.percentile(fixed[inside], levels)
    # a flat stretch of the source (air) has many target values: take their middle
    source, which = np.unique(source, return_inverse=True)
    target = np.bincount(which, target) / np.bincount(which)
    return np.interp(moving, source, target).astype(np.float32)


def processed(image: ArrayLike, mask: Mask | None = None) -> Gray:
    """Grey values 0..1 as a radiography workstation shows a line-integral image; air stays black.

    Lung and abdomen differ so much that bones in both are never visible in one linear window. So
    half of the picture is the image over its surrounding's mean to the power 0.6, and half is the
    difference from the surrounding's mean in local standard deviations.
    """
    values = np.asarray(image, dtype=np.float32)
    inside = mask if mask is not None and mask.any() else np.ones(values.shape, bool)
    values = np.maximum(values - np.percentile(values[inside], 0.5), 0.0)
    weight = inside.astype(np.float32)
    typical = float(values[inside].mean()) + 1e-12

    def surrounding(of: Gray, sigma: float) -> Gray:
        total = np.maximum(ndimage.gaussian_filter(weight, sigma), 1e-3)
        return ndimage.gaussian_filter(of * weight, sigma) / total

    side = max(values.shape)
    compressed = windowed(values / (surrounding(values, side / 14.0) + 0.25 * typical) ** 0.6, inside)
    mean = surrounding(values, side / 28.0)
    spread = np.sqrt(np.maximum(surrounding((values - mean) ** 2, side / 20.0), 0.0))
    detail = np.clip(0.5 + (values - mean) / (5.0 * (spread + 0.05 * typical)), 0.0, 1.0)
    matter = np.clip(values / (0.25 * typical), 0.0, 1.0)  # in air the detail is only noise
    return (0.5 * compressed + 0.5 * matter * detail).astype(np.float32)


def outlines(bone_drr: ArrayLike, sigma_px: float = 2.0, strong: float = 0.5, weak: float = 0.2) -> Mask:
    """One pixel wide edges of a bone DRR: Canny's non-maximum suppression and hysteresis.

    The thresholds are fractions of a strong edge (the 97th percentile of the gradient where there
    is bone). Pieces shorter than a twentieth of the picture are dropped: they are texture inside
    bones, not outlines that a reader could follow.
    """
    image = np.maximum(np.asarray(bone_drr, dtype=np.float64), 0.0) ** 0.75  # ribs still draw before the spine
    gx = ndimage.gaussian_filter(image, sigma_px, order=(0, 1))
    gy = ndimage.gaussian_filter(image, sigma_px, order=(1, 0))
    size = np.hypot(gx, gy)
    bony = image > 0
    scale = float(np.percentile(size[bony], 97.0)) if bony.any() else 0.0
    if scale <= 0:
        return np.zeros(image.shape, bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        ux, uy = np.nan_to_num(gx / size), np.nan_to_num(gy / size)
    v, u = np.mgrid[: image.shape[0], : image.shape[1]]
    ahead = ndimage.map_coordinates(size, [v + uy, u + ux], order=1, mode="nearest")
    behind = ndimage.map_coordinates(size, [v - uy, u - ux], order=1, mode="nearest")
    ridge = (size >= ahead) & (size > behind) & (size > weak * scale)
    parts, n = ndimage.label(ridge, structure=np.ones((3, 3)))
    length = np.bincount(parts.ravel(), minlength=n + 1)
    keep = np.zeros(n + 1, bool)
    keep[np.unique(parts[ridge & (size > strong * scale)])] = True
    keep &= length >= max(image.shape) / 20
    keep[0] = False
    return keep[parts]


def dimmed(picture: NDArray[np.float32], mask: Mask | None) -> RGB:
    """A grey or RGB picture as RGB, dark where the mask does not believe the pixel."""
    rgb = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
    return rgb if mask is None else np.where(mask[..., None], rgb, 0.2 * rgb).astype(np.float32)


def outlined(gray: Gray, edges: Mask, mask: Mask | None = None, colour: tuple[float, ...] = OUTLINE_COLOUR) -> RGB:
    """The X-ray with the CT's bone outlines in colour."""
    rgb = dimmed(gray, mask)
    # a soft dark rim keeps the line visible on white bone
    cover = ndimage.gaussian_filter(edges.astype(np.float32), 0.6)[..., None] / 0.45
    rim = np.clip(ndimage.gaussian_filter(edges.astype(np.float32), 1.3)[..., None] * 1.6, 0.0, 0.55)
    cover = np.clip(cover, 0.0, 0.95)
    return ((rgb * (1 - rim)) * (1 - cover) + cover * np.array(colour, np.float32)).astype(np.float32)


def checkerboard(xray: Gray, drr: Gray, squares: int = 8) -> tuple[RGB, Mask]:
    """Squares of the X-ray and of the DRR in turn; bones run on across the borders when the pose is right.

    Returns:
        The picture, and where it shows the DRR.
    """
    height, width = xray.shape
    side = max(max(height, width) / squares, 1.0)
    v, u = np.mgrid[:height, :width]
    from_drr = ((v // side + u // side) % 2).astype(bool)
    rgb = np.repeat(np.where(from_drr, drr, xray)[..., None], 3, axis=2)
    # a faint tint says which is which without hiding a step at the border
    rgb = np.where(from_drr[..., None], rgb * np.array([0.86, 0.97, 1.0]), rgb)
    return rgb.astype(np.float32), from_drr


def blended(xray: Gray, drr: Gray) -> RGB:
    """The X-ray in orange plus the DRR in blue: grey where they agree, coloured fringes where they do not."""
    return np.clip(xray[..., None] * np.array(XRAY_TINT) + drr[..., None] * np.array(DRR_TINT), 0, 1).astype(np.float32)


def tinted(xray: Gray, bone: Gray) -> RGB:
    """The X-ray in grey with the bone of the CT laid over it in transparent blue."""
    cover = (0.6 * np.clip(bone, 0, 1) ** 0.7)[..., None]
    light = 0.35 + 0.65 * xray[..., None]  # the X-ray's own shades stay visible through the blue
    return (xray[..., None] * (1 - cover) + cover * light * np.array(BONE_TINT)).astype(np.float32)


def crossed_out(picture: RGB) -> RGB:
    """The picture in a red frame and crossed out: a failure that shows where no words can be drawn."""
    height, width = picture.shape[:2]
    v, u = np.mgrid[:height, :width]
    x, y = (u + 0.5) / width, (v + 0.5) / height
    thick = 0.006
    frame = np.minimum.reduce([x * width, (1 - x) * width, y * height, (1 - y) * height]) < 2 * thick * max(
        width, height
    )
    cross = np.minimum(np.abs(x - y), np.abs(x + y - 1)) < thick
    return np.where((frame | cross)[..., None], np.array(FAILURE_COLOUR), picture).astype(np.float32)


def png_bytes(image: ArrayLike) -> bytes:
    """An 8-bit PNG of a grey (height, width) or RGB (height, width, 3) picture, 0..1.

    Written with zlib alone: 3D Slicer ships no imaging package that reports a full disk.
    """
    pixels = (np.clip(np.nan_to_num(np.asarray(image, dtype=np.float32)), 0, 1) * 255 + 0.5).astype(np.uint8)
    height, width = pixels.shape[:2]
    colour_type = 2 if pixels.ndim == 3 else 0
    rows = pixels.reshape(height, -1)
    # filter 2 (difference to the row above) packs smooth pictures best for its price
    filtered = np.concatenate([rows[:1], rows[1:] - rows[:-1]])
    raw = np.concatenate([np.full((height, 1), 2, np.uint8), filtered], axis=1).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
