"""How well rendered images agree with one X-ray, and how that changes with the pose.

The plain implementation, in NumPy; solvers.comparison_numba is the fast one, with the same results.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from XRayRegistrationLib.drr.render import resolve_backend
from XRayRegistrationLib.solvers.gradient_residual import (
    GradientNormalisation,
    Image,
    features_with_jacobian,
    gradient,
    normalised_gradient,
    unit_features,
)
from XRayRegistrationLib.solvers.pyramid import LevelView
from XRayRegistrationLib.solvers.tone import fit_tone_curve

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ComparisonOptions:
    """How images are compared.

    Attributes:
        tone_curve: whether the rendered image is bent to the X-ray's grey values at every pose
            (solvers.tone).
        normalisation: of the gradients.
    """

    tone_curve: bool = True
    normalisation: GradientNormalisation = field(default_factory=GradientNormalisation)


@dataclass(frozen=True)
class FixedFeatures:
    """What of an X-ray is the same at every pose; H, W = h - 2, w - 2.

    Attributes:
        gradient: (2, H, W).
        normalised: (2, H, W).
        weight: (H, W), 0..1, how much each pixel counts, for the correlation and for its neighbours' local strength.
        alone: compare only where the volume projects (solvers.problem.View).
    """

    gradient: Image
    normalised: Image
    weight: Image
    alone: bool


@dataclass(frozen=True)
class Agreement:
    """Of n images with one X-ray.

    Attributes:
        correlation: (n,), of normalised gradients, 1 at best; the cost is 1 - correlation.
        slope: (n, 6), the cost's derivative in camera axes, (rad, mm).
        normal: (n, 6, 6), J'J of the features.
    """

    correlation: Array
    slope: Array
    normal: Array


def fixed_features(view: LevelView, options: ComparisonOptions) -> FixedFeatures:
    """Features of the view's X-ray."""
    weight = np.ascontiguousarray(view.valid[1:-1, 1:-1], dtype=np.float32)
    if view.weight is not None:
        weight = weight * view.weight
    normalised = normalised_gradient(view.image[None], np.pad(weight, 1), options.normalisation)[0]
    return FixedFeatures(gradient(view.image), normalised, weight, view.alone)


def correlation(fixed: FixedFeatures, image: Image, options: ComparisonOptions, backend: str = "scipy") -> Array:
    """Gradient correlation (n,) of rendered images (n, h, w) with the X-ray.

    ``backend`` is the renderer's: with numba, this is compiled too.
    """
    if resolve_backend(backend) == "numba":
        from XRayRegistrationLib.solvers import comparison_numba

        return comparison_numba.correlation(fixed, image, options)
    e, e_fixed, _ = _features(fixed, image, options)
    return np.einsum("ni,ni->n", e, e_fixed, dtype=np.float64)


def residual(fixed: FixedFeatures, image: Image, options: ComparisonOptions) -> tuple[Image, NDArray[np.bool_]]:
    """e_moving - e_fixed (n, 2, H, W) of rendered images (n, h, w), and where they count (n, H, W)."""
    e, e_fixed, weight = _features(fixed, image, options)
    return (e - e_fixed).reshape(len(image), 2, *fixed.weight.shape), weight > 0


def agreement(
    fixed: FixedFeatures, image: Image, jacobian: Image, options: ComparisonOptions, backend: str = "scipy"
) -> Agreement:
    """The correlation of images (n, h, w) with the X-ray, and its derivative from theirs (n, 6, h, w)."""
    if resolve_backend(backend) == "numba":
        from XRayRegistrationLib.solvers import comparison_numba

        return comparison_numba.agreement(fixed, image, jacobian, options)
    weight = _weights(fixed, image)
    if options.tone_curve:
        image, jacobian = _toned(fixed, image, jacobian, weight)
    e, de = features_with_jacobian(image, jacobian, np.pad(fixed.weight, 1), weight, options.normalisation)
    e_fixed = unit_features(fixed.normalised[None], weight)
    slope = (de @ (e - e_fixed)[..., None])[..., 0].astype(np.float64)
    normal = (de @ np.swapaxes(de, 1, 2)).astype(np.float64)
    return Agreement(np.einsum("ni,ni->n", e, e_fixed, dtype=np.float64), slope, normal)


def _features(fixed: FixedFeatures, image: Image, options: ComparisonOptions) -> tuple[Image, Image, Image]:
    """e_moving and e_fixed (n, 2 H W), and the weights (n, H, W) that they are taken with."""
    weight = _weights(fixed, image)
    if options.tone_curve:
        image, _ = _toned(fixed, image, None, weight)
    moving = normalised_gradient(image, np.pad(fixed.weight, 1), options.normalisation)
    return unit_features(moving, weight), unit_features(fixed.normalised[None], weight), weight


def _weights(fixed: FixedFeatures, image: Image) -> Image:
    """(n, H, W): the fixed weight, and for a volume that stands alone where it projects, two pixels around."""
    if not fixed.alone:
        return np.broadcast_to(fixed.weight, (len(image), *fixed.weight.shape))
    shadow = ndimage.maximum_filter((image > 0).astype(np.uint8), size=(1, 5, 5))
    return shadow[:, 1:-1, 1:-1] * fixed.weight


def _toned(fixed: FixedFeatures, image: Image, jacobian: Image | None, weight: Image) -> tuple[Image, Image]:
    """Images and Jacobians bent by the tone curve that fits the X-ray best at each pose.

    The curve's own change with the pose is left out of the Jacobian (Kaufman's approximation of
    variable projection): it is second order at the optimum.
    """
    image = image.copy()
    jacobian = np.empty((len(image), 0, *image.shape[1:]), np.float32) if jacobian is None else jacobian.copy()
    for n in range(len(image)):
        image[n], slope = fit_tone_curve(image[n], fixed.gradient, weight[n])(image[n])
        jacobian[n] *= slope
    return image, jacobian
