"""Script: train the networks of the zoo for a step on two replicas, and print JSON.

Of networks that only differ in having more options, only the last is trained.
"""

import json

import keras
import numpy as np
import tensorflow as tf

import zoo
from rfkeras.layers import ShakeShake
from rfkeras.training.distributed import make_strategy
from rfkeras.training.losses import MaskedBinaryCrossentropy
from tests.helpers.configurations import combined_configurations, few_layers

STRATEGY = make_strategy("cpu:2")
# Tracing a step for two replicas takes most of the time. This network has all the layers that
# draw random numbers; the others take their step eagerly.
TRACED = ("resnet_rf_shake_fa",)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 60, 64, 1)).astype("float32")
Y = RNG.integers(0, 2, (4, 3)).astype("float32")


def step(name):
    """Train a network for one step; return what changed."""
    with few_layers(name) as options, STRATEGY.scope():
        model = zoo.create_model(name, 3, frontend=None, initialization="he", **options)
        model.compile(
            keras.optimizers.SGD(0.1),
            MaskedBinaryCrossentropy(),
            jit_compile=False,
            run_eagerly=name not in TRACED,
        )
    before = model.get_weights()
    data = tf.data.Dataset.from_tensor_slices((X, Y, np.ones_like(Y))).batch(4, True)
    history = model.fit(data, steps_per_epoch=1, verbose=0)
    moved = [np.abs(a - b).max() for a, b in zip(before, model.get_weights(), strict=True)]
    copies = [
        [value.numpy() for value in STRATEGY.experimental_local_results(variable.value)]
        for variable in model.trainable_variables
    ]
    return {
        "replicas": STRATEGY.num_replicas_in_sync,
        "loss": history.history["loss"][0],
        "moved": float(max(moved)),
        "replicas_differ_by": max(float(np.abs(a - b).max()) for a, b in copies),
    }


def shake_shares():
    """Return the forward weights of four samples on each replica."""
    with STRATEGY.scope():
        layer = ShakeShake(seed=1)

    @tf.function
    def draw():
        ones, zeros = tf.ones((4, 1)), tf.zeros((4, 1))
        return STRATEGY.run(lambda: layer([ones, zeros], training=True))

    values = STRATEGY.experimental_local_results(draw())
    return [[float(share) for share in value.numpy()[:, 0]] for value in values]


metrics = {name: step(name) for name in combined_configurations()}
print(json.dumps({**metrics, "shake_shares": shake_shares()}))
