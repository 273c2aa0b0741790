"""Writing all or nothing: files are prepared aside and renamed into place.

A run that fails, runs out of disk or is interrupted leaves the output folder as it was.
Imports the standard library only, so that the command line can check an output folder at once.
"""

from __future__ import annotations

import atexit
import errno
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType

from XRayRegistrationLib.errors import InputError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NEEDED_BYTES = 16 * 2**20
_TEMPORARY: set[Path] = set()  # removed at exit, should an interrupt fall between two lines of a with statement


class OutputFolder:
    """A folder of results that appears, or changes, only when everything is written.

    Use as a context manager; write to ``path(name)`` and call :meth:`commit` last::

        with OutputFolder("xrayreg-out") as out:
            out.path("result.json").write_text(text)
            out.commit()

    A new folder is put in place by one rename. In a folder that exists, each file is replaced
    by one rename, and files of other people stay untouched.

    Raises:
        InputError: the place is a file, cannot be written, or the disk is full.
    """

    def __init__(self, folder: str | os.PathLike[str], option: str = "--out") -> None:
        self.folder = Path(folder)
        self.option = option
        self._temporary: Path | None = None
        self.check()

    def check(self, names: Iterable[str] = ()) -> None:
        """Look, without writing, whether the folder can take files of these names.

        Raises:
            InputError: it cannot.
        """
        check_output_place(self.folder, self.option)
        for name in names:
            if (self.folder / name).is_dir():
                raise InputError(
                    f"{self.folder / name} is a folder where the file {name} has to go; "
                    f"remove it or choose another folder with {self.option}"
                )

    def __enter__(self) -> OutputFolder:
        self.check()
        # inside the folder when it exists, because only there a rename surely stays on one disk
        parent = self.folder if self.folder.is_dir() else _nearest_existing(self.folder)
        self._temporary = parent / f".xrayreg-{secrets.token_hex(6)}"
        _TEMPORARY.add(self._temporary)
        try:
            self._temporary.mkdir(mode=0o755)
        except OSError as error:
            raise cannot_write(self.folder, error, self.option) from error
        return self

    def path(self, name: str) -> Path:
        """Where to write the file ``name`` now."""
        if self._temporary is None:
            raise RuntimeError("OutputFolder.path is for use inside its with block")
        return self._temporary / name

    def commit(self, remove: Iterable[str] = ()) -> list[Path]:
        """Put every file in place; returns their final paths, sorted.

        Args:
            remove: names in the folder that belong to an earlier result and would now mislead.
        """
        if self._temporary is None:
            raise RuntimeError("OutputFolder.commit is for use inside its with block")
        names = sorted(p.name for p in self._temporary.iterdir())
        self.check(names)
        for name in names:
            with open(self._temporary / name, "rb+") as file:
                os.fsync(file.fileno())  # a full disk shows here at the latest, before anything is replaced
        with uninterrupted():
            if self.folder.is_dir():
                for name in names:
                    os.replace(self._temporary / name, self.folder / name)
                for name in set(remove) - set(names):
                    (self.folder / name).unlink(missing_ok=True)
            else:
                made = _make_parents(self.folder)
                try:
                    os.rename(self._temporary, self.folder)
                except OSError:
                    for parent in reversed(made):
                        parent.rmdir()
                    raise
        return [self.folder / name for name in names]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        temporary, self._temporary = self._temporary, None
        if temporary is not None:
            with uninterrupted():
                _remove(temporary)
        if isinstance(error, OSError) and (error.errno in _FULL or _concerns(error, temporary, self.folder)):
            raise cannot_write(self.folder, error, self.option) from error


def write_atomically(path: str | os.PathLike[str], data: bytes | str, option: str = "--out") -> Path:
    """Write one file by a temporary name beside it and a rename.

    Raises:
        InputError: the place is a folder, cannot be written, or the disk is full.
    """
    target = Path(path)
    check_output_file(target, option)
    payload = data.encode() if isinstance(data, str) else data
    temporary = target.parent / f".xrayreg-{secrets.token_hex(6)}"
    made = []
    try:
        made = _make_parents(target)
        with open(temporary, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        made = []
    except OSError as error:
        raise cannot_write(target, error, option) from error
    finally:
        with uninterrupted():
            temporary.unlink(missing_ok=True)
            for parent in reversed(made):
                parent.rmdir()
    return target


def check_output_place(folder: Path, option: str = "--out") -> None:
    """Raise InputError when ``folder`` is a file, lies under one, or cannot be written or filled."""
    existing = folder if os.path.lexists(folder) else _nearest_existing(folder)
    if not existing.is_dir():
        raise InputError(
            f"{option} {folder}: {existing} is a file; allowed is a folder that exists or can be made, "
            f"so choose another with {option} or move the file away"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"{option} {folder}: no permission to write in {existing}; choose a folder of yours with {option}"
        )
    free = shutil.disk_usage(existing).free
    if free < _NEEDED_BYTES:
        raise InputError(
            f"{option} {folder}: the disk has {free / 2**20:.0f} MB free and {_NEEDED_BYTES / 2**20:.0f} MB are "
            f"needed; free some space or choose another disk with {option}"
        )


def check_output_file(path: Path, option: str = "--out") -> None:
    """Raise InputError when ``path`` is a folder or its folder cannot be written."""
    if path.is_dir():
        raise InputError(f"{option} {path} is a folder; allowed is the name of a file")
    check_output_place(path.parent, option)


def cannot_write(place: Path, error: OSError, option: str = "--out") -> InputError:
    """The one line for a place that cannot be written."""
    way_out = "free some space or choose" if error.errno in _FULL else "choose"
    return InputError(f"cannot write to {place}: {error.strerror or error}; {way_out} another place with {option}")


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back for the few renames that must not be cut in two."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, lambda n, frame: held.append((n, frame))) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if held:
            signal.raise_signal(held[0][0])


def _concerns(error: OSError, *places: Path | None) -> bool:
    """Whether the error is about one of our places, and not about something read meanwhile."""
    names = [os.path.abspath(n) for n in (error.filename, error.filename2) if isinstance(n, (str, os.PathLike))]
    return any(n == str(p.absolute()) or n.startswith(f"{p.absolute()}{os.sep}") for n in names for p in places if p)


@atexit.register
def _remove_leftovers() -> None:
    for temporary in list(_TEMPORARY):
        _remove(temporary)


def _remove(temporary: Path) -> None:
    shutil.rmtree(temporary, ignore_errors=True)
    _TEMPORARY.discard(temporary)


def _nearest_existing(path: Path) -> Path:
    for parent in path.absolute().parents:
        if os.path.lexists(parent):
            return parent
    raise InputError(f"no folder above {path} exists; choose another place with --out")


def _make_parents(path: Path) -> list[Path]:
    """Make the missing folders above ``path``; returns them, outermost first, so that they can be undone."""
    missing = [p for p in path.absolute().parents if not p.exists()]
    made = []
    for parent in reversed(missing):
        parent.mkdir()
        made.append(parent)
    return made
