"""The folder of a run: its paths, records, log and snapshots."""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.config.train_config import TrainConfig, from_json, to_json
from rfkeras.datasets.base import write_clip_record
from rfkeras.errors import CheckpointError, ConfigError
from rfkeras.utils.files import (
    open_npz,
    read_json,
    remove_leftovers,
    sole_writer,
    write_npz,
    write_text,
)
from rfkeras.utils.table import csv_text

RECORDED_PACKAGES = (
    "rfkeras",
    "tensorflow",
    "keras",
    "kapre",
    "tensorflow-io",
    "keras-tuner",
    "numpy",
    "scikit-learn",
    "soundfile",
    "soxr",
    "pretty_midi",
    "midirenderer",
)
SNAPSHOT_FORMAT = 1


@dataclass(frozen=True)
class RunFolder:
    """Paths in the folder of a run."""

    root: Path

    @property
    def lock(self) -> Path:
        """File that is locked by the process that writes to the folder."""
        return self.root / ".lock"

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.json"

    @property
    def environment(self) -> Path:
        """Package versions, machine, devices and data."""
        return self.root / "environment.json"

    @property
    def initial_weights(self) -> Path:
        """Initial weights of the run, and the layers that they do not contain."""
        return self.root / "initial_weights.json"

    @property
    def training_clips(self) -> Path:
        """Name of the data set, and a digest of the key of every training clip."""
        return self.root / "training_clips.json"

    @property
    def log(self) -> Path:
        """Metrics, one row per epoch."""
        return self.root / "log.csv"

    @property
    def bad_files(self) -> Path:
        """Audio files that were skipped, each with the reason."""
        return self.root / "bad_files.csv"

    @property
    def features(self) -> Path:
        """Spectrograms of the training clips, with `cache_features`."""
        return self.root / "features"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.root / "tensorboard"

    @property
    def last(self) -> Path:
        """Latest snapshot, from which the run can be resumed."""
        return self.root / "checkpoints" / "last.npz"

    @property
    def best(self) -> Path:
        """Weights of the best epoch."""
        return self.root / "checkpoints" / "best.npz"

    @property
    def final_weights(self) -> Path:
        """The choice of final weights, and the metrics that were compared."""
        return self.root / "final_weights.json"

    @property
    def pruning(self) -> Path:
        """Number of remaining weights in each kernel of a pruned model."""
        return self.root / "pruning.json"

    @property
    def model(self) -> Path:
        """The finished model."""
        return self.root / "model.keras"

    @property
    def report(self) -> Path:
        """Folder with metrics, tables and plots of the test split."""
        return self.root / "report"

    @property
    def report_json(self) -> Path:
        """Metrics of the test split. Written last of all files of the report."""
        return self.report / "report.json"

    @property
    def saved_model(self) -> Path:
        """The finished model for TensorFlow Serving. Written last of all files."""
        return self.root / "saved_model" / "1"

    @property
    def continued(self) -> Path:
        """Changes of the configuration since the start of the run."""
        return self.root / "continued.json"

    @property
    def is_finished(self) -> bool:
        """Return whether the run is complete."""
        if self.saved_model.exists():
            return True
        return self.report_json.exists() and not self.read_config().export

    def read_config(self) -> TrainConfig:
        """Read the run's configuration.

        Raises:
            ConfigError: This is not a run folder.
        """
        if not self.config.is_file():
            raise ConfigError(f"{self.root} is not a run folder: it has no {self.config.name}.")
        return from_json(self.config)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing to the folder within the block.

        First remove files that killed processes left half-written. With several workers,
        only the chief locks the folder. The lock is released however the process ends.

        Raises:
            ConfigError: Another process holds the lock.
        """
        with sole_writer(self.lock, self.root):
            remove_leftovers(self.root)
            yield


def create_run_folder(config: TrainConfig, root: Path | None) -> RunFolder:
    """Create the folder of a new run and write its configuration.

    Args:
        config: The resolved configuration.
        root: Path of the folder. None: a new folder under `runs/`, named after the model, the
            data set, the seed and the time.

    Raises:
        ConfigError: The folder contains a run that has started to train, or another process
            is writing to it.
    """
    if root is None:
        now = time.strftime("%Y%m%d-%H%M%S")
        dataset = config.dataset.replace(":", "-")  # as in mirdata:irmas
        root = Path("runs", f"{config.model}-{dataset}-seed{config.seed}-{now}")
    folder = RunFolder(root)
    if folder.last.exists() or folder.is_finished:
        raise ConfigError(
            f"{root} already contains a run. Resume it with --resume {root}, or choose another "
            "--run-dir."
        )
    folder.last.parent.mkdir(parents=True, exist_ok=True)
    with folder.locked():
        write_text(folder.config, to_json(config))
    return folder


def continue_run(folder: RunFolder, config: TrainConfig, rule: str) -> None:
    """Give a run another configuration, with which it is then resumed.

    The results of a finished run move to the sub-folder `results-epoch-N`, because they are
    not those of the continued run. continued.json records the change.

    Args:
        folder: The run's folder.
        config: The new configuration.
        rule: A sentence about the learning-rate schedule.

    Raises:
        ConfigError: Another process holds the lock.
        CheckpointError: The run has no snapshot, or has stopped early.
    """
    record = read_record(folder.last)
    before = folder.read_config()
    if record["stopped"]:
        raise CheckpointError(
            f"{folder.root} has stopped early, after {len(record['history'])} epochs, so it "
            "cannot be continued. Start a new run from its weights with --init-weights "
            f"{folder.root}."
        )
    changes = {
        name: [getattr(before, name), value]
        for name, value in dataclasses.asdict(config).items()
        if getattr(before, name) != value
    }
    with folder.locked():
        if folder.is_finished:
            kept = folder.root / f"results-epoch-{before.epochs}"
            kept.mkdir(exist_ok=True)
            results = (folder.model, folder.report, folder.final_weights, folder.pruning)
            # The SavedModel first: without it the run counts as unfinished.
            for path in (folder.saved_model.parent, *results):
                if path.exists():
                    path.replace(kept / path.name)
        changed = {"after_step": record["steps_done"], "schedule": rule, "changes": changes}
        earlier = read_json(folder.continued) if folder.continued.exists() else []
        write_text(folder.continued, json.dumps([*earlier, changed], indent=2) + "\n")
        write_text(folder.config, to_json(config))


def latest_unfinished(parent: Path = Path("runs")) -> RunFolder:
    """Return the newest unfinished run in a folder that has a snapshot.

    Raises:
        CheckpointError: There is none.
    """
    folders = [RunFolder(path.parent) for path in parent.glob("*/config.json")]
    unfinished = [f for f in folders if f.last.exists() and not f.is_finished]
    if not unfinished:
        raise CheckpointError(
            f"There is no unfinished run with a checkpoint in {parent.resolve()}."
        )
    return max(unfinished, key=lambda folder: folder.last.stat().st_mtime)


# Records of how a run was started


def write_environment(folder: RunFolder, devices: list[str], data: dict[str, Any]) -> None:
    """Record package versions, machine and data, so that the run can be repeated.

    A resumed run keeps the record of its first start and appends its own under "resumed".

    Args:
        folder: The run's folder.
        devices: Names of the devices.
        data: Description of the data.
    """
    environment: dict[str, Any] = {
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
        "python": sys.version,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "devices": devices,
        "command": sys.argv,
        "data": data,
    }
    if folder.last.exists() and folder.environment.exists():
        first = json.loads(folder.environment.read_text(encoding="utf-8"))
        first.setdefault("resumed", []).append(environment)
        environment = first
    write_text(folder.environment, json.dumps(environment, indent=2, default=str) + "\n")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def write_training_clips(folder: RunFolder, dataset: str, keys: Sequence[str]) -> None:
    """Record the training clips, so that no later evaluation treats them as unseen.

    A resumed run keeps the record of its first start.

    Args:
        folder: The run's folder.
        dataset: Name of the data set. For a packed one, that of its source.
        keys: Keys of the training clips.
    """
    if not (folder.last.exists() and folder.training_clips.exists()):
        write_clip_record(folder.training_clips, dataset, keys)


# The log of the epochs


def write_log(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write log.csv, one row per epoch. All rows have the same keys."""
    write_text(path, csv_text(rows))


