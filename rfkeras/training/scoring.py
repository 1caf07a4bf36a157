"""Score a model on the splits of a data set: after each epoch, after a run, or later."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rfkeras.audio.io import AudioFormat
from rfkeras.config.train_config import TrainConfig
from rfkeras.datasets.base import BadFile, recorded_clips
from rfkeras.datasets.excerpts import rows_of
from rfkeras.errors import ConfigError, DatasetError
from rfkeras.evaluation.metrics import (
    average_precision,
    check_single_label,
    decide,
    decide_class,
    decision_metrics,
    log_loss,
    roc_auc,
)
from rfkeras.evaluation.report import evaluate
from rfkeras.evaluation.result import Report
from rfkeras.folding import in_float32
from rfkeras.frontend import find_frontend
from rfkeras.layers import find_head
from rfkeras.tasks import MULTI_LABEL, SINGLE_LABEL
from rfkeras.training.clip_scores import ClipScorer, model_task
from rfkeras.training.data import Inputs, open_inputs
from rfkeras.training.distributed import Workers
from rfkeras.training.run_dir import RunFolder, copy_values, state_variables
from rfkeras.training.step import build_tagger, dtype_policy
from rfkeras.utils.text import first_few
from rfkeras.utils.user_code import METRICS
from zoo.pretrained import load_model
from zoo.tagger import label_names

Array = NDArray[Any]
VALIDATION = "validation"


# During training


def validation_metrics(
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike,
    task: str,
    further: Sequence[str] = (),
) -> dict[str, float]:
    """Return the metrics of an epoch by their names in log.csv.

    195 tags of 11,000 clips take 1.5 s on one core.

    Args:
        scores: (clips, classes) probabilities.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known.
        task: "multi_label" or "single_label".
        further: Names given to `rfkeras.register_metric`.

    Returns:
        val_loss, the training loss without class weights and mixup; val_mAP; val_roc_auc;
        val_f1, the macro mean at a threshold of 0.5 or, for single-label tasks, of the most
        likely class; val_accuracy for single-label tasks; and the further metrics. Means are
        over the tags for which the metric is defined, and NaN if there are none.

    Raises:
        ConfigError: The task is unknown, an array is not allowed or, for single-label tasks,
            a clip does not have exactly one known class.
    """
    metrics = {
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
    arrays = [np.array(values) for values in (scores, labels, mask)]  # theirs to change
    users = {f"val_{name}": float(METRICS[name](*arrays)) for name in further}
    return {**metrics, "val_f1": macro_f1, **accuracy, **users}


class Validation:
    """Scores the validation split with the current weights of a tagger.

    With several workers, each scores some of the clips. The chief combines the scores and
    broadcasts the metrics, so that all workers stop at the same epoch.

    Args:
        tagger: The tagger that is being trained.
        inputs: The data.
        workers: The processes that train together.

    Raises:
        DatasetError: Too many files cannot be read.
    """

    def __init__(self, tagger: keras.Model, inputs: Inputs, workers: Workers):
        self.inputs = inputs
        self.workers = workers
        split = inputs.dataset.split(VALIDATION)
        # One part per worker, not per replica.
        self._rows = rows_of(split, workers.part)
        self._trained = self._local = tagger
        if workers.count > 1:
            # A model of the strategy would wait for the other workers at each batch.
            with dtype_policy(inputs.config.precision):
                self._local = build_tagger(inputs)
            self._local.jit_compile = False
        self._scorer = (
            ClipScorer(self._local, inputs, VALIDATION, workers.part, live=True)
            if len(self._rows)
            else None
        )

    def __call__(self) -> dict[str, float]:
        """Return the metrics by their names in log.csv.

        Raises:
            DatasetError: Too many files cannot be read.
            WorkerLost: Another worker has ended.
        """
        if self._local is not self._trained:
            copy_values(state_variables(self._trained), state_variables(self._local))
        own = self._score()
        width = 1 + len(self.inputs.dataset.label_names)
        messages = self.workers.gather_bytes(own.tobytes())
        parts = [np.frombuffer(part, np.float64).reshape(-1, width) for part in messages]
        table = np.concatenate(parts)
        rows, scores = table[:, 0].astype(np.int64), table[:, 1:]
        self._gather_bad_files()
        labels, mask = self.inputs.labels_and_mask(VALIDATION, rows)
        task, further = self.inputs.dataset.task, self.inputs.config.metrics
        metrics: dict[str, float] = self.workers.broadcast(
            lambda: validation_metrics(scores, labels, mask, task, further)
        )
        return metrics

    def _score(self) -> NDArray[np.float64]:
        """Return row and scores of this worker's clips, (clips, 1 + classes)."""
        if self._scorer is None:
            return np.zeros((0, 1 + len(self.inputs.dataset.label_names)))
        kept, scores = self._scorer.scores()
        return np.column_stack([self._rows[kept].astype(np.float64), scores])

    def _gather_bad_files(self) -> None:
        """Add the files that any worker could not read to the list of the chief."""
        if self.workers.count == 1:
            return
        log = self.inputs.bad_files
        for files in self.workers.gather([asdict(file) for file in log.files]):
            log.record_all(BadFile(**file) for file in files)


