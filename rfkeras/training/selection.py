"""Which epoch is the best, when to stop, and which weights a run ends with."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from rfkeras.config import TrainConfig
from rfkeras.errors import ConfigError, unknown_name


def lower_is_better(monitor: str) -> bool:
    """Whether the lowest value of a figure is the best, as of a loss."""
    return monitor.endswith("loss")


@dataclass(frozen=True)
class Selection:
    """How epochs are compared.

    Attributes:
        monitor: The figure: the lowest is best for losses, else the highest.
        patience: Epochs without a better one after which training stops; None: never.
        first_epoch: The first epoch, counted from 1, that may be the best: before it the
            model is not pruned to its final size.
        patient_until: Epoch before which no epoch counts as one without a better one: the
            first that is averaged, so that a run that stops early has an average, and the
            first of a trunk that was frozen.
    """

    monitor: str = "val_mAP"
    patience: int | None = None
    first_epoch: int = 1
    patient_until: int = 1

    def better(self, value: float, best: float | None) -> bool:
        """Whether a value is better than the best so far; nothing is worse than NaN."""
        if best is None or math.isnan(best):
            return best is None or not math.isnan(value)
        return value < best if lower_is_better(self.monitor) else value > best

    def is_over(self, epoch: int, best_epoch: int) -> bool:
        """Whether training stops after an epoch (both counted from 1)."""
        waited = epoch - max(best_epoch, self.patient_until - 1)
        return self.patience is not None and waited >= self.patience


def make_selection(config: TrainConfig, figures: Collection[str]) -> Selection:
    """How a run compares its epochs.

    Args:
        config: The run's configuration.
        figures: Names of the validation figures.

    Raises:
        ConfigError: There is no such figure, or the average of weights has none such.
    """
    allowed = ("loss", *figures)
    if config.monitor not in allowed:
        raise ConfigError(unknown_name("monitor", config.monitor, allowed))
    validated = config.averaging != "none" and config.final_weights != "last"
    if config.monitor == "loss" and validated:
        raise ConfigError(
            "monitor must be a validation figure where weights are averaged: the average has "
            f"no training loss. Set monitor to one of {', '.join(figures)}, or averaging to "
            f"none. Received: monitor='loss', averaging={config.averaging!r}."
        )
    return Selection(
        config.monitor,
        config.early_stop_epochs,
        first_epoch=first_eligible_epoch(config),
        patient_until=max(
            config.first_averaged_epoch if config.averaging == "swa" else 1,
            (config.unfreeze_after or 0) + 1,
        ),
    )


def first_eligible_epoch(config: TrainConfig) -> int:
    """The first epoch, counted from 1, that trains the model at its final size."""
    return config.prune_until_epoch + 1


def is_averaged(config: TrainConfig, epoch: int) -> bool:
    """Whether stochastic weight averaging takes in an epoch, counted from 1."""
    since = epoch - config.first_averaged_epoch
    return config.averaging == "swa" and since >= 0 and since % config.swa_every == 0
