"""Muon: what it orthogonalises, how long its steps are, and that it goes on where it was."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
import torch
from torch import nn

from XRayRegistrationLib.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 40), (40, 8)])
def test_orthogonal_keeps_directions_and_evens_out_their_sizes(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = u.T @ orthogonal(matrix) @ v.T  # diagonal in the matrix's own directions
    sizes = found.diagonal()
    assert sizes.min() > 0.6
    assert sizes.max() < 1.3
    torch.testing.assert_close(found, torch.diag(sizes), atol=1e-3, rtol=0.0)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1), nn.GroupNorm(1, 8), nn.GELU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 1, 1)
    )


def test_filters_are_matrices_and_all_else_moves_as_adamw_moves_it():
    ours, theirs = network(), network()
    optimizer = Muon(ours, 0.01, 0.1)
    (filters,) = optimizer.param_groups[0]["params"]
    assert filters is ours[0].weight  # not the filters a channel, nor a single one
    adamw = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(3):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        optimizer.step()
        adamw.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6) == (name != "0.weight")


def test_a_step_is_as_long_as_adamws():
    weight = nn.Parameter(torch.zeros(64, 32, 3, 3))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    layer = nn.ParameterList([weight])
    Muon(layer, 0.01, 0.0).step()
    assert weight.detach().square().mean().sqrt() == pytest.approx(0.2 * 0.01, rel=0.25)


def test_a_state_goes_on_where_it_was():
    whole, parts = network(), network()
    random = [torch.randn(p.shape, generator=torch.Generator().manual_seed(n)) for n, p in enumerate(whole.parameters())]

    def steps(net: nn.Module, optimizer: Muon, count: int) -> None:
        for _ in range(count):
            for parameter, gradient in zip(net.parameters(), random, strict=True):
                parameter.grad = gradient + parameter.detach()
            optimizer.step()

    steps(whole, Muon(whole, 0.01, 0.1), 4)
    first, second = Muon(parts, 0.01, 0.1), Muon(parts, 0.01, 0.1)
    steps(parts, first, 2)
    second.load_state_dict(first.state_dict())
    steps(parts, second, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
