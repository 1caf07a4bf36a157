"""Progress on standard error: a bar on a terminal, otherwise occasional lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from rfkeras.utils.text import duration, shorten

Item = TypeVar("Item")

PLAIN_SECONDS = 30.0  # between two plain lines
_NAME_CHARACTERS = 32


def _integer(amount: float) -> str:
    return f"{amount:,.0f}"


class ProgressBar:
    """Show on standard error how much of a job is done and how long the rest will take.

    On a terminal this is a bar. Otherwise it is a plain line every 30 seconds, such as
    "Checking audio: 1,200 of 4,000 files done, about 1 min 20 s left". Results on standard
    output are never touched. Use it as a context manager, or call `start` and `stop`.

    Args:
        label: Name of the job, in front of the bar; "" for none.
        total: Amount of work; None if unknown.
        unit: What is counted, in the plural, such as "files".
        done: Amount that was done before, by a run that is now resumed.
        quiet: Show no progress. `print` still prints.
        keep: Leave the full bar on the terminal at the end.
        plain_lines: Write this many plain lines in all, evenly spaced over the work, in
            place of one every 30 seconds.
        show: Formats an amount.
    """

    def __init__(
        self,
        label: str,
        total: float | None,
        *,
        unit: str,
        done: float = 0,
        quiet: bool = False,
        keep: bool = False,
        plain_lines: int | None = None,
        show: Callable[[float], str] = _integer,
    ) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.done = done
        self._quiet = quiet
        self._plain_lines = plain_lines
        self._show = show
        self._note = ""
        console = Console(stderr=True)
        self._live = console.is_terminal and not quiet
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=not keep,
            redirect_stdout=False,  # results would land on standard error
        )
        self._job = self._bar.add_task(
            label or unit, total=total, completed=int(done), count=self._count()
        )
        self._part: TaskID | None = None
        self._part_show: Callable[[float], str] = _integer
        self._part_total = 0.0
        self._first = done
        self._started = self._last_line = time.monotonic()

    def start(self) -> None:
        """Show the bar."""
        self._started = self._last_line = time.monotonic()
        if self._live:
            self._bar.start()

    def stop(self) -> None:
        """Remove the bar, or leave it full with `keep`."""
        if self._live:
            self._bar.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Remove the bar while something else is printed to the same terminal."""
        if not self._live or not self._bar.live.is_started:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def print(self, line: str) -> None:
        """Print a line on standard error, above the bar."""
        with self.hidden():
            print(line, file=sys.stderr, flush=True)

    def update(
        self,
        done: float,
        *,
        note: str = "",
        label: str | None = None,
        total: float | None = None,
    ) -> None:
        """Record how much is done.

        Args:
            done: Amount done so far, including what was done before the start.
            note: Shown after the counts, such as "loss 0.6931".
            label: New label; None keeps the current one.
            total: New total; None keeps the current one.
        """
        before, self.done, self._note = self.done, done, note
        if label is not None:
            self.label = label
        if total is not None:
            self.total = total
        self._bar.update(
            self._job,
            completed=done,
            total=self.total,
            count=self._count(),
            description=self.label or self.unit,
        )
        if self._plain_lines is not None and self.total:
            step = self.total / self._plain_lines
            self._plain(due=done // step > before // step)
        else:
            self._plain()

    def advance(self, amount: float = 1) -> None:
        """Record that this much more is done."""
        self.update(self.done + amount, note=self._note)

    def begin_part(
        self, name: str, total: float, *, bar: bool, show: Callable[[float], str] = _integer
    ) -> None:
        """Begin a part of the job, such as one file, whose progress is shown too.

        Args:
            name: Name of the part.
            total: Amount of work in the part.
            bar: Give it a bar; otherwise only the plain lines mention it.
            show: Formats its amounts.
        """
        self._part_total, self._part_show = total, show
        if self._live and bar:
            # The end of a path is more informative than its beginning.
            shown = shorten(name[::-1], _NAME_CHARACTERS, "...")[::-1]
            self._part = self._bar.add_task(shown, total=total, count="")

    def update_part(self, done: float, name: str) -> None:
        """Record how much of the part is done.

        Args:
            done: Amount done.
            name: What plain lines call the part, such as "current file".
        """
        shown = self._part_show(done)
        if self._part is not None:
            self._bar.update(self._part, completed=done, count=shown)
        self._plain(f"; {name} {shown} of {self._part_show(self._part_total)}")

    def end_part(self) -> None:
        """End the part. Call `update` or `advance` to count it."""
        if self._part is not None:
            self._bar.remove_task(self._part)
            self._part = None

    def _count(self) -> str:
        whole = "" if self.total is None else f"/{self._show(self.total)}"
        note = f"  {self._note}" if self._note else ""
        return f"{self._show(self.done)}{whole}{note}"

    def _plain(self, rest: str | None = None, *, due: bool | None = None) -> None:
        """Print a plain line if one is due: by default, if the last is 30 seconds old."""
        if self._live or self._quiet:
            return
        now = time.monotonic()
        if not (now - self._last_line >= PLAIN_SECONDS if due is None else due):
            return
        self._last_line = now
        head = f"{self.label}: " if self.label else ""
        whole = "" if self.total is None else f" of {self._show(self.total)}"
        note = f" ({self._note})" if self._note else ""
        ending = self._time_left(now) if rest is None else rest
        self.print(f"{head}{self._show(self.done)}{whole} {self.unit} done{note}{ending}")

    def _time_left(self, now: float) -> str:
        done = self.done - self._first
        if self.total is None or done <= 0:
            return ""
        left = (now - self._started) / done * (self.total - self.done)
        return f", about {duration(left)} left"


def print_status(text: str) -> None:
    """Print a line about what the program is doing on standard error."""
    print(text, file=sys.stderr, flush=True)


def track(
    items: Iterable[Item],
    total: int,
    label: str,
    *,
    unit: str,
    quiet: bool = False,
    plain_lines: int | None = None,
) -> Iterator[Item]:
    """Yield items and show how many have been worked on.

    Args:
        items: What is counted.
        total: Number of items.
        label: Name of the job.
        unit: What the items are, in the plural.
        quiet: Show nothing.
        plain_lines: See `ProgressBar`.

    Yields:
        The items.
    """
    if quiet:
        yield from items
        return
    with ProgressBar(label, total, unit=unit, plain_lines=plain_lines) as progress:
        for item in items:
            yield item
            progress.advance()
