"""Checkpoints of other frameworks."""

from rfkeras.interop.card import Conversion
from rfkeras.interop.conversion import convert
from rfkeras.interop.torch import CHECKPOINT_SUFFIXES, load_torch_checkpoint

__all__ = ["CHECKPOINT_SUFFIXES", "Conversion", "convert", "load_torch_checkpoint"]
