"""A tagger with a few weights, and batches for it, for tests of training."""

import keras
import numpy as np
import tensorflow as tf

from rfkeras.frontend import Frontend
from rfkeras.layers import (
    BatchNormalization,
    ClipLogits,
    Mixup,
    RandomGain,
    RandomTimeRoll,
    SpecAugment,
)
from rfkeras.training.losses import loss_for
from rfkeras.training.optimizer import Adam
from rfkeras.training.step import TrainingModel

SAMPLES, CLASSES = 2400, 3


def small_tagger(task="multi_label", seed=1, norm=True):
    """Return a model from waveform to 3 logits: a convolution and a 1x1 classifier."""
    keras.utils.set_random_seed(seed)
    frontend = Frontend(8000, 256, 256, 128, 16, "mel_then_db", False, name="frontend")
    waveform = keras.Input((None,), dtype="float32", name="waveform")
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(frontend(waveform))
    x = BatchNormalization(name="bn")(x) if norm else x
    x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(CLASSES, 1, name="classifier")(x)
    tagger = keras.Model(waveform, ClipLogits(task=task, dtype="float32")(x), name="small")
    frontend.mean_db.assign(np.full(16, -50.0))
    frontend.std_db.assign(np.full(16, 20.0))
    return tagger


def batch(size=8, seed=0, task="multi_label"):
    """Return a batch (waveform, labels, mask)."""
    rng = np.random.default_rng(seed)
    waveform = rng.normal(0, 0.1, (size, SAMPLES)).astype("float32")
    waveform *= rng.uniform(0.1, 2.0, (size, 1)).astype("float32")
    if task == "single_label":
        labels = np.eye(CLASSES, dtype="float32")[rng.integers(0, CLASSES, size)]
        return waveform, labels, np.ones_like(labels)
    labels = rng.integers(0, 2, (size, CLASSES)).astype("float32")
    # Most labels of the first half are unknown, few of the second half.
    known = np.repeat([0.3, 0.9], [size // 2, size - size // 2])[:, None]
    return waveform, labels, (rng.uniform(size=labels.shape) < known).astype("float32")


def training_model(tagger, optimizer=None, **options):
    """Return a compiled `TrainingModel` of a tagger."""
    model = TrainingModel(tagger, **options)
    model.compile(optimizer or Adam(1e-2), loss_for(model.task), jit_compile=False)
    model.optimizer.build(tagger.trainable_variables)
    return model


def everything(**options):
    """Return a model with all augmentation, averaging and pruning."""
    return training_model(
        small_tagger(),
        waveform_augmentation=[RandomGain(6.0)],
        augmentation=[RandomTimeRoll(), SpecAugment(1, 3, 1, 3)],
        mixup=Mixup(0.3),
        averaging="ema",
        prune=True,
        **options,
    )


def fit(model, steps=1, data=None):
    """Train on one batch and return the loss of each step."""
    data = data or batch(task=model.task)
    batches = tf.data.Dataset.from_tensors(data).repeat()
    return model.fit(
        batches, steps_per_epoch=1, epochs=steps, shuffle=False, verbose=0
    ).history["loss"]
