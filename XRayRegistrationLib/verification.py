"""Whether a pose is right, decided from the images alone.

A logistic regression on what separates right from wrong poses: how much of the gradients at 64 and
128 pixels the pose leaves unexplained, and how much better it explains them than the best pose
elsewhere. Its coefficients are fitted on simulated X-rays of several CTs, wrong poses included, by
``Testing/benchmarks/calibrate.py``; accuracy is reported with each CT left out of the fit in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.geometry.rigid import rotation_log
from XRayRegistrationLib.solvers.refinement import Refined

Array = NDArray[np.float64]

#: A pose below this probability is reported as a failure.
THRESHOLD = 0.8

FEATURES = ("log_cost", "log_plain_cost", "log_fine_cost", "log_rival")
FLOOR = np.array([-4.5, -5.5, -3.0, -2.0])
RATIO_WITHOUT_RIVAL = np.exp(-1.0)  # every start ended here: mildly in favour
# Fitted by Testing/benchmarks/calibrate.py: feature means, scales, weights and intercept.
MEAN = np.array([-3.429, -4.184, -2.205, -1.345])
SCALE = np.array([1.381, 1.741, 0.912, 0.824])
WEIGHTS = np.array([-1.026, -1.142, -0.430, -1.300])
INTERCEPT = 2.896

# Residuals of neighbouring pixels are alike (a 3x3 gradient, blur), and the renderer is not the
# detector. Measured on 30 simulated cases of five CTs: with this factor the squared errors of the six
# parameters are 0.5 to 1.5 times the predicted variances.
CORRELATED_RESIDUALS = 18.0


@dataclass(frozen=True)
class Verdict:
    """What the verification says.

    Attributes:
        probability: that the pose is right (mTRE below 10 mm), 0..1.
        success: the probability reaches the threshold.
        covariance: (6, 6), (rad, mm), about the centroid in the first camera's axes.
        ambiguity: a sentence on another pose that explains the images nearly as well, or "".
    """

    probability: float
    success: bool
    covariance: Array
    ambiguity: str


def features(refined: Refined) -> Array:
    """The numbers that :data:`FEATURES` names, (4,): logarithms, each cut off where it has nothing more to say."""
    ratio = refined.cost / max(refined.rival_cost, 1e-6) if refined.rival is not None else RATIO_WITHOUT_RIVAL
    x = np.log(np.maximum([refined.cost, refined.plain_cost, refined.fine_cost, ratio], 1e-6))
    return np.maximum(x, FLOOR)


def probability_right(x: Array) -> float:
    """Logistic regression on :func:`features`."""
    z = float(((x - MEAN) / SCALE) @ WEIGHTS + INTERCEPT)
    return float(1.0 / (1.0 + np.exp(-np.clip(z, -50.0, 50.0))))


def verify(refined: Refined, camera_from_rig: Array) -> Verdict:
    """Judge a refined pose; ``camera_from_rig`` (4, 4) is the first view's."""
    probability = probability_right(features(refined))
    turn = np.kron(np.eye(2), camera_from_rig[:3, :3])
    return Verdict(
        probability,
        probability >= THRESHOLD,
        turn @ covariance(refined) @ turn.T,
        _ambiguity(refined, camera_from_rig),
    )


def covariance(refined: Refined) -> Array:
    """(6, 6) of the increment in rig axes: s^2 (J'J)^-1, s^2 the mean squared residual.

    Least squares' own estimate, times the number of alike residuals. What a model error such as
    moved flesh or a wrong SDD does is not in it.
    """
    sum_of_squares = 2.0 * refined.finest_cost
    s2 = CORRELATED_RESIDUALS * sum_of_squares / max(refined.residuals - 6, 1)
    scale = np.diag([0.01, 0.01, 0.01, 1.0, 1.0, 1.0])  # radians as hundredths: evens out the digits
    return scale @ np.linalg.pinv(scale @ refined.normal_matrix @ scale, hermitian=True) @ scale * s2


def _ambiguity(refined: Refined, camera_from_rig: Array) -> str:
    if refined.rival is None or refined.rival_cost > 2.0 * refined.cost:
        return ""
    pose, rival = camera_from_rig @ refined.rig_from_ct, camera_from_rig @ refined.rival
    turn = rotation_log(rival[:3, :3].T @ pose[:3, :3])
    angle = np.degrees(np.linalg.norm(turn))
    apart = np.linalg.norm(rival[:3, 3] - pose[:3, 3])
    if angle > 150.0:
        axis = pose[:3, :3] @ (turn / np.linalg.norm(turn))
        kind = "the opposite view (front and back exchanged)" if abs(axis[2]) < 0.5 else "the same view upside down"
    elif angle > 5.0:
        kind = f"a view turned by {angle:.0f} degrees"
    else:
        kind = f"a position {apart:.0f} mm away"
    return f"Another pose explains the X-ray nearly as well: {kind}. Check that the side and the view are right."
