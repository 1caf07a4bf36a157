"""Sides measured in turns, each in a process of its own.

What else the machine does then meets all sides alike, the libraries' threads do not wait
for each other, and every side's memory is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.launch import start_python


@dataclass(frozen=True)
class Side:
    """One of the things compared.

    Attributes:
        target: "module:function" that makes ready and returns the function to be timed.
        arguments: Of the former, as JSON has it.
        environment: Variables of its process besides those of the caller's.
    """

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Times:
    """What was measured of a side.

    Attributes:
        milliseconds: Of every call.
        ready_ms: From the start of the process to the first call's end.
        peak_mb: Largest resident memory of the process.
    """

    milliseconds: list[float]
    ready_ms: float
    peak_mb: float

    @property
    def median(self) -> float:
        """Median milliseconds of a call."""
        return median(self.milliseconds)


class MissingPackage(Exception):
    """A side needs a package that is not installed."""


def take_turns(
    sides: Mapping[str, Side], *, threads: int, rounds: int, calls: int = 2
) -> dict[str, Times]:
    """Measure the sides one after the other, again and again.

    Args:
        sides: By name.
        threads: Processors that each may use; its process is bound to the first ones.
        rounds: Turns of each.
        calls: Calls in a turn, each timed by itself.

    Returns:
        Times by name. A side whose packages are not installed is left out, and a line on
        standard error says so.
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
    """The process of a side, see `benchmarks.worker`."""

    def __init__(self, side: Side, threads: int):
        self._process = start_python(
            ["-m", "benchmarks.worker", side.target],
            threads,
            side.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        answer = self._ask({"threads": threads, "arguments": dict(side.arguments)})
        if "missing" in answer:
            self.kill()
            raise MissingPackage(answer["missing"])
        self.ready_ms = float(answer["ready_ms"])

    def call(self, times: int) -> list[float]:
        """Milliseconds of each of so many calls."""
        return list(self._ask({"calls": times})["milliseconds"])

    def finish(self) -> float:
        """End the process; its peak of memory in MB."""
        return float(self._ask({"calls": 0})["peak_mb"])

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self.kill()
            raise RuntimeError(f"A measured process ended with {status}.")
        answer: dict[str, Any] = json.loads(line)
        return answer
