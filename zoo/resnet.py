"""The contrast: the same ResNet with its receptive field not regularised.

With rho 22 every convolution after the first block is 3x3, as in an ordinary ResNet: one
position sees 615 frames and more than the whole spectrogram's height.
"""

from __future__ import annotations

import zoo.resnet_rf  # noqa: F401 (the architecture that is renamed here)
from rfkeras.receptive_field.plan import RHO_MAX
from zoo.registry import register_alias

register_alias(
    "resnet",
    "resnet_rf",
    "ResNet with 3x3 kernels throughout: its receptive field is not regularised.",
    rho=RHO_MAX,
)
