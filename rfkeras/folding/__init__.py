"""Models for inference alone: the same outputs of fewer operations."""

from rfkeras.folding.model import fold, fold_if_possible

__all__ = ["fold", "fold_if_possible"]
