"""Progress on standard error: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_LINES = 10


def tracked(items: Iterable[Item], total: int, label: str, *, enabled: bool) -> Iterator[Item]:
    """Hand items through and show how many have passed.

    Args:
        items: What is counted.
        total: How many there will be.
        label: What stands before the bar or the numbers.
        enabled: False shows nothing.
    """
    if not enabled:
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, total, label)
    else:
        yield from _plain(items, total, label)


def _bar(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total)
        for item in items:
            yield item
            progress.advance(task)


def _plain(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    begin = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if done * _LINES // total > (done - 1) * _LINES // total:
            left = (time.monotonic() - begin) / done * (total - done)
            print(f"{label}: {done} of {total}, {left:.0f} s left", file=sys.stderr, flush=True)
