"""Maps of landmarks: Gaussians drawn by hand are read where they were drawn, and losses agree with their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from XRayRegistrationLib.networks.heatmaps import (
    gaussian_heatmaps,
    location_loss,
    log_locations,
    ncc_loss,
    read_heatmaps,
    read_locations,
    template_ncc,
)
from XRayRegistrationLib.networks.landmark_networks import DflNet, LightLandmarkNet, ScrLandmarkNet

ALL = np.ones((1, 64, 64), bool)


def drawn(cells: np.ndarray, sigma: float | tuple[float, float], size: int = 64) -> np.ndarray:
    """Gaussians (n, size, size) of peak 1 about (column, row), made without the library."""
    v, u = np.mgrid[:size, :size]
    su, sv = np.broadcast_to(sigma, 2)
    return np.stack([np.exp(-0.5 * (((u - x) / su) ** 2 + ((v - y) / sv) ** 2)) for x, y in cells])


def test_a_cell_lies_between_the_pixels_that_it_stands_for() -> None:
    spike = np.zeros((1, 64, 64))
    spike[0, 5, 9] = 1.0  # row 5, column 9
    for stride, pixel in ((1, [9, 5]), (2, [18.5, 10.5]), (4, [37.5, 21.5])):
        assert read_heatmaps(spike, ALL, stride, 1.0, subpixel=False).pixels.tolist() == [pixel]
        logits = torch.as_tensor(20 * spike)
        np.testing.assert_allclose(read_locations(logits, ALL[0], stride, 1.0).pixels, [pixel], atol=1e-3)
        target = gaussian_heatmaps(torch.tensor([[pixel]], dtype=torch.float64), torch.ones(1, 1), 64, 64, stride, 1.0)
        np.testing.assert_allclose(target[0], drawn(np.array([[9, 5]]), 1.0), atol=1e-6)


@pytest.mark.parametrize(("stride", "sigma"), [(1, 2.5), (2, 1.5), (2, 1.0)])
def test_gaussians_are_read_between_the_cells(stride: int, sigma: float) -> None:
    cells = np.random.default_rng(0).uniform(10, 50, (40, 2))
    maps = drawn(cells, sigma)
    pixels = stride * (cells + 0.5) - 0.5
    for offset, factor in ((0.0, 1.0), (-3.0, 0.2)):  # a heatmap has no scale of its own
        found = read_heatmaps(offset + factor * maps, ALL, stride, sigma)
        assert np.abs(found.pixels - pixels).max() < 0.05
        assert found.confidence.min() > 0.85
    whole = read_heatmaps(maps, ALL, stride, sigma, subpixel=False)
    assert (whole.pixels == stride * (np.rint(cells) + 0.5) - 0.5).all()
    found = read_locations(torch.as_tensor(np.log(maps + 1e-30)) + 10.0, ALL[0], stride, sigma)
    assert np.abs(found.pixels - pixels).max() < 0.05
    assert found.confidence.min() > 0.95


def test_the_covariance_is_what_the_network_adds_to_the_target() -> None:
    cells = np.random.default_rng(1).uniform(25, 39, (10, 2))
    logits = torch.as_tensor(np.log(drawn(cells, (2.0, 3.0)) + 1e-30)) + 10.0
    found = read_locations(logits, ALL[0], 2, 1.0)
    np.testing.assert_allclose(found.covariance_px, np.tile(4 * np.diag([4.0 - 1.0, 9.0 - 1.0]), (10, 1, 1)), atol=0.3)


def test_what_is_outside_the_field_is_not_looked_at() -> None:
    maps = drawn(np.array([[10.0, 30.0]]), 1.5) + 0.5 * drawn(np.array([[50.0, 30.0]]), 1.5)
    field = np.ones((64, 64), bool)
    assert read_heatmaps(maps, field, 1, 1.5).pixels[0, 0] == pytest.approx(10.0, abs=0.05)
    field[:, :20] = False
    assert read_heatmaps(maps, field, 1, 1.5).pixels[0, 0] == pytest.approx(50.0, abs=0.05)
    logits = torch.as_tensor(np.log(maps + 1e-9)) + 10.0
    found = read_locations(logits, field, 1, 1.5)
    assert found.pixels[0, 0] == pytest.approx(50.0, abs=0.05)
    assert found.confidence[0] == pytest.approx(1 / 3, abs=0.02)  # the other peak keeps its two thirds
    nothing = read_heatmaps(maps, np.zeros((64, 64), bool), 1, 1.5)
    assert nothing.confidence.tolist() == [0.0]
    assert read_locations(logits, np.zeros((64, 64), bool), 1, 1.5).confidence.tolist() == [0.0]


def test_confidence_tells_a_landmark_from_none() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(64, 64))
    row, column = divmod(int(noise.argmax()), 64)
    assert template_ncc(noise, row, column, 2.5) < 0.5
    assert template_ncc(drawn(np.array([[30.0, 20.0]]), 2.5)[0], 20, 30, 2.5) == pytest.approx(1.0)
    assert template_ncc(drawn(np.array([[0.0, 63.0]]), 2.5)[0], 63, 0, 2.5) == pytest.approx(1.0)  # in a corner
    assert template_ncc(np.zeros((64, 64)), 20, 30, 2.5) == 0.0
    assert read_locations(torch.full((1, 64, 64), -20.0), ALL[0], 1, 1.0).confidence[0] < 1e-6
    flat = read_locations(torch.zeros(1, 64, 64), ALL[0], 1, 1.0)
    assert flat.confidence[0] < 0.1
    assert np.isfinite(flat.covariance_px).all()


def test_losses_by_hand() -> None:
    a, b = torch.as_tensor(np.random.default_rng(3).uniform(size=(2, 2, 3, 8, 9)))
    pairs = zip(a.reshape(6, -1).numpy(), b.reshape(6, -1).numpy(), strict=True)
    ncc = [np.corrcoef(x, y)[0, 1] for x, y in pairs]
    assert float(ncc_loss(a, b)) == pytest.approx(np.mean(0.5 * (1 - np.array(ncc))), abs=1e-9)
    assert float(ncc_loss(2 * a - 3, a)) == pytest.approx(0.0, abs=1e-9)
    assert float(ncc_loss(a, 0 * b)) == pytest.approx(0.5)  # out of view, whatever the network says
    # of 72 cells and nowhere, which weighs as much as all of them
    zeros = torch.zeros(1, 1, 8, 9, requires_grad=True)
    somewhere, nowhere = torch.tensor([[[4.0, 4.0]]]), torch.tensor([[False]])
    assert float(log_locations(zeros.detach())[0, 0, -1].exp()) == pytest.approx(0.5)
    assert float(location_loss(zeros.detach(), somewhere, nowhere, 1, 1.0)) == pytest.approx(np.log(2))
    assert float(location_loss(zeros.detach(), somewhere, ~nowhere, 1, 1.0)) == pytest.approx(np.log(2 * 72), rel=1e-5)
    location_loss(zeros, torch.tensor([[[float("nan"), 4.0]]]), nowhere, 1, 1.0).backward()
    assert torch.isfinite(zeros.grad).all()  # behind the source there is no pixel


def test_the_maps_that_minimise_the_location_loss_are_the_target() -> None:
    pixels, seen = torch.tensor([[[20.3, 11.8]]]), torch.tensor([[True]])
    logits = torch.zeros(1, 1, 16, 16, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        location_loss(logits, pixels, seen, 2, 1.0).backward()
        optimizer.step()
    found = read_locations(logits.detach()[0], np.ones((16, 16), bool), 2, 1.0)
    np.testing.assert_allclose(found.pixels, [[20.3, 11.8]], atol=0.05)
    assert found.confidence[0] > 0.97


def test_networks_are_of_the_published_size() -> None:
    def size(network: torch.nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    # 38.1 million with a last convolution down that nothing comes after: 1024 x 1024 x 2 x 2, and 1024 offsets
    assert size(DflNet(14, 7)) + 1024 * 1024 * 4 + 1024 == pytest.approx(38.1e6, abs=0.05e6)
    assert size(ScrLandmarkNet(14)) == pytest.approx(31.04e6, abs=0.01e6)
    light = LightLandmarkNet(40, 1)
    assert 2 * sum(v.numel() for v in light.state_dict().values()) < 4e6  # bytes in half precision
    maps, labels = light.eval()(torch.zeros(1, 1, 128, 192))
    assert (maps.shape, labels.shape) == ((1, 40, 32, 48), (1, 1, 32, 48))
    maps, labels = DflNet(5, 3, (4, 8, 16)).eval()(torch.zeros(1, 1, 8, 12))
    assert (maps.shape, labels.shape) == ((1, 5, 8, 12), (1, 3, 8, 12))


@pytest.mark.parametrize("cell", [-0.3, 0.0, 0.5, 1.0, 2.5, 14.8])
@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_a_gaussian_that_the_edge_cuts_off_is_read_as_a_whole_one(cell: float, sigma: float) -> None:
    stride = 4
    pixel = stride * (cell + 0.5) - 0.5
    maps = gaussian_heatmaps(torch.tensor([[pixel, 60.0]]).double(), torch.ones(1), 32, 16, stride, sigma)
    found = read_locations(torch.log(maps / maps.sum() + 1e-30), np.ones((32, 16), bool), stride, 1.0)
    mean = stride * (float((maps[0].sum(0) / maps.sum()) @ torch.arange(16.0, dtype=torch.double)) + 0.5) - 0.5
    assert abs(found.pixels[0, 0] - pixel) < 0.3 * stride
    assert abs(found.pixels[0, 0] - pixel) < 0.5 * abs(mean - pixel) + 0.01
    assert found.pixels[0, 1] == pytest.approx(60.0, abs=0.05)
