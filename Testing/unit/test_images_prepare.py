"""From pixels to bone-bright line integrals: polarity, field of view, saturation, logarithm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.images.masks import field_candidates, fill_masked, saturated
from XRayRegistrationLib.images.picture_reading import read_picture
from XRayRegistrationLib.images.polarity import decide_polarity
from XRayRegistrationLib.images.prepare import HeaderHints, prepare_xray

SIZE = 300
V, U = np.mgrid[:SIZE, :SIZE].astype(np.float64)


def limb(seed: int = 0, size: int = SIZE) -> np.ndarray:
    """Line integrals of a forearm across the image: flesh with two hollow bones, air at both sides."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:size, :size] / size
    along = u - 0.5 - rng.uniform(-0.2, 0.2) * (v - 0.5)

    def chord(centre: float, radius: float) -> np.ndarray:
        return np.sqrt(np.maximum(radius**2 - (along - centre) ** 2, 0.0))

    flesh = chord(0.0, 0.3)
    bones = sum(chord(c, r) - 0.6 * chord(c, 0.6 * r) for c, r in ((-0.1, 0.07), (0.12, 0.06)))
    return 4.0 * flesh + 12.0 * bones


def counts(lines: np.ndarray, field: np.ndarray | None = None, photons: float = 5000.0, seed: int = 0) -> np.ndarray:
    """What a detector counts behind it: nearly nothing outside of ``field``."""
    light = np.exp(-lines)
    light = light if field is None else np.where(field, light, 0.002)
    return np.random.default_rng(seed).poisson(ndimage.gaussian_filter(light, 0.6) * photons).astype(np.float32)


def circle(radius: float = 140.0, u: float = 152.0, v: float = 147.0) -> np.ndarray:
    return np.hypot(U - u, V - v) <= radius


def box() -> np.ndarray:
    return (U >= 22) & (U < 270) & (V >= 15) & (V < 288)


def turned_box() -> np.ndarray:
    a = np.deg2rad(17.0)
    x, y = (U - 150) * np.cos(a) + (V - 150) * np.sin(a), (V - 150) * np.cos(a) - (U - 150) * np.sin(a)
    return (abs(x) < 110) & (abs(y) < 120)


def octagon() -> np.ndarray:
    """An iris of eight leaves, wider than high and turned."""
    a = np.deg2rad(9.0)
    x, y = (U - 152) * np.cos(a) + (V - 149) * np.sin(a), (V - 149) * np.cos(a) - (U - 152) * np.sin(a)
    return (abs(x) < 125) & (abs(y) < 100) & (abs(x + y) < 165) & (abs(x - y) < 170)


CAMERA = Camera.from_spacing(SIZE, SIZE, 1.0, 1000.0)


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


# --- field of view --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [circle, box, turned_box, octagon])
@pytest.mark.parametrize("kind", ["raw", "8 bit", "logarithm", "logarithm, 8 bit"])
def test_the_field_of_view_is_found(shape, kind):
    field = shape()
    image = counts(limb(), field)
    if "logarithm" in kind:
        image = np.clip(-np.log(np.maximum(image, 1.0) / 5000.0), 0, 4.0)
    if "8 bit" in kind:
        image = np.round(255 * image / image.max()).astype(np.float32)
    dense_end = "bright" if "logarithm" in kind else "dark"
    found = next(f for f in field_candidates(image) if f.outside == dense_end)
    assert not (found.mask & ~field).any()  # nothing from behind the blades
    assert agreement(found.mask, field) > 0.95


@pytest.mark.parametrize("scale", [1, 3])
def test_the_mask_stays_off_the_penumbra_at_any_resolution(scale):
    field = np.kron(circle(), np.ones((scale, scale))).astype(bool)
    image = np.kron(counts(limb(), circle()), np.ones((scale, scale))).astype(np.float32)
    mask = field_candidates(image)[0].mask
    gap = ndimage.distance_transform_edt(field)[mask].min() / scale
    assert 0.5 < gap < 6


