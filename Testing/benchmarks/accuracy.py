"""Accuracy on simulated X-rays: success, error, and whether the verdict can be trusted.

    python -m Testing.benchmarks.accuracy --protocols none view start --cases 50 --jobs 2

writes results/accuracy.csv, one row a registration, and prints the table: failures (mTRE of 10 mm or
more) are counted and are infinite in the percentiles; "wrong but passed" are those that the
verification let through. ``--wrong`` adds, for every case, rows with the right pose taken out of the
candidates, so that the best wrong ones are judged: what calibrate.py learns failures from. ``--others``
registers every X-ray to another CT too, which must not pass (hips_a and hips_b come
close to it: their surfaces lie 1.3 mm apart). ``--rig`` takes two views of every pose.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from Testing.benchmarks.cases import FILES, Anatomy, Case, ct_path, load_anatomy, make_case, mtre_mm
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.registration import register
from XRayRegistrationLib.solvers.problem import views_of
from XRayRegistrationLib.solvers.refinement import refine_candidates
from XRayRegistrationLib.verification import SEVERAL_VIEWS, features, probability_of

RIGHT_MM = 10.0
RESULTS = Path(__file__).parent / "results"
COLUMNS = ("ct", "protocol", "number", "kind", "mtre_mm", "status", "probability", "seconds", "stages", *SEVERAL_VIEWS.names)


def run_case(
    name: str, protocol: str, number: int, wrong: int, alone: bool, rig: bool, others: Sequence[str] = ()
) -> list[dict[str, object]]:
    """Rows of one case, ``wrong`` wrong poses at most among them, and one with the CT of one of ``others``."""
    anatomy = _anatomy(name, alone)
    case = make_case(anatomy, number, protocol, rig=rig)
    xrays = list(case.xrays)
    begin = time.perf_counter()
    result = register(anatomy.ct, xrays, bone=anatomy.model, start=case.start)
    seconds = time.perf_counter() - begin
    best = max(result.trace, key=lambda stage: stage["probability"])
    error = mtre_mm(anatomy, result.camera_from_ct, case.rig_from_ct)
    common = {"ct": name, "protocol": protocol, "number": number}
    rows: list[dict[str, object]] = [
        {
            **common, "kind": "result", "mtre_mm": error, "status": result.status, "probability": result.probability,
            "seconds": seconds, "stages": len(result.trace), **_named(best["features"]),
        }
    ]  # fmt: skip
    poses = [c["rig_from_ct"] for c in result.trace[0]["candidates"]]
    avoided = [case.rig_from_ct]
    for _ in range(wrong):
        poses = [p for p in poses if all(mtre_mm(anatomy, p, a) > 2 * RIGHT_MM for a in avoided)]
        if not poses:
            break
        row, pose = _wrong(anatomy, xrays, case, poses)
        rows.append({**common, **row})
        avoided.append(pose)
    if others:
        rows.append({**common, **_other(_anatomy(others[number % len(others)], alone), xrays)})
    return rows


def _anatomy(name: str, alone: bool) -> Anatomy:
    anatomy = load_anatomy(name)
    return replace(anatomy, model=replace(anatomy.model, rendered=("bone",))) if alone else anatomy


def _other(anatomy: Anatomy, xrays: list[XRay]) -> dict[str, object]:
    """The row of X-rays that do not show this CT: no pose is right."""
    begin = time.perf_counter()
    result = register(anatomy.ct, xrays, bone=anatomy.model)
    best = max(result.trace, key=lambda stage: stage["probability"])
    return {
        "kind": f"CT of {anatomy.name}", "mtre_mm": np.inf, "status": result.status, "probability": result.probability,
        "seconds": time.perf_counter() - begin, "stages": len(result.trace), **_named(best["features"]),
    }  # fmt: skip


def _wrong(
    anatomy: Anatomy, xrays: list[XRay], case: Case, poses: list[np.ndarray]
) -> tuple[dict[str, object], np.ndarray]:
    """The row of the best of these poses, and that pose."""
    model = anatomy.model
    views = {name: views_of(xrays, rendering.volume, rendering.alone) for name, rendering in model.renderings.items()}
    refined = refine_candidates(views, np.stack(poses), model.centroid, model.surface_points)
    x = features(refined)
    row = {
        "kind": "right pose removed", "mtre_mm": mtre_mm(anatomy, refined.rig_from_ct, case.rig_from_ct),
        "status": "", "probability": probability_of(refined), "seconds": 0.0, "stages": 1, **_named(x),
    }  # fmt: skip
    return row, refined.rig_from_ct


def _named(x: Sequence[float] | np.ndarray) -> dict[str, float]:
    return dict(zip(SEVERAL_VIEWS.names, x, strict=False))  # of one view the last are not there


def table(rows: list[dict[str, object]]) -> str:
    """Markdown: one line a CT and protocol, and all CTs together."""
    lines = [
        "| start | CT | n | right (< 10 mm) | median mTRE of these | 95th percentile of all | passed | wrong but passed "
        "| seconds, median |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    results = [r for r in rows if r["kind"] == "result"]
    for protocol in dict.fromkeys(r["protocol"] for r in results):
        of_protocol = [r for r in results if r["protocol"] == protocol]
        for name in [*dict.fromkeys(r["ct"] for r in of_protocol), "all"]:
            chosen = [r for r in of_protocol if name in ("all", r["ct"])]
            error = np.array([float(str(r["mtre_mm"])) for r in chosen])
            right = error < RIGHT_MM
            passed = np.array([r["status"] == "success" for r in chosen])
            tail = np.sort(np.where(right, error, np.inf))[int(np.ceil(0.95 * len(error))) - 1]
            median = f"{np.median(error[right]):.2f} mm" if right.any() else "-"
            seconds = np.median([float(str(r["seconds"])) for r in chosen])
            lines.append(
                f"| {protocol} | {name} | {len(chosen)} | {right.sum()} ({100 * right.mean():.0f} %) | {median} "
                f"| {tail:.2f} mm | {passed.sum()} | {(passed & ~right).sum()} | {seconds:.1f} |"
            )
    others = [r for r in rows if str(r["kind"]).startswith("CT of")]
    if others:
        passed, highest = sum(r["status"] == "success" for r in others), max(float(str(r["probability"])) for r in others)
        lines.append(f"\n{len(others)} X-rays with another CT: {passed} passed, highest probability {highest:.2f}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--protocols", nargs="+", default=["none", "view", "start"])
    parser.add_argument("--cts", nargs="+", default=list(FILES))
    parser.add_argument("--cases", type=int, default=50, help="per CT and protocol")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--wrong", type=int, default=0, help="wrong poses a case to be judged too")
    parser.add_argument("--others", action="store_true", help="register every X-ray to another CT too")
    parser.add_argument("--rig", action="store_true", help="two views of every pose")
    parser.add_argument("--alone", action="store_true", help="render bone without its flesh, as for chosen labels")
    parser.add_argument("--out", type=Path, default=RESULTS / "accuracy.csv")
    args = parser.parse_args(argv)
    names = [n for n in args.cts if ct_path(n).exists()]
    for name in set(args.cts) - set(names):
        print(f"skipped {name}: {ct_path(name)} is not there", file=sys.stderr)
    numbers = range(args.first, args.first + args.cases)
    # number by number, so that a run that is cut short has seen every CT
    jobs = [
        (n, p, c, args.wrong, args.alone, args.rig, [o for o in names if o != n] if args.others else [])
        for c in numbers for n in names for p in args.protocols
    ]  # fmt: skip
    rows: list[dict[str, object]] = []
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.jobs) as pool, args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for done, future in enumerate(as_completed([pool.submit(run_case, *job) for job in jobs]), 1):
            new = future.result()
            rows += new
            writer.writerows([{k: f"{v:.4g}" if isinstance(v, float) else v for k, v in r.items()} for r in new])
            file.flush()
            print(f"\r{done}/{len(jobs)}", end="", file=sys.stderr)
    order = {n: i for i, n in enumerate(names)}
    rows.sort(key=lambda r: (args.protocols.index(str(r["protocol"])), order[str(r["ct"])], int(str(r["number"]))))
    print("\n" + table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
