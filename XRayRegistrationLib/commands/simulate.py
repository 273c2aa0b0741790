"""``xrayreg simulate``: X-rays of a CT from random poses, with everything that is known of them."""

from __future__ import annotations

import argparse
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from XRayRegistrationLib.cli import OK, one_of
from XRayRegistrationLib.commands.drr import read_any_camera
from XRayRegistrationLib.commands.inputs import BoneChoice, bone_choice, check_exists, read_ct_and_bone
from XRayRegistrationLib.errors import InputError, MissingDependencyError
from XRayRegistrationLib.files.atomic import OutputFolder
from XRayRegistrationLib.files.landmarks import Landmarks, read_landmarks
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.cios import cios_camera
from XRayRegistrationLib.images.ct import read_labels
from XRayRegistrationLib.progress import Progress
from XRayRegistrationLib.simulation.appearance_options import PRESETS, AppearanceOptions, preset
from XRayRegistrationLib.simulation.pose_samplers import POSE_SAMPLERS
from XRayRegistrationLib.simulation.simulated_set import write_simulated_set
from XRayRegistrationLib.simulation.subject import make_subject

DEFAULT_SIZE_PX = 128
_MOST = 100_000
_OURS = re.compile(r"image_\d{5}\.png|hits\.npy|labels\.npy")


@dataclass(frozen=True)
class _Request:
    out: OutputFolder
    bone: BoneChoice
    camera: Camera
    options: AppearanceOptions
    landmarks: Landmarks | None


def run(args: argparse.Namespace) -> int:
    """Write a simulated set; see ``simulation.simulated_set`` for its files."""
    request = _check(args)
    with Progress("none" if args.quiet else args.progress) as progress:
        progress(0.0, "reading the CT")
        ct, bone = read_ct_and_bone(Path(args.ct), request.bone)
        labels = None if args.labels is None else read_labels(args.labels, ct)
        progress(0.1, "telling bone from soft tissue")
        name = Path(args.ct).name
        subject = make_subject(ct, bone=bone, landmarks=request.landmarks, labels=labels, name=name)
        with request.out as out:
            write_simulated_set(
                out, subject, request.camera, args.count, poses=args.poses, options=request.options,
                seed=args.seed, hits=args.hits, progress=progress.between(0.2, 1.0),
            )  # fmt: skip
            files = out.commit(remove=_earlier(out.folder))
    if not args.quiet:
        print(f"{args.count} X-rays of {name}, poses {args.poses}, appearance {args.appearance}, seed {args.seed}.")
        print(f"{len(files)} files in {request.out.folder}: the poses and all else is in set.json")
    return OK


def _check(args: argparse.Namespace) -> _Request:
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError("torch", "xrayreg simulate", "torch")
    one_of(args.poses, tuple(POSE_SAMPLERS), "--poses")
    one_of(args.appearance, PRESETS, "--appearance")
    if not 1 <= args.count <= _MOST:
        raise InputError(f"--count {args.count} is out of range; allowed are 1 to {_MOST} images")
    out = OutputFolder(args.out)
    out.check(["set.json", "camera.json", "masks.npy", "hits.npy", "labels.npy"])
    check_exists(args.ct, "--ct", "the CT")
    if args.labels is not None:
        check_exists(args.labels, "--labels", "the label map")
    landmarks = None if args.landmarks is None else read_landmarks(args.landmarks)
    if args.camera is not None and args.size is not None:
        raise InputError("--size cannot be given with --camera, which already says so; drop one")
    if args.camera is not None:
        camera = read_any_camera(check_exists(args.camera, "--camera", "the camera"))
    else:
        camera = cios_camera(DEFAULT_SIZE_PX if args.size is None else args.size)
    return _Request(out, bone_choice(args.bone), camera, preset(args.appearance), landmarks)


def _earlier(folder: Path) -> list[str]:
    """Files of an earlier set in the folder, which would not belong to this one."""
    return [p.name for p in folder.iterdir() if _OURS.fullmatch(p.name)] if folder.is_dir() else []
