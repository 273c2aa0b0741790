"""``xrayreg segment``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from XRayRegistrationLib.bone.segmentation import segment_bone
from XRayRegistrationLib.cli import OK
from XRayRegistrationLib.commands.inputs import check_exists
from XRayRegistrationLib.files.atomic import OutputFolder
from XRayRegistrationLib.files.volume_file import VOLUME_SUFFIXES, write_volume
from XRayRegistrationLib.images.ct import read_ct
from XRayRegistrationLib.progress import Progress


def run(args: argparse.Namespace) -> int:
    """Find the bone in a CT and write it as a label map on the CT's grid."""
    target = Path(args.out)
    if not target.name.lower().endswith(VOLUME_SUFFIXES):
        target = target / "bone.nii.gz"
    folder = OutputFolder(target.parent)
    folder.check([target.name])
    check_exists(args.ct, "--ct", "the CT")
    with Progress("none" if args.quiet else args.progress) as progress:
        progress(0.0, "reading the CT")
        ct = read_ct(args.ct)
        progress(0.3, "finding the bone")
        bone = segment_bone(ct, args.threshold)
        with folder as out:
            progress(0.9, "writing")
            write_volume(out.path(target.name), bone)
            out.commit()
    if not args.quiet:
        voxels = int(np.count_nonzero(bone.values))
        millilitres = voxels * abs(float(np.linalg.det(bone.ras_from_ijk[:3, :3]))) / 1000.0
        print(f"Bone: {millilitres:.0f} ml in {voxels} voxels, label 1 in {target}")
    return OK
