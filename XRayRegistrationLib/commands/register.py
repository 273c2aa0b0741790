"""``xrayreg register``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.cli import NOT_VERIFIED, OK, SOLVERS, VIEWS, nearest, one_of
from XRayRegistrationLib.commands.inputs import BoneChoice, bone_choice, check_backend, check_exists, read_ct_and_bone
from XRayRegistrationLib.commands.report import print_result
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.atomic import OutputFolder
from XRayRegistrationLib.files.landmarks import Landmarks, read_landmarks
from XRayRegistrationLib.files.result_file import describe_input, files_of_earlier_result, write_result
from XRayRegistrationLib.files.start_pose import read_start_pose
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.camera_file import read_camera
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.images.xray_file import read_xray
from XRayRegistrationLib.methods import METHODS
from XRayRegistrationLib.pictures.write import KINDS, can_caption, write_pictures
from XRayRegistrationLib.progress import Progress
from XRayRegistrationLib.registration import register

POLARITIES = ("auto", "bone-bright", "bone-dark")


@dataclass(frozen=True)
class _Request:
    """The arguments, every one checked, before any image is read."""

    out: OutputFolder
    bone: BoneChoice
    cameras: tuple[Camera | None, ...]
    start: str | NDArray[np.float64]
    landmarks: Landmarks | None


def run(args: argparse.Namespace) -> int:
    """Register, write the files, print the verdict; 0 for success, 3 for a failure of the verification."""
    request = _check(args)
    with Progress("none" if args.quiet else args.progress) as progress:
        progress(0.0, "reading the X-ray")
        xrays = [_read_xray(path, camera, args) for path, camera in zip(args.xray, request.cameras, strict=True)]
        progress(0.04, "reading the CT")
        ct, model = read_ct_and_bone(Path(args.ct), request.bone, args.seed)
        with request.out as out:
            progress(0.15, "registering")
            result = register(
                ct,
                xrays,
                method=args.method,
                bone=model,
                start=request.start,
                landmarks=None if request.landmarks is None else request.landmarks.points_ct,
                options=_options(args),
                backend=args.backend,
                seed=args.seed,
                progress=progress.between(0.15, 0.9),
            )
            names = () if request.landmarks is None else request.landmarks.names
            inputs = {**result.inputs, **_inputs(args)}
            result = replace(result, inputs=inputs, landmark_names=names or result.landmark_names)
            progress(0.9, "writing files and pictures")
            write_result(out, result)
            write_pictures(
                out,
                result,
                xrays,
                model,
                kind=args.pictures,
                backend=args.backend,
                landmarks=args.landmarks is not None,
            )
            files = out.commit(remove=files_of_earlier_result(out.folder))
    if not args.quiet:
        print_result(result, files, captions=args.pictures == "none" or can_caption())
    return OK if result.ok else NOT_VERIFIED


def _check(args: argparse.Namespace) -> _Request:
    one_of(args.method, tuple(METHODS), "--method")
    one_of(args.solver, SOLVERS, "--solver")
    METHODS[args.method].options(_options(args))  # options that exclude each other
    one_of(args.polarity, POLARITIES, "--polarity")
    one_of(args.pictures, KINDS, "--pictures")
    check_backend(args.backend)
    out = OutputFolder(args.out)
    out.check(["result.json", "overlay.png", "drr.png", "landmarks.mrk.json"])
    check_exists(args.ct, "--ct", "the CT")
    for path in args.xray:
        check_exists(path, "--xray", "the X-ray")
    if args.weights is not None:
        check_exists(args.weights, "--weights", "the weights file")
    if args.mask not in ("auto", "none"):
        check_exists(args.mask, "--mask", "the mask")
    bone = bone_choice(args.bone)
    cameras = _cameras(args)
    start: str | NDArray[np.float64] = args.start
    if args.start not in ("none", *VIEWS):
        if not Path(args.start).exists():
            names = ("none", *VIEWS)
            raise InputError(
                f"--start {args.start!r} is neither a view nor a file; allowed are {', '.join(names)}, a result.json, "
                f'JSON with "camera_from_ct", a .tfm or a .h5 file{nearest(args.start, names)}'
            )
        start = read_start_pose(args.start, None if cameras[0] is None else cameras[0].camera_from_rig)
    landmarks = None if args.landmarks is None else read_landmarks(args.landmarks)
    return _Request(out, bone, cameras, start, landmarks)


def _cameras(args: argparse.Namespace) -> tuple[Camera | None, ...]:
    """One camera an X-ray, in their order; None where the X-ray's own header has to say."""
    paths: list[str] = args.camera or []
    if not paths:
        if len(args.xray) > 1:
            raise InputError(
                f"{len(args.xray)} X-rays were given without --camera; several X-rays share one pose and need one camera "
                'file each, in their order: a MayaCam text, or camera.json with "camera_from_rig" (4x4)'
            )
        return (None,)
    if len(paths) != len(args.xray):
        raise InputError(
            f"{len(paths)} --camera for {len(args.xray)} --xray; allowed is one camera for each X-ray, in their order"
        )
    if args.sdd is not None or args.pixel_spacing is not None:
        raise InputError("--sdd and --pixel-spacing cannot be given with --camera, which already has them; drop one")
    cameras = tuple(read_camera(path) for path in paths)
    for path, camera in zip(paths, cameras, strict=True):
        if len(paths) > 1 and camera.camera_from_rig is None:
            raise InputError(
                f'--camera {path} has no "camera_from_rig" (4x4), which several X-rays that share one pose need; '
                "add it, or give the rig's MayaCam text"
            )
    return cameras


def _read_xray(path: str, camera: Camera | None, args: argparse.Namespace) -> XRay:
    try:
        return read_xray(
            path,
            camera,
            polarity=args.polarity.replace("-", "_"),
            frame=args.frame,
            source_detector_distance_mm=args.sdd,
            pixel_spacing_mm=args.pixel_spacing,
            mask=None if args.mask == "none" else args.mask,
        )
    except InputError as error:
        if path in str(error):
            raise
        raise InputError(f"--xray {path}: {error}") from error  # of several, which one


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Only what was asked for: every other default is the method's own."""
    options: dict[str, Any] = {}
    if args.solver != SOLVERS[0]:
        options["solver"] = args.solver
    if args.paper_mode:
        options["paper_mode"] = True
    if args.weights is not None:
        options["weights"] = args.weights
    return options


def _inputs(args: argparse.Namespace) -> dict[str, Any]:
    """Paths and hashes of every input file, and the arguments that are no files."""
    bone = bone_choice(args.bone)
    return {
        "ct": describe_input(args.ct),
        "xrays": [describe_input(path) for path in args.xray],
        "cameras": [describe_input(path) for path in args.camera or []],
        "labels": None if bone.path is None else {**describe_input(bone.path), "labels": bone.labels},
        "landmarks": None if args.landmarks is None else describe_input(args.landmarks),
        "start": describe_input(args.start) if Path(args.start).is_file() else args.start,
        "mask": describe_input(args.mask) if Path(args.mask).is_file() else args.mask,
        "bone": bone.kind,
        "solver": args.solver,
        "paper_mode": args.paper_mode,
        "weights": None if args.weights is None else describe_input(args.weights),
        "backend": args.backend,
        "polarity": args.polarity,
        "frame": args.frame,
        "source_detector_distance_mm": args.sdd,
        "pixel_spacing_mm": args.pixel_spacing,
    }
