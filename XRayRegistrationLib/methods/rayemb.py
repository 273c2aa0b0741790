"""Method ``rayemb``: any point of the bone is found in the X-ray by the embeddings of the rays that meet in it.

A network gives each ray of an X-ray an embedding. A point of the CT is then the subspace of its rays' embeddings in
templates, X-rays rendered from the same CT from many sides, and it is seen where the X-ray's embedding is nearest to that
subspace (Shrestha et al., ACCV 2024). The network is trained once, on other patients; a CT needs a few seconds of
rendering and no annotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.cios import BORDER_PX, cios_camera
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.images.xray import XRay
from XRayRegistrationLib.methods.base import Array, Needs, Prepared, Progress
from XRayRegistrationLib.methods.learned import POINTS_PACKAGES, TRAINING_PACKAGES, LearnedMethod, NothingProposedError

if TYPE_CHECKING:
    from torch import nn

    from XRayRegistrationLib.methods.ray_templates import TemplateViews
    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.training.options import TrainingOptions
    from XRayRegistrationLib.training.task import Task

SURFACE_POINTS, INTERIOR_POINTS, PAPER_POINTS = 700, 300, 10_000
PAPER_TEMPLATES, PAPER_DRAWS = 4, 11
_PAPER_CAMERA = cios_camera(224, BORDER_PX)
_PAPER_TEMPLATE_CAMERA = Camera.from_spacing(224, 224, 1.4 * 512 / 224, 1800.0)


@dataclass(frozen=True)
class RayEmbOptions:
    """Options of method ``rayemb``.

    Attributes:
        paper_mode: the published network (ViT-S/14, 22 million parameters, 224 x 224 pixels), training and search.
        weights: of a training on any CTs; None looks for some.
        search_on_failure: search without the network where nothing that it proposes verifies.
        poses: what is trained on, a name in simulation.pose_samplers.POSE_SAMPLERS; None is "xvr", in paper mode "rayemb".
        encoder_weights: for training in paper mode, DINOv2's weights (.safetensors) that the encoder starts from.
    """

    paper_mode: bool = False
    weights: str | None = None
    search_on_failure: bool = True
    poses: str | None = None
    encoder_weights: str | None = None


class RayEmb(LearnedMethod):
    """Ray embeddings (Shrestha et al., ACCV 2024)."""

    name: ClassVar[str] = "rayemb"
    summary: ClassVar[str] = "finds any bone point in the X-ray by the embeddings of its rays; one network for all patients"
    reference: ClassVar[str] = "Shrestha et al., ACCV 2024"
    needs: ClassVar[Needs] = Needs(weights=True, packages=POINTS_PACKAGES, training_packages=TRAINING_PACKAGES)
    options_type: ClassVar[type] = RayEmbOptions
    patient_specific = False

    def task(
        self,
        subjects: Sequence[Subject],
        held_out: Sequence[Subject],
        options: RayEmbOptions,
        training: TrainingOptions,
        camera: Camera | None,
    ) -> Task:
        """Training on some CTs, for any.

        Raises:
            InputError: poses that are unknown, a camera of another shape than the network's, or no CT.
        """
        from XRayRegistrationLib.simulation.pose_samplers import pose_sampler
        from XRayRegistrationLib.training.rayemb import RayEmbTask
        from XRayRegistrationLib.training.xray_stream import LEARNED_CAMERA

        pose_sampler(options.poses or "xvr")
        if options.encoder_weights is not None and not options.paper_mode:
            raise InputError("option 'encoder_weights' is for the published network; give paper_mode too, or leave it away")
        multiple = 14 if options.paper_mode else 32
        learned = camera or (_PAPER_CAMERA if options.paper_mode else LEARNED_CAMERA)
        if learned.width % multiple or learned.height % multiple:
            raise InputError(
                f"the camera has {learned.width} x {learned.height} pixels; this network learns from sides that are "
                f"multiples of {multiple}"
            )
        if options.paper_mode and (learned.width, learned.height) != (224, 224):
            raise InputError(f"the camera has {learned.width} x {learned.height} pixels; paper_mode learns from 224 x 224")
        views = template_views(learned, options.paper_mode)
        return RayEmbTask(self.some_subjects(subjects), held_out, options, training, learned, views)

    def network(self, header: dict[str, Any]) -> nn.Module:
        """The encoder of rays."""
        from XRayRegistrationLib.networks.ray_encoder import ray_encoder

        return ray_encoder(header["architecture"])

    def prepare_ct(
        self, ct: Volume, bone: BoneModel, options: RayEmbOptions, data: dict[str, Any], progress: Progress | None
    ) -> dict[str, Any]:
        """Templates of the CT, from the cache in $XRAYREGISTRATION_HOME where they are."""
        from XRayRegistrationLib.methods.ray_templates import (
            Templates,
            cached_templates,
            point_features,
            random_points,
            render_windows,
            spread_points,
            views_of_header,
        )
        from XRayRegistrationLib.networks.weights_store import weights_folder
        from XRayRegistrationLib.simulation.subject import make_subject

        header = data["header"]
        paper_mode = header["architecture"]["paper_mode"]
        views = views_of_header(header)
        points = random_points(bone, PAPER_POINTS, 0) if paper_mode else spread_points(bone, SURFACE_POINTS, INTERIOR_POINTS)

        def make() -> Templates:
            def tell(fraction: float) -> None:
                if progress is not None:
                    progress(fraction, "rendering templates of the CT")

            windows = render_windows(make_subject(ct, bone=bone), views, tell)
            return point_features(data["network"], windows, views, points, paper_mode)

        folder = weights_folder().parent / "cache"
        return {"templates": cached_templates(folder, Path(data["weights"]), ct, points, views, make)}

    def propose_view(
        self, xray: XRay, prepared: Prepared, seed: int, start: Array | None = None
    ) -> list[tuple[Array, float, str]]:
        """Poses from the points that are found in one X-ray."""
        import torch

        from XRayRegistrationLib.methods.ray_matching import Matching, find_pose_as_published, find_poses
        from XRayRegistrationLib.networks.network_input import network_view
        from XRayRegistrationLib.networks.ray_encoder import as_seen
        from XRayRegistrationLib.solvers.pnp import PnpFailure
        from XRayRegistrationLib.training.headers import camera_of_header

        network, header, templates = (prepared.data[key] for key in ("network", "header", "templates"))
        paper_mode = header["architecture"]["paper_mode"]
        view = network_view(xray, camera_of_header(header), network.multiple)
        image = as_seen(view.image[:, 0], torch.as_tensor(view.field)[None], paper_mode)
        with torch.inference_mode():
            field = network(image)[0].float()
        cells = open_cells(view.field, field.shape[1], field.shape[2])
        try:
            if paper_mode:
                poses = find_pose_as_published(field, torch.as_tensor(cells), view.camera, templates, seed)
            else:
                matching = Matching(**header["matching"])
                poses = find_poses(field, torch.as_tensor(cells), view.camera, templates, matching, seed)
        except PnpFailure as error:
            raise NothingProposedError(str(error)) from error
        return [(p.camera_from_ct, p.cost, f"{int(p.inliers.sum())} of {len(p.inliers)} points agree") for p in poses]


def template_views(learned: Camera, paper_mode: bool) -> TemplateViews:
    """49 views over +-48 degrees through the network's camera.

    As published, 11 draws of 4 from 324 views over +-45 degrees, each of the whole bone. What is not drawn is not rendered.
    """
    from XRayRegistrationLib.methods.ray_templates import TemplateViews, view_grid

    if paper_mode:
        grid = view_grid(45.0, 45.0, (18, 18))
        drawn = [np.random.default_rng([n]).choice(len(grid), PAPER_TEMPLATES, replace=False) for n in range(PAPER_DRAWS)]
        return TemplateViews(_PAPER_TEMPLATE_CAMERA, grid[np.concatenate(drawn)], 900.0, wide=True, contrast=(1.0, 3.0))
    return TemplateViews(learned, view_grid(48.0, 48.0, (7, 7)), 700.0)


def open_cells(field: Any, rows: int, columns: int) -> Any:
    """(rows, columns) cells of which at least half of the pixels (H, W) is X-ray."""
    height, width = field.shape
    return np.asarray(field, dtype=float).reshape(rows, height // rows, columns, width // columns).mean(axis=(1, 3)) >= 0.5
