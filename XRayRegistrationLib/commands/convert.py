"""``xrayreg convert``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from XRayRegistrationLib.cli import OK, one_of
from XRayRegistrationLib.commands.drr import read_any_camera
from XRayRegistrationLib.commands.inputs import check_exists
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.atomic import OutputFolder, check_output_file, write_atomically
from XRayRegistrationLib.files.conventions import READERS, WRITERS, Shot, guess
from XRayRegistrationLib.files.transforms import TRANSFORM_SUFFIXES, write_slicer_transform
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.ct import read_ct


def run(args: argparse.Namespace) -> int:
    """Read a pose or a camera in one convention and print or write it in another."""
    wanted = one_of(args.to, ("slicer", *WRITERS), "--to")
    one_of(args.source, ("auto", *READERS), "--from")
    path = check_exists(args.input, "convert", "the file")
    target = None if args.out is None else Path(args.out)
    if target is not None:
        check_output_file(target)
    if wanted == "slicer" and (target is None or target.suffix.lower() not in TRANSFORM_SUFFIXES):
        raise InputError(f"--to slicer writes a transform file; give --out with {' or '.join(TRANSFORM_SUFFIXES)}")
    known = Shot(
        camera=None if args.camera is None else read_any_camera(check_exists(args.camera, "--camera", "the camera"))
    )
    if args.ct is not None:
        ct = read_ct(check_exists(args.ct, "--ct", "the CT"))
        last = np.array(ct.values.shape[::-1]) - 1
        known = replace(known, centre_ct=transform_points(ct.ras_from_ijk, last / 2))
    shot = READERS[guess(path) if args.source == "auto" else args.source](path, known)
    # what the user says explicitly counts more than what the file happens to hold
    shot = replace(shot, camera=known.camera or shot.camera, source=str(path))
    if known.centre_ct is not None:
        shot = replace(shot, centre_ct=known.centre_ct)
    if wanted == "slicer":
        if shot.camera_from_ct is None:
            raise InputError(f"{path} has no pose (camera_from_ct) that a transform could hold; give a file that has")
        assert target is not None
        with OutputFolder(target.parent) as out:
            write_slicer_transform(out.path(target.name), shot.camera_from_ct)
            out.commit()
    else:
        text = WRITERS[wanted](shot)
        if target is None:
            print(text, end="")
            return OK
        write_atomically(target, text)
    if not args.quiet:
        print(f"Wrote {target}")
    return OK
