"""One thread for each of several processes, which would otherwise fight for the cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# read by the libraries when they are loaded, so they are set before a process starts
_VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def one_thread_a_process() -> Iterator[None]:
    """Processes that start within inherit an environment that gives each library one thread."""
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(dict.fromkeys(_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
