"""Similarities: hand-computed values, bounds, invariances, masks, and the peak at the true shift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.similarity import (
    SIMILARITIES,
    gradient_information,
    gradient_ncc,
    local_ncc,
    mutual_information,
    ncc,
    ncc_and_laplacian,
    patch_gradient_ncc,
)
from XRayRegistrationLib.similarity.masked import box_sum, gradients
from XRayRegistrationLib.similarity.patch_gradient_ncc import PatchGradientNcc, patch_radius

ALL = sorted(SIMILARITIES)
LOWER_BOUND = {
    "ncc": -1.0,
    "local_ncc": -1.0,
    "gradient_ncc": -1.0,
    "patch_gradient_ncc": -1.0,
    "gradient_information": 0.0,
    "mutual_information": 0.0,
    "ncc_and_laplacian": -1.0,
}


def texture(seed: int, shape: tuple[int, int] = (48, 56), sigma: float = 2.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    image = ndimage.gaussian_filter(noise, sigma)
    return image / image.std()


def disc(shape: tuple[int, int], radius: float) -> np.ndarray:
    v, u = np.indices(shape)
    return (v - (shape[0] - 1) / 2) ** 2 + (u - (shape[1] - 1) / 2) ** 2 <= radius**2


def test_the_registry_names_what_the_design_lists():
    listed = ["ncc", "local_ncc", "gradient_ncc", "patch_gradient_ncc", "gradient_information", "mutual_information"]
    assert sorted([*listed, "ncc_and_laplacian"]) == ALL


# --- values computed by hand or by a plain second implementation


def test_ncc_by_hand():
    # a - mean = (-1.5, -.5, .5, 1.5), b - mean = (-1, 0, -1, 2): sum ab = 4, |a|^2 = 5, |b|^2 = 6
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [1.0, 4.0]])
    assert ncc(a, b) == pytest.approx(4.0 / np.sqrt(30.0), abs=1e-14)
    # without the last pixel: (-1, 0, 1) and (-1/3, 2/3, -1/3): no correlation
    assert ncc(a, b, np.array([[True, True], [True, False]])) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("min_valid_fraction", [0.5, 1.0])
def test_local_ncc_against_windows_one_by_one(min_valid_fraction):
    a, b = texture(1, (15, 13), 1.0), texture(1, (15, 13), 1.0) + 0.7 * texture(2, (15, 13), 1.0)
    mask = np.ones((15, 13), bool)
    mask[:4, :5] = False
    mask[9, 7] = False
    radius, values = 2, []
    for v in range(15):
        for u in range(13):
            window = np.s_[max(v - radius, 0) : v + radius + 1, max(u - radius, 0) : u + radius + 1]
            valid = mask[window]
            if mask[v, u] and valid.sum() >= min_valid_fraction * 25:
                x, y = a[window][valid], b[window][valid]
                values.append(((x - x.mean()) * (y - y.mean())).mean() / (x.std() * y.std()))
    expected = np.mean(values)
    got = local_ncc(a, b, mask, radius=2, min_valid_fraction=min_valid_fraction, variance_floor=0.0)
    assert got == pytest.approx(expected, abs=1e-9)


def test_gradient_ncc_by_hand():
    # Sobel of a plane is constant, so bend it: f = u^2 has column derivative 2u and no row derivative
    v, u = np.indices((9, 11)).astype(float)
    # columns: the derivatives 2u and 2u correlate fully; rows: 0 for the first image, hence 0
    assert gradient_ncc(u**2, u**2 + v**2) == pytest.approx(0.5, abs=1e-12)
    assert gradient_ncc(u**2 + v**2, u**2 - v**2) == pytest.approx(0.0, abs=1e-12)
    assert gradient_ncc(u**2 - v**2, v**2 - u**2) == pytest.approx(-1.0, abs=1e-12)


def test_sobel_gradients_are_per_pixel():
    v, u = np.indices((7, 8)).astype(float)
    gx, gy, inner = gradients(3.0 * u - 2.0 * v, np.ones((7, 8), bool))
    assert inner.sum() == 5 * 6
    np.testing.assert_allclose(gx[inner], 3.0, atol=1e-12)
    np.testing.assert_allclose(gy[inner], -2.0, atol=1e-12)


def test_patch_gradient_ncc_against_patches_one_by_one():
    a, b = texture(3, (20, 22), 1.0), texture(3, (20, 22), 1.0) + 0.5 * texture(4, (20, 22), 1.0)
    kernel = np.exp(-0.5 * (np.arange(-2, 3) / 1.1) ** 2)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    sobel = np.outer([1, 2, 1], [-1, 0, 1]) / 8.0
    halves, radius = [], 2
    for k in (sobel, sobel.T):
        # pixels whose kernels stay inside the image: 3 from the border
        ga, gb = (ndimage.correlate(ndimage.correlate(x, kernel), k)[3:-3, 3:-3] for x in (a, b))
        values = []
        for v in range(radius, ga.shape[0] - radius):
            for u in range(radius, ga.shape[1] - radius):
                window = np.s_[v - radius : v + radius + 1, u - radius : u + radius + 1]
                values.append(np.corrcoef(ga[window].ravel(), gb[window].ravel())[0, 1])
        halves.append(np.mean(values))
    got = patch_gradient_ncc(a, b, radius=2, min_valid_fraction=1.0, variance_floor=0.0)
    assert got == pytest.approx(np.mean(halves), abs=1e-9)


@pytest.mark.parametrize("sigma", [0.0, 1.1])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_patch_gradient_ncc_without_numba_is_the_same(monkeypatch, sigma, fraction):
    pytest.importorskip("numba")
    random = np.random.default_rng(5)
    fixed, mask = random.normal(size=(40, 52)), np.ones((40, 52), bool)
    mask[:, :9], mask[20:24, 30:40] = False, False
    images = np.concatenate([random.normal(size=(4, 40, 52)), np.ones((1, 40, 52)), fixed[None]]).astype(np.float32)
    images[0, ~mask] = np.nan
    images[1, :, 26:] = 2.0  # flat in half of it
    inside, weights = np.where(mask, fixed, 0.0), random.random((40, 52))
    settings = {"radius": 3, "weights": weights, "smoothing_sigma_px": sigma, "min_valid_fraction": fraction}
    compiled = PatchGradientNcc(inside, mask, **settings)(images)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    plain = PatchGradientNcc(inside, mask, **settings)(images)
    np.testing.assert_allclose(compiled, plain, atol=1e-9)
    assert compiled[4] == 0.0
    assert compiled[5] == pytest.approx(1.0, abs=1e-3)


def test_patch_gradient_ncc_of_many_images_at_once():
    fixed, mask = texture(40), disc((48, 56), 20)
    images = np.stack([texture(40) + texture(n) for n in range(41, 44)])
    to = PatchGradientNcc(np.where(mask, fixed, 0.0), mask, radius=3)
    one_by_one = [patch_gradient_ncc(image, fixed, mask, radius=3) for image in images]
    np.testing.assert_allclose(to(images), one_by_one, rtol=0, atol=1e-12)
    assert np.ptp(one_by_one) > 0.01


def test_ncc_and_laplacian_by_hand():
    a, b = texture(45), texture(46)
    kernel = np.array([[2, 4, 4, 4, 2], [4, 0, -8, 0, 4], [4, -8, -24, -8, 4], [4, 0, -8, 0, 4], [2, 4, 4, 4, 2]])
    inner = (slice(3, -3), slice(3, -3))
    la, lb = (ndimage.convolve(image, kernel)[inner].ravel() for image in (a, b))
    cosine = la @ lb / np.sqrt((la @ la) * (lb @ lb))
    assert ncc_and_laplacian(a, b) == pytest.approx((2 * np.corrcoef(a.ravel(), b.ravel())[0, 1] + cosine) / 3, abs=1e-9)


def test_patch_radii_of_the_sheet():
    assert [patch_radius(ds) for ds in (0.03125, 0.125, 0.25)] == [1, 5, 10]


def test_patch_weights_choose_the_patches():
    a, b = texture(5), texture(5)
    b[:, 28:] = texture(6)[:, 28:]
    left = np.zeros(a.shape)
    left[:, :20] = 1.0
    assert patch_gradient_ncc(a, b, weights=left, variance_floor=0.0) == pytest.approx(1.0, abs=1e-9)
    assert patch_gradient_ncc(a, b, weights=1.0 - left) < 0.6
    with pytest.raises(InputError, match="weights"):
        patch_gradient_ncc(a, b, weights=np.zeros(a.shape))
    with pytest.raises(InputError, match="one weight a pixel"):
        patch_gradient_ncc(a, b, weights=left[1:])


def test_gradient_information_by_hand():
    v, u = np.indices((9, 9)).astype(float)
    # gradients everywhere: moving (1, 0), fixed (2, 2): cos^2 = 1/2, min(1, sqrt 8) = 1, GI(fixed) = sqrt 8
    plain = gradient_information(u, 2 * u + 2 * v, match_gain=False)
    assert plain == pytest.approx(0.5 / np.sqrt(8.0), abs=1e-12)
    # with matched gains the lengths are equal and only the angle is left
    assert gradient_information(u, 2 * u + 2 * v) == pytest.approx(0.5, abs=1e-12)
    assert gradient_information(u, v) == pytest.approx(0.0, abs=1e-12)
    assert gradient_information(u, -3 * u) == pytest.approx(1.0, abs=1e-12)


def test_gradient_information_ignores_what_only_the_moving_image_has():
    fixed = np.where(disc((64, 64), 12), 1.0, 0.0)
    tool = fixed.copy()
    tool[2:6, 4:60] += 1.0
    assert gradient_information(tool, fixed, match_gain=False) == pytest.approx(1.0, abs=1e-12)


def test_mutual_information_by_hand():
    # two levels each; joint counts 3, 1, 1, 3 of 8: marginals are 1/2
    a = np.array([[0, 0, 0, 0], [1, 1, 1, 1]], float)
    b = np.array([[0, 0, 0, 1], [1, 1, 1, 0]], float)
    joint = np.array([3, 1, 1, 3]) / 8
    expected = 2 * np.log(2) + (joint * np.log(joint)).sum()
    assert mutual_information(a, b, bins=2, normalised=False) == pytest.approx(expected, abs=1e-14)
    assert mutual_information(a, b, bins=2) == pytest.approx(expected / np.log(2), abs=1e-14)
    # any one-to-one map of the levels keeps all of the information
    c = np.arange(16.0).reshape(4, 4)
    shuffled = np.random.default_rng(0).permutation(16)[c.astype(int)].astype(float)
    assert mutual_information(c, shuffled, bins=16) == pytest.approx(1.0, abs=1e-12)


def test_box_sums_against_slices():
    image = texture(7, (9, 8))
    for radius in (1, 3, 10):
        expected = [
            [image[max(v - radius, 0) : v + radius + 1, max(u - radius, 0) : u + radius + 1].sum() for u in range(8)]
            for v in range(9)
        ]
        np.testing.assert_allclose(box_sum(image, radius), expected, atol=1e-12)


# --- properties that hold for all


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), junk=st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -7.0]))
def test_a_masked_pixel_has_no_influence(name, seed, junk):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 32, 30))
    b += a
    mask = ndimage.gaussian_filter(rng.normal(size=a.shape), 3.0) > -0.1
    mask[6:26, 5:25] = True  # so that something is left for windows and gradients
    similarity = SIMILARITIES[name]
    expected = similarity(a, b, mask)
    for image in (a, b):
        image[~mask] = np.where(rng.random((~mask).sum()) < 0.5, junk, rng.normal(size=(~mask).sum()) * 1e3)
    assert similarity(a, b, mask) == expected


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    mix=st.floats(-1, 1),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    outlier=st.booleans(),
)
def test_bounds(name, seed, mix, scale, outlier):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(20, 24))
    b = scale * (mix * a + (1 - abs(mix)) * rng.normal(size=a.shape))
    if outlier:
        b[10, 10] = 1e4 * scale
    value = SIMILARITIES[name](a, b)
    assert LOWER_BOUND[name] <= value <= 1.0


@pytest.mark.parametrize("name", ALL)
def test_an_image_is_most_similar_to_itself(name):
    a = texture(8)
    value = SIMILARITIES[name](a, a)
    assert value == pytest.approx(1.0, abs=1e-3)  # the variance floor of local windows costs a little
    for other in range(9, 14):
        assert SIMILARITIES[name](a, texture(other)) < 0.6 * value


@pytest.mark.parametrize("name", ALL)
def test_gain_and_offset_do_not_matter(name):
    # powers of two and float32 values: no rounding, so that no grey value changes its bin
    a = np.round(texture(14) * 256) / 256
    b = np.round((texture(14) + texture(15)) * 256) / 256
    mask = disc(a.shape, 20)
    similarity = SIMILARITIES[name]
    expected = similarity(a, b, mask)
    assert 0.05 < expected < 0.95
    assert similarity(8.0 * a + 4.0, b, mask) == pytest.approx(expected, abs=1e-10)
    assert similarity(a, 0.25 * b - 16.0, mask) == pytest.approx(expected, abs=1e-10)
    flipped = similarity(a, -b, mask)
    if LOWER_BOUND[name] < 0:
        assert flipped == pytest.approx(-expected, abs=1e-10)
    elif name == "gradient_information":
        assert flipped == pytest.approx(expected, abs=1e-10)


def test_gain_matters_where_it_is_said_to():
    a = texture(16)
    assert gradient_information(0.25 * a, a, match_gain=False) == pytest.approx(0.25, abs=1e-9)
    assert gradient_information(0.25 * a, a) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [0.0, 0.1, -3e5])
def test_a_constant_image_gives_zero(name, value):
    constant, image = np.full((48, 56), value), texture(17)
    mask = disc(image.shape, 20)
    for m in (None, mask):
        assert SIMILARITIES[name](constant, image, m) == 0.0
        assert SIMILARITIES[name](image, constant, m) == 0.0
        assert SIMILARITIES[name](constant.astype(np.float32), constant, m) == 0.0


@pytest.mark.parametrize("name", ["gradient_ncc", "patch_gradient_ncc", "gradient_information"])
def test_the_edge_of_the_mask_makes_no_gradient(name):
    # a bright field inside a dark collimator, the same mask for both, but different contents: with
    # the collimator's edge in, the images would look alike
    field = disc((64, 64), 24)
    a, b = (np.where(field, 50.0 + texture(s, (64, 64)), 0.0) for s in (18, 19))
    unmasked, masked = SIMILARITIES[name](a, b), SIMILARITIES[name](a, b, field)
    same = SIMILARITIES[name](50.0 + texture(18, (64, 64)), 50.0 + texture(19, (64, 64)), field)
    assert masked == pytest.approx(same, abs=1e-12)
    assert abs(masked) < 0.5
    assert unmasked > masked + 0.15


@pytest.mark.parametrize("name", ALL)
def test_the_maximum_is_at_the_true_shift(name):
    scene = texture(20, (90, 90), 2.0)
    fixed = scene[15:75, 15:75]
    mask = disc(fixed.shape, 28)
    rng = np.random.default_rng(21)
    noisy = 3.0 * fixed + 0.3 * rng.normal(size=fixed.shape)
    noisy[~mask] = 1e3
    shifts = range(-4, 5)
    values = {
        (dv, du): SIMILARITIES[name](scene[15 + dv : 75 + dv, 15 + du : 75 + du], noisy, mask)
        for dv in shifts
        for du in shifts
    }
    assert max(values, key=values.__getitem__) == (0, 0)
    row = [values[0, du] for du in shifts]
    assert all(np.diff(row[:5]) > 0), "falls off steadily to the left"
    assert all(np.diff(row[4:]) < 0), "and to the right"


def test_a_linear_filter_that_bends_the_background_hurts_global_ncc_more():
    a = texture(22)
    v, u = np.indices(a.shape)
    bent = a + 0.01 * ((u - 20) ** 2 + (v - 20) ** 2)
    assert local_ncc(a, bent, radius=4) > ncc(a, bent) + 0.2


# --- bad input


@pytest.mark.parametrize("name", ALL)
def test_bad_input_says_what_is_wrong(name):
    similarity = SIMILARITIES[name]
    a = texture(23)
    with pytest.raises(InputError, match=r"moving is \(48, 55\) and fixed \(48, 56\)"):
        similarity(a[:, 1:], a)
    with pytest.raises(InputError, match="one shape"):
        similarity(a[None], a[None])
    with pytest.raises(InputError, match="the mask is"):
        similarity(a, a, np.ones((3, 3), bool))
    with pytest.raises(InputError, match="no valid pixel"):
        similarity(a, a, np.zeros(a.shape, bool))
    hole = a.copy()
    hole[3, 4] = np.nan
    with pytest.raises(InputError, match="moving image has NaN"):
        similarity(hole, a)
    with pytest.raises(InputError, match="fixed image has NaN"):
        similarity(a, hole)


def test_bad_options_say_what_is_allowed():
    a = texture(24)
    with pytest.raises(InputError, match="window radius is 0"):
        local_ncc(a, a, radius=0)
    with pytest.raises(InputError, match="min_valid_fraction is 0"):
        local_ncc(a, a, min_valid_fraction=0.0)
    with pytest.raises(InputError, match="variance_floor is -1"):
        local_ncc(a, a, variance_floor=-1.0)
    with pytest.raises(InputError, match="13x13 px window"):
        local_ncc(a[:8, :8], a[:8, :8], min_valid_fraction=1.0)
    with pytest.raises(InputError, match="23x23 px patch"):
        patch_gradient_ncc(a[:20, :20], a[:20, :20], radius=11, min_valid_fraction=1.0)
    with pytest.raises(InputError, match="bins is 1"):
        mutual_information(a, a, bins=1)
    mask = np.zeros(a.shape, bool)
    mask[10:12, :] = True
    with pytest.raises(InputError, match="no image gradient"):
        gradient_ncc(a, a, mask)
