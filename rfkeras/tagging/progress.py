"""Progress over files and inside long ones, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from rfkeras.tagging.spans import clock

PLAIN_SECONDS = 30.0  # between two lines where there is no terminal to draw a bar on
_LONG_SECONDS = 120.0  # files from this length get a bar of their own
_NAME_CELLS = 32


class Display:
    """A bar over the files and one inside a long file; else a plain line now and then.

    Args:
        total: Files to come.
        quiet: Show no progress; `say` still speaks.
    """

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self.total = total
        self.done = self.failed = 0
        self._quiet = quiet
        console = Console(stderr=True)
        self._live = console.is_terminal and not quiet
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,  # results would land on standard error
            redirect_stderr=False,
        )
        self._files = self._bar.add_task("files", total=total, count=f"0/{total}")
        self._file: TaskID | None = None
        self._started = self._last_line = time.monotonic()
        self._now = ""

    def __enter__(self) -> Self:
        if self._live:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            self._bar.stop()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """No bar on the terminal while something else is printed on it."""
        if not self._live:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def say(self, line: str) -> None:
        """A line on standard error, above the bar."""
        with self.hidden():
            print(line, file=sys.stderr, flush=True)

    def begin(self, name: str, seconds: float) -> None:
        """A file begins that is so long."""
        self._now = f"{clock(seconds)} of audio"
        if self._live and seconds >= _LONG_SECONDS:
            shown = name if len(name) <= _NAME_CELLS else "..." + name[3 - _NAME_CELLS :]
            self._file = self._bar.add_task(shown, total=seconds, count="")

    def inside(self, seconds_done: float) -> None:
        """So much of the file is done."""
        if self._file is not None:
            shown = clock(seconds_done)
            self._bar.update(self._file, completed=seconds_done, count=shown)
        self._plain(f", {clock(seconds_done)} of {self._now} of the next done")

    def end(self, *, failed: bool) -> None:
        """The file is done, or cannot be."""
        self.done += 1
        self.failed += failed
        if self._file is not None:
            self._bar.remove_task(self._file)
            self._file = None
        self._bar.update(self._files, completed=self.done, count=f"{self.done}/{self.total}")
        left = (time.monotonic() - self._started) / self.done * (self.total - self.done)
        self._plain(f", about {clock(left)} min left")

    def _plain(self, rest: str) -> None:
        now = time.monotonic()
        if self._live or self._quiet or now - self._last_line < PLAIN_SECONDS:
            return
        self._last_line = now
        failed = f" ({self.failed} failed)" if self.failed else ""
        self.say(f"{self.done} of {self.total} files{failed}{rest}")
