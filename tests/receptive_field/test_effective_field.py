"""The measured field is what the kernels say, and lies inside the exact one."""

import keras
import numpy as np
import pytest
from scipy.signal import convolve2d

from rfkeras.errors import ConfigError
from rfkeras.receptive_field import AxisField
from rfkeras.receptive_field.effective import effective_receptive_field
from rfkeras.receptive_field.effective.field import EffectiveField
from rfkeras.receptive_field.effective.gradient import LaidOver
from rfkeras.receptive_field.effective.windows import AxisMap
from tests.receptive_field.effective_models import (
    as_kernel,
    linear_model,
    noise,
    shares,
    tagger,
)
from zoo.registry import model_info


def field_of(energy):
    """An `EffectiveField` with that energy in an exact window of its size."""
    time, frequency = (AxisMap(AxisField(size), 1, size) for size in energy.shape)
    return EffectiveField(shares(energy), {}, (time, frequency), (0, 0), ((0, 0),), 1, 0, 0.0)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_energy_of_one_convolution_is_its_squared_kernel(padding):
    kernel = noise(5, 3, 2, 1)
    model = linear_model(kernel, padding=padding, channels=2)
    field = effective_receptive_field(model, noise(3, 20, 17, 2))
    np.testing.assert_allclose(field.energy, shares((kernel**2).sum((2, 3))), rtol=1e-5)
    assert (field.time.size, field.frequency.size) == (5, 3)
    assert (field.outside_share, field.clipped, field.clips) == (0.0, 0, 3)


def test_two_convolutions_give_the_square_of_their_convolution():
    first, second = noise(5, 4), noise(3, 2)
    model = linear_model(as_kernel(first), as_kernel(second), strides=((2, 3), 1))
    spread = np.zeros((2 * 3 - 1, 3 * 2 - 2))
    spread[::2, ::3] = second
    expected = shares(convolve2d(first, spread) ** 2)
    field = effective_receptive_field(model, noise(1, 40, 41, 1), positions=12)
    np.testing.assert_allclose(field.energy, expected, rtol=1e-4, atol=1e-9)
    assert len(field.positions) == 12


def test_every_position_of_a_strided_map_is_laid_on_its_own_window():
    kernel = noise(5, 5)
    model = linear_model(as_kernel(kernel), strides=((2, 3),))
    for position in ((0, 0), (3, 1), (7, 5)):
        field = effective_receptive_field(model, noise(1, 20, 20, 1), positions=[position])
        np.testing.assert_allclose(field.energy, shares(kernel**2), rtol=1e-5)
        starts = tuple(first for first, _ in field.box(position))
        assert starts == (2 * position[0], 3 * position[1])


def test_uniform_kernel_has_its_energy_in_proportion_to_the_window():
    field = effective_receptive_field(linear_model(np.ones((9, 6, 1, 1))), noise(1, 30, 30, 1))
    assert field.share_within() == pytest.approx(1)
    assert field.share_within(3) == pytest.approx(3 / 9)
    assert field.share_within(4.5, 1.5) == pytest.approx(0.5 * 0.25)
    assert field.share_within(0, 6) == 0
    assert field.window(0.5) == pytest.approx((4.5, 3.0))
    assert field.radius(0.5) == pytest.approx((2.25, 1.5))
    assert field.ratio(0.8) == pytest.approx((0.8, 0.8))
    factors, inside = field.box_curve()
    np.testing.assert_allclose(inside, factors**2, atol=1e-6)


