"""The front-end: waveform to standardised mel spectrogram, inside the model.

The presets import no framework. The layer, and with it Keras, is imported on first use.
"""

from typing import TYPE_CHECKING

from rfkeras.frontend.presets import PRESETS, preset_config
from rfkeras.utils.lazy import lazy_attributes

if TYPE_CHECKING:
    from rfkeras.frontend.layer import Frontend, build_input, create_frontend, find_frontend

__all__ = [
    "PRESETS",
    "Frontend",
    "build_input",
    "create_frontend",
    "find_frontend",
    "preset_config",
]

_OF_LAYER = ("Frontend", "build_input", "create_frontend", "find_frontend")
__getattr__ = lazy_attributes(__name__, dict.fromkeys(_OF_LAYER, "rfkeras.frontend.layer"))
