"""Checkpoints from which a run goes on exactly where it was.

A snapshot is one file that holds every variable of the model and of the optimiser, the
number of steps done, and the run's own record (history, best value). It is written aside
and renamed, so a reader finds the old one or the new one and nothing in between.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.errors import CheckpointError
from rfkeras.files import write_npz
from rfkeras.reading import open_npz

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
