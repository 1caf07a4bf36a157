"""The input of a model, with or without a front-end.

Without a front-end, only Keras is imported, so that the networks run on every Keras backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from rfkeras.errors import ConfigError

if TYPE_CHECKING:
    from rfkeras.frontend.layer import Frontend


def build_input(
    frontend: str | Frontend | None, input_channels: int, min_frames: int
) -> tuple[Any, Any]:
    """Create the input of a model, and the spectrogram for its backbone.

    Args:
        frontend: Name of a preset, a layer, or None for a model that takes spectrograms.
        input_channels: 1 (mono) or 2 (stereo).
        min_frames: Minimum number of frames the backbone needs; the front-end pads shorter
            audio to it.

    Returns:
        (input, spectrogram): symbolic tensors. The input is named "waveform", with shape
        (batch, samples) for mono or (batch, samples, 2) for stereo; or "spectrogram",
        (batch, time, mel, input_channels).

    Raises:
        ConfigError: Unknown preset, or input_channels is neither 1 nor 2.
    """
    if input_channels not in (1, 2):
        raise ConfigError(
            f"input_channels must be 1 (mono) or 2 (stereo). Received: {input_channels!r}."
        )
    if frontend is None:
        spectrogram = keras.Input((None, None, input_channels), name="spectrogram")
        return spectrogram, spectrogram

    from rfkeras.frontend.layer import Frontend, create_frontend

    layer = create_frontend(frontend) if isinstance(frontend, str) else frontend
    if not isinstance(layer, Frontend):
        raise ConfigError(
            "frontend must be the name of a preset, an rfkeras.frontend.Frontend, or None. "
            f"Received: {frontend!r}."
        )
    layer.min_frames = max(layer.min_frames, min_frames)
    shape = (None,) if input_channels == 1 else (None, input_channels)
    waveform = keras.Input(shape, dtype="float32", name="waveform")
    return waveform, layer(waveform)
