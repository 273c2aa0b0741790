"""A demonstration: a CT, and an X-ray of it simulated from a random pose that is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from XRayRegistrationLib.bone.body import body_mask
from XRayRegistrationLib.bone.checks import empty_background
from XRayRegistrationLib.bone.model import BoneModel, build_bone_model
from XRayRegistrationLib.bone.sampling import surface_points
from XRayRegistrationLib.drr.render import render, resolve_backend
from XRayRegistrationLib.drr.volume import AttenuationVolume
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.simulation.degradation import DegradationOptions, degrade
from XRayRegistrationLib.simulation.materials import material_volume
from XRayRegistrationLib.simulation.poses import sample_pose
from XRayRegistrationLib.simulation.torso_phantom import BONE_HU, Steps, run_through, torso_phantom_steps

DETECTOR_MM, SDD_MM = 384.0, 1020.0
SIZES = (64, 1024)
_POINTS = 500  # of the bone's surface, for a pose that shows enough of it
_RAYS_AT_ONCE = 4096  # a quarter of a second of the plain backend, with the synthetic torso

T = TypeVar("T")


@dataclass(frozen=True)
class DemoCase:
    """What a registration is given, and the answer.

    Attributes:
        ct: HU.
        values: (height, width) uint16, the raw X-ray: the open beam is bright, bone dark.
        camera: of the X-ray.
        camera_from_ct: 4x4, the true pose.
    """

    ct: Volume
    values: NDArray[np.uint16]
    camera: Camera
    camera_from_ct: NDArray[np.float64]


def demo_camera(size_px: int) -> Camera:
    """A C-arm's detector of 384 x 384 mm at 1020 mm from the source, with square pixels.

    Raises:
        InputError: a size below 64 or above 1024 pixels.
    """
    if not SIZES[0] <= size_px <= SIZES[1]:
        raise InputError(f"the size {size_px} is out of range; allowed are {SIZES[0]} to {SIZES[1]} pixels")
    return Camera.from_spacing(size_px, size_px, DETECTOR_MM / size_px, SDD_MM)


def make_demo_case(ct: Volume | None = None, size_px: int = 256, seed: int = 1, backend: str = "auto") -> DemoCase:
    """An X-ray of ``ct`` (HU), or of the synthetic torso, from a random pose of a C-arm.

    Args:
        ct: None for :func:`torso_phantom`.
        size_px: width and height of the X-ray.
        seed: of pose, collimator and noise.
        backend: of the renderer; see :func:`drr.render.render`.

    Raises:
        InputError: a CT without bone, a size out of range, an unknown backend.
    """
    return run_through(demo_case_steps(ct, size_px, seed, backend))


def demo_case_steps(
    ct: Volume | None = None, size_px: int = 256, seed: int = 1, backend: str = "auto"
) -> Steps[DemoCase]:
    """:func:`make_demo_case` in steps that yield (fraction, text of what comes next), so that a window stays alive.

    With the synthetic torso a step takes some tenths of a second; with a CT of many voxels, longer.
    """
    camera, backend = demo_camera(size_px), resolve_backend(backend)
    if ct is None:
        ct = yield from _part(torso_phantom_steps(), 0.0, 0.3)
        # nothing needs to be looked for in it: there is no table, and only bone is dense
        inside, bone = None, Volume(ct.values > BONE_HU, ct.ras_from_ijk, "bone of the torso")
        yield 0.3, "choosing a pose"
        points = surface_points(bone, _POINTS)
        centroid = points.mean(axis=0)
    else:
        yield 0.0, "finding the bones"
        model = build_bone_model(ct)
        points, centroid = model.surface_points, model.centroid
        yield 0.2, "finding the body"
        background = empty_background(ct)
        inside = body_mask(ct) if background is None else ct.values != background
    yield 0.32, "telling bone from soft tissue"
    materials = material_volume(ct, inside)
    values, camera_from_ct = yield from _part(
        _simulation_steps(materials, points, centroid, camera, seed, backend), 0.35, 1.0
    )
    return DemoCase(ct, values, camera, camera_from_ct)


def simulate(ct: Volume, model: BoneModel, camera: Camera, seed: int) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """A raw X-ray (open beam bright) from a random pose, and that pose.

    Beam hardening, scatter, detector blur, Poisson noise and a collimator; the ray's steps are not
    the optimiser's.
    """
    materials = material_volume(ct, body_mask(ct))
    return run_through(_simulation_steps(materials, model.surface_points, model.centroid, camera, seed, "auto"))


def _simulation_steps(
    materials: AttenuationVolume, points_ct: NDArray[np.float64], centre_ct: ArrayLike, camera: Camera, seed: int, backend: str
) -> Steps[tuple[NDArray[np.uint16], NDArray[np.float64]]]:
    """:func:`simulate`, some rows of the image a step: the rays of a row do not know of the other rows."""
    rng = np.random.default_rng(seed)
    pose = sample_pose(camera, points_ct, centre_ct, rng)
    step_mm = 0.61 * float(materials.spacing_mm.min())
    rows = max(1, _RAYS_AT_ONCE // camera.width)
    bands = []
    for top in range(0, camera.height, rows):
        yield top / camera.height, "simulating an X-ray"
        band = camera.cropped(0, top, camera.width, min(rows, camera.height - top))
        bands.append(render(materials, band, pose, backend=backend, step_mm=step_mm))
    soft, bone = np.concatenate(bands, axis=1)
    shape = str(rng.choice(["rectangle", "circle"]))
    counts, _ = degrade(soft, bone, seed, DegradationOptions(collimator=shape))
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16), pose


def _part(steps: Steps[T], start: float, end: float) -> Steps[T]:
    """The same steps, as the part of a longer work from ``start`` to ``end``."""
    while True:
        try:
            fraction, text = next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        yield start + (end - start) * fraction, text
