"""Plots of receptive fields: contents, legible text, files."""

import keras
import numpy as np
import pytest
from matplotlib import image
from matplotlib.image import imread
from matplotlib.patches import Rectangle

import zoo
from rfkeras.errors import ConfigError
from rfkeras.frontend.presets import scale_of_preset
from rfkeras.rf import AxisField, LayerField, ReceptiveField, receptive_field
from rfkeras.rf.effective_result import EffectiveField
from rfkeras.rf.field import map_layers, shown_layers
from rfkeras.rf.plots import (
    effective_figure,
    layers_figure,
    plot_effective,
    plot_layers,
    plot_tags,
    tags_figure,
)
from rfkeras.rf.positions import AxisMap
from rfkeras.utils.plotting import BLUE, LIGHT, ORANGE
from tests.helpers.plots import has_colour, texts_overlap

SCALE = scale_of_preset("perceptual_mel_22k")


@pytest.fixture(scope="module")
def networks():
    """Return receptive fields of models with front-ends, by name."""
    options = {
        "resnet_rf": {"rho": (22, 5), "shake": True},
        "vgg_rf": {},
        "densenet_rf": {"rho": 1},
        "crnn": {"units": 2},
    }
    return {
        name: receptive_field(zoo.create_model(name, 2, width=2, **given))
        for name, given in options.items()
    }


def lines_of(figure):
    """Return the drawn steps: heights by layer, by label."""
    axes = figure.axes[0]
    return {line.get_label(): line.get_ydata()[:-1] for line in axes.get_lines()[:2]}


def test_rows_are_the_layers_that_have_windows(networks):
    names = [row.name for row in map_layers(networks["resnet_rf"])]
    blocks = [f"stage{s}_block{b}" for s in (1, 2, 3) for b in (1, 2, 3, 4)]
    for block in ("stage1_block1", "stage1_block2", "stage1_block4"):
        blocks.insert(blocks.index(block) + 1, f"{block}_pool")
    assert names == ["stem_conv", *blocks, "classifier_conv"]
    assert [row.name for row in shown_layers(networks["resnet_rf"].layers)][-1] == "logits"


def test_layers_of_a_nested_model_are_shown_and_parts_of_a_block_are_not():
    def row(name, kind, size):
        return LayerField(name, kind, AxisField(size), AxisField(size))

    rows = [
        row("input", "InputLayer", 1),
        row("body/conv", "Conv2D", 3),
        row("body/relu", "ReLU", 3),
        row("body/block/conv", "Conv2D", 5),
        row("body/block", "ResidualBlock", 5),
        row("body/own", "MyLayer", 9),
        row("body", "Functional", 9),
    ]
    assert [r.name for r in shown_layers(rows)] == ["body/conv", "body/block", "body/own"]


def test_steps_are_the_sizes_of_the_layers(networks):
    field = networks["resnet_rf"]
    rows = map_layers(field)
    lines = lines_of(layers_figure(field))
    assert list(lines) == ["time (frames)", "frequency (mel bands)"]
    np.testing.assert_array_equal(lines["time (frames)"], [row.time.size for row in rows])
    np.testing.assert_array_equal(
        lines["frequency (mel bands)"], [row.frequency.size for row in rows]
    )
    assert lines["time (frames)"][-1] == 615
    assert lines["frequency (mel bands)"][-1] == 87


def test_right_axis_shows_milliseconds(networks):
    figure = layers_figure(networks["vgg_rf"])
    (right,) = figure.axes[0].child_axes
    figure.canvas.draw()
    low, high = figure.axes[0].get_ylim()
    assert right.get_ylim()[1] == pytest.approx(SCALE.ms(100) + (high - 100) * SCALE.hop_ms)
    assert right.get_ylim()[0] == pytest.approx(SCALE.ms(100) + (low - 100) * SCALE.hop_ms)


def test_unlimited_layers_are_shaded(networks):
    figure = layers_figure(networks["crnn"])
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba()) / 255.0
    shaded = has_colour(pixels, LIGHT)
    assert shaded > 0.1 * pixels.shape[0] * pixels.shape[1]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["unlimited"]
    assert np.isnan(lines_of(figure)["time (frames)"][-1])


def test_height_of_the_spectrogram_is_marked_if_the_field_is_near(networks):
    def marked(name):
        texts = layers_figure(networks[name]).axes[0].texts
        return "all 256 mel bands" in [text.get_text() for text in texts]

    assert marked("resnet_rf")
    assert not marked("vgg_rf")


