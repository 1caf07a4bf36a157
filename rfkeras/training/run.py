"""A training run from configuration to finished run folder."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

import zoo
from rfkeras.config import TrainConfig
from rfkeras.data.audio import AudioFormat
from rfkeras.errors import DatasetError
from rfkeras.evaluation.metrics import mean_average_precision
from rfkeras.frontend import create_frontend, preset_config
from rfkeras.training.finish import TrainResult, finish
from rfkeras.training.inputs import Inputs, open_inputs
from rfkeras.training.losses import MaskedBinaryCrossentropy
from rfkeras.training.progress import ProgressDisplay, say
from rfkeras.training.recorder import Progress, Recorder
from rfkeras.training.run_folder import RunFolder, write_environment
from rfkeras.training.schedule import HoldThenLinear
from rfkeras.training.scoring import masked_cross_entropy, predict_scores
from rfkeras.training.snapshot import load_snapshot, state_variables
from rfkeras.training.strategy import check_batch_size, make_strategy


def train(config: TrainConfig, folder: RunFolder, resume: bool = False) -> TrainResult:
    """Train, evaluate on the test split once, and export.

    Args:
        config: The resolved configuration.
        folder: The run's folder, made by `create_run_folder`.
        resume: Go on from the folder's last snapshot, if it has one. The weights come out
            as if the run had never been interrupted.

    Returns:
        The result; all files of the run folder are written by then.

    Raises:
        ConfigError: An option does not fit the model, the data or the machine.
        DatasetError: The data cannot be used.
        CheckpointError: The snapshot cannot be used.
        ExportError: The exported model differs from the trained one.
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
    write_environment(folder, devices, data)
    model = _build(config, inputs, strategy)
    _announce(model, inputs, devices)
    try:
        _fit(model, config, folder, inputs, strategy, resume)
    except tf.errors.OpError:
        inputs.bad_files.raise_if_stopped()  # tf.data hides the cause; this shows it
        raise
    load_snapshot(folder.best, state_variables(model))
    return finish(model, folder, inputs)


def _check_validation(inputs: Inputs) -> None:
    split = inputs.dataset.split("validation")
    if not (split.labels * split.mask).any():
        raise DatasetError(
            f"No clip of the {len(split)} for validation is known to have a tag, so the best "
            "epoch cannot be told. Use more clips, or a larger --validation-share."
        )


def _announce(model: keras.Model, inputs: Inputs, devices: list[str]) -> None:
    clips = ", ".join(f"{len(s):,} {name}" for name, s in inputs.dataset.splits.items())
    say(f"Data: {inputs.dataset.name}, clips: {clips}")
    for name, lines in inputs.resampling.items():
        for line in lines:
            say(f"Resampling: {name}, {line}")
    if inputs.bad_files.files:
        count = len(inputs.bad_files.files)
        say(f"Skipping {count:,} unusable files, listed in {inputs.bad_files.csv_path}")
    parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    say(f"Model: {model.name}, {parameters:,} parameters, on {', '.join(devices)}")


def _build(config: TrainConfig, inputs: Inputs, strategy: Any) -> keras.Model:
    steps = inputs.steps_per_epoch
    with strategy.scope():
        frontend = create_frontend(config.frontend, fixed_floor=config.fixed_floor)
        model = zoo.create_model(
            config.model,
            label_names=inputs.dataset.label_names,
            frontend=frontend,
            input_channels=config.input_channels,
            **config.model_options(),
        )
        schedule = HoldThenLinear(
            config.learning_rate,
            hold_steps=round(config.hold_epochs * steps),
            end_step=config.epochs * steps,
            final_learning_rate=config.final_learning_rate,
        )
        model.compile(
            optimizer=keras.optimizers.Adam(schedule),
            loss=MaskedBinaryCrossentropy(),
            jit_compile=False,
        )
        model.optimizer.build(model.trainable_variables)
    return model


def _fit(
    model: keras.Model,
    config: TrainConfig,
    folder: RunFolder,
    inputs: Inputs,
    strategy: Any,
    resume: bool,
) -> None:
    steps = inputs.steps_per_epoch
    total_steps = config.epochs * steps
    val_batches, val_plan = inputs.evaluation("validation")

    def validate() -> dict[str, float]:
        scores = predict_scores(model, val_batches, val_plan)
        labels, mask = inputs.truth("validation", val_plan.kept_rows)
        return {
            "val_loss": masked_cross_entropy(scores, labels, mask),
            "val_mAP": mean_average_precision(scores, labels, mask),
        }

    progress = Progress(data=inputs.fingerprints)
    recorder = Recorder(
        folder,
        model_variables=state_variables(model),
        optimizer_variables=model.optimizer.variables,
        steps_per_epoch=steps,
        checkpoint_steps=config.checkpoint_steps,
        validate=validate,
        progress=progress,
    )
    if resume and folder.last.exists():
        recorder.restore()
    else:
        say("Computing mean and deviation of every mel band over the training clips")
        waveforms = (batch[0] for batch in inputs.training(0, steps))
        model.get_layer("frontend").adapt(waveforms)
        if config.prior_bias:
            train_split = inputs.dataset.split("train")
            bias = log_odds(train_split.labels, train_split.mask)
            model.get_layer("classifier_bn").beta.assign(bias)
    display = ProgressDisplay(total_steps, progress.steps_done, config.epochs)
    callbacks = [
        recorder,
        display,
        keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False, profile_batch=0),
    ]
    try:
        for start, stop in fit_calls(progress.steps_done, total_steps, steps):
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


def log_odds(labels: NDArray[Any], mask: NDArray[Any]) -> NDArray[np.float32]:
    """Log-odds of each tag among its known labels, smoothed by half a clip either way."""
    positives = (labels * mask).sum(axis=0) + 0.5
    negatives = ((1 - labels) * mask).sum(axis=0) + 0.5
    return np.asarray(np.log(positives / negatives), np.float32)


def fit_calls(start: int, total: int, steps_per_epoch: int) -> list[tuple[int, int]]:
    """Calls of `model.fit`, as (first step, step after the last), that finish a run.

    An epoch that was interrupted is finished in a call of its own, for `fit` counts the
    steps of an epoch from its beginning.
    """
    calls = []
    if start % steps_per_epoch and start < total:
        boundary = (start // steps_per_epoch + 1) * steps_per_epoch
        calls.append((start, boundary))
        start = boundary
    if start < total:
        calls.append((start, total))
    return calls
