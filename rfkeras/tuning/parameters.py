"""One searched option: the values it may take.

Every finite set of values is a `Grid`, whatever its notation, and the search sees places in
it: whole numbers, which come back exactly from keras-tuner's messages between machines
(these carry other numbers as float32). Only ranges without steps are continuous.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rfkeras.errors import ConfigError

LARGEST_GRID = 1000
_DIGITS = 4  # significant ones of a continuous value: float32 keeps them, people read them

Value = Any  # of an option: number, text, bool, tuple or None
Condition = tuple[str, tuple[Value, ...]]  # another searched option, and its values


@dataclass(frozen=True)
class Grid:
    """Values to choose from.

    Attributes:
        values: Two or more different ones.
        ordered: Whether their order says which are near to each other.
        when: Search the option only where another one has one of these values.
    """

    values: tuple[Value, ...]
    ordered: bool = False
    when: Condition | None = None

    def decode(self, place: float) -> Value:
        """The value at a place."""
        return self.values[round(place)]

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that tell whether all of them are possible."""
        return (self.values[0], self.values[-1]) if self.ordered else self.values

    def __str__(self) -> str:
        shown = [shown_value(value) for value in self.values]
        separator = "/" if any("," in text for text in shown) else ","
        return separator.join(shown) + _shown_condition(self.when)


@dataclass(frozen=True)
class Continuous:
    """All numbers between two.

    Attributes:
        low: The lowest.
        high: The highest.
        log: Whether equal ratios are as likely as each other, instead of equal differences.
        integer: Whether only whole numbers are meant.
        when: Search the option only where another one has one of these values.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False
    when: Condition | None = None

    def decode(self, number: float) -> float | int:
        """The value that a number of the search stands for, rounded and within the ends."""
        number = float(np.float32(number))  # the same before and after a message
        rounded = round(number) if self.integer else float(f"{number:.{_DIGITS}g}")
        return min(max(rounded, self.low), self.high)

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that tell whether all of them are possible."""
        return self.low, self.high

    def __str__(self) -> str:
        scale = ":log" if self.log else ""
        ends = f"{shown_value(self.low)}:{shown_value(self.high)}"
        return f"{ends}{scale}{_shown_condition(self.when)}"


Parameter = Grid | Continuous


def shown_value(value: Value) -> str:
    """A value as it is written in a space or a table."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def _shown_condition(when: Condition | None) -> str:
    if when is None:
        return ""
    return f" when {when[0]}={','.join(map(shown_value, when[1]))}"


def make_grid(name: str, values: tuple[Value, ...], ordered: bool) -> Grid:
    """A grid of different values.

    Raises:
        ConfigError: There are fewer than two, or one stands there twice.
    """
    repeated = [value for place, value in enumerate(values) if value in values[:place]]
    if repeated or len(values) < 2:
        raise ConfigError(
            f"{name}: a search needs two different values or more; one value is no search: "
            f"give it as an option of its own. Received: "
            f"{', '.join(map(shown_value, values)) or 'none'}."
        )
    return Grid(values, ordered)


def make_range(
    name: str, low: float, high: float, step: float | None, log: bool
) -> Grid | Continuous:
    """A range of numbers; with a step, or of whole numbers on a linear scale, a grid.

    Args:
        name: The option, for messages.
        low: Lowest value; a whole number where the option takes those alone.
        high: Highest value.
        step: What is added from one value to the next, on a logarithmic scale the factor.
        log: Whether the scale is logarithmic.

    Raises:
        ConfigError: The range is empty, or its step or scale is impossible.
    """
    integer = isinstance(low, int)
    shown = f"{low:g}:{high:g}" + (f":{step:g}" if step is not None else "")
    if low >= high:
        raise ConfigError(
            f"{name}: the lower end of a range must be below the upper one. Received: {shown}."
        )
    if log and low <= 0:
        raise ConfigError(f"{name}: a logarithmic range begins above 0. Received: {shown}:log.")
    if step is None and integer and not log:
        step = 1
    if step is None:
        return Continuous(low, high, log, integer)
    if step <= (1 if log else 0) or (integer and step != int(step)):
        allowed = "a factor above 1" if log else "above 0"
        raise ConfigError(
            f"{name}: the step of a range must be {allowed}"
            f"{', a whole number' if integer else ''}. Received: {shown}."
        )
    span = math.log(high / low, step) if log else (high - low) / step
    count = int(span + 1e-9) + 1
    if count > LARGEST_GRID:
        raise ConfigError(
            f"{name}: a range has at most {LARGEST_GRID} steps: leave the step out, or make it "
            f"larger. Received: {shown}, that is {count:,}."
        )
    numbers = [low * step**place if log else low + place * step for place in range(count)]
    values = tuple(round(n) if integer else float(f"{n:.10g}") for n in numbers)
    return make_grid(name, values, ordered=True)


def range_of_table(name: str, table: Mapping[str, Any]) -> tuple[Any, Any, Any, bool]:
    """Lowest, highest, step and whether logarithmic, of a table of a space file.

    Raises:
        ConfigError: A key is missing, or unknown.
    """
    unknown = set(table) - {"min", "max", "step", "log"}
    if unknown or not {"min", "max"} <= set(table):
        raise ConfigError(
            f"{name}: a range is a table of min, max and, if wanted, step and log. Received: "
            f"{dict(table)!r}."
        )
    log = table.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"{name}: log must be true or false. Received: {log!r}.")
    return table["min"], table["max"], table.get("step"), log


def range_of_text(name: str, text: str) -> tuple[str, str, str | None, bool]:
    """The same of "MIN:MAX[:STEP][:log]".

    Raises:
        ConfigError: It is not of this form.
    """
    parts = text.split(":")
    log = parts[-1] == "log"
    parts = parts[:-1] if log else parts
    if len(parts) not in (2, 3) or not all(parts):
        raise ConfigError(
            f"{name}: a range is written MIN:MAX, MIN:MAX:STEP, MIN:MAX:log or "
            f"MIN:MAX:FACTOR:log. Received: {text!r}."
        )
    return parts[0], parts[1], parts[2] if len(parts) == 3 else None, log
