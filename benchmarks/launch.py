"""Starting the processes that are measured, all bound alike."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)


def start_python(
    arguments: Sequence[str],
    threads: int,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[str]:
    """Start the interpreter on the first so many processors, with as many threads.

    Args:
        arguments: Of the interpreter.
        threads: Processors that it may use.
        environment: Variables besides those of this process.
        **options: As for `subprocess.Popen`.
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
