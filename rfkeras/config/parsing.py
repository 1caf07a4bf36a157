"""Parsers of option values, and the dataclass field that carries one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from rfkeras.errors import ConfigError, unknown_name


@dataclass(frozen=True)
class Needs:
    """What an option needs to have any effect.

    Attributes:
        switches: Options that turn it on or off.
        how: What to set, for the message.
        is_on: Whether it is on, from the values of all options.
    """

    switches: tuple[str, ...]
    how: str
    is_on: Callable[[Mapping[str, Any]], bool]


SPEC_AUGMENT = Needs(("spec_augment",), "spec_augment", lambda v: v["spec_augment"])
SWA = Needs(("averaging",), "averaging to swa", lambda v: v["averaging"] == "swa")
EMA = Needs(("averaging",), "averaging to ema", lambda v: v["averaging"] == "ema")
AVERAGE_KEPT = Needs(
    ("final_weights",),
    "final_weights to best or average",
    lambda v: v["averaging"] == "none" or v["final_weights"] != "last",
)
PRUNING = Needs(
    ("prune_share", "prune_to_parameters"),
    "prune_share or prune_to_parameters",
    lambda v: v["prune_share"] is not None or v["prune_to_parameters"] is not None,
)
INITIAL = Needs(("init_weights",), "init_weights", lambda v: v["init_weights"] is not None)
FROZEN = Needs(("freeze",), "freeze to trunk", lambda v: v["freeze"] == "trunk")


def check_needs(config_class: Any, given: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Refuse options that were given in vain.

    A flag may turn off what a recipe turned on, and so may a recipe that extends another
    one: what the weaker of the two says of the details is then left over, and no mistake.

    Args:
        config_class: The dataclass of the options.
        given: Source and options, each stronger than those before it.

    Raises:
        ConfigError: An option needs another one, which is off, and nothing stronger than
            the option turned it off.
    """
    values = {field.name: field.default for field in fields(config_class)}
    strength: dict[str, int] = {}
    for place, (_, options) in enumerate(given):
        values |= options
        strength |= dict.fromkeys(options, place)
    for option in fields(config_class):
        needs: Needs | None = option.metadata["needs"]
        if needs is None or option.name not in strength or needs.is_on(values):
            continue
        place = strength[option.name]
        if any(strength.get(switch, -1) > place for switch in needs.switches):
            continue
        raise ConfigError(
            f"{given[place][0]}: {option.name} has no effect as long as "
            f"{_shown(needs, values)}: set {needs.how}, or leave {option.name} out. "
            f"Received: {values[option.name]!r}."
        )


def _shown(needs: Needs, values: Mapping[str, Any]) -> str:
    return " and ".join(f"{name} is {values[name]!r}" for name in needs.switches)


def whole(minimum: int, maximum: int | None = None) -> Callable[[str, Any], int]:
    """Parser of whole numbers of at least `minimum` and at most `maximum`."""
    allowed = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def parse(name: str, value: Any) -> int:
        try:
            number = int(str(value))
        except ValueError:
            number = minimum - 1
        too_large = maximum is not None and number > maximum
        if number < minimum or too_large or isinstance(value, bool):
            raise ConfigError(f"{name} must be a whole number {allowed}. Received: {value!r}.")
        return number

    return parse


def number(minimum: float, maximum: float = float("inf")) -> Callable[[str, Any], float]:
    """Parser of finite numbers between two bounds, both included."""

    def parse(name: str, value: Any) -> float:
        try:
            result = float(str(value))
        except ValueError:
            result = float("nan")
        if not minimum <= result <= maximum or result == float("inf"):
            raise ConfigError(
                f"{name} must be a number from {minimum:g} to {maximum:g}. Received: {value!r}."
            )
        return result

    return parse


def text(name: str, value: Any) -> str:
    """Parser of strings."""
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(f"{name} must be a text. Received: {value!r}.")
    return str(value)


@dataclass(frozen=True)
class Choice:
    """Parser of one of several names."""

    allowed: tuple[str, ...]

    def __call__(self, name: str, value: Any) -> str:
        if value not in self.allowed:
            raise ConfigError(f"{name}: {unknown_name('value', str(value), self.allowed)}")
        return str(value)


def choice(*allowed: str) -> Choice:
    """Parser of one of several names."""
    return Choice(allowed)


def metavar(field: Field[Any]) -> str:
    """What `--help` shows for the value of a field: the names to choose from, if it has any."""
    parse = field.metadata["parse"]
    return f"{{{','.join(parse.allowed)}}}" if isinstance(parse, Choice) else field.name.upper()


def switch(name: str, value: Any) -> bool:
    """Parser of yes and no."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false. Received: {value!r}.")
    return value


def whole_numbers(*lengths: int) -> Callable[[str, Any], int | tuple[int, ...]]:
    """Parser of lists of whole numbers, "7,5" or [7, 5], of these lengths."""

    def parse(name: str, value: Any) -> int | tuple[int, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        parts = list(parts) if isinstance(parts, Sequence) else [parts]
        if len(parts) not in lengths:
            raise ConfigError(
                f"{name} takes {' or '.join(map(str, lengths))} whole numbers, separated by "
                f"commas. Received: {value!r}."
            )
        numbers = tuple(whole(0)(name, part) for part in parts)
        return numbers[0] if len(numbers) == 1 else numbers

    return parse


def weights(name: str, value: Any) -> str | dict[str, float]:
    """Parser of class weights: none, balanced, or a table from tag to weight."""
    if isinstance(value, Mapping):
        return {str(tag): number(0.0)(f"{name}: {tag}", each) for tag, each in value.items()}
    return choice("none", "balanced")(f"{name} (or, in a recipe, a table)", value)


def option(
    default: Any, parse: Callable[[str, Any], Any], help: str, needs: Needs | None = None
) -> Any:
    """A dataclass field with the parser and the help of its flag, and what it needs."""
    return field(default=default, metadata={"parse": parse, "help": help, "needs": needs})
