"""Keras layers from which receptive-field-regularised networks are built."""

from rfkeras.layers.augmentation import (
    Mixup,
    RandomGain,
    RandomTimeRoll,
    ReplicaDropout,
    SpecAugment,
)
from rfkeras.layers.conv import (
    BatchNormalization,
    DampedConv2D,
    DecomposedConv2D,
    FrequencyChannel,
    make_conv,
)
from rfkeras.layers.dense import DenseLayer
from rfkeras.layers.head import ClipLogits, find_head
from rfkeras.layers.outputs import Outputs, model_outputs
from rfkeras.layers.residual import ResidualBlock, ShakeShake
from rfkeras.utils.keras_workarounds import ReplicaSeedGenerator

__all__ = [
    "BatchNormalization",
    "ClipLogits",
    "DampedConv2D",
    "DecomposedConv2D",
    "DenseLayer",
    "FrequencyChannel",
    "Mixup",
    "Outputs",
    "RandomGain",
    "RandomTimeRoll",
    "ReplicaDropout",
    "ReplicaSeedGenerator",
    "ResidualBlock",
    "ShakeShake",
    "SpecAugment",
    "find_head",
    "make_conv",
    "model_outputs",
]
