"""Screws, wires and rods in the beam: capsules with analytic chords, in camera space near the patient.

A ray is t D from the source, D of length 1. A capsule is a cylinder of radius r about the segment from a
along the unit vector w to a + L w, closed by half balls. The ray's closest distance from the axis is
d = D . (w x a) / |D x w|, met at t0 = (D . a - (D . w)(a . w)) / |D x w|^2, so it is in the endless
cylinder for t0 +- sqrt(r^2 - d^2) / |D x w|; this is cut where the ray leaves the segment's slab, and
joined with what it has in the two balls. A capsule is convex: the chord is one interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.geometry.camera import Camera

Array = NDArray[np.float64]

KINDS = ("screw", "wire", "rod")
_SUBPIXELS = 3  # along each side: a wire is thinner than a pixel


@dataclass(frozen=True)
class Instrument:
    """One of metal.

    Attributes:
        kind: of :data:`KINDS`.
        place: (u, v) of its middle as fractions of the image's width and height.
        depth_mm: of its middle beyond (or, negative, before) the object's depth.
        direction: unit vector in camera axes, from tail (a screw's head) to tip.
        length_mm, radius_mm: of the shaft; a screw's radius is that over its thread.
        head_mm: (radius, length) of a screw's head, 0 for none.
        thread_mm: (depth, pitch) of a screw's thread, 0 for none.
    """

    kind: str
    place: tuple[float, float]
    depth_mm: float
    direction: tuple[float, float, float]
    length_mm: float
    radius_mm: float
    head_mm: tuple[float, float] = (0.0, 0.0)
    thread_mm: tuple[float, float] = (0.0, 0.0)


def draw_instruments(rng: np.random.Generator, most: int = 4) -> tuple[Instrument, ...]:
    """One to ``most`` random ones; several screws lie side by side, as they do in a plate or a spine.

    Sizes are of common implants: screws of 3.5 to 7.5 mm thickness and 20 to 90 mm length, Kirschner wires
    of 1 to 2.5 mm, rods of 4.75 to 6.35 mm.
    """
    kind = str(rng.choice(KINDS))
    count = int(rng.integers(1, most + 1))
    direction = rng.normal(size=3) * [1.0, 1.0, 0.5]  # rather across the beam than along it
    place, step = rng.uniform(0.15, 0.85, 2), rng.normal(0.0, 0.12, 2)
    radius, length = _size(kind, rng)
    out = []
    for n in range(count):
        d = direction / np.linalg.norm(direction) + rng.normal(0.0, 0.06, 3)
        d /= np.linalg.norm(d)
        at = place + n * step + rng.normal(0.0, 0.01, 2)
        screw = kind == "screw"
        out.append(
            Instrument(
                kind,
                (float(at[0]), float(at[1])),
                float(rng.uniform(-60.0, 60.0)),
                (float(d[0]), float(d[1]), float(d[2])),
                float(length * rng.uniform(0.9, 1.1)),
                radius,
                (float(radius * rng.uniform(1.3, 1.9)), float(rng.uniform(2.0, 8.0))) if screw else (0.0, 0.0),
                (float(radius * rng.uniform(0.15, 0.35)), float(rng.uniform(1.2, 3.0))) if screw else (0.0, 0.0),
            )
        )
    return tuple(out)


def _size(kind: str, rng: np.random.Generator) -> tuple[float, float]:
    """Radius and length in mm."""
    radius, length = {"screw": ((1.75, 3.75), (20.0, 90.0)), "wire": ((0.5, 1.25), (60.0, 220.0)),
                      "rod": ((2.375, 3.175), (50.0, 200.0))}[kind]  # fmt: skip
    return float(rng.uniform(*radius)), float(rng.uniform(*length))


def metal_mm(instruments: Sequence[Instrument], camera: Camera, object_depth_mm: float) -> NDArray[np.float32]:
    """mm of metal on each ray, the mean over each pixel: (height, width).

    Two instruments that cross add up; a screw's head and shaft count once where they overlap.

    Args:
        object_depth_mm: distance of the patient's bone from the source along the beam.
    """
    out = np.zeros((camera.height, camera.width), np.float32)
    offset = (np.arange(_SUBPIXELS) + 0.5) / _SUBPIXELS - 0.5
    dv, du = np.meshgrid(offset / camera.K[1, 1], offset / camera.K[0, 0], indexing="ij")
    sub = np.stack([du, dv, 0 * du], axis=-1).reshape(-1, 3)
    for instrument in instruments:
        tail, tip = ends = _ends(instrument, camera, object_depth_mm)
        box = _box(ends, max(instrument.radius_mm, sum(instrument.head_mm)), camera)
        if box is None:
            continue
        rays = _rays(camera, box)
        near = _near(rays, tail, tip, _reach_mm(instrument, ends, camera))
        if len(near):
            d = (rays[near][:, None] + sub).reshape(-1, 3)
            d /= np.sqrt(np.einsum("na,na->n", d, d))[:, None]
            part = np.zeros(len(rays), np.float32)
            part[near] = _instrument_chord(instrument, d, tail, tip).reshape(len(near), -1).mean(1)
            out[box] += part.reshape(out[box].shape)
    return out


def capsule_interval(d: Array, tail: Array, tip: Array, radius: Array | float) -> tuple[Array, Array]:
    """Where rays (n, 3) of unit length are inside a capsule: (t_in, t_out), (n,) mm; t_out <= t_in where never.

    Args:
        tail, tip: (3,) ends of the axis in camera mm.
        radius: mm, one or one for each ray.
    """
    axis = tip - tail
    length = np.sqrt(axis @ axis)
    w = axis / length
    along = d @ w
    across = np.maximum(1.0 - along**2, 1e-12)  # |D x w|^2
    radius2 = np.square(radius)
    miss2 = (d @ np.cross(w, tail)) ** 2 / across
    middle = (d @ tail - along * (tail @ w)) / across
    half = np.sqrt(np.maximum(radius2 - miss2, 0.0) / across)
    # the slab 0 <= s <= L of s(t) = t (D . w) - a . w
    slope = np.where(np.abs(along) < 1e-9, 1e-9, along)
    begin, end = (tail @ w) / slope, (tail @ w + length) / slope
    t_in = np.maximum(middle - half, np.minimum(begin, end))
    t_out = np.minimum(middle + half, np.maximum(begin, end))
    inside = (miss2 < radius2) & (t_out > t_in)
    t_in, t_out = np.where(inside, t_in, np.inf), np.where(inside, t_out, -np.inf)
    for ball in (tail, tip):
        at = d @ ball
        half2 = radius2 - (ball @ ball - at**2)
        hit, root = half2 > 0, np.sqrt(np.maximum(half2, 0.0))
        t_in = np.where(hit, np.minimum(t_in, at - root), t_in)
        t_out = np.where(hit, np.maximum(t_out, at + root), t_out)
    met = t_out > t_in
    return np.where(met, t_in, 0.0), np.where(met, t_out, 0.0)


def _instrument_chord(instrument: Instrument, d: Array, tail: Array, tip: Array) -> Array:
    radius = _thread_radius(instrument, d, tail, tip) if instrument.thread_mm[0] > 0 else instrument.radius_mm
    t_in, t_out = capsule_interval(d, tail, tip, radius)
    chord = t_out - t_in
    head_radius, head_length = instrument.head_mm
    if head_radius > 0:
        w = (tip - tail) / np.linalg.norm(tip - tail)
        h_in, h_out = capsule_interval(d, tail - head_length * w, tail, head_radius)
        both = np.maximum(np.minimum(t_out, h_out) - np.maximum(t_in, h_in), 0.0) * ((t_out > t_in) & (h_out > h_in))
        chord = chord + (h_out - h_in) - both
    return chord


def _thread_radius(instrument: Instrument, d: Array, tail: Array, tip: Array) -> Array:
    """The radius (n,) that each ray meets: a ridge that winds about the shaft, half a turn apart on its two sides."""
    depth, pitch = instrument.thread_mm
    w = (tip - tail) / np.linalg.norm(tip - tail)
    along = d @ w
    across = np.maximum(1.0 - along**2, 1e-6)
    miss = (d @ np.cross(w, tail)) / np.sqrt(across)
    s = (d @ tail - along * (tail @ w)) / across * along - tail @ w  # along the axis, where the ray is nearest to it
    ridge = np.abs(2.0 * ((s / pitch + 0.5 * (miss > 0)) % 1.0) - 1.0)
    side = np.minimum(np.abs(miss) / instrument.radius_mm, 1.0)  # in the middle the ray meets front and back: their mean
    radius: Array = instrument.radius_mm - depth * (0.5 + (ridge - 0.5) * side)
    return radius


def _ends(instrument: Instrument, camera: Camera, object_depth_mm: float) -> Array:
    """Tail and tip (2, 3) of the shaft's axis in camera mm."""
    z = max(object_depth_mm + instrument.depth_mm, 0.2 * object_depth_mm)
    pixel = np.array([instrument.place[0] * camera.width, instrument.place[1] * camera.height]) - 0.5
    middle = np.array([(pixel[0] - camera.K[0, 2]) / camera.K[0, 0], (pixel[1] - camera.K[1, 2]) / camera.K[1, 1], 1.0]) * z
    half = np.asarray(instrument.direction) * instrument.length_mm / 2
    return np.stack([middle - half, middle + half])


def _reach_mm(instrument: Instrument, ends: Array, camera: Camera) -> float:
    """How far from the axis a pixel may lie that the instrument touches."""
    pixel_mm = float(ends[:, 2].max()) / min(float(camera.K[0, 0]), float(camera.K[1, 1]))
    return max(instrument.radius_mm, sum(instrument.head_mm)) + 1.5 * pixel_mm


def _box(ends: Array, radius_mm: float, camera: Camera) -> tuple[slice, slice] | None:
    """Rows and columns of the image that hold the whole; None where it is outside."""
    if ends[:, 2].min() <= 2 * radius_mm:
        return slice(0, camera.height), slice(0, camera.width)
    pixels = camera.project(ends)
    margin = 2.0 + 1.5 * radius_mm * np.array([camera.K[0, 0], camera.K[1, 1]]) / (ends[:, 2].min() - radius_mm)
    low = np.maximum(np.floor(pixels.min(axis=0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(pixels.max(axis=0) + margin) + 1, [camera.width, camera.height]).astype(int)
    return None if (high <= low).any() else (slice(low[1], high[1]), slice(low[0], high[0]))


def _rays(camera: Camera, box: tuple[slice, slice]) -> Array:
    """Directions (n, 3) of a box's pixels, row by row, with z = 1."""
    rows, columns = box
    small = camera.cropped(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
    return small.ray_directions().reshape(-1, 3)


def _near(rays: Array, tail: Array, tip: Array, reach_mm: float) -> NDArray[np.intp]:
    """Numbers of the rays (n, 3) with z = 1 that come within ``reach_mm`` of the segment."""
    length = np.linalg.norm(tip - tail)
    w = (tip - tail) / length
    along, square = rays @ w, np.einsum("na,na->n", rays, rays)
    across = np.maximum(square - along * along, 1e-12)
    close = (rays @ np.cross(w, tail)) ** 2 < across * reach_mm**2
    s = ((rays @ tail) * along - (tail @ w) * square) / across
    close &= (s > -reach_mm) & (s < length + reach_mm)
    # nearly along the beam the place on the axis is anywhere: there the ends count
    close |= across < 1e-4 * square
    for end in (tail, tip):
        close |= (square * (end @ end) - (rays @ end) ** 2) < square * reach_mm**2
    return np.flatnonzero(close)
