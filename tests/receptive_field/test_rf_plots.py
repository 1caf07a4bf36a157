"""The picture of a network's layers: what it draws, and that all of it can be read."""

import keras
import numpy as np
import pytest
from matplotlib import image

import zoo
from rfkeras.errors import ConfigError
from rfkeras.plot_style import BLUE, LIGHT, ORANGE
from rfkeras.receptive_field import AxisField, LayerField, ReceptiveField, receptive_field
from rfkeras.receptive_field.plots import layers_figure, plot_layers
from rfkeras.receptive_field.shown import map_layers, shown_layers
from rfkeras.receptive_field.units import scale_of_preset
from tests.evaluation.figures import has_colour, texts_overlap

SCALE = scale_of_preset("perceptual_mel_22k")


@pytest.fixture(scope="module")
def networks():
    """Receptive fields of models with front-ends, by name."""
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
    """Steps that are drawn: heights over the layers, by label."""
    axes = figure.axes[0]
    return {line.get_label(): line.get_ydata()[:-1] for line in axes.get_lines()[:2]}


def test_rows_are_the_layers_that_have_windows(networks):
    names = [row.name for row in map_layers(networks["resnet_rf"])]
    blocks = [f"stage{s}_block{b}" for s in (1, 2, 3) for b in (1, 2, 3, 4)]
    for block in ("stage1_block1", "stage1_block2", "stage1_block4"):
        blocks.insert(blocks.index(block) + 1, f"{block}_pool")
    assert names == ["stem_conv", *blocks, "classifier_conv"]
    assert [row.name for row in shown_layers(networks["resnet_rf"].layers)][-1] == "logits"


def test_layers_of_a_model_inside_stay_and_those_of_a_block_go():
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


def test_right_axis_turns_frames_into_milliseconds(networks):
    figure = layers_figure(networks["vgg_rf"])
    (right,) = figure.axes[0].child_axes
    figure.canvas.draw()
    low, high = figure.axes[0].get_ylim()
    assert right.get_ylim()[1] == pytest.approx(SCALE.ms(100) + (high - 100) * SCALE.hop_ms)
    assert right.get_ylim()[0] == pytest.approx(SCALE.ms(100) + (low - 100) * SCALE.hop_ms)


def test_network_without_limit_ends_in_a_shaded_part(networks):
    figure = layers_figure(networks["crnn"])
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba()) / 255.0
    shaded = has_colour(pixels, LIGHT)
    assert shaded > 0.1 * pixels.shape[0] * pixels.shape[1]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["without limit"]
    assert np.isnan(lines_of(figure)["time (frames)"][-1])


def test_height_of_the_spectrogram_is_marked_where_the_field_comes_near(networks):
    def marked(name):
        texts = layers_figure(networks[name]).axes[0].texts
        return "all 256 mel bands" in [text.get_text() for text in texts]

    assert marked("resnet_rf")
    assert not marked("vgg_rf")


@pytest.mark.parametrize("name", ["resnet_rf", "vgg_rf", "densenet_rf", "crnn"])
def test_everything_can_be_read(networks, name):
    figure = layers_figure(networks[name], f"{name} with a title of some length, rho (22, 5)")
    assert texts_overlap(figure) == []


def test_models_without_front_end_or_frequency_axis_have_no_such_scale():
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


def test_very_deep_networks_name_some_of_their_layers():
    rows = tuple(
        LayerField(f"conv{i}", "Conv2D", AxisField(1 + 2 * i), AxisField(3)) for i in range(200)
    )
    field = ReceptiveField(rows[-1].time, rows[-1].frequency, rows, None, SCALE)
    figure = layers_figure(field)
    names = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert names[:3] == ["conv0", "conv5", "conv10"]
    assert len(names) <= 48
    assert texts_overlap(figure) == []


def test_file_is_a_picture_with_both_lines(networks, tmp_path):
    plot_layers(tmp_path / "new" / "layers.png", networks["resnet_rf"], "resnet_rf")
    pixels = image.imread(tmp_path / "new" / "layers.png")
    assert has_colour(pixels, BLUE) > 500
    assert has_colour(pixels, ORANGE) > 100


def test_nothing_to_draw():
    inputs = keras.Input((8, 8, 1))
    field = receptive_field(keras.Model(inputs, keras.layers.ReLU()(inputs)))
    with pytest.raises(ConfigError, match="No layer of this model has windows"):
        layers_figure(field)