@pytest.mark.parametrize("name", ["resnet_rf", "vgg_rf", "densenet_rf", "crnn"])
def test_all_text_is_legible(networks, name):
    figure = layers_figure(networks[name], f"{name} with a title of some length, rho (22, 5)")
    assert texts_overlap(figure) == []


def test_no_scale_in_ms_without_front_end_and_no_frequency_without_axis():
    inputs = keras.Input((None, 3))
    x = keras.layers.Conv1D(2, 5, name="first_$of_many$")(inputs)
    model = keras.Model(inputs, keras.layers.Conv1D(2, 3, strides=2, name="second" * 12)(x))
    figure = layers_figure(receptive_field(model), "two layers")
    assert list(lines_of(figure)) == ["time (pixels)"]
    np.testing.assert_array_equal(lines_of(figure)["time (pixels)"], [5, 7])
    assert figure.axes[0].child_axes == []
    names = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert names[0] == "first_$of_many$"
    assert len(names[1]) == 40
    assert names[1].startswith("...")
    assert texts_overlap(figure) == []


def test_very_deep_networks_label_only_some_layers():
    rows = tuple(
        LayerField(f"conv{i}", "Conv2D", AxisField(1 + 2 * i), AxisField(3)) for i in range(200)
    )
    field = ReceptiveField(rows[-1].time, rows[-1].frequency, rows, None, SCALE)
    figure = layers_figure(field)
    names = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert names[:3] == ["conv0", "conv5", "conv10"]
    assert len(names) <= 48
    assert texts_overlap(figure) == []


def test_file_contains_both_lines(networks, tmp_path):
    plot_layers(tmp_path / "new" / "layers.png", networks["resnet_rf"], "resnet_rf")
    pixels = image.imread(tmp_path / "new" / "layers.png")
    assert has_colour(pixels, BLUE) > 500
    assert has_colour(pixels, ORANGE) > 100


def test_nothing_to_draw():
    inputs = keras.Input((8, 8, 1))
    field = receptive_field(keras.Model(inputs, keras.layers.ReLU()(inputs)))
    with pytest.raises(ConfigError, match="No layer of this model has windows"):
        layers_figure(field)


FRAMES, BANDS = 431, 256
SPECTROGRAM = np.random.default_rng(0).normal(size=(FRAMES, BANDS))


def bell(size, centre, deviation):
    """Return Gaussian energy of a size (time, frequency) around a centre."""
    time, band = (np.arange(n) + 0.5 - middle for n, middle in zip(size, centre, strict=True))
    energy = np.exp(-(time[:, None] ** 2 + band**2) / (2 * deviation**2))
    return energy / energy.sum()


