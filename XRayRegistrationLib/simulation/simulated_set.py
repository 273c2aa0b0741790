"""A set of simulated X-rays on disk: pictures that anyone can open, and all that is known of them.

A folder holds

- ``image_00000.png`` ...: 16 bit; line integrals = low + value / 65535 * span (``set.json`` has both),
- ``masks.npy``: (N, H, W) bool, True where no blade is,
- ``camera.json``: of all images, as ``xrayreg register --camera`` takes it,
- ``set.json``: poses, landmarks, appearances, sampler, seed, and the CT's fingerprint,
- ``hits.npy``, where asked for: (N, 2, 3, h, w) float32, first and last bone point of each ray in ct mm,
- ``labels.npy``, where the subject has labels: (N, L, h, w) bool, which labels each ray meets.

Image n depends on the seed and n alone: a longer set begins with the shorter one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.atomic import OutputFolder
from XRayRegistrationLib.files.json_file import json_text, read_json
from XRayRegistrationLib.files.volume_file import write_counts
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.camera_file import read_camera, write_camera
from XRayRegistrationLib.images.itk_file import read_itk
from XRayRegistrationLib.images.volume import fingerprint
from XRayRegistrationLib.simulation.appearance import Appearance, develop, draw_appearance
from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
from XRayRegistrationLib.simulation.pose_samplers import PoseSampler, pose_sampler, sample_poses
from XRayRegistrationLib.simulation.shots import label_shadows, landmarks_px, shoot
from XRayRegistrationLib.simulation.subject import Subject

FORMAT = "xrayregistration-simulated-set"
VERSION = 1
_WAY_OUT = "a folder that xrayreg simulate wrote"
_AT_ONCE = 16
_GREY = 65535
_LEAST_IN_VIEW = 0.05  # of the bone's surface points: an image without bone teaches nothing


@dataclass(frozen=True, eq=False)
class SimulatedSet:
    """A set that was read; N images of H x W pixels.

    Attributes:
        camera: of all images.
        camera_from_ct: (N, 4, 4).
        images: (N, H, W) float32, bone bright unless inverted, to 1/65535 of each image's range.
        masks: (N, H, W) bool.
        appearances: N.
        landmarks_ct: (n, 3) mm. landmark_names: n.
        landmarks_px: (N, n, 2), NaN behind the source. in_view: (N, n) bool.
        poses: name of the sampler. seed: of everything. subject: its name.
        ct_fingerprint: of the CT, as ``images.volume.fingerprint`` gives it.
        hits_camera, hits_ct: as in ``shots.Shots``; None where there are none.
        label_values: L labels; label_shadows: (N, L, h, w) bool; None where there are none.
    """

    camera: Camera
    camera_from_ct: NDArray[np.float64]
    images: NDArray[np.float32]
    masks: NDArray[np.bool_]
    appearances: tuple[Appearance, ...]
    landmarks_ct: NDArray[np.float64]
    landmark_names: tuple[str, ...]
    landmarks_px: NDArray[np.float64]
    in_view: NDArray[np.bool_]
    poses: str
    seed: int
    subject: str
    ct_fingerprint: str
    hits_camera: Camera | None = None
    hits_ct: NDArray[np.float32] | None = None
    label_values: tuple[int, ...] = ()
    label_shadows: NDArray[np.bool_] | None = None


def write_simulated_set(
    out: OutputFolder,
    subject: Subject,
    camera: Camera,
    count: int,
    *,
    poses: str | PoseSampler = "scr",
    options: AppearanceOptions | None = None,
    seed: int = 0,
    hits: bool = False,
    progress: Callable[[float, str], None] | None = None,
) -> None:
    """Simulate ``count`` X-rays into an open output folder; the caller commits it.

    Args:
        poses: a sampler or its name; poses that show less than 5 % of the bone are drawn again.
        options: of the appearances; None for domain randomisation.
        hits: write ``hits.npy``, at half the images' size.

    Raises:
        InputError: a count below 1, an unknown sampler, or no pose that shows the bone.
    """
    if count < 1:
        raise InputError(f"the number of images is {count}; allowed is at least 1")
    sampler = pose_sampler(poses) if isinstance(poses, str) else poses
    name = poses if isinstance(poses, str) else repr(poses)
    stride = 2 if camera.width % 2 == 0 and camera.height % 2 == 0 else 1
    masks = _stack(out, "masks.npy", np.bool_, (count, camera.height, camera.width))
    small = (camera.height // stride, camera.width // stride)
    hit_stack = _stack(out, "hits.npy", np.float32, (count, 2, 3, *small)) if hits else None
    values = subject.label_values
    label_stack = _stack(out, "labels.npy", np.bool_, (count, len(values), *small)) if values else None
    rows: list[dict[str, Any]] = []
    for begin in range(0, count, _AT_ONCE):
        if progress is not None:
            progress(begin / count, "simulating X-rays")
        numbers = range(begin, min(begin + _AT_ONCE, count))
        drawn = [
            sample_poses(sampler, subject, camera, np.random.default_rng([seed, n, 1]), 1, _LEAST_IN_VIEW) for n in numbers
        ]
        camera_from_ct = np.concatenate(drawn)
        appearances = [draw_appearance(np.random.default_rng([seed, n, 2]), options) for n in numbers]
        shots = shoot(subject, camera, camera_from_ct, hits_stride=stride)
        depths = [transform_points(pose, subject.centre_ct)[2] for pose in camera_from_ct]
        images, fields = develop(shots.path_mm, appearances, camera, object_depth_mm=depths)
        pixels, in_view = landmarks_px(subject, camera, camera_from_ct)
        part = slice(begin, begin + len(numbers))
        masks[part] = fields.numpy()
        if hit_stack is not None:
            hit_stack[part] = shots.hits_ct.numpy()
        if label_stack is not None:
            label_stack[part] = label_shadows(subject, camera, camera_from_ct, stride=stride).numpy()
        for n, pose, a, image, at, seen in zip(
            numbers, camera_from_ct, appearances, images.numpy(), pixels, in_view, strict=True
        ):
            low, span = float(image.min()), max(float(np.ptp(image)), 1e-6)
            file = f"image_{n:05d}.png"
            write_counts(out.path(file), np.rint((image - low) / span * _GREY).astype(np.uint16))
            points = [None if np.isnan(p).any() else p.round(4).tolist() for p in at]
            rows.append(
                {
                    "file": file, "low": low, "span": span, "camera_from_ct": pose.tolist(),
                    "landmarks_px": points, "in_view": seen.tolist(), "appearance": a.to_dict(),
                }
            )  # fmt: skip
    for stack in (masks, hit_stack, label_stack):
        if stack is not None:
            stack.flush()
    write_camera(out.path("camera.json"), camera)
    head = {
        "format": FORMAT, "version": VERSION, "subject": subject.name, "ct_fingerprint": fingerprint(subject.ct),
        "poses": name, "seed": seed, "landmark_names": list(subject.landmark_names),
        "landmarks_ct": subject.landmarks_ct.tolist(), "hits_stride": stride if hits else None,
        "label_values": list(values),
    }  # fmt: skip
    out.path("set.json").write_text(json_text({**head, "images": rows}), encoding="utf-8")


def read_simulated_set(folder: str | os.PathLike[str]) -> SimulatedSet:
    """Read a set back, whole.

    Raises:
        InputError: not such a folder, or a file of it is missing or does not fit.
    """
    place = Path(folder)
    data = read_json(place / "set.json", "the simulated set", _WAY_OUT)
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
        raise InputError(f"{place / 'set.json'} is no simulated set of version {VERSION}; give {_WAY_OUT}")
    camera = read_camera(place / "camera.json")
    rows = data["images"]
    shape = (len(rows), camera.height, camera.width)
    images = np.empty(shape, np.float32)
    for n, row in enumerate(rows):
        images[n] = row["low"] + _read_png(place / row["file"], shape[1:]) * (row["span"] / _GREY)
    stride = data["hits_stride"]
    names = tuple(data["landmark_names"])
    pixels = np.full((len(rows), len(names), 2), np.nan)
    for n, row in enumerate(rows):
        for m, point in enumerate(row["landmarks_px"]):
            if point is not None:
                pixels[n, m] = point
    return SimulatedSet(
        camera,
        np.array([row["camera_from_ct"] for row in rows]),
        images,
        _load(place / "masks.npy", shape),
        tuple(Appearance.from_dict(row["appearance"]) for row in rows),
        np.array(data["landmarks_ct"]).reshape(-1, 3),
        names,
        pixels,
        np.array([row["in_view"] for row in rows], dtype=bool).reshape(len(rows), -1),
        data["poses"],
        int(data["seed"]),
        data["subject"],
        data["ct_fingerprint"],
        None if stride is None else camera.resized(camera.width // stride, camera.height // stride),
        None if stride is None else _load(place / "hits.npy", (len(rows), 2, 3, *(s // stride for s in shape[1:]))),
        tuple(data["label_values"]),
        _load(place / "labels.npy", None) if data["label_values"] else None,
    )


def _stack(out: OutputFolder, name: str, kind: Any, shape: tuple[int, ...]) -> np.memmap:
    """A ``.npy`` file that is filled a part at a time."""
    stack: np.memmap = np.lib.format.open_memmap(out.path(name), mode="w+", dtype=kind, shape=shape)
    return stack


def _load(file: Path, shape: tuple[int, ...] | None) -> NDArray[Any]:
    try:
        values: NDArray[Any] = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); give {_WAY_OUT}") from error
    if shape is not None and values.shape != shape:
        raise InputError(f"{file} has the shape {values.shape}, and set.json says {shape}; give {_WAY_OUT}")
    return values


def _read_png(file: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    import SimpleITK as sitk

    values = sitk.GetArrayFromImage(read_itk(file, "the simulated X-ray", (".png",)))
    if values.shape != shape:
        raise InputError(f"{file} has the shape {values.shape}, and camera.json says {shape}; give {_WAY_OUT}")
    return values.astype(np.float32)
