"""Packages that Slicer does not ship, installed where they are needed and only when the user agrees."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import slicer.util

from XRayRegistrationLib.errors import InputError

_REQUIREMENTS = Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"
PYTORCH_EXTENSION = (
    "PyTorch is missing: install the extension PyTorch from Slicer's Extensions Manager, restart Slicer, and try again"
)


def is_there(name) -> bool:
    """Whether a package can be imported."""
    importlib.invalidate_caches()
    return importlib.util.find_spec(name) is not None


def ensure(requirements, why):
    """Ask, then install what is missing.

    Args:
        requirements: names of packages, as they are imported. torch is installed through the extension PyTorch.
        why: what they are needed for, to be shown.

    Returns:
        True.

    Raises:
        InputError: declined, failed, or the extension PyTorch is missing; nothing has changed then.
    """
    for name in [name for name in requirements if not is_there(name)]:
        if name == "torch":
            _ensure_torch()
        else:
            _ensure(name, why)
        if not is_there(name):
            raise InputError(
                f"{name} was not installed, so this choice cannot be used; try again and agree to the installation, or "
                "choose another"
            )
    return True


def _ensure(name, why) -> None:
    try:
        from slicer import packaging
    except ImportError:  # Slicer before 5.12
        packaging = None
        if not slicer.util.confirmOkCancelDisplay(f"{name} {why}. Install it now?", windowTitle="X-ray registration"):
            return
    try:
        if packaging is None:
            with slicer.util.WaitCursor():
                slicer.util.pip_install(name)
        else:
            listed = [one for one in packaging.load_requirements(str(_REQUIREMENTS)) if one.name.replace("-", "_") == name]
            packaging.pip_ensure(listed or [name], requester="XRayRegistration")
    except Exception as error:  # pip's own; whatever it was, the user is told and can go on without
        raise InputError(
            f"{name} was not installed ({error}); agree to the installation and check the network, or choose another"
        ) from error


def _ensure_torch() -> None:
    try:
        import PyTorchUtils
    except ImportError as error:
        raise InputError(PYTORCH_EXTENSION) from error
    if PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True) is None:
        raise InputError("PyTorch was not installed, so this choice cannot be used; agree to the installation, or choose another")
