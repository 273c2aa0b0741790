"""Whether a pose is right, decided from the images alone.

A logistic regression on what separates right from wrong poses: how much of the gradients at 64 and
128 pixels the pose leaves unexplained, and how much better it explains them than the best pose
elsewhere. Several views of one pose have a regression of their own, for there is more to see: how
well the pose explains the view that it explains worst, and whether the views pull it apart. The
coefficients are fitted on simulated X-rays of several CTs, wrong poses included, by
``Testing/benchmarks/calibrate.py``; accuracy is reported with each CT left out of the fit in turn.

However well it fits, a pose of a single view is not believed where another one elsewhere fits nearly as
well, or where it can be moved and fits as well (a shaft without its ends, a picture without bone); nor
where the mirrored picture fits a pose of its own better.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.geometry.rigid import rotation_log, transform_points
from XRayRegistrationLib.solvers.refinement import Refined

Array = NDArray[np.float64]

#: A pose below this probability is reported as a failure.
THRESHOLD = 0.8

RATIO_WITHOUT_RIVAL = np.exp(-1.0)  # every start ended here: mildly in favour


@dataclass(frozen=True)
class LogisticRegression:
    """Fitted by Testing/benchmarks/calibrate.py.

    Attributes:
        names: of the features.
        floor: below these values they have nothing more to say.
        mean, scale, weights: one number a feature.
        intercept: of the log odds.
    """

    names: tuple[str, ...]
    floor: Array
    mean: Array
    scale: Array
    weights: Array
    intercept: float

    def probability(self, x: Array) -> float:
        """That a pose with these features (n,) is right."""
        z = float(((x - self.mean) / self.scale) @ self.weights + self.intercept)
        return float(1.0 / (1.0 + np.exp(-np.clip(z, -50.0, 50.0))))


SINGLE_VIEW = LogisticRegression(
    names=("log_cost", "log_plain_cost", "log_fine_cost", "log_rival"),
    floor=np.array([-4.5, -5.5, -3.0, -2.0]),
    mean=np.array([-3.429, -4.184, -2.205, -1.345]),
    scale=np.array([1.381, 1.741, 0.912, 0.824]),
    weights=np.array([-1.026, -1.142, -0.430, -1.300]),
    intercept=2.896,
)
SEVERAL_VIEWS = LogisticRegression(
    names=(*SINGLE_VIEW.names, "log_worst_view", "log_drift_mm"),
    floor=np.array([*SINGLE_VIEW.floor, -3.0, -1.6]),
    mean=np.array([-1.351, -1.485, -0.956, -0.454, -0.899, 0.152]),
    scale=np.array([1.429, 1.720, 0.947, 0.687, 1.007, 1.287]),
    weights=np.array([-0.449, -0.107, -1.160, -0.683, -0.963, -1.476]),
    intercept=1.589,
)

# A rival is worth a word while its cost is below this times the pose's, unless several views together
# leave less doubt than this: coarse costs, which is what a rival has, then know less than the views do.
_NEARLY_AS_WELL = 2.0
_BEYOND_DOUBT = 0.95

# Of a single view: a pose whose cost is more than this share of its rival's is one of two that cannot be told apart. Of 103
# right poses that passed (six CTs, clean and randomised X-rays) none had more than 0.48; of edges without bone and a shaft
# without its ends, which the regression alone lets pass, none less than 0.87.
_RIVALLED = 0.6
_LOOSE_MM = 10.0  # standard deviation of the bone's place, by the X-ray's noise alone, from which it is not known
_ARM_MM = 100.0  # of bone about its centroid, which a turn moves
_EITHER = 0.5  # the probability of a pose that is one of two, at most
_LEAST_EIGENVALUE, _NOTHING = 1e-10, 1e-12  # of J'J, over the largest, below which it is rounding; of images of nothing

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
        doubt: why this pose is not believed although it fits, to follow "but"; or "".
    """

    probability: float
    success: bool
    covariance: Array
    ambiguity: str
    doubt: str = ""


def regression(refined: Refined) -> LogisticRegression:
    """The one that judges this pose."""
    return SINGLE_VIEW if len(refined.view_costs) == 1 else SEVERAL_VIEWS


def features(refined: Refined) -> Array:
    """The numbers that :func:`regression` looks at: logarithms, each cut off where it has nothing more to say."""
    ratio = refined.cost / max(refined.rival_cost, 1e-6) if refined.rival is not None else RATIO_WITHOUT_RIVAL
    x = [refined.cost, refined.plain_cost, refined.fine_cost, ratio]
    if len(refined.view_costs) > 1:
        x += [float(refined.view_costs.max()), refined.drift_mm]
    return np.maximum(np.log(np.maximum(x, 1e-6)), regression(refined).floor)


