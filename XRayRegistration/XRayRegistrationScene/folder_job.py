"""Work in a process of its own, through a folder: hand over what it needs, watch, take in what it made.

The scene is not touched before the result is there, so stopping it has nothing to restore.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import XRayRegistrationLib
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.request_folder import write_request
from XRayRegistrationLib.files.result_file import read_result
from XRayRegistrationLib.files.volume_file import write_ct_steps
from XRayRegistrationLib.networks.weights_store import begun

from .jobs import CANCELLED, DONE, FAILED, RUNNING, Progress

_HANDED_OVER = 0.05  # of the whole, by when everything is written


class FolderJob:
    """A Job (see ``jobs``).

    Args:
        runner: a JobRunner.
        hand_over: given the folder, a generator of steps that fills it.
        command: given the folder, the arguments of the process.
        take_in: given the folder, the job's result; an InputError from it is the job's failure.
    """

    def __init__(self, runner, hand_over, command, take_in) -> None:
        self._runner, self._command, self._take_in = runner, command, take_in
        self._folder = Path(tempfile.mkdtemp(prefix="xrayregistration-"))
        self._progress = Progress(text="handing over")
        self._writing = runner.start_steps(hand_over(self._folder))
        self._working = None

    def poll(self) -> Progress:
        """Go on; returns within some tens of milliseconds."""
        if self._progress.state != RUNNING:
            return self._progress
        try:
            self._go_on()
        except BaseException:
            self._leave()
            raise
        if self._progress.state != RUNNING:
            self._leave()
        return self._progress

    def cancel(self) -> Progress:
        """Stop the process and remove what was handed over."""
        if self._progress.state == RUNNING:
            (self._working or self._writing).cancel()
            self._progress = replace(self._progress, state=CANCELLED)
            self._leave()
        return self._progress

    def _go_on(self) -> None:
        told = (self._working or self._writing).poll()
        if self._working is None:
            self._progress = replace(told, fraction=_HANDED_OVER * told.fraction)
            if told.state == FAILED:
                self._progress.message = f"the data could not be handed over: {told.message}; is the disk full?"
            elif told.state == DONE:
                self._progress = replace(self._progress, state=RUNNING)
                self._start()
            return
        fraction = _HANDED_OVER + (1 - _HANDED_OVER) * told.fraction
        self._progress = replace(told, fraction=fraction, text=told.text or self._progress.text, result=None)
        if told.state == DONE:
            try:
                self._progress.result = self._take_in(self._folder)
            except (InputError, OSError, ValueError, KeyError, TypeError) as error:
                why = _told(error, self._folder).split(";")[0]
                self._fail(f"the process ended without a usable result ({why}); try again, and look at the log")

    def _start(self) -> None:
        try:
            self._working = self._runner.start_process(self._command(self._folder), env=library_environment())
        except OSError as error:
            self._fail(f"the process could not be started: {error}")

    def _fail(self, message) -> None:
        self._progress.state, self._progress.message = FAILED, message

    def _leave(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def registration_job(request, runner):
    """A registration, whose result is the library's Result."""
    return FolderJob(runner, lambda folder: write_request(folder, request), _registration, read_result)


def training_job(method, ct, minutes, weights, runner):
    """A training, whose result is the path of the weights; one that was begun already is gone on with.

    Args:
        method: a name in ``methods.METHODS``.
        ct: Volume to train on.
        minutes: at most.
        weights: path of the safetensors file.
    """
    weights = Path(weights)
    options = ["--minutes", f"{minutes:g}", "--out", str(weights), "--progress", "json"]

    def command(folder):
        return _library("train", method, "--ct", str(folder / "ct.nhdr"), *options, *(["--resume"] if begun(weights) else []))

    def take_in(folder):
        if not weights.exists():
            raise InputError(f"no weights were written to {weights}; look at the log")
        return weights

    return FolderJob(runner, lambda folder: write_ct_steps(folder / "ct.nhdr", ct), command, take_in)


def _told(error, folder) -> str:
    """One line without the temporary folder, which is gone by the time that someone reads it."""
    first = (str(error) or type(error).__name__).splitlines()[0]
    return first.replace(f"{folder}{os.sep}", "").replace(str(folder), "its folder")


def python_executable() -> str:
    """The Python that runs the library: Slicer's own inside Slicer."""
    return shutil.which("PythonSlicer") or sys.executable


def library_environment() -> dict[str, str]:
    """So that the process finds the library wherever this one found it."""
    place = str(Path(XRayRegistrationLib.__file__).resolve().parents[1])
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": place if not before else place + os.pathsep + before}


def _library(*words) -> list[str]:
    return [python_executable(), "-m", "XRayRegistrationLib", *words]


def _registration(folder) -> list[str]:
    return _library("work", str(folder))
