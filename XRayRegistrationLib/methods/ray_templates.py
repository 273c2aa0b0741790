"""The templates of RayEmb: a CT's X-rays from many sides, and what the network says about its points in each.

Needs torch. What is kept is small: the embedding of each point in each template.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.bone.sampling import farthest_point_order
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.atomic import write_atomically
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.volume import Volume, fingerprint
from XRayRegistrationLib.networks.ray_encoder import as_seen
from XRayRegistrationLib.networks.ray_subspaces import sample_field
from XRayRegistrationLib.simulation.appearance import Appearance, develop
from XRayRegistrationLib.simulation.poses import pose_at, rotation_from_angles
from XRayRegistrationLib.simulation.shots import shoot
from XRayRegistrationLib.simulation.subject import Subject

Array = NDArray[np.float64]

VERSION = 1  # of the cache
_INTERIOR_CANDIDATES = 20  # for each point that is taken
_AT_ONCE = 16


@dataclass(frozen=True)
class TemplateViews:
    """From where the templates look.

    Attributes:
        camera: that one window of a template is seen through.
        angles_deg: (V, 2) orbital angle and tilt. depth_mm: of the bone's centroid.
        wide: the camera shows the whole bone; otherwise a template is cut into overlapping windows.
        contrast: that soft tissue and bone are rendered with.
    """

    camera: Camera
    angles_deg: Array
    depth_mm: float
    wide: bool = False
    contrast: tuple[float, float] = (0.5, 2.5)

    def poses(self, centre_ct: Array) -> Array:
        """camera_from_ct (V, 4, 4), the centre in the image's middle."""
        rotation = rotation_from_angles(self.angles_deg[:, 0], self.angles_deg[:, 1], 0.0)
        middle = np.array([self.camera.width - 1, self.camera.height - 1]) / 2.0
        poses: Array = pose_at(rotation, self.camera, centre_ct, middle, self.depth_mm)
        return poses


def view_grid(orbital_deg: float, tilt_deg: float, steps: tuple[int, int]) -> Array:
    """(V, 2) angles on a grid about AP, orbital in the outer order."""
    orbital, tilt = (np.linspace(-a, a, n) for a, n in zip((orbital_deg, tilt_deg), steps, strict=True))
    return np.stack(np.meshgrid(orbital, tilt, indexing="ij"), axis=-1).reshape(-1, 2)


@dataclass(frozen=True)
class Templates:
    """Points of a CT and their rays' embeddings.

    Attributes:
        points_ct: (n, 3) mm.
        features: (n, V, d) float32. seen: (n, V) whether the template shows the point.
        directions: (V, 3) unit vectors in the ct frame along which the templates look.
    """

    points_ct: Array
    features: Tensor
    seen: Tensor
    directions: Array


def spread_points(bone: BoneModel, surface: int, interior: int, seed: int = 0) -> Array:
    """Points (n, 3) mm spread evenly over the bone's surface, then inside of it."""
    inside = np.flatnonzero(bone.mask.values > 0)
    rng = np.random.default_rng([seed])
    some = rng.choice(inside, min(len(inside), _INTERIOR_CANDIDATES * interior), replace=False)
    kji = np.stack(np.unravel_index(some, bone.mask.values.shape), axis=-1)
    within = transform_points(bone.mask.ras_from_ijk, kji[:, ::-1])
    within = within[farthest_point_order(within, min(interior, len(within)))]
    return np.concatenate([bone.surface_points[:surface], within])


def random_points(bone: BoneModel, count: int, seed: int) -> Array:
    """``count`` random voxels (n, 3) in ct mm of the bone, as published."""
    inside = np.flatnonzero(bone.mask.values > 0)
    some = np.random.default_rng([seed]).choice(inside, min(count, len(inside)), replace=False)
    kji = np.stack(np.unravel_index(some, bone.mask.values.shape), axis=-1)
    return transform_points(bone.mask.ras_from_ijk, kji[:, ::-1])


@dataclass(frozen=True)
class Windows:
    """Rendered templates of a subject, cut into windows as large as the network's X-rays.

    Attributes:
        path_mm: (w, 3, H, W). view: (w,) the template of each. corner: (w, 2) its left and top in the template's pixels.
        poses: (V, 4, 4).
    """

    path_mm: Tensor
    view: NDArray[np.int64]
    corner: NDArray[np.int64]
    poses: Array


def render_windows(subject: Subject, views: TemplateViews, progress: Callable[[float], None] | None = None) -> Windows:
    """Render every template as large as the bone, and cut it into windows that overlap by half.

    A part of a picture is a picture from the same source, so nothing is approximated.
    """
    camera, poses = views.camera, views.poses(subject.centre_ct)
    w, h = camera.width, camera.height
    paths, view, corner = [], [], []
    for number, pose in enumerate(poses):
        corners = [np.zeros(2, np.int64)] if views.wide else _corners(subject, camera, pose)
        left, top = np.min(corners, axis=0)
        right, bottom = np.max(corners, axis=0) + np.array([w, h])
        whole = camera.cropped(int(left), int(top), int(right - left), int(bottom - top))
        path = shoot(subject, whole, pose, hits_stride=int(np.gcd(whole.width, whole.height))).path_mm[0]
        for at in corners:
            x, y = at - [left, top]
            paths.append(path[:, y : y + h, x : x + w])
            view.append(number)
            corner.append(at)
        if progress is not None:
            progress((number + 1) / len(poses))
    return Windows(torch.stack(paths), np.array(view), np.stack(corner), poses)


