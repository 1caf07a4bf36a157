"""Script: compute layers and networks with given weights on the current Keras backend.

`KERAS_BACKEND=jax python -m tests.helpers.backend_outputs FILE.npz` writes the outputs. They
must be the same on all backends, so the random layers give what does not depend on the draws.
"""

import sys

import keras
import numpy as np
from keras import ops

import zoo
from rfkeras import layers
from tests.helpers.configurations import configurations

MAPS = np.random.default_rng(0).normal(size=(3, 14, 12, 8)).astype("float32")
OTHERS = np.random.default_rng(1).normal(size=MAPS.shape).astype("float32")
SPECTROGRAMS = np.random.default_rng(2).normal(size=(2, 90, 64, 1)).astype("float32")
BLOCKS = {
    "plain": {},
    "wider": {"filters": 12, "kernel_size": ((3, 1), (1, 3))},
    "two branches": {"branches": 2, "shake": False},
    "everything": {
        "filters": 16,
        "shake": True,
        "frequency_aware": True,
        "damping": 0.1,
        "damp_time": True,
        "decomposition": 4,
    },
}
POOLINGS = ("average", "max", "log_mean_exp", "attention")


def set_weights(layer):
    """Give a built layer weights that depend only on their order and shape."""
    rng = np.random.default_rng(3)
    for variable in layer.variables:
        if "seed" in variable.name:
            continue
        values = rng.normal(size=variable.shape)
        if len(variable.shape) > 1:
            values *= (2 / np.prod(variable.shape[:-1])) ** 0.5
        elif "variance" in variable.name or "gamma" in variable.name:
            values = 0.5 + np.abs(values)
        variable.assign(values.astype("float32"))


def built(layer, shape=MAPS.shape):
    layer.build(shape)
    set_weights(layer)
    return layer


def layer_outputs():
    """Yield (name, output) of all layers; the name begins with that of the class."""
    norm = built(layers.BatchNormalization())
    yield "BatchNormalization", norm(MAPS)
    yield "BatchNormalization in training", norm(MAPS, training=True)
    yield "BatchNormalization moving mean", norm.moving_mean.value
    yield "BatchNormalization moving variance", norm.moving_variance.value
    for pooling in POOLINGS:
        for frames in (False, True):
            head = built(layers.ClipLogits(pooling=pooling, frames=frames))
            yield f"ClipLogits {pooling} {frames}", head(MAPS)
        frame_logits, log_weights = head.frame_logits(MAPS)
        yield (
            f"ClipLogits clips from frames {pooling}",
            head.clip_logits(frame_logits, log_weights),
        )
    for task in ("multi_label", "single_label"):
        yield f"ClipLogits scores {task}", layers.ClipLogits(task=task).scores(MAPS)
    for damp_time in (False, True):
        for strides, padding in ((1, "same"), (2, "valid")):
            conv = layers.DampedConv2D(
                6, (3, 5), 0.1, damp_time, strides=strides, padding=padding
            )
            yield f"DampedConv2D {damp_time} {padding}", built(conv)(MAPS)
    yield "DecomposedConv2D", built(layers.DecomposedConv2D(12, (3, 3), 4, 0.1))(MAPS)
    yield "FrequencyChannel", layers.FrequencyChannel()(MAPS)
    yield "DenseLayer", built(layers.DenseLayer(4))(MAPS)
    options = {"frequency_aware": True, "damping": 0.01, "decomposition": 2}
    yield "DenseLayer everything", built(layers.DenseLayer(4, (3, 3), **options))(MAPS)
    for name, options in BLOCKS.items():
        block = layers.ResidualBlock(**{"filters": 8, **options})
        yield f"ResidualBlock {name}", built(block)(MAPS)
    yield "ShakeShake", layers.ShakeShake()([MAPS, OTHERS])
    yield from random_layer_outputs()


def random_layer_outputs():
    """Yield (name, output) of random layers: at inference, and what holds for any draw."""
    for layer in (
        layers.RandomTimeRoll(seed=1),
        layers.SpecAugment(1, 4, 1, 4, seed=1),
        layers.RandomGain(6.0, seed=1),
        layers.ReplicaDropout(0.25, seed=1),
    ):
        yield f"{type(layer).__name__} at inference", layer(MAPS)
    rolled = layers.RandomTimeRoll(seed=1)(MAPS, training=True)
    yield "RandomTimeRoll frames", ops.sort(rolled, axis=1)
    masked = layers.SpecAugment(1, 4, 1, 4, seed=1)(MAPS, training=True)
    yield "SpecAugment kept", ops.where(masked == 0, MAPS, masked)
    louder = layers.RandomGain(6.0, seed=1)(MAPS, training=True)
    yield (
        "RandomGain direction",
        louder / ops.max(ops.abs(louder), axis=(1, 2, 3), keepdims=True),
    )
    dropped = layers.ReplicaDropout(0.25, seed=1)(MAPS, training=True)
    yield "ReplicaDropout kept", ops.where(dropped == 0, MAPS / 0.75, dropped)
    labels = np.random.default_rng(4).integers(0, 2, (3, 5)).astype("float32")
    for output in layers.Mixup(seed=1)([MAPS, labels, np.ones_like(labels)]):
        yield f"Mixup at inference {len(output.shape)}", output
    mixed, label, weight = layers.Mixup(1.0, seed=1)(
        [np.repeat(labels[:, None, :, None], 2, axis=1), labels, np.ones_like(labels)],
        training=True,
    )
    yield "Mixup labels follow samples", mixed[:, 0, :, 0] - label
    yield "Mixup weight", weight
    generator = layers.ReplicaSeedGenerator(5)
    first, second = (ops.convert_to_numpy(generator.next()) for _ in range(2))
    yield "ReplicaSeedGenerator", np.asarray(second, "float32") - np.asarray(first, "float32")


def network_outputs():
    """Yield (name, output) of the networks of the zoo without front-end."""
    for name, options in configurations().items():
        model = zoo.create_model(name, 5, frontend=None, **options)
        set_weights(model)
        reading = model.read(SPECTROGRAMS)
        yield f"{name} logits", reading.logits
        yield f"{name} frame logits", reading.frame_logits
        yield f"{name} frame embeddings", reading.frame_embeddings


def main(path):
    outputs = {name: ops.convert_to_numpy(x) for name, x in layer_outputs()}
    outputs |= {name: ops.convert_to_numpy(x) for name, x in network_outputs()}
    np.savez(path, **outputs)
    print(f"{keras.backend.backend()}: {len(outputs)} outputs")


if __name__ == "__main__":
    main(sys.argv[1])
