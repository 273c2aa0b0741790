"""Run methods over cases and store what they say, one case a line, in parallel where asked."""

from __future__ import annotations

import importlib.util
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from XRayRegistrationLib.errors import (
    InputError,
    MissingDependencyError,
    XRayRegistrationError,
)
from XRayRegistrationLib.evaluation.cases import CaseSource, fingerprint
from XRayRegistrationLib.evaluation.store import ERROR, Prediction, Store, Target
from XRayRegistrationLib.images.volume import fingerprint as ct_fingerprint
from XRayRegistrationLib.methods import get_method
from XRayRegistrationLib.methods.learned import LearnedMethod
from XRayRegistrationLib.registration import register
from XRayRegistrationLib.threads import one_thread_a_process

Progress = Callable[[float, str], None]

_DASK_TIMEOUT_S = 30


@dataclass(frozen=True)
class MethodRun:
    """A method with its options.

    Attributes:
        label: its name in tables, such as ``"diffdrr"`` or ``"diffdrr (paper mode)"``.
        method: in the registry; options: for it.
        weights: hash and name of its weights, for the record; None where each CT's are looked for.
        from_start: it is told the start of a case that has one.
    """

    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Any] | None = None
    from_start: bool = True

    def settings(self) -> dict[str, Any]:
        """Plain values for the record; where weights lie is left out, for their hash says which they are."""
        options = {name: value for name, value in self.options.items() if name != "weights"}
        told = {} if self.from_start else {"from_start": False}
        return {"method": self.method, "options": options, "weights": self.weights, **told}


@dataclass(frozen=True)
class Task:
    """One method on one case: what a worker is given."""

    source: CaseSource
    run: MethodRun
    ct: str
    number: int
    backend: str
    seed: int


