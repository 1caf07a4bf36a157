"""Script: one training step on one device and on two, printed as JSON."""

import json

import keras
import numpy as np
import tensorflow as tf

from rfkeras.layers import BatchNormalization, ClipLogits, ResidualBlock
from rfkeras.training.losses import MaskedBinaryCrossentropy
from rfkeras.training.strategy import make_strategy

STRATEGY = make_strategy("cpu:2")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6, 5, 3)).astype("float32")
Y = RNG.integers(0, 2, (8, 4)).astype("float32")
# Most labels of the first replica's half are unknown, few of the second's.
MASK = (RNG.uniform(size=(8, 4)) < np.repeat([0.2, 0.9], 4)[:, None]).astype("float32")


def train_step(strategy, norm):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        inputs = keras.Input((6, 5, 3))
        x = keras.layers.Conv2D(4, 3)(inputs)
        if norm:
            x = BatchNormalization(name="bn")(x)
        model = keras.Model(inputs, ClipLogits()(keras.layers.ReLU()(x)))
        model.compile(keras.optimizers.SGD(1.0), MaskedBinaryCrossentropy())
    data = tf.data.Dataset.from_tensor_slices((X, Y, MASK)).batch(8, drop_remainder=True)
    history = model.fit(data, steps_per_epoch=1, verbose=0)
    return model, history.history["loss"][0]


def train_block():
    """The loss after a few steps of a block in a model under two replicas."""
    with STRATEGY.scope():
        inputs = keras.Input((6, 5, 3))
        model = keras.Model(inputs, ClipLogits()(ResidualBlock(4)(inputs)))
        model.compile(keras.optimizers.Adam(0.05), MaskedBinaryCrossentropy())
    data = tf.data.Dataset.from_tensor_slices((X, Y, MASK)).batch(8, drop_remainder=True)
    losses = model.fit(data.repeat(), steps_per_epoch=1, epochs=20, verbose=0)
    return losses.history["loss"]


single, single_loss = train_step(tf.distribute.get_strategy(), norm=False)
double, double_loss = train_step(STRATEGY, norm=False)
pairs = zip(single.get_weights(), double.get_weights(), strict=True)
weights = [np.abs(a - b).max() for a, b in pairs]
normed, _ = train_step(STRATEGY, norm=True)
keras.utils.set_random_seed(1)
fresh = keras.layers.Conv2D(4, 3)
maps = np.asarray(fresh(X))
halves = [maps[:4], maps[4:]]
expected = {
    "moving_mean": 0.1 * np.mean([half.mean((0, 1, 2)) for half in halves], axis=0),
    "moving_variance": 0.9 + 0.1 * np.mean([half.var((0, 1, 2)) for half in halves], axis=0),
}
layer = normed.get_layer("bn")
print(
    json.dumps(
        {
            "replicas": STRATEGY.num_replicas_in_sync,
            "weight_difference": float(max(weights)),
            "loss_difference": abs(single_loss - double_loss),
            "statistics_difference": {
                name: float(np.abs(getattr(layer, name).numpy() - value).max())
                for name, value in expected.items()
            },
            "block_losses": train_block(),
        }
    )
)
