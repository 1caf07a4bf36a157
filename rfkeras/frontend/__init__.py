"""From waveform to standardised mel spectrogram, inside the model."""

from rfkeras.frontend.build import build_input, find_frontend
from rfkeras.frontend.layer import Frontend
from rfkeras.frontend.presets import PRESETS, create_frontend, preset_config

__all__ = [
    "PRESETS",
    "Frontend",
    "build_input",
    "create_frontend",
    "find_frontend",
    "preset_config",
]
