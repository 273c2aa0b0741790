"""What a finished registration prints, in plain words."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from XRayRegistrationLib.geometry.carm import angles_from_camera_from_ct
from XRayRegistrationLib.pictures.orientation import beam_words
from XRayRegistrationLib.pictures.verdict import verdict_of
from XRayRegistrationLib.result import Result

_ANSI = {True: "\x1b[1;32m", False: "\x1b[1;31m"}


def print_result(result: Result, files: Sequence[Path], captions: bool = True) -> None:
    """The verdict, its sentences, where the X-ray was taken from, and the files."""
    verdict = verdict_of(result)
    print(coloured(verdict.headline, result.ok))
    for sentence in verdict.sentences:
        print(f"  {sentence}")
    if result.ok:
        print(f"  {place_line(result)}")
    if files:
        print(f"Files in {files[0].parent}: {', '.join(p.name for p in files)}")
    if not captions:
        print("(The pictures have no captions: for these, pip install 'xrayregistration[pictures]'.)")


def place_line(result: Result) -> str:
    """Where the beam ran, as words and as C-arm angles."""
    return f"The beam ran from the patient's {beam_words(result.camera_from_ct)}; {carm_words(result)}."


def carm_words(result: Result) -> str:
    """C-arm angles as a C-arm displays them, for a patient who lies head first on the back."""
    centre = np.zeros(3) if result.centre_ct is None else result.centre_ct
    carm = angles_from_camera_from_ct(result.camera_from_ct, centre)
    primary = f"{'LAO' if carm.primary_deg >= 0 else 'RAO'} {abs(carm.primary_deg):.1f}"
    secondary = f"{'CRAN' if carm.secondary_deg >= 0 else 'CAUD'} {abs(carm.secondary_deg):.1f}"
    return f"C-arm angles {primary}, {secondary}, roll {carm.roll_deg:.1f} degrees"


def coloured(text: str, good: bool) -> str:
    """Green or red on a terminal, plain elsewhere."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"{_ANSI[good]}{text}\x1b[0m"
