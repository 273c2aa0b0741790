"""The synthetic torso has the anatomy that a registration and a clinician need."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from XRayRegistrationLib.bone.model import build_bone_model
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.rigid import transform_points
from XRayRegistrationLib.images.volume import Volume
from XRayRegistrationLib.simulation.torso_phantom import BONE_HU, run_through, torso_phantom, torso_phantom_steps


@pytest.fixture(scope="module")
def torso() -> Volume:
    """The phantom at 2 mm; not to be changed."""
    return torso_phantom()


def _bones(torso: Volume) -> np.ndarray:
    return torso.values > BONE_HU


def _runs(line: np.ndarray) -> int:
    return int(ndimage.label(line)[1])


def test_it_is_laid_out_as_an_axial_ct(torso: Volume) -> None:
    assert torso.values.dtype == np.int16
    assert torso.values.flags.c_contiguous
    assert all(160 <= n <= 200 for n in torso.values.shape)
    np.testing.assert_allclose(torso.ras_from_ijk[:3, :3], np.diag([-2.0, -2.0, 2.0]))  # i left, j back, k head
    assert torso.values.min() == -1000  # air in the corners, as a CT has
    assert (torso.values[:, [0, 0, -1, -1], [0, -1, 0, -1]] == -1000).all()
    assert 800 < torso.values.max() < 2000


def test_it_is_the_same_every_time(torso: Volume) -> None:
    steps = torso_phantom_steps()
    said = []
    again = None
    while again is None:
        try:
            said.append(next(steps))
        except StopIteration as stop:
            again = stop.value
    np.testing.assert_array_equal(again.values, torso.values)
    fractions = [fraction for fraction, _ in said]
    assert fractions == sorted(fractions)
    assert 0.0 == fractions[0] < fractions[-1] < 1.0
    assert len({text for _, text in said}) == len(said) > 5


def test_its_bones_can_be_counted(torso: Volume) -> None:
    bones = _bones(torso)
    middle = bones.shape[2] // 2
    spine = bones[:, 80:, middle - 4 : middle + 4]
    # through the middle of the bodies, whose y differs by 16 mm: where most of the line is bone
    column = spine.any(axis=(1, 2))
    assert column.mean() > 0.95  # processes overlap
    bodies = max(_runs(bones[:, j : j + 3, middle - 2 : middle + 2].all(axis=(1, 2))) for j in range(95, 110))
    assert bodies >= 10
    # a coronal slice through the middle of the chest, in front of the scapulae, meets each rib once a side
    for side in (slice(0, 88), slice(112, 200)):
        assert 8 <= _runs(bones[:, 80, side].any(axis=1)) <= 12
    for j in (150, 20):  # there is skin, not bone, on the very outside
        assert not bones[:, j].any()


def test_left_and_right_front_and_back_differ(torso: Volume) -> None:
    values, bones = torso.values, _bones(torso)
    middle = values.shape[2] // 2
    lung = (values < -600) & (values > -950)
    assert lung[:, :, :middle].sum() > 1.02 * lung[:, :, middle:].sum()  # the heart takes of the left lung
    k = int((-30 + 160) / 2)  # the heart's height: more of it left of the middle
    inner = (values[k, 40:85] > 0) & ~bones[k, 40:85]
    assert inner[:, middle + 12 : middle + 40].sum() > 2 * inner[:, middle - 40 : middle - 12].sum()
    mirrored = bones[:, :, ::-1]
    assert (bones & mirrored).sum() < 0.8 * bones.sum()
    assert bones[:, 85:].sum() > 1.5 * bones[:, :75].sum()  # spine and scapulae are at the back


def test_bone_is_found_in_it(torso: Volume) -> None:
    model = build_bone_model(torso)
    assert model.rendered == ("full", "bone")
    found, bones = model.mask.values > 0, _bones(torso)
    assert 2 * (found & bones).sum() > 0.98 * (found.sum() + bones.sum())  # no organ is taken for bone, no rib lost
    assert 0.7e6 < found.sum() * 8.0 < 1.8e6  # mm^3


def test_spacing_changes_the_grid_and_not_the_patient(torso: Volume) -> None:
    coarse = torso_phantom(4.0)
    np.testing.assert_allclose(coarse.spacing_mm, 4.0)
    centres = [
        transform_points(ct.ras_from_ijk, np.argwhere(ct.values > -300).mean(axis=0)[::-1]) for ct in (torso, coarse)
    ]
    np.testing.assert_allclose(centres[0], centres[1], atol=2.0)  # the grid ends at other places


@pytest.mark.parametrize("spacing_mm", [0.0, 0.5, 20.0, float("nan")])
def test_an_impossible_spacing_is_refused(spacing_mm: float) -> None:
    with pytest.raises(InputError, match="allowed are 1 to 6 mm"):
        torso_phantom(spacing_mm)


def test_run_through_returns_what_the_steps_return() -> None:
    def steps():
        yield 0.0, "first"
        yield 0.5, "second"
        return 7

    assert run_through(steps()) == 7
