"""Bodies made of ellipsoids and cylinders, painted in mm, so that the truth is known on any grid."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from XRayRegistrationLib.images.volume import Volume

OBLIQUE = Rotation.from_euler("zyx", [25, -15, 10], degrees=True).as_matrix()


def affine(
    spacing_ijk: tuple[float, float, float], origin: tuple[float, float, float], rotation: NDArray | None = None,
    flip: tuple[int, int, int] = (1, 1, 1),
) -> NDArray[np.float64]:
    """ras_from_ijk with axes ``rotation @ diag(flip)``."""
    out = np.eye(4)
    out[:3, :3] = (np.eye(3) if rotation is None else rotation) @ np.diag(flip) @ np.diag(spacing_ijk)
    out[:3, 3] = origin
    return out


def centred(shape_kji: tuple[int, int, int], spacing_ijk: tuple[float, float, float], centre=(0.0, 0.0, 0.0), **axes):
    """ras_from_ijk of a grid whose middle lies at ``centre``."""
    out = affine(spacing_ijk, (0, 0, 0), **axes)
    out[:3, 3] = np.asarray(centre) - out[:3, :3] @ ((np.array(shape_kji[::-1]) - 1) / 2)
    return out


def ras(shape_kji: tuple[int, int, int], ras_from_ijk: NDArray[np.float64]) -> NDArray[np.float64]:
    """(nk, nj, ni, 3) mm of all voxel centres."""
    k, j, i = np.indices(shape_kji)
    return np.stack([i, j, k], axis=-1) @ ras_from_ijk[:3, :3].T + ras_from_ijk[:3, 3]


def ball(points: NDArray, centre, radius: float) -> NDArray[np.bool_]:
    return np.linalg.norm(points - np.asarray(centre), axis=-1) <= radius


def cylinder(points: NDArray, centre, radius: float, half_length: float, axis: int = 2) -> NDArray[np.bool_]:
    d = points - np.asarray(centre)
    across = np.delete(d, axis, axis=-1)
    return (np.linalg.norm(across, axis=-1) <= radius) & (np.abs(d[..., axis]) <= half_length)


def body_ct(
    shape_kji=(64, 96, 96), spacing_ijk=(2.0, 2.0, 2.5), noise=15.0, **axes
) -> tuple[Volume, dict[str, NDArray]]:
    """A trunk (cylinder of 80 mm radius along S) of soft tissue on a table, with a femur-like bone.

    Returned beside the CT: its parts as masks. The bone is a ball of 25 mm with a cortex of 5 mm at
    900 HU and marrow at 60 HU, round (-30, 0, 0) mm; a blood pool of 22 mm at 350 HU round (35, 20, 0).
    """
    matrix = centred(shape_kji, spacing_ijk, **axes)
    x = ras(shape_kji, matrix)
    part = {
        "body": cylinder(x, (0, 0, 0), 80, 1000),
        "table": (np.abs(x[..., 1] + 88) < 2.5) & (np.abs(x[..., 0]) < 90),
        "bone": ball(x, (-30, 0, 0), 25),
        "marrow": ball(x, (-30, 0, 0), 20),
        "pool": ball(x, (35, 20, 0), 22),
        "speck": ball(x, (1, -51, 21), 1.9),
    }
    hu = np.full(shape_kji, -1000.0)
    for name, value in (("table", 150), ("body", 40), ("bone", 900), ("marrow", 60), ("pool", 350), ("speck", 900)):
        hu[part[name]] = value
    hu += np.random.default_rng(3).normal(0, noise, shape_kji)
    return Volume(hu.astype(np.float32), matrix, "phantom"), part


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return 2.0 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def shared_data() -> Path | None:
    """The folder of test CTs that are not in the repository, None where it is absent."""
    folder = os.environ.get("XRAYREG_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data"
    return Path(folder) if Path(folder).is_dir() else None
