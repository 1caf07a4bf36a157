"""The end of training: which weights a run keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rfkeras.config import TrainConfig
from rfkeras.files import write_text
from rfkeras.training.inputs import Inputs
from rfkeras.training.progress import say, spoken
from rfkeras.training.recorder import Progress
from rfkeras.training.run_folder import RunFolder
from rfkeras.training.selection import Selection
from rfkeras.training.snapshot import load_snapshot, state_variables
from rfkeras.training.statistics import recompute_statistics
from rfkeras.training.training_model import TrainingModel
from rfkeras.training.workers import Workers


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
