"""Script: run one side of a comparison. `python -m benchmarks.worker module:function`.

It reads requests and writes responses, one line of JSON each. The first request is
{"threads", "arguments"}; its response follows two warm-up calls. Each further request is
{"calls": n}; its response has the milliseconds of every call. n = 0 ends the process.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()


def main() -> None:
    """Answer requests until one asks for 0 calls."""
    responses = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the responses

    def respond(content: dict[str, Any]) -> None:
        responses.write(json.dumps(content) + "\n")
        responses.flush()

    request = json.loads(sys.stdin.readline())
    module, function = sys.argv[1].split(":")
    try:
        call = getattr(import_module(module), function)(
            threads=request["threads"], **request["arguments"]
        )
    except ModuleNotFoundError as error:
        respond({"missing": str(error)})
        return
    call()
    ready_ms = 1000.0 * (time.perf_counter() - STARTED)
    call()
    respond({"ready_ms": ready_ms})
    for line in sys.stdin:
        calls = json.loads(line)["calls"]
        if calls == 0:
            # Not ru_maxrss, which starts at the peak of the parent.
            status = Path("/proc/self/status").read_text()
            respond({"peak_mb": int(status.split("VmHWM:")[1].split()[0]) / 1024})
            return
        milliseconds = []
        for _ in range(calls):
            started = time.perf_counter()
            call()
            milliseconds.append(1000.0 * (time.perf_counter() - started))
        respond({"milliseconds": milliseconds})


if __name__ == "__main__":
    main()
