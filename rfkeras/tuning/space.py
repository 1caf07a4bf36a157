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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rfkeras.config import TrainConfig
from rfkeras.errors import ConfigError, unknown_name
from rfkeras.options.inputs import DataOptions
from rfkeras.options.parsers import switch, whole
from rfkeras.recipes import read_yaml
from rfkeras.tuning.parameters import (
    Grid,
    Parameter,
    Value,
    make_grid,
    make_range,
    range_of_table,
    range_of_text,
)

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