def test_gaussian_kernel_has_the_radius_of_its_gaussian():
    at = np.arange(-40, 41)
    energy = np.exp(-(at[:, None] ** 2) / (2 * 9.0**2) - at[None, :] ** 2 / (2 * 5.0**2))
    model = linear_model(as_kernel(np.sqrt(energy)))
    field = effective_receptive_field(model, noise(1, 100, 100, 1), positions=1)
    assert field.standard_deviation == pytest.approx((9.0, 5.0), rel=1e-3)
    # 68.27 % and 95.45 % lie within one and two standard deviations.
    assert field.radius(0.6827) == pytest.approx((9.0, 5.0), rel=0.01)
    assert field.radius(0.9545) == pytest.approx((18.0, 10.0), rel=0.01)


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (15, 4)])
def test_shares_grow_from_nothing_to_all(size):
    field = field_of(np.random.default_rng(0).gamma(0.3, size=size))
    for axis in (0, 1):
        sizes, inside = field.curve(axis)
        assert (sizes[0], sizes[-1]) == (0, size[axis])
        assert (inside[0], inside[-1]) == (0, 1)
        assert (np.diff(inside) >= 0).all()
        for share in (0.05, 0.5, 0.95, 1.0):
            window = [None, None]
            window[axis] = field.window(share)[axis]
            assert field.share_within(*window) == pytest.approx(share, abs=1e-9)


def test_each_tag_has_the_field_of_its_own_kernel():
    filters = noise(3, 7, 5)
    filters[0] *= 10.0
    model = linear_model(as_kernel(*filters))
    field = effective_receptive_field(model, noise(2, 30, 30, 1), tags="all")
    assert list(field.tags) == ["0", "1", "2"]
    for tag, kernel in zip(field.tags, filters, strict=True):
        np.testing.assert_allclose(field.tags[tag], shares(kernel**2), rtol=1e-5)
        np.testing.assert_array_equal(field.for_tag(tag).energy, field.tags[tag])
    np.testing.assert_allclose(field.energy, shares((filters**2).sum(0)), rtol=1e-5)
    some = effective_receptive_field(model, noise(1, 30, 30, 1), tags=[2, "0"])
    assert list(some.tags) == ["2", "0"]
    with pytest.raises(ConfigError, match="Unknown tag '1'"):
        some.for_tag("1")


def test_random_signs_add_up_the_energies_of_all_channels():
    filters = noise(4, 3, 3)
    model = linear_model(as_kernel(*filters))
    clips = noise(400, 5, 5, 1)
    field = effective_receptive_field(model, clips, clips_at_once=100)
    # 400 clips and 9 positions, no two in a group: the cross terms fall by 1 / 60.
    np.testing.assert_allclose(field.energy, shares((filters**2).sum(0)), atol=0.02)


@pytest.mark.parametrize(
    ("rho", "options"), [(0, {"shake": True}), (7, {}), ((3, 12), {"frequency_aware": True})]
)
def test_energy_lies_inside_the_exact_field(rho, options):
    model = tagger(num_classes=2, rho=rho, width=2, **options)
    exact = model_info("resnet_rf").plan_for(rho=rho)
    size = (exact.time.size, exact.frequency.size)
    field = effective_receptive_field(model, noise(1, size[0] + 48, size[1] + 40, 1))
    assert field.energy.shape == size
    assert field.outside_share == 0.0
    assert field.clipped == 0


def test_energy_outside_of_the_windows_is_told():
    energy = np.ones((10, 10))
    axes = (AxisMap(AxisField(4), 5, 10), AxisMap(AxisField(5), 5, 10))
    laid = LaidOver(axes, ((1, 1),), 1)
    laid.add(energy, ((1, 1),), 0)
    assert (laid.inside, laid.outside) == (20.0, 80.0)
    np.testing.assert_array_equal(laid.boxes, np.ones((1, 4, 5)))


def test_nothing_is_drawn_at_random_but_the_signs():
    model = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.GaussianNoise(1.0),
            keras.layers.Conv2D(3, 3, activation="tanh"),
            keras.layers.Dropout(0.5),
        ]
    )
    clips = noise(3, 30, 30, 1)
    seen = []
    first = effective_receptive_field(
        model, clips, progress=lambda done, of: seen.append((done, of))
    )
    assert seen == [(1, 2), (2, 2)]
    again = effective_receptive_field(model, clips)
    np.testing.assert_array_equal(first.energy, again.energy)
    other = effective_receptive_field(model, clips, seed=1)
    assert not np.allclose(first.energy, other.energy, rtol=1e-3)
