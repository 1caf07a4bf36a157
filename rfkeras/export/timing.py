"""How fast a converted model is beside the Keras model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

ROUNDS = 9


def time_alternately(
    calls: Mapping[str, Callable[[], Any]], rounds: int = ROUNDS
) -> dict[str, float]:
    """Median milliseconds of each call.

    The calls take turns, so that what else the machine does meets all of them alike, and
    each is called once before, as first calls allocate.

    Args:
        calls: By name.
        rounds: Turns.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: 1000.0 * median(values) for name, values in seconds.items()}
