"""Start the processes to be measured, and time whole processes from start to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)


@dataclass(frozen=True)
class Run:
    """Measurements of one process.

    Attributes:
        seconds: Time from just before the start to the end.
        processor_seconds: Processor time of all threads, system time included.
        peak_mb: Peak resident memory.
    """

    seconds: float
    processor_seconds: float
    peak_mb: float


def start_python(
    arguments: Sequence[str],
    threads: int,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[str]:
    """Start Python, bound to the first processors and with one thread for each.

    Args:
        arguments: Arguments of Python.
        threads: Number of processors.
        environment: Further environment variables.
        **options: Options of `subprocess.Popen`.
    """
    processors = sorted(os.sched_getaffinity(0))[:threads]
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={
            **os.environ,
            **dict.fromkeys(THREAD_VARIABLES, str(threads)),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            **(environment or {}),
        },
        preexec_fn=lambda: os.sched_setaffinity(0, processors),
        text=True,
        **options,
    )


def run_python(arguments: Sequence[str], threads: int) -> Run:
    """Run Python to its end, bound to the first processors.

    Raises:
        RuntimeError: The process failed.
    """
    # Peak memory survives fork and exec, so the parent must be smaller than what is measured.
    parent = ["-m", "benchmarks.processes", *arguments]
    process = start_python(parent, threads, stdout=subprocess.PIPE)
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(
            f"{' '.join(arguments)} ended with exit status {process.returncode}."
        )
    return Run(**json.loads(out))


def main() -> int:
    """Run Python with the arguments of this process, and print the fields of `Run` as JSON."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    run = Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
    print(json.dumps(asdict(run)))
    return process.returncode


def run_in_turns(
    commands: Mapping[str, Sequence[str]], *, threads: int, rounds: int
) -> dict[str, list[Run]]:
    """Run each command once per round.

    Args:
        commands: Arguments of Python, by name.
        threads: Number of processors for each.
        rounds: Number of rounds. If there are several, an uncounted one comes first, which
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
    """Return the median duration of the runs in seconds."""
    return median(run.seconds for run in runs)


if __name__ == "__main__":
    sys.exit(main())
