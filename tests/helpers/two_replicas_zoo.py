"""Script: train every network of the zoo for a step on two replicas, and print JSON."""

import json

import keras
import numpy as np
import tensorflow as tf

import zoo
from rfkeras.layers import ShakeShake
from rfkeras.training.distributed import make_strategy
from rfkeras.training.losses import MaskedBinaryCrossentropy
from tests.helpers.configurations import configurations

STRATEGY = make_strategy("cpu:2")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 60, 64, 1)).astype("float32")
Y = RNG.integers(0, 2, (4, 3)).astype("float32")


def step(name, options):
    """Train a network for one step; return what changed."""
    if "blocks" in zoo.model_info(name).options:  # one block per kind of block is enough
        options = {**options, "rho": 4, "blocks": (3, 1, 1), "allow_rf_change": True}
    with STRATEGY.scope():
        model = zoo.create_model(name, 3, frontend=None, initialization="he", **options)
        model.compile(keras.optimizers.SGD(0.1), MaskedBinaryCrossentropy(), jit_compile=False)
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


metrics = {name: step(name, options) for name, options in configurations().items()}
print(json.dumps({**metrics, "shake_shares": shake_shares()}))
