"""From path lengths to what a detector reads: beam hardening, scatter, blur, noise, collimator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

# NIST XCOM linear attenuation in mm^-1 at these energies: water, and cortical bone of 1.92 g/cm^3.
_ENERGY_KEV = np.array([40.0, 50.0, 60.0, 80.0, 100.0])
_MU_WATER = np.array([0.02683, 0.02269, 0.02059, 0.01837, 0.01707])
_MU_BONE = np.array([0.12778, 0.08145, 0.06044, 0.04280, 0.03562])
_SPECTRUM = np.array([0.16, 0.27, 0.29, 0.19, 0.09])  # photons reaching an empty detector, 100 kV, filtered


@dataclass(frozen=True)
class DegradationOptions:
    """What stands between a perfect line integral and a real X-ray; each default is the demo's.

    Attributes:
        photons_per_pixel: mean count in the open beam; sets the Poisson noise.
        electronic_noise: standard deviation, in photons.
        blur_px: Gaussian sigma of focal spot and detector, in pixels.
        scatter_fraction: scattered light at the detector over the mean primary light behind the patient.
        scatter_width: Gaussian sigma of the scatter, as a fraction of the image's width.
        collimator: "rectangle", "circle", "none" or "random" (one of the three).
        collimator_leak: light that passes the collimator's blades, over the open beam.
    """

    photons_per_pixel: float = 20_000.0
    electronic_noise: float = 5.0
    blur_px: float = 0.6
    scatter_fraction: float = 0.3
    scatter_width: float = 0.1
    collimator: str = "random"
    collimator_leak: float = 0.002


def degrade(
    soft_mm: ArrayLike, bone_mm: ArrayLike, seed: int, options: DegradationOptions | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Detector counts of an X-ray (open beam bright, bone dark), and where the collimator is open.

    I = sum_e w_e exp(-mu_water(e) soft - mu_bone(e) bone), then scatter, collimator, blur, Poisson
    and electronic noise.

    Args:
        soft_mm, bone_mm: (height, width) path lengths of simulation.materials.
        seed: of the noise and of the collimator's shape.
        options: None for the defaults.

    Returns:
        Counts (height, width) float32, and the mask of the open field.
    """
    options = options or DegradationOptions()
    rng = np.random.default_rng(seed)
    soft, bone = np.asarray(soft_mm, dtype=np.float64), np.asarray(bone_mm, dtype=np.float64)
    primary = np.zeros_like(soft)
    for weight, mu_water, mu_bone in zip(_SPECTRUM, _MU_WATER, _MU_BONE, strict=True):
        primary += weight * np.exp(-mu_water * soft - mu_bone * bone)
    # Scatter comes from the patient: as much as the light that the patient let through, spread wide.
    behind = (soft + bone) > 1.0
    level = float(primary[behind].mean()) if behind.any() else 0.0
    spread = ndimage.gaussian_filter(behind.astype(np.float64), options.scatter_width * soft.shape[1])
    light = primary + options.scatter_fraction * level * spread
    open_field = collimator_mask(soft.shape, options.collimator, rng)
    light = np.where(open_field, light, options.collimator_leak)
    light = ndimage.gaussian_filter(light, options.blur_px)
    counts = rng.poisson(light * options.photons_per_pixel) + rng.normal(0, options.electronic_noise, soft.shape)
    return np.maximum(counts, 0.0).astype(np.float32), open_field


def collimator_mask(shape: tuple[int, ...], kind: str, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Open field (height, width) of a random collimator of this kind: at least three quarters of the width."""
    if kind == "random":
        kind = str(rng.choice(["rectangle", "circle", "none"]))
    height, width = shape
    v, u = np.mgrid[:height, :width]
    if kind == "none":
        return np.ones(shape, bool)
    if kind == "circle":
        radius = rng.uniform(0.48, 0.55) * min(width, height)
        centre_u = (width - 1) / 2 + rng.uniform(-0.02, 0.02) * width
        centre_v = (height - 1) / 2 + rng.uniform(-0.02, 0.02) * height
        return np.hypot(u - centre_u, v - centre_v) <= radius
    if kind == "rectangle":
        left, right = rng.uniform(0, 0.12, 2) * width
        top, bottom = rng.uniform(0, 0.12, 2) * height
        return (u >= left) & (u < width - right) & (v >= top) & (v < height - bottom)
    raise ValueError(f"collimator {kind!r} is unknown; allowed are rectangle, circle, none, random")
