"""Scores of a finished model on data that it is given later."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from rfkeras.audio.io import AudioFormat
from rfkeras.config.train_config import TrainConfig
from rfkeras.datasets.base import BadFile
from rfkeras.datasets.excerpts import EvaluationPlan, rows_of
from rfkeras.errors import ConfigError
from rfkeras.evaluation.metrics import (
    average_precision,
    check_single_label,
    decide,
    decide_class,
    decision_metrics,
    log_loss,
    probabilities,
    roc_auc,
)
from rfkeras.evaluation.report import Report, evaluate
from rfkeras.frontend import find_frontend
from rfkeras.layers import find_head
from rfkeras.tasks import MULTI_LABEL, SINGLE_LABEL
from rfkeras.training.data import Inputs, open_inputs
from rfkeras.training.distributed import Workers
from rfkeras.training.run_dir import RunFolder, check_same_data, copy_values, state_variables
from rfkeras.training.setup import build_tagger, dtype_policy
from zoo.pretrained import load_model
from zoo.tagger import label_names

Array = NDArray[Any]


@dataclass(frozen=True)
class ScoredSplit:
    """A split with the scores of a model.

    Attributes:
        scores: (clips, classes) probabilities.
        labels: (clips, classes).
        mask: (clips, classes).
        keys: (clips,) key of each clip.
        report: Figures.
    """

    scores: Array
    labels: Array
    mask: Array
    keys: tuple[str, ...]
    report: Report


def model_task(model: Any) -> str:
    """The task that the model's head names; "multi_label" for a model without such a head."""
    head = find_head(model)
    return MULTI_LABEL if head is None else head.task


def predict_scores(model: Any, batches: Any, plan: EvaluationPlan) -> NDArray[np.float64]:
    """Score of every tag for every clip that could be read.

    Args:
        model: Keras model from waveform to logits; its head says what the logits mean.
        batches: tf.data set of windows, all batches full.
        plan: Which window belongs to which clip; both from `evaluation_batches`.

    Returns:
        (len(plan.kept_rows), classes): a clip's score is the mean over its windows of the
        sigmoid or, for a single-label model, of the softmax.
    """
    logits = model.predict(batches, verbose=0)
    return plan.average(probabilities(logits, model_task(model)))


def validation_figures(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike, task: str
) -> dict[str, float]:
    """The figures of an epoch, by their names in log.csv.

    195 tags of 11,000 clips take 1.5 s on one core.

    Args:
        scores: (clips, classes) probabilities.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known.
        task: "multi_label" or "single_label".

    Returns:
        val_loss, the loss that was trained but for class weights and mixup (so with class
        weights it is not what training minimises); val_mAP; val_roc_auc; val_f1, the macro
        mean with a threshold of 0.5 or, single-label, of the most likely class; and for
        single-label val_accuracy. Means are over the tags that define them; NaN where no
        tag does.

    Raises:
        ConfigError: Unknown task, an array that is not allowed, or, single-label, a clip
            without exactly one known class.
    """
    figures = {
        "val_loss": log_loss(scores, labels, mask, task),
        "val_mAP": average_precision(scores, labels, mask).macro,
        "val_roc_auc": roc_auc(scores, labels, mask).macro,
    }
    if task == SINGLE_LABEL:
        classes = check_single_label(labels, mask)
        decisions = decide_class(scores)
        accuracy = {"val_accuracy": float(np.mean(decisions.argmax(axis=1) == classes))}
    else:
        decisions, accuracy = decide(scores), {}
    macro_f1 = decision_metrics(decisions, labels, mask).f1.macro
    return {**figures, "val_f1": macro_f1, **accuracy}


def score_split(
    model: Any,
    inputs: Inputs,
    split: str,
    bootstrap_samples: int = 1000,
    threshold: ArrayLike | None = None,
) -> ScoredSplit:
    """Score a split and evaluate the scores.

    Args:
        model: Keras model from waveform to logits.
        inputs: The data.
        split: Name of the split.
        bootstrap_samples: Resamples behind the confidence intervals; 0 leaves them out.
        threshold: Score from which a tag applies, one for all or one for each; None: those
            kept in the model, else 0.5. A single-label model has none: its highest score
            decides.

    Raises:
        DatasetError: Too many files cannot be read.
        ConfigError: A threshold for a single-label model, or labels that are not of the
            model's task.
    """
    scores, labels, mask, keys = score_clips(model, inputs, split)
    head = find_head(model)
    if threshold is None and head is not None and head.task == MULTI_LABEL:
        threshold = head.thresholds
    report = evaluate(
        scores,
        labels,
        mask,
        label_names=inputs.dataset.label_names,
        threshold=threshold,
        bootstrap_samples=bootstrap_samples,
        task=model_task(model),
    )
    return ScoredSplit(scores, labels, mask, keys, report)


def score_clips(
    model: Any, inputs: Inputs, split: str
) -> tuple[Array, Array, Array, tuple[str, ...]]:
    """Scores, labels and mask, each (clips, classes), and keys of a split's readable clips.

    Raises:
        DatasetError: Too many files cannot be read.
    """
    batches, plan = inputs.evaluation(split)
    try:
        scores = predict_scores(model, batches, plan)
    except tf.errors.OpError:
        inputs.bad_files.raise_if_stopped()  # tf.data hides the cause; this shows it
        raise
    labels, mask = inputs.truth(split, plan.kept_rows)
    keys = inputs.dataset.split(split).keys
    return scores, labels, mask, tuple(keys[row] for row in plan.kept_rows)


