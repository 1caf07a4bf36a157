"""Load checkpoints of other frameworks."""

from rfkeras.interop.torch import CHECKPOINT_SUFFIXES, load_torch_checkpoint

__all__ = ["CHECKPOINT_SUFFIXES", "load_torch_checkpoint"]
