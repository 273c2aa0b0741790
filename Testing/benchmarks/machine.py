"""What a benchmark ran on, and how much memory a process took."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "scipy", "numba", "torch", "diffdrr", "nanodrr")


def describe() -> dict[str, Any]:
    """CPU, cores, memory, system, versions, threads and load: what a CSV's times belong to."""
    description: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "load_average_at_start": load(),
    }
    import numba
    import torch

    description["threads"] = {"numba": numba.get_num_threads(), "torch": torch.get_num_threads()}
    return description


def available_bytes() -> int:
    """Memory that can be had without swapping; 8 GB where the system does not say."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"))
    return int(found[1]) * 1024 if found else 8 * 2**30


def reset_peak_memory() -> None:
    """Start the peak anew from here (Linux; elsewhere the peak is that of the whole process)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_mb() -> float:
    """The largest resident memory of this process since :func:`reset_peak_memory`."""
    found = re.search(r"VmHWM:\s+(\d+) kB", _read("/proc/self/status"))
    if found:
        return int(found[1]) / 1024
    import resource

    unit = 2**20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _cpu_model() -> str:
    found = re.search(r"model name\s*:\s*(.+)", _read("/proc/cpuinfo"))
    return found[1].strip() if found else platform.processor()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def load() -> float:
    """Load average of the last minute; far above our own threads, and the times are not worth much."""
    return round(os.getloadavg()[0], 2)
