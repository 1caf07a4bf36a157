"""Keras layers: the blocks from which receptive-field-regularised networks are built."""

from rfkeras.layers.head import ClipLogits, find_head
from rfkeras.layers.normalization import BatchNormalization
from rfkeras.layers.residual import ResidualBlock

__all__ = ["BatchNormalization", "ClipLogits", "ResidualBlock", "find_head"]