# After training


@dataclass(frozen=True)
class ScoredSplit:
    """A split with the scores of a model.

    Attributes:
        scores: (clips, classes) probabilities.
        labels: (clips, classes).
        mask: (clips, classes).
        keys: (clips,) key of each clip.
        report: Metrics.
    """

    scores: Array
    labels: Array
    mask: Array
    keys: tuple[str, ...]
    report: Report


def score_split(
    model: Any,
    inputs: Inputs,
    split: str,
    bootstrap_samples: int = 1000,
    threshold: ArrayLike | None = None,
) -> ScoredSplit:
    """Score a split and evaluate the scores.

    Tags that no clip of a multi-label data set has (`info["absent_tags"]`) are left out of all
    arrays and of the report.

    Args:
        model: Keras model from waveform to logits.
        inputs: The data.
        split: Name of the split.
        bootstrap_samples: Resamples for the confidence intervals. 0: no intervals.
        threshold: Lowest score at which a tag applies, one for all tags or one per tag.
            None: the thresholds in the model, otherwise 0.5. Single-label models choose the
            class with the highest score and have no threshold.

    Raises:
        DatasetError: Too many files cannot be read.
        ConfigError: A threshold is given for a single-label model, or the labels do not fit
            the model's task.
    """
    scores, labels, mask, keys = score_clips(model, inputs, split)
    head = find_head(model)
    if threshold is None and head is not None and head.task == MULTI_LABEL:
        threshold = head.thresholds
    names: tuple[str, ...] = inputs.dataset.label_names
    absent: Any = inputs.dataset.info.get("absent_tags", ())
    if absent and model_task(model) == MULTI_LABEL:
        shared = [tag for tag, name in enumerate(names) if name not in absent]
        names = tuple(names[tag] for tag in shared)
        scores, labels, mask = scores[:, shared], labels[:, shared], mask[:, shared]
        if threshold is not None and np.ndim(np.asarray(threshold)):
            threshold = np.asarray(threshold)[shared]
    report = evaluate(
        scores,
        labels,
        mask,
        label_names=names,
        threshold=threshold,
        bootstrap_samples=bootstrap_samples,
        task=model_task(model),
    )
    return ScoredSplit(scores, labels, mask, keys, report)


def score_clips(
    model: Any, inputs: Inputs, split: str
) -> tuple[Array, Array, Array, tuple[str, ...]]:
    """Return scores, labels, mask and keys of the readable clips of a split.

    Returns:
        Three arrays (clips, classes), and the keys (clips,).

    Raises:
        DatasetError: Too many files cannot be read.
    """
    rows, scores = ClipScorer(in_float32(model), inputs, split).scores()
    labels, mask = inputs.labels_and_mask(split, rows)
    keys = inputs.dataset.split(split).keys
    return scores, labels, mask, tuple(keys[row] for row in rows)


