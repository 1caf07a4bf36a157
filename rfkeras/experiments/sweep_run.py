"""The runs of a sweep, each in its own process: train, then score the extra tests.

`run_jobs` starts and watches the processes. Each of them runs this module:

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
from rfkeras.experiments.sweep import (
    TEST_RECORD,
    Job,
    features_dir,
    prepare_job,
    read_extra_tests,
    report_file,
)
from rfkeras.training.launch import (
    last_line,
    slot_environments,
    start_child,
    visible_gpus,
)
from rfkeras.training.run_dir import RunFolder
from rfkeras.utils.files import try_exclusive, write_text
from rfkeras.utils.processes import INTERRUPTED, obey_parent, send_signal
from rfkeras.utils.user_code import import_user_code

TAKEN = 75  # exit status: another process works on this run
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class RunOutcome:
    """The outcome of a run.

    Attributes:
        job: The run.
        status: "done", "failed", or "elsewhere" if another process works on it.
        seconds: How long its process ran.
        reason: Last line of its output, if it failed.
    """

    job: Job
    status: str
    seconds: float
    reason: str = ""


def default_jobs() -> int:
    """Return the default number of simultaneous runs: one per GPU, or one."""
    return max(1, len(visible_gpus()))


def run_jobs(jobs: Sequence[Job], count: int, on_end: Callable[[RunOutcome], None]) -> None:
    """Run the jobs that are not done. A failed run does not stop the others.

    Args:
        jobs: The runs, started in this order.
        count: Number of simultaneous processes.
        on_end: Called whenever a run ends.

    Raises:
        ConfigError: `count` is not positive, or a folder holds another run.
        KeyboardInterrupt: Ctrl-C. All processes have saved their state and ended.
    """
    if count < 1:
        raise ConfigError(f"--jobs must be at least 1. Received: {count}.")
    for job in jobs:
        prepare_job(job)
    slots = slot_environments(count, visible_gpus(), os.cpu_count() or 1)
    waiting = [job for job in jobs if not job.is_done]
    running: dict[int, _RunProcess] = {}
    try:
        while waiting or running:
            for slot, environment in enumerate(slots):
                if slot not in running and waiting:
                    running[slot] = _RunProcess(waiting.pop(0), environment)
            for slot in [slot for slot, process in running.items() if process.has_ended]:
                on_end(running.pop(slot).outcome())
            time.sleep(_POLL_SECONDS)
    finally:
        for process in running.values():  # none, unless interrupted
            process.interrupt()
        for process in running.values():
            process.wait()


class _RunProcess:
    """The process of a run."""

    def __init__(self, job: Job, environment: dict[str, str]) -> None:
        self.job = job
        self._started = time.monotonic()
        self._process = start_child("rfkeras.experiments.sweep_run", job.folder, environment)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def outcome(self) -> RunOutcome:
        """Return how the run ended."""
        seconds = time.monotonic() - self._started
        status = self._process.returncode
        if status == TAKEN:
            return RunOutcome(self.job, "elsewhere", seconds)
        if status == 0 and self.job.is_done:
            return RunOutcome(self.job, "done", seconds)
        reason = last_line(self.job.folder) or f"exit {status}"
        return RunOutcome(self.job, "failed", seconds, reason)

    def interrupt(self) -> None:
        """Ask the process to save its state and end."""
        send_signal(self._process, signal.SIGINT)

    def wait(self) -> None:
        """Wait until the process has ended."""
        self._process.wait()


def main(root: str) -> int:
    """Finish the run in a folder; return the exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be inherited as ignored
    obey_parent()
    folder = RunFolder(Path(root))
    with try_exclusive(folder.lock) as holder:
        if holder is not None:
            return TAKEN
        try:
            import_user_code()
            _train(folder)
            _score_extra_tests(folder)
        except RFKerasError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return INTERRUPTED
    return 0


def _train(folder: RunFolder) -> None:
    """Train the run, unless it is finished."""
    if folder.is_finished:
        return
    from rfkeras.training.callbacks import Interrupted
    from rfkeras.training.run import train

    try:
        train(folder.read_config(), folder, resume=True, features_dir=features_dir(folder))
    except Interrupted:
        raise KeyboardInterrupt from None


def _score_extra_tests(folder: RunFolder) -> None:
    """Score the extra tests that have no report yet."""
    from rfkeras.evaluation.report import write_report
    from rfkeras.training.scoring import score_model

    for test in read_extra_tests(folder):
        report = report_file(folder, test)
        if report.exists():
            continue
        record = json.dumps(dataclasses.asdict(test), indent=2) + "\n"
        write_text(report.with_name(TEST_RECORD), record)
        config = test.config_for(folder.read_config())
        scored = score_model(
            folder.model,
            config,
            test.split,
            report.with_name("bad_files.csv"),
            trained_in=folder,
            bootstrap_samples=0,  # the sweep resamples all of its runs together
        )
        arrays = (scored.scores, scored.labels, scored.mask)
        write_report(scored.report, report.parent, *arrays, keys=scored.keys)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(sys.argv[1]))
