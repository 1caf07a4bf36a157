"""The check of a data set on screen: tables of the splits and tags, then what is wrong."""

from __future__ import annotations

import math
from collections import Counter
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rfkeras.data.check import DatasetCheck, SplitCheck

_NAMED_FILES = 10
_NARROWEST = 100


def print_check(
    check: DatasetCheck, *, file: TextIO | None = None, width: int | None = None
) -> None:
    """Print the tables and what is wrong.

    Args:
        check: What to show.
        file: Where to; None is standard output.
        width: Columns; None takes the terminal's, at least 100.
    """
    console = Console(file=file, width=width, highlight=False, soft_wrap=True)
    if width is None and console.width < _NARROWEST:
        console.width = _NARROWEST
    console.print(_title(check))
    console.print(_split_table(check))
    console.print(_label_table(check))
    for names, (found, expected) in check.published.items():
        state = "as published" if found == expected else f"published are {expected:,}"
        console.print(f"{names.replace('+', ' and ')}: {found:,} clips, {state}")
    bad = check.bad
    for path in bad[:_NAMED_FILES]:
        console.print(f"[red]{path.stage}:[/] {escape(path.path)}: {escape(path.reason)}")
    if len(bad) > _NAMED_FILES:
        console.print(f"... and {len(bad) - _NAMED_FILES:,} more files")
    if bad:
        kinds = Counter(file.reason.partition(":")[0] for file in bad).most_common()
        counts = ", ".join(f"{count:,} {escape(kind)}" for kind, count in kinds)
        console.print(f"[red]Unusable files:[/] {len(bad):,} ({counts})")
        if check.homepage:
            console.print(f"Get them from: {escape(check.homepage)}")
    for difference in check.differences:
        console.print(f"[red]Not as it should be:[/] {escape(difference)}")
    if check.ok:
        looked = all(split.audio is not None for split in check.splits.values())
        console.print(f"[green]All is well{'' if looked else ', audio not checked'}.[/]")


def _title(check: DatasetCheck) -> str:
    info = ", ".join(
        f"{key} {value}"
        for key, value in check.info.items()
        if isinstance(value, str | int | float)
    )
    return f"[bold]{escape(check.name)}[/] ({check.task}) {escape(info)}"


def _split_table(check: DatasetCheck) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("split")
    for heading in ("clips", "no tag", "unusable", "hours", "shortest", "median", "longest"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("rates, Hz")
    table.add_column("channels")
    for name, split in check.splits.items():
        table.add_row(name, f"{split.clips:,}", f"{split.without_tag:,}", *_audio(split))
    return table


def _audio(split: SplitCheck) -> list[str]:
    audio = split.audio
    if audio is None:
        return ["-"] * 7
    seconds = [f"{value:.1f} s" for value in audio.seconds] if audio.seconds else ["-"] * 3
    return [
        f"{len(split.bad):,}",
        f"{audio.hours:,.2f}",
        *seconds,
        _counts(audio.sample_rates_hz),
        _counts(audio.channels),
    ]


def _counts(files_by: dict[int, int]) -> str:
    if len(files_by) == 1:
        return str(next(iter(files_by)))
    return ", ".join(f"{value} ({count:,})" for value, count in files_by.items()) or "-"


def _label_table(check: DatasetCheck) -> Table:
    """A row a tag: clips that have it, of those where that is known, and their share."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("tag", overflow="fold", min_width=12)
    for name in check.splits:
        table.add_column(f"{name}: clips", justify="right", no_wrap=True)
        table.add_column("share", justify="right", no_wrap=True)
    first = next(iter(check.splits.values()), None)
    for tag in first.labels if first else ():
        cells = []
        for split in check.splits.values():
            count = split.labels[tag]
            share = "-" if math.isnan(count.share) else f"{count.share:.2%}"
            cells += [f"{count.positive:,}/{count.known:,}", share]
        table.add_row(escape(tag), *cells)
    return table
