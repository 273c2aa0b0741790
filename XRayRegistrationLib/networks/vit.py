"""Vision transformer ViT-S/14 as DINOv2 has it (Oquab et al. 2023), from its description: an image in, a patch field out."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from XRayRegistrationLib.errors import InputError, MissingDependencyError

WIDTH, DEPTH, HEADS, PATCH, LEARNED_GRID = 384, 12, 6, 14, 37


class VisionTransformer(nn.Module):
    """Pre-norm transformer on patches with learned places, LayerScale and a class token: 22.06 million parameters.

    Parameters carry DINOv2's names, so that a file of its weights fits (:func:`load_pretrained`).

    Args:
        width: of the tokens. depth: blocks. heads: of the attention. patch: pixels along a patch's side.
        grid: patches along the side of the images that the places were learned from.

    Takes (N, 3, height, width), both multiples of ``patch``; gives (N, width, height / patch, width / patch). Cell (i, j)
    lies at the pixel (patch (j + 1/2) - 1/2, patch (i + 1/2) - 1/2).
    """

    def __init__(
        self, width: int = WIDTH, depth: int = DEPTH, heads: int = HEADS, patch: int = PATCH, grid: int = LEARNED_GRID
    ) -> None:
        super().__init__()
        self.grid = grid
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, stride=patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of its own pre-training; kept so that its files fit
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        x = self.patch_embed["proj"](image)
        n, width, rows, columns = x.shape
        tokens = x.flatten(2).transpose(1, 2) + self._places(rows, columns)
        tokens = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(n, -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        field: Tensor = self.norm(tokens)[:, 1:].transpose(1, 2).reshape(n, width, rows, columns)
        return field

    def _places(self, rows: int, columns: int) -> Tensor:
        """Learned places (1, rows * columns, width), bicubically resampled to the image's grid."""
        learned = self.pos_embed[:, 1:]
        if (rows, columns) == (self.grid, self.grid):
            return learned
        square = learned.reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2).float()
        resampled = nn.functional.interpolate(square, (rows, columns), mode="bicubic", align_corners=False)
        return resampled.flatten(2).transpose(1, 2)


class _Block(nn.Module):
    """x + s1 attention(norm(x)), then x + s2 mlp(norm(x)), with learned scales s1 and s2 of each channel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.ls1, self.ls2 = _Scale(width), _Scale(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        for layer in (self.attn.qkv, self.attn.proj, *self.mlp.values()):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: Tensor = x + self.ls2(self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x)))))
        return out


class _Attention(nn.Module):
    """Every token attends to every other, in several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, count, width = x.shape
        q, k, v = self.qkv(x).reshape(n, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(n, count, width))
        return out


class _Scale(nn.Module):
    """LayerScale: one learned factor for each channel; 1 at first, for there is no pre-training to protect."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def load_pretrained(network: VisionTransformer, path: str | Path) -> None:
    """Put DINOv2's ViT-S/14 weights, a local ``.safetensors`` file, into a network.

    Raises:
        InputError: no such file, damaged, or of another architecture.
        MissingDependencyError: safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise MissingDependencyError("safetensors", "a method that learns", "training") from error
    if not Path(path).is_file():
        raise InputError(f"there is no file {path} of encoder weights; give a .safetensors file of DINOv2's ViT-S/14, or none")
    try:
        network.load_state_dict(load_file(str(path)))
    except (SafetensorError, OSError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path} is not DINOv2's ViT-S/14 ({first}); give a .safetensors file of it, or none") from error