def score_model(
    source: str | Path | keras.Model,
    config: TrainConfig,
    split: str,
    bad_files_csv: Path | None,
    *,
    trained_in: RunFolder | None = None,
    bootstrap_samples: int = 1000,
    thresholds: str | None = None,
) -> ScoredSplit:
    """Score a saved model on a split of a data set.

    Tags are matched by name. What only the model or only the data has is left out, with a note
    on standard error. A single-label model still decides among all of its classes, so that a
    class that no clip has can only be a wrong decision.

    Args:
        source: Run folder, .keras file, name of a model with pretrained weights, or a model.
        config: Names the data set and how it is read.
        split: Name of the split.
        bad_files_csv: File in which unusable files are listed; None: no list.
        trained_in: The run that trained the model. Its training clips are rejected, except
            in the split "train".
        bootstrap_samples: Resamples for the confidence intervals. 0: no intervals.
        thresholds: "half" uses 0.5. None or "model" uses the thresholds in the model.

    Raises:
        ConfigError: The model does not take audio, or its task differs from that of the data.
        DatasetError: The data cannot be read or has none of the model's tags, or the model was
            trained on some of the clips.
    """
    model = source if isinstance(source, keras.Model) else load_model(source)
    source = str(model.name) if isinstance(source, keras.Model) else source
    frontend = find_frontend(model)
    if frontend is None:
        raise ConfigError(f"{source} has no front-end, so it cannot take audio.")
    task = model_task(model)
    if task == SINGLE_LABEL and thresholds is not None:
        raise ConfigError(f"--thresholds needs a multi-label model; {source} is single-label.")
    channels = 1 if len(model.input_shape) == 2 else model.input_shape[-1]
    audio = AudioFormat(frontend.sample_rate_hz, channels)
    inputs = open_inputs(config, audio, bad_files_csv, (split,), task, label_names(model))
    if trained_in is not None:
        check_not_trained_on(trained_in, config, inputs)
    if task != inputs.dataset.task:
        raise ConfigError(
            f"The model is {task}, but data set {config.dataset!r} is {inputs.dataset.task}: "
            "scores and labels do not match."
        )
    threshold = 0.5 if thresholds == "half" else None
    return score_split(model, inputs, split, bootstrap_samples, threshold)


def check_not_trained_on(folder: RunFolder, config: TrainConfig, inputs: Inputs) -> None:
    """Reject clips that a run was trained on, unless the split "train" is scored.

    Clips are recognised by their keys, independent of folder, fold, subset and shares, also
    in a packed copy. Keys of a `folder` data set are paths, which other data may share, so
    for such data in another folder this only prints a note on standard error.

    Every split of the run's own data must be unchanged, because added or removed files
    change the splits.

    Args:
        folder: The run's folder. Without a record of its training clips, only its own data
            is compared.
        config: The configuration of the evaluation.
        inputs: The splits to score.

    Raises:
        DatasetError: The run was trained on some of the clips, or a split of its own data
            has changed.
    """
    own = folder.read_config()
    names = ("dataset", "data_dir", "dataset_size", "sound_font", "subset")
    same_data = all(getattr(config, name) == getattr(own, name) for name in names)
    for name, split in inputs.dataset.splits.items():
        if name == "train":
            continue
        trained_on = recorded_clips(folder.training_clips, inputs.dataset.name, split.keys)
        if not trained_on:
            continue
        found = (
            f"{folder.root} was trained on {len(trained_on):,} of the {len(split):,} clips of "
            f"split {name!r}: {first_few(trained_on)}."
        )
        if inputs.dataset.name == "folder" and not same_data:
            print(f"Note on folder: if these are the same files, {found}", file=sys.stderr)
            continue
        raise DatasetError(f"{found} {_advise_other_clips(config, own)}")
    if not same_data:
        return
    recorded = json.loads(folder.environment.read_text(encoding="utf-8"))["data"]
    for name, value in inputs.fingerprints.items():
        if recorded["fingerprints"][name] != value:
            raise DatasetError(
                f"Split {name!r} of {config.dataset!r} has changed since {folder.root} was "
                "trained, so it may contain training clips. Restore the files, or name other "
                "data with --dataset and --data-dir."
            )


def _advise_other_clips(config: TrainConfig, own: TrainConfig) -> str:
    if config.dataset == own.dataset and config.fold != own.fold:
        fold = "the default" if own.fold is None else own.fold
        return (
            "Another fold contains training clips: score the fold of the run "
            f"({fold}), or a model that was trained on this fold."
        )
    return "Use the splits of the run, or other clips."