def test_a_field_that_reaches_over_the_image_is_not_trimmed_at_its_edges():
    field = V > 40  # one blade
    mask = field_candidates(counts(limb(), field))[0].mask
    assert mask[60:, 0].all()
    assert mask[60:, -1].all()
    assert mask[-1].all()
    assert not mask[:40].any()


def test_an_open_image_has_no_field():
    for seed in range(4):
        image = counts(limb(seed))
        assert not [f for f in field_candidates(image) if f.outside == "dark"]
        assert prepare_xray(image, CAMERA).mask.all()


def test_air_around_a_head_is_no_shutter():
    """A convex patient on open beam: round, but it thins out towards its edge, where blades cut."""
    head = 3.5 * np.sqrt(np.maximum(1 - ((U - 150) / 95) ** 2 - ((V - 150) / 115) ** 2, 0.0))
    xray = prepare_xray(counts(head), CAMERA)
    assert xray.mask.all()
    drr = prepare_xray(head.astype(np.float32), CAMERA, polarity="bone_bright")
    assert drr.mask.all()


def test_blades_that_scatter_and_noise_brighten_are_found():
    """What blades cover is no black, and where the picture was flattened it is not even near the values' end."""
    field = octagon()
    around = 0.35 + 0.1 * np.hypot(U - 150, V - 150) / 150 + np.random.default_rng(0).normal(0, 0.02, field.shape)
    bones = 1.0 - limb() / limb().max()
    found = next(f for f in field_candidates(np.where(field, 0.55 + 0.45 * bones, around)) if f.outside == "dark")
    assert not (found.mask & ~field).any()
    assert agreement(found.mask, field) > 0.95


def test_a_painted_shutter_counts_in_either_polarity():
    display = np.round(40 + 50 * limb()).astype(np.float32)
    for polarity, image in (("bone_bright", display), ("bone_dark", 400 - display)):
        black = np.where(circle(), image, 0)
        found = field_candidates(black)
        assert found[0].painted
        xray = prepare_xray(black, CAMERA, polarity=polarity)
        assert not (xray.mask & ~circle()).any()
        assert agreement(xray.mask, circle()) > 0.95


@settings(max_examples=12)
@given(
    radius=st.floats(0.36, 0.6),
    centre=st.tuples(st.floats(0.45, 0.55), st.floats(0.45, 0.55)),
    size=st.tuples(st.integers(90, 260), st.integers(90, 260)),
    seed=st.integers(0, 100),
)
def test_any_round_field(radius, centre, size, seed):
    width, height = size
    v, u = np.mgrid[:height, :width]
    field = np.hypot(u - centre[0] * width, v - centre[1] * height) <= radius * max(size)
    if field.mean() > 0.97:  # hardly anything outside
        return
    lines = limb(seed, max(size))[:height, :width]
    image = counts(lines, field, seed=seed)
    found = [f for f in field_candidates(image) if f.outside == "dark"]
    assert found
    # a pixel's grace where the circle touches the image's edge; the margin is a larger part of a small image
    assert not (found[0].mask & ~ndimage.binary_dilation(field, np.ones((3, 3)))).any()
    assert agreement(found[0].mask, field) > 0.9


# --- saturation -----------------------------------------------------------------------------------


def test_dense_pixels_at_the_detectors_end_are_masked_and_the_open_beam_is_not():
    lines = limb()
    image = np.round(np.clip(2.0 * 255 * np.exp(-0.9 * lines) - 140, 0, 255)).astype(np.float32)
    assert (image == 0).mean() > 0.01
    assert (image == 255).mean() > 0.1
    clipped = saturated(image, np.ones(image.shape, bool), "dark")
    np.testing.assert_array_equal(clipped, image == 0)
    xray = prepare_xray(image, CAMERA, polarity="bone_dark")
    np.testing.assert_array_equal(xray.mask, image > 0)
    assert "saturated" in xray.provenance["mask"]


