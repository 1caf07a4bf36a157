"""Statistics of batch normalisation for weights that were not trained with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rfkeras.errors import ConfigError
from rfkeras.training.training_model import TrainingModel


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
