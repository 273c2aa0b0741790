"""The optics and the picture's processing behind ``appearance.develop``, in torch on any device.

Images go through one by one: on a CPU each stays in the cache (a batch would not, and would take twice as
long), and nothing of an image can depend on its neighbours. Wide spreads (scatter, glare, local contrast)
are made on a grid of 32 x 32, where they lose nothing and cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

from XRayRegistrationLib.drr.volume import WATER_MU_PER_MM
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.simulation.appearance import Appearance
from XRayRegistrationLib.simulation.instruments import metal_mm
from XRayRegistrationLib.simulation.materials import BONE_MU_PER_MM
from XRayRegistrationLib.simulation.physics import spectrum

METAL_MU_PER_MM = 0.25  # Ti-6Al-4V at 70 keV, for images without physics
_COARSE = 32
_LEAST_PHOTONS = 0.5  # a logarithm's argument stays above it
_LEAST_LIGHT = 1e-5  # of the open beam, where there is no noise
_DARK = 0.2  # a line integral above which a ray has met the patient
_FLATTEN_WIDTH = 0.12  # over the image's width: the scale of local contrast
_FILL_WIDTHS = (0.2, 0.07, 0.03)  # over the image's width
_BLADE_EDGE_SIGMAS = 2.0  # of the blur: what is nearer to a blade is not believed


def developed(
    path_mm: Tensor, appearances: Sequence[Appearance], camera: Camera, depths_mm: NDArray[np.float64]
) -> tuple[Tensor, Tensor]:
    """See ``appearance.develop``."""
    with torch.no_grad(), threads(1 if path_mm.device.type == "cpu" else torch.get_num_threads()):
        image = torch.empty((len(appearances), camera.height, camera.width), device=path_mm.device)
        field = torch.ones_like(image, dtype=torch.bool)
        for n, (paths, a) in enumerate(zip(path_mm.float(), appearances, strict=True)):
            make = Generator(device=paths.device).manual_seed(a.seed)
            lines = _scaled(paths, a, camera, float(depths_mm[n]))
            collimated = bool(a.blades or a.circle)
            open_field = _open_field(a, camera, 0.0, paths.device) if collimated else None
            seen = _ideal(lines, a, open_field) if a.linear else _photograph(lines, a, open_field, make)
            if collimated:
                field[n] = _open_field(a, camera, _BLADE_EDGE_SIGMAS * a.blur_px + 0.5, paths.device)
                if a.filled:
                    seen = fill_outside(seen, field[n])
            image[n] = _processed(seen, a, make)
        return image, field


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch's CPU operations use this many threads, and as many as before afterwards.

    Images are too small to be shared out: threads that wait for each other make them ten times slower where
    the machine is busy. Numba shares torch's OpenMP and sets its number of threads behind torch's back.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fill_outside(image: Tensor, field: Tensor) -> Tensor:
    """An image (h, w) with a smooth continuation where ``field`` is False, much as ``images.masks.fill_masked``.

    Of Gaussian means of the open pixels, each cell takes the narrowest that reaches it.
    """
    total, weight = _coarse(image * field), _coarse(field.to(image.dtype))
    filled = total.sum() / weight.sum().clamp(min=1e-6)
    for width in _FILL_WIDTHS:
        around, near = _spread_coarse(total, width), _spread_coarse(weight, width)
        filled = torch.where(near > 1e-2, around / near.clamp(min=1e-6), filled)
    filled = torch.where(weight > 0.1, total / weight.clamp(min=1e-6), filled)
    return torch.where(field, image, _upsampled(filled, image.shape))


def gaussian(image: Tensor, sigma_px: float) -> Tensor:
    """An image (h, w) blurred; the edge is repeated. For a sigma of a few pixels at most."""
    radius = max(1, math.ceil(2.7 * sigma_px))
    taps = np.exp(-0.5 * (np.arange(radius + 1) / max(sigma_px, 1e-3)) ** 2)
    taps /= taps[0] + 2 * taps[1:].sum()
    for dim in (0, 1):
        size = image.shape[dim]
        pad = (0, 0, radius, radius) if dim == 0 else (radius, radius, 0, 0)
        wide = F.pad(image[None, None], pad, mode="replicate")[0, 0]
        out = wide.narrow(dim, radius, size) * float(taps[0])
        for n in range(1, radius + 1):
            out.add_(wide.narrow(dim, radius - n, size), alpha=float(taps[n]))
            out.add_(wide.narrow(dim, radius + n, size), alpha=float(taps[n]))
        image = out
    return image


def _coarse(image: Tensor) -> Tensor:
    """Means (32, 32) over cells of equal size, fewer where the image is smaller."""
    rows, columns = (_averager(size, min(_COARSE, size), image.device) for size in image.shape)
    return rows @ image @ columns.T


def _upsampled(coarse: Tensor, size: Sequence[int]) -> Tensor:
    """Linear between the cells' centres."""
    rows, columns = (_interpolator(n, m, coarse.device) for n, m in zip(coarse.shape, size, strict=True))
    return rows @ coarse @ columns.T


