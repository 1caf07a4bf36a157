"""Training from the first step, or from a snapshot, to the final weights."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

import keras

from rfkeras.config import TrainConfig
from rfkeras.training.board import Board
from rfkeras.training.final import load_final_weights
from rfkeras.training.initial import prepare
from rfkeras.training.inputs import Inputs
from rfkeras.training.progress import ProgressDisplay
from rfkeras.training.pruning import Pruner
from rfkeras.training.recorder import Progress, Recorder
from rfkeras.training.run_folder import RunFolder
from rfkeras.training.selection import Selection, is_averaged
from rfkeras.training.snapshot import state_variables
from rfkeras.training.training_model import TrainingModel
from rfkeras.training.validation import Validation
from rfkeras.training.workers import Workers


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
