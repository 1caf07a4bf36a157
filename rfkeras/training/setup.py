"""The models of a run, made from its configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

import zoo
from rfkeras.config.recipes import file_of
from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import ConfigError
from rfkeras.frontend import create_frontend
from rfkeras.layers import Mixup, RandomGain, RandomTimeRoll, SpecAugment
from rfkeras.training.callbacks import Progress, Selection, say, spoken
from rfkeras.training.data import Inputs
from rfkeras.training.distributed import Workers
from rfkeras.training.losses import class_weights, loss_for
from rfkeras.training.optimizer import make_optimizer
from rfkeras.training.run_dir import RunFolder, load_snapshot, state_variables
from rfkeras.training.step import TrainingModel
from rfkeras.utils.files import write_text
from zoo.pretrained import sha256_of
from zoo.transfer import Transferred, load_initial


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Keras' global dtype policy within the block; the old one comes back after it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build_tagger(
    config: TrainConfig, inputs: Inputs, num_classes: int | None = None
) -> keras.Model:
    """The model of a run: waveform in, logits out, weights not trained.

    Args:
        config: The run's configuration.
        inputs: Its data.
        num_classes: Another number of classes, which have no names then.
    """
    return zoo.create_model(
        config.model,
        num_classes,
        label_names=inputs.dataset.label_names if num_classes is None else None,
        task=inputs.dataset.task,
        frontend=create_frontend(config.frontend, fixed_floor=config.fixed_floor),
        input_channels=config.input_channels,
        **config.model_options(),
    )


def build_training_model(config: TrainConfig, inputs: Inputs, strategy: Any) -> TrainingModel:
    """The same model with everything around it that trains it, compiled.

    Raises:
        ConfigError: Class weights for tags that do not exist.
    """
    split = inputs.dataset.split("train")
    with strategy.scope(), dtype_policy(config.precision):
        tagger = build_tagger(config, inputs)
        tagger.jit_compile = False  # of predict; "auto" would try XLA on the front-end
        model = TrainingModel(
            tagger,
            waveform_augmentation=[RandomGain(config.gain_db)] if config.gain_db else [],
            augmentation=_spectrogram_augmentation(config),
            mixup=Mixup(config.mixup) if config.mixup else None,
            class_weights=class_weights(
                config.class_weights,
                split.labels,
                split.mask,
                inputs.dataset.label_names,
                inputs.dataset.task,
            ),
            averaging=config.averaging,
            ema_decay=config.ema_decay,
            prune=config.prunes,
            jit=config.jit,
            may_freeze=config.freeze == "trunk" or config.trunk_lr_scale != 1.0,
            name=config.model,
        )
        variables = tagger.trainable_variables
        model.compile(
            optimizer=make_optimizer(
                config, variables, inputs.steps_per_epoch, model.trunk_places
            ),
            loss=loss_for(inputs.dataset.task),
            jit_compile=False,
        )
        model.optimizer.build(variables)
    return model


def _spectrogram_augmentation(config: TrainConfig) -> list[keras.layers.Layer]:
    layers: list[keras.layers.Layer] = [RandomTimeRoll()] if config.time_roll else []
    if config.spec_augment:
        layers.append(
            SpecAugment(
                config.time_masks,
                config.time_mask_frames,
                config.frequency_masks,
                config.frequency_mask_bands,
            )
        )
    return layers


def recompute_statistics(model: TrainingModel, waveforms: Iterable[Any]) -> None:
    """Set every moving mean and variance to the plain mean over these batches.

    Averaged weights have statistics of their own: those of training belong to other
    weights. As usual after stochastic weight averaging, each batch runs through the network
    in training mode (normalised by its own statistics; dropout and Shake-Shake drawn anew),
    and the batches count alike. The batches are not augmented, for the clips that are scored
    later are not either.

    Args:
        model: Its tagger gets the statistics, of a frozen trunk the classifier alone;
            nothing else changes, no seed either.
        waveforms: Batches of the training set, shaped as the tagger's input.

    Raises:
        ConfigError: There was no batch.
    """
    layers = [
        layer
        for layer in model.trained_part._flatten_layers()  # also those inside of blocks
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    variables = [v for layer in layers for v in (layer.moving_mean, layer.moving_variance)]
    if not variables:
        return
    statistics = {id(variable) for variable in variables}
    others = [v for v in model.trunk.non_trainable_variables if id(v) not in statistics]

    def batch_statistics(waveform: Any) -> tuple[list[Any], dict[int, Any]]:
        spectrogram = waveform if model.frontend is None else model.frontend(waveform)
        inputs = model.fixed_part(spectrogram)
        with keras.StatelessScope() as scope:  # collects what would be assigned
            model.trained_part(inputs, training=True)
        moved = {i: scope.get_current_value(v) for i, v in enumerate(others)}
        return (
            [scope.get_current_value(variable) for variable in variables],
            {i: value for i, value in moved.items() if value is not None},
        )

    compiled = tf.function(batch_statistics, autograph=False)
    momenta = [layer.momentum for layer in layers]
    before = [variable.numpy() for variable in others]
    sums = [np.zeros(variable.shape) for variable in variables]
    count = 0
    try:
        for layer in layers:
            layer.momentum = 0.0  # the new value is then the batch's own
        for waveform in waveforms:
            values, moved = compiled(waveform)
            for total, value in zip(sums, values, strict=True):
                total += value.numpy()
            for i, value in moved.items():  # seeds: the next batch must not draw the same
                others[i].assign(value)
            count += 1
    finally:
        for variable, value in zip(others, before, strict=True):
            variable.assign(value)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    if count == 0:
        raise ConfigError("recompute_statistics needs at least one batch of waveforms.")
    for variable, total in zip(variables, sums, strict=True):
        variable.assign((total / count).astype(np.float32))


def load_final_weights(
    model: TrainingModel,
    config: TrainConfig,
    folder: RunFolder,
    inputs: Inputs,
    validate: Callable[[], dict[str, float]],
    progress: Progress,
    selection: Selection,
    workers: Workers,
) -> float:
    """Give the tagger the weights that the run ends with, and write down which they are.

    Of several workers the chief's tagger gets them, and the chief writes. The model must be
    as it was after its last step. An average of weights gets statistics
    of its own from one epoch of training batches, is validated like an epoch, and is taken
    if it is better than the best epoch, or if it is what was asked for.

    Returns:
        The monitored figure of these weights.
    """
    monitor = selection.monitor
    candidates: dict[str, dict[str, Any]] = {}
    if progress.best_epoch:
        candidates["best"] = {"epoch": progress.best_epoch, monitor: progress.best}
    chosen = "last" if config.final_weights == "last" else "best"
    if chosen == "last":
        candidates["last"] = dict(progress.history[-1])
    elif config.averaging != "none":
        model.load_average()
        if workers.is_chief:
            say("Computing the statistics of the averaged weights, and validating them")
            recompute_statistics(
                model, (batch[0] for batch in inputs.training(0, inputs.steps_per_epoch))
            )
        workers.share(state_variables(model.tagger))
        figures = validate()
        candidates["average"] = figures
        if workers.is_chief:
            say(f"Averaged weights: {spoken(monitor)} {figures[monitor]:.4f}")
        wanted = config.final_weights == "average"
        if wanted or selection.better(figures[monitor], progress.best):
            chosen = "average"
    figures = candidates[chosen]
    if not workers.is_chief:
        return float(figures[monitor])
    if chosen == "best":
        load_snapshot(folder.best, state_variables(model.tagger))
    record = {"weights": chosen, "monitor": monitor, "candidates": candidates}
    write_text(folder.choice, json.dumps(record, indent=2) + "\n")
    epoch = f" of epoch {figures['epoch']}" if "epoch" in figures else ""
    say(f"Final weights: {chosen}{epoch}, {spoken(monitor)} {figures[monitor]:.4f}")
    return float(figures[monitor])


def prepare(
    tagger: keras.Model, config: TrainConfig, inputs: Inputs, folder: RunFolder
) -> None:
    """Load the weights to start from, and set what the training data tells.

    The mean and deviation of the mel bands are those of the weights, whose trunk expects
    them; the training data tells them where the weights have none. So with prior_bias:
    a classifier that was loaded keeps its own.

    Raises:
        ConfigError: prior_bias for a model whose classifier has no such bias.
    """
    classifier = [layer for layer in tagger.layers if layer.name == "classifier_bn"]
    if config.prior_bias and not classifier:
        raise ConfigError(
            f"prior_bias needs a model whose classifier ends in batch normalisation; "
            f"{config.model!r} does not: leave prior_bias off."
        )
    start = None
    if config.init_weights is not None:
        start = load_initial_weights(tagger, config, inputs, folder)
    if start is None or not start.has_frontend:
        say("Computing mean and deviation of every mel band over the training clips")
        waveforms = (batch[0] for batch in inputs.training(0, inputs.steps_per_epoch))
        tagger.get_layer("frontend").adapt(waveforms)
    if config.prior_bias and (start is None or not start.has_head):
        split = inputs.dataset.split("train")
        bias = first_logits(split.labels, split.mask, inputs.dataset.task)
        classifier[0].beta.assign(bias)


def first_logits(labels: NDArray[Any], mask: NDArray[Any], task: str) -> NDArray[np.float32]:
    """Logits of a model that knows the tags' frequencies alone.

    Multi-label: the log-odds of each tag among its known labels; single-label: the log of
    each class's share. Smoothed by half a clip.
    """
    positives = (labels * mask).sum(axis=0) + 0.5
    if task == "single_label":
        return np.asarray(np.log(positives / positives.sum()), np.float32)
    negatives = ((1 - labels) * mask).sum(axis=0) + 0.5
    return np.asarray(np.log(positives / negatives), np.float32)


def load_initial_weights(
    tagger: keras.Model, config: TrainConfig, inputs: Inputs, folder: RunFolder
) -> Transferred:
    """Give a model the weights that the configuration names, and write down which they are.

    Args:
        tagger: The model of the run, changed in place.
        config: With init_weights.
        inputs: The data, whose classes may be others than those of the weights.
        folder: The run's folder.

    Raises:
        ConfigError: There are no such weights.
        CheckpointError: They cannot be read, or are of another network.
    """
    weights = str(config.init_weights)
    path = file_of(weights, config.model)
    found = load_initial(tagger, path, lambda classes: build_tagger(config, inputs, classes))
    record = {
        "weights": weights,
        "file": str(path),
        "sha256": sha256_of(path),
        "fresh_layers": list(found.fresh),
        "mel_statistics": "of the weights" if found.has_frontend else "of the training data",
    }
    write_text(folder.initial_weights, json.dumps(record, indent=2) + "\n")
    classes = "the classifier too" if found.has_head else "a new classifier for other classes"
    say(f"Starting from {weights}, {classes}")
    if found.fresh:
        say(f"Untrained at first: {', '.join(found.fresh)}")
    return found