def predict(
    source: CaseSource,
    runs: Sequence[MethodRun],
    store: Store,
    *,
    limit: int | None = None,
    backend: str = "auto",
    seed: int = 0,
    jobs: int = 1,
    scheduler: str | None = None,
    resume: bool = False,
    record: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> int:
    """Predict every case of every CT with every method that the store does not have yet.

    A case that a method refuses with an error of this library is stored with its message and no
    pose; any other exception is a defect, and ends the run (what was stored stays).

    Args:
        source: of the cases; runs: the methods, with different labels.
        store: where predictions go.
        limit: cases a CT; None for the protocol's number.
        backend, seed: for :func:`registration.register`.
        jobs: processes, each with one thread; 1 stays in this one.
        scheduler: address of a Dask scheduler, in place of ``jobs``. Its workers need this package,
            and the CTs at the same paths.
        resume: go on in a store that has predictions.
        record: machine and versions, for ``run.json``.
        progress: called with (fraction done, what was done); raising from it stops.

    Returns:
        How many predictions were added.

    Raises:
        InputError: something given cannot be used, or the store has another run.
        MissingDependencyError: a package that a method or the cluster needs is not there.
    """
    tell = progress or (lambda fraction, text: None)
    if jobs < 1:
        raise InputError(f"the number of jobs is {jobs}; allowed is at least 1")
    if limit is not None and limit < 1:
        raise InputError(f"the number of cases is {limit}; allowed is at least 1 a CT")
    labels = [run.label for run in runs]
    if not runs or len(set(labels)) < len(labels):
        raise InputError(f"the methods are {', '.join(labels) or 'none'}; allowed is at least one, and none twice")
    for run in runs:
        get_method(run.method).options(run.options)  # an option that is none: before any work
    tell(0.0, "reading the CTs")
    weights = {run.label: _weights(source, run) for run in runs}
    asked = {
        "protocol": source.protocol.settings(),
        "source": source.describe(),
        "methods": {run.label: _settings(run, weights[run.label]) for run in runs},
        "backend": backend,
        "seed": seed,
    }
    targets = {name: Target.of(source.patient(name)) for name in source.names()}
    found = {label: {name: w.record() for name, w in of_cts.items()} for label, of_cts in weights.items() if of_cts}
    store.begin(asked, targets, {**(record or {}), "jobs": jobs, "weights": found}, resume)
    done = {prediction.key for prediction in store.predictions()}
    tasks = [
        Task(source, _with_weights(run, weights[run.label].get(name)), name, number, backend, seed)
        for name in source.names()
        for number in source.numbers(name, limit)
        for run in runs
        if (run.label, name, number) not in done
    ]
    with store.appending() as out, closing(_results(tasks, jobs, scheduler)) as results:
        for n, prediction in enumerate(results):
            out.add(prediction)
            tell((n + 1) / len(tasks), f"{prediction.method}, {prediction.ct} {prediction.number}: {prediction.status}")
    return len(tasks)


@dataclass(frozen=True)
class Weights:
    """Of a method for a CT.

    Attributes:
        path: of the file.
        learned_this_ct: it was trained on the CT that it is to be judged on.
    """

    path: Path
    learned_this_ct: bool

    def record(self) -> dict[str, Any]:
        """Plain values: name and hash, wherever it lies, and what it learned."""
        return {**fingerprint(self.path), "learned_this_ct": self.learned_this_ct}


def _weights(source: CaseSource, run: MethodRun) -> dict[str, Weights]:
    """Of each CT; none for a method without."""
    from XRayRegistrationLib.networks.weights_file import read_header
    from XRayRegistrationLib.networks.weights_store import fingerprints

    method = get_method(run.method)
    if not isinstance(method, LearnedMethod):
        return {}
    found = {}
    for name in source.names():
        ct = source.patient(name).ct
        path = method.weights_for(ct, method.options(run.options))
        found[name] = Weights(path, ct_fingerprint(ct) in fingerprints(read_header(path)))
    return found


def _settings(run: MethodRun, weights: Mapping[str, Weights]) -> dict[str, Any]:
    """What the predictions of a run depend on; with weights that were looked for, by their hashes."""
    settings = run.settings()
    if run.weights is None and weights:
        settings["weights"] = {name: fingerprint(w.path) for name, w in weights.items()}
    return settings


def _with_weights(run: MethodRun, weights: Weights | None) -> MethodRun:
    return run if weights is None else replace(run, options={**run.options, "weights": str(weights.path)})


def predict_case(task: Task) -> Prediction:
    """One prediction. Runs in whichever process has the task, on one thread where that is a worker."""
    case = task.source.case(task.ct, task.number)
    patient = task.source.patient(task.ct)
    known: dict[str, Any] = {
        "method": task.run.label,
        "ct": task.ct,
        "number": task.number,
        "tags": case.tags,
        "redrawn": case.redrawn,
        "camera": case.camera,
        "true_camera_from_ct": case.camera_from_ct,
        "start_camera_from_ct": case.start_camera_from_ct,
    }
    start = case.start_camera_from_ct if task.run.from_start else None
    begin = time.perf_counter()
    try:
        result = register(
            patient.ct,
            case.xray,
            method=task.run.method,
            bone=patient.bone,
            start="none" if start is None else start,
            options=task.run.options,
            backend=task.backend,
            seed=task.seed,
        )
    except MissingDependencyError:
        raise  # of every case alike
    except XRayRegistrationError as error:
        return Prediction(
            **known,
            status=ERROR,
            message=str(error),
            probability=None,
            proposed=np.zeros((0, 4, 4)),
            camera_from_ct=None,
            seconds={"total_s": time.perf_counter() - begin},
        )
    return Prediction(
        **known,
        status=result.status,
        message=result.message,
        probability=result.probability,
        proposed=result.proposed_camera_from_ct[None],
        camera_from_ct=result.camera_from_ct,
        seconds=dict(result.timings_s),
    )


def _results(tasks: Sequence[Task], jobs: int, scheduler: str | None) -> Generator[Prediction, None, None]:
    """Predictions as they come."""
    if scheduler is not None and tasks:
        yield from _on_cluster(tasks, scheduler)
    elif jobs > 1 and len(tasks) > 1:
        yield from _on_processes(tasks, min(jobs, len(tasks)))
    else:
        yield from map(predict_case, tasks)


def _on_processes(tasks: Sequence[Task], jobs: int) -> Iterator[Prediction]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    # forked processes would inherit the locks of numba's and torch's threads
    context = multiprocessing.get_context("spawn")
    with one_thread_a_process(), ProcessPoolExecutor(jobs, context, _leave_interrupts_alone) as pool:
        futures = [pool.submit(_worker_task, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise InputError(
                f"one of the {jobs} processes ended without a word, as when the memory is full; "
                "the predictions so far are kept, go on with --resume and fewer --jobs"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _on_cluster(tasks: Sequence[Task], scheduler: str) -> Iterator[Prediction]:
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise MissingDependencyError("distributed", "a Dask cluster", "cluster") from error
    try:
        client = Client(scheduler, timeout=_DASK_TIMEOUT_S)
    except (OSError, ValueError) as error:  # a scheduler that is not there; an address that is none
        raise InputError(
            f"no Dask scheduler answers at {scheduler!r}; allowed is an address such as tcp://host:8786, or use --jobs"
        ) from error
    with client:
        # the same prediction could be asked for twice, after a folder was removed: nothing is cached
        futures = client.map(_worker_task, tasks, pure=False)
        for future in as_completed(futures):
            yield future.result()


def _worker_task(task: Task) -> Prediction:
    """:func:`predict_case` on one thread, however many the libraries of this process would take."""
    if importlib.util.find_spec("numba") is not None:
        import numba

        numba.set_num_threads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    try:
        return predict_case(task)
    except MissingDependencyError as error:
        raise InputError(str(error)) from None  # its constructor's arguments do not survive the way to another process


def _leave_interrupts_alone() -> None:
    """Ctrl-C reaches every process of a terminal; the main one ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
