"""Batches made ahead of the training by other processes, where there are cores to spare."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.threads import one_thread_a_process
from XRayRegistrationLib.training.task import Task

_AHEAD = 2  # batches that each process keeps ready
_MOST = 16


def worker_count(asked: int | None, device: torch.device) -> int:
    """How many processes make batches; 0 is none but the training itself.

    Where nothing was asked for: one a core for a GPU, which is faster than they are; none for a CPU, whose cores have
    enough to do. A power of two, so that each process meets the geometries again that it has rendered.
    """
    if asked is not None:
        return asked
    if device.type == "cpu":
        return 0
    cores = min(_MOST, max(1, (os.cpu_count() or 1) - 1))
    return 1 << (cores.bit_length() - 1)


def batches(task: Task, first: int, stride: int, workers: int, device: torch.device) -> Iterator[Any]:
    """Batches ``first``, ``first + stride``, ... of a task, for ever, in this order whatever makes them.

    Raises:
        InputError: a process ended without a word.
    """
    if workers == 0:
        number = first
        while True:
            yield task.batch(number, device)
            number += stride
    loader = DataLoader(
        _Numbered(task, first, stride),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=_AHEAD,
        multiprocessing_context="spawn",  # a fork would inherit the threads of the renderer, and hang
    )
    with one_thread_a_process():
        made = iter(loader)
    while True:
        try:
            batch = next(made)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise InputError(
                f"one of the {workers} processes that make X-rays ended without a word, as when the memory is full; "
                "go on with --resume and fewer --workers"
            ) from error
        yield on_device(batch, device)


def on_device(batch: Any, device: torch.device) -> Any:
    """A copy of a batch, a dataclass, whose tensors are on the device; so of dataclasses in it."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if not is_dataclass(batch) or isinstance(batch, type):
        return batch
    return replace(batch, **{f.name: on_device(getattr(batch, f.name), device) for f in fields(batch)})


class _Numbered(IterableDataset):
    """Every W-th batch, in each of W processes; the loader takes from them in turn."""

    def __init__(self, task: Task, first: int, stride: int) -> None:
        self.task, self.first, self.stride = task, first, stride

    def __iter__(self) -> Iterator[Any]:
        torch.set_num_threads(1)
        # at the end the libraries' threads may outlive what they stand on, and abort a process whose work is done
        atexit.register(os._exit, 0)
        info = get_worker_info()
        assert info is not None
        number = self.first + info.id * self.stride
        while True:
            yield self.task.batch(number, torch.device("cpu"))
            number += info.num_workers * self.stride
