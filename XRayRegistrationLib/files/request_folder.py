"""A request as a folder, from one process to another: ``request.json``, and arrays beside it as ``.npy``.

Nothing is pickled. The CT is written in pieces, so that who writes it can do other things in between.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.files.json_file import json_text, read_json
from XRayRegistrationLib.images.prepare import HeaderHints
from XRayRegistrationLib.images.raw_xray import RawXRay
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.request import Request
from XRayRegistrationLib.result import camera_from_dict, camera_to_dict, plain

FORMAT = "xrayregistration-request"
_PIECE_BYTES = 1 << 21


def write_request(folder: Path, request: Request) -> Generator[tuple[float, str], None, None]:
    """Write a request into an empty folder, in steps of some milliseconds that yield (fraction, text)."""
    arrays: dict[str, NDArray[Any]] = {"ct": request.ct.values}
    if isinstance(request.bone, Volume):
        arrays["bone"] = request.bone.values
    for n, xray in enumerate(request.xrays):
        arrays[f"xray_{n}"] = xray.values
        if xray.header.open_field is not None:
            arrays[f"open_field_{n}"] = xray.header.open_field
        if isinstance(xray.mask, np.ndarray):
            arrays[f"mask_{n}"] = xray.mask
    whole = sum(array.nbytes for array in arrays.values())
    done = 0
    for name, array in arrays.items():
        for size in _pieces(folder / f"{name}.npy", array):
            done += size
            yield done / whole, "handing over the CT and the X-rays"
    bone = request.bone
    data = {
        "format": FORMAT,
        "ct": {"ras_from_ijk": request.ct.ras_from_ijk, "source": request.ct.source},
        "bone": bone if isinstance(bone, str) else {"ras_from_ijk": bone.ras_from_ijk, "source": bone.source},
        "bone_alone": request.bone_alone,
        "xrays": [
            {
                "camera": camera_to_dict(xray.camera),
                "polarity": xray.polarity,
                "mask": None if isinstance(xray.mask, np.ndarray) else xray.mask,
                "header": {"polarity": xray.header.polarity, "logarithmic": xray.header.logarithmic},
                "provenance": xray.provenance,
                "source": xray.source,
                "metadata": xray.metadata,
            }
            for xray in request.xrays
        ],
        "method": request.method,
        "options": dict(request.options),
        "start": request.start,
        "landmarks": request.landmarks,
        "landmark_names": list(request.landmark_names),
        "backend": request.backend,
        "seed": request.seed,
    }
    (folder / "request.json").write_text(json_text(plain(data)), encoding="utf-8")
    yield 1.0, "starting"


def read_request(folder: Path) -> Request:
    """Read what :func:`write_request` wrote.

    Raises:
        InputError: no request, or a damaged one.
    """
    data = read_json(folder / "request.json", "the request", "the folder of a request")
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"{folder} holds no request; give the folder of a request")
    try:
        bone = data["bone"]
        start = data["start"]
        return Request(
            ct=_volume(folder, "ct", data["ct"]),
            xrays=tuple(_xray(folder, n, told) for n, told in enumerate(data["xrays"])),
            method=data["method"],
            bone=bone if isinstance(bone, str) else _volume(folder, "bone", bone),
            bone_alone=data["bone_alone"],
            start=start if isinstance(start, str) else np.array(start, dtype=np.float64),
            landmarks=None if data["landmarks"] is None else np.array(data["landmarks"], dtype=np.float64).reshape(-1, 3),
            landmark_names=tuple(data["landmark_names"]),
            options=data["options"],
            backend=data["backend"],
            seed=data["seed"],
        )
    except (KeyError, TypeError, ValueError, OSError, json.JSONDecodeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the request in {folder} is damaged ({error}); make it again") from error


def _pieces(path: Path, array: NDArray[Any]) -> Iterator[int]:
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    rows = max(1, _PIECE_BYTES // max(1, array.nbytes // len(array)))
    with open(path, "wb") as stream:  # no memory map: on a full disk that would kill this process
        np.lib.format.write_array_header_1_0(stream, header)
        for begin in range(0, len(array), rows):
            stream.write(np.ascontiguousarray(array[begin : begin + rows]).data)
            yield array[begin : begin + rows].nbytes


def _volume(folder: Path, name: str, told: dict[str, Any]) -> Volume:
    return Volume(np.load(folder / f"{name}.npy"), np.array(told["ras_from_ijk"], dtype=np.float64), told["source"])


def _xray(folder: Path, n: int, told: dict[str, Any]) -> RawXRay:
    header = HeaderHints(told["header"]["polarity"], told["header"]["logarithmic"])
    field, mask = folder / f"open_field_{n}.npy", folder / f"mask_{n}.npy"
    return RawXRay(
        np.load(folder / f"xray_{n}.npy"),
        camera_from_dict(told["camera"]),
        told["polarity"],
        np.load(mask) if mask.exists() else told["mask"],
        replace(header, open_field=np.load(field)) if field.exists() else header,
        told["provenance"],
        told["source"],
        told["metadata"],
    )