def _spread_coarse(coarse: Tensor, width: float) -> Tensor:
    """Spread by a Gaussian whose sigma is this part of the grid's width, to a tenth of a cell."""
    rows, columns = coarse.shape
    tenths = max(3, round(10 * width * columns))
    return _smoother(rows, tenths, coarse.device) @ coarse @ _smoother(columns, tenths, coarse.device).T


# as matrices: several times faster on the CPU than torch's pooling and interpolation


@lru_cache(maxsize=512)
def _smoother(size: int, tenths: int, device: torch.device) -> Tensor:
    """(size, size) rows of Gaussian weights that sum to 1, of a sigma in tenths of a cell."""
    at = np.arange(size)
    weights = np.exp(-0.5 * ((at[:, None] - at) / (0.1 * tenths)) ** 2)
    return torch.as_tensor((weights / weights.sum(1, keepdims=True)).astype(np.float32), device=device)


@lru_cache(maxsize=64)
def _averager(size: int, cells: int, device: torch.device) -> Tensor:
    """(cells, size): means over cells of equal width; a pixel on an edge counts in part."""
    edges = np.linspace(0.0, size, cells + 1)
    at = np.arange(size)
    share = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    return torch.as_tensor((np.clip(share, 0.0, 1.0) * cells / size).astype(np.float32), device=device)


@lru_cache(maxsize=64)
def _interpolator(cells: int, size: int, device: torch.device) -> Tensor:
    """(size, cells): linear weights of the cells' centres, the last repeated beyond them."""
    at = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0.0, cells - 1.0)
    weights = np.clip(1.0 - np.abs(at[:, None] - np.arange(cells)), 0.0, 1.0)
    return torch.as_tensor(weights.astype(np.float32), device=device)


def _scaled(paths: Tensor, a: Appearance, camera: Camera, depth_mm: float) -> Tensor:
    """Path lengths (3, h, w) of this image's densities, with its tissue and instruments: a copy."""
    lines = paths * torch.tensor(a.scales, device=paths.device)[:, None, None]
    if a.tissue is not None:
        x, y = _coordinates(camera.width, camera.height, paths.device)
        mm, sx, sy, bx, by = a.tissue
        lines[0] += mm * ((1 + (sx - bx * x) * x) + (sy - by * y) * y).clamp_(min=0.0)
    if a.instruments:
        lines[2] += torch.as_tensor(metal_mm(a.instruments, camera, depth_mm), device=paths.device)
    return lines


def _ideal(lines: Tensor, a: Appearance, field: Tensor | None) -> Tensor:
    """Line integrals (h, w) at one energy."""
    image = WATER_MU_PER_MM * lines[0] + BONE_MU_PER_MM * lines[1]
    image.add_(lines[2], alpha=METAL_MU_PER_MM)
    bias = _bias(a, image)
    if bias is not None:
        image += _upsampled(bias, image.shape)
    if a.blur_px > 0.15:  # less is no blur
        image = gaussian(image, a.blur_px)
    return image if field is None else torch.where(field, image, -math.log(max(a.leak, _LEAST_LIGHT)))