def test_a_single_darkest_pixel_is_not_saturation():
    image = np.round(2000 * np.exp(-limb()) + np.random.default_rng(0).normal(0, 30, (SIZE, SIZE))).astype(np.float32)
    assert not saturated(image, np.ones(image.shape, bool), "dark").any()


def test_pixels_that_noise_drove_to_the_end_stay_and_areas_that_are_clipped_do_not():
    lines = limb()
    noise = np.random.default_rng(0).normal(0.0, 12.0, lines.shape)
    dense = lines > np.percentile(lines[lines > 0], 80)
    area = dense & (V < 40)  # of the densest bone, the upper part lies beyond the detector's end and the rest just before it
    values = 255 * np.exp(-0.9 * lines) + noise
    image = np.clip(np.where(area, -100.0, np.where(dense, noise, np.maximum(values, 1.0))), 0.0, 255.0).astype(np.float32)
    scattered = (image == 0) & ~area
    assert scattered.sum() > 0.4 * (dense & ~area).sum()  # half of what is just before the end
    clipped = saturated(image, np.ones(image.shape, bool), "dark")
    assert clipped[ndimage.binary_opening(area, np.ones((3, 3)))].all()
    assert (clipped & scattered).sum() < 0.15 * scattered.sum()


# --- fill -----------------------------------------------------------------------------------------


def test_filling_keeps_what_is_valid_and_makes_no_edge():
    image = (0.02 * U + 0.01 * V).astype(np.float32)
    mask = circle(100.0)
    filled = fill_masked(np.where(mask, image, np.float32(1e6)), mask)
    np.testing.assert_array_equal(filled[mask], image[mask])
    assert filled.max() <= image[mask].max() + 1e-3
    assert filled.min() >= image[mask].min() - 1e-3
    near = ndimage.binary_dilation(mask, iterations=2) & ~mask
    assert np.abs(filled - image)[near].max() < 0.5  # of 9, over the image
    assert np.abs(np.diff(filled, axis=1)).max() < 0.3
    assert (fill_masked(image, np.zeros_like(mask)) == 0).all()


# --- polarity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_polarity_of_open_images(seed):
    lines = limb(seed)
    raw = counts(lines, seed=seed)
    assert prepare_xray(raw, CAMERA).provenance["polarity"].endswith(": bone dark, as the anatomy looks")
    for bright in (lines, -np.log(np.maximum(raw, 1)), 255 - np.round(255 * np.exp(-0.5 * lines))):
        assert prepare_xray(bright, CAMERA).provenance["polarity"].endswith(": bone bright, as the anatomy looks")


def test_behind_real_blades_it_is_certain():
    image = counts(limb(), circle())
    xray = prepare_xray(image, CAMERA)
    assert xray.alternative is None
    assert xray.provenance["polarity"].startswith("found: bone dark")
    inverse = prepare_xray(image.max() - image, CAMERA)
    assert inverse.alternative is None
    assert inverse.provenance["polarity"].startswith("found: bone bright")


def test_where_the_picture_leaves_doubt_the_other_polarity_comes_too():
    clear = prepare_xray(counts(limb()), CAMERA)
    assert clear.provenance["polarity"] == "found: bone dark, as the anatomy looks"
    assert clear.alternative is None
    grain = np.random.default_rng(0).normal(size=(SIZE, SIZE))
    doubtful = prepare_xray(grain, CAMERA)
    assert doubtful.provenance["polarity"].startswith("assumed: bone ")
    assert doubtful.alternative is not None
    words = {x.provenance["polarity"].split(",")[0] for x in (doubtful, doubtful.alternative)}
    assert words == {"assumed: bone bright", "assumed: bone dark"}


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), gain=st.floats(1e-3, 1e4), offset=st.floats(-100, 100))
def test_log_odds_turn_with_the_image_and_ignore_its_scale(seed, gain, offset):
    image = limb(seed, 120).astype(np.float64)
    odds = read_picture(image).bone_bright
    assert odds > 0
    assert read_picture(gain * (image + offset)).bone_bright == pytest.approx(odds, abs=0.3)
    assert read_picture(-image).bone_bright < 0


