"""``xrayreg train``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from XRayRegistrationLib.cli import OK, STOPPED, one_of
from XRayRegistrationLib.commands.inputs import BoneChoice, bone_choice, check_exists, read_ct_and_bone
from XRayRegistrationLib.errors import InputError, MissingDependencyError
from XRayRegistrationLib.files.atomic import check_output_file
from XRayRegistrationLib.files.landmarks import read_landmarks
from XRayRegistrationLib.images.camera_file import read_camera
from XRayRegistrationLib.images.ct import read_labels
from XRayRegistrationLib.methods import METHODS
from XRayRegistrationLib.progress import Progress

if TYPE_CHECKING:
    from XRayRegistrationLib.simulation.subject import Subject

_READ = 0.02  # of the progress, by when the CTs are read


def run(args: argparse.Namespace) -> int:
    """Train a method on CTs; the weights, a log (.jsonl) and the state for --resume appear beside one another."""
    one_of(args.method, tuple(METHODS), "the method")
    method = METHODS[args.method]
    options = method.options(_method_options(args))
    training = _training_options(args)
    out = Path(args.out or f"{args.method}.safetensors")
    check_output_file(out)
    choices = _choices(args)
    camera = None if args.camera is None else read_camera(check_exists(args.camera, "--camera", "the camera"))
    _require_packages()
    _check_before_reading(args, options, out)
    with Progress("none" if args.quiet else args.progress) as progress:
        subjects: list[Subject] = []
        held_out: list[Subject] = []
        for number, (kind, path, bone, landmarks, labels) in enumerate(choices):
            progress(_READ * number / len(choices), f"reading {Path(path).name}")
            (subjects if kind == "--ct" else held_out).append(_subject(path, bone, landmarks, labels, args.seed))
        try:
            result = method.train(
                subjects,
                out,
                options,
                training,
                held_out=held_out,
                camera=camera,
                resume=args.resume,
                progress=progress.between(_READ, 1.0),
            )
        except KeyboardInterrupt:
            progress.clear()
            print(f"xrayreg: stopped; what was learned is kept, --resume goes on to {out}", file=sys.stderr, flush=True)
            return STOPPED
    if not args.quiet:
        why = ", ended early for nothing got better" if result.early else ""
        print(
            f"Trained {result.iterations} iterations in {result.minutes:.1f} minutes{why}; validation: median mTRE of the "
            f"proposed poses {result.validation_mm:.1f} mm.\nWeights: {result.weights}"
        )
    return OK


def _method_options(args: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for text in args.set or []:
        name, sign, value = text.partition("=")
        if not sign:
            raise InputError(f"--set {text}: allowed is NAME=VALUE, such as variant=miccai2020 or on_the_way=0.5")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value  # a word
    if args.paper_mode:
        options["paper_mode"] = True
    if args.poses is not None:
        options["poses"] = args.poses
    if args.encoder_weights is not None:
        options["encoder_weights"] = str(check_exists(args.encoder_weights, "--encoder-weights", "the pretrained encoder"))
    return options


def _training_options(args: argparse.Namespace) -> Any:
    """Only what was asked for: every other default is TrainingOptions' own."""
    from XRayRegistrationLib.training.options import TrainingOptions

    values: dict[str, Any] = {"seed": args.seed, "device": args.device, "devices": args.devices, "nodes": args.nodes}
    if args.minutes is not None and args.iterations is not None:
        raise InputError("--minutes and --iterations are both budgets; give one of them")
    if args.iterations is not None:
        values |= {"iterations": args.iterations, "minutes": None}
    for name in ("minutes", "batch_size", "learning_rate", "validate_every", "precision", "workers"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    return TrainingOptions(**values)


def _choices(args: argparse.Namespace) -> list[tuple[str, str, BoneChoice, str | None, str | None]]:
    """Each CT with its bone, landmarks and labels, checked to be there before anything is read."""
    every = [("--ct", path) for path in args.ct] + [("--hold-out", path) for path in args.hold_out or []]

    def matched(given: list[str] | None, option: str) -> list[str | None]:
        if given is None:
            return [None] * len(every)
        if len(given) != len(every):
            raise InputError(
                f"{len(given)} {option} for {len(every)} CTs; allowed is one for each --ct, then each --hold-out"
            )
        return list(given)

    bones, landmarks, labels = (
        matched(args.bone, "--bone"), matched(args.landmarks, "--landmarks"), matched(args.labels, "--labels")
    )  # fmt: skip
    for option, path in every:
        check_exists(path, option, "the CT")
    for option, paths in (("--landmarks", landmarks), ("--labels", labels)):
        for path in paths:
            if path is not None:
                check_exists(path, option, "the file")
    return [
        (option, path, bone_choice(bone or "auto"), points, label)
        for (option, path), bone, points, label in zip(every, bones, landmarks, labels, strict=True)
    ]


def _subject(path: str, choice: BoneChoice, landmarks: str | None, labels: str | None, seed: int) -> Subject:
    from XRayRegistrationLib.simulation.subject import make_subject

    ct, bone = read_ct_and_bone(Path(path), choice, seed)
    return make_subject(
        ct,
        bone=bone,
        landmarks=None if landmarks is None else read_landmarks(landmarks),
        labels=None if labels is None else read_labels(labels, ct),
        name=Path(path).name.split(".")[0],
    )


def _check_before_reading(args: argparse.Namespace, options: Any, out: Path) -> None:
    """What would only show once the CTs are read, which takes a while."""
    from XRayRegistrationLib.simulation.pose_samplers import pose_sampler
    from XRayRegistrationLib.training.devices import choose_device
    from XRayRegistrationLib.training.loop import check_out

    choose_device(args.device)
    check_out(out, args.resume)
    for name in ("poses", "moving"):
        if getattr(options, name, None) is not None:
            pose_sampler(getattr(options, name))


def _require_packages() -> None:
    """Before the CTs are read, which takes a while."""
    import importlib.util

    for module, package in (("torch", "torch"), ("safetensors", "safetensors"), ("lightning_fabric", "lightning-fabric")):
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(package, "training", "training")
