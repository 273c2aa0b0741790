"""The training loop: any method, on a CPU, a GPU, or several of them (Lightning Fabric)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.atomic import uninterrupted
from XRayRegistrationLib.networks.weights_file import LICENCE, read_weights, write_weights
from XRayRegistrationLib.networks.weights_store import begun, state_path
from XRayRegistrationLib.training.checkpoint import Progressed, check_same, judged_alike, load_state, save_state
from XRayRegistrationLib.training.devices import choose_device, fast_bfloat16
from XRayRegistrationLib.training.log import MetricLog
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.schedule import FALLS_AFTER, learning_rate_factor
from XRayRegistrationLib.training.task import Task, Validation
from XRayRegistrationLib.training.workers import batches, worker_count

Tell = Callable[[float, str], None]

_LOG_EVERY = 20  # iterations
_MOST_SKIPPED = 20  # iterations in a row whose gradient is not finite


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        weights: the file, whose weights are those of the best validation.
        iterations, minutes: trained in all.
        validation_mm: median mTRE of the best validation.
        early: it ended because nothing got better any more.
    """

    weights: Path
    iterations: int
    minutes: float
    validation_mm: float
    early: bool


def fit(
    task: Task, out: Path, options: TrainingOptions, *, resume: bool = False, progress: Tell | None = None
) -> TrainingResult:
    """Train a task's network and keep the weights of the best validation.

    Beside ``out`` it keeps the state of the training (:func:`networks.weights_store.state_path`) and a log,
    ``W.jsonl``. An exception, Ctrl-C or a kill loses at most the iterations since the last checkpoint.

    Args:
        out: the ``.safetensors`` file to write.
        resume: go on with the training that wrote ``out``: one that was interrupted to the end of its budget, one that
            had ended for a whole budget more. Where only the weights are left, they are what it starts from.
        progress: called with (fraction of the budget, a line: loss, validation in mm, images per second).

    Raises:
        InputError: no CUDA though asked for; the file cannot be written; a state of another training; nothing to
            resume; gradients that are never finite.
    """
    run = _Run(task, Path(out), options, progress or (lambda fraction, text: None))
    return run.train(resume)


def check_out(out: Path, resume: bool = False) -> None:
    """Raise InputError where weights cannot be called so, or there is nothing to resume."""
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out} does not end in .safetensors; weights are kept in that format")
    if resume and not begun(out):
        raise InputError(f"there is nothing to resume at {out}; leave --resume away, or give the --out of a training")


