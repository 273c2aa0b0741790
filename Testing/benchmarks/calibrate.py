"""Fit the verification's logistic regressions to the rows of accuracy runs.

    python -m Testing.benchmarks.accuracy --protocols none view --cases 8 --wrong 1 --out results/calibration.csv
    python -m Testing.benchmarks.calibrate results/calibration.csv

prints the constants of XRayRegistrationLib/verification.py, and how well they do on each CT when that
CT is left out of the fit. Runs with ``--rig`` give those for several views; bones without their flesh
belong into them (``--alone``), for that is what chosen labels and cut-out bones are.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from XRayRegistrationLib.verification import SEVERAL_VIEWS, SINGLE_VIEW, THRESHOLD

RIGHT_MM = 10.0
PRIOR_RIGHT = 0.8  # share of searches that end right; lower than on any CT measured, to stay on the safe side
PENALTY = 0.01  # of the squared weights: cases that are separated would drive them to infinity


def fit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean, scale, weights and intercept; right and wrong poses count as PRIOR_RIGHT says, however many of each there are."""
    mean, scale = x.mean(axis=0), x.std(axis=0)
    z = (x - mean) / scale
    weight = np.where(y, 0.5 / y.mean(), 0.5 / (1 - y.mean()))

    def loss(parameters: np.ndarray) -> float:
        margin = np.where(y, 1.0, -1.0) * (z @ parameters[:-1] + parameters[-1])
        return float((weight * np.logaddexp(0.0, -margin)).mean() + PENALTY * (parameters[:-1] ** 2).sum())

    # every feature is one of disagreement: none may speak for a pose by being larger
    bounds = [(None, 0.0)] * x.shape[1] + [(None, None)]
    best = minimize(loss, np.zeros(x.shape[1] + 1), bounds=bounds).x
    best[-1] += np.log(PRIOR_RIGHT / (1.0 - PRIOR_RIGHT))
    return mean, scale, best[:-1], float(best[-1])


def probability(x: np.ndarray, model: tuple[np.ndarray, np.ndarray, np.ndarray, float]) -> np.ndarray:
    mean, scale, weights, intercept = model
    return 1.0 / (1.0 + np.exp(-((x - mean) / scale @ weights + intercept)))


def main() -> None:
    parser = argparse.ArgumentParser(description="fit the verification")
    parser.add_argument("csv", type=Path, nargs="+")
    rows = [row for path in parser.parse_args().csv for row in csv.DictReader(path.open())]
    model = SEVERAL_VIEWS if rows[0][SEVERAL_VIEWS.names[-1]] else SINGLE_VIEW
    x = np.maximum([[float(row[name]) for name in model.names] for row in rows], model.floor)
    y = np.array([float(row["mtre_mm"]) < RIGHT_MM for row in rows])
    ct = np.array([row["ct"] for row in rows])
    print(f"{len(y)} poses, {y.sum()} right")
    for name in dict.fromkeys(ct):
        p = probability(x, fit(x[ct != name], y[ct != name]))[ct == name]
        right = y[ct == name]
        print(
            f"  {name} left out: {right.sum()} right, {(p[right] < THRESHOLD).sum()} of them refused; "
            f"{(~right).sum()} wrong, {(p[~right] >= THRESHOLD).sum()} of them passed; "
            f"lowest of right {p[right].min():.3f}, highest of wrong {p[~right].max(initial=0):.3f}"
        )
    mean, scale, weights, intercept = fit(x, y)
    for name, value in (("mean", mean), ("scale", scale), ("weights", weights)):
        print(f"{name}=np.array([{', '.join(f'{v:.3f}' for v in value)}]),")
    print(f"intercept={intercept:.3f},")


if __name__ == "__main__":
    main()
