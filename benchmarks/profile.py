"""Find where the time of training and inference goes, with TensorFlow's profiler.

Also a script: `python -m benchmarks.profile FUNCTION ARGUMENTS` profiles a function of
`benchmarks.keras_sides` and prints a JSON list of [kernel, milliseconds per call, uses per
call]. The last row is the time of a whole call.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.network import FRAMES, FRONTEND, N_MELS, TRAINING_BATCH
from benchmarks.processes import start_python
from benchmarks.suite import Row, Section, Settings

ROWS = 8  # per profile; the others are added up
CALLS = 5
PICOSECONDS_IN_A_MILLISECOND = 1e9
WHOLE = "a whole call"

TEXT = f"""
Milliseconds per call that each type of kernel takes, for `resnet_rf` at rho 7 and
{TRAINING_BATCH} clips of 10 s, from the waveform. Gradients of filters and of inputs run at
the same time, so the sum over the kernels is more than the time of a call.
"""


def measure(settings: Settings) -> Section:
    """Profile widths 32 and 128, training and inference."""
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
    command = ["-m", "benchmarks.profile", what, json.dumps(arguments)]
    process = start_python(command, arguments["threads"], stdout=subprocess.PIPE)
    printed, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit status {process.returncode}.")
    rows: list[list[Any]] = json.loads(printed)
    return rows


def _rows(what: str, width: int, kernels: list[list[Any]]) -> list[Row]:
    *rows, (_, whole, _) = kernels
    listed, others = rows[:ROWS], rows[ROWS:]
    listed.append(["others", sum(ms for _, ms, _ in others), sum(n for _, _, n in others)])
    listed.append([WHOLE, whole, 1.0])
    return [
        {
            "what": what,
            "width": width,
            "kernel": kernel,
            "ms": ms,
            "of the call": ms / whole,
            "uses": round(uses),
        }
        for kernel, ms, uses in listed
    ]


def main() -> None:
    """Profile one function and print the times of its kernels."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of TensorFlow must not mix with the result
    import tensorflow as tf

    from benchmarks import keras_sides

    call = getattr(keras_sides, sys.argv[1])(**json.loads(sys.argv[2]))
    call()
    call()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            started = time.perf_counter()
            for _ in range(CALLS):
                call()
            whole = 1000.0 * (time.perf_counter() - started) / CALLS
        (trace,) = Path(folder).rglob("*.xplane.pb")
        rows = [*kernel_times(trace.read_bytes()), [WHOLE, whole, 1.0]]
    output.write(json.dumps(rows) + "\n")
    output.flush()


def kernel_times(trace: bytes) -> list[list[Any]]:
    """Read [kernel, milliseconds, uses] per call from a trace, longest first.

    Kernels that run at the same time count in full, so the sum may exceed the time of a call.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(trace)
    durations: Counter[str] = Counter()
    uses: Counter[str] = Counter()
    for plane in space.planes:
        names = {key: value.name for key, value in plane.event_metadata.items()}
        for event in (event for line in plane.lines for event in line.events):
            # Events of an operation are named "name of the node:kernel".
            node, _, kernel = names[event.metadata_id].rpartition(":")
            if kernel.isidentifier() and (node.count("/") or kernel.startswith("_Mkl")):
                durations[kernel] += event.duration_ps
                uses[kernel] += 1
    return [
        [kernel, picoseconds / PICOSECONDS_IN_A_MILLISECOND / CALLS, uses[kernel] / CALLS]
        for kernel, picoseconds in durations.most_common()
    ]


if __name__ == "__main__":
    main()