def score_model(
    model_path: Path,
    config: TrainConfig,
    split: str,
    bad_files_csv: Path,
    *,
    trained_in: RunFolder | None = None,
    bootstrap_samples: int = 1000,
    thresholds: str | None = None,
) -> ScoredSplit:
    """Score a saved model on a split of a data set.

    Args:
        model_path: The .keras file.
        config: Names the data set and how it is read.
        split: Name of the split.
        bad_files_csv: Where unusable files are listed.
        trained_in: The run that made the model: none of its training clips may be scored,
            but as the split "train".
        bootstrap_samples: Resamples behind the confidence intervals; 0 leaves them out.
        thresholds: "half" decides at 0.5; None or "model" by what the model keeps.

    Raises:
        ConfigError: The model takes no audio, or its tags or task are not the data's.
        DatasetError: The data cannot be read, or clips of it were trained on.
    """
    model = load_model(model_path)
    frontend = find_frontend(model)
    if frontend is None:
        raise ConfigError(f"{model_path} has no front-end: it cannot take audio.")
    task = model_task(model)
    if task == "single_label" and thresholds is not None:
        raise ConfigError(
            f"--thresholds goes with multi-label models; {model_path} is not one."
        )
    channels = 1 if len(model.input_shape) == 2 else model.input_shape[-1]
    audio = AudioFormat(frontend.sample_rate_hz, channels)
    inputs = open_inputs(config, audio, bad_files_csv, (split,), task)
    if trained_in is not None:
        check_same_data(trained_in, config, inputs)
    if label_names(model) != inputs.dataset.label_names:
        raise ConfigError(
            f"The tags of the model and of data set {config.dataset!r} differ: "
            f"{', '.join(label_names(model))} and {', '.join(inputs.dataset.label_names)}."
        )
    if task != inputs.dataset.task:
        raise ConfigError(
            f"The model is {task} but data set {config.dataset!r} is {inputs.dataset.task}: "
            "their scores and labels do not mean the same."
        )
    threshold = 0.5 if thresholds == "half" else None
    return score_split(model, inputs, split, bootstrap_samples, threshold)


SPLIT = "validation"


class Validation:
    """Scores the validation split with the weights that a tagger has at the moment.

    Each of several workers scores some of the clips, by itself; the chief puts the scores
    together and tells the others the figures, so that all stop training at the same epoch.

    Args:
        tagger: The tagger that is trained.
        inputs: The data.
        workers: Who trains.

    Raises:
        DatasetError: Too many files cannot be read.
    """

    def __init__(self, tagger: keras.Model, inputs: Inputs, workers: Workers):
        self.inputs = inputs
        self.workers = workers
        split = inputs.dataset.split(SPLIT)
        # The parts are of workers, not of their replicas.
        self._rows = rows_of(split, workers.part)
        self._data = inputs.evaluation(SPLIT, workers.part) if len(self._rows) else None
        self._trained = self._local = tagger
        if workers.count > 1:
            # A model of the strategy would wait for the other workers at each batch.
            with dtype_policy(inputs.config.precision):
                self._local = build_tagger(inputs.config, inputs)
            self._local.jit_compile = False

    def __call__(self) -> dict[str, float]:
        """The figures, by their names in log.csv.

        Raises:
            DatasetError: Too many files cannot be read.
            WorkerLost: Another worker is gone.
        """
        if self._local is not self._trained:
            copy_values(state_variables(self._trained), state_variables(self._local))
        own = self._scores()
        width = 1 + len(self.inputs.dataset.label_names)
        parts = self.workers.exchange(own.tobytes())
        rows, scores = _split_rows(np.concatenate([_table(part, width) for part in parts]))
        self._gather_bad_files()
        labels, mask = self.inputs.truth(SPLIT, rows)
        task = self.inputs.dataset.task
        figures: dict[str, float] = self.workers.agree(
            lambda: validation_figures(scores, labels, mask, task)
        )
        return figures

    def _scores(self) -> NDArray[np.float64]:
        """(clips, 1 + classes): row in the split, and the scores, of the worker's clips."""
        if self._data is None:
            return np.zeros((0, 1 + len(self.inputs.dataset.label_names)))
        batches, plan = self._data
        try:
            scores = predict_scores(self._local, batches, plan)
        except tf.errors.OpError:
            self.inputs.bad_files.raise_if_stopped()  # tf.data hides the cause
            raise
        rows = self._rows[plan.kept_rows]
        return np.column_stack([rows.astype(np.float64), scores])

    def _gather_bad_files(self) -> None:
        """Files that any worker could not read, into the list of the chief."""
        if self.workers.count == 1:
            return
        log = self.inputs.bad_files
        for files in self.workers.collect([asdict(file) for file in log.files]):
            log.record_all(BadFile(**file) for file in files)


def _table(message: bytes, width: int) -> NDArray[np.float64]:
    return np.frombuffer(message, np.float64).reshape(-1, width)


def _split_rows(table: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    return table[:, 0].astype(np.int64), table[:, 1:]
