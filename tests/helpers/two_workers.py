"""Script: exchange messages between two workers, and compare their steps with one device."""

import json
import sys

import numpy as np
import tensorflow as tf

from rfkeras.layers import RandomTimeRoll
from rfkeras.training.distributed import Workers, make_strategy, open_workers, read_cluster
from rfkeras.training.optimizer import AdamW
from tests.helpers.small_tagger import batch, small_tagger, training_model

WORKERS = open_workers("cpu", read_cluster())
ONE_DEVICE = Workers(tf.distribute.get_strategy())


def trained(workers, norm, steps=4):
    """Train for some steps on the same global batch; return the model and its losses."""
    with workers.strategy.scope():
        optimizer = AdamW(1e-2, weight_decay=0.1, global_clipnorm=0.05)
        model = training_model(
            small_tagger(norm=norm),
            optimizer,
            averaging="ema",
            class_weights=np.array([1.0, 3.0, 0.5], "float32"),
        )

    def part(of):
        size = of.batch(8) // of.replicas
        own = [array[of.index * size : (of.index + 1) * size] for array in batch(8)]
        data = tf.data.Dataset.from_tensors(tuple(own)).repeat(steps)
        return data.apply(tf.data.experimental.assert_cardinality(steps))

    history = model.fit(workers.batches(part), verbose=0, epochs=steps, steps_per_epoch=1)
    return model, history.history["loss"]


def largest_difference(one, other):
    pairs = zip(one, other, strict=True)
    return max(float(np.abs(a.numpy() - b.numpy()).max()) for a, b in pairs)


def differences():
    one, one_losses = trained(ONE_DEVICE, norm=False)
    two, two_losses = trained(WORKERS, norm=False)
    return {
        "weights": largest_difference(
            one.tagger.trainable_variables, two.tagger.trainable_variables
        ),
        "averages": largest_difference(
            [a for _, a in one.averages], [a for _, a in two.averages]
        ),
        "optimizer": largest_difference(one.optimizer.variables, two.optimizer.variables),
        "losses": float(np.abs(np.subtract(one_losses, two_losses)).max()),
    }


def statistics_apart():
    """Return the difference between the moving statistics of the two workers."""
    model, _ = trained(WORKERS, norm=True)
    layer = model.tagger.get_layer("bn")
    own = np.concatenate([layer.moving_mean.numpy(), layer.moving_variance.numpy()])
    first, second = (np.frombuffer(m, own.dtype) for m in WORKERS.gather_bytes(own.tobytes()))
    return float(np.abs(first - second).max())


def rolled():
    """Return the difference between the same clip rolled by each worker."""
    with WORKERS.strategy.scope():
        model = training_model(small_tagger(), augmentation=[RandomTimeRoll(seed=3)])
    waveform, labels, mask = (tf.constant(part) for part in batch(4))
    spectrogram = WORKERS.strategy.run(lambda: model.prepare(waveform, labels, mask)[0])
    own = np.asarray(WORKERS.strategy.experimental_local_results(spectrogram)[0])
    first, second = (np.frombuffer(m, own.dtype) for m in WORKERS.gather_bytes(own.tobytes()))
    return float(np.abs(first - second).max())


variable = tf.Variable([1.5, float(WORKERS.index)])
count = tf.Variable(WORKERS.index + 7)
WORKERS.broadcast_variables([variable, count])
messages = WORKERS.gather_bytes(bytes(range(256)) * WORKERS.index * 40)
results = {
    "strategy": type(WORKERS.strategy).__name__,
    "one_strategy": type(make_strategy("auto")).__name__,
    "sizes": [len(message) for message in messages],
    "intact": messages[1] == bytes(range(256)) * 40,
    "broadcast": WORKERS.broadcast(lambda: [0.1, float("inf"), WORKERS.index]),
    "gathered": WORKERS.gather({"worker": WORKERS.index}),
    "shared": [*variable.numpy().tolist(), int(count.numpy())],
    "difference": differences(),
    "statistics_apart": statistics_apart(),
    "rolled_apart": rolled(),
}
print(json.dumps(results))
sys.stdout.flush()
