"""A 3D picture of where the X-ray was taken from: bone, source, detector with the X-ray on it.

Everything is turned into coloured points, sorted by distance and painted from far to near, twice
too large and averaged down: a few lines of NumPy instead of a 3D library that a server cannot open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import inverse, transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.pictures.raster import RGB

Array = NDArray[np.float64]

_BONE = (0.93, 0.88, 0.76)
_RAYS = (1.0, 0.80, 0.25)
_FRAME = (0.55, 0.60, 0.68)
_SOURCE = (1.0, 0.72, 0.10)
_BACKGROUND = (0.085, 0.095, 0.12)
_SUPERSAMPLING = 2


@dataclass(frozen=True)
class ScenePicture:
    """The picture, and where its parts lie in it.

    Attributes:
        rgb: (height, width, 3), 0..1.
        anchors: pixel (x, y) of ``"source"``, ``"detector"``, its highest corner
            ``"detector top"``, and ``"bone"``.
        viewer_from_ct: 3x3 rotation to the picture's axes (x right, y down, z away).
    """

    rgb: RGB
    anchors: dict[str, tuple[float, float]]
    viewer_from_ct: Array


def bone_surface(mask: Volume, most_points: int = 600_000) -> tuple[Array, Array]:
    """Points (n, 3) of the bone's surface in ct mm and their outward normals (n, 3).

    The mask is smoothed and resampled to nearly cubic voxels first, so that thick CT slices do not
    show as steps; each point is then moved along the gradient onto the half-way surface.
    """
    values = np.asarray(mask.values) > 0
    box = ndimage.find_objects(values.astype(np.uint8))
    if not box:
        return np.zeros((0, 3)), np.zeros((0, 3))
    spacing = mask.spacing_mm[::-1]  # k, j, i
    lo = np.array([s.start for s in box[0]])
    part = np.pad(values[box[0]], 2)
    lo = lo - 2
    voxel = max(1.2, float(np.max(np.array(part.shape) * spacing)) / 320)
    soft = ndimage.gaussian_filter(part.astype(np.float32), 0.6 * voxel / np.minimum(spacing, voxel))
    shape = np.maximum(np.round(np.array(part.shape) * spacing / voxel), 2).astype(int)
    step = (np.array(part.shape) - 1) / (shape - 1)  # old voxels in one new one
    soft = ndimage.affine_transform(soft, step, output_shape=tuple(shape), order=1)
    inside = soft > 0.5
    surface = inside & ~ndimage.binary_erosion(inside)
    kji = np.argwhere(surface)
    if len(kji) > most_points:
        kji = kji[np.random.default_rng(0).choice(len(kji), most_points, replace=False)]
    smoother = ndimage.gaussian_filter(soft, 0.8)
    slope = np.stack([_central_difference(smoother, kji, axis) for axis in range(3)], axis=1)
    steepness = np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-3)
    onto = kji - slope / steepness * np.clip((soft[tuple(kji.T)][:, None] - 0.5) / steepness, 0.0, 1.0)
    ijk = (onto * step + lo)[:, ::-1]
    # a gradient is a covector: it turns with the inverse transpose of the grid's axes
    normals = -(slope / step)[:, ::-1] @ np.linalg.inv(mask.ras_from_ijk[:3, :3])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return transform_points(mask.ras_from_ijk, ijk), normals


def draw_scene(
    points_ct: Array,
    normals_ct: Array,
    camera: Camera,
    camera_from_ct: ArrayLike,
    xray_gray: ArrayLike,
    width: int = 1100,
    height: int = 760,
) -> ScenePicture:
    """Draw bone, source, detector and beam, seen from the side and a little from the source, head up.

    Args:
        points_ct, normals_ct: from :func:`bone_surface`.
        camera, camera_from_ct: of the X-ray; without an SDD the detector is drawn at 1.4 times the
            bone's depth, on the same rays.
        xray_gray: (h, w), 0..1, of any size: what is shown on the detector.
    """
    ct_from_camera = inverse(camera_from_ct)
    centre = points_ct.mean(axis=0)
    depth = float(transform_points(np.asarray(camera_from_ct), centre)[2])
    sdd = camera.source_detector_distance_mm or 1.4 * depth
    source = ct_from_camera[:3, 3]
    corners = _on_detector(camera, ct_from_camera, sdd, np.array([[0, 0], [1, 0], [1, 1], [0, 1]]))
    view, focus, scale = _viewpoint(points_ct, source, corners, ct_from_camera[:3, 2], width, height)

    gray = np.asarray(xray_gray, dtype=np.float64)
    spans = np.linalg.norm(corners[[1, 3]] - corners[0], axis=1) * scale * _SUPERSAMPLING
    nu, nv = (int(np.clip(s * 1.3, 32, 2600)) for s in spans)
    s, t = (a.ravel() for a in np.meshgrid((np.arange(nu) + 0.5) / nu, (np.arange(nv) + 0.5) / nv))
    shown = ndimage.map_coordinates(gray, [t * gray.shape[0] - 0.5, s * gray.shape[1] - 0.5], order=1, mode="nearest")
    frame = _on_detector(camera, ct_from_camera, 0.997 * sdd, np.array([[0, 0], [1, 0], [1, 1], [0, 1]]))
    texture = np.repeat(0.06 + 0.94 * shown[:, None], 3, axis=1)

    light = view.T @ np.array([-0.35, -0.45, -0.82])  # over the viewer's left shoulder
    shade = 0.22 + 0.78 * np.clip(normals_ct @ light, 0.0, 1.0)
    ball = _sphere(source, 0.016 * np.linalg.norm(corners.mean(axis=0) - source))
    layers = [
        (_on_detector(camera, ct_from_camera, sdd, np.stack([s, t], axis=1)), texture, 2),
        (points_ct, shade[:, None] * np.array(_BONE), max(2, int(np.ceil(1.5 * _SUPERSAMPLING * scale * 1.2)))),
        (ball, (0.35 + 0.65 * np.clip((ball - source) @ light / np.linalg.norm(ball[0] - source), 0, 1))[:, None]
         * np.array(_SOURCE), 3),
        *[(_line(source, c, scale), np.array(_RAYS), 2) for c in corners],
        *[(_line(frame[i], frame[(i + 1) % 4], scale), np.array(_RAYS), 3) for i in range(4)],
        *[(_line(a, b, scale), np.array(_FRAME), 2) for a, b in _box_edges(points_ct)],
    ]  # fmt: skip
    canvas = _paint(layers, view, focus, scale, width, height)

    def to_picture(p: Array) -> tuple[float, float]:
        x, y, _ = view @ (p - focus)
        return float(x * scale + width / 2), float(y * scale + height / 2)

    anchors = {"source": source, "detector": corners.mean(axis=0), "bone": centre}
    anchors["detector top"] = corners[np.argmin([(view @ (c - focus))[1] for c in corners])]
    return ScenePicture(canvas, {name: to_picture(p) for name, p in anchors.items()}, view)


def _central_difference(values: NDArray[np.float32], kji: NDArray[np.int64], axis: int) -> Array:
    ahead, behind = kji.copy(), kji.copy()
    ahead[:, axis] = np.minimum(ahead[:, axis] + 1, values.shape[axis] - 1)
    behind[:, axis] = np.maximum(behind[:, axis] - 1, 0)
    return 0.5 * (values[tuple(ahead.T)].astype(np.float64) - values[tuple(behind.T)])


def _on_detector(camera: Camera, ct_from_camera: Array, sdd: float, unit: Array) -> Array:
    """ct mm of detector places (n, 2) given as fractions 0..1 of the image's width and height."""
    u = unit[:, 0] * camera.width - 0.5
    v = unit[:, 1] * camera.height - 0.5
    x = (u - camera.K[0, 2]) / camera.K[0, 0] * sdd
    y = (v - camera.K[1, 2]) / camera.K[1, 1] * sdd
    return transform_points(ct_from_camera, np.stack([x, y, np.full_like(x, sdd)], axis=1))


