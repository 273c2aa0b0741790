"""CrossViT (Chen et al., ICCV 2021): two transformers on patches of two sizes that look at each other's through class tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Branch:
    """One transformer.

    Attributes:
        patch: pixels along a patch's side. width: of the tokens. depth: blocks each round. heads: of the attention.
        hidden: width of the blocks' perceptrons.
    """

    patch: int
    width: int
    depth: int
    heads: int = 4
    hidden: int = 256


#: ProST's (Gao et al., TMI 2024), for 128 x 128 pixels.
PROST_BRANCHES = (Branch(8, 16, 2), Branch(64, 64, 3))


class CrossViT(nn.Module):
    """Numbers (N, outputs) from images (N, channels, size, size).

    Args:
        size: of the images, a multiple of both patches. branches: of the smaller patches first.
        rounds: how often each branch's blocks and the exchange follow each other. exchanges: cross-attentions a round.
        head_width: of each attention head.
    """

    def __init__(
        self,
        size: int,
        channels: int,
        outputs: int,
        branches: tuple[Branch, Branch] = PROST_BRANCHES,
        rounds: int = 3,
        exchanges: int = 2,
        head_width: int = 64,
    ) -> None:
        super().__init__()
        self.embed = nn.ModuleList(_Tokens(size, channels, b) for b in branches)
        self.rounds = nn.ModuleList(_Round(branches, exchanges, head_width) for _ in range(rounds))
        self.heads = nn.ModuleList(nn.Sequential(nn.LayerNorm(b.width), nn.Linear(b.width, outputs)) for b in branches)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        small, large = (embed(image) for embed in self.embed)
        for one_round in self.rounds:
            small, large = one_round(small, large)
        out: Tensor = self.heads[0](small[:, 0]) + self.heads[1](large[:, 0])
        return out


class _Tokens(nn.Module):
    """A class token, and one token a patch with its learned place."""

    def __init__(self, size: int, channels: int, branch: Branch) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, branch.width, branch.patch, stride=branch.patch)
        self.first = nn.Parameter(torch.randn(1, 1, branch.width))
        self.places = nn.Parameter(torch.randn(1, 1 + (size // branch.patch) ** 2, branch.width))

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.project(image).flatten(2).transpose(1, 2)
        out: Tensor = torch.cat([self.first.expand(len(tokens), -1, -1), tokens], 1) + self.places
        return out


class _Round(nn.Module):
    """Blocks of both branches, then each class token asks the other branch's patches."""

    def __init__(self, branches: tuple[Branch, Branch], exchanges: int, head_width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(*(_Block(b.width, b.heads, b.hidden, head_width) for _ in range(b.depth)), nn.LayerNorm(b.width))
            for b in branches
        )
        small, large = branches
        self.exchanges = nn.ModuleList(
            nn.ModuleList(
                (
                    _Exchange(small.width, large.width, large.heads, head_width),
                    _Exchange(large.width, small.width, small.heads, head_width),
                )
            )
            for _ in range(exchanges)
        )

    def forward(self, small: Tensor, large: Tensor) -> tuple[Tensor, Tensor]:
        small, large = self.blocks[0](small), self.blocks[1](large)
        for of_small, of_large in self.exchanges:
            first, second = of_small(small[:, :1], large[:, 1:]), of_large(large[:, :1], small[:, 1:])
            small, large = torch.cat([first, small[:, 1:]], 1), torch.cat([second, large[:, 1:]], 1)
        return small, large


class _Block(nn.Module):
    """Pre-norm self-attention and perceptron, both added to what comes in."""

    def __init__(self, width: int, heads: int, hidden: int, head_width: int) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), _Attention(width, heads, head_width)
        self.perceptron = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        x = x + self.attention(normed, normed)
        out: Tensor = x + self.perceptron(x)
        return out


class _Exchange(nn.Module):
    """A class token, in the other branch's width, attends to itself and to that branch's patches; what it finds is added."""

    def __init__(self, width: int, other: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.into, self.back = nn.Linear(width, other), nn.Linear(other, width)
        self.norm, self.attention = nn.LayerNorm(other), _Attention(other, heads, head_width)

    def forward(self, first: Tensor, patches: Tensor) -> Tensor:
        asked = self.norm(self.into(first))
        out: Tensor = first + self.back(self.attention(asked, torch.cat([asked, patches], 1)))
        return out


class _Attention(nn.Module):
    """Queries attend to what is given, in several heads, in plain tensor operations: it is differentiated twice."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, head_width**-0.5
        self.query = nn.Linear(width, heads * head_width, bias=False)
        self.key_value = nn.Linear(width, 2 * heads * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width)

    def forward(self, asking: Tensor, given: Tensor) -> Tensor:
        n, count = asking.shape[:2]
        q = self.query(asking).reshape(n, count, self.heads, -1).transpose(1, 2)
        k, v = self.key_value(given).reshape(n, given.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        share = (q @ k.transpose(-1, -2) * self.scale).softmax(-1)
        out: Tensor = self.out((share @ v).transpose(1, 2).reshape(n, count, -1))
        return out
