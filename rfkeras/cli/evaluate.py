"""`rfkeras evaluate`: evaluate a model on a data set, or evaluate arrays of scores."""

from __future__ import annotations

import argparse
import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.cli.main import COMMANDS, add_train_flags, join_flags
from rfkeras.cli.parser import add_model_argument
from rfkeras.config.resolve import DATA_SET_OPTIONS, complete, merge_options
from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import ConfigError, DatasetError
from rfkeras.utils.files import load_npy, read_text, sole_writer
from rfkeras.utils.label_names import check_label_names
from rfkeras.utils.text import count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rfkeras.evaluation.metrics import BoolArray, FloatArray

BOOTSTRAP_SAMPLES = 1000
ARRAY_FLAGS = ("groundtruth", "decisions", "mask", "label_names")
# Options of a run that may differ in the evaluation. Folder names list them in this order.
DATA_FLAGS = (
    "dataset",
    "data_dir",
    "audio_dir",
    "subset",
    "fold",
    "dataset_size",
    "sound_font",
    "validation_share",
    "test_share",
    "allow_absolute",
    "split_rule",
    "batch_size",
    "window_seconds",
    "max_bad_share",
    "decoder",
)


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "evaluate",
        help=COMMANDS["evaluate"],
        description=(
            "Evaluate the model of a run (--run), any model (--model) or scores in .npy files "
            "(--predictions with --groundtruth). Tags of model and data are matched by name; "
            "what only one of them has is left out, with a note."
        ),
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", dest="run_folder", type=Path, metavar="DIR", help="run folder")
    add_model_argument(what, deprecated=["--model-path"])
    what.add_argument(
        "--predictions", type=Path, metavar="FILE", help=".npy, (clips, classes) scores"
    )
    parser.add_argument(
        "--split",
        default="test",
        choices=("train", "validation", "test"),
        help="split to score (default: test)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the report (default: see below)"
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=BOOTSTRAP_SAMPLES,
        metavar="N",
        help="bootstrap resamples (default: 1000; 0 for no confidence intervals)",
    )
    parser.add_argument(
        "--thresholds",
        choices=("model", "half"),
        help="decide with the thresholds saved in the model (default) or with 0.5",
    )
    parser.add_argument(
        "--task",
        choices=("auto", "multi_label", "single_label"),
        help="with --predictions: single_label if each clip has exactly one class (default: "
        "auto, which is multi_label); models record their own task",
    )
    add_train_flags(parser, DATA_FLAGS)
    for name in ARRAY_FLAGS:
        parser.add_argument(
            "--" + name.replace("_", "-"), type=Path, metavar="FILE", help=_ARRAY_HELP[name]
        )
    parser.epilog = (
        "The default --output is DIR/report for --run (with other options than the run: "
        "DIR/report-DATASET-SPLIT and the options that differ) and FILE-report next to the "
        "file for --model (in the current folder for a model with pretrained weights). For "
        "arrays no report is written by default."
    )
    parser.set_defaults(run=run)


_ARRAY_HELP = {
    "groundtruth": ".npy, (clips, classes) of 0 and 1",
    "decisions": ".npy, (clips, classes) of 0 and 1 (default: score >= 0.5; single_label: "
    "the highest score)",
    "mask": ".npy, (clips, classes), 1 where the label is known (default: all known)",
    "label_names": "text file with one tag per line",
}


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if options.bootstrap < 0:
        raise ConfigError(f"--bootstrap must not be negative. Received: {options.bootstrap}.")
    if options.predictions is not None:
        return _evaluate_arrays(options)
    given = [n for n in (*ARRAY_FLAGS, "task") if getattr(options, n) is not None]
    if given:
        raise ConfigError(f"{join_flags(given)}: only with --predictions.")
    return _evaluate_model(options)


