"""Options of a training run: their defaults, a recipe over them, flags over both."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rfkeras.config.options import (
    AugmentationOptions,
    DataOptions,
    FineTuningOptions,
    FrontendOptions,
    MachineOptions,
    ModelOptions,
    OptimizerOptions,
    PruningOptions,
    SelectionOptions,
)
from rfkeras.config.parsing import check_needs, metavar, switch
from rfkeras.errors import ConfigError, located, unknown_name
from rfkeras.utils.files import MAX_OPTIONS_BYTES, parse_json, read_text


def check(config: Any) -> None:
    """Refuse a `TrainConfig` whose options do not go together.

    Raises:
        ConfigError: Two options contradict each other; the message names them.
    """
    if config.weight_decay is not None and config.optimizer != "adamw":
        raise ConfigError(
            "weight_decay goes with optimizer adamw alone. Received: "
            f"weight_decay={config.weight_decay:g}, optimizer={config.optimizer!r}."
        )
    _check_schedule(config)
    _check_averaging(config)
    _check_pruning(config)
    _check_fine_tuning(config)


def _check_schedule(config: Any) -> None:
    hold, end = config.hold_until_epoch, config.decay_until_epoch
    if hold >= config.epochs:
        raise ConfigError(
            f"hold_epochs must be fewer than the {config.epochs} epochs, or the learning rate "
            "would never reach final_learning_rate. Leave it out to hold for 1/7 of the "
            "epochs; for a constant rate set final_learning_rate to learning_rate. "
            f"Received: hold_epochs={hold:g}."
        )
    if end > config.epochs:
        raise ConfigError(
            f"decay_end_epoch must not lie after the {config.epochs} epochs: leave it out to "
            "decay to the last epoch, or with schedule published to 5/7 of them. "
            f"Received: decay_end_epoch={end:g}."
        )
    if hold >= end:
        raise ConfigError(
            "The decay must end after it begins: set hold_epochs lower or decay_end_epoch "
            f"higher. Received: the rate is held for {hold:g} epochs (hold_epochs, by default "
            f"1/7 of all) and the decay ends at epoch {end:g} (decay_end_epoch, by default as "
            f"schedule={config.schedule!r} says)."
        )


def _check_averaging(config: Any) -> None:
    start = config.swa_start_epoch
    if start is not None and start > config.epochs:
        raise ConfigError(
            f"swa_start_epoch must be one of the {config.epochs} epochs. Received: {start}."
        )
    if start is not None and config.averaging != "swa":
        raise ConfigError(
            "swa_start_epoch goes with averaging swa alone. Received: "
            f"averaging={config.averaging!r}."
        )
    if start is not None and start <= config.prune_until_epoch:
        raise ConfigError(
            f"swa_start_epoch must lie after the {config.prune_until_epoch} epochs that prune "
            "the model: weights of different sizes have no average. Leave it out, or set "
            f"prune_epochs lower. Received: swa_start_epoch={start}."
        )
    if config.final_weights == "average" and config.averaging == "none":
        raise ConfigError(
            "final_weights='average' needs an average: set averaging to swa or ema."
        )


def _check_pruning(config: Any) -> None:
    if config.prune_share is not None and config.prune_to_parameters is not None:
        raise ConfigError(
            "prune_share and prune_to_parameters say the same thing: give one of them."
        )
    if config.prunes and config.prune_until_epoch >= config.epochs:
        raise ConfigError(
            "Pruning must end before the last epoch, so that the model is trained at its "
            "final size: set prune_epochs lower than epochs. Received: "
            f"prune_epochs={config.prune_until_epoch}, epochs={config.epochs}."
        )


def _check_fine_tuning(config: Any) -> None:
    if config.freeze == "none":
        return
    if config.init_weights is None:
        raise ConfigError(
            "freeze='trunk' would keep a trunk that was never trained: name weights by "
            "init_weights."
        )
    after = config.unfreeze_after
    if after is not None and after >= config.epochs:
        raise ConfigError(
            f"unfreeze_after must be fewer than the {config.epochs} epochs; leave it out to "
            f"keep the trunk frozen for all of them. Received: {after}."
        )
    if config.prunes:
        raise ConfigError(
            "Pruning changes the weights that freeze='trunk' keeps: set freeze to none, or "
            "prune in a run of its own."
        )
    if after is None:
        if config.trunk_lr_scale != 1.0:
            raise ConfigError(
                "trunk_lr_scale has no effect on a trunk that never trains: set "
                "unfreeze_after, or freeze to none. Received: "
                f"trunk_lr_scale={config.trunk_lr_scale:g}."
            )
    elif config.averaging == "swa" and config.first_averaged_epoch <= after:
        raise ConfigError(
            f"swa_start_epoch must lie after the {after} epochs of the frozen trunk, or the "
            "mean is of two trainings. Received: "
            f"swa_start_epoch={config.first_averaged_epoch}."
        )


T = TypeVar("T")

_OF_THE_MACHINE = ("devices", "cache_gb", "checkpoint_steps")
WEIGHT_DECAY = 0.01  # where AdamW is given none; PyTorch's default
# Epochs of the published recipe, as shares of its 350.
PUBLISHED_HOLD = 50 / 350
PUBLISHED_DECAY_END = 250 / 350
PUBLISHED_AVERAGED_FROM = 250 / 350
LONGEST_PRUNING = 50  # epochs, unless more are asked for


@dataclass(frozen=True)
class TrainConfig(
    ModelOptions,
    DataOptions,
    FrontendOptions,
    AugmentationOptions,
    OptimizerOptions,
    FineTuningOptions,
    SelectionOptions,
    PruningOptions,
    MachineOptions,
):
    """Everything that decides what a run computes.

    The field names are the keys of a recipe and, with dashes, the flags of train.py.

    Raises:
        ConfigError: Options contradict each other.
    """

    def __post_init__(self) -> None:
        check(self)

    def model_options(self) -> dict[str, Any]:
        """Options of the architecture that were set."""
        given = {name: getattr(self, name) for name in self.model_option_names()}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def hold_until_epoch(self) -> float:
        """Epochs, also part of one, at the first learning rate."""
        return PUBLISHED_HOLD * self.epochs if self.hold_epochs is None else self.hold_epochs

    @property
    def decay_until_epoch(self) -> float:
        """Epochs, also part of one, after which the learning rate is the final one."""
        if self.decay_end_epoch is not None:
            return self.decay_end_epoch
        return self.epochs * (PUBLISHED_DECAY_END if self.schedule == "published" else 1.0)

    @property
    def first_averaged_epoch(self) -> int:
        """The first epoch, counted from 1, whose weights stochastic averaging takes in.

        By default none before the model has its final size and all of it trains.
        """
        if self.swa_start_epoch is not None:
            return self.swa_start_epoch
        published = math.ceil(PUBLISHED_AVERAGED_FROM * self.epochs)
        return max(published, self.prune_until_epoch + 1, (self.unfreeze_after or 0) + 1)

    @property
    def prunes(self) -> bool:
        """Whether the model is pruned."""
        return self.prune_share is not None or self.prune_to_parameters is not None

    @property
    def prune_until_epoch(self) -> int:
        """Epochs after which the model has its final size; 0 without pruning."""
        if not self.prunes:
            return 0
        if self.prune_epochs is not None:
            return self.prune_epochs
        return min(math.ceil(self.epochs / 2), LONGEST_PRUNING)


def _parse(config_class: type, values: Mapping[str, Any], source: str) -> dict[str, Any]:
    fields = {f.name: f for f in dataclasses.fields(config_class)}
    parsed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise ConfigError(f"{source}: {unknown_name('option', str(name), fields)}")
        if value is None and fields[name].default is None:
            parsed[name] = None
        else:
            parsed[name] = fields[name].metadata["parse"](f"{source}: {name}", value)
    return parsed


def resolve(
    config_class: type[T],
    flags: Mapping[str, Any],
    recipes: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> T:
    """Defaults, then each recipe (its source, its options) in turn, then the flags.

    Raises:
        ConfigError: An unknown option (the nearest is suggested), a value not allowed, or
            an option that has no effect because another one is off.
    """
    layers = [*recipes, ("command line", flags)]
    given = [(source, _parse(config_class, table, source)) for source, table in layers]
    check_needs(config_class, given)
    values: dict[str, Any] = {}
    for _, options in given:
        values |= options
    return config_class(**values)


def add_flags(
    parser: argparse.ArgumentParser, config_class: Any, leave_out: Sequence[str] = ()
) -> None:
    """One flag a field, in the groups of the classes that the configuration is made of.

    Flags that are not given leave no trace in the namespace.

    Args:
        parser: The parser of a command.
        config_class: The dataclass of the options.
        leave_out: Fields that get no flag.
    """
    fields = {f.name: f for f in dataclasses.fields(config_class)}
    for part in config_class.__mro__[1:-1]:
        group = parser.add_argument_group(part.group_title)
        for name in part.__annotations__:
            if name in fields and name not in leave_out:
                _add_flag(group, fields[name])


def _add_flag(group: Any, field: dataclasses.Field[Any]) -> None:
    shown = "" if field.default is None else f" (default: {field.default})"
    settings: dict[str, Any] = {
        "help": field.metadata["help"] + shown,
        "default": argparse.SUPPRESS,
    }
    if field.metadata["parse"] is switch:
        settings["action"] = argparse.BooleanOptionalAction
    else:
        settings["metavar"] = metavar(field)
    group.add_argument("--" + field.name.replace("_", "-"), **settings)


def to_json(config: Any) -> str:
    """The configuration as JSON text; `from_json` reads it back."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(config_class: type[T], path: Path) -> T:
    """The configuration written by `to_json`.

    Raises:
        ConfigError: The file is missing or not such a configuration.
    """
    try:
        text = read_text(path, MAX_OPTIONS_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return from_text(config_class, text, str(path))


def from_text(config_class: type[T], text: str, source: str) -> T:
    """The configuration in a text of `to_json`; `source` is what errors call it.

    Raises:
        ConfigError: It is no such configuration.
    """
    try:
        values = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"{source} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{source} is no configuration: it must be a JSON object.")
    parsed = _parse(config_class, values, source)
    with located(source):  # also of options that do not go together
        return config_class(**parsed)


def differing_options(there: TrainConfig, now: TrainConfig) -> list[str]:
    """Options that are not the same in two configurations, both values in words.

    Those that say how a machine is used, and not what is computed, may differ.
    """
    names = [f.name for f in dataclasses.fields(TrainConfig) if f.name not in _OF_THE_MACHINE]
    return [
        f"{name} ({getattr(there, name)!r} there, {getattr(now, name)!r} now)"
        for name in names
        if getattr(there, name) != getattr(now, name)
    ]
