"""Training of the network that reads pictures (``images.picture_reading``), on simulated X-rays.

``python -m XRayRegistrationLib.training.picture --ct CT ... --hold-out CT --minutes M`` writes its weights again.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from XRayRegistrationLib.images.picture_reading import picture_channels
from XRayRegistrationLib.networks.picture_network import PictureNetwork
from XRayRegistrationLib.networks.weights_file import read_weights
from XRayRegistrationLib.simulation.appearance import Appearance, draw_appearance
from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions, preset
from XRayRegistrationLib.simulation.subject import Subject
from XRayRegistrationLib.training.headers import camera_header, ct_header
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.task import Task, Validation
from XRayRegistrationLib.training.xray_stream import LEARNED_CAMERA, StreamOptions, XRayStream

_CHANGES, _VALIDATION_SEED, _VALIDATION_BATCHES = 3, 1 << 20, 16
# What the X-rays show and how they look, in turn.
_KINDS = (
    ("scr", "randomised"), ("prost-oblique", "realistic"), ("uniform", "randomised"), ("xvr", "clean"), ("xvr", "randomised"),
)  # fmt: skip
_P_COLLIMATED, _P_SHUTTER, _P_CURVE, _P_BLANK = 0.65, 0.25, 0.4, 0.5
_FINEST = 8.0  # times the network's pixels
_STEEPEST = 5.0  # exponent of the curve over the values; raw intensities have about 3
_BRIGHT_WEIGHT = 0.3  # of the polarity's loss, which one number an image teaches


@dataclass(frozen=True)
class PictureBatch:
    """Pictures and what is to be read off them.

    Attributes:
        seen: (N, 2, H, W) of ``picture_channels``.
        closed, painted: (N, H, W) bool. bright: (N,) bool.
    """

    seen: Tensor
    closed: Tensor
    painted: Tensor
    bright: Tensor


class PictureTask(Task):
    """Pictures of some CTs, validated on others where there are any.

    The unit of validation is the mean share, in per cent, of pixels and polarities that are read wrong.
    """

    method = "picture"
    unit = "% wrong"
    mixed_precision = False

    def __init__(self, subjects: Sequence[Subject], held_out: Sequence[Subject], training: TrainingOptions) -> None:
        self.seed = training.seed
        self.streams = _streams(subjects, training.batch_size, training.seed)
        self.held_out = _streams(held_out or subjects, training.batch_size, training.seed + _VALIDATION_SEED)
        self._judged: list[PictureBatch] = []
        self._cts = [ct_header(subject) for subject in subjects]

    def network(self) -> nn.Module:
        """A new one."""
        return PictureNetwork()

    def batch(self, number: int, device: torch.device) -> PictureBatch:
        """Of the kinds in turn."""
        return _batch(self.streams, number, self.seed, device)

    def loss(self, network: nn.Module, batch: PictureBatch) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropies."""
        maps, bright = network(batch.seen)
        entropy = nn.functional.binary_cross_entropy_with_logits
        closed = entropy(maps[:, 0].float(), batch.closed.float())
        painted = entropy(maps[:, 1].float(), batch.painted.float())
        polarity = entropy(bright.float(), batch.bright.float())
        parts = {"closed": float(closed.detach()), "painted": float(painted.detach()), "polarity": float(polarity.detach())}
        return closed + painted + _BRIGHT_WEIGHT * polarity, parts

    def validate(self, network: nn.Module, device: torch.device) -> Validation:
        """Shares read wrong."""
        if not self._judged:
            self._judged = [
                _batch(self.held_out, n, self.seed + _VALIDATION_SEED, device) for n in range(_VALIDATION_BATCHES)
            ]
        wrong: list[tuple[float, float, float]] = []
        for batch in self._judged:
            maps, bright = network(batch.seen)
            for told, true in zip(zip(maps[:, 0] > 0, maps[:, 1] > 0, bright > 0, strict=True), _truths(batch), strict=True):
                wrong.append(tuple(100.0 * float((a != b).float().mean()) for a, b in zip(told, true, strict=True)))  # type: ignore[arg-type]
        closed, painted, polarity = np.mean(wrong, axis=0)
        mean = float(closed + painted + polarity) / 3
        return Validation(mean, {"closed": float(closed), "painted": float(painted), "polarity": float(polarity)})

    def header(self) -> dict[str, Any]:
        """Of the weights file."""
        return {
            "architecture": {"kind": "picture"}, "input": {"camera": camera_header(LEARNED_CAMERA)},
            "units": "logits", "cts": self._cts,
        }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Train, and write ``picture.npz`` of the best validation."""
    from XRayRegistrationLib.images.ct import read_ct
    from XRayRegistrationLib.simulation.subject import make_subject
    from XRayRegistrationLib.training.loop import fit

    parser = argparse.ArgumentParser(description="Train the network that reads pictures.")
    parser.add_argument("--ct", nargs="+", type=Path, required=True)
    parser.add_argument("--hold-out", nargs="+", type=Path, default=[])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=Path("picture.safetensors"))
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args(argv)
    training = TrainingOptions(minutes=args.minutes, workers=0)
    subjects, held_out = (
        [make_subject(read_ct(path), name=path.name.split(".")[0]) for path in paths] for paths in (args.ct, args.hold_out)
    )
    result = fit(
        PictureTask(subjects, held_out, training), args.out, training,
        resume=args.resume, progress=lambda fraction, line: print(f"{100 * fraction:3.0f} % {line}", flush=True),
    )  # fmt: skip
    network = PictureNetwork()
    network.load_state_dict(read_weights(args.out)[0])
    out = args.out.with_suffix(".npz")
    np.savez(out, **network.arrays())  # type: ignore[arg-type]
    print(f"{out}: {result.validation_mm:.2f} % wrong after {result.minutes:.0f} minutes")


def _streams(subjects: Sequence[Subject], batch_size: int, seed: int) -> list[XRayStream]:
    return [
        XRayStream(
            subjects, StreamOptions(LEARNED_CAMERA, poses, _appearance(look)), batch_size, seed + n,
            hits_stride=math.gcd(LEARNED_CAMERA.width, LEARNED_CAMERA.height),
        )
        for n, (poses, look) in enumerate(_KINDS)
    ]  # fmt: skip


def _appearance(name: str) -> AppearanceOptions:
    """Blades as they are, and half of the pictures inverted, or with a blank box."""
    return replace(preset(name), p_collimator=_P_COLLIMATED, p_raw_border=1.0, p_invert=0.5, p_erase=_P_BLANK)


def _batch(streams: Sequence[XRayStream], number: int, seed: int, device: torch.device) -> PictureBatch:
    rng = np.random.default_rng([seed, _CHANGES, number])
    stream = streams[number % len(streams)]
    count = stream.group_size * stream.appearances
    looks = [_averaged(draw_appearance(rng, stream.options.appearance), rng) for _ in range(count)]
    pictures = stream.pictures(number // len(streams), device, looks)
    images, fields = pictures.image.cpu().numpy(), pictures.open_field.cpu().numpy()
    seen, closed, painted = [], [], []
    for image, field, look in zip(images, fields, looks, strict=True):
        values = _curved(_shuttered(image, field, rng), rng)
        turn, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        maps = [*picture_channels(values), ~field, _boxes(look, *field.shape)]
        maps = [np.rot90(m[:, ::-1] if mirrored else m, turn) for m in maps]
        seen.append(np.stack(maps[:2]))
        closed.append(maps[2])
        painted.append(maps[3])
    bright = np.array([not look.inverted for look in looks])
    seen_all, closed_all, painted_all = (torch.as_tensor(np.stack(x), device=device) for x in (seen, closed, painted))
    return PictureBatch(seen_all, closed_all, painted_all, torch.as_tensor(bright, device=device))


def _averaged(look: Appearance, rng: np.random.Generator) -> Appearance:
    """With the noise that is left where up to ``_FINEST`` pixels along each side were averaged to one."""
    left = float(_FINEST ** -rng.random())
    boxes = tuple((*box[:4], box[4] * left, box[5]) for box in look.boxes)
    return replace(look, boxes=boxes, noise=look.noise * left, photons=look.photons / left**2)


def _boxes(look: Appearance, height: int, width: int) -> NDArray[np.bool_]:
    """Where blank boxes hide a picture; through boxes of noise it is still seen."""
    out = np.zeros((height, width), bool)
    for u, v, wide, high, _, value in look.boxes:
        if value < 0.0:
            continue
        left, top = int(u * width), int(v * height)
        out[top : top + max(1, round(high * height)), left : left + max(1, round(wide * width))] = True
    return out


def _shuttered(image: NDArray[np.float32], field: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    """Now and then a shutter of one value is painted over what the blades cover, as consoles do, black or white."""
    if field.all() or rng.random() >= _P_SHUTTER:
        return image
    low, high = float(image.min()), float(image.max())
    value = low if rng.random() < 0.7 else rng.choice([high, low + (high - low) * rng.random()])
    return np.where(field, image, np.float32(value))


def _curved(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Now and then the values are bent, as intensities are to line integrals."""
    if rng.random() >= _P_CURVE:
        return image
    low, high = float(image.min()), float(image.max())
    steepness = rng.uniform(0.5, _STEEPEST) * rng.choice([-1.0, 1.0])
    return np.asarray(np.expm1(steepness * (image - low) / max(high - low, 1e-6)) / np.expm1(steepness), dtype=np.float32)


def _truths(batch: PictureBatch) -> Any:
    return zip(batch.closed, batch.painted, batch.bright, strict=True)


if __name__ == "__main__":
    main()