def _photograph(lines: Tensor, a: Appearance, field: Tensor | None, make: Generator) -> Tensor:
    """-log (h, w) of what a detector reads: polychromatic light, scatter, glare, blades, blur, noise."""
    light = _scattered(_transmission(lines, a), a)
    bias = _bias(a, light)
    if bias is not None:
        light *= _upsampled(torch.exp(-bias), light.shape)
    level = float(torch.exp(torch.log(_coarse(light).clamp(min=_LEAST_LIGHT)).mean()))
    if field is not None:
        light = torch.where(field, light, a.leak * light.max())
    if a.blur_px > 0.15:
        light = gaussian(light, a.blur_px)
    if a.saturation > 0:
        light.clamp_(max=a.saturation * level)
    floor = _LEAST_LIGHT
    if a.photons > 0:
        # Poisson's by its normal limit: below some ten photons the logarithm is noise anyway
        counts = light * (a.photons / level)
        noise = _normal(counts, make)
        light = counts.add_(noise.mul_((counts + a.electronic_noise**2).sqrt_())).mul_(level / a.photons)
        floor = _LEAST_PHOTONS * level / a.photons
    for axis, place, factor in a.bad_lines:
        line = min(int(place * light.shape[axis]), light.shape[axis] - 1)
        light.select(axis, line).mul_(factor)
    return light.clamp_(min=floor).log_().neg_()


def _transmission(lines: Tensor, a: Appearance) -> Tensor:
    """sum_e w_e exp(-sum_m mu_me A_m), (h, w)."""
    beam = spectrum(a.kvp, a.filtration)
    mu = torch.as_tensor(-beam.attenuation(a.metal).T, dtype=torch.float32, device=lines.device)  # (bins, 3)
    weights = torch.as_tensor(beam.weights, dtype=torch.float32, device=lines.device)
    # e^-60 is dark enough, and smaller numbers (denormal ones) are slow
    light = weights @ torch.exp_((mu @ lines.reshape(3, -1)).clamp_(min=-60.0))
    return light.reshape(lines.shape[1:])


def _scattered(light: Tensor, a: Appearance) -> Tensor:
    """Light with scatter and glare.

    The scatter's source is p log(1/p) of the primary light p: as much as is removed thinly, and little behind
    thick parts, which keep it to themselves (Ohnesorge et al. 1999). It is scaled to the ratio asked for,
    where the patient is.
    """
    if a.scatter is None and a.glare is None:
        return light
    coarse = _coarse(light)
    added = torch.zeros_like(coarse)
    if a.scatter is not None:
        ratio, width = a.scatter
        primary = coarse.clamp(1e-6, 1.0)
        lost = -torch.log(primary)
        behind = (lost > _DARK).to(light.dtype)
        scatter = _spread_coarse(primary * lost, width)
        added = scatter * (ratio * (primary * behind).sum() / (scatter * behind).sum().clamp(min=1e-9))
    if a.glare is not None:
        share, width = a.glare
        added = (1 - share) * added + share * _spread_coarse(coarse + added, width)
        light = light * (1 - share)
    return light + _upsampled(added, light.shape)


def _bias(a: Appearance, like: Tensor) -> Tensor | None:
    """Line integrals of heel effect and wave, on the coarse grid; None where there are none."""
    if a.heel is None and a.wave is None:
        return None
    x, y = (_averager(n, min(_COARSE, n), like.device) @ c.reshape(-1) for n, c in
            zip(like.shape[::-1], _coordinates(like.shape[1], like.shape[0], like.device), strict=True))  # fmt: skip
    x, y = x[None], y[:, None]
    out = torch.zeros((y.shape[0], x.shape[1]), device=like.device)
    if a.heel is not None:
        cx, cy, cxy, cxx, cyy = a.heel
        out = out + (cx + cxx * x) * x + (cy + cyy * y) * y + (cxy * x) * y
    if a.wave is not None:
        size, cycles, phase, angle = a.wave
        out = out + size * torch.sin(math.pi * cycles * (x * math.cos(angle) + y * math.sin(angle)) + phase)
    return out


