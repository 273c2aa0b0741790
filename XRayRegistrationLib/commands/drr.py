"""``xrayreg drr``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.cli import OK, VIEWS, nearest
from XRayRegistrationLib.commands.inputs import BoneChoice, bone_choice, check_backend, check_exists, read_ct_and_bone
from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.atomic import OutputFolder
from XRayRegistrationLib.files.json_file import json_text, read_json
from XRayRegistrationLib.files.result_file import read_result
from XRayRegistrationLib.files.start_pose import read_start_pose
from XRayRegistrationLib.files.volume_file import write_image
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.carm import named_view
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.camera_file import read_camera, write_camera
from XRayRegistrationLib.pictures.orientation import beam_words
from XRayRegistrationLib.pictures.raster import png_bytes, windowed
from XRayRegistrationLib.progress import Progress
from XRayRegistrationLib.result import FORMAT

DEFAULT_SDD_MM, DEFAULT_WIDTH_PX, DEFAULT_DETECTOR_MM = 1020.0, 512, 400.0
DEFAULT_SOD_OVER_SDD = 0.7
_MOST_PIXELS = 64 * 2**20


@dataclass(frozen=True)
class _Request:
    out: OutputFolder
    bone: BoneChoice
    camera: Camera
    pose: NDArray[np.float64] | None  # None: a named view, which needs the bone's centre


def run(args: argparse.Namespace) -> int:
    """Render a CT as an X-ray: ``drr.png``, ``drr.mha`` (line integrals), ``camera.json``, ``pose.json``."""
    request = _check(args)
    with Progress("none" if args.quiet else args.progress) as progress:
        progress(0.0, "reading the CT")
        _, model = read_ct_and_bone(Path(args.ct), request.bone)
        sod = args.sod
        if request.pose is None:
            sod = sod or DEFAULT_SOD_OVER_SDD * (request.camera.source_detector_distance_mm or DEFAULT_SDD_MM)
            pose = named_view(args.pose, model.centroid, sod)
        else:
            pose = request.pose
        progress(0.5, "rendering")
        volume = model.full if request.bone.kind == "full" else model.bone
        image = render(volume, request.camera, pose, backend=args.backend)
        if not image.any():
            raise InputError(
                f"--pose {args.pose}: from there no part of the CT falls on the image (its bone is at "
                f"{np.round(transform_points(pose, model.centroid), 1).tolist()} mm in camera axes); check the pose"
            )
        with request.out as out:
            progress(0.9, "writing")
            out.path("drr.png").write_bytes(png_bytes(windowed(image)))
            write_image(out.path("drr.mha"), image, request.camera.pixel_spacing_mm)
            write_camera(out.path("camera.json"), request.camera)
            out.path("pose.json").write_text(json_text({"camera_from_ct": pose.tolist()}))
            files = out.commit()
    if not args.quiet:
        print(f"The beam runs from the patient's {beam_words(pose)}; bone is bright.")
        print(f"Files in {request.out.folder}: {', '.join(p.name for p in files)}")
    return OK


def _check(args: argparse.Namespace) -> _Request:
    check_backend(args.backend)
    out = OutputFolder(args.out)
    out.check(["drr.png", "drr.mha", "camera.json", "pose.json"])
    check_exists(args.ct, "--ct", "the CT")
    camera = _camera(args)
    if camera.width * camera.height > _MOST_PIXELS:
        raise InputError(
            f"the image of {camera.width} x {camera.height} pixels is too large; allowed are {_MOST_PIXELS}"
        )
    pose = None
    if args.pose not in VIEWS:
        if not Path(args.pose).exists():
            raise InputError(
                f"--pose {args.pose!r} is neither a view nor a file; allowed are {', '.join(VIEWS)}, a result.json, "
                f'JSON with "camera_from_ct", a .tfm or a .h5 file{nearest(args.pose, VIEWS)}'
            )
        pose = read_start_pose(args.pose)
    return _Request(out, bone_choice(args.bone), camera, pose)


def _camera(args: argparse.Namespace) -> Camera:
    if args.camera is not None:
        clashing = [n for n in ("size", "pixel_spacing", "sdd") if getattr(args, n) is not None]
        if clashing:
            names = ", ".join("--" + n.replace("_", "-") for n in clashing)
            raise InputError(f"{names} cannot be given with --camera, which already says so; drop one")
        return read_any_camera(Path(args.camera))
    width, height = args.size or (DEFAULT_WIDTH_PX, DEFAULT_WIDTH_PX)
    spacing = args.pixel_spacing or DEFAULT_DETECTOR_MM / width
    return Camera.from_spacing(width, height, spacing, args.sdd or DEFAULT_SDD_MM)


def read_any_camera(path: Path) -> Camera:
    """A camera from ``camera.json``, MayaCam text, or the first view of a ``result.json``."""
    if path.suffix.lower() == ".json":
        data = read_json(path, "the camera", "a camera.json or a result.json")
        if isinstance(data, dict) and data.get("format") == FORMAT:
            return read_result(path).views[0].camera
    return read_camera(path)
