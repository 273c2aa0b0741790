"""What the network reads off a picture, how it learned it, and what is made of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from XRayRegistrationLib.bone.model import BoneModel
from XRayRegistrationLib.images import picture_reading
from XRayRegistrationLib.images.field_choice import choose_fields, painted_over
from XRayRegistrationLib.images.masks import reduce_to
from XRayRegistrationLib.images.picture_reading import PictureReading, picture_channels, read_picture
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.networks.picture_network import PictureNetwork
from XRayRegistrationLib.simulation.subject import Subject, make_subject
from XRayRegistrationLib.training.options import TrainingOptions
from XRayRegistrationLib.training.picture import PictureTask

CPU = torch.device("cpu")
V, U = np.mgrid[:300, :300]
CORNER = (V < 1.6 * U + 40) & (V < 320 - 1.1 * (U - 110)) & (U > 15)  # blades at acute angles: no known shape


@pytest.fixture(scope="module")
def subject(ct: Volume, model: BoneModel) -> Subject:
    return make_subject(ct, bone=model, name="phantom", voxel_mm=4.0)


def reading_of(field: np.ndarray, painted: np.ndarray | None = None) -> PictureReading:
    """What a network would say that sees it all."""

    def small(x: np.ndarray) -> np.ndarray:
        return reduce_to(x, 128, 128)

    return PictureReading(small(~field), small(np.zeros(field.shape) if painted is None else painted), 5.0)


def textured(field: np.ndarray, around: float = 0.2) -> np.ndarray:
    """A picture whose border fades, which no search for shapes finds."""
    waves = 0.5 + 0.2 * np.sin(U / 17.0) * np.cos(V / 23.0)
    return np.where(field, waves, around + 0.25 * (U + V) / 600).astype(np.float32)


# --- the network ----------------------------------------------------------------------------------


def test_numpy_reads_what_torch_does() -> None:
    torch.manual_seed(0)
    network = PictureNetwork().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.data.uniform_(0.5, 1.5)
    seen = torch.randn(1, 2, 64, 96)
    with torch.no_grad():
        maps, bright = network(seen)
    weights = {name: array.astype(np.float32) for name, array in network.arrays().items()}
    numpy_maps, numpy_bright = picture_reading._forward(weights, seen[0].numpy())
    np.testing.assert_allclose(numpy_maps, maps[0].numpy(), atol=2e-3)  # weights in half precision
    assert numpy_bright == pytest.approx(float(bright[0]), abs=2e-3)


def test_a_curve_over_the_values_leaves_the_ranks() -> None:
    picture = np.random.default_rng(0).random((40, 50)).astype(np.float32)
    ranks, linear = picture_channels(picture)
    bent = picture_channels(np.exp(3 * picture))
    np.testing.assert_allclose(bent[0], ranks, atol=2e-3)
    assert np.abs(bent[1] - linear).max() > 0.3
    assert -1 <= min(ranks.min(), linear.min()) <= max(ranks.max(), linear.max()) <= 1


@pytest.mark.parametrize("shape", [(512, 512), (300, 470), (90, 60)])
def test_a_reading_has_the_picture_s_shape(shape: tuple[int, int]) -> None:
    reading = read_picture(np.random.default_rng(0).random(shape))
    assert max(reading.closed.shape) == picture_reading.READ_PX
    assert reading.closed.shape == reading.painted.shape
    assert reading.closed.shape[0] / reading.closed.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.02)


def test_the_weights_that_come_along_read_an_anatomy_that_they_never_saw(subject: Subject) -> None:
    network = PictureNetwork()
    task = PictureTask([subject], [], TrainingOptions(batch_size=16, seed=3))
    batches = [task.batch(n, CPU) for n in range(4)]
    wrong = {"closed": [], "painted": [], "polarity": []}
    for batch in batches:
        for seen, closed, painted, bright in zip(batch.seen, batch.closed, batch.painted, batch.bright, strict=True):
            (told_closed, told_painted), told_bright = picture_reading._forward(picture_reading._weights(), seen.numpy())
            wrong["closed"].append(((told_closed > 0) != closed.numpy()).mean())
            wrong["painted"].append(((told_painted > 0) != painted.numpy()).mean())
            wrong["polarity"].append((told_bright > 0) != bool(bright))
    untold = {"closed": np.mean([b.closed.numpy().mean() for b in batches])}
    assert np.mean(wrong["closed"]) < 0.3 * untold["closed"]
    assert np.mean(wrong["painted"]) < 0.03
    assert np.mean(wrong["polarity"]) < 0.25
    assert sum(p.numel() for p in network.parameters()) < 200_000


# --- its training ---------------------------------------------------------------------------------


def test_a_few_steps_teach_it_something(subject: Subject) -> None:
    task = PictureTask([subject], [], TrainingOptions(batch_size=8, seed=0))
    torch.manual_seed(0)
    network = task.network()
    optimizer = task.optimizer(network, TrainingOptions(learning_rate=1e-2))
    losses = []
    for number in range(30):
        loss, parts = task.loss(network, task.batch(number, CPU))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert set(parts) == {"closed", "painted", "polarity"}
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])  # one of each kind of picture
    again = task.batch(5, CPU)
    for name in ("seen", "closed", "painted", "bright"):
        assert torch.equal(getattr(task.batch(5, CPU), name), getattr(again, name))


# --- what is made of it ---------------------------------------------------------------------------


def test_a_field_that_no_shape_fits_is_read() -> None:
    image = textured(CORNER)
    (field,) = choose_fields(image, reading_of(CORNER))
    assert (field.fit, field.painted, field.outside) == (0.0, False, "")  # in the middle of the values
    assert not (field.mask & ~ndimage.binary_dilation(CORNER, iterations=4)).any()  # within two of the network's pixels
    assert (field.mask & CORNER).sum() > 0.95 * CORNER.sum()
    assert choose_fields(image, reading_of(np.ones_like(CORNER))) == []


def test_certain_blades_need_no_second_opinion() -> None:
    disk = np.hypot(U - 150, V - 150) < 110
    image = np.where(disk, 0.6 + 0.3 * np.random.default_rng(0).random(disk.shape), 0.01)
    (field,) = choose_fields(image, reading_of(np.ones_like(disk)))
    assert field.fit > 0.98
    assert (field.mask & disk).sum() > 0.95 * disk.sum()


def test_what_is_painted_over_is_left_out_unless_it_is_the_most() -> None:
    everywhere = np.ones(V.shape, bool)
    box = (abs(V - 80) < 30) & (abs(U - 200) < 40)
    image = np.where(box, 0.4, textured(everywhere))
    for read in (box, abs(V - 80) < 15, ndimage.binary_dilation(box, iterations=4)):  # all of it, a part, or more
        found = painted_over(image, reading_of(everywhere, read & (abs(U - 200) < 50)), everywhere, "bright")
        assert found[box].mean() > 0.95
        assert found.sum() < 1.1 * box.sum()
    assert not painted_over(textured(everywhere), reading_of(everywhere, box), everywhere, "bright").any()  # anatomy is not flat
    most = V < 200
    assert not painted_over(np.where(most, 0.4, image), reading_of(everywhere, most), everywhere, "bright").any()
    clipped = np.where(box, 0.0, image)  # an open beam, where dense bone is bright
    assert not painted_over(clipped, reading_of(everywhere, box), everywhere, "bright")[box].any()
    assert painted_over(clipped, reading_of(everywhere, box), everywhere, "dark")[box].mean() > 0.95
    flat = replace(reading_of(everywhere), closed=np.ones((128, 128), np.float32))
    assert choose_fields(textured(everywhere), flat) == []  # all closed: nothing to go by