def _processed(image: Tensor, a: Appearance, make: Generator) -> Tensor:
    """The picture's processing, in parts of its range; the range of line integrals comes back at the end."""
    if a.flatten > 0:
        low = _spread_coarse(_coarse(image), _FLATTEN_WIDTH)
        image = image - a.flatten * _upsampled(low - low.mean(), image.shape)
    ordered = _sample(image)
    dark, bright = (float(v) for v in ordered[[int(0.005 * len(ordered)), min(int(0.995 * len(ordered)), len(ordered) - 1)]])
    span = max(bright - dark, 1e-3)
    part = (image - dark).div_(span)
    if a.window is not None:
        low_part, high_part = a.window
        part.sub_(low_part).div_(high_part - low_part).clamp_(0.0, 1.0)
    if a.gamma != 1.0:
        part.clamp_(min=0.0).pow_(a.gamma)
    if a.equalise > 0:
        part = torch.lerp(part, _rank(part), a.equalise)
    if a.solarise > 0:
        part = torch.minimum(part, 2 * a.solarise - part)
    if a.filter_px > 0:
        part = torch.lerp(gaussian(part, a.filter_px), part, 1.0 + a.sharpen)
    if a.noise > 0:
        part.add_(_normal(part, make), alpha=a.noise)
    if a.specks > 0:
        drawn = torch.rand(part.shape, generator=make, device=part.device)
        part.masked_fill_(drawn < a.specks / 2, 0.0).masked_fill_(drawn > 1 - a.specks / 2, 1.0)
    _corrupt(part, a, make)
    if a.levels > 0:
        part.clamp_(0.0, 1.0).mul_(a.levels - 1.0).round_().div_(a.levels - 1.0)
    if a.inverted:
        part.neg_().add_(1.0)
    return part.mul_(span)


def _rank(part: Tensor) -> Tensor:
    """Each pixel's place, 0..1, among the image's grey values, of which 256 are told apart."""
    ordered = _sample(part)
    levels = torch.linspace(0.0, 1.0, 256, device=part.device)
    table = torch.searchsorted(ordered, levels).to(part.dtype) / len(ordered)
    return table[(part.clamp(0.0, 1.0) * 255).long()]


def _corrupt(image: Tensor, a: Appearance, make: Generator) -> None:
    height, width = image.shape
    for u, v, wide, high, noise, value in a.boxes:
        left, top = int(u * width), int(v * height)
        box = image[top : top + max(1, round(high * height)), left : left + max(1, round(wide * width))]
        if value >= 0:
            box.fill_(value)
        if noise > 0:
            box.add_(torch.randn(box.shape, generator=make, device=box.device), alpha=noise)


def _open_field(a: Appearance, camera: Camera, margin_px: float, device: torch.device) -> Tensor:
    """(h, w) bool, True inside blades and circle, and ``margin_px`` away from them."""
    x, y = _coordinates(camera.width, camera.height, device)
    margin = margin_px / (max(camera.width, camera.height) / 2)
    out = torch.ones((camera.height, camera.width), dtype=torch.bool, device=device)
    for angle, distance in a.blades:
        out &= x * math.cos(angle) + y * math.sin(angle) <= distance - margin
    if a.circle is not None:
        cx, cy, radius = a.circle
        out &= (x - cx).square() + (y - cy).square() <= max(radius - margin, 0.0) ** 2
    return out


@lru_cache(maxsize=16)
def _coordinates(width: int, height: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """x (1, w) and y (h, 1), -1..1 across the longer side."""
    half = max(width, height) / 2
    x = (torch.arange(width, device=device) - (width - 1) / 2) / half
    y = (torch.arange(height, device=device) - (height - 1) / 2) / half
    return x[None], y[:, None]


def _sample(image: Tensor) -> Tensor:
    """The grey values of about a thousand pixels, ascending."""
    step = max(1, min(image.shape) // 32)
    return image[step // 2 :: step, step // 2 :: step].reshape(-1).sort().values


def _normal(like: Tensor, make: Generator) -> Tensor:
    return torch.empty_like(like).normal_(generator=make)
