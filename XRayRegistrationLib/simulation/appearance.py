"""What stands between path lengths and the picture that a registration is handed, drawn at random.

An :class:`Appearance` holds the plain numbers of one image, so that it can be written down and developed
again; :func:`develop` makes the images, many at a time (``simulation.developing`` has the optics).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions, Range
from XRayRegistrationLib.simulation.instruments import Instrument, draw_instruments
from XRayRegistrationLib.simulation.physics import FILTERS, KVP, METALS

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Appearance:
    """One image's appearance; 0, empty or None is "not". Places are fractions, or -1..1 across the longer side.

    Attributes:
        seed: of the image's noise.
        scales: (soft, bone, metal) path lengths times these.
        linear: no physics.
        kvp, filtration, metal: of ``physics``.
        tissue: thickness in the middle (mm), slopes in x and y, bends in x and y.
        photons, electronic_noise, blur_px, saturation: see :class:`AppearanceOptions`.
        scatter: (ratio, width). glare: (share, width).
        heel: line integrals along x, y, xy, xx, yy. wave: (amplitude, cycles, phase rad, angle rad).
        bad_lines: each (0 row or 1 column, place, factor of the light).
        blades: each (angle rad, distance): open is x cos + y sin <= distance. circle: (x, y, radius) or None.
        leak: light through the blades, over the open beam. filled: what the blades cover is filled.
        flatten, gamma, equalise, solarise, noise, specks: see :class:`AppearanceOptions`.
        window: (low, high) or None.
        sharpen, filter_px: amount (-1 smooths) and sigma of the filter.
        boxes: each (u, v, width, height, noise, value); a value below 0 keeps the picture.
        levels: grey values, 0 for any. inverted: bone is dark.
        instruments: in the beam.
    """

    seed: int
    scales: tuple[float, float, float] = (1.0, 1.0, 1.0)
    linear: bool = True
    kvp: int = 90
    filtration: str = "4.0Al"
    metal: str = "titanium"
    tissue: tuple[float, float, float, float, float] | None = None
    photons: float = 0.0
    electronic_noise: float = 0.0
    blur_px: float = 0.0
    saturation: float = 0.0
    scatter: tuple[float, float] | None = None
    glare: tuple[float, float] | None = None
    heel: tuple[float, float, float, float, float] | None = None
    wave: tuple[float, float, float, float] | None = None
    bad_lines: tuple[tuple[int, float, float], ...] = ()
    blades: tuple[tuple[float, float], ...] = ()
    circle: tuple[float, float, float] | None = None
    leak: float = 0.0
    filled: bool = True
    flatten: float = 0.0
    window: tuple[float, float] | None = None
    gamma: float = 1.0
    equalise: float = 0.0
    solarise: float = 0.0
    sharpen: float = 0.0
    filter_px: float = 0.0
    noise: float = 0.0
    specks: float = 0.0
    boxes: tuple[tuple[float, float, float, float, float, float], ...] = ()
    levels: int = 0
    inverted: bool = False
    instruments: tuple[Instrument, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Appearance:
        """Back from JSON.

        Raises:
            InputError: a name that is no field.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise InputError(f"the appearance has unknown keys {', '.join(unknown)}; allowed are {', '.join(sorted(known))}")
        values = {name: _tuples(value) for name, value in data.items()}
        values["instruments"] = tuple(
            Instrument(**{k: _tuples(v) for k, v in one.items()}) for one in data.get("instruments", ())
        )
        return cls(**values)


def draw_appearance(rng: np.random.Generator, options: AppearanceOptions | None = None) -> Appearance:
    """The numbers of one image; the same state of ``rng`` gives the same."""
    o = options or AppearanceOptions()

    def chance(p: float) -> bool:
        return rng.random() < p

    def within(span: Range) -> float:
        return span[0] + (span[1] - span[0]) * rng.random()

    def log_within(span: Range) -> float:
        return 0.0 if span[1] <= 0 else span[0] * (span[1] / span[0]) ** rng.random()

    seed = int(rng.integers(2**31))
    linear = chance(o.p_linear)
    soft, bone, metal = within(o.soft_scale), within(o.bone_scale), within(o.metal_scale)
    if linear:
        soft, bone = soft * within(o.linear_soft), bone * log_within(o.linear_bone)
    blades: tuple[tuple[float, float], ...] = ()
    circle = None
    collimated = chance(o.p_collimator)
    if collimated:
        blades, circle = _draw_collimator(rng, o)
    filter_px = sharpen = 0.0
    if chance(o.p_filter):
        filter_px = within(o.smooth_px)
        sharpen = -1.0 if chance(0.5) else within(o.sharpen)
    boxes = []
    if chance(o.p_boxes):
        boxes += [_draw_box(rng, 0.2, -1.0) for _ in range(int(rng.integers(1, 6)))]
    if chance(o.p_erase):
        boxes.append(_draw_box(rng, 0.0, rng.random()))
    lines = int(rng.integers(1, 4)) if chance(o.p_bad_lines) else 0
    return Appearance(
        seed,
        (soft, bone, metal),
        linear,
        _draw_kvp(rng, o.kvp),
        str(rng.choice(list(FILTERS))),
        str(rng.choice(METALS)),
        _draw_tissue(rng, within(o.tissue_mm)) if chance(o.p_tissue) else None,
        0.0 if linear else log_within(o.photons),
        0.0 if linear else within(o.electronic_noise),
        within(o.blur_px),
        log_within(o.saturation) if not linear and chance(o.p_saturation) else 0.0,
        (within(o.scatter_ratio), within(o.scatter_width)) if not linear and chance(o.p_scatter) else None,
        (within(o.glare), within(o.glare_width)) if not linear and chance(o.p_glare) else None,
        _draw_heel(rng, within(o.heel)) if chance(o.p_heel) else None,
        (within(o.wave), within((0.3, 3.0)), within((0.0, 6.2832)), within((0.0, 6.2832))) if chance(o.p_wave) else None,
        tuple((int(rng.integers(2)), rng.random(), within((0.0, 1.5))) for _ in range(lines)) if not linear else (),
        blades,
        circle,
        within((0.001, 0.01)),
        not (collimated and chance(o.p_raw_border)),
        within(o.flatten) if chance(o.p_flatten) else 0.0,
        (within(o.window_low), within(o.window_high)) if chance(o.p_window) else None,
        within(o.gamma) if chance(o.p_gamma) else 1.0,
        within((0.3, 1.0)) if chance(o.p_equalise) else 0.0,
        within((0.6, 0.95)) if chance(o.p_solarise) else 0.0,
        sharpen,
        filter_px,
        log_within(o.noise) if chance(o.p_noise) else 0.0,
        within((0.0005, 0.01)) if chance(o.p_specks) else 0.0,
        tuple(boxes),
        256 if chance(o.p_quantise) else 0,
        chance(o.p_invert),
        draw_instruments(rng, o.most_instruments) if chance(o.p_instruments) else (),
    )


