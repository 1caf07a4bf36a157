"""Script: the process of one side. `python -m benchmarks.worker module:function`.

It reads questions and writes answers, a line of JSON each: first {"threads", "arguments"},
answered when two calls have warmed everything up, then {"calls": n}, answered by the
milliseconds of each, until n is 0.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from importlib import import_module
from typing import Any

STARTED = time.perf_counter()


def main() -> None:
    """Answer until asked for no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not look like an answer

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    question = json.loads(sys.stdin.readline())
    module, function = sys.argv[1].split(":")
    try:
        call = getattr(import_module(module), function)(
            threads=question["threads"], **question["arguments"]
        )
    except ModuleNotFoundError as error:
        answer({"missing": str(error)})
        return
    call()
    ready_ms = 1000.0 * (time.perf_counter() - STARTED)
    call()
    answer({"ready_ms": ready_ms})
    for line in sys.stdin:
        calls = json.loads(line)["calls"]
        if calls == 0:
            peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            answer({"peak_mb": peak_kb / 1024})
            return
        milliseconds = []
        for _ in range(calls):
            started = time.perf_counter()
            call()
            milliseconds.append(1000.0 * (time.perf_counter() - started))
        answer({"milliseconds": milliseconds})


if __name__ == "__main__":
    main()
