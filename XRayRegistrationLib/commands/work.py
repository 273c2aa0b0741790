"""``xrayreg work FOLDER``: do the request in a folder; how the Slicer panel registers in a process of its own."""

from __future__ import annotations

import argparse
from pathlib import Path

from XRayRegistrationLib.cli import OK
from XRayRegistrationLib.files.atomic import write_atomically
from XRayRegistrationLib.files.json_file import json_text
from XRayRegistrationLib.files.request_folder import read_request
from XRayRegistrationLib.progress import Progress
from XRayRegistrationLib.request import fulfil

RESULT = "result.json"


def run(args: argparse.Namespace) -> int:
    """Write ``result.json`` into the folder; the verdict is in it, so the status is 0 for a failure too."""
    folder = Path(args.folder)
    with Progress("json") as progress:
        result = fulfil(read_request(folder), progress)
    write_atomically(folder / RESULT, json_text(result.to_dict()))
    return OK
