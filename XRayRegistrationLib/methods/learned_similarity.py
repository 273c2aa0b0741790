"""What ``prost`` and ``sopi`` share: a similarity of a CT and an X-ray that a network has learned, and its slope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods.base import Array, Prepared, Progress
from XRayRegistrationLib.methods.learned import LearnedMethod, NothingProposedError

if TYPE_CHECKING:
    from XRayRegistrationLib.networks.network_input import NetworkView
    from XRayRegistrationLib.solvers.learned_descent import Descended, Slope


@dataclass(frozen=True)
class SlopeOfView:
    """The similarity of one X-ray: an X-ray as the network sees it, and similarity and slope at any poses."""

    view: NetworkView
    slope: Slope


class LearnedSimilarityMethod(LearnedMethod):
    """A method whose network is a networks.similarity_network.SimilarityNetwork."""

    patient_specific = False

    def prepare_ct(
        self, ct: Volume, bone: BoneModel, options: Any, data: dict[str, Any], progress: Progress | None
    ) -> dict[str, Any]:
        """The CT as the network sees it, and what it makes of it."""
        import torch

        from XRayRegistrationLib.training.similarity import network_volume

        volume = network_volume(bone, data["header"]["input"])
        with torch.inference_mode():
            features = data["network"].features(torch.as_tensor(volume.mu)[None])
        return {"volume": volume, "features": features}

    def slope_of(self, xray: XRay, prepared: Prepared) -> SlopeOfView:
        """The learned similarity of an X-ray with the prepared CT.

        Raises:
            NothingProposedError: the network would see nothing of it.
        """
        from XRayRegistrationLib.networks.network_input import learned_view
        from XRayRegistrationLib.solvers.learned_descent import similarity_slope
        from XRayRegistrationLib.training.headers import camera_of_header

        data = prepared.data
        view = learned_view(xray, camera_of_header(data["header"]))
        if not view.field.any():
            raise NothingProposedError("the X-ray shows nothing where the network looks")
        centre = prepared.bone.centroid
        slope = similarity_slope(data["network"], data["features"], data["volume"], view.image, view.camera, centre)
        return SlopeOfView(view, slope)

    def ended(self, descended: Descended) -> list[tuple[Array, float, str]]:
        """Where descents ended, lowest first, as ``propose_view`` gives it.

        Raises:
            NothingProposedError: no pose on the way showed the CT.
        """
        found = [
            (pose, float(cost), "down the learned similarity")
            for pose, cost in zip(descended.camera_from_ct, descended.similarity, strict=True)
            if np.isfinite(cost)
        ]
        if not found:
            raise NothingProposedError("from where the descents began, the X-ray's camera sees nothing of the CT")
        return found
