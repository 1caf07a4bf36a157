"""The parts of this library to be timed: training steps, exported models, matrix products."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import zoo
from rfkeras.frontend import find_frontend
from rfkeras.training.losses import MaskedBinaryCrossentropy
from rfkeras.training.optimizer import Adam
from rfkeras.training.step import TrainingModel

CLASSES = 20


def set_threads(threads: int, replicas: int = 1) -> None:
    """Limit the threads of TensorFlow, and split the CPU into logical devices."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    if replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        configuration = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [configuration] * replicas)


def batch(model: keras.Model, shape: list[int]) -> Any:
    """Return a batch of spectrograms, or of waveforms of the corresponding length.

    Args:
        model: A model with inputs (batch, time, mel, 1) or (batch, samples).
        shape: (batch, frames, mel bands).
    """
    rng = np.random.default_rng(0)
    if len(model.input_shape) == 4:
        return rng.normal(size=(*shape, 1)).astype(np.float32)
    frontend = find_frontend(model)
    assert frontend is not None
    samples = (shape[1] - 1) * frontend.hop_samples
    return (0.1 * rng.normal(size=(shape[0], samples))).astype(np.float32)


def training(
    rho: int,
    width: int,
    shape: list[int],
    threads: int,
    frontend: str | None = None,
    precision: str = "float32",
    replicas: int = 1,
    jit: bool = False,
) -> Callable[[], Any]:
    """Prepare a training step as `fit` runs it: load a batch, forward, backward, Adam."""
    set_threads(threads, replicas)
    keras.config.set_dtype_policy(precision)
    strategy = tf.distribute.get_strategy()
    if replicas > 1:
        strategy = tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(replicas)])
    with strategy.scope():
        tagger = zoo.create_model("resnet_rf", CLASSES, rho=rho, width=width, frontend=frontend)
        trained = TrainingModel(tagger, jit=jit)
        optimizer = Adam(1e-4)
        trained.compile(optimizer, MaskedBinaryCrossentropy(), jit_compile=False)
        optimizer.build(tagger.trainable_variables)
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (shape[0], CLASSES)).astype(np.float32)
    example = (batch(tagger, shape), labels, np.ones_like(labels))
    batches = tf.data.Dataset.from_tensors(example).repeat()
    iterator = iter(strategy.experimental_distribute_dataset(batches))
    step: Any = trained.make_train_function() or trained.train_function  # Keras sets it here
    return lambda: float(step(iterator)["loss"])


def inference(
    rho: int,
    width: int,
    shape: list[int],
    threads: int,
    frontend: str | None = None,
) -> Callable[[], Any]:
    """Prepare inference with the exported model, loaded with plain TensorFlow."""
    from rfkeras.export import saved_model

    set_threads(threads)
    tagger = zoo.create_model(
        "resnet_rf", CLASSES, rho=rho, width=width, frontend=frontend, initialization="he"
    )
    _randomise_statistics(tagger)
    waveforms = tf.constant(batch(tagger, shape))
    with tempfile.TemporaryDirectory() as folder:
        path = saved_model(tagger, Path(folder, "1"), warmup=False)
        served = tf.saved_model.load(str(path)).signatures["serving_default"]
    name = tagger.inputs[0].name
    return lambda: served(**{name: waveforms})["scores"].numpy()


def _randomise_statistics(model: keras.Model) -> None:
    """Set means and offsets of batch normalisation; TensorFlow optimises zeros away."""
    rng = np.random.default_rng(2)
    for variable in model.variables:
        if variable.path.endswith(("beta", "moving_mean")):
            variable.assign(rng.normal(0.0, 0.1, variable.shape))


def gemm(size: int, threads: int) -> Callable[[], Any]:
    """Prepare a product of two square matrices."""
    set_threads(threads)
    a, b = tf.random.normal((size, size)), tf.random.normal((size, size))
    return lambda: tf.matmul(a, b).numpy()
