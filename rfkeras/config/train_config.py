"""`TrainConfig`: all options of a training run, checked, and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from rfkeras.config.parsing import Registered
from rfkeras.errors import ConfigError, located, unknown_name
from rfkeras.utils.files import MAX_OPTIONS_BYTES, parse_json, read_text

COMMAND_LINE = "command line"
WEIGHT_DECAY = 0.01  # AdamW's default, as in PyTorch
LONGEST_PRUNING = 50  # default limit in epochs
# The epochs of the published recipe, as fractions of its 350.
PUBLISHED_HOLD = 50 / 350
PUBLISHED_DECAY_END = 250 / 350
PUBLISHED_AVERAGED_FROM = 250 / 350
_WITH_SPLIT_RULE = ("folder", "openmic")
# Options about how a machine is used. They do not affect what a run computes.
_MACHINE_ONLY = ("devices", "cache_gb", "checkpoint_steps")


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
    """All options of a training run.

    The field names are the keys of a recipe and, with dashes, the flags of train.py. Their
    order is that of config.json.

    Raises:
        ConfigError: Options contradict each other.
    """

    def __post_init__(self) -> None:
        _check_schedule(self)
        _check_averaging(self)
        _check_pruning(self)
        _check_fine_tuning(self)
        _check_feature_cache(self)

    def model_options(self) -> dict[str, Any]:
        """Return the options of the architecture that are set."""
        given = {name: getattr(self, name) for name in self.model_option_names()}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def hold_until_epoch(self) -> float:
        """Epochs at the initial learning rate. May be a fraction."""
        return PUBLISHED_HOLD * self.epochs if self.hold_epochs is None else self.hold_epochs

    @property
    def decay_until_epoch(self) -> float:
        """Epochs after which the learning rate is the final one. May be a fraction."""
        if self.decay_end_epoch is not None:
            return self.decay_end_epoch
        return self.epochs * (PUBLISHED_DECAY_END if self.schedule == "published" else 1.0)

    @property
    def first_averaged_epoch(self) -> int:
        """First epoch, counted from 1, that stochastic weight averaging includes.

        By default averaging starts only when pruning has ended and all weights train.
        """
        if self.swa_start_epoch is not None:
            return self.swa_start_epoch
        published = math.ceil(PUBLISHED_AVERAGED_FROM * self.epochs)
        return max(published, self.prune_until_epoch + 1, (self.unfreeze_after or 0) + 1)

    def averages_epoch(self, epoch: int) -> bool:
        """Return whether stochastic weight averaging includes an epoch, counted from 1."""
        since = epoch - self.first_averaged_epoch
        return self.averaging == "swa" and since >= 0 and since % self.swa_every == 0

    @property
    def prunes(self) -> bool:
        """Return whether the model is pruned."""
        return self.prune_share is not None or self.prune_to_parameters is not None

    @property
    def prune_until_epoch(self) -> int:
        """Epochs after which the model has its final size. 0 without pruning."""
        if not self.prunes:
            return 0
        if self.prune_epochs is not None:
            return self.prune_epochs
        return min(math.ceil(self.epochs / 2), LONGEST_PRUNING)

    @property
    def first_eligible_epoch(self) -> int:
        """First epoch, counted from 1, that can be the best: at the final size."""
        return self.prune_until_epoch + 1


# Options that contradict each other. The messages name both.


def _check_schedule(config: TrainConfig) -> None:
    if config.weight_decay is not None and config.optimizer != "adamw":
        raise ConfigError(
            "weight_decay needs optimizer adamw. Received: "
            f"weight_decay={config.weight_decay:g}, optimizer={config.optimizer!r}."
        )
    hold, end = config.hold_until_epoch, config.decay_until_epoch
    if hold >= config.epochs:
        raise ConfigError(
            f"hold_epochs must be less than the {config.epochs} epochs, or the learning rate "
            "never reaches final_learning_rate. Leave it out to hold for 1/7 of the epochs. "
            "For a constant rate, set final_learning_rate to learning_rate. "
            f"Received: hold_epochs={hold:g}."
        )
    if end > config.epochs:
        raise ConfigError(
            f"decay_end_epoch must not be after the last of the {config.epochs} epochs. Leave "
            "it out to decay until the last epoch or, with schedule published, until 5/7 of "
            f"them. Received: decay_end_epoch={end:g}."
        )
    if hold >= end:
        raise ConfigError(
            "The decay must end after it begins: lower hold_epochs or raise decay_end_epoch. "
            f"Received: the rate is held for {hold:g} epochs (hold_epochs; default: 1/7 of "
            f"all) and the decay ends at epoch {end:g} (decay_end_epoch; default set by "
            f"schedule={config.schedule!r})."
        )


def _check_averaging(config: TrainConfig) -> None:
    start = config.swa_start_epoch
    if start is not None and start > config.epochs:
        raise ConfigError(
            f"swa_start_epoch must be one of the {config.epochs} epochs. Received: {start}."
        )
    if start is not None and config.averaging != "swa":
        raise ConfigError(
            f"swa_start_epoch needs averaging swa. Received: averaging={config.averaging!r}."
        )
    if start is not None and start <= config.prune_until_epoch:
        raise ConfigError(
            f"swa_start_epoch must be after the {config.prune_until_epoch} epochs of pruning: "
            "weights of different sizes cannot be averaged. Leave it out, or lower "
            f"prune_epochs. Received: swa_start_epoch={start}."
        )
    if config.final_weights == "average" and config.averaging == "none":
        raise ConfigError("final_weights average needs averaging swa or ema.")


def _check_pruning(config: TrainConfig) -> None:
    if config.prune_share is not None and config.prune_to_parameters is not None:
        raise ConfigError(
            "prune_share and prune_to_parameters both set the final size: give only one."
        )
    if config.prunes and config.prune_until_epoch >= config.epochs:
        raise ConfigError(
            "Pruning must end before the last epoch, so that the model trains at its final "
            "size: set prune_epochs lower than epochs. Received: "
            f"prune_epochs={config.prune_until_epoch}, epochs={config.epochs}."
        )


def _check_fine_tuning(config: TrainConfig) -> None:
    if config.freeze == "none":
        return
    if config.init_weights is None:
        raise ConfigError(
            "freeze trunk needs init_weights: otherwise the frozen weights are random."
        )
    after = config.unfreeze_after
    if after is not None and after >= config.epochs:
        raise ConfigError(
            f"unfreeze_after must be less than the {config.epochs} epochs. Leave it out to "
            f"keep the trunk frozen in all of them. Received: {after}."
        )
    if config.prunes:
        raise ConfigError(
            "Pruning changes the weights that freeze trunk keeps. Set freeze to none, or "
            "prune in a separate run."
        )
    if after is None:
        if config.trunk_lr_scale != 1.0:
            raise ConfigError(
                "trunk_lr_scale has no effect on a trunk that never trains: set "
                "unfreeze_after, or set freeze to none. Received: "
                f"trunk_lr_scale={config.trunk_lr_scale:g}."
            )
    elif config.averaging == "swa" and config.first_averaged_epoch <= after:
        raise ConfigError(
            f"swa_start_epoch must be after the {after} epochs with a frozen trunk, or the "
            "average mixes weights from before and after. Received: "
            f"swa_start_epoch={config.first_averaged_epoch}."
        )


def _check_feature_cache(config: TrainConfig) -> None:
    if not config.cache_features:
        return
    if not config.fixed_floor:
        raise ConfigError(
            "cache_features needs fixed_floor: otherwise the dB floor of an excerpt depends on "
            "its own loudest point, so its spectrogram cannot be cut from that of the clip."
        )
    if config.gain_db:
        raise ConfigError(
            "cache_features does not work with gain_db, which changes the waveform of each "
            "excerpt before the spectrogram is computed. Set gain_db to 0, or leave out "
            f"cache_features. Received: gain_db={config.gain_db:g}."
        )
    if config.dataset == "packed":
        raise ConfigError(
            "cache_features works with audio files, not with packed shards. Use the data set "
            "that was packed, or leave out cache_features. Received: dataset='packed'."
        )


# Options that name registered parts.
PARTS = tuple(
    field.name
    for field in dataclasses.fields(TrainConfig)
    if isinstance(field.metadata["parse"], Registered)
)


def parse_options(
    values: Mapping[str, Any], source: str, *, needs_parts: bool = True
) -> dict[str, Any]:
    """Return the parsed values of options.

    Args:
        values: Options by name.
        source: Where they come from, for messages.
        needs_parts: Whether losses, metrics and the like must be registered.

    Raises:
        ConfigError: An option is unknown (the nearest is suggested), or a value is not
            allowed.
    """
    fields = {f.name: f for f in dataclasses.fields(TrainConfig)}
    parsed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise ConfigError(f"{source}: {unknown_name('option', str(name), fields)}")
        if value is None and fields[name].default is None:
            parsed[name] = None
        else:
            shown = flag(name) if source == COMMAND_LINE else f"{source}: {name}"
            parse = fields[name].metadata["parse"]
            if isinstance(parse, Registered) and not needs_parts:
                parse = parse.unchecked
            parsed[name] = parse(shown, value)
    return parsed


def check_parts(config: TrainConfig, source: str) -> None:
    """Check that the loss, the metrics and other parts of a configuration are registered.

    Raises:
        ConfigError: One is not; the message says how to register it.
    """
    values = {name: getattr(config, name) for name in PARTS}
    parse_options(values, source)


def flag(name: str) -> str:
    """Return the flag of an option: "time_roll" has --time-roll."""
    return "--" + name.replace("_", "-")


def to_json(config: Any) -> str:
    """Return a configuration as JSON text, which `from_json` reads."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(path: Path) -> TrainConfig:
    """Read a configuration that `to_json` wrote.

    Raises:
        ConfigError: The file is missing or is not such a configuration.
    """
    try:
        text = read_text(path, MAX_OPTIONS_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return from_text(text, str(path))


def from_text(text: str, source: str) -> TrainConfig:
    """Parse a configuration that `to_json` returned.

    Losses, metrics and other parts of your own do not have to be registered to read it: see
    `check_parts`.

    Args:
        text: The JSON text.
        source: Where it comes from, for messages.

    Raises:
        ConfigError: The text is not such a configuration.
    """
    try:
        values = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"{source} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{source} is not a configuration: it must be a JSON object.")
    if values.get("dataset") in _WITH_SPLIT_RULE:
        values.setdefault("split_rule", "clips")  # version 0.1.0 did not write the rule
    is_resnet = str(values.get("model")).startswith("resnet")
    if is_resnet and None not in (values.get("damping"), values.get("decomposition")):
        values.setdefault("damp_stem", True)  # version 0.1.0 always damped the stem
    parsed = parse_options(values, source, needs_parts=False)
    with located(source):  # also errors about options that contradict each other
        return TrainConfig(**parsed)


def differing_options(there: TrainConfig, now: TrainConfig) -> list[str]:
    """Return the options that differ between two configurations, with both values.

    Options that only affect how the machine is used may differ, and are left out.
    """
    names = [f.name for f in dataclasses.fields(TrainConfig) if f.name not in _MACHINE_ONLY]
    return [
        f"{name} ({getattr(there, name)!r} there, {getattr(now, name)!r} now)"
        for name in names
        if getattr(there, name) != getattr(now, name)
    ]
