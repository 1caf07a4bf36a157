"""Scores of a finished model on data that it is given later."""

from __future__ import annotations

from pathlib import Path

from rfkeras.config import TrainConfig
from rfkeras.data.audio import AudioFormat
from rfkeras.errors import ConfigError
from rfkeras.export.saved_model import label_names
from rfkeras.frontend import find_frontend
from rfkeras.loading import load_model
from rfkeras.training.inputs import open_inputs
from rfkeras.training.run_folder import RunFolder, check_same_data
from rfkeras.training.scoring import ScoredSplit, model_task, score_split


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
