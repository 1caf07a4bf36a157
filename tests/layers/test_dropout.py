"""Dropout on one device and on several."""

import json

import keras
import numpy as np
import pytest

from rfkeras.errors import ConfigError
from rfkeras.layers import ReplicaDropout
from tests.processes import run

TWO_REPLICAS = """
import json
import numpy as np
import tensorflow as tf
from rfkeras.layers import ReplicaDropout
from rfkeras.training.strategy import make_strategy

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
