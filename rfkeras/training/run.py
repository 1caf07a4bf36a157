"""A training run from configuration to finished run folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rfkeras.config import TrainConfig
from rfkeras.data.audio import AudioFormat
from rfkeras.errors import DatasetError
from rfkeras.frontend import preset_config
from rfkeras.training.build import build_tagger, build_training_model
from rfkeras.training.epochs import train_epochs
from rfkeras.training.finish import TrainResult, finish
from rfkeras.training.inputs import Inputs, open_inputs
from rfkeras.training.progress import say
from rfkeras.training.pruning import empty_kernels, write_counts
from rfkeras.training.run_folder import RunFolder, write_environment, write_training_clips
from rfkeras.training.scoring import validation_figures
from rfkeras.training.selection import make_selection
from rfkeras.training.snapshot import copy_values, state_variables
from rfkeras.training.strategy import check_batch_size, open_workers
from rfkeras.training.training_model import TrainingModel
from rfkeras.training.workers import Workers, raising_lost


@dataclass(frozen=True)
class FittedRun:
    """A run whose training is over, its test split untouched.

    Attributes:
        model: The tagger with its final weights, float32, on one device.
        inputs: The data.
        figure: The monitored figure of these weights on the validation split.
    """

    model: keras.Model
    inputs: Inputs
    figure: float


def train(
    config: TrainConfig,
    folder: RunFolder,
    resume: bool = False,
    workers: Workers | None = None,
) -> TrainResult | None:
    """Train, evaluate on the test split once, and export.

    Arguments and errors as for `fit`, and:

    Returns:
        The result; all files of the run folder are written by then. None in a worker that is
        not the chief.

    Raises:
        ExportError: The exported model differs from the trained one.
    """
    workers = workers or open_workers(config.devices)
    fitted = fit(config, folder, resume, workers)
    result = finish(fitted.model, folder, fitted.inputs) if workers.is_chief else None
    workers.exchange(b"")  # nobody leaves before the chief is done
    return result


def fit(
    config: TrainConfig,
    folder: RunFolder,
    resume: bool = False,
    workers: Workers | None = None,
) -> FittedRun:
    """Train and choose the final weights by the validation split, and no more.

    Args:
        config: The resolved configuration.
        folder: The run's folder, made by `create_run_folder`; of several workers the chief
            alone reads it and writes to it.
        resume: Go on from the folder's last snapshot, if it has one. The weights come out
            as if the run had never been interrupted.
        workers: The processes that train together; None: this one alone, on the devices of
            the configuration.

    Raises:
        ConfigError: An option does not fit the model, the data or the machine.
        DatasetError: The data cannot be used.
        CheckpointError: The snapshot cannot be used.
        Interrupted: Ctrl-C or SIGTERM; the run can be resumed.
        WorkerLost: Another worker is gone; started again with `resume`, all go on.
    """
    keras.utils.set_random_seed(config.seed)
    workers = workers or open_workers(config.devices)
    check_batch_size(config.batch_size, workers.strategy)
    rate_hz = preset_config(config.frontend)["sample_rate_hz"]
    audio = AudioFormat(rate_hz, config.input_channels)
    inputs = open_inputs(config, audio, folder.bad_files if workers.is_chief else None)
    _check_same_data(inputs, workers)
    devices = [device.name for device in tf.config.list_logical_devices()]
    data = {
        "name": inputs.dataset.name,
        "clips": {name: len(split) for name, split in inputs.dataset.splits.items()},
        "resampling": inputs.resampling,
        "bad_files": len(inputs.bad_files.files),
        "fingerprints": inputs.fingerprints,
        **inputs.dataset.info,
    }
    _check_validation(inputs)
    selection = make_selection(config, _figure_names(inputs))
    if workers.is_chief:
        write_environment(folder, devices, data)
        write_training_clips(folder, inputs.dataset.name, inputs.dataset.split("train").keys)
    model = build_training_model(config, inputs, workers.strategy)
    if workers.is_chief:
        _announce(model, inputs, devices)
    try:
        with raising_lost():
            figure = train_epochs(model, config, folder, inputs, selection, resume, workers)
    except tf.errors.OpError:
        inputs.bad_files.raise_if_stopped()  # tf.data hides the cause; this shows it
        raise
    tagger = _finished(model, config, folder, inputs) if workers.is_chief else model.tagger
    return FittedRun(tagger, inputs, figure)


def _check_same_data(inputs: Inputs, workers: Workers) -> None:
    """Refuse to train where a worker reads other clips or labels than the chief."""
    for index, fingerprints in enumerate(workers.collect(inputs.fingerprints)):
        differing = [n for n, own in inputs.fingerprints.items() if fingerprints.get(n) != own]
        if differing:
            raise DatasetError(
                f"Worker {index} finds other data than worker {workers.index}: split "
                f"{', '.join(differing)} holds other clips or labels. All workers must read "
                "the same files; look for missing or broken ones on one of the machines."
            )


def _figure_names(inputs: Inputs) -> list[str]:
    """Names of the validation figures: those of scores that know nothing."""
    split = inputs.dataset.split("validation")
    scores = np.full(split.labels.shape, 1.0 / split.labels.shape[1])
    return list(validation_figures(scores, split.labels, split.mask, inputs.dataset.task))


def _finished(
    model: TrainingModel, config: TrainConfig, folder: RunFolder, inputs: Inputs
) -> keras.Model:
    """The trained tagger as a float32 model on one device, whatever trained it."""
    tagger = build_tagger(config, inputs)
    copy_values(state_variables(model.tagger), state_variables(tagger))
    if config.prunes:
        left = write_counts(tagger, folder.pruning)
        say(f"Pruned: {left:,} parameters are left, counted in {folder.pruning}")
        empty = empty_kernels(tagger)
        if empty:
            say(
                f"Note: nothing is left of {len(empty)} kernels, {empty[0]} first. Prune a "
                "smaller share, more slowly, or with --prune-scope layer."
            )
    return tagger


def _check_validation(inputs: Inputs) -> None:
    split = inputs.dataset.split("validation")
    if not (split.labels * split.mask).any():
        raise DatasetError(
            f"No clip of the {len(split)} for validation is known to have a tag, so the best "
            "epoch cannot be told. Use more clips, or a larger --validation-share."
        )


def _announce(model: TrainingModel, inputs: Inputs, devices: list[str]) -> None:
    clips = ", ".join(f"{len(s):,} {name}" for name, s in inputs.dataset.splits.items())
    say(f"Data: {inputs.dataset.name} ({inputs.dataset.task}), clips: {clips}")
    for name, lines in inputs.resampling.items():
        for line in lines:
            say(f"Resampling: {name}, {line}")
    if inputs.bad_files.files:
        count = len(inputs.bad_files.files)
        say(f"Skipping {count:,} unusable files, listed in {inputs.bad_files.csv_path}")
    parameters = _count(model.tagger.trainable_variables)
    say(f"Model: {model.name}, {parameters:,} parameters, on {', '.join(devices)}")
    if inputs.config.freeze == "trunk":
        parameters = _count(model.classifier.trainable_variables)
        after = inputs.config.unfreeze_after
        until = "" if after is None else f", the others from epoch {after + 1}"
        say(f"Frozen trunk: {parameters:,} parameters train{until}")


def _count(variables: list[Any]) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)
