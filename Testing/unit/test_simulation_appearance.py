"""Appearances: what each part does to an image of known path lengths, and that nothing depends on the batch."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.simulation.appearance import Appearance, develop, draw_appearance, draw_appearances
from XRayRegistrationLib.simulation.appearance_options import PRESETS, AppearanceOptions, preset
from XRayRegistrationLib.simulation.physics import spectrum

torch = pytest.importorskip("torch", reason="the extra torch is not installed")

CAMERA = Camera.from_spacing(64, 48, 4.0, 1000.0)
PHYSICS = Appearance(5, linear=False)


def _paths(n: int = 1) -> torch.Tensor:
    """A body on the right three quarters, 150 mm thick, with a bone bar of 20 mm across it."""
    path = torch.zeros((n, 3, 48, 64))
    path[:, 0, :, 16:] = 150.0
    path[:, 1, 20:28, 24:56] = 20.0
    return path


def _image(appearance: Appearance, path: torch.Tensor | None = None) -> np.ndarray:
    return develop(_paths() if path is None else path, [appearance], CAMERA)[0][0].numpy()


def test_clean_is_the_line_integral():
    path = _paths(3)
    image, field = develop(path, draw_appearances(0, 3, AppearanceOptions.clean()), CAMERA)
    expected = 0.0192 * path[:, 0] + 0.0515 * path[:, 1]
    torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)
    assert field.all()
    assert image.dtype == torch.float32
    torch.testing.assert_close(path, _paths(3))  # not changed


@pytest.mark.parametrize("name", PRESETS)
def test_an_image_depends_on_its_own_appearance_alone(name):
    appearances = draw_appearances(3, 12, preset(name))
    assert appearances == draw_appearances(3, 12, preset(name))
    assert appearances[:5] == draw_appearances(3, 5, preset(name))
    image, field = develop(_paths(12), appearances, CAMERA)
    again, _ = develop(_paths(4), appearances[8:], CAMERA)
    assert torch.equal(image[8:], again)
    assert torch.isfinite(image).all()
    assert (field.float().mean((1, 2)) > 0.1).all()
    if name != "clean":
        assert not torch.equal(image[0], image[1])


@pytest.mark.parametrize("name", PRESETS)
def test_an_appearance_survives_json(name):
    for n in range(40):
        appearance = draw_appearance(np.random.default_rng([1, n]), preset(name))
        assert Appearance.from_dict(json.loads(json.dumps(appearance.to_dict()))) == appearance
    with pytest.raises(InputError, match="unknown keys gama"):
        Appearance.from_dict({"seed": 1, "gama": 2.0})


def test_physics_is_the_polychromatic_sum():
    image = _image(PHYSICS)
    beam = spectrum(90)
    mu = beam.attenuation()

    def seen(*lengths: float) -> float:
        return float(-np.log((beam.weights * np.exp(-np.array(lengths) @ mu)).sum()))

    np.testing.assert_allclose(image[2, 2], 0.0, atol=1e-4)
    np.testing.assert_allclose(image[2, 40], seen(150, 0, 0), rtol=1e-4)
    np.testing.assert_allclose(image[24, 40], seen(150, 20, 0), rtol=1e-4)
    scaled = _image(replace(PHYSICS, scales=(1.1, 1.5, 1.0)))
    np.testing.assert_allclose(scaled[24, 40], seen(165, 30, 0), rtol=1e-4)


def test_noise_is_that_of_its_photons():
    path = torch.full((1, 3, 48, 64), 0.0)
    path[:, 0] = 150.0
    for photons in (100.0, 2500.0):
        image = _image(replace(PHYSICS, photons=photons), path)
        assert image.std() == pytest.approx(photons**-0.5, rel=0.08)
        electronic = _image(replace(PHYSICS, photons=photons, electronic_noise=photons**0.5), path)
        assert electronic.std() == pytest.approx((2 / photons) ** 0.5, rel=0.08)


def test_scatter_has_the_ratio_asked_for_and_takes_contrast():
    ratio = 0.8
    primary, both = np.exp(-_image(PHYSICS)), np.exp(-_image(replace(PHYSICS, scatter=(ratio, 0.1))))
    primary, both = primary / primary[2, 2], both / both[2, 2]  # the open corner is 1 in both, up to a little scatter
    behind = slice(16, None)
    added = (both - primary)[:, behind].mean() / primary[:, behind].mean()
    assert added == pytest.approx(ratio, rel=0.15)
    contrast = [np.log(light[10, 40] / light[24, 40]) for light in (primary, both)]
    assert contrast[1] < 0.75 * contrast[0]


def test_glare_lifts_the_dark_and_blur_keeps_the_mean():
    plain, veiled = _image(PHYSICS), _image(replace(PHYSICS, glare=(0.1, 0.1)))
    assert veiled[10, 20] < plain[10, 20] - 0.3  # near the open beam its light falls into the shadow
    assert veiled[10, 60] == pytest.approx(plain[10, 60], abs=0.1)
    linear = Appearance(1)
    sharp, soft = _image(linear), _image(replace(linear, blur_px=1.0))
    assert soft.mean() == pytest.approx(sharp.mean(), rel=1e-3)
    edge = soft[10, 8:24]
    assert np.interp(0.5 * 0.0192 * 150, edge, np.arange(16)) == pytest.approx(7.5, abs=0.02)
    assert np.diff(edge).max() / (0.0192 * 150) == pytest.approx(1 / np.sqrt(2 * np.pi), rel=0.05)  # sigma 1 px


def test_saturation_flattens_the_bright():
    image = _image(replace(PHYSICS, saturation=2.0))
    assert (image[:, :14] == image[0, 0]).all()
    assert np.ptp(image) < np.ptp(_image(PHYSICS))


def test_blades_close_the_field_and_it_is_filled():
    blades = ((0.0, 0.5), (np.pi, 0.5), (np.pi / 2, 0.4), (3 * np.pi / 2, 0.4))
    open_image, none = develop(_paths(), [PHYSICS], CAMERA)
    filled, field = develop(_paths(), [replace(PHYSICS, blades=blades, leak=0.002)], CAMERA)
    raw, _ = develop(_paths(), [replace(PHYSICS, blades=blades, leak=0.002, filled=False)], CAMERA)
    v, u = np.mgrid[:48, :64]
    inside = (np.abs(u - 31.5) < 15.5) & (np.abs(v - 23.5) < 12.5)
    assert none.all()
    assert (field[0].numpy() == inside).mean() > 0.98
    assert raw[0, 2, 2] - raw[0, 24, 40] > 1.2  # a blade lets hardly any light through
    assert filled.max() < open_image.max() + 0.1  # and where it was, nothing stands out
    circle, field = develop(_paths(), [replace(PHYSICS, circle=(0.0, 0.0, 0.6), leak=0.002)], CAMERA)
    assert field.float().mean() == pytest.approx(np.pi * (0.6 * 32 - 0.5) ** 2 / (48 * 64), rel=0.02)
    assert torch.isfinite(circle).all()


def test_processing_of_the_picture():
    clean = Appearance(1)
    plain = _image(clean)
    span = plain.max()
    np.testing.assert_allclose(_image(replace(clean, inverted=True)), span - plain, atol=2e-3)
    np.testing.assert_allclose(_image(replace(clean, gamma=2.0)) / span, (plain / span) ** 2, atol=1e-3)
    assert len(np.unique(_image(replace(clean, levels=256, noise=0.05)))) <= 256
    assert _image(replace(clean, noise=0.05)).std() > plain.std()
    np.testing.assert_allclose((_image(replace(clean, noise=0.05)) - plain).std(), 0.05 * span, rtol=0.05)
    window = _image(replace(clean, window=(0.1, 0.9))) / span
    np.testing.assert_allclose(window, np.clip((plain / span - 0.1) / 0.8, 0, 1), atol=1e-3)
    solar = _image(replace(clean, solarise=0.8)) / span
    np.testing.assert_allclose(solar.max(), np.minimum(plain / span, 1.6 - plain / span).max(), atol=1e-3)
    box = (0.25, 0.5, 0.25, 0.25, 0.0, 0.3)
    changed = _image(replace(clean, boxes=(box,)))
    np.testing.assert_allclose(changed[24:36, 16:32], 0.3 * span, rtol=1e-3)
    assert np.count_nonzero(changed != plain) <= 12 * 16
    speckled = _image(replace(clean, specks=0.01))
    assert 5 < np.count_nonzero(np.abs(speckled - plain) > 1e-3) < 60
    soft, sharp = (_image(replace(clean, sharpen=amount, filter_px=1.0)) for amount in (-1.0, 1.0))
    edges = [np.abs(np.diff(image, axis=1)).max() for image in (soft, plain, sharp)]
    assert edges[0] < 0.7 * edges[1]
    assert edges[2] > 1.3 * edges[1]
    ranks = _image(replace(clean, equalise=1.0)) / span
    assert ranks[24, 40] > ranks[10, 40] > ranks[10, 4]
    flat = _image(replace(clean, flatten=0.8))
    assert flat[10, 60] - flat[10, 2] < 0.6 * (plain[10, 60] - plain[10, 2])


def test_bias_tissue_lines_and_instruments():
    linear = Appearance(1)
    plain = _image(linear)
    tilted = _image(replace(linear, heel=(0.3, 0.0, 0.0, 0.0, 0.0)))
    slope = (tilted - plain)[40, 60] - (tilted - plain)[40, 4]
    assert slope == pytest.approx(0.3 * 56 / 32, rel=0.05)
    waved = _image(replace(linear, wave=(0.2, 1.0, 0.0, 0.0))) - plain
    assert np.ptp(waved[40]) == pytest.approx(0.4, rel=0.05)
    assert np.ptp(waved[:, 40]) < 1e-3
    more = _image(replace(linear, tissue=(100.0, 0.0, 0.0, 0.0, 0.0)), torch.zeros((1, 3, 48, 64)))
    assert more.max() == pytest.approx(0.0, abs=1e-5)  # the same everywhere, and the darkest is 0
    bulge = _image(replace(linear, tissue=(100.0, 0.0, 0.0, 1.0, 0.0)), torch.zeros((1, 3, 48, 64)))
    assert bulge[24, 32] == pytest.approx(1.92 * (31.5 / 32) ** 2, rel=0.01)  # over the thin edge
    lines = _image(replace(PHYSICS, bad_lines=((0, 0.1, 0.5),))) - _image(PHYSICS)
    np.testing.assert_allclose(lines[4], np.log(2.0), atol=1e-4)
    assert np.count_nonzero(np.abs(lines) > 1e-4) == 64
    metal = next(
        a for a in draw_appearances(0, 200, AppearanceOptions.realistic()) if a.instruments and a.instruments[0].kind == "rod"
    )
    image = _image(replace(PHYSICS, instruments=metal.instruments))
    assert np.count_nonzero(image - _image(PHYSICS) > 0.5) > 5


def test_what_does_not_fit_is_said():
    with pytest.raises(InputError, match=r"path_mm has the shape \(1, 3, 48, 64\); allowed is \(2, 3, 48, 64\)"):
        develop(_paths(), [PHYSICS, PHYSICS], CAMERA)
    with pytest.raises(InputError, match="p_invert is 2"):
        AppearanceOptions(p_invert=2)
    with pytest.raises(InputError, match=r"gamma is \(2.0, 1.0\)"):
        AppearanceOptions(gamma=(2.0, 1.0))
    with pytest.raises(InputError, match="collimator_shapes"):
        AppearanceOptions(collimator_shapes=("star",))
    with pytest.raises(InputError, match="appearance 'real' is unknown; allowed are randomised, realistic, clean"):
        preset("real")
