"""A trial of a search, in its own process: train, choose the weights, record the score.

`run_trial` starts the process, which runs this module:

    python -m rfkeras.experiments.trial RUN_FOLDER

The process ends when its standard input does, so it does not outlive a search that was
killed. A trial never uses the test split.
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
from rfkeras.training.launch import last_line, start_child
from rfkeras.training.run_dir import RunFolder, create_run_folder, read_log
from rfkeras.utils.files import exclusive, write_text
from rfkeras.utils.processes import (
    INTERRUPTED,
    describe_status,
    obey_parent,
    send_signal,
    was_killed,
)
from rfkeras.utils.user_code import import_user_code

FAILED, BAD_DATA, DIVERGED = 1, 3, 4  # exit statuses
_DIVERGED = "diverged: "  # how the reason of a trial that has diverged begins


@dataclass(frozen=True)
class TrialOutcome:
    """The outcome of a trial.

    Attributes:
        score: The monitored metric on the validation split; None if the trial failed.
        reason: Why it failed.
    """

    score: float | None
    reason: str = ""


TrialRunner = Callable[[RunFolder, TrainConfig], TrialOutcome]


def run_trial(folder: RunFolder, config: TrainConfig) -> TrialOutcome:
    """Train a trial in its own process, or continue it.

    Args:
        folder: The trial's run folder. Training that it already contains is not repeated.
        config: The complete configuration of the trial.

    Raises:
        DatasetError: The data cannot be used, so every other trial would fail too.
        KeyboardInterrupt: Ctrl-C. The trial has saved its state and ended.
    """
    try:
        _prepare(folder, config)
    except RFKerasError as error:
        return record_failure(folder, str(error))
    process = start_child("rfkeras.experiments.trial", folder)
    with process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            send_signal(process, signal.SIGINT)
            process.wait()
            raise
    if status == 0:
        return read_outcome(folder)
    if status == INTERRUPTED:
        raise KeyboardInterrupt(f"The trial in {folder.root} was interrupted.")
    reason = last_line(folder).removeprefix("error: ")
    if status == BAD_DATA:
        raise DatasetError(reason)
    if status == DIVERGED:
        return record_failure(folder, f"{_DIVERGED}{reason}")
    if was_killed(status):
        name = describe_status(status)
        reason = f"killed by {name}{', perhaps out of memory' if name == 'SIGKILL' else ''}"
    return record_failure(folder, reason or f"exit status {status}")


def _prepare(folder: RunFolder, config: TrainConfig) -> None:
    """Create the run folder of a trial, or check that it holds the same trial.

    Raises:
        CheckpointError: The folder holds a run with other options.
    """
    failure_file(folder).unlink(missing_ok=True)  # from an earlier attempt
    if not folder.config.exists():
        create_run_folder(config, folder.root)
        return
    differing = differing_options(folder.read_config(), config)
    if differing:
        raise CheckpointError(
            f"{folder.root} holds a trial whose options differ from those of the search: "
            f"{', '.join(differing)}. Move that folder away."
        )


def read_outcome(folder: RunFolder) -> TrialOutcome:
    """Read the outcome of a trial whose process ended with status 0."""
    score = float(read_result(folder)["figure"])
    if score != score:  # NaN, which is neither better nor worse than any score
        return record_failure(folder, f"{folder.read_config().monitor} is not a number")
    return TrialOutcome(score)


def result_file(folder: RunFolder) -> Path:
    """Return the file with a finished trial's score, epochs, seconds and parameters."""
    return folder.root / "trial_result.json"


def read_result(folder: RunFolder) -> dict[str, Any]:
    """Read the result of a finished trial; empty if there is none."""
    path = result_file(folder)
    if not path.exists():
        return {}
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def failure_file(folder: RunFolder) -> Path:
    """Return the file with the reason why a trial failed."""
    return folder.root / "failure.txt"


def has_diverged(folder: RunFolder) -> bool:
    """Return whether a trial has failed because its training diverged.

    This is a result of its options. It says nothing about the other trials.
    """
    path = failure_file(folder)
    return path.exists() and path.read_text(encoding="utf-8").startswith(_DIVERGED)


def record_failure(folder: RunFolder, reason: str) -> TrialOutcome:
    """Record why a trial failed and return its outcome."""
    write_text(failure_file(folder), reason + "\n")
    return TrialOutcome(None, reason)


def main(root: str) -> int:
    """Finish the trial in a folder; return the exit status."""
    obey_parent()
    folder = RunFolder(Path(root))
    try:
        import_user_code()
        with exclusive(folder.lock, on_wait=_report_waiting):
            if not result_file(folder).exists():
                _train(folder)
    except RFKerasError as error:
        print(f"error: {error}", file=sys.stderr)
        return _status_of(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _status_of(error: RFKerasError) -> int:
    from rfkeras.training.callbacks import Diverged

    if isinstance(error, Diverged):
        return DIVERGED
    return BAD_DATA if isinstance(error, DatasetError) else FAILED


def _report_waiting(holder: str) -> None:
    print(f"Waiting for process {holder}, which trains this trial", file=sys.stderr)


def _train(folder: RunFolder) -> None:
    """Train the trial and write its result."""
    import numpy as np

    from rfkeras.training.run import fit

    config = folder.read_config()
    fitted = fit(config, folder, resume=True)
    log = read_log(folder.log)
    result = {
        "monitor": config.monitor,
        "figure": fitted.score,
        "epochs": len(log["epoch"]),
        "seconds": log["seconds"][-1],
        "parameters": sum(int(np.prod(v.shape)) for v in fitted.model.trainable_variables),
    }
    write_text(result_file(folder), json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(sys.argv[1]))