def _corners(subject: Subject, camera: Camera, pose: Array) -> list[NDArray[np.int64]]:
    """Left and top of windows, half a window apart, that together show the bone."""
    pixels = camera.project(transform_points(pose, subject.bone.surface_points))
    low, high = np.nanmin(pixels, axis=0), np.nanmax(pixels, axis=0)
    size = np.array([camera.width, camera.height])
    starts = []
    for axis in range(2):
        slack = high[axis] - low[axis] - 0.9 * size[axis]
        count = 1 + max(0, int(np.ceil(slack / (0.5 * size[axis]))))
        middles = (low[axis] + high[axis]) / 2 + (np.arange(count) - (count - 1) / 2) * 0.5 * size[axis]
        starts.append(np.rint(middles - size[axis] / 2).astype(np.int64))
    return [np.array([x, y]) for x in starts[0] for y in starts[1]]


def point_features(network: nn.Module, windows: Windows, views: TemplateViews, points_ct: Array, paper_mode: bool) -> Templates:
    """The embedding of each point in each template, from the window that shows it nearest to its middle."""
    camera = views.camera
    device = next(network.parameters()).device
    size = np.array([camera.width, camera.height])
    count = len(windows.poses)
    pixels = np.stack([camera.project(transform_points(pose, points_ct)) for pose in windows.poses])  # (V, n, 2)
    off = np.full((len(windows.view), len(points_ct)), np.inf)
    for k, (view, corner) in enumerate(zip(windows.view, windows.corner, strict=True)):
        inside = camera.in_view(pixels[view] - corner)
        middle = np.abs((pixels[view] - corner + 0.5) / size - 0.5).max(axis=1)
        off[k] = np.where(inside, middle, np.inf)
    features = torch.zeros(len(points_ct), count, 0)
    soft, hard = views.contrast
    look = Appearance(0, (soft, hard, hard))
    for first in range(0, len(windows.view), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        path = windows.path_mm[part]
        image, field = develop(path, [look] * len(path), camera)
        with torch.inference_mode():
            embedded = network(as_seen(image, field, paper_mode).to(device)).float().cpu()
        if features.shape[2] == 0:
            features = torch.zeros(len(points_ct), count, embedded.shape[1])
        for k in range(first, first + len(path)):
            view = windows.view[k]
            rivals = windows.view == view
            mine = np.flatnonzero((off[k] <= off[rivals].min(axis=0)) & np.isfinite(off[k]))
            at = torch.as_tensor((pixels[view] - windows.corner[k])[mine], dtype=torch.float32)
            features[mine, view] = sample_field(embedded[k - first : k - first + 1], at[None], camera.width, camera.height)[0]
    seen = np.stack([np.isfinite(off[windows.view == v]).any(axis=0) for v in range(count)], axis=1)
    return Templates(points_ct, features, torch.as_tensor(seen), windows.poses[:, 2, :3])


def cached_templates(
    folder: Path, weights: Path, ct: Volume, points_ct: Array, views: TemplateViews, make: Callable[[], Templates]
) -> Templates:
    """The templates of a CT from the cache, or made and put there; a damaged file is made anew.

    A place that cannot be written costs the next run a few seconds and nothing else.
    """
    words = {
        "version": VERSION,
        "weights": hashlib.sha256(Path(weights).read_bytes()).hexdigest(),
        "points": hashlib.sha256(np.round(points_ct, 3).tobytes()).hexdigest(),
        "K": views.camera.K.tolist(),
        "size": [views.camera.width, views.camera.height],
        "views": [views.angles_deg.tolist(), views.depth_mm, views.wide, list(views.contrast)],
    }
    mark = hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"rayemb-{fingerprint(ct)}-{mark}.npz"
    kept = _read(path, len(points_ct), len(views.angles_deg))
    if kept is not None:
        return Templates(points_ct, *kept)
    made = make()
    data = io.BytesIO()
    np.savez(data, features=made.features.numpy().astype(np.float16), seen=made.seen.numpy(), directions=made.directions)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data.getvalue())
    except (InputError, OSError):
        return made
    # as a later run will have them
    return Templates(points_ct, made.features.half().float(), made.seen, made.directions)


def _read(path: Path, points: int, views: int) -> tuple[Tensor, Tensor, Array] | None:
    """Features, seen and directions, or None where there is no whole file."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            features, seen, directions = file["features"], file["seen"], file["directions"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    fits = features.shape[:2] == seen.shape == (points, views) and directions.shape == (views, 3)
    if not fits or features.ndim != 3 or not np.isfinite(features).all():
        return None
    return torch.as_tensor(features, dtype=torch.float32), torch.as_tensor(seen, dtype=torch.bool), directions


def view_header(views: TemplateViews) -> dict[str, Any]:
    """JSON of the views, for a weights file."""
    from XRayRegistrationLib.training.headers import camera_header

    return {
        "camera": camera_header(views.camera),
        "angles_deg": views.angles_deg.tolist(),
        "depth_mm": views.depth_mm,
        "wide": views.wide,
        "contrast": list(views.contrast),
    }


def views_of_header(header: dict[str, Any]) -> TemplateViews:
    """Back from :func:`view_header`, out of a weights file's header."""
    from XRayRegistrationLib.training.headers import camera_of_header

    values = header["templates"]
    camera = camera_of_header({"input": values})
    views = TemplateViews(camera, np.array(values["angles_deg"]), float(values["depth_mm"]), bool(values["wide"]))
    soft, bone = values.get("contrast", views.contrast)
    return replace(views, contrast=(float(soft), float(bone)))
