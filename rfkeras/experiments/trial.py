"""One trial, in a process of its own: train, choose the weights, write the figure down.

    python -m rfkeras.experiments.trial RUN_FOLDER

It ends with its standard input, so it does not outlive a search that was killed. The test
split is not touched.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfkeras.config.train_config import TrainConfig, differing_options
from rfkeras.errors import CheckpointError, DatasetError, RFKerasError
from rfkeras.training.launch import INTERRUPTED, end_with_parent, last_line, start_child
from rfkeras.training.run_dir import RunFolder, create_run_folder
from rfkeras.utils.files import exclusive, write_text

FAILED, DATA_AT_FAULT = 1, 3  # exit statuses


def result_file(folder: RunFolder) -> Path:
    """What a finished trial leaves: its figure, epochs, seconds and parameters."""
    return folder.root / "trial_result.json"


def main(root: str) -> int:
    """Train what is left of the trial; returns the exit status."""
    end_with_parent()
    folder = RunFolder(Path(root))
    try:
        with exclusive(folder.lock, on_wait=_say_waiting):
            if not result_file(folder).exists():
                _train(folder)
    except RFKerasError as error:
        print(f"error: {error}", file=sys.stderr)
        return DATA_AT_FAULT if isinstance(error, DatasetError) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _train(folder: RunFolder) -> None:
    import numpy as np

    from rfkeras.training.run import fit, read_columns

    config = folder.read_config()
    fitted = fit(config, folder, resume=True)
    log = read_columns(folder.log)
    result = {
        "monitor": config.monitor,
        "figure": fitted.figure,
        "epochs": len(log["epoch"]),
        "seconds": log["seconds"][-1],
        "parameters": sum(int(np.prod(v.shape)) for v in fitted.model.trainable_variables),
    }
    write_text(result_file(folder), json.dumps(result, indent=2) + "\n")


def _say_waiting(holder: str) -> None:
    print(f"Waiting for process {holder}, which trains this trial", file=sys.stderr)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(sys.argv[1]))


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
    process = start_child("rfkeras.experiments.trial", folder)
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
