"""A synthetic torso CT: for a demonstration that needs no download, and shows no patient.

Bones and organs are capsules along lines (an ellipsoid is one of length 0), cylinders and ellipses,
as distance fields in mm. A tissue is the smallest distance to any of its parts, painted over what
was there before with an edge one voxel wide, so that nothing aliases. Coordinates are of the body:
x to the patient's right, y to the front, z to the head; mm; z = 0 in the middle of the eighth
thoracic vertebra. ``side`` is 1 on the right and -1 on the left.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.rigid import rotation_exp
from XRayRegistrationLib.images.volume import Volume

Field = NDArray[np.float32]
Array = NDArray[np.float64]
T = TypeVar("T")
Steps = Generator[tuple[float, str], None, T]

BONE_HU = 150.0  # above it there is nothing but bone
_LOW_MM, _HIGH_MM = np.array([-199.0, -160.0, -160.0]), np.array([199.0, 160.0, 170.0])
_SPACINGS_MM = (1.0, 6.0)
_SCANNER_MM = np.array([4.0, 23.0, -812.0])  # body from scanner: a patient never lies where the scanner's origin is
_SEED = 8  # of everything that makes this body one of its own

# Outline: height, half width, half depth, y of the centre.
_OUTLINE = np.array([
    (-170, 150, 104, 0), (-60, 160, 111, 0), (20, 167, 113, 0), (75, 168, 106, -7), (105, 154, 92, -20),
    (128, 108, 78, -27), (146, 70, 64, -25), (172, 60, 60, -20),
], dtype=np.float64)  # fmt: skip
# Vertebrae T1 to L1: of their bodies the height of the centre, its y, half width, half depth, height.
_VERTEBRAE = np.array([
    (156, -34, 15, 9, 16), (136, -39, 15, 10, 16.5), (115, -43, 15, 11, 17), (94, -46, 15, 12, 17.5), (72, -48, 15, 12.5, 18),
    (49, -50, 15.5, 13, 19), (25, -50, 16, 13.5, 19.5), (0, -50, 16.5, 14, 20), (-26, -49, 17.5, 14.5, 21),
    (-53, -47, 18.5, 15, 22), (-81, -44, 20, 15.5, 23), (-111, -41, 21.5, 16, 24.5), (-142, -38, 22.5, 16.5, 25.5),
], dtype=np.float64)  # fmt: skip
# Ribs 1 to 12: half width, y of back and front of their ellipse, slope -dz / dy, angle from the back where bone ends.
_RIBS = np.array([
    (48, -62, 30, 0.50, 150), (78, -74, 52, 0.58, 149), (100, -80, 66, 0.63, 147), (114, -84, 76, 0.66, 145),
    (123, -86, 84, 0.68, 142), (129, -87, 90, 0.70, 137), (133, -87, 94, 0.70, 132), (135, -86, 95, 0.70, 125),
    (134, -84, 94, 0.68, 116), (130, -82, 90, 0.64, 106), (124, -80, 85, 0.60, 70), (116, -78, 80, 0.55, 46),
], dtype=np.float64)  # fmt: skip


@dataclass(frozen=True)
class _Grid:
    """Axes in body mm, ascending, shaped to broadcast to (nk, nj, ni)."""

    x: Field
    y: Field
    z: Field
    spacing_mm: float

    def far(self) -> Field:
        """A distance field with nothing in it."""
        return np.full((self.z.size, self.y.size, self.x.size), 1e3, np.float32)

    def box(self, centre: Array, half: Array) -> tuple[tuple[slice, slice, slice], tuple[Field, Field, Field]]:
        """The voxels within ``half`` (x, y, z) of a point, with a margin, and their offsets from it."""
        axes = [a.ravel() for a in (self.x, self.y, self.z)]
        reach = half + 1.5 * self.spacing_mm
        i, j, k = (slice(*np.searchsorted(a, (c - r, c + r))) for a, c, r in zip(axes, centre, reach, strict=True))
        offset = [a - np.float32(c) for a, c in zip((self.x, self.y, self.z), centre, strict=True)]
        return (k, j, i), (offset[0][:, :, i], offset[1][:, j], offset[2][k])


def run_through(steps: Steps[T]) -> T:
    """What a generator returns, its steps taken at once."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


