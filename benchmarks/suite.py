"""What a benchmark is: a function that measures and returns one section of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

Row = dict[str, Any]

# In the order of the report; each module has a function `measure(settings) -> Section`.
SECTIONS = (
    "network",
    "options",
    "profile",
    "frontend",
    "pipeline",
    "tagging",
    "startup",
    "scaling",
)


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        threads: Processors that every side may use.
        rounds: Turns of each side; medians are over these.
        short: Sizes so small that the figures mean nothing: to see that it runs.
        folder: Where sections may put pictures.
        scratch: An empty folder for files that are not kept.
    """

    threads: int
    rounds: int
    short: bool
    folder: Path
    scratch: Path


@dataclass(frozen=True)
class Bar:
    """A figure that should be reached.

    Attributes:
        what: Of what, with the unit.
        value: Measured.
        at_least: Wanted.
    """

    what: str
    value: float
    at_least: float

    @property
    def is_met(self) -> bool:
        """Whether it is reached."""
        return self.value >= self.at_least


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: Heading.
        text: What was measured and how, a paragraph of Markdown.
        rows: Of the table; all have the same keys, which are the headings. Numbers stay
            numbers: the report rounds them.
        bars: Figures that should be reached.
        pictures: File names in `Settings.folder`, with a caption each.
    """

    title: str
    text: str
    rows: list[Row]
    bars: list[Bar] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)


def measure(name: str, settings: Settings) -> Section:
    """Measure the section of that name."""
    function: Callable[[Settings], Section] = import_module(f"benchmarks.{name}").measure
    return function(settings)
