"""Arguments and inputs of layers: what Keras accepts works, or an error names what is wrong."""

import keras
import numpy as np
import pytest

import zoo
from rfkeras.errors import ConfigError
from rfkeras.layers import (
    ClipLogits,
    DampedConv2D,
    DecomposedConv2D,
    DenseLayer,
    FrequencyChannel,
    Mixup,
    RandomGain,
    RandomTimeRoll,
    ResidualBlock,
    SpecAugment,
    make_conv,
)
from tests.helpers.configurations import combined_configurations, configurations, few_layers

MAP = np.random.default_rng(0).normal(size=(2, 8, 6, 4)).astype("float32")


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("name", combined_configurations())
def test_models_do_not_depend_on_keras_data_format(name):
    configs, outputs = [], []
    x = np.random.default_rng(0).normal(0, 0.1, (1, 20_000)).astype("float32")
    for data_format in ("channels_last", "channels_first"):
        keras.config.set_image_data_format(data_format)
        keras.utils.clear_session()  # names start again
        try:
            keras.utils.set_random_seed(0)
            with few_layers(name) as few:
                options = {**configurations()[name], **few, "initialization": "he"}
                model = zoo.create_model(name, num_classes=3, **options)
            configs.append(model.get_config())
            outputs.append(model(x))
        finally:
            keras.config.set_image_data_format("channels_last")
    assert configs[0] == configs[1]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.usefixtures("channels_first")
@pytest.mark.parametrize(
    "make",
    [
        lambda: ResidualBlock(8, decomposition=2, damping=0.1),
        lambda: DenseLayer(4),
        lambda: DecomposedConv2D(8, 3),
        lambda: DampedConv2D(8, 3, padding="same"),
        lambda: make_conv(8, 3),
    ],
)
def test_layers_keep_channels_last(make):
    assert make()(MAP).shape[:3] == (2, 8, 6)


def test_damped_convolution_refuses_channels_first():
    with pytest.raises(ConfigError, match="DampedConv2D: data_format.*'channels_first'"):
        DampedConv2D(8, 3, data_format="channels_first")
    assert DampedConv2D(8, 3, data_format="channels_last")(MAP).shape == (2, 6, 4, 8)


@pytest.mark.parametrize(
    ("given", "same"),
    [
        (3, ((3, 3), (3, 3))),
        ((3, 1), ((3, 1), (3, 1))),
        ([1, 5], ((1, 5), (1, 5))),
        ((3, (1, 3)), ((3, 3), (1, 3))),
        ([[3, 3], [1, 1]], ((3, 3), (1, 1))),
    ],
)
def test_kernels_of_a_residual_block(given, same):
    assert ResidualBlock(8, kernel_size=given).kernel_size == same
    config = ResidualBlock(8, kernel_size=same, name="block").get_config()
    assert ResidualBlock(8, kernel_size=given, name="block").get_config() == config


@pytest.mark.parametrize("make", [DenseLayer, DecomposedConv2D, make_conv, DampedConv2D])
def test_one_number_is_a_square_kernel(make):
    assert tuple(make(4, 3).kernel_size) == (3, 3)
    assert tuple(make(4, (3, 1)).kernel_size) == (3, 1)


WRONG = {
    "no pair": lambda: ResidualBlock(8, kernel_size=(3,)),
    "three": lambda: ResidualBlock(8, kernel_size=(3, 3, 3)),
    "three pairs": lambda: ResidualBlock(8, kernel_size=((3, 3), (3, 3), (3, 3))),
    "even": lambda: ResidualBlock(8, kernel_size=4),
    "even pair": lambda: ResidualBlock(8, kernel_size=((3, 2), (3, 3))),
    "float": lambda: ResidualBlock(8, kernel_size=3.0),
    "text": lambda: ResidualBlock(8, kernel_size="33"),
    "bool": lambda: ResidualBlock(8, kernel_size=True),
    "zero": lambda: ResidualBlock(8, kernel_size=0),
    "none": lambda: ResidualBlock(8, kernel_size=None),
    "dense float": lambda: DenseLayer(8, kernel_size=(3.0, 3)),
    "dense even": lambda: DenseLayer(8, kernel_size=2),
    "decomposed": lambda: DecomposedConv2D(8, (3,)),
    "decomposed negative": lambda: DecomposedConv2D(8, -3),
    "make_conv": lambda: make_conv(8, (3, 3, 3), damping=0.1),
}


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_wrong_kernels(make):
    with pytest.raises(ConfigError, match=r"^\w+: kernel_size must .*Received: "):
        make()


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", None, True])
@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda v: ResidualBlock(v), "ResidualBlock: filters"),
        (lambda v: ResidualBlock(8, depth=v), "ResidualBlock: depth"),
        (lambda v: DenseLayer(v), "DenseLayer: growth_rate"),
        (lambda v: DenseLayer(8, bottleneck=v), "DenseLayer: bottleneck"),
        (lambda v: DecomposedConv2D(v, 3), "DecomposedConv2D: filters"),
    ],
)
def test_wrong_counts(make, argument, value):
    with pytest.raises(ConfigError, match=f"^{argument} must be a whole number"):
        make(value)