def probability_of(refined: Refined) -> float:
    """That the pose is right, 0..1."""
    probability = _by_fit(refined)
    return min(probability, _EITHER) if _is_rivalled(refined) or _is_loose(refined) else probability


def _by_fit(refined: Refined) -> float:
    """What the regression says, whatever else fits as well."""
    return regression(refined).probability(features(refined))


def _is_rivalled(refined: Refined) -> bool:
    """Whether a pose elsewhere explains a single view nearly as well."""
    return len(refined.view_costs) == 1 and refined.rival is not None and refined.cost > _RIVALLED * refined.rival_cost


def _is_loose(refined: Refined) -> bool:
    """Whether the bone could be moved far, and a single view would be explained as well."""
    return len(refined.view_costs) == 1 and _slack_mm(refined) > _LOOSE_MM


def _slack_mm(refined: Refined) -> float:
    """Largest standard deviation of the bone's place, as the centroid moves or the bone turns about it."""
    found = covariance(refined)
    turn, shift = (float(np.sqrt(np.linalg.eigvalsh(found[part, part])[-1])) for part in (slice(0, 3), slice(3, 6)))
    return max(_ARM_MM * turn, shift)


def verify(refined: Refined, camera_from_rig: Array) -> Verdict:
    """Judge a refined pose; ``camera_from_rig`` (4, 4) is the first view's."""
    probability = probability_of(refined)
    turn = np.kron(np.eye(2), camera_from_rig[:3, :3])
    settled = len(refined.view_costs) > 1 and probability >= _BEYOND_DOUBT
    doubt = ""
    if probability < THRESHOLD <= _by_fit(refined):
        rivalled = _is_rivalled(refined)
        other = _elsewhere(refined, camera_from_rig) if rivalled else f"a position {min(_slack_mm(refined), 999.0):.0f} mm away"
        doubt = f"so does {other}"
    return Verdict(
        probability,
        probability >= THRESHOLD,
        turn @ covariance(refined) @ turn.T,
        "" if settled else _ambiguity(refined, camera_from_rig),
        doubt,
    )


def against_mirrored(verdict: Verdict, refined: Refined, mirrored: Refined) -> Verdict:
    """The verdict when what explains the mirrored X-ray best is known too: not believed where that fits better.

    An X-ray that is stored mirrored is nearly the opposite view of the bone, or of a symmetrical one the same view; the
    pose that is found then fits well, and has the sides exchanged. The right pose of the other picture fits better.
    """
    if mirrored.cost >= refined.cost or mirrored.fine_cost >= refined.fine_cost:
        return verdict
    return replace(
        verdict, probability=min(verdict.probability, _EITHER), success=False,
        doubt="mirrored left to right it is explained better, from another pose",
    )  # fmt: skip


def covariance(refined: Refined) -> Array:
    """(6, 6) of the increment in rig axes: s^2 (J'J)^-1, s^2 the mean squared residual.

    Least squares' own estimate, times the number of alike residuals. What a model error such as
    moved flesh or a wrong SDD does is not in it. A direction that the images say nothing of has a very large variance.
    """
    sum_of_squares = 2.0 * refined.finest_cost
    s2 = CORRELATED_RESIDUALS * sum_of_squares / max(refined.residuals - 6, 1)
    scale = np.diag([0.01, 0.01, 0.01, 1.0, 1.0, 1.0])  # radians as hundredths: evens out the digits
    values, vectors = np.linalg.eigh(scale @ refined.normal_matrix @ scale)
    known = np.maximum(values, max(_LEAST_EIGENVALUE * values[-1], _NOTHING))
    return scale @ (vectors / known) @ vectors.T @ scale * s2


def _ambiguity(refined: Refined, camera_from_rig: Array) -> str:
    if refined.rival is None or refined.rival_cost > _NEARLY_AS_WELL * refined.cost:
        return ""
    kind = _elsewhere(refined, camera_from_rig)
    return f"Another pose explains the X-ray nearly as well: {kind}. Check that the side and the view are right."


def _elsewhere(refined: Refined, camera_from_rig: Array) -> str:
    """What the rival is, seen from the pose."""
    assert refined.rival is not None
    pose, rival = camera_from_rig @ refined.rig_from_ct, camera_from_rig @ refined.rival
    turn = rotation_log(rival[:3, :3].T @ pose[:3, :3])
    angle = np.degrees(np.linalg.norm(turn))
    apart = np.linalg.norm(transform_points(rival, refined.centre_ct) - transform_points(pose, refined.centre_ct))
    if angle > 150.0:
        axis = pose[:3, :3] @ (turn / np.linalg.norm(turn))
        return "the opposite view (front and back exchanged)" if abs(axis[2]) < 0.5 else "the same view upside down"
    return f"a view turned by {angle:.0f} degrees" if angle > 5.0 else f"a position {apart:.0f} mm away"
