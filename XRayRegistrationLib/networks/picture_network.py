"""The network that reads a picture: where it is an X-ray at all, what was painted over it, whether bone is bright.

A U-Net so small that ``images.picture_reading`` runs it in NumPy, where there is no torch. It sees the picture at
half of its 128 pixels, four pixels a cell, and answers at all of them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from XRayRegistrationLib.images.picture_reading import CHANNELS, WIDTHS


class PictureNetwork(nn.Module):
    """(N, 2, H, W) of ``picture_reading.picture_channels``, sides multiples of 16, to logits.

    Returns (N, 2, H, W), of "no open field here" and "painted over"; and (N,) of "bone is bright".
    """

    def __init__(self) -> None:
        super().__init__()
        first, *wider = WIDTHS
        self.down = nn.ModuleList([_twice(4 * CHANNELS, first)])
        self.down.extend(_twice(a, b) for a, b in zip(WIDTHS, wider, strict=False))
        self.around = nn.Linear(2 * WIDTHS[-1], WIDTHS[-1])
        self.narrow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in zip(WIDTHS, wider, strict=False))
        self.up = nn.ModuleList(_once(a, a) for a in WIDTHS[:-1])
        self.out = nn.Conv2d(first, 4 * 2, 3, padding=1)
        self.bright = nn.Linear(WIDTHS[-1], 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = nn.functional.pixel_unshuffle(x, 2)
        levels = []
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else nn.functional.max_pool2d(x, 2))
            levels.append(x)
        whole = torch.relu(self.around(torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)))
        x = levels.pop() + whole[:, :, None, None]
        for narrow, up in zip(reversed(self.narrow), reversed(self.up), strict=True):
            x = up(levels.pop() + nn.functional.interpolate(narrow(x), scale_factor=2.0))
        return nn.functional.pixel_shuffle(self.out(x), 2), self.bright(whole)[:, 0]

    def arrays(self) -> dict[str, NDArray[np.float16]]:
        """What ``picture_reading`` wants: filters (3, 3, in, out) with their norms folded in, matrices, biases."""
        found: dict[str, NDArray[np.float16]] = {}

        def add(name: str, weight: Tensor, bias: Tensor) -> None:
            laid = weight.permute(2, 3, 1, 0) if weight.ndim == 4 else weight.T
            found[f"{name}.weight"] = laid.detach().cpu().contiguous().numpy().astype(np.float16)
            found[f"{name}.bias"] = bias.detach().cpu().numpy().astype(np.float16)

        for group, blocks in (("down", self.down), ("up", self.up)):
            for n, block in enumerate(blocks):
                assert isinstance(block, nn.Sequential)
                for k, (filters, norm) in enumerate(zip(block[0::3], block[1::3], strict=True)):
                    assert isinstance(norm, nn.BatchNorm2d)
                    assert norm.running_mean is not None
                    assert norm.running_var is not None
                    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
                    weight = filters.weight * scale[:, None, None, None]
                    add(f"{group}.{n}.{k}", weight, norm.bias - norm.running_mean * scale)
        for n, matrix in enumerate(self.narrow):
            assert isinstance(matrix, nn.Conv2d)
            assert matrix.bias is not None
            add(f"narrow.{n}", matrix.weight[:, :, 0, 0], matrix.bias)
        assert self.out.bias is not None
        add("out", self.out.weight, self.out.bias)
        for name, layer in (("around", self.around), ("bright", self.bright)):
            add(name, layer.weight, layer.bias)
        return found


def _once(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())


def _twice(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(*_once(inside, outside), *_once(outside, outside))