def _evaluate_arrays(options: argparse.Namespace) -> int:
    from rfkeras.evaluation.report import evaluate, write_report
    from rfkeras.evaluation.report_table import print_report

    if options.groundtruth is None:
        raise ConfigError("--predictions needs --groundtruth.")
    given = [name for name in DATA_FLAGS if hasattr(options, name)]
    given += [] if options.thresholds is None else ["thresholds"]
    if given:
        raise ConfigError(f"{join_flags(given)}: only with --run or --model.")
    files = [options.predictions, *(getattr(options, name) for name in ARRAY_FLAGS)]
    arrays = load_arrays(*files)
    report = evaluate(
        arrays.scores,
        arrays.labels,
        arrays.mask,
        label_names=arrays.label_names,
        decisions=arrays.decisions,
        bootstrap_samples=options.bootstrap,
        task="single_label" if options.task == "single_label" else "multi_label",
    )
    print_report(report, title="Arrays")
    if options.output is not None:
        write_report(report, options.output, arrays.scores, arrays.labels, arrays.mask)
        print(f"Report: {options.output}")
    return 0


def _evaluate_model(options: argparse.Namespace) -> int:
    from rfkeras.evaluation.report import write_report
    from rfkeras.evaluation.report_table import print_report

    flags = {n: getattr(options, n) for n in DATA_FLAGS if hasattr(options, n)}
    config, model, output, log = _sources(options, flags)
    with sole_writer(output.with_name(f".{output.name}.lock"), output):
        scored = _score(config, model, options, output)
        write_report(
            scored.report,
            output,
            scored.scores,
            scored.labels,
            scored.mask,
            keys=scored.keys,
            **_curves(config, log),
        )
    print_report(scored.report, title=options.split.capitalize())
    print(f"Report: {output}")
    return 0


def _curves(config: TrainConfig, log: Path | None) -> dict[str, Any]:
    """Return the arguments for the training curves in a report, if there is a log."""
    if log is None or not log.exists():
        return {}
    from rfkeras.training.run_dir import read_log

    return {
        "history": read_log(log),
        "monitor": config.monitor,
        "first_epoch": config.first_eligible_epoch,
    }


def _sources(
    options: argparse.Namespace, flags: dict[str, Any]
) -> tuple[TrainConfig, str | Path, Path, Path | None]:
    """Return configuration, model, report folder and training log."""
    from zoo.pretrained import model_path

    run_folder = _run_folder(options)
    if run_folder is None:
        if "dataset" not in flags:
            raise ConfigError("--model needs --dataset (and --data-dir): the data to evaluate.")
        model_path(options.model)  # a misspelt name must not leave a lock behind
        model = Path(options.model)
        if model.suffix == ".keras":
            output = model.with_name(f"{model.stem}-report")
        else:
            output = Path(f"{model.name.replace(':', '-')}-report")
        return complete(merge_options(flags)), options.model, options.output or output, None
    from rfkeras.training.api import evaluation_config
    from rfkeras.training.run_dir import RunFolder

    folder = RunFolder(run_folder)
    own = folder.read_config()
    config = evaluation_config(own, flags)
    if config.dataset != own.dataset:
        own = replace(own, **{n: getattr(TrainConfig, n) for n in DATA_SET_OPTIONS})
    name = _report_name(config, own, options)
    return config, folder.model, options.output or folder.root / name, folder.log


def _run_folder(options: argparse.Namespace) -> Path | None:
    """Return the folder of the run to evaluate; None for a model without a run."""
    if options.run_folder is not None:
        return Path(options.run_folder)
    from rfkeras.training.run_dir import RunFolder

    folder = RunFolder(Path(options.model))
    return folder.root if folder.config.is_file() else None


def _report_name(config: TrainConfig, own: TrainConfig, options: argparse.Namespace) -> str:
    """Return the name of the report's folder; every evaluation of a run has its own.

    Args:
        config: Configuration of the evaluation.
        own: Configuration without the flags: that of the run, if it fits the data set.
        options: The flags.
    """
    differing = {
        name: getattr(config, name)
        for name in DATA_FLAGS
        if getattr(config, name) not in (None, getattr(own, name))
    }
    if options.bootstrap != BOOTSTRAP_SAMPLES:
        differing["bootstrap"] = options.bootstrap
    if options.thresholds == "half":
        differing["thresholds"] = options.thresholds
    if not differing and options.split == "test":
        return "report"
    differing.pop("dataset", None)  # the name contains it anyway
    parts = [f"{name}={_in_file_name(name, value)}" for name, value in differing.items()]
    return "-".join(["report", config.dataset.replace(":", "-"), options.split, *parts])


