"""Our renderer and its peers in one run: image, image with derivatives, full refinement.

    make bench                                    all of it, under ten minutes on two cores
    make bench ARGS="--sizes 128 --repeats 2"     a taste
    make bench ARGS="--full"                      DiffDRR's refinement to its end instead of estimated (an hour)

Everyone renders the same attenuation from the same pose. Each one's error is measured on random
pixels against a float64 exact line integral of the trilinear field, and against that of the
piecewise constant field, which is what Siddon's method integrates. Against every peer, ours runs at
the largest step whose error is not larger than that peer's. Repeats are interleaved; memory is the
peak of a process of its own with one render with derivatives.

Writes results/render.csv and results/render.json (the machine), and prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from Testing.benchmarks import exact, machine, refinement, scene
from Testing.benchmarks.contenders import PEERS, Contender, make
from Testing.benchmarks.report import Row, table, write
from XRayRegistrationLib.drr.volume import AttenuationVolume

RESULTS = Path(__file__).parent / "results"
OPERATIONS = ("forward", "derivatives")
STEPS_MM = (6, 5, 4, 3.5, 3, 2.5, 2.25, 2, 1.75, 1.5, 1.35, 1.2, 1.1, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25)
SAMPLED_PIXELS = 2000
# A call this long is not repeated: its first run counts, and what start-up costs is lost in it.
LONG_S = 4.0
SLOW_S = 1.0  # one this long is repeated twice at most
REFINEMENT_S = 20.0  # how long to watch DiffDRR's iterations before multiplying up
ESTIMATE_APART_FROM = 512  # px; from here on a render and the similarity do not fit into memory together


class Reference:
    """Exact integrals at random pixels, and errors against them."""

    def __init__(self, volume: AttenuationVolume, size: int, pose: NDArray[np.float64]):
        self.pixels = np.random.default_rng(0).choice(size * size, SAMPLED_PIXELS, replace=False)
        rays = scene.rays_in_voxels(volume, scene.make_camera(size), pose, self.pixels)
        self.trilinear = exact.integrate_trilinear(volume.mu, *rays)
        self.constant = exact.integrate_piecewise_constant(volume.mu, *rays)

    def errors(self, image: NDArray[np.float32]) -> tuple[float, float, float]:
        """RMS and largest error against the trilinear field, RMS against the constant one, in percent."""
        seen = image.ravel()[self.pixels].astype(np.float64)
        off = seen - self.trilinear
        return (
            100 * _rms(off) / _rms(self.trilinear),
            100 * float(np.abs(off).max() / self.trilinear.max()),
            100 * _rms(seen - self.constant) / _rms(self.constant),
        )


def main() -> int:
    arguments = _arguments()
    if arguments.memory_of:
        return _print_memory(arguments)
    description = machine.describe() | {"sizes": arguments.sizes, "repeats": arguments.repeats, "full": arguments.full}
    begin = time.perf_counter()
    volume = scene.load_volume()
    pose = scene.make_pose(volume)
    rows: list[Row] = []
    matched: dict[str, int] = dict.fromkeys(PEERS, 0)  # index into STEPS_MM, carried on to the next size
    with tempfile.TemporaryDirectory() as folder:
        volume_file = Path(folder) / "volume.npz"
        np.savez(volume_file, mu=volume.mu, ct_from_ijk=volume.ct_from_ijk)
        for size in arguments.sizes:
            _say(f"{size} px: exact integrals")
            reference = Reference(volume, size, pose)
            rows += _render_rows(volume, size, pose, reference, matched, arguments.repeats)
            rows += _refinement_rows(volume, size, pose, rows, arguments)
            if not arguments.no_memory:
                _measure_memory([r for r in rows if (r.size_px, r.operation) == (size, "derivatives")], volume_file)
    description |= {"load_average_at_end": machine.load(), "seconds": round(time.perf_counter() - begin)}
    write(arguments.out, rows, description)
    print(table(rows))
    _say(f"{description['seconds']} s in all; written to {arguments.out}")
    return 0


def _render_rows(
    volume: AttenuationVolume,
    size: int,
    pose: NDArray[np.float64],
    reference: Reference,
    matched: dict[str, int],
    repeats: int,
) -> list[Row]:
    camera = scene.make_camera(size)
    rows: list[Row] = []
    calls: list[Callable[[], NDArray[np.float32]]] = []

    def enter(name: str, contender: Contender, matched_to: str = "") -> Row:
        for operation in OPERATIONS:
            _say(f"{size} px: {name} {operation} {contender.note}")
            row = Row(size, operation, name, matched_to, note=contender.note)
            image = _timed(getattr(contender, operation), row)
            errors = reference.errors(image)
            row.error_rms_percent, row.error_max_percent, row.error_piecewise_constant_rms_percent = errors
            if row.times_s[0] < LONG_S:
                row.times_s.clear()  # the first call compiles and fills caches
            rows.append(row)
            calls.append(getattr(contender, operation))
        return row

    for peer in PEERS:
        error = enter(peer, make(peer, volume, camera, pose)).error_rms_percent
        assert error is not None
        matched[peer] = _largest_step(volume, size, pose, reference, error, matched[peer])
    for index in sorted(set(matched.values())):
        peers = " ".join(peer for peer in PEERS if matched[peer] == index)
        enter("ours-numba", make("ours-numba", volume, camera, pose, STEPS_MM[index]), peers)
    if size < 512:
        step = STEPS_MM[matched["diffdrr-trilinear-500"]]
        enter("ours-scipy", make("ours-scipy", volume, camera, pose, step), "diffdrr-trilinear-500")
    for turn in range(repeats):
        for row, call in zip(rows, calls, strict=True):
            longest = max(row.times_s, default=0.0)
            if longest < SLOW_S or (longest < LONG_S and turn < 2):
                _timed(call, row)
    return rows


def _largest_step(
    volume: AttenuationVolume, size: int, pose: NDArray[np.float64], reference: Reference, error: float, index: int
) -> int:
    """Index of the largest step whose error is not larger, from ``index`` on."""
    camera = scene.make_camera(size)
    for n in range(index, len(STEPS_MM)):
        image = make("ours-numba", volume, camera, pose, STEPS_MM[n]).forward()
        if reference.errors(image)[0] <= error:
            return n
    return len(STEPS_MM) - 1


def _refinement_rows(
    volume: AttenuationVolume, size: int, pose: NDArray[np.float64], rows: list[Row], arguments: argparse.Namespace
) -> list[Row]:
    camera = scene.make_camera(size)
    # an X-ray that neither contender's renderer made
    image = make("nanodrr-500", volume, camera, pose).forward()
    backward = next(r for r in rows if (r.size_px, r.operation, r.contender) == (size, "derivatives", PEERS[0]))
    seconds = backward.median_ms / 1000
    if arguments.full:
        count: int | None = None
    elif size >= ESTIMATE_APART_FROM:
        count = 0
    else:
        count = int(np.clip(REFINEMENT_S / seconds, 1, 10))
    _say(f"{size} px: refinement by DiffDRR")
    peer = refinement.diffdrr_adam(volume, camera, pose, image, iterations=count, derivatives_s=seconds)
    out = [Row(size, "refinement", PEERS[0], mtre_mm=peer.mtre_mm, note=peer.note, times_s=[peer.seconds])]
    for backend in ("numba", "scipy") if size < 512 else ("numba",):
        _say(f"{size} px: refinement by ours-{backend}")
        runs = [refinement.ours(volume, camera, pose, image, backend) for _ in range(3 if backend == "numba" else 1)]
        times = [run.seconds for run in runs[-2:]]  # the first of three compiles
        row = Row(size, "refinement", f"ours-{backend}", PEERS[0], note=runs[-1].note, times_s=times)
        row.mtre_mm = runs[-1].mtre_mm
        out.append(row)
    return out


def _timed(call: Callable[[], NDArray[np.float32]], row: Row) -> NDArray[np.float32]:
    begin = time.perf_counter()
    image = call()
    row.times_s.append(time.perf_counter() - begin)
    return image


def _measure_memory(rows: list[Row], volume_file: Path) -> None:
    """Fill in peak_memory_mb, once for each contender: the step does not change it."""
    peaks: dict[str, float] = {}
    for row in rows:
        if row.contender not in peaks:
            _say(f"{row.size_px} px: memory of {row.contender}")
            step = row.note.removeprefix("step ").removesuffix(" mm") if row.contender.startswith("ours") else "0"
            memory_of = ["--memory-of", row.contender, step, str(volume_file), "--sizes", str(row.size_px)]
            command = [sys.executable, "-m", "Testing.benchmarks.render", *memory_of]
            peaks[row.contender] = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        row.peak_memory_mb = peaks[row.contender]


def _print_memory(arguments: argparse.Namespace) -> int:
    name, step, volume_file = arguments.memory_of
    stored = np.load(volume_file)
    volume = AttenuationVolume(stored["mu"], stored["ct_from_ijk"])
    machine.reset_peak_memory()
    make(name, volume, scene.make_camera(arguments.sizes[0]), scene.make_pose(volume), float(step)).derivatives()
    print(round(machine.peak_memory_mb()))
    return 0


def _rms(x: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(x**2)))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(scene.SIZES), help="image sides in pixels")
    parser.add_argument("--repeats", type=int, default=4, help="of every call, fewer of slow ones")
    parser.add_argument("--full", action="store_true", help="run DiffDRR's refinement to its end")
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    parser.add_argument("--out", type=Path, default=RESULTS / "render.csv")
    parser.add_argument("--memory-of", nargs=3, metavar=("CONTENDER", "STEP", "VOLUME"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
