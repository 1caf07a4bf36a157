"""The runs of a sweep, some side by side, each in a process of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rfkeras.errors import ConfigError
from rfkeras.sweep.cell import TAKEN
from rfkeras.sweep.plan import Job, prepare
from rfkeras.training.child import last_line, start_child
from rfkeras.training.slots import slot_environments, visible_gpus

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
        self._process = start_child("rfkeras.sweep.cell", job.folder, environment)

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
