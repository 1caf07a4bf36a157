"""The folder of a run: what lies where, and what it was run on."""

from __future__ import annotations

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
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.config.train_config import TrainConfig, from_json, to_json
from rfkeras.datasets.base import recorded_clips, write_clip_record
from rfkeras.errors import CheckpointError, ConfigError, DatasetError
from rfkeras.utils.files import open_npz, remove_leftovers, sole_writer, write_npz, write_text

if TYPE_CHECKING:
    from rfkeras.training.data import Inputs

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
_NAMED = 3  # clips in an error


@dataclass(frozen=True)
class RunFolder:
    """Paths in a run folder."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held by the process that writes to the folder."""
        return self.root / ".lock"

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.json"

    @property
    def environment(self) -> Path:
        """Versions of the packages, the machine, the devices."""
        return self.root / "environment.json"

    @property
    def initial_weights(self) -> Path:
        """Which weights the run started from, and the layers that had none."""
        return self.root / "initial_weights.json"

    @property
    def training_clips(self) -> Path:
        """The data set's name and a digest of the key of every clip trained on."""
        return self.root / "training_clips.json"

    @property
    def log(self) -> Path:
        """One line an epoch."""
        return self.root / "log.csv"

    @property
    def bad_files(self) -> Path:
        """Audio files that were skipped, each with the reason."""
        return self.root / "bad_files.csv"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.root / "tensorboard"

    @property
    def last(self) -> Path:
        """Snapshot from which the run can go on."""
        return self.root / "checkpoints" / "last.npz"

    @property
    def best(self) -> Path:
        """Snapshot of the weights of the best epoch."""
        return self.root / "checkpoints" / "best.npz"

    @property
    def choice(self) -> Path:
        """Which weights the run ended with, and the figures that were compared."""
        return self.root / "final_weights.json"

    @property
    def pruning(self) -> Path:
        """How many weights of each kernel are left, of a pruned model."""
        return self.root / "pruning.json"

    @property
    def model(self) -> Path:
        """The finished model."""
        return self.root / "model.keras"

    @property
    def report(self) -> Path:
        """Figures, tables and plots of the test split."""
        return self.root / "report"

    @property
    def figures(self) -> Path:
        """The figures of the test split; the last file of the report."""
        return self.report / "report.json"

    @property
    def saved_model(self) -> Path:
        """The finished model for TensorFlow Serving; made last of all."""
        return self.root / "saved_model" / "1"

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end."""
        if self.saved_model.exists():
            return True
        return self.figures.exists() and not self.read_config().export

    def read_config(self) -> TrainConfig:
        """The run's configuration.

        Raises:
            ConfigError: This is no run folder.
        """
        if not self.config.is_file():
            raise ConfigError(f"{self.root} is no run folder: it has no {self.config.name}.")
        return from_json(TrainConfig, self.config)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Block in which no other process writes to the folder.

        What killed processes left half-written is removed first. Of several workers the
        chief alone takes it. The kernel frees it, however the process ends.

        Raises:
            ConfigError: Another process has it.
        """
        with sole_writer(self.lock, self.root):
            remove_leftovers(self.root)
            yield


def create_run_folder(config: TrainConfig, root: Path | None) -> RunFolder:
    """Make the folder of a new run and write its configuration.

    Args:
        config: The resolved configuration.
        root: Where; by default a new folder under `runs/`, named for the model, the data
            set, the seed and the time.

    Raises:
        ConfigError: The folder holds a run that has begun to train, or another process
            writes to it.
    """
    if root is None:
        moment = time.strftime("%Y%m%d-%H%M%S")
        root = Path("runs", f"{config.model}-{config.dataset}-seed{config.seed}-{moment}")
    folder = RunFolder(root)
    if folder.last.exists() or folder.is_finished:
        raise ConfigError(
            f"{root} holds a run already. Go on with it by --resume {root}, or choose "
            "another --run-dir."
        )
    folder.last.parent.mkdir(parents=True, exist_ok=True)
    with folder.locked():
        write_text(folder.config, to_json(config))
    return folder


def latest_unfinished(parent: Path = Path("runs")) -> RunFolder:
    """The newest run under `parent` that has a snapshot and has not come to its end.

    Raises:
        CheckpointError: There is none.
    """
    folders = [RunFolder(path.parent) for path in parent.glob("*/config.json")]
    unfinished = [f for f in folders if f.last.exists() and not f.is_finished]
    if not unfinished:
        raise CheckpointError(
            f"There is no unfinished run with a checkpoint under {parent.resolve()}."
        )
    return max(unfinished, key=lambda folder: folder.last.stat().st_mtime)


