"""X-rays with a pose beside each one's own: what similarities and relative poses are learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from XRayRegistrationLib.geometry.rigid import moved_towards, relative_motion
from XRayRegistrationLib.simulation.pose_samplers import pose_sampler
from XRayRegistrationLib.simulation.subject import Subject
from XRayRegistrationLib.training.xray_stream import StreamOptions, XRayBatch, XRayStream

Array = NDArray[np.float64]

_MOVING = 2  # of the random numbers
_VALIDATION_SEED = 1 << 20


def moving_poses(given: str | None, paper_mode: bool) -> str:
    """Name of the distribution of the poses beside: as given, or what ProST tests from, or what it trains on."""
    return given or ("prost-moving" if paper_mode else "prost-start")


@dataclass(frozen=True)
class PosePairs:
    """X-rays, and a pose beside each one's own.

    Attributes:
        xrays: N of them. moving: (N, 4, 4) camera_from_ct. motion: (N, 6) rad and mm, from there to the true pose.
    """

    xrays: XRayBatch
    moving: Array
    motion: Tensor


class PairStream:
    """Batches of pairs; batch ``number`` is the same whenever it is asked for.

    Args:
        subjects: the CTs.
        options: of the X-rays.
        moving: name of the distribution of the poses beside (simulation.pose_samplers).
        on_the_way: share of them that are moved part of the way to the true one, as a descent would.
        batch_size, seed: of the batches.
        held_out: other X-rays and poses than without, for validation.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        options: StreamOptions,
        moving: str,
        on_the_way: float,
        batch_size: int,
        seed: int,
        held_out: bool = False,
    ) -> None:
        self.subjects, self.options, self.on_the_way = list(subjects), options, on_the_way
        self.seed = seed + (_VALIDATION_SEED if held_out else 0)
        self.sampler = pose_sampler(moving)
        none = options.camera.width  # no first and last hits are wanted
        self.xrays = XRayStream(self.subjects, options, batch_size, self.seed, hits_stride=none)

    def batch(self, number: int, device: torch.device) -> PosePairs:
        """Batch ``number``, from 0."""
        xrays = self.xrays.batch(number, device)
        rng = np.random.default_rng([self.seed, _MOVING, number])
        moving, motion = [], []
        for s, true in zip(xrays.subject, xrays.camera_from_ct, strict=True):
            subject = self.subjects[s]
            pose = self.sampler.sample(subject, self.options.camera, rng)
            if rng.random() < self.on_the_way:
                pose = moved_towards(pose, true, subject.centre_ct, rng.random())
            moving.append(pose)
            motion.append(relative_motion(pose, true, subject.centre_ct))
        return PosePairs(xrays, np.stack(moving), torch.as_tensor(np.stack(motion), dtype=torch.float32, device=device))
