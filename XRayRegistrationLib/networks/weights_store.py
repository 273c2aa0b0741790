"""Where trained weights are looked for: those of the user's own trainings, then those that come with the software."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.networks.weights_file import read_header

_PACKAGED = Path(__file__).resolve().parents[1] / "weights"


def weights_folder() -> Path:
    """Of the user's trainings: weights in $XRAYREGISTRATION_HOME, or in ~/.xrayregistration."""
    return Path(os.environ.get("XRAYREGISTRATION_HOME") or Path.home() / ".xrayregistration") / "weights"


def find_weights(method: str, ct_fingerprint: str | None) -> Path | None:
    """The newest weights of a method for a CT (None: for any), or None; the user's before the packaged."""
    for folder in (weights_folder(), _PACKAGED):
        if not folder.is_dir():
            continue
        files = [f for f in folder.glob("*.safetensors") if not f.name.endswith(".training.safetensors")]
        for file in sorted(files, key=lambda f: (-f.stat().st_mtime, f.name)):
            try:
                header = read_header(file)
            except InputError:
                continue  # somebody else's file
            if header.get("method") == method and (ct_fingerprint is None or ct_fingerprint in fingerprints(header)):
                return file
    return None


def fingerprints(header: dict[str, Any]) -> list[str]:
    """Of the CTs that weights were trained on."""
    return [str(ct.get("fingerprint")) for ct in header.get("cts", [])]
