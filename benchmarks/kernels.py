"""Script: milliseconds of every TensorFlow kernel in a side of `benchmarks.keras_sides`.

`python -m benchmarks.kernels NAME ARGUMENTS` prints a JSON list of [kernel, milliseconds of a
call, uses in a call]. Kernels that run at the same time count in full, so the sum may be
more than a call takes; the last row is a whole call's own time.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

CALLS = 5
PICOSECONDS_IN_A_MILLISECOND = 1e9
WHOLE = "a whole call"


def main() -> None:
    """Profile and print."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what TensorFlow prints is no part of the answer
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
    answers.write(json.dumps(rows) + "\n")
    answers.flush()


def kernel_times(trace: bytes) -> list[list[Any]]:
    """[kernel, milliseconds, uses] of a call, the longest first."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(trace)
    durations: Counter[str] = Counter()
    uses: Counter[str] = Counter()
    for plane in space.planes:
        names = {key: value.name for key, value in plane.event_metadata.items()}
        for event in (event for line in plane.lines for event in line.events):
            # An operation's events are called "name of the node:kernel".
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
