"""The layer of densely connected networks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rfkeras.errors import ConfigError
from rfkeras.layers import DampedConv2D, DecomposedConv2D, DenseLayer
from tests.helpers.written_out import bn, conv


def batch(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def randomise(layer):
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.uniform(0.2, 1.0, weight.shape))


def bn_relu(y, layer):
    return np.maximum(bn(y, layer), 0)


def ramp(y):
    rows = 2 * np.arange(y.shape[2]) / y.shape[2] - 1
    channel = np.broadcast_to(rows[None, None, :, None], (*y.shape[:3], 1))
    return np.concatenate([y, channel], -1)


@pytest.mark.parametrize("frequency_aware", [False, True])
def test_layer_computes_bn_relu_conv_twice(frequency_aware):
    layer = DenseLayer(3, (3, 5), bottleneck=2, frequency_aware=frequency_aware)
    x = batch(2, 8, 6, 4)
    layer.build(x.shape)
    randomise(layer)
    prepare = ramp if frequency_aware else np.asarray
    y = conv(prepare(bn_relu(x, layer.bn1)), layer.conv1)
    assert y.shape[-1] == 6
    y = conv(prepare(bn_relu(y, layer.bn2)), layer.conv2)
    expected = np.concatenate([x, y], -1)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_chain_keeps_the_channels_of_every_layer():
    x = batch(1, 7, 5, 2)
    maps = [x]
    for number in range(3):
        maps.append(np.asarray(DenseLayer(number + 1)(maps[-1])))
    assert [y.shape[-1] for y in maps] == [2, 3, 5, 8]
    for y in maps[:-1]:
        np.testing.assert_array_equal(maps[-1][..., : y.shape[-1]], y)


def test_statistics_change_only_in_training():
    layer = DenseLayer(2)
    x = batch(4, 6, 5, 3) + 2.0
    layer(x)
    np.testing.assert_array_equal(layer.bn1.moving_mean, np.zeros(3))
    layer(x, training=True)
    np.testing.assert_allclose(layer.bn1.moving_mean, 0.1 * x.mean((0, 1, 2)), rtol=1e-4)
    assert np.abs(layer.bn2.moving_mean.numpy()).max() > 0


def test_he_normal_initialisation():
    keras.utils.set_random_seed(0)
    layer = DenseLayer(48, (3, 3))
    layer.build((None, None, None, 96))
    for conv_layer, fan_in in ((layer.conv1, 96), (layer.conv2, 9 * 192)):
        assert np.std(conv_layer.kernel) == pytest.approx(np.sqrt(2 / fan_in), rel=0.02)


def test_variants_apply_to_the_second_convolution():
    plain = DenseLayer(8, (3, 1), damping=0.1)
    assert not isinstance(plain.conv2, DampedConv2D)  # no ends along frequency
    assert isinstance(DenseLayer(8, (3, 1), damping=0.1, damp_time=True).conv2, DampedConv2D)
    layer = DenseLayer(8, (3, 3), damping=0.1, decomposition=4)
    assert isinstance(layer.conv2, DecomposedConv2D)
    assert isinstance(layer.conv2.spread, DampedConv2D)
    assert type(layer.conv1) is keras.layers.Conv2D


def test_shapes_and_unknown_sizes():
    layer = DenseLayer(5, (1, 3))
    assert layer.compute_output_shape((None, None, 7, 4)) == (None, None, 7, 9)
    assert layer(np.zeros((1, 1, 7, 4), "float32")).shape == (1, 1, 7, 9)
    symbolic = layer(keras.Input((None, None, 4)))
    assert symbolic.shape == (None, None, None, 9)


def test_every_weight_gets_a_gradient():
    layer = DenseLayer(3, decomposition=2, frequency_aware=True)
    x = tf.constant(batch(2, 6, 5, 4))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(layer(x, training=True) ** 3)
    gradients = tape.gradient(value, [v.value for v in layer.trainable_variables])
    assert len(gradients) == 8
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_config_and_file_round_trip(tmp_path, policy):
    inputs = keras.Input((None, 6, 3))
    layer = DenseLayer(
        4, (3, 1), 2, frequency_aware=True, damping=0.1, decomposition=2, dtype=policy
    )
    model = keras.Model(inputs, layer(inputs))
    randomise(layer)
    model.save(tmp_path / "dense.keras")
    loaded = keras.models.load_model(tmp_path / "dense.keras")
    x = batch(2, 5, 6, 3)
    assert loaded.layers[1].get_config() == layer.get_config()
    assert model(x).dtype == layer.compute_dtype
    np.testing.assert_allclose(
        np.asarray(loaded(x), "float32"), np.asarray(model(x), "float32"), atol=1e-6
    )


@pytest.mark.parametrize("kernel", [(2, 3), (3,), (0, 1), (3, 3, 3)])
def test_wrong_kernels(kernel):
    with pytest.raises(ConfigError, match="odd"):
        DenseLayer(4, kernel)


@pytest.mark.parametrize("options", [{"growth_rate": 0}, {"growth_rate": True}])
def test_wrong_growth_rate(options):
    with pytest.raises(ConfigError, match="growth_rate must be a whole number"):
        DenseLayer(**options)


def test_wrong_bottleneck():
    with pytest.raises(ConfigError, match="bottleneck must be a whole number"):
        DenseLayer(4, bottleneck=0)