def write_environment(folder: RunFolder, devices: list[str], data: dict[str, Any]) -> None:
    """Record versions, machine and data, so that the run can be repeated.

    A resumed run keeps the record of its first start and adds its own under "resumed".
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


def write_training_clips(folder: RunFolder, dataset: str, keys: Sequence[str]) -> None:
    """Record which clips are trained on, so that no later evaluation counts them as unseen.

    A resumed run keeps the record of its first start.

    Args:
        folder: The run's folder.
        dataset: Name of the data set, of a packed one that of its source.
        keys: Keys of its training clips.
    """
    if not (folder.last.exists() and folder.training_clips.exists()):
        write_clip_record(folder.training_clips, dataset, keys)


def check_same_data(folder: RunFolder, config: TrainConfig, inputs: Inputs) -> None:
    """Refuse to score clips that a run was trained on as if it had never heard them.

    They are found by their keys, wherever the data set lies and whichever its fold, subset
    or shares, and also among the shards of a packed copy. Keys of one's own data (`folder`)
    are paths, which other data may share: at another place they make a note on standard
    error. The split "train" may be scored: whoever names it knows what it is.

    Of the run's own data every split must be as it was, for files that came or went move
    the splits.

    Args:
        folder: The run's folder. One without a record of its clips is held against its own
            data alone.
        config: The configuration of the evaluation.
        inputs: The splits to be scored.

    Raises:
        DatasetError: Clips were trained on, or a split of the run's own data has changed.
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
            f"{len(trained_on):,} of {len(split):,} clips of split {name!r} were trained on "
            f"by {folder.root}: {', '.join(trained_on[:_NAMED])}"
            f"{', ...' if len(trained_on) > _NAMED else ''}."
        )
        if inputs.dataset.name == "folder" and not same_data:
            print(f"Note on folder, if these are the same files: {found}", file=sys.stderr)
            continue
        raise DatasetError(f"{found} {_way_out(config, own)}")
    if not same_data:
        return
    recorded = json.loads(folder.environment.read_text(encoding="utf-8"))["data"]
    for name, value in inputs.fingerprints.items():
        if recorded["fingerprints"][name] != value:
            raise DatasetError(
                f"Split {name!r} of {config.dataset!r} holds other clips or labels than when "
                f"{folder.root} was trained, so clips trained on may be among them. Bring the "
                "files back, or name the data by --dataset and another --data-dir."
            )


def _way_out(config: TrainConfig, own: TrainConfig) -> str:
    """What to do about training clips among those to be scored."""
    if config.dataset == own.dataset and config.fold != own.fold:
        fold = "the default one" if own.fold is None else own.fold
        return (
            "Another fold holds clips trained on: score the fold of the run, "
            f"{fold}, or a model trained on this one."
        )
    return "Score data with the splits of the run, or other clips."


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


FORMAT = 1


def state_variables(model: Any) -> list[Any]:
    """What a model's outputs and its next step depend on: weights, statistics, seeds.

    `model.variables` would also count the state of metrics, which appears only once the
    model has been trained.
    """
    return [*model.trainable_variables, *model.non_trainable_variables]


def copy_values(source: Sequence[Any], target: Sequence[Any]) -> None:
    """Give variables the values of others, in the same order."""
    for one, other in zip(source, target, strict=True):
        other.assign(one.numpy())


def save_snapshot(path: Path, variables: Sequence[Any], record: dict[str, Any]) -> None:
    """Write variables (Keras variables, in a fixed order) and record (JSON) to `path`."""
    meta = {
        "format": FORMAT,
        "variables": [[variable.path, list(variable.shape)] for variable in variables],
        "record": record,
    }
    arrays = {f"v{i}": np.asarray(v.numpy()) for i, v in enumerate(variables)}
    write_npz(path, {"meta": np.array(json.dumps(meta)), **arrays})


def read_record(path: Path) -> dict[str, Any]:
    """The record of a snapshot, without its variables.

    Raises:
        CheckpointError: The file is missing or is no snapshot.
    """
    meta, _ = _read(path, with_values=False)
    return dict(meta["record"])


def load_snapshot(path: Path, variables: Sequence[Any]) -> dict[str, Any]:
    """Assign a snapshot's values to the same variables, and return its record.

    Raises:
        CheckpointError: The file is missing, is no snapshot, or belongs to another model.
    """
    meta, values = _read(path, with_values=True)
    wanted = [list(variable.shape) for variable in variables]
    if [shape for _, shape in meta["variables"]] != wanted:
        differing = (
            f"{name} is {saved} there and {shape} here"
            for (name, saved), shape in zip(meta["variables"], wanted, strict=False)
            if saved != shape
        )
        raise CheckpointError(
            f"{path} belongs to another model: {len(values)} variables there, {len(wanted)} "
            f"here; first difference: {next(differing, 'their number')}."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return dict(meta["record"])


def _read(path: Path, with_values: bool) -> tuple[dict[str, Any], list[NDArray[Any]]]:
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
    if meta.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {meta.get('format')}; this version reads {FORMAT}."
        )
    return meta, values
