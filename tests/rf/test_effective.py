"""The effective field: known kernels, positions, tags, and the exact field as its limit."""

import json

import keras
import numpy as np
import pytest
from scipy.signal import convolve2d

import rfkeras
import zoo
from rfkeras.errors import ConfigError
from rfkeras.frontend import create_frontend
from rfkeras.rf import AxisField
from rfkeras.rf.effective import EnergySum, effective_receptive_field
from rfkeras.rf.effective_result import EffectiveField
from rfkeras.rf.positions import AxisMap, choose_positions, disjoint_groups
from tests.helpers.effective_models import as_kernel, linear_model, noise, shares, tagger
from zoo.registry import model_info


def field_of(energy):
    """Return an `EffectiveField` with this energy in an exact window of the same size."""
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


def test_positions_of_a_strided_map_are_aligned_by_their_windows():
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
    # 68.27 % and 95.45 % are within one and two standard deviations.
    assert field.radius(0.6827) == pytest.approx((9.0, 5.0), rel=0.01)
    assert field.radius(0.9545) == pytest.approx((18.0, 10.0), rel=0.01)


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (15, 4)])
def test_shares_grow_from_0_to_1(size):
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


def test_each_tag_has_the_field_of_its_kernel():
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


def test_random_signs_sum_the_energies_of_all_channels():
    filters = noise(4, 3, 3)
    model = linear_model(as_kernel(*filters))
    clips = noise(400, 5, 5, 1)
    field = effective_receptive_field(model, clips, clips_at_once=100)
    # 400 clips and 9 positions in separate groups reduce the cross terms to 1 / 60.
    np.testing.assert_allclose(field.energy, shares((filters**2).sum(0)), atol=0.02)


@pytest.mark.parametrize(
    ("rho", "options"), [(0, {"shake": True}), (7, {}), ((3, 12), {"frequency_aware": True})]
)
def test_energy_is_inside_the_exact_field(rho, options):
    model = tagger(num_classes=2, rho=rho, width=2, **options)
    exact = model_info("resnet_rf").plan_for(rho=rho)
    size = (exact.time.size, exact.frequency.size)
    field = effective_receptive_field(model, noise(1, size[0] + 48, size[1] + 40, 1))
    assert field.energy.shape == size
    assert field.outside_share == 0.0
    assert field.clipped == 0


def test_energy_outside_the_windows_is_reported():
    energy = np.ones((10, 10))
    axes = (AxisMap(AxisField(4), 5, 10), AxisMap(AxisField(5), 5, 10))
    total = EnergySum(axes, ((1, 1),), 1)
    total.add(energy, ((1, 1),), 0)
    assert (total.inside, total.outside) == (20.0, 80.0)
    np.testing.assert_array_equal(total.boxes, np.ones((1, 4, 5)))


def test_only_the_signs_are_random():
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


CLIP = np.random.default_rng(0).normal(size=(1, 64, 64, 1)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return tagger(num_classes=2, rho=0, width=2)


def test_error_for_an_untrained_network_gives_the_reason():
    with pytest.raises(ConfigError, match='0 everywhere.*initialization="he"'):
        effective_receptive_field(
            tagger(num_classes=2, rho=0, width=2, initialization="published"), CLIP, positions=1
        )


def test_error_names_a_tag_that_ignores_its_input():
    model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(2, 1)])
    model.set_weights([np.array([[[[1.0, 0.0]]]]), np.ones(2)])
    with pytest.raises(ConfigError, match="these tags have gradient 0 everywhere.*: 1."):
        effective_receptive_field(model, CLIP, tags="all", positions=1)


