"""A run, from its configuration to its results. Read it from top to bottom.

`train` is what `train.py` calls. It fits a model, then scores the test split once, and saves
and exports the model. `fit` is everything up to the final weights, and all that a search needs.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rfkeras.config.train_config import TrainConfig
from rfkeras.datasets.clip_features import open_features
from rfkeras.errors import ConfigError, DatasetError
from rfkeras.evaluation.metrics import best_f1_thresholds
from rfkeras.evaluation.report import write_report
from rfkeras.evaluation.result import Report
from rfkeras.export import saved_model, verify
from rfkeras.frontend import find_frontend
from rfkeras.layers import find_head
from rfkeras.tasks import MULTI_LABEL
from rfkeras.training.callbacks import (
    CheckpointCallback,
    Diverged,
    ProgressDisplay,
    Selection,
    TensorBoardLogger,
    TrainingState,
    make_selection,
    metric_label,
)
from rfkeras.training.data import Inputs, open_inputs
from rfkeras.training.distributed import (
    Workers,
    check_batch_size,
    detecting_lost_workers,
    open_workers,
)
from rfkeras.training.losses import first_logits
from rfkeras.training.pruning import Pruner, empty_kernels, write_counts
from rfkeras.training.run_dir import (
    RunFolder,
    copy_values,
    load_snapshot,
    read_log,
    read_record,
    state_variables,
    write_environment,
    write_training_clips,
)
from rfkeras.training.scoring import Validation, score_clips, score_split, validation_metrics
from rfkeras.training.step import (
    TrainingModel,
    audio_format,
    build_tagger,
    build_training_model,
    recompute_statistics,
)
from rfkeras.utils.files import atomic_write, write_text
from rfkeras.utils.model_graph import first_not_finite
from rfkeras.utils.progress import print_status
from rfkeras.utils.text import count
from zoo.pretrained import load_model, sha256_of
from zoo.transfer import Transferred, load_weights, weights_file


@dataclass(frozen=True)
class TrainResult:
    """The results of a finished run.

    Attributes:
        folder: The run's folder.
        report: Metrics on the test split.
        export_difference: Largest difference between the probabilities of the exported model
            and of the model itself. None if the model was not exported.
    """

    folder: RunFolder
    report: Report
    export_difference: float | None

    @cached_property
    def model(self) -> keras.Model:
        """The finished model, loaded from the folder."""
        return load_model(self.folder.model)


@dataclass(frozen=True)
class FittedRun:
    """A trained model. The test split has not been touched.

    Attributes:
        model: The tagger with its final weights, float32, on one device.
        inputs: The data.
        score: The monitored metric of these weights on the validation split.
    """

    model: keras.Model
    inputs: Inputs
    score: float


def train(
    config: TrainConfig,
    folder: RunFolder,
    resume: bool = False,
    workers: Workers | None = None,
    features_dir: Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainResult | None:
    """Train a model, evaluate it on the test split once, and export it.

    Args:
        config: As in `fit`.
        folder: As in `fit`.
        resume: As in `fit`.
        workers: As in `fit`.
        features_dir: As in `fit`.
        callbacks: As in `fit`.

    Returns:
        The result, when all files of the run folder are written. None in a worker that is
        not the chief.

    Raises:
        RFKerasError: As in `fit`.
        Interrupted: As in `fit`.
        ExportError: The exported model differs from the trained one.
    """
    workers = workers or open_workers(config.devices)

    # --- 1 to 5. Open the data, build, restore or start, train, choose the final weights.
    fitted = fit(config, folder, resume, workers, features_dir, callbacks)

    # --- 6. Finish: save the model, score the test split once, export, verify.
    result = finish(fitted.model, folder, fitted.inputs) if workers.is_chief else None
    workers.wait_for_all()  # a worker that leaves early would look lost to the chief
    return result


def fit(
    config: TrainConfig,
    folder: RunFolder,
    resume: bool = False,
    workers: Workers | None = None,
    features_dir: Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> FittedRun:
    """Train a model and choose its final weights on the validation split.

    Args:
        config: The resolved configuration.
        folder: The run's folder, from `create_run_folder`. With several workers, only the
            chief uses it.
        resume: Continue from the folder's last snapshot, if it has one. The final weights
            are the same as without the interruption.
        workers: The processes that train together. None: only this process, on the devices
            of the configuration.
        features_dir: Folder of the spectrograms that `cache_features` keeps, which several
            runs may share. None: in the run's folder.
        callbacks: Callbacks of the user, called after those of the run. `self.model.tagger` is
            the model from waveform to logits, and the logs of an epoch have its validation
            metrics. `self.model.stop_training = True` at the end of an epoch ends the training.

    Raises:
        ConfigError: An option does not fit the model, the data or the machine.
        DatasetError: The data cannot be used.
        CheckpointError: The snapshot cannot be used.
        Interrupted: Ctrl-C or SIGTERM. The run can be resumed.
        WorkerLost: Another worker has ended. Restart all workers with `resume`.
        Diverged: The loss or a variable is not finite. The last good state is saved.
    """
    # --- 1. Open the data.
    keras.utils.set_random_seed(config.seed)
    workers = workers or open_workers(config.devices)
    check_batch_size(config.batch_size, workers.strategy)
    if config.cache_features and workers.count > 1:
        raise ConfigError(
            "--cache-features works with one worker (on one or several devices), because only "
            f"the chief uses the run folder. Received: {workers.count} workers."
        )
    audio = audio_format(config)
    inputs = open_inputs(config, audio, folder.bad_files if workers.is_chief else None)
    _check_all_workers_read_the_same(inputs, workers)
    _check_validation_labels(inputs)
    selection = make_selection(config, _metric_names(inputs))

    # --- 2. Build the model with its augmentation, loss, optimizer and schedule (step.py).
    model = build_training_model(inputs, workers.strategy)
    if workers.is_chief:
        _record_start(folder, inputs)  # a folder with this record is kept after an error
        _announce(model, inputs)
    if config.cache_features:
        inputs = _with_features(inputs, model, features_dir or folder.features)

    with inputs.reporting_bad_files(), detecting_lost_workers():
        # --- 3. Restore the last snapshot, or start. All workers take the chief's values.
        validate = Validation(model.tagger, inputs, workers)
        pruner = Pruner(model, config) if config.prunes else None
        state = TrainingState(data=inputs.fingerprints)
        steps = inputs.steps_per_epoch

        def end_epoch(epoch: int) -> None:
            if config.averages_epoch(epoch):
                model.average_epoch()
            if pruner is not None and epoch < config.epochs:
                pruner.prune_for(epoch)  # the next epoch, counted from 0

        checkpoints = CheckpointCallback(
            folder,
            best_variables=state_variables(model.tagger),
            variables=[*state_variables(model), *model.optimizer.variables],
            steps_per_epoch=steps,
            checkpoint_steps=config.checkpoint_steps,
            validate=validate,
            selection=selection,
            end_epoch=end_epoch,
            state=state,
            skips_overflow=config.precision == "mixed_float16",
            writes=workers.is_chief,
        )
        if workers.is_chief:
            if resume and folder.last.exists():
                checkpoints.restore()
            else:
                _start(model.tagger, inputs, folder)
        workers.broadcast_variables(checkpoints.variables)
        state.update(workers.broadcast(lambda: asdict(state)))

        # --- 4. Train. Keras calls `TrainingModel.train_step` for each batch. After each
        # epoch the callback validates, logs, keeps the best weights and saves a snapshot.
        total_steps = config.epochs * steps
        frozen_steps = config.frozen_epochs * steps
        display = ProgressDisplay(
            total_steps, state.steps_done, config.epochs, selection.monitor
        )
        own: list[keras.callbacks.Callback] = [checkpoints]
        if workers.is_chief:
            own += [display, TensorBoardLogger(folder.tensorboard)]
        model.freeze(state.steps_done < frozen_steps)
        try:
            checkpoints.check_finite()
            for start, stop in fit_calls(state.steps_done, total_steps, steps, frozen_steps):
                if state.stopped:
                    break
                model.freeze(start < frozen_steps)
                model.fit(
                    workers.batches(partial(inputs.training_batches, start, stop)),
                    initial_epoch=start // steps,
                    epochs=-(-stop // steps),
                    steps_per_epoch=min(steps, stop - start),
                    callbacks=[*own, *callbacks],
                    shuffle=False,  # the batches have their order; Keras 3.15 warns otherwise
                    verbose=0,
                )
                checkpoints.note_stop()
        except Diverged as error:
            kept = _keep_best(model, inputs, folder, state) if workers.is_chief else ""
            raise Diverged(f"{error} {kept}") from None
        finally:
            display.stop()
            checkpoints.release_signals()

        # --- 5. Choose the final weights: of the best epoch, the last step or the average.
        score = _choose_weights(model, inputs, folder, workers, validate, selection, state)

    tagger = _plain_tagger(model, inputs, folder) if workers.is_chief else model.tagger
    return FittedRun(tagger, inputs, score)


# --- 1. Open the data


def _check_all_workers_read_the_same(inputs: Inputs, workers: Workers) -> None:
    """Check that no worker reads other clips or labels than this one."""
    for index, fingerprints in enumerate(workers.gather(inputs.fingerprints)):
        differing = [n for n, own in inputs.fingerprints.items() if fingerprints.get(n) != own]
        if differing:
            raise DatasetError(
                f"Workers {index} and {workers.index} read different data: other clips or "
                f"labels in split {', '.join(differing)}. All workers must read the same "
                "files. Look for missing or damaged files on one of the machines."
            )


def _check_validation_labels(inputs: Inputs) -> None:
    split = inputs.dataset.split("validation")
    if not (split.labels * split.mask).any():
        raise DatasetError(
            f"The validation split ({count(len(split), 'clip')}) has no known positive label, "
            "so the best epoch cannot be determined. Use more clips, or a larger "
            "--validation-share."
        )


def _metric_names(inputs: Inputs) -> list[str]:
    """Return the names of the validation metrics, from those of uniform scores."""
    split = inputs.dataset.split("validation")
    scores = np.full(split.labels.shape, 1.0 / split.labels.shape[1])
    task, further = inputs.dataset.task, inputs.config.metrics
    return list(validation_metrics(scores, split.labels, split.mask, task, further))


def _record_start(folder: RunFolder, inputs: Inputs) -> None:
    """Record the environment, the data and the training clips in the run folder."""
    data = {
        "name": inputs.dataset.name,
        "clips": {name: len(split) for name, split in inputs.dataset.splits.items()},
        "resampling": inputs.resampling,
        "bad_files": len(inputs.bad_files.files),
        "fingerprints": inputs.fingerprints,
        **inputs.dataset.info,
    }
    write_environment(folder, _device_names(), data)
    write_training_clips(folder, inputs.dataset.name, inputs.dataset.split("train").keys)


def _device_names() -> list[str]:
    return [device.name for device in tf.config.list_logical_devices()]


# --- 2. Build


def _announce(model: TrainingModel, inputs: Inputs) -> None:
    """Print what is trained on what."""
    clips = ", ".join(f"{len(s):,} {name}" for name, s in inputs.dataset.splits.items())
    print_status(f"Data: {inputs.dataset.name} ({inputs.dataset.task}), clips: {clips}")
    for name, lines in inputs.resampling.items():
        for line in lines:
            print_status(f"Resampling: {name}, {line}")
    if inputs.bad_files.files:
        files = count(len(inputs.bad_files.files), "unusable file")
        print_status(f"Skipping {files}, listed in {inputs.bad_files.csv_path}")
    parameters = _count_parameters(model.tagger.trainable_variables)
    devices = ", ".join(_device_names())
    print_status(f"Model: {model.name}, {parameters:,} parameters, on {devices}")
    if inputs.config.freeze == "trunk":
        parameters = _count_parameters(model.classifier.trainable_variables)
        after = inputs.config.unfreeze_after
        until = "" if after is None else f" until epoch {after + 1}"
        print_status(f"Trunk frozen{until}; training {parameters:,} parameters")


def _with_features(inputs: Inputs, model: TrainingModel, root: Path) -> Inputs:
    """Return the inputs with the spectrograms of the training clips."""
    assert model.frontend is not None  # every tagger of a run has one
    features = open_features(
        root,
        inputs.dataset.split("train"),
        model.frontend,
        inputs.audio,
        excerpt_seconds=inputs.config.excerpt_seconds,
        bad_files=inputs.bad_files,
        decoder=inputs.config.decoder,
    )
    size = sum(part.nbytes for part in features.parts)
    print_status(f"Features: {size / 2**20:,.0f} MB in {root}")
    return replace(inputs, features=features)


def _count_parameters(variables: list[Any]) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


# --- 3. Start


def _start(tagger: keras.Model, inputs: Inputs, folder: RunFolder) -> None:
    """Load the initial weights, and set what is computed from the training data.

    Initial weights keep their own mean and deviation of the mel bands, which their backbone
    expects, and their own classifier. Otherwise the mel statistics and, with prior_bias, the
    classifier's bias are computed from the training data.

    Raises:
        ConfigError: prior_bias is set for a model whose classifier has no such bias.
    """
    config = inputs.config
    classifier = [layer for layer in tagger.layers if layer.name == "classifier_bn"]
    if config.prior_bias and not classifier:
        raise ConfigError(
            "--prior-bias needs a model whose classifier ends in batch normalisation, which "
            f"{config.model!r} does not have."
        )
    loaded = None
    if config.init_weights is not None:
        loaded = _load_initial_weights(tagger, inputs, folder)
    frontend = find_frontend(tagger)
    assert frontend is not None  # every tagger of a run has one
    has_statistics = bool(frontend.mean_db.numpy().any())  # of a model that was given
    if not has_statistics and (loaded is None or not loaded.has_frontend):
        print_status("Computing mean and deviation of every mel band over the training clips")
        batches = (batch[0] for batch in inputs.training_batches(0, inputs.steps_per_epoch))
        frontend.adapt(batches, are_features=inputs.features is not None)
    if config.prior_bias and (loaded is None or not loaded.has_head):
        split = inputs.dataset.split("train")
        bias = first_logits(split.labels, split.mask, inputs.dataset.task)
        classifier[0].beta.assign(bias)


def _load_initial_weights(
    tagger: keras.Model, inputs: Inputs, folder: RunFolder
) -> Transferred:
    """Load the weights that the configuration names into the tagger, and record them.

    The classes of the data and of the weights may differ.
    """
    weights = str(inputs.config.init_weights)
    path = weights_file(weights, inputs.config.model)
    loaded = load_weights(tagger, path, partial(build_tagger, inputs))
    record = {
        "weights": weights,
        "file": str(path),
        "sha256": sha256_of(path),
        "fresh_layers": list(loaded.fresh),
        "mel_statistics": "of the weights" if loaded.has_frontend else "of the training data",
    }
    write_text(folder.initial_weights, json.dumps(record, indent=2) + "\n")
    classifier = "with their classifier" if loaded.has_head else "with a new classifier"
    print_status(f"Starting from {weights}, {classifier}")
    if loaded.fresh:
        print_status(f"Layers that are not in the weights: {', '.join(loaded.fresh)}")
    return loaded


# --- 4. Train


def fit_calls(
    start: int, total: int, steps_per_epoch: int, frozen_steps: float = 0
) -> list[tuple[int, int]]:
    """Return the calls of `model.fit` that finish a run, as (first step, step after the last).

    `fit` counts the steps of an epoch from its beginning, so the rest of an interrupted epoch
    needs a separate call. So do the epochs with a frozen backbone, which use a different step.

    Args:
        start: Steps done.
        total: Steps of the whole run.
        steps_per_epoch: Steps per epoch.
        frozen_steps: Steps for which the backbone is frozen.
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


