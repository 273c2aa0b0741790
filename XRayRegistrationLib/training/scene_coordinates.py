"""Training of scene coordinate regression (Shrestha et al., MICCAI 2023): losses and validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from XRayRegistrationLib.networks.unet import LIGHT_WIDTHS, PAPER_WIDTHS, UNet
from XRayRegistrationLib.training.headers import camera_header, ct_header
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.pose_loss import pnp_error_mm
from XRayRegistrationLib.training.task import Task, Validation
from XRayRegistrationLib.training.validation import median_mtre
from XRayRegistrationLib.training.xray_stream import XRayBatch, XRayStream

if TYPE_CHECKING:
    from XRayRegistrationLib.methods.scene_coordinates import SceneCoordinatesOptions
    from XRayRegistrationLib.simulation.subject import Subject
    from XRayRegistrationLib.training.xray_stream import StreamOptions

UNIT_MM = 100.0  # of the coordinates that the network gives
_VALIDATION_BATCHES, _VALIDATION_SEED = 4, 1 << 20
# The pose that PnP would give, beside the points: log(1 + error / 10 mm), a tenth as much. At equal weight it is too coarse a
# teacher for a network that knows nothing yet (48 mm instead of 29 after 28,000 images; a tenth gives 27).
_POSE_MM, _POSE_WEIGHT = 10.0, 0.1


class SceneCoordinatesTask(Task):
    """One CT, and a network that gives each pixel the points where its ray enters and leaves the bone.

    Args:
        subject: the CT.
        options: of the method.
        stream: what X-rays it learns from.
        training: batch size and seed.
    """

    method = "scene_coordinates"

    def __init__(
        self, subject: Subject, options: SceneCoordinatesOptions, stream: StreamOptions, training: TrainingOptions
    ) -> None:
        self.subject, self.paper_mode, self.stream_options = subject, options.paper_mode, stream
        self.mixed_precision = not options.paper_mode
        self.learning_rate = 1e-4 if options.paper_mode else 3e-3  # the paper's; and the better one of 1e-3 and 3e-3
        self.architecture: dict[str, Any] = {
            "paper_mode": options.paper_mode,
            "widths": list(PAPER_WIDTHS if options.paper_mode else LIGHT_WIDTHS),
            "stem": 1 if options.paper_mode else 4,  # 128 pixels at little more than the price of 64, which are too coarse
        }
        self.centre_ct = np.zeros(3) if options.paper_mode else subject.bone.centroid
        from_centre = subject.bone.surface_points - subject.bone.centroid
        self._bone_scatter_mm2 = from_centre.T @ from_centre / len(from_centre)
        stride = int(self.architecture["stem"])
        self.stream = XRayStream([subject], stream, training.batch_size, training.seed, stride)
        self.held_out = XRayStream([subject], stream, training.batch_size, training.seed + _VALIDATION_SEED, stride)
        self._judged: list[XRayBatch] = []
        self._header = {
            "architecture": self.architecture,
            "input": {"camera": camera_header(stream.camera), "poses": stream.poses},
            "units": f"ct coordinates in {UNIT_MM:g} mm from centre_ct, and the logarithm of their error in the same unit",
            "centre_ct": [float(x) for x in self.centre_ct],
            "cts": [ct_header(subject)],
        }

    def network(self) -> nn.Module:
        """The paper's U-Net, or the light one."""
        return scene_coordinates_network(self.architecture)

    def batch(self, number: int, device: torch.device) -> XRayBatch:
        """Of the stream."""
        return self.stream.batch(number, device)

    def loss(self, network: nn.Module, batch: XRayBatch) -> tuple[Tensor, dict[str, float]]:
        """Coordinates and uncertainty where there is bone, and whether there is."""
        with torch.autocast(batch.image.device.type, enabled=False):
            centre = torch.as_tensor(self.centre_ct, dtype=torch.float32, device=batch.hits_ct.device)
            target = (batch.hits_ct - centre[:, None, None]) / UNIT_MM
        out = network(batch.image.contiguous(memory_format=torch.channels_last)).float()
        if self.paper_mode:
            return paper_loss(out, target)
        with torch.autocast(batch.image.device.type, enabled=False):
            loss, parts = robust_loss(out, target)
            pose_mm = self._pnp_error_mm(out, target, batch)
            pose = torch.log1p(pose_mm / _POSE_MM).mean()
        return loss + _POSE_WEIGHT * pose, {**parts, "pnp_mm": float(pose_mm.detach().median())}

    def _pnp_error_mm(self, out: Tensor, target: Tensor, batch: XRayBatch) -> Tensor:
        """(N,) of each X-ray, from the coordinates on bone in the open field and the scales given with them."""
        coordinates, log_scale, bone, _ = _parts(out, target, -5.0, 3.0)
        stride = batch.open_field.shape[-1] // out.shape[-1]
        seen = -nn.functional.max_pool2d(-batch.open_field[:, None].float(), stride)
        weight = torch.where(bone & (seen > 0.5), torch.exp(-2.0 * log_scale), 0.0)

        device = out.device
        centre = torch.as_tensor(self.centre_ct, dtype=torch.float32, device=device)

        def listed(values: Tensor) -> Tensor:
            return UNIT_MM * values.permute(0, 1, 3, 4, 2).flatten(1, 3) + centre

        return pnp_error_mm(
            listed(coordinates),
            listed(target),
            weight.flatten(1),
            torch.as_tensor(batch.camera_from_ct, dtype=torch.float32, device=device),
            torch.as_tensor(self.subject.bone.centroid, dtype=torch.float32, device=device),
            torch.as_tensor(self._bone_scatter_mm2, dtype=torch.float32, device=device),
        )

    def optimizer(self, network: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
        """The paper's is Adam."""
        if self.paper_mode:
            return torch.optim.Adam(network.parameters(), lr=options.learning_rate_or(self.learning_rate))
        return super().optimizer(network, options)

    def validate(self, network: nn.Module, device: torch.device) -> Validation:
        """Median mTRE of the proposed poses of X-rays from other poses."""
        from XRayRegistrationLib.methods.scene_coordinates import propose_poses

        if not self._judged:
            self._judged = [self.held_out.batch(n, device) for n in range(_VALIDATION_BATCHES)]
        found: list[Any] = []
        true = []
        for batch in self._judged:
            out = network(batch.image).float().cpu()
            for n in range(len(out)):
                field = np.ones(out.shape[-2:], bool)
                found.append(propose_poses(out[n], self.stream_options.camera, field, self.header(), seed=0))
                true.append(batch.camera_from_ct[n])
        return median_mtre(found, true, self.subject.bone.surface_points[:200])

    def header(self) -> dict[str, Any]:
        """Of the weights file."""
        return self._header


def scene_coordinates_network(architecture: dict[str, Any]) -> nn.Module:
    """U-Net with 8 channels (entry xyz, log error, exit xyz, log error); the light one also says where bone is."""
    channels = 8 if architecture["paper_mode"] else 9
    return UNet(1, channels, architecture["widths"], stem=architecture["stem"])


def paper_loss(out: Tensor, target: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Mean of |X - mu|^2 / sigma^2 + 2 log sigma on bone and of 1 / sigma elsewhere, for entry and exit (their section 2).

    With 2 log sigma, and not 6, sigma is the root mean square of the distance and not of one axis.

    Args:
        out: (N, 8, h, w). target: (N, 2, 3, h, w), NaN off the bone.
    """
    _, log_sigma, bone, error = _parts(out, target, -6.0, 4.0)
    on = (error.square() * torch.exp(-2.0 * log_sigma) + 2.0 * log_sigma)[bone]
    off = torch.exp(-log_sigma)[~bone]
    loss = 2.0 * (_mean(on) + _mean(off))
    return loss, {"error_mm": UNIT_MM * float(_mean(error[bone].detach()))}


def robust_loss(out: Tensor, target: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Mean of |X - mu| / b + log b on bone, and cross-entropy of whether there is bone.

    The scale b is then the mean distance; large errors, of which truncated views have many, pull less than squared.

    Args:
        out: (N, 9, h, w). target: (N, 2, 3, h, w), NaN off the bone.
    """
    _, log_scale, bone, error = _parts(out, target, -5.0, 3.0)
    on = (error * torch.exp(-log_scale) + log_scale)[bone]
    presence = nn.functional.binary_cross_entropy_with_logits(out[:, 8], bone[:, 0].float())
    loss = _mean(on) + presence
    return loss, {"error_mm": UNIT_MM * float(_mean(error[bone].detach())), "presence": float(presence.detach())}


def _parts(out: Tensor, target: Tensor, low: float, high: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coordinates (N, 2, 3, h, w); log scales, where there is bone, and distances from the target, each (N, 2, h, w)."""
    coordinates = torch.stack([out[:, 0:3], out[:, 4:7]], 1)
    log_scale = torch.stack([out[:, 3], out[:, 7]], 1).clamp(low, high)
    bone = torch.isfinite(target).all(2)
    error = (torch.where(bone[:, :, None], target, coordinates.detach()) - coordinates).square().sum(2)
    return coordinates, log_scale, bone, (error + 1e-8).sqrt()


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(values.numel(), 1)
