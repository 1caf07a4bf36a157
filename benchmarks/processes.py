"""Whole processes, timed from their start to their end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.launch import start_python


@dataclass(frozen=True)
class Run:
    """What one process took.

    Attributes:
        seconds: From before it was started until it had ended.
        processor_seconds: Of all its threads, system time included.
        peak_mb: Largest resident memory.
    """

    seconds: float
    processor_seconds: float
    peak_mb: float


def run_python(arguments: Sequence[str], threads: int) -> Run:
    """Run the interpreter with these arguments, bound to the first processors.

    Raises:
        RuntimeError: The process failed.
    """
    started = time.perf_counter()
    process = start_python(arguments, threads, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}.")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def run_in_turns(
    commands: Mapping[str, Sequence[str]], *, threads: int, rounds: int
) -> dict[str, list[Run]]:
    """Run each of these once a round.

    Args:
        commands: Arguments of the interpreter, by name.
        threads: Processors that each may use.
        rounds: How often. One more goes before them where there are several, uncounted: it
            reads the files into memory.

    Returns:
        The counted runs, by name.
    """
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    if rounds > 1:
        for arguments in commands.values():
            run_python(arguments, threads)
    for _ in range(rounds):
        for name, arguments in commands.items():
            runs[name].append(run_python(arguments, threads))
    return runs


def median_seconds(runs: Sequence[Run]) -> float:
    """Median of the seconds from start to end."""
    return median(run.seconds for run in runs)