def example(size=(135, 135), deviation=12.0, tags=(), scale=SCALE):
    """Return a field with windows of this size; None in the size: unlimited."""
    fields = [None if n is None else AxisField(n, 16, 8 - n // 2) for n in size]
    axes = (AxisMap(fields[0], 26, FRAMES), AxisMap(fields[1], 15, BANDS))
    position = (axes[0].middle, axes[1].middle)
    seen = [axis.seen([index]) for axis, index in zip(axes, position, strict=True)]
    box = [stop - first for first, stop in seen]
    centre = [
        axis.centre(index) - axis.window(index)[0] - first
        for axis, index, (first, _) in zip(axes, position, seen, strict=True)
    ]
    return EffectiveField(
        energy=bell(box, centre, deviation),
        tags={tag: bell(box, centre, deviation * (1 + n / 50)) for n, tag in enumerate(tags)},
        axes=axes,
        offset=(seen[0][0], seen[1][0]),
        positions=(position,),
        clips=3,
        clipped=0,
        outside_share=0.0,
        scale=scale,
    )


def rectangles(axes):
    """Return (first frame, stop, first band, stop) of the drawn rectangles, in pixels."""
    drawn = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    edges = [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in drawn]
    return [(x + 0.5, x + 0.5 + w, y + 0.5, y + 0.5 + h) for x, y, w, h in edges]


def test_windows_and_energy_are_at_the_position():
    field = example()
    position = (9, 5)
    axes = effective_figure(field, SPECTROGRAM, position, "title").axes[0]
    exact, outer, inner = rectangles(axes)
    assert exact == (85, 85 + 135, 21, 21 + 135)
    for drawn, share in ((outer, 0.95), (inner, 0.5)):
        first, stop, low, high = drawn
        assert (first + stop) / 2 == pytest.approx(85 + 67.5)
        assert (stop - first, high - low) == pytest.approx(field.window(share))
    energy = axes.images[1]
    assert energy.get_extent() == [84.5, 219.5, 20.5, 155.5]
    opacity = energy.get_array()[..., 3]
    np.testing.assert_allclose(opacity, np.sqrt(field.energy.T / field.energy.max()))


def test_ticks_are_at_their_seconds_and_hz():
    axes = effective_figure(example(), SPECTROGRAM, None, "title").axes[0]
    seconds = dict(zip(axes.get_xticks(), axes.get_xticklabels(), strict=True))
    for at, text in seconds.items():
        assert SCALE.time_s(at) == pytest.approx(float(text.get_text()))
    assert [text.get_text() for text in seconds.values()][:3] == ["0", "1", "2"]
    bands = dict(zip(axes.get_yticks(), axes.get_yticklabels(), strict=True))
    for at, text in bands.items():
        assert SCALE.band_centre_hz(at) == pytest.approx(
            float(text.get_text().replace(",", ""))
        )
    assert {"500", "1,000", "5,000"} <= {text.get_text() for text in bands.values()}
    assert min(np.abs(np.diff(list(bands)))) > BANDS / 30


def test_curves_show_the_share_in_every_window():
    field = example()
    time, frequency = effective_figure(field, SPECTROGRAM, None, "title").axes[2:]
    even, curve = time.lines[:2]
    sizes, shares = field.curve(0)
    np.testing.assert_allclose(curve.get_xdata(), [field.span_ms(n) for n in sizes[1:]])
    np.testing.assert_array_equal(curve.get_ydata(), shares[1:])
    assert curve.get_xdata()[-1] == pytest.approx(SCALE.ms(135))
    assert even.get_ydata()[-1] == 1
    np.testing.assert_array_equal(frequency.lines[1].get_xdata(), field.curve(1)[0][1:])
    texts = [text.get_text() for text in time.texts]
    assert texts[0] == "exact: 135 frames, 3,204 ms"
    # 95 % of a Gaussian are within 1.96 standard deviations of 12.
    assert texts[1].startswith("95 %: 47 frames")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": (23, 23), "deviation": 4.0},
        {"size": (615, 615), "deviation": 40.0},
        {"size": (None, None), "deviation": 300.0},
        {"scale": None},
    ],
)
def test_no_text_overlaps_another_or_leaves_the_figure(options):
    assert texts_overlap(effective_figure(example(**options), SPECTROGRAM, None, "A")) == []


def test_files_contain_the_pictures(tmp_path):
    field = example(tags=("a",))
    plot_effective(tmp_path / "field.png", field, SPECTROGRAM)
    image = imread(tmp_path / "field.png")
    assert image.shape[:2] == (750, 1650)
    assert has_colour(image, BLUE) > 500
    assert has_colour(image, ORANGE) > 500
    plot_tags(tmp_path / "tags.png", field)
    assert has_colour(imread(tmp_path / "tags.png"), ORANGE) > 50


@pytest.mark.parametrize("number", [1, 3, 56])
def test_tags_are_sorted_by_their_windows(number):
    tags = [f"mood_{tag}$x$" for tag in range(number)]
    field = example(tags=tags)
    figure = tags_figure(field)
    assert texts_overlap(figure) == []
    time, frequency = figure.axes
    shown = [text.get_text() for text in time.get_yticklabels()]
    assert shown == tags[::-1]  # the widest first
    for row, tag in enumerate(shown):
        half, most = field.for_tag(tag).window(0.5)[1], field.for_tag(tag).window(0.95)[1]
        assert list(frequency.lines[3 * row].get_xdata()) == [half, most]
        assert time.lines[3 * row].get_xdata()[1] == pytest.approx(
            field.span_ms(field.for_tag(tag).window(0.95)[0])
        )


def test_invalid_arguments():
    with pytest.raises(ConfigError, match="431 frames and 256 bands"):
        effective_figure(example(), SPECTROGRAM[:-1], None, "title")
    with pytest.raises(ConfigError, match="26 by 15 positions"):
        effective_figure(example(), SPECTROGRAM, (26, 0), "title")
    with pytest.raises(ConfigError, match="not measured per tag"):
        tags_figure(example())
