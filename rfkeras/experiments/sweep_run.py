"""One run of a sweep, in a process of its own: train, then score the extra tests.

python -m rfkeras.experiments.sweep_run RUN_FOLDER
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.experiments.sweep import TEST_RECORD, Job, figures_of, prepare, read_extra_tests
from rfkeras.training.launch import (
    INTERRUPTED,
    end_with_parent,
    last_line,
    slot_environments,
    start_child,
    visible_gpus,
)
from rfkeras.training.run_dir import RunFolder
from rfkeras.utils.files import try_exclusive, write_text

TAKEN = 75  # exit status: another process works on this run


def main(root: str) -> int:
    """Do what is left of the run; returns the exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be inherited as ignored
    end_with_parent()
    folder = RunFolder(Path(root))
    with try_exclusive(folder.lock) as holder:
        if holder is not None:
            return TAKEN
        try:
            _train(folder)
            _score_extra_tests(folder)
        except RFKerasError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return INTERRUPTED
    return 0


def _train(folder: RunFolder) -> None:
    if folder.is_finished:
        return
    from rfkeras.training.callbacks import Interrupted
    from rfkeras.training.run import train

    try:
        train(folder.read_config(), folder, resume=True)
    except Interrupted:
        raise KeyboardInterrupt from None


def _score_extra_tests(folder: RunFolder) -> None:
    from rfkeras.evaluation.report import write_report
    from rfkeras.training.scoring import score_model

    for test in read_extra_tests(folder):
        figures = figures_of(folder, test)
        if figures.exists():
            continue
        record = json.dumps(dataclasses.asdict(test), indent=2) + "\n"
        write_text(figures.with_name(TEST_RECORD), record)
        config = test.config_for(folder.read_config())
        scored = score_model(
            folder.model,
            config,
            test.split,
            figures.with_name("bad_files.csv"),
            trained_in=folder,
            bootstrap_samples=0,  # the sweep resamples all of its runs together
        )
        arrays = (scored.scores, scored.labels, scored.mask)
        write_report(scored.report, figures.parent, *arrays, keys=scored.keys)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(sys.argv[1]))

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        job: The run.
        status: "done", "failed", or "elsewhere" where another process works on it.
        seconds: How long its process ran.
        reason: Last line of its output, if it failed.
    """

    job: Job
    status: str
    seconds: float
    reason: str = ""


def default_jobs() -> int:
    """Runs side by side: one for each GPU, else one."""
    return max(1, len(visible_gpus()))


def run_jobs(jobs: Sequence[Job], side_by_side: int, on_end: Callable[[Outcome], None]) -> None:
    """Run what is not done yet; one that fails does not stop the others.

    Args:
        jobs: The runs, started in this order.
        side_by_side: How many processes at once.
        on_end: Called as each one ends.

    Raises:
        ConfigError: side_by_side is not positive, or a folder holds another run.
        KeyboardInterrupt: Ctrl-C; by then all processes have saved and ended.
    """
    if side_by_side < 1:
        raise ConfigError(f"--jobs must be at least 1. Received: {side_by_side}.")
    for job in jobs:
        prepare(job)
    slots = slot_environments(side_by_side, visible_gpus(), os.cpu_count() or 1)
    waiting = [job for job in jobs if not job.is_done]
    running: dict[int, _Running] = {}
    try:
        while waiting or running:
            for slot, environment in enumerate(slots):
                if slot not in running and waiting:
                    running[slot] = _Running(waiting.pop(0), environment)
            for slot in [slot for slot, process in running.items() if process.has_ended]:
                on_end(running.pop(slot).outcome())
            time.sleep(_POLL_SECONDS)
    finally:
        for process in running.values():  # none, unless interrupted
            process.interrupt()
        for process in running.values():
            process.wait()


class _Running:
    """The process of a run."""

    def __init__(self, job: Job, environment: dict[str, str]) -> None:
        self.job = job
        self._started = time.monotonic()
        self._process = start_child("rfkeras.experiments.sweep_run", job.folder, environment)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def outcome(self) -> Outcome:
        seconds = time.monotonic() - self._started
        status = self._process.returncode
        if status == TAKEN:
            return Outcome(self.job, "elsewhere", seconds)
        if status == 0 and self.job.is_done:
            return Outcome(self.job, "done", seconds)
        return Outcome(
            self.job, "failed", seconds, last_line(self.job.folder) or f"exit {status}"
        )

    def interrupt(self) -> None:
        """Ask it to save and end."""
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> None:
        """Wait for its end."""
        self._process.wait()
