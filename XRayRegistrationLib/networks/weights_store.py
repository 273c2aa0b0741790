"""Where trained weights are looked for: those of the user's own trainings, then those that come with the software."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.networks.weights_file import read_header

_STATE = ".training.safetensors"
_PACKAGED = Path(__file__).resolve().parents[1] / "weights"


def weights_folder() -> Path:
    """Of the user's trainings: weights in $XRAYREGISTRATION_HOME, or in ~/.xrayregistration."""
    return Path(os.environ.get("XRAYREGISTRATION_HOME") or Path.home() / ".xrayregistration") / "weights"


def state_path(weights: Path) -> Path:
    """Where the state of a training that writes ``weights`` is kept: W.training.safetensors beside W.safetensors."""
    return weights.with_name(weights.name.removesuffix(".safetensors") + _STATE)


def begun(weights: Path) -> bool:
    """Whether a training that writes ``weights`` was begun, so that it can be resumed; its first weights come later."""
    return weights.exists() or state_path(weights).exists()


def find_weights(
    method: str, ct_fingerprint: str, its_own: bool, suits: Callable[[dict[str, Any]], bool] = lambda header: True
) -> Path | None:
    """The weights of a method that suit a CT best: that learned it, then the user's before the packaged, then the newest.

    Args:
        its_own: only those that learned this CT will do.
        suits: whether weights with such a header will.
    """
    found = []
    for place, folder in enumerate((weights_folder(), _PACKAGED)):
        for file in folder.glob("*.safetensors") if folder.is_dir() else ():
            if file.name.endswith(_STATE):
                continue
            try:
                header = read_header(file)
            except InputError:
                continue  # somebody else's file
            stranger = ct_fingerprint not in fingerprints(header)
            if header.get("method") == method and not (its_own and stranger) and suits(header):
                found.append((stranger, place, -file.stat().st_mtime, file.name, file))
    return min(found)[-1] if found else None


def fingerprints(header: dict[str, Any]) -> list[str]:
    """Of the CTs that weights were trained on."""
    return [str(ct.get("fingerprint")) for ct in header.get("cts", [])]
