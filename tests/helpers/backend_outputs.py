"""Script: compute layers and networks with given weights on the current Keras backend.

`KERAS_BACKEND=jax python -m tests.helpers.backend_outputs FILE.npz` writes the outputs, and a
model that was trained for some steps as FILE.keras. They must be the same on all backends, so
the random layers give what does not depend on the draws. With OTHER.keras, a file of another
backend, it writes the scores of that model as "scores of the other file".
"""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import ops

import rfkeras
import zoo
from rfkeras import layers
from rfkeras.frontend import PRESETS, Frontend, create_frontend
from rfkeras.training.losses import MaskedBinaryCrossentropy, SoftmaxCrossentropy
from tests.helpers.configurations import configurations
from tests.helpers.spectrograms import music

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


def frontend_outputs():
    """Yield (name, output) of front-ends, in dB before standardisation, and after."""
    small = {"sample_rate_hz": 8000, "n_fft": 256, "hop_samples": 80, "n_mels": 20}
    for fixed_floor in (False, True):
        for name in PRESETS:
            layer = create_frontend(name, fixed_floor=fixed_floor)
            wave = music(layer.sample_rate_hz, 2.0)
            yield f"Frontend {name} {fixed_floor}", layer.mel_db(wave[None])
        for window in (255, 200, 256):
            layer = Frontend(window_samples=window, fixed_floor=fixed_floor, **small)
            wave = music(8000, 0.5)
            stereo = np.stack([wave, wave[::-1]], axis=-1)
            yield f"Frontend window {window} {fixed_floor}", layer.mel_db(stereo[None])
            yield f"Frontend short {window} {fixed_floor}", layer.mel_db(wave[None, :9])
    waves = np.stack([music(8000, 0.5), 0.1 * music(8000, 0.5)[::-1]])
    layer.adapt([waves])
    yield "Frontend adapted mean", layer.mean_db
    yield "Frontend adapted deviation", layer.std_db
    yield "Frontend standardised", layer(waves)
    yield "Frontend standardised from dB", layer.standardise(layer.mel_db(waves))


def whole_model():
    """Return packaged weights, and clips and labels for them."""
    rng = np.random.default_rng(5)
    waves = np.stack([music(22050, 2.0), music(22050, 4.0)[:44100], music(22050, 3.0)[-44100:]])
    waves += rng.normal(0, 0.01, waves.shape).astype("float32")
    labels = rng.integers(0, 2, (3, 20)).astype("float32")
    return rfkeras.load_model("resnet_rf_tiny"), waves, labels


def input_gradient(model, waves, labels):
    """Return the gradient of a loss with respect to the waveforms."""
    loss = MaskedBinaryCrossentropy()
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        inputs = tf.constant(waves)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = loss(labels, model(inputs, training=False))
        return tape.gradient(value, inputs)
    if backend == "torch":
        import torch

        inputs = torch.tensor(waves, requires_grad=True)
        loss(torch.tensor(labels), model(inputs, training=False)).backward()
        return inputs.grad
    import jax

    state = [[v.value for v in model.trainable_variables]]
    state.append([v.value for v in model.non_trainable_variables])

    def value(inputs):
        return loss(labels, model.stateless_call(*state, inputs, training=False)[0])

    return jax.jit(jax.grad(value))(waves)


def whole_outputs(path):
    """Yield (name, output) of a whole model: scores, gradients, ten steps of training."""
    model, waves, labels = whole_model()
    for per in ("clip", "frame"):
        yield f"whole scores per {per}", model.scores(waves, per=per)
        yield f"whole embedding per {per}", model.embed(waves, per=per)
    yield "whole input gradient", input_gradient(model, waves, labels)
    logits = ops.convert_to_tensor(model.predict(waves, verbose=0))
    blended = labels / np.maximum(labels.sum(axis=1, keepdims=True), 1)
    yield "softmax cross-entropy", SoftmaxCrossentropy(reduction=None)(blended, logits)
    model.compile(keras.optimizers.SGD(1e-3), MaskedBinaryCrossentropy())
    losses = [float(model.train_on_batch(waves, labels)) for _ in range(10)]
    yield "whole losses of ten steps", np.array(losses, "float32")
    model.save(path)
    yield "saved scores", model.scores(waves)


def read(path, others):
    """Write the scores of models that other backends saved."""
    waves = whole_model()[1]
    scores = {Path(o).stem: rfkeras.load_model(o).scores(waves) for o in others}
    np.savez(path, **{name: ops.convert_to_numpy(x) for name, x in scores.items()})


def main(path):
    path = Path(path)
    parts = (
        *(layer_outputs(), network_outputs(), frontend_outputs()),
        whole_outputs(path.with_suffix(".keras")),
    )
    outputs = {name: ops.convert_to_numpy(x) for part in parts for name, x in part}
    np.savez(path, **outputs)
    print(f"{keras.backend.backend()}: {len(outputs)} outputs")


if __name__ == "__main__":
    if sys.argv[1] == "--read":
        read(sys.argv[2], sys.argv[3:])
    else:
        main(sys.argv[1])
