"""What RayEmb learns from: X-rays of one patient at a time, some of them its templates, and points that they share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.networks.ray_encoder import as_seen
from XRayRegistrationLib.simulation.appearance import develop, draw_appearance
from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
from XRayRegistrationLib.simulation.pose_samplers import POSE_SAMPLERS
from XRayRegistrationLib.simulation.poses import pose_at, rotation_from_angles
from XRayRegistrationLib.simulation.shots import shoot
from XRayRegistrationLib.simulation.subject import Subject
from XRayRegistrationLib.simulation.warps import warped_subject

Array = NDArray[np.float64]

_SCENE, _BATCH = 1, 2  # of the random numbers
_NEAR_MM = 120.0  # of the place that a scene is about
_LEAST_IN_VIEW = 0.2  # of the bone near there
_TRIES = 50
_INTERIOR = 600  # points inside of the bone, beside those of its surface


@dataclass(frozen=True)
class SceneOptions:
    """How the X-rays of a training are put together.

    Attributes:
        camera: of the queries. template_camera: of the templates; as large.
        poses: of the queries, a name in simulation.pose_samplers.POSE_SAMPLERS.
        appearances: how queries look, each like one of them at random. template_appearance: how templates do.
        angle_deg, depth_mm: templates look from up to this far off AP, both ways, from this far.
        wide: templates show the whole bone, from the middle, and not a part of it.
        scenes: patients that are at hand at a time. batches: that a patient is used for.
        queries, templates: X-rays rendered of a patient.
        used_templates: in a batch.
        warped: share of the patients that are warped ones (simulation.warps).
        points: for each X-ray of a batch. absent: share of them, at most, that it does not show.
        least_templates: that see a point.
        known_field: share of the X-rays whose collimator is known.
        paper_mode: grey values from 0 to 1.
    """

    camera: Camera
    template_camera: Camera
    poses: str
    appearances: tuple[AppearanceOptions, ...]
    template_appearance: AppearanceOptions
    angle_deg: float = 50.0
    depth_mm: tuple[float, float] = (600.0, 800.0)
    wide: bool = False
    scenes: int = 4
    batches: int = 24
    queries: int = 32
    templates: int = 12
    used_templates: int = 6
    warped: float = 0.75
    points: int = 24
    absent: float = 0.35
    least_templates: int = 3
    known_field: float = 0.7
    paper_mode: bool = False


@dataclass(frozen=True)
class RayBatch:
    """X-rays of one patient: the first B - T are queries alone, the last T templates too.

    Attributes:
        image: (B, 1, H, W), as the network takes it.
        pixels: (B, n, 2) where each X-ray sees its n points. present: (B, n) whether it does.
        weight: (B, n) 1, or 0 where there are not as many points.
        template_pixels: (B, n, T, 2) where the templates see them. seen: (B, n, T) whether they do.
    """

    image: Tensor
    pixels: Tensor
    present: Tensor
    weight: Tensor
    template_pixels: Tensor
    seen: Tensor


@dataclass(frozen=True)
class Scene:
    """A patient with X-rays of it.

    Attributes:
        poses: (q + t, 4, 4), queries first. path_mm: (q + t, 3, H, W). points_ct: (m, 3) mm on and in the bone.
    """

    poses: Array
    path_mm: Tensor
    points_ct: Array


class RayScenes:
    """Batches; batch ``number`` is the same whenever it is asked for.

    Args:
        subjects: the CTs.
        batch_size: X-rays a batch, templates among them.
        seed: of everything random.
    """

    def __init__(self, subjects: Sequence[Subject], options: SceneOptions, batch_size: int, seed: int) -> None:
        self.subjects, self.options, self.batch_size, self.seed = list(subjects), options, batch_size, seed
        self._scenes: OrderedDict[int, Scene] = OrderedDict()

    def batch(self, number: int, device: torch.device) -> RayBatch:
        """Batch ``number``, from 0."""
        o = self.options
        scene = self._scene(number, device)
        rng = np.random.default_rng([self.seed, _BATCH, number])
        used = min(o.used_templates, self.batch_size - 1)
        queries = self.batch_size - used
        of_templates = o.queries + rng.choice(o.templates, used, replace=False)
        chosen = np.r_[rng.choice(o.queries, queries, replace=queries > o.queries), of_templates]
        looks = [draw_appearance(rng, o.appearances[rng.integers(len(o.appearances))]) for _ in range(queries)]
        image, field = develop(scene.path_mm[chosen[:queries]], looks, o.camera)
        known = torch.as_tensor(rng.random(queries) < o.known_field, device=field.device)
        looks = [draw_appearance(rng, o.template_appearance) for _ in range(used)]
        images, fields = develop(scene.path_mm[chosen[queries:]], looks, o.template_camera)
        image = torch.cat([image, images])
        believed = torch.cat([field | ~known[:, None, None], torch.ones_like(fields)])
        pixels, visible = self._seen(scene, chosen, torch.cat([field, fields]).cpu().numpy(), queries)
        picked, weight, seen = _picked(rng, visible, used, o)
        own = np.take_along_axis(pixels, picked[..., None], axis=1)
        theirs = pixels[queries:][:, picked].transpose(1, 2, 0, 3)  # (T, B, n, 2) to (B, n, T, 2)

        def tensor(values: NDArray) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float32, device=device)

        return RayBatch(
            as_seen(image, believed, o.paper_mode),
            tensor(np.nan_to_num(own)),
            torch.as_tensor(np.take_along_axis(visible, picked, axis=1), device=device),
            tensor(weight),
            tensor(np.nan_to_num(theirs)),
            torch.as_tensor(seen, device=device),
        )

    def _seen(
        self, scene: Scene, chosen: NDArray[np.int64], field: NDArray[np.bool_], queries: int
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Pixels (B, m, 2) of a scene's points in each X-ray, and whether they are inside its open field (B, m)."""
        o = self.options
        pixels = np.empty((len(chosen), len(scene.points_ct), 2))
        visible = np.empty(pixels.shape[:2], bool)
        for n, pose in enumerate(scene.poses[chosen]):
            camera = o.camera if n < queries else o.template_camera
            pixels[n] = camera.project(transform_points(pose, scene.points_ct))
            visible[n] = camera.in_view(pixels[n])
            at = np.clip(np.rint(np.nan_to_num(pixels[n])), 0, [camera.width - 1, camera.height - 1]).astype(int)
            visible[n] &= field[n, at[:, 1], at[:, 0]]
        return pixels, visible

    def _scene(self, number: int, device: torch.device) -> Scene:
        """That batch ``number`` is of. Scenes take turns, and are replaced one after the other."""
        o = self.options
        slot, turn = number % o.scenes, number // o.scenes
        generation = (turn + slot * o.batches // o.scenes) // o.batches
        key = generation * o.scenes + slot
        if key not in self._scenes:
            self._scenes[key] = self._made(key, device)
            while len(self._scenes) > o.scenes:
                self._scenes.popitem(last=False)
        return self._scenes[key]

    def _made(self, key: int, device: torch.device) -> Scene:
        o = self.options
        rng = np.random.default_rng([self.seed, _SCENE, key])
        subject = self.subjects[int(rng.integers(len(self.subjects)))]
        if rng.random() < o.warped:
            subject = warped_subject(subject, (self.seed, _SCENE, key))
        surface = subject.bone.surface_points
        points = np.concatenate([surface, interior_points(subject.bone.mask, _INTERIOR, rng)])
        about = subject.centre_ct if o.wide else (subject.centre_ct + surface[rng.integers(len(surface))]) / 2.0
        near = points[np.linalg.norm(points - about, axis=1) < _NEAR_MM]
        poses = [self._query_pose(about, near if len(near) else points, rng) for _ in range(o.queries)]
        poses += [self._template_pose(about, rng) for _ in range(o.templates)]
        stacked = np.stack(poses)
        whole = o.camera.width, o.camera.height
        assert whole == (o.template_camera.width, o.template_camera.height)
        parts = [(o.camera, stacked[: o.queries]), (o.template_camera, stacked[o.queries :])]
        stride = int(np.gcd(*whole))  # hits are not needed
        paths = [shoot(subject, camera, p, hits_stride=stride, device=str(device)).path_mm for camera, p in parts]
        return Scene(stacked, torch.cat(paths), points)

    def _query_pose(self, about: Array, near: Array, rng: np.random.Generator) -> Array:
        """Of the sampler, where it shows something of the bone."""
        o = self.options
        for _ in range(_TRIES):
            pose = POSE_SAMPLERS[o.poses].sample(about, o.camera, rng)
            if o.camera.in_view(o.camera.project(transform_points(pose, near))).mean() >= _LEAST_IN_VIEW:
                break
        return pose

    def _template_pose(self, about: Array, rng: np.random.Generator) -> Array:
        o, camera = self.options, self.options.template_camera
        orbital, tilt = rng.uniform(-o.angle_deg, o.angle_deg, 2)
        middle = np.array([camera.width - 1, camera.height - 1]) / 2.0
        depth = rng.uniform(*o.depth_mm)
        if not o.wide:
            about = about + rng.normal(0.0, 25.0, 3)
        return pose_at(rotation_from_angles(orbital, tilt, 0.0), camera, about, middle, depth)


def interior_points(mask: Volume, n: int, rng: np.random.Generator) -> Array:
    """``n`` random voxels (n, 3) in ct mm of a mask, or all of them."""
    inside = np.flatnonzero(mask.values > 0)
    chosen = inside if len(inside) <= n else rng.choice(inside, n, replace=False)
    kji = np.stack(np.unravel_index(chosen, mask.values.shape), axis=-1)
    return transform_points(mask.ras_from_ijk, kji[:, ::-1])


def _picked(
    rng: np.random.Generator, visible: NDArray[np.bool_], templates: int, options: SceneOptions
) -> tuple[NDArray[np.int64], Array, NDArray[np.bool_]]:
    """Points (B, n) of each X-ray that enough other templates see, their weights (B, n), and who sees them (B, n, T).

    Those that the X-ray sees come first.
    """
    images, count = len(visible), options.points
    of_templates = visible[images - templates :]
    picked = np.zeros((images, count), np.int64)
    weight = np.zeros((images, count))
    seen = np.zeros((images, count, templates), bool)
    for n in range(images):
        others = of_templates.copy()
        if n >= images - templates:
            others[n - (images - templates)] = False  # never the X-ray itself
        known = others.sum(axis=0) >= options.least_templates
        here, elsewhere = (rng.permutation(np.flatnonzero(known & v)) for v in (visible[n], ~visible[n]))
        elsewhere = elsewhere[: int(options.absent * count)]
        chosen = np.r_[here[: count - len(elsewhere)], elsewhere]
        picked[n, : len(chosen)], weight[n, : len(chosen)] = chosen, 1.0
        seen[n, : len(chosen)] = others[:, chosen].T
    return picked, weight, seen
