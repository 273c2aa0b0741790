"""Scores of stored predictions: one row a method, CT, group and stage.

A stage is the start that the case came with, where it did, the pose as proposed (the best of the
method's) or as refined. Errors are those of the pose whatever the verification says of it, for the
papers have none; what it says is counted beside it. A case without a pose is a failure with an
infinite error.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from XRayRegistrationLib.evaluation.metrics import (
    PoseError,
    bootstrap_interval,
    gross_failure_rate,
    percentile,
    pose_error,
    success_rate,
)
from XRayRegistrationLib.evaluation.protocols import GROUPS
from XRayRegistrationLib.evaluation.store import Prediction, Target

START, PROPOSED, REFINED = "start", "proposed", "refined"
STAGES = (START, PROPOSED, REFINED)
GROSS_MM = 10.0  # an error beyond which every paper of the field calls a registration failed
ALL_CTS = "all"


@dataclass(frozen=True)
class Scored:
    """One case of one method: its prediction, and the errors of its poses; ``start`` is None where there was none."""

    prediction: Prediction
    proposed: PoseError
    refined: PoseError
    start: PoseError | None = None

    def error(self, stage: str) -> PoseError:
        """Of the stage's pose.

        Raises:
            KeyError: it has no such stage.
        """
        found = {START: self.start, PROPOSED: self.proposed, REFINED: self.refined}[stage]
        if found is None:
            raise KeyError(stage)
        return found

    @property
    def right(self) -> bool:
        """Whether the refined pose is within 10 mm (mTRE of the landmarks)."""
        return self.refined.mtre_landmarks_mm <= GROSS_MM

    @property
    def passed(self) -> bool:
        """Whether the verification believed it."""
        return self.prediction.status == "success"


@dataclass(frozen=True)
class Row:
    """What a table shows of a method, CT, group and stage.

    Attributes:
        n: cases; no_pose: those without a pose, which count as failures; errors in mm and degrees.
        mtre_*: of the landmarks, percentiles over all n; mtre_p50_low, mtre_p50_high: 95 % bootstrap.
        surface_*: mTRE of the bone's surface points; mpd_*: on the detector, None without an SDD.
        gfr2, gfr5, gfr10: fraction of all n beyond 2, 5 and 10 mm; gfr10_low, gfr10_high: 95 % bootstrap.
        success10: fraction of all n below 10 mm.
        rotation_p50, in_plane_p50, depth_p50: medians; about_*, along_*: of the absolute rotation
            about and shift along the camera's axes: medians, and mean and standard deviation over
            cases and axes, as SOPI reports them.
        passed: cases that the verification believed; wrong_but_passed: those of them that are more
            than 10 mm off after refinement; right_but_rejected: the other mistake.
        seconds_propose, seconds_refine, seconds_total: medians, None where nothing was timed.
    """

    method: str
    ct: str
    group: str
    stage: str
    n: int
    no_pose: int
    mtre_p25: float
    mtre_p50: float
    mtre_p50_low: float
    mtre_p50_high: float
    mtre_p75: float
    mtre_p95: float
    surface_p50: float
    surface_p95: float
    mpd_p25: float | None
    mpd_p50: float | None
    mpd_p75: float | None
    mpd_p95: float | None
    gfr2: float
    gfr5: float
    gfr10: float
    gfr10_low: float
    gfr10_high: float
    success10: float
    rotation_p50: float
    in_plane_p50: float
    depth_p50: float
    about_x_p50: float
    about_y_p50: float
    about_z_p50: float
    along_x_p50: float
    along_y_p50: float
    along_z_p50: float
    about_mean: float
    about_sd: float
    along_mean: float
    along_sd: float
    passed: int
    wrong_but_passed: int
    right_but_rejected: int
    seconds_propose: float | None
    seconds_refine: float | None
    seconds_total: float | None


def score_cases(predictions: Iterable[Prediction], targets: dict[str, Target]) -> list[Scored]:
    """The errors of every prediction, in order of method, CT and number."""
    out = []
    for p in sorted(predictions, key=lambda p: p.key):
        target = targets[p.ct]
        poses = (p.proposed[0] if len(p.proposed) else None, p.camera_from_ct, p.start_camera_from_ct)
        proposed, refined, start = (
            pose_error(pose, p.true_camera_from_ct, p.camera, target.landmarks_ct, target.surface_ct, target.centroid_ct)
            for pose in poses
        )
        out.append(Scored(p, proposed, refined, None if p.start_camera_from_ct is None else start))
    return out


def score(cases: Sequence[Scored], seed: int = 0) -> list[Row]:
    """Rows of every method, CT (and all of them), group that has a case, and stage.

    Args:
        cases: from :func:`score_cases`.
        seed: of the bootstrap.
    """
    rows = []
    for method in dict.fromkeys(c.prediction.method for c in cases):
        of_method = [c for c in cases if c.prediction.method == method]
        cts = list(dict.fromkeys(c.prediction.ct for c in of_method))
        for ct in [*cts, ALL_CTS] if len(cts) > 1 else cts:
            for group in GROUPS:
                chosen = [c for c in of_method if ct in (ALL_CTS, c.prediction.ct) and in_group(c, group)]
                if chosen:
                    rows += [_row(chosen, method, ct, group, stage, seed) for stage in stages(chosen)]
    return rows


def stages(cases: Sequence[Scored]) -> tuple[str, ...]:
    """Those that all of the cases have."""
    return STAGES if all(c.start is not None for c in cases) else (PROPOSED, REFINED)


def in_group(case: Scored, group: str) -> bool:
    """Whether a case belongs to a group."""
    return group == "all" or group in case.prediction.tags


def summary(rows: Sequence[Row], method: str, group: str, stage: str) -> Row | None:
    """The row of a method over all CTs (of the only one where there is one), None where there is none."""
    chosen = [r for r in rows if (r.method, r.group, r.stage) == (method, group, stage)]
    return next((r for r in chosen if r.ct == ALL_CTS), chosen[0] if len({r.ct for r in chosen}) == 1 else None)


def rows_csv(rows: Sequence[Row]) -> str:
    """The table as CSV: six digits, ``inf`` where too many cases failed, nothing where nothing was measured."""
    return _csv([field.name for field in fields(Row)], [asdict(row) for row in rows])


def cases_csv(cases: Sequence[Scored]) -> str:
    """Every case's errors as CSV."""
    values: list[dict[str, Any]] = []
    for case in cases:
        p = case.prediction
        row: dict[str, Any] = {
            "method": p.method, "ct": p.ct, "number": p.number, "tags": " ".join(p.tags), "status": p.status,
            "probability": p.probability,
        }  # fmt: skip
        for stage in stages(cases):
            error = case.error(stage)
            for name in ("mtre_landmarks_mm", "mtre_surface_mm", "mpd_mm", "in_plane_mm", "depth_mm", "rotation_deg"):
                row[f"{stage}_{name}"] = getattr(error, name)
            for name, three in (("about", error.about_deg), ("along", error.along_mm)):
                row |= {f"{stage}_{name}_{axis}": value for axis, value in zip("xyz", three, strict=True)}
        row |= {name: p.seconds.get(name) for name in ("propose_s", "refine_s", "total_s")}
        row["message"] = p.message
        values.append(row)
    return _csv(list(values[0]) if values else [], values)


