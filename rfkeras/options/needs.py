"""Options that mean nothing unless another one is on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rfkeras.errors import ConfigError


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
    for field in fields(config_class):
        needs: Needs | None = field.metadata["needs"]
        if needs is None or field.name not in strength or needs.is_on(values):
            continue
        place = strength[field.name]
        if any(strength.get(switch, -1) > place for switch in needs.switches):
            continue
        raise ConfigError(
            f"{given[place][0]}: {field.name} has no effect as long as "
            f"{_shown(needs, values)}: set {needs.how}, or leave {field.name} out. "
            f"Received: {values[field.name]!r}."
        )


def _shown(needs: Needs, values: Mapping[str, Any]) -> str:
    return " and ".join(f"{name} is {values[name]!r}" for name in needs.switches)
