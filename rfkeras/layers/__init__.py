"""Keras layers: the blocks from which receptive-field-regularised networks are built."""

from rfkeras.layers.augmentation import RandomGain, RandomTimeRoll, SpecAugment
from rfkeras.layers.conv import DampedConv2D, DecomposedConv2D, make_conv
from rfkeras.layers.dense import DenseLayer
from rfkeras.layers.dropout import ReplicaDropout
from rfkeras.layers.frequency import FrequencyChannel
from rfkeras.layers.head import ClipLogits, find_head
from rfkeras.layers.mixup import Mixup
from rfkeras.layers.normalization import BatchNormalization
from rfkeras.layers.random import ReplicaSeedGenerator
from rfkeras.layers.residual import ResidualBlock
from rfkeras.layers.shake import ShakeShake

__all__ = [
    "BatchNormalization",
    "ClipLogits",
    "DampedConv2D",
    "DecomposedConv2D",
    "DenseLayer",
    "FrequencyChannel",
    "Mixup",
    "RandomGain",
    "RandomTimeRoll",
    "ReplicaDropout",
    "ReplicaSeedGenerator",
    "ResidualBlock",
    "ShakeShake",
    "SpecAugment",
    "find_head",
    "make_conv",
]
