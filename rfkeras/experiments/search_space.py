"""The space of a search: which options, and the values of each.

On the command line a parameter is written `NAME=SPEC`, in a space file `NAME: SPEC`:

    rho=0:12              whole numbers or, of other options, all numbers between two
    mixup=0:0.5:0.1       in steps
    learning_rate=1e-4:1e-2:log     on a logarithmic scale
    width=32,64,128       one of these
    blocks=4,4,4/4,4,1    the same, where commas belong to the values
    'weight_decay=1e-3:0.1:log when optimizer=adamw'

A space file may write ranges and choices as YAML tables and lists instead.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from rfkeras.config.options import DataOptions
from rfkeras.config.parsing import switch, whole
from rfkeras.config.recipes import read_yaml
from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import ConfigError, unknown_name

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


AXES = ("rho_time", "rho_frequency")  # the two parts of rho, each searched alone
_WHEN = " when "

_SCORING = "it decides what is scored, so trials could not be compared"
_MACHINE = "it says where and how a trial runs, not how good the model becomes"
NOT_SEARCHED = {
    **{field.name: _SCORING for field in fields(DataOptions)},
    **dict.fromkeys(("monitor", "window_seconds"), _SCORING),
    **dict.fromkeys(("devices", "jit", "checkpoint_steps", "export"), _MACHINE),
    "thresholds": "it changes decisions, and trials are compared by their scores",
    "seed": "the best seed of a search is luck, and none on other clips",
    "epochs": "trials of different length have different costs; Hyperband sets it by itself",
}
SEARCHED = (*AXES, *(f.name for f in fields(TrainConfig) if f.name not in NOT_SEARCHED))


@dataclass(frozen=True)
class SearchSpace:
    """Searched options by name; those that others depend on come first."""

    parameters: dict[str, Parameter]

    def decode(self, numbers: Mapping[str, Any]) -> dict[str, Value]:
        """Values of the options that a trial sets.

        Args:
            numbers: Of keras-tuner, by name: places in grids, and numbers. Other names are
                its own, and left out.
        """
        return {
            name: parameter.decode(numbers[name])
            for name, parameter in self.parameters.items()
            if name in numbers
        }

    def to_text(self) -> dict[str, str]:
        """SPEC of each parameter; `parse_space` reads them back."""
        return {name: str(parameter) for name, parameter in self.parameters.items()}


def parse_space(specs: Mapping[str, Any]) -> SearchSpace:
    """The space of these specs, texts or what a space file holds.

    Raises:
        ConfigError: An option that is unknown or not for a search, or a spec that says
            nothing possible.
    """
    if not specs:
        raise ConfigError("A search needs an option to search over, such as rho=0:12.")
    read: dict[str, tuple[Parameter, Mapping[str, Any] | None]] = {}
    for name, spec in specs.items():
        check_name(str(name))
        read[name] = _read(name, spec)
    if "rho" in read and any(axis in read for axis in AXES):
        raise ConfigError(
            "rho is both axes: search rho alone, or rho_time and rho_frequency. Received: "
            f"{', '.join(name for name in read if name.startswith('rho'))}."
        )
    parameters = {name: parameter for name, (parameter, when) in read.items() if not when}
    for name, (parameter, when) in read.items():
        if when:
            condition = _condition(name, when, parameters)
            parameters[name] = dataclasses.replace(parameter, when=condition)
    return SearchSpace(parameters)


def read_space(path: Path) -> SearchSpace:
    """The space of a YAML file.

    Raises:
        ConfigError: The file cannot be read, or holds no space.
    """
    try:
        return parse_space(read_yaml(path))
    except ConfigError as error:
        raise ConfigError(f"Search space {path}: {error}") from error


def split_flags(flags: Iterable[str]) -> dict[str, str]:
    """Name and spec of each "NAME=SPEC".

    Raises:
        ConfigError: One is not of this form, or a name comes twice.
    """
    specs: dict[str, str] = {}
    for flag in flags:
        name, equals, spec = flag.partition("=")
        name = name.replace("-", "_")
        if not equals or not spec:
            raise ConfigError(
                f"--search takes NAME=SPEC, such as rho=0:12. Received: {flag!r}."
            )
        if name in specs:
            raise ConfigError(f"--search names {name} twice. Received: {flag!r}.")
        specs[name] = spec
    return specs


def check_name(name: str) -> None:
    """Refuse what is no option for a search.

    Raises:
        ConfigError: No such option, or one that no search may choose; the message says why.
    """
    if name in NOT_SEARCHED:
        raise ConfigError(f"{name} cannot be searched: {NOT_SEARCHED[name]}.")
    if name not in SEARCHED:
        raise ConfigError(unknown_name("option of a search", name, SEARCHED))


def parse_value(name: str, raw: Any) -> Value:
    """A value of an option, as its flag would read it; "none" where it may be unset.

    Raises:
        ConfigError: The option does not take it.
    """
    if name in AXES:
        return whole(0)(name, raw)
    field = TrainConfig.__dataclass_fields__[name]
    text = raw.strip().lower() if isinstance(raw, str) else raw
    if field.default is None and text in (None, "none"):
        return None
    parse = field.metadata["parse"]
    if parse is switch and text in ("true", "false"):
        return text == "true"
    return parse(name, raw.strip() if isinstance(raw, str) else raw)


def _read(name: str, spec: Any) -> tuple[Parameter, Mapping[str, Any] | None]:
    """The parameter of a spec, and the condition that it names."""
    when: Mapping[str, Any] | None = None
    if isinstance(spec, Mapping):
        when = spec.get("when")
        spec = {key: value for key, value in spec.items() if key != "when"}
        if set(spec) == {"choices"}:
            spec = spec["choices"]
    elif isinstance(spec, str) and _WHEN in spec:
        spec, _, condition = spec.partition(_WHEN)
        parent, _, wanted = condition.partition("=")
        when = {parent.strip(): _pieces(wanted)}
    if isinstance(spec, Mapping):
        return _range(name, *range_of_table(name, spec)), when
    if isinstance(spec, str):
        spec = spec.strip()
        if ":" in spec:
            return _range(name, *range_of_text(name, spec)), when
    choices: Any = _pieces(spec) if isinstance(spec, str) else spec
    if not isinstance(choices, list):
        raise ConfigError(
            f"{name}: in a space file a spec is a list of values, a table of min and max (and "
            "step, log), or a text in quotation marks: without them YAML reads 1:30 as the "
            f"number 90. Received: {spec!r}."
        )
    values = [parse_value(name, each) for each in choices]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return make_grid(name, tuple(sorted(values) if numbers else values), numbers), when


def _pieces(text: str) -> list[str]:
    return text.split("/" if "/" in text else ",")


def _range(name: str, low: Any, high: Any, step: Any, log: bool) -> Parameter:
    ends = [parse_value(name, end) for end in (low, high)]
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        raise ConfigError(
            f"{name} is no number: give its values, separated by commas. Received: "
            f"{low}:{high}."
        )
    try:
        parsed_step = None if step is None else float(str(step))
    except ValueError:
        raise ConfigError(f"{name}: the step must be a number. Received: {step!r}.") from None
    return make_range(name, ends[0], ends[1], parsed_step, log)


def _condition(
    name: str, when: Any, parameters: Mapping[str, Parameter]
) -> tuple[str, tuple[Value, ...]]:
    """The condition of a parameter, checked against the parameter that it names."""
    if not isinstance(when, Mapping) or len(when) != 1:
        raise ConfigError(
            f"{name}: when names one other searched option and its values, such as "
            f"optimizer: adamw. Received: {when!r}."
        )
    ((parent, given),) = when.items()
    known = {key: value for key, value in parameters.items() if isinstance(value, Grid)}
    if parent not in known:
        raise ConfigError(
            f"{name}: when must name another option that is searched among single values and "
            f"has no condition itself ({', '.join(known) or 'there is none'}). Received: "
            f"{parent!r}."
        )
    values = tuple(
        parse_value(parent, each) for each in (given if isinstance(given, list) else [given])
    )
    for value in values:
        if value not in known[parent].values:
            raise ConfigError(
                f"{name}: {parent} never is {value!r} in this search. Its values: "
                f"{known[parent]}."
            )
    return parent, values
