"""Trials as processes: one that crashes or runs out of memory takes nothing with it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfkeras.config import TrainConfig, differing_options
from rfkeras.errors import CheckpointError, DatasetError, RFKerasError
from rfkeras.files import write_text
from rfkeras.training.child import (
    INTERRUPTED,
    last_line,
    start_child,
)
from rfkeras.training.run_folder import RunFolder, create_run_folder
from rfkeras.tuning.trial import DATA_AT_FAULT, result_file


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        figure: The monitored figure of its weights on the validation split; None: it
            failed.
        reason: Why, if it failed.
    """

    figure: float | None
    reason: str = ""


Runner = Callable[[RunFolder, TrainConfig], Outcome]


def run_in_process(folder: RunFolder, config: TrainConfig) -> Outcome:
    """Train a trial, or go on with it, in a process of its own.

    Args:
        folder: The trial's run folder. What was trained there before is not repeated.
        config: Its complete configuration.

    Raises:
        DatasetError: The data cannot be used, which no other trial would change.
        KeyboardInterrupt: Ctrl-C; by then the trial has saved and ended.
    """
    try:
        prepare(folder, config)
    except RFKerasError as error:
        return record_failure(folder, str(error))
    process = start_child("rfkeras.tuning.trial", folder)
    with process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    if status == 0:
        return read_outcome(folder)
    if status == INTERRUPTED:
        raise KeyboardInterrupt(f"The trial in {folder.root} was interrupted.")
    reason = last_line(folder).removeprefix("error: ")
    if status == DATA_AT_FAULT:
        raise DatasetError(reason)
    if status < 0:
        name = signal.Signals(-status).name
        reason = f"killed by {name}{', perhaps out of memory' if name == 'SIGKILL' else ''}"
    return record_failure(folder, reason or f"exit status {status}")


def prepare(folder: RunFolder, config: TrainConfig) -> None:
    """Make the run folder of a trial, or check that what lies there is this very one.

    Raises:
        CheckpointError: A run with other options lies there.
    """
    failure_file(folder).unlink(missing_ok=True)  # of an earlier try
    if not folder.config.exists():
        create_run_folder(config, folder.root)
        return
    differing = differing_options(folder.read_config(), config)
    if differing:
        raise CheckpointError(
            f"{folder.root} holds a trial with other options than the search says "
            f"({', '.join(differing)}). Move it away."
        )


def read_outcome(folder: RunFolder) -> Outcome:
    """The outcome of a trial whose process ended well."""
    figure = float(read_result(folder)["figure"])
    if figure != figure:  # NaN, which no comparison finds better or worse
        return record_failure(folder, f"{folder.read_config().monitor} is not a number")
    return Outcome(figure)


def read_result(folder: RunFolder) -> dict[str, Any]:
    """What a finished trial wrote down; empty where there is none."""
    path = result_file(folder)
    if not path.exists():
        return {}
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def failure_file(folder: RunFolder) -> Path:
    """Why a trial failed."""
    return folder.root / "failure.txt"


def record_failure(folder: RunFolder, reason: str) -> Outcome:
    """Write down why a trial failed."""
    write_text(failure_file(folder), reason + "\n")
    return Outcome(None, reason)
