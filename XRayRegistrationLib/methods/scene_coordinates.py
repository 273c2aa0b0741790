"""Method ``scene_coordinates``: a network gives each pixel the points where its ray enters and leaves the bone.

Thousands of pixels then vote for the pose by PnP, each weighted by how sure the network is of it (Shrestha et al.,
MICCAI 2023). Trained on the patient's own CT; no annotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.cios import cios_camera
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods.base import Array, Needs, Prepared
from XRayRegistrationLib.methods.learned import POINTS_PACKAGES, TRAINING_PACKAGES, LearnedMethod, NothingProposedError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.solvers.pnp import PnpPose
    from XRayRegistrationLib.training.options import TrainingOptions
    from XRayRegistrationLib.training.task import Task

_LEAST_PAIRS = 12
_MODES = 3
_ASKED_ANYWAY = 0.1  # of the pixels
_PAPER_CAMERA = cios_camera(512)
_PAPER_LOG_SIGMA, _PAPER_PX = 0.0, 20.0  # of simulated images: below 100 mm counts as bone; RANSAC's threshold
# A mean distance in space over the standard deviation along one axis, of a normal distribution: 2 sqrt(2 / pi).
_MEAN_OVER_SIGMA = 1.596


@dataclass(frozen=True)
class SceneCoordinatesOptions:
    """Options of method ``scene_coordinates``.

    Attributes:
        paper_mode: the published network (31 million parameters, 512 x 512 pixels), loss, selection and PnP.
        weights: of an earlier training; None looks for those of the CT at hand.
        search_on_failure: search without the network where nothing that it proposes verifies.
        poses: what is trained on, a name in simulation.pose_samplers.POSE_SAMPLERS.
    """

    paper_mode: bool = False
    weights: str | None = None
    search_on_failure: bool = True
    poses: str = "scr"


class SceneCoordinates(LearnedMethod):
    """Scene coordinate regression (Shrestha et al., MICCAI 2023)."""

    name: ClassVar[str] = "scene_coordinates"
    summary: ClassVar[str] = "a network gives each pixel its points on the bone; trained on each patient's CT"
    reference: ClassVar[str] = "Shrestha et al., MICCAI 2023"
    needs: ClassVar[Needs] = Needs(
        training_per_patient=True, weights=True, packages=POINTS_PACKAGES, training_packages=TRAINING_PACKAGES
    )
    options_type: ClassVar[type] = SceneCoordinatesOptions

    def task(
        self,
        subjects: Sequence[Subject],
        held_out: Sequence[Subject],
        options: SceneCoordinatesOptions,
        training: TrainingOptions,
        camera: Camera | None,
    ) -> Task:
        """Training on one CT.

        Raises:
            InputError: more than one CT.
        """
        from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
        from XRayRegistrationLib.training.scene_coordinates import SceneCoordinatesTask
        from XRayRegistrationLib.training.xray_stream import LEARNED_CAMERA, StreamOptions

        subject = self.only_subject(subjects, held_out)
        camera = camera or (_PAPER_CAMERA if options.paper_mode else LEARNED_CAMERA)
        stream = StreamOptions(camera, options.poses, AppearanceOptions.domain_randomisation())
        return SceneCoordinatesTask(subject, options, stream, training)

    def network(self, header: dict[str, Any]) -> nn.Module:
        """As the header's architecture says."""
        from XRayRegistrationLib.training.scene_coordinates import scene_coordinates_network

        return scene_coordinates_network(header["architecture"])

    def propose_view(
        self, xray: XRay, prepared: Prepared, seed: int, start: Array | None = None
    ) -> list[tuple[Array, float, str]]:
        """Poses by PnP on the pixels' points."""
        import torch

        from XRayRegistrationLib.networks.network_input import network_view
        from XRayRegistrationLib.solvers.pnp import PnpFailure
        from XRayRegistrationLib.training.headers import camera_of_header

        network, header = prepared.data["network"], prepared.data["header"]
        view = network_view(xray, camera_of_header(header), network.multiple)
        with torch.inference_mode():
            out = network(view.image)[0]
        try:
            poses = solve_scene_coordinates(out, view.camera, view.field, header, seed)
        except PnpFailure as error:
            raise NothingProposedError(str(error)) from error
        return [(p.camera_from_ct, p.cost, f"{int(p.inliers.sum())} of {len(p.inliers)} pixels agree") for p in poses]