@pytest.mark.parametrize("branches", [0, 1.5, "2"])
def test_wrong_branches(branches):
    with pytest.raises(ConfigError, match="ResidualBlock: branches must be a whole number"):
        ResidualBlock(8, branches=branches)


@pytest.mark.parametrize("shape", [(2, 8, 6), (2, 8), (2, 8, 6, 4, 1)])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: ResidualBlock(8),
        lambda: DenseLayer(8),
        lambda: DecomposedConv2D(8, 3),
        lambda: FrequencyChannel(),
        lambda: ClipLogits(),
        lambda: SpecAugment(),
        lambda: RandomTimeRoll(),
    ],
)
def test_inputs_that_are_not_maps(layer, shape):
    made = layer()
    message = f"{type(made).__name__} '{made.name}' needs maps .*Received: shape"
    with pytest.raises(ConfigError, match=message):
        made(np.zeros(shape, "float32"))


def test_an_unknown_number_of_channels():
    with pytest.raises(ConfigError, match="known number of channels"):
        ResidualBlock(8)(keras.Input((8, 8, None)))


@pytest.mark.parametrize("labels_shape", [(32,), (32, 1), (32, 3), (32, 5, 3)])
@pytest.mark.parametrize("weights_per_clip", [False, True])
def test_mixup_with_any_shape_of_labels(labels_shape, weights_per_clip):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 4)).astype("float32")
    labels = rng.uniform(size=labels_shape).astype("float32")
    weights = np.ones(32 if weights_per_clip else labels_shape, "float32")
    layer = Mixup(0.3, seed=1)
    mixed, mixed_labels, mixed_weights = layer([x, labels, weights], training=True)
    assert mixed_labels.shape == labels_shape
    assert mixed_weights.shape == weights.shape
    # The same shares and partners as for labels of the usual shape.
    flat = labels.reshape(32, -1)
    expected = Mixup(0.3, seed=1)([x, flat, np.ones_like(flat)], training=True)
    np.testing.assert_array_equal(mixed, expected[0])
    np.testing.assert_allclose(np.reshape(mixed_labels, flat.shape), expected[1], atol=1e-6)
    assert np.abs(mixed_labels - labels).max() > 0.05


def test_mixup_of_clips_with_unknown_labels():
    labels = np.array([1, 0, 1, 0, 1, 0, 1, 0], "float32")
    known = np.array([1, 1, 0, 0, 1, 1, 0, 0], "float32")
    x = np.stack([labels, known], axis=1)
    for seed in range(5):
        _, label, weight = Mixup(1.0, seed=seed)([x, labels, known], training=True)
        reference = Mixup(1.0, seed=seed)([x, labels[:, None], known[:, None]], training=True)
        np.testing.assert_allclose(label, reference[1][:, 0], atol=1e-6)
        np.testing.assert_allclose(weight, reference[2][:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (lambda x: [x, x], "list of three tensors.*Received: 2"),
        (lambda x: [x, np.zeros(4, "int64"), x], "labels must be floating-point.*int64"),
        (lambda x: [x, x, np.ones((4, 2), "float32")], "weights must have the shape"),
        (lambda x: [x, np.ones(4, "float32"), x], "weights must have the shape"),
    ],
)
def test_what_mixup_cannot_blend(inputs, message):
    with pytest.raises(ConfigError, match=f"Mixup.*{message}"):
        Mixup()(inputs(np.ones((4, 3), "float32")), training=True)


def test_gain_of_integers_is_refused():
    with pytest.raises(ConfigError, match="RandomGain: waveforms must be floating-point"):
        RandomGain()(np.ones((2, 100), "int16"), training=True)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_nan_in_the_input_stays_nan(policy):
    for layer in (ResidualBlock(4, dtype=policy), DenseLayer(4, dtype=policy), ClipLogits()):
        x = MAP.copy()
        x[0, 3, 3] = np.nan
        output = np.asarray(keras.ops.cast(layer(x), "float32"))
        assert np.isnan(output[0]).any(), layer.name
        assert np.isfinite(output[1]).all(), layer.name


def test_numbers_of_numpy_are_named():
    with pytest.raises(ConfigError, match=r"at least 1. Received: .*8.* \(int32; int\(\)"):
        ResidualBlock(np.int32(8))
    with pytest.raises(ConfigError, match=r"at least 1. Received: .*3.* \(int64; int\(\)"):
        ResidualBlock(8, kernel_size=np.int64(3))
