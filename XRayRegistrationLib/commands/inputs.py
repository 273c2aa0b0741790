"""What the commands share: checking arguments before any heavy work, and reading CT and bone."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from XRayRegistrationLib.bone.model import BoneModel, build_bone_model
from XRayRegistrationLib.cli import BACKENDS, one_of
from XRayRegistrationLib.errors import InputError, MissingDependencyError
from XRayRegistrationLib.images.ct import read_ct, read_labels
from XRayRegistrationLib.images.volume import Volume


@dataclass(frozen=True)
class BoneChoice:
    """What ``--bone`` says.

    Attributes:
        kind: ``"auto"``, ``"full"`` or ``"labels"``.
        path: of the label map; labels: which of its numbers, None for all.
    """

    kind: Literal["auto", "full", "labels"]
    path: Path | None = None
    labels: tuple[int, ...] | None = None


def bone_choice(text: str) -> BoneChoice:
    """Parse ``auto``, ``full`` or ``LABELS[:1,2]``.

    Raises:
        InputError: none of these, or the label map does not exist.
    """
    if text == "auto":
        return BoneChoice("auto")
    if text == "full":
        return BoneChoice("full")
    allowed = "allowed are auto, full, or a label map with or without its labels, such as labels.nii.gz:1,2"
    match = re.fullmatch(r"(.+):([^/\\:]*)", text)
    path, numbers = Path(text), None
    if match and not path.exists():
        path = Path(match[1])
        if not re.fullmatch(r"\d+(,\d+)*", match[2]):
            raise InputError(f"--bone {text!r}: {match[2]!r} is no list of labels; {allowed}")
        numbers = tuple(int(n) for n in match[2].split(","))
    if not path.exists():
        raise InputError(f"--bone {text!r}: the file {path} does not exist; {allowed}")
    return BoneChoice("labels", path, numbers)


def check_exists(path: str, option: str, what: str) -> Path:
    """The path of something that is there.

    Raises:
        InputError: it is not.
    """
    place = Path(path)
    if not place.exists():
        raise InputError(f"{option} {path}: {what} does not exist; check the path")
    return place


def check_backend(name: str) -> str:
    """A known renderer whose package is installed.

    Raises:
        InputError: unknown.
        MissingDependencyError: its package is missing.
    """
    one_of(name, BACKENDS, "--backend")
    for package in {"numba": ("numba",), "torch": ("torch",), "diffdrr": ("torch", "diffdrr")}.get(name, ()):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, f"the backend {name!r}", name)
    return name


def read_ct_and_bone(ct_path: Path, choice: BoneChoice, seed: int = 0) -> tuple[Volume, BoneModel]:
    """The CT and the model of what is rigid in it."""
    ct = read_ct(ct_path)
    if choice.kind == "labels":
        assert choice.path is not None
        return ct, build_bone_model(ct, bone=read_labels(choice.path, ct), labels=choice.labels, seed=seed)
    return ct, build_bone_model(ct, bone=choice.kind, seed=seed)
