"""The parts of every benchmark: settings, sections of the report, and targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

Row = dict[str, Any]

# In the order of the report. Each module has a function `measure(settings) -> Section`.
SECTIONS = (
    "network",
    "single_clip",
    "backends",
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
    """Options of a measurement.

    Attributes:
        threads: Number of processors that every side may use.
        rounds: Turns of each side; medians are taken over these.
        short: Use sizes so small that the results mean nothing, only to check that it works.
        folder: Folder for the results, pictures included.
        scratch: An empty folder for temporary files.
    """

    threads: int
    rounds: int
    short: bool
    folder: Path
    scratch: Path


@dataclass(frozen=True)
class Bar:
    """A target for one measured value.

    Attributes:
        what: Name of the value, with its unit.
        value: Measured value.
        at_least: Target.
    """

    what: str
    value: float
    at_least: float

    @property
    def is_met(self) -> bool:
        """Return whether the measured value meets the target."""
        return self.value >= self.at_least


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Attributes:
        title: Heading.
        text: What was measured and how, as a paragraph of Markdown.
        rows: Rows of the table. All have the same keys, which are the column names. Numbers
            are not rounded; the report does that.
        bars: Targets.
        pictures: Maps file names in `Settings.folder` to captions.
    """

    title: str
    text: str
    rows: list[Row]
    bars: list[Bar] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)


def measure(name: str, settings: Settings) -> Section:
    """Measure the section with this name."""
    function: Callable[[Settings], Section] = import_module(f"benchmarks.{name}").measure
    return function(settings)