class _Run:
    """One call of :func:`fit`."""

    def __init__(self, task: Task, out: Path, options: TrainingOptions, tell: Tell) -> None:
        from lightning_fabric import Fabric

        check_out(out)
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # what it says of itself is not for our users
        self.task, self.out, self.options, self.tell = task, out, options, tell
        device = choose_device(options.device)
        mixed = options.precision == "bf16" or (
            options.precision == "auto" and task.mixed_precision and fast_bfloat16(device)
        )
        together = options.devices > 1 or options.nodes > 1
        self.fabric = Fabric(
            accelerator=device.type,
            strategy="ddp_find_unused_parameters_true" if together else "auto",  # the last bias of a slope is never used
            devices=options.devices,
            num_nodes=options.nodes,
            precision="bf16-mixed" if mixed else "32-true",
        )
        if together:
            self.fabric.launch()
        torch.manual_seed(options.seed)
        network = _channels_last(task.network())
        self.average = AveragedModel(network, multi_avg_fn=_running_average(options.averaging), use_buffers=True)
        self.average.to(self.fabric.device)
        self.network, self.optimizer = self.fabric.setup(network, task.optimizer(network, options))
        self.header = {"method": task.method, "licence": LICENCE, "seed": options.seed, **task.header()}
        self.progressed = Progressed()
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.fraction = 0.0  # of the budget, by the first device's clock: all have the same learning rate
        self.validation = ""

    @property
    def bare(self) -> nn.Module:
        """The network without Fabric's wrapper."""
        module: nn.Module = self.network.module
        return module

    def train(self, resume: bool) -> TrainingResult:
        """Go through the budget."""
        check_out(self.out, resume)
        if resume:
            self._resume()
        main = self.fabric.is_global_zero
        # opened before anything is trained: a place that cannot be written shows at once
        self.log = MetricLog(self.out.with_suffix(".jsonl"), self.progressed.iteration) if main else None
        if main and not resume:
            self._save()
        self.last_save = time.monotonic()
        rank, world = self.fabric.global_rank, self.fabric.world_size
        first = self.progressed.iteration * world + rank
        workers = worker_count(self.options.workers, self.fabric.device)
        self.batches = batches(self.task, first, world, workers, self.fabric.device)
        self.speed = _Speed(self.options.batch_size * self.fabric.world_size)
        self.before = time.monotonic()
        self.mean_loss: float | None = None
        skipped_in_row = 0
        try:
            while not self._agreed_to_end():
                with uninterrupted():  # a signal takes effect between two iterations, where the state is whole
                    skipped_in_row = 0 if self._step() else skipped_in_row + 1
                if skipped_in_row >= _MOST_SKIPPED:
                    raise InputError(
                        f"the last {_MOST_SKIPPED} gradients were not finite; lower the learning rate, or --precision 32"
                    )
        except KeyboardInterrupt:
            if main:
                self._save()
            raise
        with uninterrupted():
            if self.progressed.iteration % self.options.validate_every:
                self._validate()
            self.progressed.done = True
            if main:
                self._save()
        self.tell(1.0, f"trained{self.validation}")
        p = self.progressed
        early = p.without_better >= self.options.patience
        return TrainingResult(self.out, p.iteration, p.spent_s / 60.0, p.best_mm, early)

    def _step(self) -> bool:
        """An iteration and what is due after it; returns whether its gradient was finite."""
        p = self.progressed
        loss, parts, finite = self._iterate(p.iteration)
        p.iteration += 1
        p.skipped += not finite
        self._count_time()
        self.speed.count()
        self.mean_loss = loss if self.mean_loss is None else 0.95 * self.mean_loss + 0.05 * loss
        if self.log is not None and p.iteration % _LOG_EVERY == 0:
            rate, speed = self.optimizer.param_groups[0]["lr"], self.speed.measured()
            self.log.add(iteration=p.iteration, loss=loss, **parts, learning_rate=rate, images_per_second=round(speed, 1))
            self.tell(min(self._fraction(), 0.999), f"loss {self.mean_loss:.3g}{self.validation}, {speed:.0f} images/s")
        if p.iteration % self.options.validate_every == 0:
            self._validate()
            self.speed.restart()
        if self.fabric.is_global_zero and time.monotonic() - self.last_save > self.options.checkpoint_s:
            self._save()
        return finite

    def _iterate(self, number: int) -> tuple[float, dict[str, float], bool]:
        """One step; returns the loss, its parts, and whether the gradient was finite (else no weight was changed)."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        torch.manual_seed((self.options.seed << 32) + number * world + rank)  # dropout, should a network have some
        factor = learning_rate_factor(number - self.progressed.begun_iteration, self.fraction, self.options.warmup)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        batch = next(self.batches)
        self.network.train()
        loss, parts = self.task.loss(self.network, batch)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        longest = self.task.gradient_norm if self.options.gradient_norm is None else self.options.gradient_norm
        norm = torch.nn.utils.clip_grad_norm_(self.bare.parameters(), longest)
        finite = bool(torch.isfinite(norm))
        if finite:
            self.optimizer.step()
            self.average.update_parameters(self.bare)
        else:
            self._heal_statistics()
        return float(loss.detach()), parts, finite

    @torch.no_grad()
    def _heal_statistics(self) -> None:
        """Put the average's in place of running statistics that a picture which is not finite has spoilt."""
        for statistic, average in zip(self.bare.buffers(), self.average.module.buffers(), strict=True):
            if not torch.isfinite(statistic).all():
                statistic.copy_(average)

    def _fraction(self) -> float:
        """Of the budget that is spent."""
        p = self.progressed
        if self.options.iterations is not None:
            return (p.iteration - p.begun_iteration) / self.options.iterations
        assert self.options.minutes is not None
        return (p.spent_s - p.begun_s) / (60.0 * self.options.minutes)

    def _agreed_to_end(self) -> bool:
        """Whether the budget or the patience is at its end; every device follows the first one's clock."""
        told = self._fraction(), self.progressed.without_better >= self.options.patience
        self.fraction, out_of_patience = self.fabric.broadcast(told) if self.fabric.world_size > 1 else told
        return self.fraction >= 1.0 or out_of_patience

    def _count_time(self) -> None:
        now = time.monotonic()
        self.progressed.spent_s += now - self.before
        self.before = now

    def _validate(self) -> None:
        """Judge the averaged weights, and keep them if they are the best so far."""
        result: Validation | None = None
        if self.fabric.is_global_zero:
            judged = self.average.module.eval()
            with torch.inference_mode():
                result = self.task.validate(judged, self.fabric.device)
        result = self.fabric.broadcast(result) if self.fabric.world_size > 1 else result
        assert result is not None
        p = self.progressed
        # as long as there is no pose for half of the cases, later weights are better ones
        better = result.median_mm < p.best_mm or p.best_mm == float("inf")
        # a high learning rate holds the network on a plateau, which is no reason to end before it falls
        p.without_better = 0 if better or self._fraction() < FALLS_AFTER else p.without_better + 1
        p.best_mm = min(p.best_mm, result.median_mm)
        self.validation = f", validation {result.median_mm:.1f} {self.task.unit}"
        self._count_time()
        if self.log is not None:
            self.log.add(iteration=p.iteration, validation_mm=result.median_mm, **result.details)
            if better or not self.out.exists():
                self._write_weights(result.median_mm)

    def _write_weights(self, median_mm: float) -> None:
        p = self.progressed
        finite = median_mm if median_mm < float("inf") else None
        training: dict[str, Any] = {
            "iterations": p.iteration,
            "minutes": round(p.spent_s / 60.0, 2),
            "images": p.iteration * self.options.batch_size * self.fabric.world_size,
            "validation_median_mm": finite,
            "device": self.fabric.device.type,
        }
        write_weights(self.out, self.average.module.state_dict(), {**self.header, "training": training})

    def _save(self) -> None:
        save_state(state_path(self.out), self.bare, self.average, self.optimizer, self.progressed, self.header)
        self.last_save = time.monotonic()

    def _resume(self) -> None:
        state = state_path(self.out)
        if state.exists():
            self.progressed = load_state(state, self.bare, self.average, self.optimizer.optimizer, self.header)
            if self.progressed.done:
                p = self.progressed
                p.done, p.without_better = False, 0
                p.begun_s, p.begun_iteration = p.spent_s, p.iteration
            return
        tensors, header = read_weights(self.out)
        check_same(header, {k: v for k, v in self.header.items() if k != "seed"}, self.out)
        self.bare.load_state_dict(tensors)
        self.average.module.load_state_dict(tensors)
        judged = header.get("training", {}).get("validation_median_mm")
        if judged is not None and judged_alike(header, self.header):
            self.progressed.best_mm = float(judged)


def _channels_last(network: nn.Module) -> nn.Module:
    """The network with its 2D convolutions' weights laid out channels last: a third faster on CPUs."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def _running_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Exponential, over a tenth of the iterations so far at first: the first weights are soon forgotten."""

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        n = int(count)
        now = min(decay, (1.0 + n) / (10.0 + n))
        for average, value in zip(averaged, current, strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1.0 - now)
            else:
                average.copy_(value)

    return update


class _Speed:
    """Images a second, of training alone."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.restart()

    def restart(self) -> None:
        """Leave out what went before."""
        self.iterations, self.since = 0, time.monotonic()

    def count(self) -> None:
        """An iteration is done."""
        self.iterations += 1

    def measured(self) -> float:
        """Since the last call, or restart."""
        speed = self.iterations * self.images / max(time.monotonic() - self.since, 1e-9)
        self.restart()
        return speed
