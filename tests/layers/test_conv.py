"""Damped and decomposed convolutions, the frequency channel, and batch normalisation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rfkeras.errors import ConfigError
from rfkeras.layers import (
    BatchNormalization,
    DampedConv2D,
    DecomposedConv2D,
    FrequencyChannel,
    ResidualBlock,
    make_conv,
)
from rfkeras.layers.conv import damping_window, he_normal


def test_damping_window():
    np.testing.assert_allclose(damping_window(3, 0.01), [0.01, 1, 0.01])
    np.testing.assert_allclose(damping_window(5, 0.1), [0.1, 0.55, 1, 0.55, 0.1])
    np.testing.assert_array_equal(damping_window(1, 0.01), [1])
    np.testing.assert_array_equal(damping_window(7, 1.0), np.ones(7))


@pytest.mark.parametrize("damp_time", [False, True])
def test_damped_convolution_equals_convolution_with_a_damped_kernel(damp_time):
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype("float32")
    layer = DampedConv2D(4, (3, 5), 0.1, damp_time, padding="same")
    out = layer(x)
    kernel = layer.kernel.numpy().copy()
    for t in range(3):
        for f in range(5):
            distance = abs(f - 2) / 2
            factor = 1 - 0.9 * distance
            if damp_time:
                factor *= 1 - 0.9 * abs(t - 1)
            kernel[t, f] *= factor
    np.testing.assert_allclose(out, tf.nn.conv2d(x, kernel, 1, "SAME") + 0.0, atol=1e-5)


def test_frequency_channel_values():
    x = np.zeros((2, 3, 8, 2), "float32")
    out = FrequencyChannel()(x).numpy()
    assert out.shape == (2, 3, 8, 3)
    for i in range(8):
        np.testing.assert_array_equal(out[:, :, i, 2], 2 * i / 8 - 1)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_frequency_channel_of_256_bands_in_half_precision(policy):
    x = np.zeros((1, 1, 256, 1), "float32")
    out = np.asarray(FrequencyChannel(dtype=policy)(x), "float32")[0, 0, :, 1]
    exact = 2 * np.arange(256) / 256 - 1
    np.testing.assert_allclose(out, exact, atol=2**-8)
    assert len(set(out)) > 128  # not rounded into a few steps


def test_decomposed_convolution_is_linear_and_narrow():
    layer = DecomposedConv2D(8, (3, 1), factor=4)
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype("float32")
    y = np.random.default_rng(1).normal(size=(2, 6, 5, 3)).astype("float32")
    np.testing.assert_allclose(layer(x) + layer(y), layer(x + y), atol=1e-5)
    shapes = [tuple(w.shape) for w in layer.weights]
    assert shapes == [(1, 1, 3, 2), (3, 1, 2, 2), (1, 1, 2, 8)]


def test_damping_of_a_decomposed_convolution_is_only_in_the_middle():
    layer = DecomposedConv2D(8, (3, 3), factor=2, damping=0.01)
    x = np.random.default_rng(0).normal(size=(1, 6, 5, 4)).astype("float32")
    out = layer(x)
    narrow, spread, widen = (w.numpy() for w in layer.weights)
    spread = spread * np.array([0.01, 1, 0.01])[None, :, None, None]
    expected = tf.nn.conv2d(x @ narrow[0, 0], spread.astype("float32"), 1, "SAME")
    np.testing.assert_allclose(out, expected.numpy() @ widen[0, 0], atol=1e-5)


def test_convolutions_are_not_damped_along_time_unless_asked():
    falling = [0.01, 0.505, 1, 0.505, 0.01]
    window = DampedConv2D(4, 5).window[..., 0, 0]
    np.testing.assert_allclose(window, np.tile(falling, (5, 1)), rtol=1e-6)
    for conv in (
        make_conv(4, (5, 5), damping=0.01),
        DecomposedConv2D(4, (5, 5), 4, 0.01).spread,
    ):
        np.testing.assert_array_equal(conv.window[..., 0, 0], window)
    both = DampedConv2D(4, 5, damp_time=True).window[..., 0, 0]
    np.testing.assert_allclose(both, np.outer(falling, falling), rtol=1e-6)


def test_make_conv_chooses_the_layer():
    assert type(make_conv(4, (3, 3))) is keras.layers.Conv2D
    assert isinstance(make_conv(4, (3, 3), damping=0.1), DampedConv2D)
    assert type(make_conv(4, (3, 1), damping=0.1)) is keras.layers.Conv2D
    assert isinstance(make_conv(4, (3, 1), damping=0.1, damp_time=True), DampedConv2D)
    assert isinstance(make_conv(4, (3, 3), decomposition=2), DecomposedConv2D)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        make_conv(4, (1, 1), damping=2.0)


def test_published_initialisation_of_a_decomposed_block():
    block = ResidualBlock(8, decomposition=2, frequency_aware=True)
    x = np.random.default_rng(0).normal(size=(2, 8, 6, 8)).astype("float32")
    np.testing.assert_allclose(block(x), np.maximum(x, 0), atol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "options",
    [
        {"branches": 2},
        {"branches": 3, "shake": False},
        {"frequency_aware": True},
        {"damping": 0.01, "damp_time": True},
        {"decomposition": 4},
        {"branches": 2, "frequency_aware": True, "damping": 0.1, "decomposition": 2},
    ],
)
def test_block_of_every_variant_survives_save_and_load(tmp_path, options, policy):
    inputs = keras.Input((None, 6, 3))
    block = ResidualBlock(8, ((3, 3), (1, 3)), initialization="he", dtype=policy, **options)
    model = keras.Model(inputs, block(inputs))
    model.save(tmp_path / "block.keras")
    loaded = keras.models.load_model(tmp_path / "block.keras")
    assert loaded.layers[1].get_config() == block.get_config()
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype("float32")
    np.testing.assert_allclose(
        np.asarray(loaded(x), "float32"), np.asarray(model(x), "float32"), atol=1e-6
    )
    names = {layer.dtype_policy.name for layer in block._flatten_layers()}
    assert names == {policy}


def test_decomposed_convolution_keeps_the_scale_of_its_gradient():
    """Check that the three convolutions keep the scale of activations, like a single one."""
    keras.utils.set_random_seed(0)
    x = tf.random.stateless_normal((4, 16, 16, 64), (0, 0))
    spreads = []
    for decomposition in (None, 4):
        layer = make_conv(
            64, (3, 3), decomposition=decomposition, initializer=he_normal("fan_out")
        )
        spreads.append(float(np.std(layer(x))))
    assert spreads[1] == pytest.approx(spreads[0], rel=0.35)


def pair_of_layers(shape, **options):
    rng = np.random.default_rng(0)
    ours = BatchNormalization(**options)
    theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **options)
    for layer in (ours, theirs):
        layer.build(shape)
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        value = rng.uniform(0.5, 1.5, mine.shape).astype("float32")
        mine.assign(value)
        other.assign(value)
    return ours, theirs


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 9, 5, 6), (1, 3, 1, 2), (8, 6)])
def test_outputs_and_statistics_equal_keras(shape, training):
    ours, theirs = pair_of_layers(shape)
    x = np.random.default_rng(1).normal(3.0, 2.0, shape).astype("float32")
    np.testing.assert_allclose(
        ours(x, training=training), theirs(x, training=training), atol=2e-5
    )
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=2e-5)


def test_gradients_equal_keras():
    ours, theirs = pair_of_layers((4, 7, 5, 3))
    x = tf.constant(np.random.default_rng(1).normal(size=(4, 7, 5, 3)), tf.float32)
    upstream = tf.constant(np.random.default_rng(2).normal(size=x.shape), tf.float32)
    gradients = []
    for layer in (ours, theirs):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(layer(x, training=True) * upstream)
        sources = [x, *(v.value for v in layer.trainable_variables)]
        gradients.append(tape.gradient(value, sources))
    for mine, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4)


def test_graph_uses_the_fused_kernel():
    layer = BatchNormalization()
    layer.build((None, 4, 4, 3))
    graph = tf.function(lambda x: layer(x, training=True)).get_concrete_function(
        tf.TensorSpec((None, 4, 4, 3))
    )
    assert "FusedBatchNormV3" in {op.type for op in graph.graph.get_operations()}


def test_names_and_weights_equal_keras():
    ours, theirs = pair_of_layers((2, 3, 3, 4))
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    restored = BatchNormalization.from_config(ours.get_config())
    restored.build((2, 3, 3, 4))
    restored.set_weights(theirs.get_weights())
    x = np.random.default_rng(1).normal(size=(2, 3, 3, 4)).astype("float32")
    np.testing.assert_allclose(restored(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_statistics_stay_float32_under_mixed_precision(policy):
    layer = BatchNormalization(dtype=policy)
    x = np.random.default_rng(1).normal(100.0, 3.0, (8, 16, 16, 2)).astype("float32")
    outputs = layer(x, training=True)
    assert outputs.dtype == keras.DTypePolicy(policy).compute_dtype
    assert layer.moving_mean.dtype == "float32"
    # The mean of the input rounded to 16 bits, whose rounding error averages out.
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.1 * x.mean((0, 1, 2)), rtol=2e-3)


@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
@pytest.mark.parametrize("training", [False, True])
def test_weights_in_half_precision(policy, training):
    x = np.random.default_rng(0).normal(1, 2, (4, 6, 5, 3)).astype("float32")
    exact, half = BatchNormalization(), BatchNormalization(dtype=policy)
    expected, outputs = exact(x, training=training), half(x, training=training)
    assert keras.backend.standardize_dtype(outputs.dtype) == policy
    np.testing.assert_allclose(keras.ops.cast(outputs, "float32"), expected, atol=0.05)
    for ours, theirs in zip(half.weights, exact.weights, strict=True):
        assert ours.dtype == policy
        np.testing.assert_allclose(keras.ops.cast(ours, "float32"), theirs, atol=0.02)


def test_frozen_layer_keeps_its_statistics():
    layer = BatchNormalization(trainable=False)
    x = np.ones((2, 3, 3, 1), "float32") * 5
    np.testing.assert_allclose(layer(x, training=True), x, rtol=1e-4)
    assert layer.moving_mean.numpy()[0] == 0.0