def draw_appearances(seed: int, count: int, options: AppearanceOptions | None = None) -> tuple[Appearance, ...]:
    """``count`` appearances; number n depends on (seed, n) alone."""
    return tuple(draw_appearance(np.random.default_rng([seed, n]), options) for n in range(count))


def develop(
    path_mm: Tensor,
    appearances: Sequence[Appearance],
    camera: Camera,
    *,
    object_depth_mm: ArrayLike | None = None,
) -> tuple[Tensor, Tensor]:
    """Images of path lengths, as a registration is handed them: bone bright, about line integrals.

    Noise and everything else random of an image depends on its own appearance alone, not on the batch.
    (The CPU's and the GPU's noise differ.)

    Args:
        path_mm: (N, 3, H, W) float32, mm of soft tissue, bone and metal; not changed.
        appearances: N.
        camera: of the images; instruments need it.
        object_depth_mm: (N,) or one, distance of the bone from the source, where instruments lie; None for
            0.65 of the SDD.

    Returns:
        image (N, H, W) float32, its darkest about 0, bone bright unless inverted on purpose, not
        standardised; and open_field (N, H, W) bool, True where no blade is.

    Raises:
        InputError: shapes that do not fit together.
    """
    from XRayRegistrationLib.simulation import developing

    count = len(appearances)
    expected = (count, 3, camera.height, camera.width)
    if tuple(path_mm.shape) != expected:
        raise InputError(f"path_mm has the shape {tuple(path_mm.shape)}; allowed is {expected}, as camera and appearances say")
    if object_depth_mm is None:
        object_depth_mm = 0.65 * (camera.source_detector_distance_mm or 1000.0)
    depths = np.broadcast_to(np.asarray(object_depth_mm, dtype=np.float64), (count,))
    return developing.developed(path_mm, appearances, camera, depths)


def _draw_kvp(rng: np.random.Generator, span: tuple[int, int]) -> int:
    allowed = [k for k in KVP if span[0] <= k <= span[1]]
    if not allowed:
        raise InputError(f"kvp is {span!r}; allowed is a range that holds one of {', '.join(map(str, KVP))}")
    return allowed[int(rng.integers(len(allowed)))]


def _draw_tissue(rng: np.random.Generator, thickness_mm: float) -> tuple[float, float, float, float, float]:
    slope, bend = rng.normal(0.0, 0.3, 2), rng.uniform(0.0, 1.2, 2)
    return thickness_mm, float(slope[0]), float(slope[1]), float(bend[0]), float(bend[1])


def _draw_heel(rng: np.random.Generator, most: float) -> tuple[float, float, float, float, float]:
    x, y, xy, xx, yy = (float(v) for v in rng.uniform(-1.0, 1.0, 5) * most)
    return x, y, xy, xx, yy


def _draw_collimator(
    rng: np.random.Generator, options: AppearanceOptions
) -> tuple[tuple[tuple[float, float], ...], tuple[float, float, float] | None]:
    """Blades, or a circle; coordinates -1..1 across the image's longer side."""
    shape = str(rng.choice(options.collimator_shapes))
    low, high = options.collimator_open
    x, y = rng.uniform(-0.1, 0.1, 2)
    if shape == "circle":
        return (), (float(x), float(y), float(rng.uniform(max(low, 0.75), max(high, 1.1))))
    if shape == "shutters":
        return tuple(
            (float(rng.uniform(0.0, 2 * np.pi)), float(rng.uniform(0.5 * low, high))) for _ in range(int(rng.integers(1, 3)))
        ), None
    turn = float(rng.choice([0.0, rng.uniform(-0.3, 0.3)]))
    half = rng.uniform(low, high, 2)
    sides = [(turn + n * np.pi / 2, float(half[n % 2])) for n in range(4)]
    if shape == "octagon":
        corner = float(rng.uniform(1.0, 1.25) * half.mean())
        sides += [(turn + np.pi / 4 + n * np.pi / 2, corner) for n in range(4)]
    return tuple((float(a), float(d + x * np.cos(a) + y * np.sin(a))) for a, d in sides), None


def _draw_box(rng: np.random.Generator, noise: float, value: float) -> tuple[float, float, float, float, float, float]:
    """Sides |N(15 %, 15 %)| of the image, at least 3 %."""
    width, height = (float(s) for s in np.clip(np.abs(rng.normal(0.15, 0.15, 2)), 0.03, 0.6))
    return float(rng.uniform(0, 1 - width)), float(rng.uniform(0, 1 - height)), width, height, noise, float(value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
