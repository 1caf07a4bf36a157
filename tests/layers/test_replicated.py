"""Dropout on one device and on several."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from rfkeras.errors import ConfigError
from rfkeras.layers import BatchNormalization, ReplicaDropout
from tests.helpers.processes import run

TWO_REPLICAS = """
import json
import numpy as np
import tensorflow as tf
from rfkeras.layers import ReplicaDropout
from rfkeras.training.distributed import make_strategy

strategy = make_strategy("cpu:2")
with strategy.scope():
    layer = ReplicaDropout(0.5, seed=3)

@tf.function
def draw():
    return strategy.run(lambda: layer(tf.ones((1000,)), training=True))

steps = [strategy.experimental_local_results(draw()) for _ in range(2)]
print(json.dumps([[value.numpy().tolist() for value in step] for step in steps]))
"""


def test_on_one_device_it_is_dropout_of_keras():
    x = np.random.default_rng(0).normal(size=(4, 50, 3)).astype("float32")
    ours, theirs = ReplicaDropout(0.3, seed=7), keras.layers.Dropout(0.3, seed=7)
    for _ in range(3):  # the draws go on alike
        np.testing.assert_array_equal(ours(x, training=True), theirs(x, training=True))


def test_what_is_kept_is_scaled():
    y = np.asarray(ReplicaDropout(0.2, seed=1)(np.ones((200, 500), "float32"), training=True))
    assert set(np.unique(y)) == {np.float32(0.0), np.float32(1.25)}
    # The standard error of the share is 0.4 / sqrt(100,000) = 0.0013.
    assert (y == 0).mean() == pytest.approx(0.2, abs=0.006)


def test_inference_and_rate_0_change_nothing():
    x = np.ones((10, 10), "float32")
    np.testing.assert_array_equal(ReplicaDropout(0.9)(x), x)
    np.testing.assert_array_equal(ReplicaDropout(0.0)(x, training=True), x)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    layer = ReplicaDropout(0.5, dtype=policy)
    y = layer(np.ones((8, 8), "float32"), training=True)
    assert y.dtype == layer.compute_dtype
    assert set(np.unique(np.asarray(y, "float32"))) <= {0.0, 2.0}


def test_config_round_trip():
    layer = ReplicaDropout(0.25, seed=4, name="drop")
    assert ReplicaDropout.from_config(layer.get_config()).get_config() == layer.get_config()
    assert layer.compute_output_shape((None, 3)) == (None, 3)


@pytest.mark.parametrize("rate", [-0.1, 1.0, True, "0.5", None, float("nan")])
def test_wrong_rate(rate):
    with pytest.raises(ConfigError, match="from 0 to under 1"):
        ReplicaDropout(rate)


def test_replicas_drop_different_places():
    status, out, err = run("-c", TWO_REPLICAS)
    assert status == 0, err
    (first, second), (third, _) = np.array(json.loads(out.splitlines()[-1]))
    for one, other in ((first, second), (first, third)):  # replicas, steps
        # Independent draws agree in half of the places, 1,000 give a deviation of 0.016.
        assert np.mean(one == other) == pytest.approx(0.5, abs=0.08)


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


def test_names_and_weights_are_those_of_keras():
    ours, theirs = pair_of_layers((2, 3, 3, 4))
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    restored = BatchNormalization.from_config(ours.get_config())
    restored.build((2, 3, 3, 4))
    restored.set_weights(theirs.get_weights())
    x = np.random.default_rng(1).normal(size=(2, 3, 3, 4)).astype("float32")
    np.testing.assert_allclose(restored(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_float32_statistics(policy):
    layer = BatchNormalization(dtype=policy)
    x = np.random.default_rng(1).normal(100.0, 3.0, (8, 16, 16, 2)).astype("float32")
    outputs = layer(x, training=True)
    assert outputs.dtype == keras.DTypePolicy(policy).compute_dtype
    assert layer.moving_mean.dtype == "float32"
    # Of the input rounded to 16 bits, whose rounding error averages out.
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.1 * x.mean((0, 1, 2)), rtol=2e-3)


def test_frozen_layer_keeps_its_statistics():
    layer = BatchNormalization(trainable=False)
    x = np.ones((2, 3, 3, 1), "float32") * 5
    np.testing.assert_allclose(layer(x, training=True), x, rtol=1e-4)
    assert layer.moving_mean.numpy()[0] == 0.0
