"""The space of a search: the searched options and their values.

A parameter is written `NAME=SPEC` on the command line and `NAME: SPEC` in a space file:

    rho=0:12                        whole numbers, or any numbers, depending on the option
    mixup=0:0.5:0.1                 steps
    learning_rate=1e-4:1e-2:log     a logarithmic scale
    width=32,64,128                 one of these values
    blocks=4,4,4/4,4,1              one of these values, which contain commas
    'weight_decay=1e-3:0.1:log when optimizer=adamw'

In a space file, ranges and choices can also be YAML tables and lists.
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
_DIGITS = 4  # significant digits of a continuous value: readable, and kept by float32

Value = Any  # value of an option: number, text, bool, tuple or None
Condition = tuple[str, tuple[Value, ...]]  # another searched option and its values

AXES = ("rho_time", "rho_frequency")  # the two parts of rho, searched independently
_WHEN = " when "

_SCORING = "it determines what is scored, so trials could not be compared"
_MACHINE = "it affects where and how a trial runs, not how good the model becomes"
NOT_SEARCHED = {
    **{field.name: _SCORING for field in fields(DataOptions)},
    **dict.fromkeys(("monitor", "window_seconds"), _SCORING),
    **dict.fromkeys(("devices", "jit", "checkpoint_steps", "export"), _MACHINE),
    "thresholds": "it changes decisions, but trials are compared by their scores",
    "seed": "the best seed of a search is luck and does not transfer to other clips",
    "epochs": "trials of different lengths have different costs. Hyperband sets it itself",
}
SEARCHED = (*AXES, *(f.name for f in fields(TrainConfig) if f.name not in NOT_SEARCHED))


@dataclass(frozen=True)
class Grid:
    """A parameter with a list of values.

    Attributes:
        values: Two or more different values.
        ordered: Whether neighbouring values are similar.
        when: Condition on another option; if it does not hold, this one is not searched.
    """

    values: tuple[Value, ...]
    ordered: bool = False
    when: Condition | None = None

    def decode(self, place: float) -> Value:
        """Return the value at an index."""
        return self.values[round(place)]

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values to check: if these are possible, all are."""
        return (self.values[0], self.values[-1]) if self.ordered else self.values

    def __str__(self) -> str:
        texts = [value_text(value) for value in self.values]
        separator = "/" if any("," in text for text in texts) else ","
        return separator.join(texts) + _condition_text(self.when)


@dataclass(frozen=True)
class Continuous:
    """A parameter with all numbers of a range.

    Attributes:
        low: Lowest number.
        high: Highest number.
        log: Whether equal ratios are equally likely, rather than equal differences.
        integer: Whether only whole numbers are allowed.
        when: Condition on another option; if it does not hold, this one is not searched.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False
    when: Condition | None = None

    def decode(self, number: float) -> float | int:
        """Return the value for a number of the search, rounded and within the range."""
        number = float(np.float32(number))  # keras-tuner sends numbers as float32
        rounded = round(number) if self.integer else float(f"{number:.{_DIGITS}g}")
        return min(max(rounded, self.low), self.high)

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values to check: if these are possible, all are."""
        return self.low, self.high

    def __str__(self) -> str:
        scale = ":log" if self.log else ""
        ends = f"{value_text(self.low)}:{value_text(self.high)}"
        return f"{ends}{scale}{_condition_text(self.when)}"


Parameter = Grid | Continuous


@dataclass(frozen=True)
class SearchSpace:
    """The searched options by name. Options that others depend on come first."""

    parameters: dict[str, Parameter]

    def decode(self, numbers: Mapping[str, Any]) -> dict[str, Value]:
        """Return the values of the options of a trial.

        Args:
            numbers: keras-tuner's values by name: indices of grids, and numbers of ranges.
                Other names are internal to keras-tuner and ignored.
        """
        return {
            name: parameter.decode(numbers[name])
            for name, parameter in self.parameters.items()
            if name in numbers
        }

    def to_text(self) -> dict[str, str]:
        """Return the SPEC of each parameter, which `parse_space` can read."""
        return {name: str(parameter) for name, parameter in self.parameters.items()}