def torso_phantom(spacing_mm: float = 2.0) -> Volume:
    """A chest CT in HU: int16, (166, 161, 200) voxels at 2 mm, laid out as the axial CT of a supine patient.

    i runs to the patient's left, j to the back, k to the head. Heart, liver and aorta lie on their
    sides, and no bone is the mirror image of another: AP and PA, left and right can be told apart.

    Raises:
        InputError: a spacing below 1 mm or above 6 mm.
    """
    return run_through(torso_phantom_steps(spacing_mm))


def torso_phantom_steps(spacing_mm: float = 2.0) -> Steps[Volume]:
    """:func:`torso_phantom` in steps of some tenths of a second, that yield (fraction, text)."""
    if not _SPACINGS_MM[0] <= spacing_mm <= _SPACINGS_MM[1]:
        raise InputError(f"spacing {spacing_mm!r} mm is out of range; allowed are {_SPACINGS_MM[0]:g} to {_SPACINGS_MM[1]:g} mm")
    x, y, z = (np.arange(a, b + 1e-6, spacing_mm).astype(np.float32) for a, b in zip(_LOW_MM, _HIGH_MM, strict=True))
    grid = _Grid(x[None, None, :], y[None, :, None], z[:, None, None], spacing_mm)
    rng = np.random.default_rng(_SEED)
    hu = grid.far()
    hu[:] = -1000.0
    painters = (("skin and muscle", _flesh), ("lungs", _lungs), ("heart and great vessels", _mediastinum),
                ("vessels of the lungs", _lung_vessels), ("liver, spleen and stomach", _abdomen), ("spine", _spine),
                ("ribs", _ribs), ("shoulders", _shoulders))  # fmt: skip
    for n, (name, paint) in enumerate(painters):
        yield n / (len(painters) + 1), f"making a torso: {name}"
        paint(hu, grid, rng)
    yield len(painters) / (len(painters) + 1), "making a torso: texture"
    # no organ is even: some HU over a centimetre, as between fat and fibre
    hu += np.where(hu > -950.0, np.float32(18.0), np.float32(0.0)) * _texture(hu.shape, 10.0 / spacing_mm, rng)
    values = np.ascontiguousarray(np.rint(np.maximum(hu, -1000.0)).astype(np.int16)[:, ::-1, ::-1])
    ras_from_ijk = np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0])
    ras_from_ijk[:3, 3] = np.array([x[-1], y[-1], z[0]]) - _SCANNER_MM
    return Volume(values, ras_from_ijk, "synthetic torso")


def _texture(shape: tuple[int, ...], period: float, rng: np.random.Generator) -> Field:
    """Smooth noise of about 1: random numbers ``period`` voxels apart, and lines between them."""
    out = rng.normal(0.0, 1.0, [int(n / period) + 2 for n in shape]).astype(np.float32)
    for axis, n in enumerate(shape):
        at = np.arange(n) / period
        below = at.astype(int)
        part = (at - below).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        out = out.take(below, axis) * (1 - part) + out.take(below + 1, axis) * part
    return out