def test_weights_that_are_not_finite_are_rejected():
    model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(2, 1)])
    model.set_weights([np.full((1, 1, 1, 2), np.nan), np.ones(2)])
    with pytest.raises(ConfigError, match="not finite"):
        effective_receptive_field(model, CLIP, positions=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tags": ["drums"]}, "Unknown tag 'drums'"),
        ({"tags": "drums"}, "tags must be"),
        ({"tags": [2]}, "from 0 to 1"),
        ({"tags": [-1]}, "from 0 to 1"),
        ({"tags": [1, "1"]}, "given once"),
        ({"tags": []}, "at least one tag"),
        ({"tags": [1.5]}, "from 0 to 1"),
        ({"positions": 0}, "at least 1"),
        ({"positions": True}, "at least 1"),
        ({"positions": "all"}, "at least 1"),
        ({"positions": [(0, 3)]}, r"from \(0, 0\) to \(2, 2\). Received: \(0, 3\)"),
        ({"positions": [(0, -1)]}, "on the map"),
        ({"positions": [3]}, "must be a pair"),
        ({"positions": [(0, 1, 2)]}, "must be a pair"),
        ({"positions": []}, "at least one position"),
        ({"positions": [(1, 1), (1, 1)]}, "none twice"),
        ({"clips_at_once": 0}, "clips_at_once"),
        ({"layer": "stem_cnv"}, "Unknown layer.*Did you mean 'stem_conv'"),
        ({"layer": "logits"}, "must have a map"),
        (
            {"layer": "stem_conv", "spectrogram_layer": "stem_relu"},
            "does not depend on the spectrogram only",
        ),
    ],
)
def test_arguments_that_do_not_fit(model, options, message):
    with pytest.raises(ConfigError, match=message):
        effective_receptive_field(model, CLIP, **options)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (CLIP[0], r"inputs must be an array \(clips, any, any, 1\).*Received: shape"),
        (CLIP[:0], "inputs must be an array"),
        (np.repeat(CLIP, 2, axis=-1), "inputs must be an array"),
        (CLIP * np.nan, "finite"),
        ([CLIP[0], CLIP[0][:5]], "clips of equal length"),
        (CLIP[:, :12], "12 frames and 64 bands leave no position"),
    ],
)
def test_inputs_that_do_not_fit(model, inputs, message):
    with pytest.raises(ConfigError, match=message):
        effective_receptive_field(model, inputs)


def test_models_that_cannot_be_divided():
    first, second = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    two = keras.Model([first, second], first + second)
    with pytest.raises(ConfigError, match="with 2 inputs"):
        effective_receptive_field(two, CLIP)


def test_a_nested_model_is_measured_like_the_model_itself():
    waveform = keras.Input((None,))
    inner = tagger(num_classes=2, frontend="mel_32k")
    outer = keras.Model(waveform, inner(waveform))
    clip = np.random.default_rng(0).normal(0, 0.1, (1, 32000)).astype("float32")
    one, other = (effective_receptive_field(m, clip, positions=2) for m in (inner, outer))
    np.testing.assert_array_equal(one.energy, other.energy)
    assert one.scale == other.scale
    assert one.scale is not None


@pytest.mark.parametrize("number", [1, 2, 5, 16, 1000])
def test_chosen_positions_are_inside_and_spread(number):
    axes = (AxisMap(AxisField(40, 4, -3), 30, 120), AxisMap(AxisField(23, 2, -5), 30, 64))
    positions = choose_positions(axes, number)
    assert len(set(positions)) == len(positions) <= number
    assert len(positions) >= min(number, len(axes[0].inside()) * len(axes[1].inside())) / 2
    for position in positions:
        for axis, index in zip(axes, position, strict=True):
            first, stop = axis.window(index)
            assert 0 <= first < stop <= axis.pixels
    if number == 1:
        assert abs(axes[0].centre(positions[0][0]) - 60) <= 4
        assert abs(axes[1].centre(positions[0][1]) - 32) <= 2


def test_windows_of_a_group_do_not_overlap():
    axes = (AxisMap(AxisField(40, 4, -3), 30, 120), AxisMap(AxisField(23, 2, -5), 30, 64))
    positions = choose_positions(axes, 1000)
    groups = disjoint_groups(axes, positions)
    assert sorted(sum(groups, ())) == sorted(positions)
    for group in groups:
        covered = np.zeros((120, 64), int)
        for time, band in group:
            (a, b), (c, d) = axes[0].window(time), axes[1].window(band)
            covered[a:b, c:d] += 1
        assert covered.max() == 1
    assert len(groups) < len(positions)


def test_windows_of_different_length_have_the_same_middle():
    field = AxisField(4, 1, 0, ((0, 4), (1, 3)))
    axis = AxisMap(field, 6, 10)
    assert [axis.window(index) for index in (0, 1, 2, 3)] == [(0, 4), (0, 4), (2, 6), (2, 6)]


def test_tags_by_name():
    filters = noise(2, 3, 3)
    model = linear_model(as_kernel(*filters))
    model.add(rfkeras.layers.ClipLogits(("a", "b")))
    field = effective_receptive_field(model, noise(1, 20, 20, 1), tags=["b", 0])
    assert list(field.tags) == ["b", "a"]
    np.testing.assert_allclose(field.tags["b"], shares(filters[1] ** 2), rtol=1e-5)
    with pytest.raises(ConfigError, match="Unknown tag 'B'.*Allowed: a, b"):
        effective_receptive_field(model, noise(1, 20, 20, 1), tags=["B"])


def test_map_before_any_pooling_layer():
    kernel = noise(3, 5)
    model = linear_model(as_kernel(kernel))
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(4))
    field = effective_receptive_field(model, noise(1, 20, 20, 1), positions=4)
    np.testing.assert_allclose(field.energy, shares(kernel**2), rtol=1e-5)
    assert len(field.positions) == 4