def parse_space(specs: Mapping[str, Any]) -> SearchSpace:
    """Read a space from specs.

    Args:
        specs: Texts or the contents of a space file, by name of the option.

    Raises:
        ConfigError: An option is unknown or cannot be searched, or a spec is invalid.
    """
    if not specs:
        raise ConfigError("A search needs at least one option to search, such as rho=0:12.")
    read: dict[str, tuple[Parameter, Mapping[str, Any] | None]] = {}
    for name, spec in specs.items():
        check_name(str(name))
        read[name] = _read(name, spec)
    if "rho" in read and any(axis in read for axis in AXES):
        raise ConfigError(
            "rho sets both axes. Search either rho, or rho_time and rho_frequency. Received: "
            f"{', '.join(name for name in read if name.startswith('rho'))}."
        )
    parameters = {name: parameter for name, (parameter, when) in read.items() if not when}
    for name, (parameter, when) in read.items():
        if when:
            condition = _condition(name, when, parameters)
            parameters[name] = dataclasses.replace(parameter, when=condition)
    return SearchSpace(parameters)


def read_space(path: Path) -> SearchSpace:
    """Read a space from a YAML file.

    Raises:
        ConfigError: The file cannot be read or contains no valid space.
    """
    try:
        return parse_space(read_yaml(path))
    except ConfigError as error:
        raise ConfigError(f"Search space {path}: {error}") from error


def split_flags(flags: Iterable[str]) -> dict[str, str]:
    """Return the spec of each "NAME=SPEC" by name.

    Raises:
        ConfigError: A flag has another form, or a name occurs twice.
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
    """Check that an option can be searched.

    Raises:
        ConfigError: The option does not exist or cannot be searched; the message says why.
    """
    if name in NOT_SEARCHED:
        raise ConfigError(f"{name} cannot be searched: {NOT_SEARCHED[name]}.")
    if name not in SEARCHED:
        raise ConfigError(unknown_name("option of a search", name, SEARCHED))


def parse_value(name: str, raw: Any) -> Value:
    """Read a value as the option's flag would. "none" unsets options that can be unset.

    Raises:
        ConfigError: The option does not allow the value.
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
    """Read a spec; return the parameter and its condition."""
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
            f"{name}: in a space file, a spec is a list of values, a table with min and max "
            "(and step, log), or a text in quotation marks. Without quotation marks, YAML "
            f"reads 1:30 as the number 90. Received: {spec!r}."
        )
    values = [parse_value(name, each) for each in choices]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return make_grid(name, tuple(sorted(values) if numbers else values), numbers), when


def _pieces(text: str) -> list[str]:
    """Split a list of values at "/" if there is one, else at commas."""
    return text.split("/" if "/" in text else ",")


def _range(name: str, low: Any, high: Any, step: Any, log: bool) -> Parameter:
    """Read the ends and the step of a range."""
    ends = [parse_value(name, end) for end in (low, high)]
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        raise ConfigError(
            f"{name} is not a number, so it has no range. List its values, separated by "
            f"commas. Received: {low}:{high}."
        )
    try:
        parsed_step = None if step is None else float(str(step))
    except ValueError:
        raise ConfigError(f"{name}: the step must be a number. Received: {step!r}.") from None
    return make_range(name, ends[0], ends[1], parsed_step, log)


def _condition(
    name: str, when: Any, parameters: Mapping[str, Parameter]
) -> tuple[str, tuple[Value, ...]]:
    """Read the condition of a parameter and check it against the other parameter."""
    if not isinstance(when, Mapping) or len(when) != 1:
        raise ConfigError(
            f"{name}: `when` takes one other searched option and its values, such as "
            f"optimizer: adamw. Received: {when!r}."
        )
    ((parent, given),) = when.items()
    known = {key: value for key, value in parameters.items() if isinstance(value, Grid)}
    if parent not in known:
        raise ConfigError(
            f"{name}: `when` takes another option that is searched over a list of values and "
            f"has no condition itself ({', '.join(known) or 'there is none'}). Received: "
            f"{parent!r}."
        )
    values = tuple(
        parse_value(parent, each) for each in (given if isinstance(given, list) else [given])
    )
    for value in values:
        if value not in known[parent].values:
            raise ConfigError(
                f"{name}: {parent} is never {value!r} in this search. Its values: "
                f"{known[parent]}."
            )
    return parent, values


