"""The models of a run, made from its configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

import zoo
from rfkeras.config import TrainConfig
from rfkeras.frontend import create_frontend
from rfkeras.layers import Mixup, RandomGain, RandomTimeRoll, SpecAugment
from rfkeras.training.class_weights import class_weights
from rfkeras.training.inputs import Inputs
from rfkeras.training.losses import loss_for
from rfkeras.training.optimizer import make_optimizer
from rfkeras.training.training_model import TrainingModel


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