def _keep_best(
    model: TrainingModel, inputs: Inputs, folder: RunFolder, state: TrainingState
) -> str:
    """Write the model of the best epoch of a run that has diverged; describe what is kept."""
    advice = "a lower --learning-rate, or --clip-norm 1"
    if not folder.last.exists():
        return f"Nothing was saved yet. Start again with {advice}."
    run = shlex.quote(str(folder.root))
    step = read_record(folder.last)["steps_done"]
    kept = (
        f"The last good state is kept: resume from step {step} "
        f"with rfkeras train --resume {run} and {advice}"
    )
    if not state.best_epoch:
        return f"{kept}."
    load_snapshot(folder.best, state_variables(model.tagger))
    best = _plain_tagger(model, inputs, folder)
    with atomic_write(folder.model, suffix=".keras") as temporary:
        best.save(temporary)
    return f"{kept}. {folder.model} contains the weights of epoch {state.best_epoch}."


# --- 5. Choose the final weights


def _choose_weights(
    model: TrainingModel,
    inputs: Inputs,
    folder: RunFolder,
    workers: Workers,
    validate: Validation,
    selection: Selection,
    state: TrainingState,
) -> float:
    """Load the final weights into the tagger, and record the choice.

    The model must be as after its last step. An average of weights needs statistics computed
    over one epoch of training batches. It is then validated like an epoch, and chosen if it
    is better than the best epoch, or if the configuration asks for it. With several workers,
    only the chief's tagger gets the weights.

    Returns:
        The monitored metric of these weights.
    """
    config, monitor = inputs.config, selection.monitor
    candidates: dict[str, dict[str, Any]] = {}
    if state.best_epoch:
        candidates["best"] = {"epoch": state.best_epoch, monitor: state.best}
    chosen = "last" if config.final_weights == "last" else "best"
    if chosen == "last":
        candidates["last"] = dict(state.history[-1])
    elif config.averaging != "none":
        model.load_average()
        if workers.is_chief:
            print_status("Computing statistics of the averaged weights and validating them")
            batches = inputs.training_batches(0, inputs.steps_per_epoch)
            recompute_statistics(model, (batch[0] for batch in batches))
            _check_average(model)
        workers.broadcast_variables(state_variables(model.tagger))
        metrics = validate()
        candidates["average"] = metrics
        if workers.is_chief:
            print_status(f"Averaged weights: {metric_label(monitor)} {metrics[monitor]:.4f}")
        wanted = config.final_weights == "average"
        if wanted or selection.better(metrics[monitor], state.best):
            chosen = "average"
    metrics = candidates[chosen]
    if not workers.is_chief:
        return float(metrics[monitor])
    if chosen == "best":
        load_snapshot(folder.best, state_variables(model.tagger))
    record = {"weights": chosen, "monitor": monitor, "candidates": candidates}
    write_text(folder.final_weights, json.dumps(record, indent=2) + "\n")
    epoch = f" of epoch {metrics['epoch']}" if "epoch" in metrics else ""
    score = f"{metric_label(monitor)} {metrics[monitor]:.4f}"
    print_status(f"Final weights: {chosen}{epoch}, {score}")
    return float(metrics[monitor])


