"""Weights on disk: safetensors with a JSON header that says what they are of. Nothing is pickled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from XRayRegistrationLib.errors import InputError, MissingDependencyError
from XRayRegistrationLib.files.atomic import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "xrayregistration weights"
VERSION = 1
LICENCE = "Apache-2.0"
_KEY = "xrayregistration"


def write_weights(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], header: Mapping[str, Any], *, half: bool = True
) -> Path:
    """Write tensors and a header of JSON values; what stood there before stays until all is written.

    Args:
        path: a ``.safetensors`` file.
        tensors: by name.
        header: see :func:`read_header`; format and version are added.
        half: keep floating numbers in half precision, which is what a network needs to be used.

    Raises:
        InputError: the place cannot be written, or the disk is full.
    """
    import torch
    from safetensors.torch import save

    kept = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu()
        if half and value.is_floating_point():
            value = value.clamp(-65504.0, 65504.0).to(torch.float16)
        kept[name] = value.contiguous().clone()
    words = {"format": FORMAT, "version": VERSION, **header}
    data = save(kept, {_KEY: json.dumps(words)})
    return write_atomically(path, data)


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The header of a weights file, without its tensors.

    It has ``format``, ``version``, ``method``, ``architecture`` (the network's arguments), ``input`` (the camera that the
    network sees through), ``units``, ``cts`` (name and fingerprint of each CT it learned from), ``training``
    (seed, iterations, minutes, ...) and ``licence``.

    Raises:
        InputError: no such file, or not weights of this library.
        MissingDependencyError: safetensors is not installed.
    """
    with _opened(path) as file:
        return _header_of(file.metadata(), Path(path))


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name (floating ones in float32) and the header.

    Raises:
        InputError: no such file, or not weights of this library, or damaged.
        MissingDependencyError: torch or safetensors is not installed.
    """
    with _opened(path) as file:
        header = _header_of(file.metadata(), Path(path))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}, header


def _opened(path: str | os.PathLike[str]) -> Any:
    file = Path(path)
    try:
        import torch  # noqa: F401 (the tensors are torch's)
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torch", "a method that learns", "training") from error
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise MissingDependencyError("safetensors", "a method that learns", "training") from error
    if not file.is_file():
        raise InputError(f"there is no weights file {file}; give a .safetensors file that xrayreg train wrote")
    try:
        return safe_open(str(file), framework="pt")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is no weights file ({_first_line(error)}); give one that xrayreg train wrote") from error


def _header_of(metadata: Mapping[str, str] | None, file: Path) -> dict[str, Any]:
    try:
        header = json.loads((metadata or {})[_KEY])
        known = isinstance(header, dict) and header["format"] == FORMAT
        version = header["version"] if known else None
    except (KeyError, ValueError):
        known, version, header = False, None, {}
    if not known:
        raise InputError(f"{file} has no header of this software; give weights that xrayreg train wrote")
    if not isinstance(version, int) or version > VERSION:
        raise InputError(f"{file} is of version {version!r}; this software reads up to {VERSION}: update it, or train anew")
    return dict(header)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

