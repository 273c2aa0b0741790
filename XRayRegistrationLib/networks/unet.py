"""U-Net (Ronneberger et al. 2015): an image in, a value for every cell of a grid out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: Widths of the network of scene coordinate regression (Shrestha et al., MICCAI 2023): 31.04 million parameters.
PAPER_WIDTHS = (64, 128, 256, 512, 1024)
#: A sixteenth of its parameters.
LIGHT_WIDTHS = (16, 32, 64, 128, 256)


class UNet(nn.Module):
    """Double convolutions with batch norm and ReLU, max-pooling down, transposed convolutions up, skips in between.

    Args:
        in_channels, out_channels: of the image, and of the result.
        widths: channels at each level, finest first.
        stem: stride of a convolution that comes first (even, 1 for none). The result is as much smaller than the
            image, and the network stem x stem times faster; what is finer than a cell goes into its channels.
        finest: the level of the result; each above 0 halves its size.

    Takes (N, in_channels, height, width), both multiples of :attr:`multiple`; gives (N, out_channels, height / s,
    width / s) with s = :attr:`stride`. Cell (i, j) of the result lies at the pixel (s (j + 1/2) - 1/2, s (i + 1/2) - 1/2).
    """

    def __init__(
        self, in_channels: int, out_channels: int, widths: Sequence[int] = LIGHT_WIDTHS, *, stem: int = 2, finest: int = 0
    ) -> None:
        super().__init__()
        first = widths[0]
        self.stride = stem * 2**finest
        self.multiple = stem * 2 ** (len(widths) - 1)
        entering = [in_channels if stem == 1 else first * stem // 2, *widths[:-1]]
        self.stem = nn.Identity() if stem == 1 else _stem(in_channels, entering[0], stem)
        self.down = nn.ModuleList(_double_convolution(i, o) for i, o in zip(entering, widths, strict=True))
        self.pool = nn.MaxPool2d(2)
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))[: len(widths) - 1 - finest]
        self.widen = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, stride=2) for i, o in pairs)
        self.up = nn.ModuleList(_double_convolution(2 * o, o) for _, o in pairs)
        self.head = nn.Conv2d(widths[finest], out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        x = self.stem(image)
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        skips.pop()
        for widen, block in zip(self.widen, self.up, strict=True):
            x = block(torch.cat([widen(x), skips.pop()], dim=1))
        result: Tensor = self.head(x)
        return result


def _stem(inside: int, outside: int, stride: int) -> nn.Sequential:
    """A convolution whose results lie in the middle of the stride x stride pixels that each stands for."""
    size = 2 * stride + 2
    convolution = nn.Conv2d(inside, outside, size, stride=stride, padding=(size - stride) // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside), nn.ReLU())


def _double_convolution(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
        nn.Conv2d(outside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
    )
