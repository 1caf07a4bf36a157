"""Where the time of a training step and of inference goes, by TensorFlow's own profiler."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from benchmarks.kernels import WHOLE
from benchmarks.launch import start_python
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
    command = ["-m", "benchmarks.kernels", what, json.dumps(arguments)]
    process = start_python(command, arguments["threads"], stdout=subprocess.PIPE)
    printed, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}.")
    rows: list[list[Any]] = json.loads(printed)
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