def test_the_header_is_asked_only_when_the_picture_leaves_it_open():
    for certain, odds in ((False, 5.0), (True, 7.0)):
        assert decide_polarity([], odds, "bone_dark") == ("bone_bright", "as the anatomy looks", certain)
        assert decide_polarity([], -odds, "bone_bright") == ("bone_dark", "as the anatomy looks", certain)
    for hint in ("bone_dark", "bone_bright"):
        for odds in (-0.5, 0.5):
            assert decide_polarity([], odds, hint) == (hint, "as the header says", False)
    assert decide_polarity([], -0.5) == ("bone_dark", "as the anatomy looks", False)


# --- line integrals -------------------------------------------------------------------------------


@pytest.mark.parametrize("open_beam", [1.0, 255.0, 60000.0])
def test_raw_intensities_become_line_integrals(open_beam):
    lines = limb()
    xray = prepare_xray(open_beam * np.exp(-lines), CAMERA, polarity="bone_dark", mask=None)
    assert xray.line_integrals.dtype == np.float32
    np.testing.assert_allclose(xray.line_integrals, lines, atol=2e-3)


def test_logarithms_stay_linear():
    lines = limb()
    xray = prepare_xray(7000 - 800 * lines, CAMERA, polarity="bone_dark", mask=None, header=HeaderHints(logarithmic=True))
    np.testing.assert_allclose(xray.line_integrals, 800 * lines, atol=2)
    bright = prepare_xray(lines + 5, CAMERA, polarity="bone_bright", mask=None)
    np.testing.assert_allclose(bright.line_integrals, lines, atol=2e-3)


def test_dead_pixels_stay_finite():
    image = 1000 * np.exp(-limb())
    image[5:8, 5:8] = 0
    image[20, 20] = -3
    xray = prepare_xray(image, CAMERA, polarity="bone_dark")
    assert np.isfinite(xray.line_integrals).all()


def test_both_polarities_of_one_picture_rank_its_pixels_alike():
    display = np.round(255 * (1 - np.exp(-0.5 * limb())))
    bright = prepare_xray(display, CAMERA, polarity="bone_bright", mask=None).line_integrals
    dark = prepare_xray(255 - display, CAMERA, polarity="bone_dark", mask=None).line_integrals
    order = np.argsort(bright, axis=None, kind="stable")
    assert (np.diff(dark.ravel()[order]) >= -1e-6).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"values": np.zeros((SIZE, SIZE))}, "same value 0"),
        ({"values": np.full((SIZE, SIZE), np.nan)}, "NaN"),
        ({"values": np.zeros((SIZE, SIZE, 3))}, "(300, 300, 3)"),
        ({"values": np.eye(30, 3000), "camera": Camera.from_spacing(3000, 30, 0.1, 1000.0)}, "at most 8 times the other"),
        ({"polarity": "dark"}, "'dark'"),
        ({"mask": "circle"}, "'circle'"),
        ({"mask": np.zeros((SIZE, SIZE), bool)}, "0.0 %"),
        ({"mask": np.ones((4, SIZE), bool)}, "300 x 4"),
        ({"camera": Camera.from_spacing(10, 20, 1.0, 1000.0)}, "10 x 20"),
        ({"mask": circle(50) & (limb() == 0), "values": np.round(limb())}, "another mask"),
    ],
)
def test_what_cannot_be_prepared(change, says):
    options = {"values": limb(), "camera": CAMERA, **change}
    with pytest.raises(InputError) as caught:
        prepare_xray(**options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
