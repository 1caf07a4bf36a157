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