def _capsule(field: Field, grid: _Grid, a: ArrayLike, b: ArrayLike, radius: ArrayLike, shape: ArrayLike | None = None) -> None:
    """Add to ``field`` the capsule from ``a`` to ``b`` of one radius, or one at each end: |M (p - nearest)| - radius.

    ``shape`` is M (3, 3), or its diagonal: a capsule with an elliptic section, or an oriented one.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    m = np.eye(3) if shape is None else np.asarray(shape, dtype=np.float64)
    m = np.diag(m) if m.ndim == 1 else m
    ra, rb = np.broadcast_to(np.asarray(radius, dtype=np.float64), (2,))
    around = max(ra, rb) * np.linalg.norm(np.linalg.inv(m), axis=1)
    at, (x, y, z) = grid.box((a + b) / 2, np.abs(b - a) / 2 + around)
    q = [np.float32(r[0]) * x + np.float32(r[1]) * y + np.float32(r[2]) * z for r in m]
    axis = m @ (b - a)
    t: Field | np.float32 = np.float32(0.0)
    if axis.any():  # 0 in the middle, -1/2 at a, 1/2 at b
        along = sum(np.float32(c) * part for c, part in zip(axis / (axis @ axis), q, strict=True))
        t = np.clip(along, np.float32(-0.5), np.float32(0.5))
        q = [part - np.float32(c) * t for c, part in zip(axis, q, strict=True)]
    distance = np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2) - (np.float32((ra + rb) / 2) + np.float32(rb - ra) * t)
    np.minimum(field[at], distance, out=field[at])


def _ellipsoid(field: Field, grid: _Grid, centre: ArrayLike, semi: ArrayLike, turn: ArrayLike = (0.0, 0.0, 0.0)) -> None:
    """Add an ellipsoid with these semi-axes, turned by a rotation vector in degrees."""
    semi = np.asarray(semi, dtype=np.float64)
    m = np.diag(semi.min() / semi) @ rotation_exp(np.radians(turn)).T
    _capsule(field, grid, centre, centre, semi.min(), m)


def _tube(field: Field, grid: _Grid, points: ArrayLike, radius: ArrayLike, shape: ArrayLike | None = None) -> None:
    """Add capsules along a line of points (n, 3), of one radius or one for each point."""
    points = np.asarray(points, dtype=np.float64)
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), len(points))
    for n in range(len(points) - 1):
        _capsule(field, grid, points[n], points[n + 1], radii[n : n + 2], shape)


def _cylinder(field: Field, grid: _Grid, centre: ArrayLike, semi: ArrayLike, tilt_deg: float) -> None:
    """Add an elliptic cylinder (semi-axes x, y, half height) with a waist, its top tilted to the front."""
    a, b, h = (np.float32(s) for s in np.asarray(semi, dtype=np.float64))
    at, (x, y, z) = grid.box(np.asarray(centre, dtype=np.float64), np.array([a, b + h / 2, h + b / 2], dtype=np.float64))
    c, s = np.float32(np.cos(np.radians(tilt_deg))), np.float32(np.sin(np.radians(tilt_deg)))
    y, z = c * y - s * z, s * y + c * z
    waist = np.float32(0.86) + np.float32(0.14) * (z / h) ** 2
    sides = (np.sqrt((x / a) ** 2 + (y / b) ** 2) - waist) * b
    np.minimum(field[at], np.maximum(sides, np.abs(z) - h), out=field[at])


def _paint(hu: Field, grid: _Grid, field: Field, value: float | Field, depth_mm: float = 0.0) -> None:
    """Fill what lies more than ``depth_mm`` inside a distance field."""
    at = np.flatnonzero(field < 0.5 * grid.spacing_mm - depth_mm)
    share = np.clip(0.5 - (field.ravel()[at] + depth_mm) / grid.spacing_mm, 0.0, 1.0)
    flat = hu.reshape(-1)
    flat[at] += share * ((value.ravel()[at] if isinstance(value, np.ndarray) else value) - flat[at])


def _paint_bone(hu: Field, grid: _Grid, field: Field, cortex: float, inside: float, shell_mm: float) -> None:
    _paint(hu, grid, field, cortex)
    _paint(hu, grid, field, inside, shell_mm)


def _flesh(hu: Field, grid: _Grid, _: np.random.Generator) -> None:
    """Skin, fat under it, and muscle: a torso that narrows to a neck, with both arms raised."""
    a, b, yc = (np.interp(grid.z, _OUTLINE[:, 0], c).astype(np.float32) for c in _OUTLINE.T[1:])
    # the power 2.4 makes an ellipse somewhat square, as a chest is that lies on its back
    body = (((np.abs(grid.x) / a) ** 2.4 + (np.abs(grid.y - yc) / b) ** 2.4) ** np.float32(1 / 2.4) - 1) * np.minimum(a, b)
    body = ndimage.gaussian_filter1d(body, 8.0 / grid.spacing_mm, axis=0)
    for side, lower in ((1, 60), (-1, 57)):
        _tube(body, grid, [(side * 124, -42, lower), (side * 140, -38, 118), (side * 148, -20, 190)], [50, 49, 41])
    _paint(hu, grid, body, 20.0)
    _paint(hu, grid, body, -100.0, 2.0)
    _paint(hu, grid, body, 48.0, 11.0)


def _lungs(hu: Field, grid: _Grid, _: np.random.Generator) -> None:
    """Air inside the ribs, above the domes of the diaphragm; the right dome is the higher one."""
    # ribs slope, and so do the sections of the cage: all that one rib encloses has one height u at the back
    u = grid.z + np.float32(0.62) * (grid.y + 60)
    heights = [172, *_VERTEBRAE[:10, 0], -260][::-1]
    width, back, front = ([*end, *(_RIBS[:10, c] + d), *_RIBS[9:10, c] + d][::-1]
                          for c, d, end in ((0, -8, [12]), (1, 6, [-40]), (2, -7, [-10])))  # fmt: skip
    a, y0, y1 = (np.interp(u, heights, values).astype(np.float32) for values in (width, back, front))
    b = (y1 - y0) / 2
    cage = (np.sqrt((grid.x / a) ** 2 + ((grid.y - (y0 + y1) / 2) / b) ** 2) - 1) * np.minimum(a, b)
    for side, top in ((1, -44), (-1, -57)):
        dome = top - 66 * ((side * grid.x - 58) / 80) ** 2 - 44 * ((grid.y - 22) / 95) ** 2
        of_side = np.maximum(cage, (dome - grid.z) * np.float32(0.8))
        _paint(hu, grid, np.maximum(of_side, 9 - side * grid.x), (-820 - 0.3 * grid.y + 0 * cage).astype(np.float32))


def _mediastinum(hu: Field, grid: _Grid, _: np.random.Generator) -> None:
    """Heart to the left, aorta with its arch, great vessels, and an airway in the middle."""
    soft, blood, air = grid.far(), grid.far(), grid.far()
    _tube(soft, grid, [(0, -18, 172), (0, -2, 105), (0, 8, 40), (2, 0, -100)], [20, 24, 25, 24], (1.0, 0.42, 1.0))
    _ellipsoid(blood, grid, (-26, 24, -32), (68, 44, 50), (0, -30, 18))  # long axis to the left, down and forward
    _ellipsoid(blood, grid, (22, 18, -15), (28, 34, 42))  # right atrium
    arch = [(4, 20, 10), (10, 22, 55), (0, 10, 86), (-20, -10, 92), (-30, -30, 76)]
    _tube(blood, grid, [*arch, (-28, -36, 30), (-20, -30, -60), (-6, -20, -165)], [15, 15, 14, 13, 13, 12, 11, 10])
    _tube(blood, grid, [(22, 8, 120), (24, 12, 60), (22, 10, 10)], 9)  # superior vena cava
    for side, z in ((1, 28), (-1, 36)):  # pulmonary arteries
        _tube(blood, grid, [(-4, 12, z + 8), (side * 26, 0, z), (side * 42, -8, z - 14)], [11, 10, 6])
    _tube(air, grid, [(1, -14, 172), (2, -20, 110), (3, -22, 64)], 8)
    _tube(air, grid, [(3, -22, 64), (22, -20, 46), (40, -16, 30)], [7, 6.5, 4])
    _tube(air, grid, [(3, -22, 64), (-24, -24, 42), (-44, -24, 26)], [6.5, 6, 4])
    for field, value in ((soft, 5.0), (blood, 45.0), (air, -990.0)):
        _paint(hu, grid, field, value)


def _lung_vessels(hu: Field, grid: _Grid, rng: np.random.Generator) -> None:
    """Branches that fan out from each hilum and thin out towards the ribs."""
    vessels = grid.far()
    for side, hilum in ((1, (36, -8, 26)), (-1, (-38, -10, 32))):
        for _ in range(34):
            to = np.array([side * rng.uniform(48, 108), rng.uniform(-70, 55), rng.uniform(-75, 112)])
            if to[2] > 60:  # the apex is narrow
                to[:2] = side * rng.uniform(30, 68), rng.uniform(-55, 5)
            bend = 0.5 * (np.array(hilum) + to) + rng.normal(0, 9, 3)
            _tube(vessels, grid, [hilum, bend, to], [rng.uniform(2.5, 4.5), 2.0, 0.6])
            _capsule(vessels, grid, bend, to + rng.normal(0, 22, 3), [1.7, 0.5])
    # only where lung is: a branch that leaves it ends there
    _paint(hu, grid, np.where(hu < -600.0, vessels, np.float32(1e3)), 20.0)


def _abdomen(hu: Field, grid: _Grid, _: np.random.Generator) -> None:
    """Fat around liver (right), spleen (left), kidneys, and a stomach with air under the front wall."""
    fat, liver, spleen, stomach, air = (grid.far() for _ in range(5))
    _ellipsoid(fat, grid, (0, 8, -150), (122, 76, 78))
    _ellipsoid(liver, grid, (66, 14, -108), (62, 72, 58))
    _ellipsoid(liver, grid, (0, 44, -102), (66, 36, 30), (0, -14, 0))  # left lobe
    _ellipsoid(spleen, grid, (-98, -38, -108), (24, 38, 46), (0, 18, 0))
    for x, z in ((58, -160), (-60, -150)):
        _ellipsoid(spleen, grid, (x, -46, z), (26, 24, 52))
    _ellipsoid(stomach, grid, (-60, 22, -106), (44, 48, 38), (0, 20, 0))
    _ellipsoid(air, grid, (-60, 22, -106), (40, 44, 34), (0, 20, 0))
    air = np.maximum(air, 40 - grid.y)  # it rises to the front of a patient on the back
    for field, value in ((fat, -90.0), (liver, 62.0), (spleen, 52.0), (stomach, 25.0), (air, -985.0)):
        # below the diaphragm only, which is a sheet of muscle under the lung
        _paint(hu, grid, np.where(hu > -250.0, field, np.float32(1e3)), value)


def _spine(hu: Field, grid: _Grid, rng: np.random.Generator) -> None:
    """T1 to L1 with a slight sideways curve: body, pedicles, laminae, joints, transverse and spinous processes."""
    canal, bones = grid.far(), grid.far()
    tilts = np.degrees(np.arctan(np.gradient(_VERTEBRAE[:, 1], _VERTEBRAE[:, 0])))
    for (z, y, a, b, height), tilt in zip(_VERTEBRAE, tilts, strict=True):
        x = _spine_x(z)
        _cylinder(bones, grid, (x, y, z), (a / 0.93, b / 0.93, height / 2), tilt)
        back = y - b
        _capsule(canal, grid, (x, back - 9, z - 14), (x, back - 9, z + 14), 8)
        droop = np.interp(z, [-142, -111, -53, 72, 156], [8, 12, 22, 24, 12]) + rng.normal(0, 1.5)
        _tube(bones, grid, [(x, back - 19, z - 3), (x + rng.normal(0, 1.5), back - 38, z - 3 - droop)], [4, 3.5], (1, 1, 0.6))
        for side in (1, -1):
            joint = np.array([x + side * (0.55 * a + 4), back - 12, z + 1])
            _capsule(bones, grid, (x + side * 0.6 * a, back + 2, z + 4), joint, 3.8, (1, 1, 0.75))
            _capsule(bones, grid, joint, (x, back - 19, z - 3), 3.0, (1, 1, 0.5))
            facet = np.array([0, 1, 9])
            _capsule(bones, grid, joint - facet, joint + facet, 4.2)
            process = np.array([side * rng.uniform(15, 19), rng.normal(-9, 1), rng.normal(4, 1.5)])
            _capsule(bones, grid, joint, joint + process, [4, 4.6])
    _paint(hu, grid, canal, 25.0)
    _paint_bone(hu, grid, bones, 850.0, 230.0, 2.0)


def _spine_x(z: float) -> float:
    return 3.5 * float(np.sin((z + 30) / 75.0))


def _ribs(hu: Field, grid: _Grid, rng: np.random.Generator) -> None:
    """Twelve pairs of ribs from the spine around the lungs, cartilage to the sternum, which is bone again."""
    ribs, cartilage, sternum = (grid.far() for _ in range(3))
    edge = np.array([(0, 38, 104), (0, 47, 84), (0, 60, 60), (1, 72, 20), (1, 82, -25), (2, 84, -42)], dtype=np.float64)
    for n, (width, back, front, slope, end) in enumerate(_RIBS):
        z, y = _VERTEBRAE[n, 0] + 4, _VERTEBRAE[n, 1]
        for side in (1, -1):
            a, b, drop = width + rng.normal(0, 2), (front - back) / 2, slope + rng.normal(0, 0.02)
            start = np.degrees(np.arcsin(48.0 / a)) if a > 62 else 40.0
            angle = np.radians(np.linspace(start, end + rng.normal(0, 2.5), 22))
            xs = side * a * np.sin(angle) + _spine_x(z)
            ys = (back + front) / 2 - b * np.cos(angle)
            neck = [(_spine_x(z) + side * 19, y - 9), (_spine_x(z) + side * 34, y - 27)]
            xy = np.vstack([neck, np.stack([xs, ys], axis=-1)])
            path = np.column_stack([xy, z - drop * (xy[:, 1] - (y - 27))])
            path[0, 2] = z + 2
            thick = np.interp(np.arange(len(path)), [0, 3, 16, len(path) - 1], [3.6, 3.9, 3.7, 4.3])
            _tube(ribs, grid, path, thick, (1.0, 1.0, 0.62))
            if n < 7:  # true ribs; those below end in the arch that the seventh's cartilage makes
                at = edge[0] + (edge[-1] - edge[0]) * (0.12 + 0.14 * n)
                joint = np.array([side * 15, np.interp(-at[2], -edge[:, 2], edge[:, 1]), at[2]])
                low = 0.5 * (path[-1] + joint) - (0, 0, 8 + 2 * n)
                _tube(cartilage, grid, [path[-1], low, joint], 4.2, (1.0, 1.0, 0.7))
    _tube(sternum, grid, edge, [11, 10, 7, 8, 8, 4], (0.5, 1.0, 0.8))
    _paint(hu, grid, cartilage, 95.0)
    _paint_bone(hu, grid, sternum, 600.0, 190.0, 1.8)
    _paint_bone(hu, grid, ribs, 1300.0, 300.0, 1.7)


def _shoulders(hu: Field, grid: _Grid, rng: np.random.Generator) -> None:
    """Clavicles, scapulae with spine, acromion and coracoid, and the arms raised beside the head."""
    bones = grid.far()
    for side in (1, -1):
        shift = np.array([0, *rng.normal(0, (1.5, 3))])

        def at(*points: tuple[float, float, float], side: int = side, shift: Array = shift) -> Array:
            return np.array(points) * (side, 1, 1) + shift

        clavicle = at((13, 42, 108), (36, 48, 112), (66, 34, 119), (98, 4, 128), (128, -14, 134))
        _tube(bones, grid, clavicle, [7.5, 6, 5.2, 5, 6])
        glenoid, upper, lower = at((124, -42, 104), (76, -84, 110), (104, -91, -6))
        _ellipsoid(bones, grid, glenoid, (7, 10, 17))
        for share in np.linspace(0, 1, 22):  # the blade, a fan of thin rods
            _capsule(bones, grid, glenoid - (side * 6, 4, 4), upper + share * (lower - upper), [3.4, 1.7])
        _tube(bones, grid, [upper, lower, glenoid], [3, 5, 6])
        acromion = at((80, -89, 88), (110, -80, 112), (138, -50, 138), (134, -24, 138))
        _tube(bones, grid, acromion, [3, 5.5, 6.5, 5], (1, 1, 0.7))
        _tube(bones, grid, at((116, -36, 116), (106, -16, 126), (112, -4, 118)), [6, 5.5, 4.5])  # coracoid
        humerus = at((146, -38, 110), (147, -33, 132), (148, -26, 150), (148, -20, 190))
        _tube(bones, grid, humerus, [22, 17, 12, 11.5])
    _paint_bone(hu, grid, bones, 1250.0, 230.0, 2.6)