def _check_average(model: TrainingModel) -> None:
    name = first_not_finite(state_variables(model.tagger))
    if name is not None:
        raise Diverged(
            f"The averaged weights cannot be used: variable {name} is NaN or infinite. Train "
            "with --averaging none, or with --precision float32."
        )


def _plain_tagger(model: TrainingModel, inputs: Inputs, folder: RunFolder) -> keras.Model:
    """Return the trained tagger as a float32 model on one device; count pruned weights."""
    tagger = build_tagger(inputs)
    copy_values(state_variables(model.tagger), state_variables(tagger))
    if inputs.config.prunes:
        left = write_counts(tagger, folder.pruning)
        print_status(f"Pruned: {left:,} parameters are left, counted in {folder.pruning}")
        empty = empty_kernels(tagger)
        if empty:
            print_status(
                f"Note: {count(len(empty), 'kernel')} became all zero, {empty[0]} first. Prune "
                "a smaller share, more slowly, or with --prune-scope layer."
            )
    return tagger


# --- 6. Finish


def finish(trained: keras.Model, folder: RunFolder, inputs: Inputs) -> TrainResult:
    """Save the model, score the test split and, if configured, export and verify.

    The saved file is loaded again and then scored and exported, so that the results are those
    of the file that users load. It contains the decision thresholds. With `thresholds:
    validation`, they maximise the F1 of each tag on the validation split, for scores averaged
    over the windows of a clip.

    Args:
        trained: The trained model with its final weights. Exact zeros stay zeros in all
            files.
        folder: The run's folder.
        inputs: The data, with the run's configuration.

    Raises:
        ExportError: The exported model differs from the trained one.
        DatasetError: Too many test files cannot be read.
    """
    with atomic_write(folder.model, suffix=".keras") as temporary:  # Keras needs this suffix
        trained.save(temporary)
        model = load_model(temporary)
        _set_thresholds(model, inputs)
        model.save(temporary)  # again, with thresholds and without the optimizer
    model = load_model(folder.model)
    print_status("Scoring the test split")
    test = score_split(model, inputs, "test")
    write_report(
        test.report,
        folder.report,
        test.scores,
        test.labels,
        test.mask,
        history=read_log(folder.log),
        monitor=inputs.config.monitor,
        first_epoch=inputs.config.first_eligible_epoch,
        keys=test.keys,
    )
    difference = None
    if inputs.config.export:
        print_status("Exporting the model and verifying the export in a separate process")
        difference = _export(model, folder, inputs)
    return TrainResult(folder, test.report, difference)


