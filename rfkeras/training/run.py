"""Training from the first step, or from a snapshot, to the final weights."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rfkeras.audio.io import AudioFormat
from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import DatasetError
from rfkeras.evaluation.metrics import best_f1_thresholds
from rfkeras.evaluation.report import Report, write_report
from rfkeras.export import saved_model, verify
from rfkeras.frontend import preset_config
from rfkeras.layers import find_head
from rfkeras.tasks import MULTI_LABEL
from rfkeras.training.callbacks import (
    Board,
    Progress,
    ProgressDisplay,
    Recorder,
    Selection,
    first_eligible_epoch,
    is_averaged,
    make_selection,
    say,
)
from rfkeras.training.data import Inputs, open_inputs
from rfkeras.training.distributed import Workers, check_batch_size, open_workers, raising_lost
from rfkeras.training.pruning import Pruner, empty_kernels, write_counts
from rfkeras.training.run_dir import (
    RunFolder,
    copy_values,
    state_variables,
    write_environment,
    write_training_clips,
)
from rfkeras.training.scoring import Validation, score_clips, score_split, validation_figures
from rfkeras.training.setup import (
    build_tagger,
    build_training_model,
    load_final_weights,
    prepare,
)
from rfkeras.training.step import TrainingModel
from rfkeras.utils.files import replacing
from zoo.pretrained import load_model


def train_epochs(
    model: TrainingModel,
    config: TrainConfig,
    folder: RunFolder,
    inputs: Inputs,
    selection: Selection,
    resume: bool,
    workers: Workers,
) -> float:
    """Train to the end and load the final weights.

    Args:
        model: What trains, built under the workers' strategy.
        config: The resolved configuration.
        folder: The run's folder; the chief alone uses it.
        inputs: The data.
        selection: Which epoch is the best, and when to stop.
        resume: Go on from the folder's last snapshot, if it has one.
        workers: The processes that train together.

    Returns:
        The monitored figure of the final weights on the validation split.
    """
    steps = inputs.steps_per_epoch
    total_steps = config.epochs * steps
    validate = Validation(model.tagger, inputs, workers)
    pruner = Pruner(model, config) if config.prunes else None

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
        writes=workers.is_chief,
    )
    if workers.is_chief:
        if resume and folder.last.exists():
            recorder.restore()
        else:
            prepare(model.tagger, config, inputs, folder)
    workers.share(recorder.variables)
    progress.take(workers.agree(lambda: asdict(progress)))
    display = ProgressDisplay(
        total_steps, progress.steps_done, config.epochs, selection.monitor
    )
    callbacks: list[keras.callbacks.Callback] = [recorder]
    if workers.is_chief:
        callbacks += [display, Board(folder.tensorboard)]
    frozen_steps = config.frozen_epochs * steps
    model.freeze(progress.steps_done < frozen_steps)
    try:
        for start, stop in fit_calls(progress.steps_done, total_steps, steps, frozen_steps):
            if progress.stopped:
                break
            model.freeze(start < frozen_steps)
            model.fit(
                workers.batches(partial(inputs.training, start, stop)),
                initial_epoch=start // steps,
                epochs=-(-stop // steps),
                steps_per_epoch=min(steps, stop - start),
                callbacks=callbacks,
                verbose=0,
            )
    finally:
        display.stop()
        recorder.release_signals()
    return load_final_weights(
        model, config, folder, inputs, validate, progress, selection, workers
    )


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


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves.

    Attributes:
        folder: Its folder.
        report: Figures on the test split.
        export_difference: Largest difference between the exported model's probabilities
            and the model's own; None where nothing was to be exported.
    """

    folder: RunFolder
    report: Report
    export_difference: float | None


def finish(trained: keras.Model, folder: RunFolder, inputs: Inputs) -> TrainResult:
    """Save the model, score the test split and, unless told not to, export and compare.

    The saved file is what is scored and exported, so that both speak of what users load.
    It keeps the decision thresholds: with `thresholds: validation`, those that give each
    tag the most F1 on the validation split, of scores averaged over a clip's windows.

    Args:
        trained: The trained model, its weights as they are to be published: exact zeros
            stay zeros in all files.
        folder: Where everything goes.
        inputs: The data, and the run's configuration.

    Raises:
        ExportError: The exported model differs from the trained one.
        DatasetError: Too many test files cannot be read.
    """
    with replacing(folder.model, suffix=".keras") as aside:  # Keras insists on its suffix
        trained.save(aside)
        model = load_model(aside)
        _keep_thresholds(model, inputs)
        model.save(aside)  # once more, with thresholds and without the optimiser
    model = load_model(folder.model)
    say("Scoring the test split")
    test = score_split(model, inputs, "test")
    write_report(
        test.report,
        folder.report,
        test.scores,
        test.labels,
        test.mask,
        history=read_columns(folder.log),
        monitor=inputs.config.monitor,
        first_epoch=first_eligible_epoch(inputs.config),
        keys=test.keys,
    )
    difference = None
    if inputs.config.export:
        say("Exporting, and comparing the export in a clean process")
        difference = _export(model, folder, inputs)
    return TrainResult(folder, test.report, difference)


def _keep_thresholds(model: keras.Model, inputs: Inputs) -> None:
    head = find_head(model)
    if head is None or head.task != MULTI_LABEL:
        return
    if inputs.config.thresholds == "half":
        head.thresholds = None
        return
    say("Choosing each tag's threshold on the validation split")
    scores, labels, mask, _ = score_clips(model, inputs, "validation")
    best = best_f1_thresholds(scores, labels, mask)
    head.thresholds = tuple(float(threshold) for threshold in best)


def _export(model: keras.Model, folder: RunFolder, inputs: Inputs) -> float:
    """Export, compare in a clean process, and only then put it in its place."""
    aside = folder.saved_model.with_name("unchecked")
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed here
    saved_model(model, aside, inputs.dataset.label_names)
    batches, _ = inputs.evaluation("validation")
    waveforms = np.asarray(next(iter(batches)))
    short = waveforms[:1, : inputs.audio.sample_rate_hz // 10]
    difference = verify(aside, model, [waveforms[:2], waveforms[:1, :-1000], short])
    shutil.rmtree(folder.saved_model, ignore_errors=True)  # of the same run, finished twice
    aside.replace(folder.saved_model)
    return difference


def read_columns(path: Path) -> dict[str, Sequence[float]]:
    """Columns of log.csv by name."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]} if rows else {}


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