def rows_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The table as plain values; what is infinite is the text ``"inf"``, for JSON has no number for it."""
    return [{name: _plain(value) for name, value in asdict(row).items()} for row in rows]


def _row(cases: Sequence[Scored], method: str, ct: str, group: str, stage: str, seed: int) -> Row:
    errors = [c.error(stage) for c in cases]
    mtre = np.array([e.mtre_landmarks_mm for e in errors])
    surface = np.array([e.mtre_surface_mm for e in errors])
    known = [e.mpd_mm for e in errors if e.mpd_mm is not None]
    mpd = np.array(known) if len(known) == len(errors) else None
    about, along = (np.abs([getattr(e, name) for e in errors]) for name in ("about_deg", "along_mm"))
    low50, high50 = bootstrap_interval(mtre, _median, seed=seed)
    low10, high10 = bootstrap_interval(mtre, _gfr10, seed=seed)

    def of_mpd(percent: float) -> float | None:
        return None if mpd is None else float(percentile(mpd, percent))

    def median(values: Iterable[float]) -> float:
        return float(percentile(list(values), 50))

    def mean(values: Any) -> float:
        return float(values.mean()) if np.isfinite(values).all() else math.inf

    def sd(values: Any) -> float:
        return float(values.std()) if np.isfinite(values).all() else math.inf

    def seconds(name: str) -> float | None:
        timed = [c.prediction.seconds[name] for c in cases if name in c.prediction.seconds]
        return median(timed) if timed else None

    return Row(
        method=method, ct=ct, group=group, stage=stage, n=len(cases), no_pose=int(np.isinf(mtre).sum()),
        mtre_p25=float(percentile(mtre, 25)), mtre_p50=float(percentile(mtre, 50)), mtre_p50_low=low50,
        mtre_p50_high=high50, mtre_p75=float(percentile(mtre, 75)), mtre_p95=float(percentile(mtre, 95)),
        surface_p50=float(percentile(surface, 50)), surface_p95=float(percentile(surface, 95)),
        mpd_p25=of_mpd(25), mpd_p50=of_mpd(50), mpd_p75=of_mpd(75), mpd_p95=of_mpd(95),
        gfr2=float(gross_failure_rate(mtre, 2)), gfr5=float(gross_failure_rate(mtre, 5)),
        gfr10=float(gross_failure_rate(mtre, GROSS_MM)), gfr10_low=low10, gfr10_high=high10,
        success10=float(success_rate(mtre, GROSS_MM)),
        rotation_p50=median(e.rotation_deg for e in errors),
        in_plane_p50=median(e.in_plane_mm for e in errors), depth_p50=median(e.depth_mm for e in errors),
        about_x_p50=median(about[:, 0]), about_y_p50=median(about[:, 1]), about_z_p50=median(about[:, 2]),
        along_x_p50=median(along[:, 0]), along_y_p50=median(along[:, 1]), along_z_p50=median(along[:, 2]),
        about_mean=mean(about), about_sd=sd(about), along_mean=mean(along), along_sd=sd(along),
        passed=sum(c.passed for c in cases),
        wrong_but_passed=sum(c.passed and not c.right for c in cases),
        right_but_rejected=sum(c.right and not c.passed for c in cases),
        seconds_propose=seconds("propose_s"), seconds_refine=seconds("refine_s"), seconds_total=seconds("total_s"),
    )  # fmt: skip


def _median(errors: Any) -> Any:
    return percentile(errors, 50)


def _gfr10(errors: Any) -> Any:
    return gross_failure_rate(errors, GROSS_MM)


def _csv(names: Sequence[str], values: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({n: f"{v:.6g}" if isinstance(v, float) else v for n, v in row.items()} for row in values)
    return text.getvalue()


def _plain(value: Any) -> Any:
    return "inf" if isinstance(value, float) and math.isinf(value) else value
