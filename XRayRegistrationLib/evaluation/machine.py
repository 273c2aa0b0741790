"""What an evaluation ran on: times mean nothing without it."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from XRayRegistrationLib import __version__

_PACKAGES = ("numpy", "scipy", "SimpleITK", "numba", "torch", "h5py", "distributed")


def describe_machine() -> dict[str, Any]:
    """CPU, cores, memory, GPU (where torch is loaded and sees one), system, and versions."""
    described: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": _gpu(),
        "versions": {"xrayregistration": __version__, "python": platform.python_version()},
    }
    for name in _PACKAGES:
        try:
            described["versions"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return described


def _cpu_model() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:  # not Linux
        found = None
    return found[1].strip() if found else platform.processor() or "unknown"


def _memory_gb() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name())
