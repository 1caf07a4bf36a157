"""Parsers of option values, and the dataclass field that carries one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field
from pathlib import Path
from typing import Any

from rfkeras.errors import ConfigError, unknown_name


def option(
    default: Any, parse: Callable[[str, Any], Any], help: str, needs: Needs | None = None
) -> Any:
    """Return a dataclass field that is an option of a run.

    Args:
        default: Its default value.
        parse: Parser of its values: (name for messages, value) to the parsed value.
        help: Help text of its flag.
        needs: What must be on for the option to have any effect.
    """
    return field(default=default, metadata={"parse": parse, "help": help, "needs": needs})


@dataclass(frozen=True)
class Needs:
    """A condition without which an option has no effect.

    Attributes:
        switches: Options that decide whether it holds.
        how: How to make it hold, for messages.
        is_on: Whether it holds, given the values of all options.
    """

    switches: tuple[str, ...]
    how: str
    is_on: Callable[[Mapping[str, Any]], bool]


SPEC_AUGMENT = Needs(("spec_augment",), "--spec-augment", lambda v: v["spec_augment"])
SWA = Needs(("averaging",), "--averaging swa", lambda v: v["averaging"] == "swa")
EMA = Needs(("averaging",), "--averaging ema", lambda v: v["averaging"] == "ema")
AVERAGE_KEPT = Needs(
    ("final_weights",),
    "--final-weights best or average",
    lambda v: v["averaging"] == "none" or v["final_weights"] != "last",
)
PRUNING = Needs(
    ("prune_share", "prune_to_parameters"),
    "--prune-share or --prune-to-parameters",
    lambda v: v["prune_share"] is not None or v["prune_to_parameters"] is not None,
)
INITIAL = Needs(("init_weights",), "--init-weights", lambda v: v["init_weights"] is not None)
FROZEN = Needs(("freeze",), "--freeze trunk", lambda v: v["freeze"] == "trunk")


def whole(minimum: int, maximum: int | None = None) -> Callable[[str, Any], int]:
    """Return a parser of whole numbers of at least `minimum` and at most `maximum`."""
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
    """Return a parser of finite numbers from `minimum` to `maximum`, both included."""
    if maximum == float("inf"):
        allowed = f"a number of at least {minimum:g}"
    else:
        allowed = f"a number from {minimum:g} to {maximum:g}"

    def parse(name: str, value: Any) -> float:
        try:
            result = float(str(value))
        except ValueError:
            result = float("nan")
        if not minimum <= result <= maximum or result == float("inf"):
            raise ConfigError(f"{name} must be {allowed}. Received: {value!r}.")
        return result

    return parse


def text(name: str, value: Any) -> str:
    """Parse a string that is not empty."""
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(f"{name} must be a non-empty string. Received: {value!r}.")
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
    """Return a parser of one of these names."""
    return Choice(allowed)


def metavar(field: Field[Any]) -> str:
    """Return what `--help` shows for a field's value: its choices, or the name in capitals."""
    parse = field.metadata["parse"]
    return f"{{{','.join(parse.allowed)}}}" if isinstance(parse, Choice) else field.name.upper()


def switch(name: str, value: Any) -> bool:
    """Parse true or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false. Received: {value!r}.")
    return value


def whole_numbers(*lengths: int) -> Callable[[str, Any], int | tuple[int, ...]]:
    """Return a parser of lists of whole numbers, "7,5" or [7, 5], of these lengths."""

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


@dataclass(frozen=True)
class Registered:
    """Parser of names of registered parts: one name, or several separated by commas."""

    registry: Mapping[str, Any]
    several: bool = False

    def __call__(self, name: str, value: Any) -> str | tuple[str, ...]:
        names = self.unchecked(name, value)
        for part in (names,) if isinstance(names, str) else names:
            try:
                self.registry[part]
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from None
        return names

    def unchecked(self, name: str, value: Any) -> str | tuple[str, ...]:
        """Parse without asking whether the parts are registered."""
        if not self.several:
            return text(name, value)
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, Sequence):
            raise ConfigError(f"{name} must be names separated by commas. Received: {value!r}.")
        return tuple(str(part).strip() for part in parts)


def weights(name: str, value: Any) -> str | dict[str, float]:
    """Parse class weights: none, balanced, or a table from tag to weight."""
    if isinstance(value, Mapping):
        return {str(tag): number(0.0)(f"{name}: {tag}", each) for tag, each in value.items()}
    return choice("none", "balanced")(f"{name} (or, in a recipe, a table)", value)
