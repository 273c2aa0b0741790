"""Real biplane X-rays of a wrist: does the radius come back to the same pose from every start?

    python -m Testing.benchmarks.wrist --starts 20

For each frame: starts within 10 degrees and 8 mm of the rough two-view fit (which is a fit, not the
truth), then one registration with no start at all. Prints how many ended within 0.2 mm of one another,
and what the verdict said of those and of the rest.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.spatial.transform import Rotation

from Testing.benchmarks.cases import data_folder
from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.geometry.lps import RAS_FROM_LPS
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, increment_left, transform_points
from XRayRegistrationLib.images.camera_file import read_camera
from XRayRegistrationLib.images.ct import read_ct
from XRayRegistrationLib.images.xray_file import read_xray
from XRayRegistrationLib.registration import register

# X_rig = R (X - centre) + T in the CT file's own (LPS) axes: rotation vectors in radians, T in mm
ROUGH_FITS = {
    "0002": ((-0.3131, -1.8637, -2.2406), (107.96, 158.24, 75.16)),
    "0099": ((0.0643, 2.1887, 2.2979), (108.86, 156.98, 89.67)),
}
SAME_MM = 0.2


def rough_fit(frame: str, size_ijk: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """rig_from_ct (4, 4), ct in RAS."""
    vector, translation = ROUGH_FITS[frame]
    rotation = Rotation.from_rotvec(vector).as_matrix()
    centre = (size_ijk - 1) / 2 * spacing_mm
    return from_rotation_translation(rotation, translation - rotation @ centre) @ RAS_FROM_LPS


def random_start(fit: np.ndarray, centre_ct: np.ndarray, seed: int) -> np.ndarray:
    """A pose within 10 degrees and 8 mm of ``fit``, in any direction."""
    rng = np.random.default_rng(seed)
    axis, way = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    step = np.r_[axis * np.deg2rad(rng.uniform(0, 10)), way * rng.uniform(0, 8)]
    return increment_left(fit, step, transform_points(fit, centre_ct))


def main() -> None:
    parser = argparse.ArgumentParser(description="biplane registration of a real wrist")
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--frames", nargs="+", default=list(ROUGH_FITS))
    args = parser.parse_args()
    folder = data_folder() / "wrist"
    ct = read_ct(folder / "radius.nrrd")
    model = build_bone_model(ct)
    size = np.array(ct.values.shape[::-1])
    for frame in args.frames:
        xrays = [read_xray(folder / f"cam{c}_frame{frame}.tif", read_camera(folder / f"cam{c}_mayacam.txt")) for c in (1, 2)]
        fit = rough_fit(frame, size, ct.spacing_mm)
        begin = time.perf_counter()
        results = [
            register(ct, xrays, bone=model, start=random_start(fit, model.centroid, seed)) for seed in range(args.starts)
        ]
        seconds = (time.perf_counter() - begin) / args.starts
        places = np.stack([transform_points(r.rig_from_ct, model.surface_points) for r in results])
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1).mean(axis=-1)
        middle = int(np.argmin(np.median(apart, axis=1)))
        same = apart[middle] < SAME_MM
        passed = np.array([r.ok for r in results])
        away = np.linalg.norm(places[middle] - transform_points(fit, model.surface_points), axis=1).mean()
        print(f"frame {frame}, {args.starts} starts within 10 degrees and 8 mm, {seconds:.1f} s each")
        print(f"  {same.sum()} ended within {SAME_MM} mm of one another (largest distance {apart[middle][same].max():.3f} mm)")
        print(f"  of these {passed[same].sum()} were reported as success; of the {(~same).sum()} others {passed[~same].sum()}")
        print(f"  the common pose lies {away:.2f} mm from the rough fit; probability {results[middle].probability:.3f}")
        begin = time.perf_counter()
        free = register(ct, xrays, bone=model)
        off = np.linalg.norm(transform_points(free.rig_from_ct, model.surface_points) - places[middle], axis=1).mean()
        print(f"  no start: {free.status}, {off:.2f} mm from the common pose, {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
