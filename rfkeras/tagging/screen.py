"""Tags of files as a table to read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rfkeras.evaluation.table import bar
from rfkeras.tagging.files import printable
from rfkeras.tagging.outputs import Write
from rfkeras.tagging.records import Outcome, TagRules
from rfkeras.tagging.spans import clock, spans_text

if TYPE_CHECKING:
    from rfkeras.tagging import TagResult

_NARROWEST, _PIPED = 48, 100
_MOST_SPANS = 8


@contextmanager
def tag_tables(file: TextIO, rules: TagRules, *, top: int) -> Iterator[Write]:
    """A table for each file: tags, scores, bars, and a mark on those that apply.

    Colours appear on a terminal only; elsewhere the lines are plain text of 100 columns. An
    output that cannot show block characters gets bars of `#`.

    Args:
        file: Where to.
        rules: The tags.
        top: Rows of a table.
    """
    console = Console(file=file, highlight=False, markup=False, emoji=False)
    console.width = max(console.width, _NARROWEST) if console.is_terminal else _PIPED
    unicode = (file.encoding or "utf-8").lower().startswith("utf")

    def write(outcome: Outcome) -> None:
        for line in _heading(outcome):
            console.print(line, soft_wrap=True)
        if outcome.result is not None:
            console.print(tag_table(rules, outcome.result, top=top, unicode=unicode))
        console.print()
        file.flush()

    yield write


def _heading(outcome: Outcome) -> Iterator[Text]:
    if outcome.result is None:
        yield Text.assemble(
            (outcome.file.name, "bold"), "  ", (printable(outcome.error or ""), "red")
        )
    else:
        # Rounded up, so that no time in the file is later than its length.
        length = clock(math.ceil(outcome.result.seconds))
        yield Text.assemble((outcome.file.name, "bold"), f"  {length}")


def tag_table(rules: TagRules, result: TagResult, *, top: int, unicode: bool = True) -> Table:
    """The tags of one file, those that matter most first.

    Args:
        rules: The tags.
        result: What the model says of it.
        top: Rows.
        unicode: Draw the bars with block characters; otherwise with `#`.
    """
    framed = result.frame_scores is not None
    applies = rules.applies(result.scores)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    table.add_column("", no_wrap=True)
    table.add_column("tag", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("cut", justify="right", no_wrap=True)
    table.add_column(f"0{'1':>9}", no_wrap=True, min_width=10)
    if framed:
        table.add_column("when", overflow="fold", ratio=1)
    spans = rules.spans(result) if framed else []
    for tag in rules.ranking(result)[:top]:
        style = "bold" if applies[tag] else ""
        cut = "" if rules.thresholds is None else f"{rules.thresholds[tag]:.2f}"
        score = float(result.scores[tag])
        table.add_row(
            "*" if applies[tag] else "",
            Text(rules.names[tag], style),
            Text(f"{score:.3f}", style),
            cut,
            Text(bar(score, unicode), "cyan"),
            *([spans_text(spans[tag], _MOST_SPANS)] if framed else []),
        )
    return table