def _viewpoint(
    points: Array, source: Array, corners: Array, beam: Array, width: int, height: int
) -> tuple[Array, Array, float]:
    """Rotation to the viewer's axes (x right, y down, z away), the focus, and pixels per mm (orthographic)."""
    head = np.array([0.0, 0.0, 1.0])
    up = head if abs(beam @ head) < 0.9 else np.array([0.0, 1.0, 0.0])
    side = np.cross(beam, up)
    side /= np.linalg.norm(side)
    if side[1] < 0 or (abs(side[1]) < 0.05 and side[0] < 0):
        side = -side  # rather the patient's front than the back
    eye = 0.80 * side - 0.52 * beam + 0.30 * up
    away = -eye / np.linalg.norm(eye)
    right = np.cross(away, up)
    right /= np.linalg.norm(right)
    view = np.stack([right, np.cross(away, right), away])
    everything = np.concatenate([points[:: max(1, len(points) // 5000)], source[None], corners])
    seen = everything @ view.T
    lo, hi = seen.min(axis=0), seen.max(axis=0)
    scale = min(0.80 * width / (hi[0] - lo[0]), 0.80 * height / (hi[1] - lo[1]))
    return view, view.T @ (0.5 * (lo + hi)), float(scale)


def _paint(
    layers: list[tuple[Array, Array, int]], view: Array, focus: Array, scale: float, width: int, height: int
) -> RGB:
    """Paint square splats of each layer (points, colours, side in fine pixels) from far to near."""
    n = _SUPERSAMPLING
    w, h = width * n, height * n
    canvas = np.broadcast_to(np.array(_BACKGROUND, np.float32), (h, w, 3)).copy()
    nearest = np.full((h, w), np.inf)
    for points, colours, side in layers:
        seen = (points - focus) @ view.T
        order = np.argsort(-seen[:, 2], kind="stable")
        seen = seen[order]
        colours = np.broadcast_to(colours, (len(points), 3))[order]
        x = np.rint(seen[:, 0] * scale * n + w / 2 - side / 2).astype(int)
        y = np.rint(seen[:, 1] * scale * n + h / 2 - side / 2).astype(int)
        layer = np.full((h, w), -1, dtype=np.int64)
        index = np.arange(len(points))
        # the last write wins, so the nearest of a splat cell stays; cells of one splat in turn
        for dx in range(side):
            for dy in range(side):
                px, py = x + dx, y + dy
                ok = (px >= 0) & (px < w) & (py >= 0) & (py < h)
                np.maximum.at(layer, (py[ok], px[ok]), index[ok])
        there = layer >= 0
        z = np.where(there, seen[np.maximum(layer, 0), 2], np.inf)
        front = there & (z < nearest)
        canvas[front] = colours[layer[front]]
        nearest[front] = z[front]
    return canvas.reshape(height, n, width, n, 3).mean(axis=(1, 3)).astype(np.float32)


def _line(a: Array, b: Array, scale: float) -> Array:
    n = int(np.linalg.norm(b - a) * scale * _SUPERSAMPLING) + 2
    return a + np.linspace(0.0, 1.0, n)[:, None] * (b - a)


def _sphere(centre: Array, radius: float, n: int = 6000) -> Array:
    """Even points on a sphere (golden spiral)."""
    i = np.arange(n) + 0.5
    z, angle = 1 - 2 * i / n, np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z**2)
    return centre + radius * np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=1)


def _box_edges(points: Array) -> list[tuple[Array, Array]]:
    """The twelve edges of the points' box."""
    lo, hi = points.min(axis=0), points.max(axis=0)
    corner = [np.where([(n >> a) & 1 for a in range(3)], hi, lo) for n in range(8)]
    return [(corner[n], corner[n | (1 << a)]) for n in range(8) for a in range(3) if not (n >> a) & 1]
