"""Options of a training that starts from trained weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rfkeras.options.needs import FROZEN, INITIAL
from rfkeras.options.parsers import choice, number, option, text, whole


@dataclass(frozen=True)
class FineTuningOptions:
    """Which weights a run starts from, and which of them it keeps."""

    group_title: ClassVar[str] = "fine-tuning"

    init_weights: str | None = option(
        None,
        text,
        "weights to start from: ready ones (see `rfkeras models`), a run folder, a .keras file "
        "or a PyTorch checkpoint",
    )
    freeze: str = option(
        "none",
        choice("none", "trunk"),
        "what stays as it is: none, or trunk (all but the classifier)",
        needs=INITIAL,
    )
    unfreeze_after: int | None = option(
        None, whole(1), "epochs after which the trunk trains too (default: never)", needs=FROZEN
    )
    trunk_lr_scale: float = option(
        1.0,
        number(0.0001, 1.0),
        "learning rate of the trunk, as a share of the classifier's",
        needs=INITIAL,
    )

    @property
    def frozen_epochs(self) -> float:
        """Epochs for which the trunk is frozen; infinite where it never trains."""
        if self.freeze == "none":
            return 0
        return float("inf") if self.unfreeze_after is None else self.unfreeze_after