def read_log(path: Path) -> dict[str, Sequence[float]]:
    """Return the columns of log.csv by name, one value per epoch."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]} if rows else {}


# Snapshots of variables


def state_variables(model: Any) -> list[Any]:
    """Return the variables that a model's outputs and next step depend on.

    These are weights, statistics and seeds, in a fixed order. `model.variables` would also
    include the state of metrics, which only exists once the model has been trained.
    """
    return [*model.trainable_variables, *model.non_trainable_variables]


def copy_values(source: Sequence[Any], target: Sequence[Any]) -> None:
    """Copy the values of variables to other variables in the same order."""
    for one, other in zip(source, target, strict=True):
        other.assign(one.numpy())


def save_snapshot(path: Path, variables: Sequence[Any], record: dict[str, Any]) -> None:
    """Write variables and a record to a file.

    Args:
        path: The .npz file.
        variables: Keras variables in a fixed order.
        record: JSON values.
    """
    meta = {
        "format": SNAPSHOT_FORMAT,
        "variables": [[variable.path, list(variable.shape)] for variable in variables],
        "record": record,
    }
    arrays = {f"v{i}": np.asarray(v.numpy()) for i, v in enumerate(variables)}
    write_npz(path, {"meta": np.array(json.dumps(meta)), **arrays})


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of a snapshot without its variables.

    Raises:
        CheckpointError: The file is missing or is not a snapshot.
    """
    meta, _ = _read_snapshot(path, with_values=False)
    return dict(meta["record"])


def load_snapshot(path: Path, variables: Sequence[Any]) -> dict[str, Any]:
    """Assign the values of a snapshot to the same variables, and return its record.

    Raises:
        CheckpointError: The file is missing, is not a snapshot, is from another model, or
            contains values that are not finite. No variable is changed then.
    """
    meta, values = _read_snapshot(path, with_values=True)
    wanted = [list(variable.shape) for variable in variables]
    if [shape for _, shape in meta["variables"]] != wanted:
        differing = (
            f"{name} has shape {saved} in the file and {shape} in this model"
            for (name, saved), shape in zip(meta["variables"], wanted, strict=False)
            if saved != shape
        )
        raise CheckpointError(
            f"{path} is from another model: it has {len(values)} variables, this model has "
            f"{len(wanted)}; first difference: {next(differing, 'their number')}."
        )
    for (name, _), value in zip(meta["variables"], values, strict=True):
        if np.issubdtype(value.dtype, np.inexact) and not np.isfinite(value).all():
            raise CheckpointError(
                f"{path} cannot be used: variable {name} contains NaN or infinity."
            )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return dict(meta["record"])


def _read_snapshot(path: Path, with_values: bool) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.")
    try:
        with open_npz(path) as archive:
            meta = dict(json.loads(str(archive["meta"])))
            count = len(meta["variables"]) if with_values else 0
            values = [archive[f"v{i}"] for i in range(count)]
            _ = dict(meta["record"]), [(name, list(shape)) for name, shape in meta["variables"]]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    if meta.get("format") != SNAPSHOT_FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {meta.get('format')}. This version of rfkeras reads "
            f"format {SNAPSHOT_FORMAT}."
        )
    return meta, values