def _in_file_name(name: str, value: Any) -> str:
    """Return a value without path characters; for folders a name and a digest of the path."""
    if name not in ("data_dir", "audio_dir", "sound_font"):
        return re.sub(r"[^\w.]+", "_", str(value))
    last = re.sub(r"[^\w.]+", "_", Path(value).name)
    return f"{last}.{hashlib.sha256(str(value).encode()).hexdigest()[:6]}"


def _score(
    config: TrainConfig, model: str | Path, options: argparse.Namespace, output: Path
) -> Any:
    from rfkeras.training.run_dir import RunFolder
    from rfkeras.training.scoring import score_model

    run_folder = _run_folder(options)
    return score_model(
        model,
        config,
        options.split,
        output / "bad_files.csv",
        trained_in=None if run_folder is None else RunFolder(run_folder),
        bootstrap_samples=options.bootstrap,
        thresholds=options.thresholds,
    )


@dataclass(frozen=True)
class Arrays:
    """Checked contents of the files.

    Attributes:
        scores: (clips, classes), finite.
        labels: (clips, classes), False where the mask is False.
        mask: (clips, classes), True where the label is known.
        decisions: (clips, classes), or None.
        label_names: (classes,), all different.
    """

    scores: FloatArray
    labels: BoolArray
    mask: BoolArray
    decisions: BoolArray | None
    label_names: tuple[str, ...]


def load_arrays(
    predictions: str | Path,
    groundtruth: str | Path,
    decisions: str | Path | None = None,
    mask: str | Path | None = None,
    label_names: str | Path | None = None,
) -> Arrays:
    """Read and check the files of an evaluation.

    Args:
        predictions: .npy (clips, classes) of scores; higher means more likely.
        groundtruth: .npy (clips, classes) of 0 and 1.
        decisions: .npy (clips, classes) of 0 and 1.
        mask: .npy (clips, classes), 1 where the label is known; None: everywhere.
        label_names: UTF-8 text with one name per line; None: "tag 0", "tag 1", ...

    Raises:
        DatasetError: A file is missing, has wrong content, or does not fit the others.
    """
    from rfkeras.evaluation.metrics import check_binary, check_scored

    scores = _load(predictions, "predictions")
    labels = _load(groundtruth, "groundtruth")
    known = None if mask is None else _load(mask, "mask")
    decided = None if decisions is None else _load(decisions, "decisions")
    files = [predictions, groundtruth, *(path for path in (mask, decisions) if path)]
    try:
        scored = check_scored(scores, labels, known)
        if decided is not None:
            decided = check_binary("decisions", decided, scored.scores.shape)
    except ConfigError as error:
        raise DatasetError(
            f"{error} Files: {', '.join(str(path) for path in files)}."
        ) from error
    classes = scored.scores.shape[1]
    names = (
        tuple(f"tag {tag:0{len(str(classes - 1))}d}" for tag in range(classes))
        if label_names is None
        else _read_names(Path(label_names), classes)
    )
    return Arrays(scored.scores, scored.labels, scored.mask, decided, names)


def _load(path: str | Path, role: str) -> NDArray[np.generic]:
    """Load the array in a .npy file, without unpickling."""
    import numpy as np

    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"{role}: no such file: {path}.")
    try:
        array = load_npy(path)
    except (ValueError, OSError) as error:
        raise DatasetError(
            f"{role}: {path} is not a NumPy array of numbers ({error}). Write it with "
            "numpy.save."
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise DatasetError(f"{role}: {path} is an archive (.npz). Save its array as .npy.")
    return array


def _read_names(path: Path, classes: int) -> tuple[str, ...]:
    try:
        lines = read_text(path).split("\n")
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"label names: cannot read {path} as UTF-8 text: {error}."
        ) from error
    try:
        names = check_label_names(line for line in lines if line.strip())
    except ConfigError as error:
        raise DatasetError(f"label names: {path}: {error}") from error
    if len(names) != classes:
        raise DatasetError(
            f"label names: {path} must have {classes} different lines, one per class. "
            f"Received: {count(len(names), 'line')}."
        )
    return names
