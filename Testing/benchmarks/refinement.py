"""A full refinement from the same start on the same X-ray: ours, and DiffDRR's 100 Adam iterations.

DiffDRR's is the published baseline: Siddon, half NCC and half local NCC over 23 x 23 patches, Adam
with amsgrad on the se(3) logarithm at rates 7e-3 and 7.0, times 0.9 every 25 iterations. The two
similarities are nanodrr's, by the same author and the same formula: DiffDRR's module of metrics
needs torchvision, of which there is no build for every torch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from Testing.benchmarks.contenders import DiffDRR
from XRayRegistrationLib.drr.volume import WATER_MU_PER_MM, AttenuationVolume
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import increment_left, transform_points
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.solvers import levenberg_marquardt
from XRayRegistrationLib.solvers.problem import View
from XRayRegistrationLib.solvers.pyramid import build_level

ADAM_ITERATIONS = 100
# (rad, mm) of the start: 8 degrees about each axis and 15 mm along each
START_OFFSET = np.array([*np.deg2rad([8.0, -8.0, 8.0]), 15.0, -15.0, 15.0])
_PATCH = 23


@dataclass(frozen=True)
class Refinement:
    """How long it took, and how far from the true pose it ended (None where it was not run to its end)."""

    seconds: float
    mtre_mm: float | None
    note: str


def bone_points(volume: AttenuationVolume, n: int = 1000) -> NDArray[np.float64]:
    """(n, 3) ct mm, voxels above 300 HU at random, over which mTRE is taken."""
    index = np.argwhere(volume.mu > WATER_MU_PER_MM * 1.3)
    chosen = index[np.random.default_rng(0).choice(len(index), n, replace=False)]
    return transform_points(volume.ct_from_ijk, chosen[:, ::-1].astype(np.float64))


def mean_error_mm(points: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """mTRE: mean distance of the points under two poses."""
    return float(np.linalg.norm(transform_points(a, points) - transform_points(b, points), axis=1).mean())


def start_pose(volume: AttenuationVolume, pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """The true pose moved by :data:`START_OFFSET` about the volume's centre."""
    return increment_left(pose, START_OFFSET, transform_points(pose, volume.centre_ct))


def ours(
    volume: AttenuationVolume, camera: Camera, pose: NDArray[np.float64], image: NDArray[np.float32], backend: str
) -> Refinement:
    """Levenberg-Marquardt, coarse to fine up to the image's own size."""
    points = bone_points(volume)
    fresh = AttenuationVolume(volume.mu, volume.ct_from_ijk)  # no pyramid from an earlier run
    begin = time.perf_counter()
    xray = XRay(image, np.ones(image.shape, bool), camera)
    estimate = start_pose(volume, pose)[None]
    centre = volume.centre_ct
    pixels = 32
    while pixels <= camera.width:
        depth = float(transform_points(estimate[0], centre)[2])
        level = build_level([View(fresh, xray)], pixels, depth)
        estimate = levenberg_marquardt.refine(level, estimate, centre, backend=backend).rig_from_ct
        pixels *= 2
    seconds = time.perf_counter() - begin
    return Refinement(seconds, mean_error_mm(points, estimate[0], pose), "Levenberg-Marquardt, 32 px upwards")


def diffdrr_adam(
    volume: AttenuationVolume,
    camera: Camera,
    pose: NDArray[np.float64],
    image: NDArray[np.float32],
    *,
    iterations: int | None,
    derivatives_s: float,
) -> Refinement:
    """DiffDRR's 100 iterations, or fewer and multiplied up.

    Args:
        volume, camera, pose, image: the problem.
        iterations: how many to run; 0 adds up one render with backward (``derivatives_s``, seconds)
            and one similarity with backward, measured apart, where together they do not fit into memory.
        derivatives_s: time of one render with backward.
    """
    import torch
    from diffdrr.pose import RigidTransform, convert
    from nanodrr.metrics import MultiscaleNormalizedCrossCorrelation2d

    similarity = MultiscaleNormalizedCrossCorrelation2d([None, _PATCH], [0.5, 0.5])
    fixed = torch.from_numpy(np.ascontiguousarray(image))[None, None]
    if iterations == 0:
        moving = fixed.clone().requires_grad_(True)
        begin = time.perf_counter()
        similarity(moving, fixed).sum().backward()
        per_iteration = derivatives_s + time.perf_counter() - begin
        note = "estimated: 100 x (render with backward + similarity with backward, timed apart)"
        return Refinement(ADAM_ITERATIONS * per_iteration, None, note)
    count = ADAM_ITERATIONS if iterations is None else iterations
    peer = DiffDRR(volume, camera, pose, "siddon")
    rotation, translation = RigidTransform(peer.from_pose(start_pose(volume, pose))).convert("se3_log_map")
    rotation, translation = (torch.nn.Parameter(x.detach().clone()) for x in (rotation, translation))
    groups = [{"params": [rotation], "lr": 7e-3}, {"params": [translation], "lr": 7.0}]
    optimiser = torch.optim.Adam(groups, amsgrad=True, maximize=True)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 25, 0.9)
    begin = time.perf_counter()
    for _ in range(count):
        optimiser.zero_grad()
        rigid = convert(rotation, translation, parameterization="se3_log_map")
        similarity(peer.drr(rigid), fixed).sum().backward()
        optimiser.step()
        schedule.step()
    seconds = (time.perf_counter() - begin) * ADAM_ITERATIONS / count
    if count < ADAM_ITERATIONS:
        return Refinement(seconds, None, f"estimated from {count} of {ADAM_ITERATIONS} iterations")
    matrix = convert(rotation, translation, parameterization="se3_log_map").matrix
    error = mean_error_mm(bone_points(volume), peer.to_pose(matrix), pose)
    return Refinement(seconds, error, f"all {ADAM_ITERATIONS} iterations")
