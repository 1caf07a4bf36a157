"""Script: compare training steps on one device and on two, and print JSON."""

import json

import keras
import numpy as np
import tensorflow as tf

from rfkeras.layers import BatchNormalization, ClipLogits, Mixup, RandomTimeRoll, ResidualBlock
from rfkeras.training.distributed import make_strategy
from rfkeras.training.losses import MaskedBinaryCrossentropy
from rfkeras.training.optimizer import AdamW
from rfkeras.training.step import dtype_policy
from tests.helpers.small_tagger import batch, fit, small_tagger, training_model

STRATEGY = make_strategy("cpu:2")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6, 5, 3)).astype("float32")
Y = RNG.integers(0, 2, (8, 4)).astype("float32")
# Most labels of the first replica's half are unknown, few of the second half.
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
    """Return the losses of a model with one block, trained on two replicas."""
    with STRATEGY.scope():
        inputs = keras.Input((6, 5, 3))
        model = keras.Model(inputs, ClipLogits()(ResidualBlock(4)(inputs)))
        model.compile(keras.optimizers.Adam(0.05), MaskedBinaryCrossentropy())
    data = tf.data.Dataset.from_tensor_slices((X, Y, MASK)).batch(8, drop_remainder=True)
    losses = model.fit(data.repeat(), steps_per_epoch=1, epochs=20, verbose=0)
    return losses.history["loss"]


def recipe(strategy, steps=4, policy="float32", **options):
    """Train a `TrainingModel` for a few steps, without random parts."""
    with strategy.scope(), dtype_policy(policy):
        optimizer = AdamW(1e-2, weight_decay=0.1, global_clipnorm=0.05)
        model = training_model(
            small_tagger(norm=options.pop("norm", False)),
            optimizer,
            averaging="ema",
            prune=True,
            class_weights=np.array([1.0, 3.0, 0.5], "float32"),
            **options,
        )
        kernel, mask = model.masks[0]
        mask.assign(np.arange(np.prod(kernel.shape)).reshape(kernel.shape) % 2)
    return model, fit(model, steps, batch())


def largest_difference(one, other):
    pairs = zip(one, other, strict=True)
    return max(float(np.abs(a.numpy() - b.numpy()).max()) for a, b in pairs)


def recipe_differences(**options):
    """Compare one and two replicas.

    Returns:
        The differences of weights, averages and so on, and the model on two replicas.
    """
    one, one_losses = recipe(tf.distribute.get_strategy(), **options)
    two, two_losses = recipe(STRATEGY, **options)
    differences = {
        "weights": largest_difference(
            one.tagger.trainable_variables, two.tagger.trainable_variables
        ),
        "averages": largest_difference(
            [a for _, a in one.averages], [a for _, a in two.averages]
        ),
        "optimizer": largest_difference(one.optimizer.variables, two.optimizer.variables),
        "losses": float(np.abs(np.subtract(one_losses, two_losses)).max()),
    }
    return differences, two


def copies_agree(model):
    """Return whether both replicas have the same masks, averages and weights."""
    variables = [*model.tagger.trainable_variables, *(v for _, v in model.averages)]
    local = [STRATEGY.experimental_local_results(v.value) for v in variables]
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in local)


def overflow_in_one_replica():
    """Return whether a step is skipped if only the second replica's gradient overflows."""
    with STRATEGY.scope(), dtype_policy("mixed_float16"):
        model = training_model(small_tagger(norm=False))
    waveform, labels, mask = batch()
    mask[4:] = 1e38  # times the loss scale: infinite, and only there
    before = [v.numpy() for v in model.tagger.trainable_variables]
    fit(model, data=(waveform, labels, mask))
    after = [v.numpy() for v in model.tagger.trainable_variables]
    return all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def draws():
    """Return how much the augmented clips of two replicas with the same clips differ."""
    with STRATEGY.scope():
        model = training_model(
            small_tagger(), augmentation=[RandomTimeRoll()], mixup=Mixup(1.0)
        )
    halves = [np.concatenate([part[:4]] * 2) for part in batch()]
    data = tf.data.Dataset.from_tensors(tuple(halves))
    (distributed,) = STRATEGY.experimental_distribute_dataset(data.unbatch().batch(8))
    prepared = STRATEGY.run(lambda parts: model.prepare(*parts), args=(distributed,))
    local = [STRATEGY.experimental_local_results(value) for value in prepared]
    return [float(np.abs(one.numpy() - other.numpy()).max()) for one, other in local]


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
differences, replicated = recipe_differences()
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
            "recipe": differences,
            "recipe_jit": recipe_differences(jit=True)[0],
            "recipe_float16": recipe_differences(policy="mixed_float16", steps=1)[0],
            "copies_agree": copies_agree(replicated),
            "jit_losses": recipe(STRATEGY, steps=100, jit=True, norm=True)[1],
            "overflow_is_skipped": overflow_in_one_replica(),
            "draws": draws(),
        }
    )
)