def test_convolution_over_time_only_sees_all_bands():
    model = keras.Sequential([keras.Input((None, 7)), keras.layers.Conv1D(1, 4)])
    field = effective_receptive_field(model, noise(2, 30, 7))
    kernel = model.layers[0].kernel.numpy()[..., 0]
    np.testing.assert_allclose(field.energy, shares(kernel**2), rtol=1e-5)
    assert (field.time.size, field.frequency) == (4, None)
    assert field.clipped == 0


def test_waveforms_are_measured_at_the_front_end():
    body = [keras.layers.Conv2D(2, (31, 9), activation="tanh"), rfkeras.layers.ClipLogits()]
    frontend = create_frontend("mel_32k")
    model = keras.Sequential([keras.Input((None,)), frontend, *body])
    waveforms = 0.1 * noise(3, 32000)
    field = effective_receptive_field(model, waveforms)
    without = keras.Sequential([keras.Input((None, None, 1)), *body])
    same = effective_receptive_field(without, frontend(waveforms))
    np.testing.assert_allclose(field.energy, same.energy, rtol=1e-4, atol=1e-9)
    assert same.scale is None
    assert same.span_ms(3) is None
    # 31 frames, 10 ms apart and 25 ms long
    assert field.span_ms(field.time.size) == pytest.approx(30 * 10 + 25)
    assert field.radius_ms(0.5) == pytest.approx(10 * field.radius(0.5)[0])
    measures = json.loads(json.dumps(field.to_dict()))
    assert (measures["exact_frames"], measures["exact_bands"]) == (31, 9)
    assert measures["window_95_frames"] == field.window(0.95)[0]


def test_axis_too_short_for_the_window_is_measured_at_its_middle():
    model = tagger(num_classes=2, rho=(0, 8), width=2)
    field = effective_receptive_field(model, noise(2, 64, 80, 1))
    assert (field.time.size, field.frequency.size) == (23, 167)
    assert field.energy.shape == (23, 80)
    assert len({band for _, band in field.positions}) == 1
    assert field.clipped == len(field.positions) == 2  # all that fit along time
    assert field.outside_share == 0.0
    assert abs(field.centre[1] - 40) <= 8  # half of the 16 bands between two positions
    assert field.box(field.positions[0])[1] == (0, 80)


def test_unlimited_field_is_the_whole_spectrogram():
    keras.utils.set_random_seed(0)
    model = zoo.create_model("crnn", 2, width=2, units=4, frontend=None, initialization="he")
    field = effective_receptive_field(model, noise(1, 300, 120, 1))
    assert (field.time, field.frequency) == (None, None)
    assert field.energy.shape == (300, 120)
    assert field.ratio() == (None, None)
    assert field.clipped == 0
    assert field.positions == ((1, 0),)
    assert field.centre == (round(2 * 1.5 * 300 / 4) / 2, 60.0)
    # A recurrent state depends on everything before it.
    assert field.energy[:100].sum() > 0
    with pytest.raises(ConfigError, match="unlimited along time"):
        effective_receptive_field(model, noise(1, 300, 120, 1), positions=[(0, 0), (1, 0)])


def test_windows_beyond_the_border_are_clipped_and_counted():
    kernel = noise(5, 5)
    model = linear_model(as_kernel(kernel), padding="same")
    clip = noise(1, 12, 12, 1)
    corner = effective_receptive_field(model, clip, positions=[(0, 0)])
    np.testing.assert_allclose(corner.energy, shares(kernel[2:, 2:] ** 2), rtol=1e-5)
    assert (corner.clipped, corner.offset, corner.centre) == (1, (2, 2), (0.5, 0.5))
    assert corner.box((0, 0)) == ((0, 3), (0, 3))
    assert corner.curve(0)[0][-1] == 5
    both = effective_receptive_field(model, clip, positions=[(0, 0), (6, 6)])
    expected = kernel**2
    expected[2:, 2:] *= 2
    np.testing.assert_allclose(both.energy, shares(expected), rtol=1e-5)
    assert both.clipped == 1


def test_map_of_any_layer():
    model = tagger(num_classes=2)
    clips = noise(1, 80, 80, 1)
    stem = effective_receptive_field(model, clips, layer="stem_conv", tags="all", positions=1)
    kernel = model.get_layer("stem_conv").kernel.numpy()
    np.testing.assert_allclose(stem.energy, shares((kernel**2).sum((2, 3))), rtol=1e-5)
    after = effective_receptive_field(model, clips, spectrogram_layer="stem_relu", positions=2)
    assert after.energy.shape == (14, 14)  # 31 pixels are 5 plus 13 steps of 2
    assert after.scale is None
