"""The networks of RayEmb: an X-ray in, an embedding of the ray through each cell out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from XRayRegistrationLib.networks.unet import LIGHT_WIDTHS, UNet
from XRayRegistrationLib.networks.vit import PATCH, VisionTransformer

EMBEDDING = 32  # dimensions


class ViTEncoder(nn.Module):
    """The published encoder: ViT-S/14 and a linear map of each patch to 32 numbers (12 320 parameters).

    Takes (N, 1, height, width), multiples of 14; gives (N, 32, height / 14, width / 14).
    """

    stride = multiple = PATCH

    def __init__(self) -> None:
        super().__init__()
        self.trunk = VisionTransformer()
        self.head = nn.Linear(self.trunk.norm.normalized_shape[0], EMBEDDING)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        field = self.trunk(image.expand(-1, 3, -1, -1))
        out: Tensor = self.head(field.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


def ray_encoder(architecture: dict[str, Any]) -> nn.Module:
    """The network of a header: the paper's, or a light U-Net."""
    if architecture["paper_mode"]:
        return ViTEncoder()
    return UNet(1, EMBEDDING, architecture.get("widths", LIGHT_WIDTHS), finest=1)


def as_seen(image: Tensor, field: Tensor, paper_mode: bool) -> Tensor:
    """Images (N, H, W) as the network takes them, (N, 1, H, W): standardised, or as published from 0 to 1.

    Args:
        field: (N, H, W) where there is X-ray.
    """
    from XRayRegistrationLib.networks.network_input import standardised

    seen = standardised(image, field)
    if not paper_mode:
        return seen[:, None]
    low, high = seen.amin((-2, -1), keepdim=True), seen.amax((-2, -1), keepdim=True)
    return (((seen - low) / (high - low).clamp(min=1e-6)) * field)[:, None].to(torch.float32)