@dataclass(frozen=True)
class Pairs:
    """Points of the CT and the pixels that see them.

    Attributes:
        points_ct: (n, 3) mm. pixels: (n, 2). sigma_mm: (n,) standard deviation along one axis.
    """

    points_ct: Array
    pixels: Array
    sigma_mm: Array


def decode(out: Tensor, camera: Camera, field: NDArray[np.bool_], header: dict[str, Any]) -> Pairs:
    """What the network's result (8 or 9, h, w) says, of the pixels on bone inside ``field`` (H, W) or (h, w).

    Args:
        camera: of the image that the network saw.
    """
    values = out.detach().float().cpu().numpy()
    height, width = values.shape[1:]
    grid = camera.resized(width, height)
    rows, columns = (np.arange(n) for n in (height, width))
    step_v, step_u = field.shape[0] // height, field.shape[1] // width
    believed = field.reshape(height, step_v, width, step_u).all(axis=(1, 3))
    paper = header["architecture"]["paper_mode"]
    if not paper:
        # in a strange X-ray the network may doubt all bone: the tenth that it doubts least is asked all the same
        doubt = np.quantile(values[8][believed], 1.0 - _ASKED_ANYWAY) if believed.any() else 0.0
        believed &= values[8] > min(0.0, float(doubt))
    centre = np.asarray(header["centre_ct"])
    points, pixels, sigmas = [], [], []
    u, v = np.meshgrid(columns, rows)
    # from the grid's cells to pixels of the image
    u, v = (u + 0.5) * camera.width / grid.width - 0.5, (v + 0.5) * camera.height / grid.height - 0.5
    for first in (0, 4):
        log_sigma = values[first + 3]
        chosen = believed & (log_sigma < _PAPER_LOG_SIGMA) if paper else believed
        points.append(centre + 100.0 * values[first : first + 3, chosen].T)
        pixels.append(np.stack([u[chosen], v[chosen]], axis=-1))
        sigmas.append(100.0 * np.exp(np.clip(log_sigma[chosen], -6.0, 4.0)) / (np.sqrt(3.0) if paper else _MEAN_OVER_SIGMA))
    return Pairs(*(np.concatenate(p).astype(np.float64) for p in (points, pixels, sigmas)))


def solve_scene_coordinates(
    out: Tensor, camera: Camera, field: NDArray[np.bool_], header: dict[str, Any], seed: int
) -> tuple[PnpPose, ...]:
    """Poses from the network's result, best first.

    Raises:
        PnpFailure: too little bone, or no pose that enough pixels agree on.
    """
    from XRayRegistrationLib.solvers.pnp import PnpFailure, PnpOptions, solve_pnp
    from XRayRegistrationLib.solvers.pnp_published import SCR2023, pnp_as_published

    pairs = decode(out, camera, field, header)
    if len(pairs.pixels) < _LEAST_PAIRS:
        raise PnpFailure(f"the network finds bone in {len(pairs.pixels) // 2} pixels only")
    if header["architecture"]["paper_mode"]:
        return (pnp_as_published(pairs.points_ct, pairs.pixels, camera, _PAPER_PX, SCR2023, seed),)
    # in an X-ray that shows little the network is sure of little, and says so: a rough pose is searched around, none is not
    options = PnpOptions(modes=_MODES, refuse_chance=False)
    return solve_pnp(pairs.points_ct, pairs.pixels, camera, sigma_mm=pairs.sigma_mm, options=options, seed=seed)


def propose_poses(out: Tensor, camera: Camera, field: NDArray[np.bool_], header: dict[str, Any], seed: int) -> Array | None:
    """The best pose (4, 4), or None; for validations."""
    from XRayRegistrationLib.solvers.pnp import PnpFailure

    try:
        return solve_scene_coordinates(out, camera, field, header, seed)[0].camera_from_ct
    except PnpFailure:
        return None