def _set_thresholds(model: keras.Model, inputs: Inputs) -> None:
    head = find_head(model)
    if head is None or head.task != MULTI_LABEL:
        return
    if inputs.config.thresholds == "half":
        head.thresholds = None
        return
    print_status("Choosing each tag's threshold on the validation split")
    scores, labels, mask, _ = score_clips(model, inputs, "validation")
    best = best_f1_thresholds(scores, labels, mask)
    head.thresholds = tuple(float(threshold) for threshold in best)


def _export(model: keras.Model, folder: RunFolder, inputs: Inputs) -> float:
    """Export the model, verify the export in a separate process, and move it into place."""
    unchecked = folder.saved_model.with_name("unchecked")
    shutil.rmtree(unchecked, ignore_errors=True)  # left by a run that was killed here
    saved_model(model, unchecked, inputs.dataset.label_names)
    batches, _ = inputs.evaluation_batches("validation")
    waveforms = np.asarray(next(iter(batches)))
    short = waveforms[:1, : inputs.audio.sample_rate_hz // 10]
    difference = verify(unchecked, model, [waveforms[:2], waveforms[:1, :-1000], short])
    shutil.rmtree(folder.saved_model, ignore_errors=True)  # if the run is finished again
    unchecked.replace(folder.saved_model)
    return difference
