"""Compare several sides: each runs in its own process, and they take turns.

Other load on the machine then affects all sides alike, threads of one library do not compete
with those of another, and the memory of each side can be measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.processes import start_python


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        target: "module:function". The function prepares everything and returns the function
            to be timed.
        arguments: Arguments of the preparing function, as JSON values.
        environment: Further environment variables of its process.
    """

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Times:
    """Measurements of one side.

    Attributes:
        milliseconds: Duration of every call.
        ready_ms: Time from the start of the process to the end of the first call.
        peak_mb: Peak resident memory of the process.
    """

    milliseconds: list[float]
    ready_ms: float
    peak_mb: float

    @property
    def median(self) -> float:
        """Median duration of a call in milliseconds."""
        return median(self.milliseconds)


class MissingPackage(Exception):
    """A side needs a package that is not installed."""


def take_turns(
    sides: Mapping[str, Side], *, threads: int, rounds: int, calls: int = 2
) -> dict[str, Times]:
    """Measure the sides in turns.

    Args:
        sides: Sides by name.
        threads: Number of processors for each; its process is bound to the first ones.
        rounds: Turns of each side.
        calls: Calls per turn, each timed separately.

    Returns:
        Times by name. A side whose packages are missing is left out, with a message on
        standard error.
    """
    workers: dict[str, _Worker] = {}
    times: dict[str, list[float]] = {}
    try:
        for name, side in sides.items():
            try:
                workers[name] = _Worker(side, threads)
            except MissingPackage as missing:
                print(f"Left out: {name}: {missing}", file=sys.stderr)
        for _ in range(rounds):
            for name, worker in workers.items():
                times.setdefault(name, []).extend(worker.call(calls))
        return {
            name: Times(times[name], worker.ready_ms, worker.finish())
            for name, worker in workers.items()
        }
    finally:
        for worker in workers.values():
            worker.kill()


class _Worker:
    """The process of one side, see `benchmarks.worker`."""

    def __init__(self, side: Side, threads: int):
        self._process = start_python(
            ["-m", "benchmarks.worker", side.target],
            threads,
            side.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        response = self._ask({"threads": threads, "arguments": dict(side.arguments)})
        if "missing" in response:
            self.kill()
            raise MissingPackage(response["missing"])
        self.ready_ms = float(response["ready_ms"])

    def call(self, times: int) -> list[float]:
        """Call the function several times; return the milliseconds of each call."""
        return list(self._ask({"calls": times})["milliseconds"])

    def finish(self) -> float:
        """End the process; return its peak memory in MB."""
        return float(self._ask({"calls": 0})["peak_mb"])

    def kill(self) -> None:
        """Kill the process in any state."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self.kill()
            raise RuntimeError(f"A measured process ended with exit status {status}.")
        response: dict[str, Any] = json.loads(line)
        return response
