"""Options that contradict each other."""

from __future__ import annotations

from typing import Any

from rfkeras.errors import ConfigError


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
    end = config.decay_end_epoch
    if end is not None and not config.hold_epochs < end:
        raise ConfigError(
            f"decay_end_epoch must lie after hold_epochs={config.hold_epochs:g}. "
            f"Received: {end:g}."
        )
    _check_averaging(config)
    _check_pruning(config)


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
    if config.final_weights == "average" and config.averaging == "none":
        raise ConfigError(
            "final_weights='average' needs an average: set averaging to swa or ema."
        )


def _check_pruning(config: Any) -> None:
    if config.prune_share is not None and config.prune_to_parameters is not None:
        raise ConfigError(
            "prune_share and prune_to_parameters say the same thing: give one of them."
        )
    if config.prunes and config.prune_epochs >= config.epochs:
        raise ConfigError(
            "prune_epochs must be fewer than epochs, so that the model is trained at its "
            f"final size. Received: prune_epochs={config.prune_epochs}, "
            f"epochs={config.epochs}."
        )
