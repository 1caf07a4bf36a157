"""Where the time of a training step and of inference goes, by TensorFlow's own profiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.kernels import WHOLE
from benchmarks.network import FRAMES, FRONTEND, N_MELS, TRAINING_BATCH
from benchmarks.suite import Row, Section, Settings

ROWS = 8  # of each profile; the others are summed

TEXT = f"""
`resnet_rf`, rho 7, {TRAINING_BATCH} clips of 10 s from the waveform: milliseconds of a call
that each kind of kernel takes. Gradients of filters and of inputs run at the same time, so the
kernels' sum is more than a call takes.
"""


def measure(settings: Settings) -> Section:
    """Widths 32 and 128, training and inference."""
    shape = [2, 43, N_MELS] if settings.short else [TRAINING_BATCH, FRAMES, N_MELS]
    rows: list[Row] = []
    for width in (4,) if settings.short else (32, 128):
        for what in ("inference",) if settings.short else ("training", "inference"):
            arguments = {
                "rho": 7,
                "width": width,
                "shape": shape,
                "threads": settings.threads,
                "frontend": FRONTEND,
            }
            rows += _rows(what, width, _profile(what, arguments))
    return Section("Where the time goes", TEXT.strip(), rows)


def _profile(what: str, arguments: dict[str, Any]) -> list[list[Any]]:
    command = [sys.executable, "-m", "benchmarks.kernels", what, json.dumps(arguments)]
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
    rows: list[list[Any]] = json.loads(done.stdout)
    return rows


def _rows(what: str, width: int, kernels: list[list[Any]]) -> list[Row]:
    *rows, (_, whole, _) = kernels
    shown, others = rows[:ROWS], rows[ROWS:]
    shown.append(["others", sum(ms for _, ms, _ in others), sum(n for _, _, n in others)])
    shown.append([WHOLE, whole, 1.0])
    return [
        {
            "what": what,
            "width": width,
            "kernel": kernel,
            "ms": ms,
            "of the call": ms / whole,
            "uses": round(uses),
        }
        for kernel, ms, uses in shown
    ]
