"""Method ``fixed_landmarks``: a network finds known points of the CT in the X-ray, and PnP gives the pose.

The points are the user's (Slicer markups) or spread over the bone. The idea is DFLNet's (Grupp et al., IPCAI 2020), which
``paper_mode`` is; by default each landmark comes with a covariance, and a probability that it is in view at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.cios import cios_camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation
from XRayRegistrationLib.images.volume import Volume, fingerprint
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods.base import Array, Needs, Prepared, Progress
from XRayRegistrationLib.methods.learned import POINTS_PACKAGES, TRAINING_PACKAGES, LearnedMethod, NothingProposedError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from XRayRegistrationLib.networks.heatmaps import Located
    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.solvers.pnp import PnpPose
    from XRayRegistrationLib.training.options import TrainingOptions
    from XRayRegistrationLib.training.task import Task

LEAST_LANDMARKS = 4
_MODES = 3
_ERROR_PX = 1.0  # of the network's pixels, beside what it says of itself: one landmark in ten errs by three of its sigmas
_FEW = 8  # landmarks that leave the depth to be told by the poses that were trained on


@dataclass(frozen=True)
class Recipe:
    """How landmarks are learned and read; what is trained with one is read with the same.

    Attributes:
        network: of networks.landmark_networks.
        maps: "locations" (a probability of each cell) or "heatmaps" (they resemble a Gaussian; judged by NCC).
        sigma: cells, of the Gaussian about each landmark.
        segmentation: the network also learns where each label is seen: "shadows", whether a ray meets each, or "classes",
            which one it meets first in the list, which is where each landmark is then looked for.
        accept: the least probability, or NCC, of a landmark that is used.
        solver: "pnp" is solvers.pnp; "iterative" OpenCV's RANSAC with 5 points a sample, 1000 of them.
        threshold_px: of RANSAC's inliers, where the landmarks have no covariance.
        subpixel: heatmaps are read between their cells.
        optimizer: "muon", "adam" or "sgd" (Nesterov).
    """

    network: Literal["light", "scr", "dflnet"]
    maps: Literal["locations", "heatmaps"]
    sigma: float
    segmentation: Literal["none", "shadows", "classes"]
    accept: float
    solver: Literal["pnp", "iterative"] = "pnp"
    threshold_px: float = 5.0
    subpixel: bool = True
    optimizer: Literal["muon", "adam", "sgd"] = "muon"


DEFAULT_RECIPE = Recipe("light", "locations", 1.0, "shadows", 0.5)
#: Their images have 180 pixels and a border to 192; here all 192 are seen.
DFLNET_RECIPE = Recipe("dflnet", "heatmaps", 2.5, "classes", 0.9, subpixel=False, optimizer="sgd")
DFLNET_CAMERA = cios_camera(192)


@dataclass(frozen=True)
class FixedLandmarksOptions:
    """Options of method ``fixed_landmarks``.

    Attributes:
        paper_mode: DFLNet as published (38 million parameters, 192 x 192 pixels): loss, optimiser, detection.
        weights: of an earlier training; None looks for those of the CT at hand.
        search_on_failure: search without the network where nothing that it proposes verifies.
        poses: what is trained on, a name in simulation.pose_samplers.POSE_SAMPLERS.
        count: landmarks that are spread over the bone where the CT brings none of its own (14 in ``paper_mode``).
        landmarks: a Slicer markups file with the landmarks of the CT at hand, for weights of other CTs.
    """

    paper_mode: bool = False
    weights: str | None = None
    search_on_failure: bool = True
    poses: str = "scr"
    count: int = 40
    landmarks: str | None = None

    def __post_init__(self) -> None:
        if self.count < LEAST_LANDMARKS:
            raise InputError(f"count of the landmarks is {self.count}; allowed is at least {LEAST_LANDMARKS}")


class FixedLandmarks(LearnedMethod):
    """Landmarks by a network, and PnP (Grupp et al., IPCAI 2020)."""

    name: ClassVar[str] = "fixed_landmarks"
    summary: ClassVar[str] = "a network finds points of the CT in the X-ray, chosen by you or by itself; trained on each CT"
    reference: ClassVar[str] = "Grupp et al., IPCAI 2020"
    needs: ClassVar[Needs] = Needs(
        training_per_patient=True, weights=True, packages=POINTS_PACKAGES, training_packages=TRAINING_PACKAGES
    )
    options_type: ClassVar[type] = FixedLandmarksOptions

    def recipe(self, paper_mode: bool) -> tuple[Recipe, Camera | None]:
        """What is learned and how, and the camera (None: the learned methods' own)."""
        return (DFLNET_RECIPE, DFLNET_CAMERA) if paper_mode else (DEFAULT_RECIPE, None)

    def landmark_count(self, options: Any) -> int:
        """How many are chosen where the CT brings none."""
        return 14 if options.paper_mode else int(options.count)

    def task(
        self,
        subjects: Sequence[Subject],
        held_out: Sequence[Subject],
        options: Any,
        training: TrainingOptions,
        camera: Camera | None,
    ) -> Task:
        """Training on one CT, or on several that bring landmarks of the same names.

        Raises:
            InputError: too few landmarks, one outside its CT, or CTs that do not have the same.
        """
        from XRayRegistrationLib.simulation.appearance_options import AppearanceOptions
        from XRayRegistrationLib.training.fixed_landmarks import FixedLandmarksTask
        from XRayRegistrationLib.training.xray_stream import LEARNED_CAMERA, StreamOptions

        recipe, published = self.recipe(options.paper_mode)
        stream = StreamOptions(camera or published or LEARNED_CAMERA, options.poses, AppearanceOptions.domain_randomisation())
        count = self.landmark_count(options)
        return FixedLandmarksTask(self.name, subjects, held_out, recipe, count, stream, training)

    def network(self, header: dict[str, Any]) -> nn.Module:
        """As the header's architecture says."""
        from XRayRegistrationLib.networks.landmark_networks import landmark_network

        return landmark_network(header["architecture"])

    def published(self, architecture: dict[str, Any], options: Any) -> bool:
        """By the network's name."""
        return bool(architecture.get("network") == self.recipe(True)[0].network)

    def serves_its_own_cts_only(self, options: Any) -> bool:
        """Unless the CT at hand brings its landmarks."""
        return options.landmarks is None

    def prepare_ct(
        self, ct: Volume, bone: BoneModel, options: Any, data: dict[str, Any], progress: Progress | None
    ) -> dict[str, Any]:
        """The landmarks' places in this CT: of the weights' header, or of a file.

        Raises:
            InputError: the file has fewer than four of the landmarks that the network knows.
        """
        header = data["header"]
        if options.landmarks is None:
            mark = fingerprint(ct)
            points = next(np.array(c["landmarks_ct"]) for c in header["cts"] if c["fingerprint"] == mark)
        else:
            from XRayRegistrationLib.files.landmarks import read_landmarks

            points = matched_landmarks(read_landmarks(options.landmarks), header["landmarks"]["names"], options.landmarks)
        return {"landmarks_ct": points}

    def propose_view(
        self, xray: XRay, prepared: Prepared, seed: int, start: Array | None = None
    ) -> list[tuple[Array, float, str]]:
        """Poses by PnP on the landmarks that are seen."""
        import torch

        from XRayRegistrationLib.networks.network_input import network_view
        from XRayRegistrationLib.solvers.pnp import PnpFailure
        from XRayRegistrationLib.training.headers import camera_of_header

        network, header = prepared.data["network"], prepared.data["header"]
        view = network_view(xray, camera_of_header(header), network.multiple)
        with torch.inference_mode():
            maps, labels = network(view.image)
        points, centre = prepared.data["landmarks_ct"], prepared.bone.centroid
        try:
            poses = solve_landmarks(maps[0], labels[0], view.camera, view.field, header, points, centre, seed)
        except PnpFailure as error:
            raise NothingProposedError(str(error)) from error
        return [(p.camera_from_ct, p.cost, f"{int(p.inliers.sum())} of {len(p.inliers)} landmarks agree") for p in poses]


def matched_landmarks(landmarks: Any, names: Sequence[str], source: object) -> Array:
    """Points (n, 3) of ``names``, NaN where there are none of that name.

    Raises:
        InputError: fewer than four.
    """
    places = dict(zip(landmarks.names, landmarks.points_ct, strict=True))
    points = np.array([places.get(name, np.full(3, np.nan)) for name in names])
    known = int(np.isfinite(points).all(axis=1).sum())
    if known < LEAST_LANDMARKS:
        raise InputError(
            f"{source} has {known} of the landmarks that the network knows ({', '.join(names[:8])}"
            f"{', ...' if len(names) > 8 else ''}); allowed is at least {LEAST_LANDMARKS}, of the same names"
        )
    return points


def read_maps(maps: Tensor, labels: Tensor, field: NDArray[np.bool_], header: dict[str, Any]) -> Located:
    """What the network's maps (n, h, w) say of each landmark, among the cells inside ``field`` (H, W).

    Args:
        labels: (k, h, w) logits.
    """
    from XRayRegistrationLib.networks.heatmaps import read_heatmaps, read_locations

    recipe = Recipe(**header["recipe"])
    height, width = maps.shape[-2:]
    stride = field.shape[0] // height
    inside = np.asarray(field.reshape(height, stride, width, stride).all(axis=(1, 3)))
    if recipe.maps == "locations":
        return read_locations(maps.float(), inside, stride, recipe.sigma)
    allowed = inside[None]
    if recipe.segmentation == "classes":
        found = labels.detach().float().cpu().numpy().argmax(axis=0)
        own = np.array(header["landmarks"]["classes"])[:, None, None]
        allowed = inside & np.where(own > 0, found == own, found > 0)
    return read_heatmaps(maps.detach().double().cpu().numpy(), allowed, stride, recipe.sigma, subpixel=recipe.subpixel)


def solve_landmarks(
    maps: Tensor,
    labels: Tensor,
    camera: Camera,
    field: NDArray[np.bool_],
    header: dict[str, Any],
    points_ct: Array,
    centre_ct: Array,
    seed: int,
) -> tuple[PnpPose, ...]:
    """Poses from the network's maps, best first.

    Args:
        camera: of the image that the network saw.
        points_ct: (n, 3) mm, NaN where a landmark's place is not known.
        centre_ct: (3,) mm of the bone, which poses are drawn about.

    Raises:
        PnpFailure: too few landmarks in view, or no pose that enough of them agree on.
    """
    from XRayRegistrationLib.solvers.pnp import PnpFailure, PnpOptions, solve_pnp

    recipe, located = Recipe(**header["recipe"]), read_maps(maps, labels, field, header)
    seen = (located.confidence >= recipe.accept) & np.isfinite(points_ct).all(axis=1)
    if seen.sum() < LEAST_LANDMARKS:
        raise PnpFailure(f"the network finds {int(seen.sum())} of {len(seen)} landmarks; at least {LEAST_LANDMARKS} are needed")
    points, pixels = points_ct[seen], located.pixels[seen]
    if recipe.solver == "iterative":
        from XRayRegistrationLib.solvers.pnp_published import SCR2023, pnp_as_published

        return (pnp_as_published(points, pixels, camera, recipe.threshold_px, SCR2023, seed),)
    options = PnpOptions(threshold_px=recipe.threshold_px, modes=_MODES, pixel_errors="predicted")
    if recipe.maps == "heatmaps":
        return solve_pnp(points, pixels, camera, options=options, seed=seed)
    prior = pose_prior(header, centre_ct) if seen.sum() <= _FEW else None
    covariance = located.covariance_px[seen] + _ERROR_PX**2 * np.eye(2)
    return solve_pnp(points, pixels, camera, covariance_px=covariance, options=options, seed=seed, prior=prior)


def pose_prior(header: dict[str, Any], centre_ct: Array) -> tuple[Array, Array]:
    """The poses that were trained on, as ``solve_pnp`` takes them: mean camera_from_ct, and standard deviations (6,)."""
    rotation, at = (np.array(header["prior"][key]) for key in ("rotation", "centre_camera"))
    return from_rotation_translation(rotation, at - rotation @ centre_ct), np.array(header["prior"]["sigma"])


def propose_pose(
    maps: Tensor,
    labels: Tensor,
    camera: Camera,
    field: NDArray[np.bool_],
    header: dict[str, Any],
    points_ct: Array,
    centre_ct: Array,
) -> Array | None:
    """The best pose (4, 4), or None; for validations."""
    from XRayRegistrationLib.solvers.pnp import PnpFailure

    try:
        return solve_landmarks(maps, labels, camera, field, header, points_ct, centre_ct, seed=0)[0].camera_from_ct
    except PnpFailure:
        return None
