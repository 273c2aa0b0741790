"""``xrayreg demo``: the whole job on a sample chest CT, with an X-ray whose true pose is known."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.cli import NOT_VERIFIED, OK, one_of
from XRayRegistrationLib.commands.inputs import check_backend
from XRayRegistrationLib.commands.report import coloured, place_line
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.atomic import OutputFolder
from XRayRegistrationLib.files.json_file import json_text
from XRayRegistrationLib.files.result_file import describe_input, files_of_earlier_result, write_result
from XRayRegistrationLib.files.volume_file import write_counts
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import rotation_angle, transform_points
from XRayRegistrationLib.images.camera_file import write_camera
from XRayRegistrationLib.images.sample import load_sample_ct, sample_ct_path
from XRayRegistrationLib.images.xray_file import read_xray
from XRayRegistrationLib.methods import METHODS
from XRayRegistrationLib.pictures.orientation import beam_words
from XRayRegistrationLib.pictures.verdict import verdict_of
from XRayRegistrationLib.pictures.write import can_caption, write_pictures
from XRayRegistrationLib.progress import Progress
from XRayRegistrationLib.registration import register
from XRayRegistrationLib.simulation.demo_case import DETECTOR_MM, SDD_MM, SIZES, simulate

GROSS_ERROR_MM = 10.0  # beyond it a registration counts as failed, in every paper of the field


@dataclass(frozen=True)
class TrueError:
    """How far a pose is from the true one, over points of the bone.

    Attributes:
        mtre_mm: mean distance between the points moved by both poses.
        in_plane_mm, depth_mm: means of its parts across and along the beam.
        rotation_deg: angle between the two rotations.
    """

    mtre_mm: float
    in_plane_mm: float
    depth_mm: float
    rotation_deg: float


def true_error(camera_from_ct: ArrayLike, true_camera_from_ct: ArrayLike, points_ct: ArrayLike) -> TrueError:
    """mTRE = mean over points of |T X - T_true X|, in camera axes."""
    found, true = np.asarray(camera_from_ct, dtype=np.float64), np.asarray(true_camera_from_ct, dtype=np.float64)
    points = np.asarray(points_ct, dtype=np.float64)
    d = transform_points(found, points) - transform_points(true, points)
    return TrueError(
        mtre_mm=float(np.linalg.norm(d, axis=1).mean()),
        in_plane_mm=float(np.hypot(d[:, 0], d[:, 1]).mean()),
        depth_mm=float(np.abs(d[:, 2]).mean()),
        rotation_deg=float(np.degrees(rotation_angle(found[:3, :3], true[:3, :3]))),
    )


def run(args: argparse.Namespace) -> int:
    """Simulate, register without a start pose, say how far it is off, and draw it."""
    if not SIZES[0] <= args.size <= SIZES[1]:
        raise InputError(f"--size {args.size} is out of range; allowed are {SIZES[0]} to {SIZES[1]} pixels")
    check_backend(args.backend)
    one_of(args.method, tuple(METHODS), "the method")
    folder = OutputFolder(args.out)
    camera = Camera.from_spacing(args.size, args.size, DETECTOR_MM / args.size, SDD_MM)
    ct_path = sample_ct_path()
    with Progress("none" if args.quiet else args.progress) as progress, folder as out:
        progress(0.0, "reading the sample chest CT")
        ct = load_sample_ct()
        progress(0.05, "finding its bones")
        model = build_bone_model(ct)
        progress(0.15, "simulating an X-ray from a random pose")
        counts, true_pose = simulate(ct, model, camera, args.seed)
        write_counts(out.path("xray.png"), counts)
        write_camera(out.path("camera.json"), camera)
        xray = replace(read_xray(out.path("xray.png"), camera), source=str(folder.folder / "xray.png"))
        progress(0.2, "registering, without a start pose")
        result = register(
            ct,
            xray,
            method=args.method,
            bone=model,
            backend=args.backend,
            seed=args.seed,
            progress=progress.between(0.2, 0.85),
        )  # the true pose is not passed
        error = true_error(result.camera_from_ct, true_pose, model.surface_points)
        files = {name: out.path(name) for name in ("xray.png", "camera.json")}
        described = {name: {**describe_input(path), "path": str(folder.folder.absolute() / name)}
                     for name, path in files.items()}  # fmt: skip
        inputs = {
            **result.inputs,
            "ct": describe_input(ct_path),
            "xrays": [described["xray.png"]],
            "cameras": [described["camera.json"]],
        }
        result = replace(result, inputs=inputs)
        progress(0.85, "drawing")
        write_result(out, result)
        truth = {"camera_from_ct": true_pose.tolist(), **error.__dict__}
        out.path("truth.json").write_text(json_text(truth))
        verdict = verdict_of(result)
        shown = replace(verdict, sentences=(*verdict.sentences, error_sentence(error)))
        write_pictures(out, result, [xray], model, kind="all", backend=args.backend, landmarks=False, verdict=shown)
        written = out.commit(remove=files_of_earlier_result(folder.folder))
    if not args.quiet:
        print(f"An X-ray of the sample chest CT was simulated from a random pose (seed {args.seed}): the beam ran from")
        print(f"the patient's {beam_words(true_pose)}. The registration was told neither the pose nor the view.")
        print(coloured(verdict.headline, result.ok))
        for line in (*verdict.sentences, place_line(result)):
            print(f"  {line}")
        print(error_sentence(error))
        print(judgement(result.ok, error))
        print(f"Pictures and files in {folder.folder}: {', '.join(p.name for p in written)}")
        if not can_caption():
            print("(For captions and the 3D picture: pip install 'xrayregistration[pictures]'.)")
        print(f"Try it yourself: xrayreg register --ct {ct_path} --xray {folder.folder / 'xray.png'} "
              f"--camera {folder.folder / 'camera.json'}")  # fmt: skip
    return OK if result.ok else NOT_VERIFIED


def error_sentence(error: TrueError) -> str:
    """The true error in mm and degrees."""
    return (
        f"True error: the bone is {error.mtre_mm:.2f} mm off on average ({error.in_plane_mm:.2f} mm in the image, "
        f"{error.depth_mm:.2f} mm in depth) and turned by {error.rotation_deg:.2f} degrees."
    )


def judgement(accepted: bool, error: TrueError) -> str:
    """Whether the verification was right, which only a simulation can tell."""
    good = error.mtre_mm <= GROSS_ERROR_MM
    found = f"within {GROSS_ERROR_MM:g} mm" if good else f"more than {GROSS_ERROR_MM:g} mm off"
    return f"So the pose is {found}, and the verdict was {'right' if accepted == good else 'WRONG'}."
