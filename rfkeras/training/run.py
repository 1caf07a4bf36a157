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
from rfkeras.training.final import load_final_weights
from rfkeras.training.finish import TrainResult, finish
from rfkeras.training.initial import prepare
from rfkeras.training.inputs import Inputs, open_inputs
from rfkeras.training.progress import ProgressDisplay, say
from rfkeras.training.pruning import Pruner, empty_kernels, write_counts
from rfkeras.training.recorder import Progress, Recorder
from rfkeras.training.run_folder import RunFolder, write_environment, write_training_clips
from rfkeras.training.scoring import predict_scores, validation_figures
from rfkeras.training.selection import Selection, is_averaged, make_selection
from rfkeras.training.snapshot import state_variables
from rfkeras.training.strategy import check_batch_size, make_strategy
from rfkeras.training.training_model import TrainingModel


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


def train(config: TrainConfig, folder: RunFolder, resume: bool = False) -> TrainResult:
    """Train, evaluate on the test split once, and export.

    Arguments and errors as for `fit`, and:

    Returns:
        The result; all files of the run folder are written by then.

    Raises:
        ExportError: The exported model differs from the trained one.
    """
    fitted = fit(config, folder, resume)
    return finish(fitted.model, folder, fitted.inputs)


def fit(config: TrainConfig, folder: RunFolder, resume: bool = False) -> FittedRun:
    """Train and choose the final weights by the validation split, and no more.

    Args:
        config: The resolved configuration.
        folder: The run's folder, made by `create_run_folder`.
        resume: Go on from the folder's last snapshot, if it has one. The weights come out
            as if the run had never been interrupted.

    Raises:
        ConfigError: An option does not fit the model, the data or the machine.
        DatasetError: The data cannot be used.
        CheckpointError: The snapshot cannot be used.
        Interrupted: Ctrl-C; the run can be resumed.
    """
    keras.utils.set_random_seed(config.seed)
    strategy = make_strategy(config.devices)
    check_batch_size(config.batch_size, strategy)
    rate_hz = preset_config(config.frontend)["sample_rate_hz"]
    audio = AudioFormat(rate_hz, config.input_channels)
    inputs = open_inputs(config, audio, folder.bad_files)
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
    write_environment(folder, devices, data)
    write_training_clips(folder, inputs.dataset.name, inputs.dataset.split("train").keys)
    model = build_training_model(config, inputs, strategy)
    _announce(model, inputs, devices)
    try:
        figure = _fit(model, config, folder, inputs, selection, resume)
    except tf.errors.OpError:
        inputs.bad_files.raise_if_stopped()  # tf.data hides the cause; this shows it
        raise
    return FittedRun(_finished(model, config, folder, inputs), inputs, figure)


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
    pairs = zip(state_variables(tagger), state_variables(model.tagger), strict=True)
    for variable, trained in pairs:
        variable.assign(trained.numpy())
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


def _fit(
    model: TrainingModel,
    config: TrainConfig,
    folder: RunFolder,
    inputs: Inputs,
    selection: Selection,
    resume: bool,
) -> float:
    """Train to the end and load the final weights; returns their monitored figure."""
    steps = inputs.steps_per_epoch
    total_steps = config.epochs * steps
    val_batches, val_plan = inputs.evaluation("validation")
    pruner = Pruner(model, config) if config.prunes else None

    def validate() -> dict[str, float]:
        scores = predict_scores(model.tagger, val_batches, val_plan)
        labels, mask = inputs.truth("validation", val_plan.kept_rows)
        return validation_figures(scores, labels, mask, inputs.dataset.task)

    def end_epoch(epoch: int) -> None:
        if is_averaged(config, epoch):
            model.average_epoch()
        if pruner is not None and epoch < config.epochs:
            pruner.prune_for(epoch)  # the next, counted from 0

    progress = Progress(data=inputs.fingerprints)
    recorder = Recorder(
        folder,
        best_variables=state_variables(model.tagger),
        variables=[*state_variables(model), *model.optimizer.variables],
        steps_per_epoch=steps,
        checkpoint_steps=config.checkpoint_steps,
        validate=validate,
        selection=selection,
        end_epoch=end_epoch,
        progress=progress,
    )
    if resume and folder.last.exists():
        recorder.restore()
    else:
        prepare(model.tagger, config, inputs, folder)
    display = ProgressDisplay(
        total_steps, progress.steps_done, config.epochs, selection.monitor
    )
    callbacks = [
        recorder,
        display,
        keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False, profile_batch=0),
    ]
    frozen_steps = config.frozen_epochs * steps
    model.freeze(progress.steps_done < frozen_steps)
    try:
        for start, stop in fit_calls(progress.steps_done, total_steps, steps, frozen_steps):
            if progress.stopped:
                break
            model.freeze(start < frozen_steps)
            model.fit(
                inputs.training(start, stop),
                initial_epoch=start // steps,
                epochs=-(-stop // steps),
                steps_per_epoch=min(steps, stop - start),
                callbacks=callbacks,
                verbose=0,
            )
    finally:
        display.stop()
        recorder.release_signal()
    return load_final_weights(model, config, folder, inputs, validate, progress, selection)


def fit_calls(
    start: int, total: int, steps_per_epoch: int, frozen_steps: float = 0
) -> list[tuple[int, int]]:
    """Calls of `model.fit`, as (first step, step after the last), that finish a run.

    An epoch that was interrupted is finished in a call of its own, for `fit` counts the
    steps of an epoch from its beginning. So are the epochs of the frozen trunk, whose step
    is another.
    """
    ends = [total]
    if start < frozen_steps < total:
        ends.insert(0, int(frozen_steps))
    if start % steps_per_epoch:
        ends.insert(0, (start // steps_per_epoch + 1) * steps_per_epoch)
    calls = []
    for end in ends:
        if start < end:
            calls.append((start, end))
            start = end
    return calls