def make_grid(name: str, values: tuple[Value, ...], ordered: bool) -> Grid:
    """Return a grid of different values.

    Raises:
        ConfigError: There are fewer than two values, or a value occurs twice.
    """
    repeated = [value for place, value in enumerate(values) if value in values[:place]]
    if repeated or len(values) < 2:
        raise ConfigError(
            f"{name}: a search needs two or more different values. To use a single value, give "
            f"it as an option. Received: {', '.join(map(value_text, values)) or 'none'}."
        )
    return Grid(values, ordered)


def make_range(
    name: str, low: float, high: float, step: float | None, log: bool
) -> Grid | Continuous:
    """Return a range of numbers. With a step, or of linear whole numbers, it is a grid.

    Args:
        name: The option, for messages.
        low: Lowest value, an int if the option takes only whole numbers.
        high: Highest value.
        step: Difference between neighbouring values; on a logarithmic scale their ratio.
        log: Whether the scale is logarithmic.

    Raises:
        ConfigError: The range is empty, or its step or scale is impossible.
    """
    integer = isinstance(low, int)
    text = f"{low:g}:{high:g}" + (f":{step:g}" if step is not None else "")
    if low >= high:
        raise ConfigError(
            f"{name}: the lower end of a range must be below the upper one. Received: {text}."
        )
    if log and low <= 0:
        raise ConfigError(
            f"{name}: a logarithmic range must start above 0. Received: {text}:log."
        )
    if step is None and integer and not log:
        step = 1
    if step is None:
        return Continuous(low, high, log, integer)
    if step <= (1 if log else 0) or (integer and step != int(step)):
        allowed = "a factor above 1" if log else "above 0"
        raise ConfigError(
            f"{name}: the step of a range must be {allowed}"
            f"{', a whole number' if integer else ''}. Received: {text}."
        )
    span = math.log(high / low, step) if log else (high - low) / step
    count = int(span + 1e-9) + 1
    if count > LARGEST_GRID:
        raise ConfigError(
            f"{name}: a range can have at most {LARGEST_GRID} values. Leave out the step or "
            f"make it larger. Received: {text}, which has {count:,} values."
        )
    numbers = [low * step**place if log else low + place * step for place in range(count)]
    values = tuple(round(n) if integer else float(f"{n:.10g}") for n in numbers)
    return make_grid(name, values, ordered=True)


def range_of_table(name: str, table: Mapping[str, Any]) -> tuple[Any, Any, Any, bool]:
    """Return lowest value, highest value, step and log of a range in a space file.

    Raises:
        ConfigError: A key is missing or unknown.
    """
    unknown = set(table) - {"min", "max", "step", "log"}
    if unknown or not {"min", "max"} <= set(table):
        raise ConfigError(
            f"{name}: a range is a table with min, max and, optionally, step and log. "
            f"Received: {dict(table)!r}."
        )
    log = table.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"{name}: log must be true or false. Received: {log!r}.")
    return table["min"], table["max"], table.get("step"), log


def range_of_text(name: str, text: str) -> tuple[str, str, str | None, bool]:
    """Return lowest value, highest value, step and log of "MIN:MAX[:STEP][:log]".

    Raises:
        ConfigError: The text has another form.
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


def value_text(value: Value) -> str:
    """Return a value as it is written in a space or a table."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def _condition_text(when: Condition | None) -> str:
    """Return a condition as it is written in a space."""
    if when is None:
        return ""
    return f" when {when[0]}={','.join(map(value_text, when[1]))}"
