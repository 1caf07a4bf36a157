"""The end of a run: the test split, scored once, and the exported model, checked."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from rfkeras.evaluation.report import Report, write_report
from rfkeras.evaluation.thresholds import best_f1_thresholds
from rfkeras.export import saved_model, verify
from rfkeras.files import replacing
from rfkeras.layers import find_head
from rfkeras.loading import load_model
from rfkeras.tasks import MULTI_LABEL
from rfkeras.training.inputs import Inputs
from rfkeras.training.progress import say
from rfkeras.training.run_folder import RunFolder
from rfkeras.training.scoring import score_clips, score_split
from rfkeras.training.selection import first_eligible_epoch


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
