"""The environment of this folder holds what 3D Slicer ships and nothing more, and the library loads in it."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil

import pytest

import XRayRegistrationLib

EXTRAS = (
    "numba", "torch", "safetensors", "lightning_fabric", "cv2", "poselib", "cma", "matplotlib", "pandas", "skimage", "diffdrr",
    "nanodrr",
)  # fmt: skip
# Modules that are nothing but code for one extra; what imports them does so when it is asked for.
ONLY_WITH_AN_EXTRA = (
    "_numba_kernels", "_derivative_kernels", "_patch_kernels", "_residual_kernels", "backend_numba", "backend_torch",
    "backend_diffdrr", "developing", "ray_matching", "ray_templates",
)  # fmt: skip
# Rooms of networks, but for what is asked before there is one.
ROOMS_OF_TORCH = ("networks", "training")
NOT_OF_TORCH = ("networks", "training", "weights_file", "weights_store", "network_input", "options", "schedule", "log", "headers")


def _modules() -> list[str]:
    found = pkgutil.walk_packages(XRayRegistrationLib.__path__, "XRayRegistrationLib.")
    names = [m.name for m in found]
    return [n for n in names if n.rsplit(".", 1)[-1] not in (*ONLY_WITH_AN_EXTRA, "__main__") and not _of_torch(n)]


def _of_torch(name: str) -> bool:
    parts = name.split(".")
    return parts[1] in ROOMS_OF_TORCH and parts[-1] not in NOT_OF_TORCH


@pytest.mark.parametrize("package", EXTRAS)
def test_extra_is_absent(package: str) -> None:
    # otherwise this folder's tests would prove nothing
    assert importlib.util.find_spec(package) is None


@pytest.mark.parametrize("module", _modules())
def test_module_loads_without_extras(module: str) -> None:
    importlib.import_module(module)
