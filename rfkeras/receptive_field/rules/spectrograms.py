"""Layers of Keras and kapre that compute spectrograms: pixels are counted from there on.

kapre's layers are named and not imported, so that networks without them need no kapre.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from keras import layers

from rfkeras.receptive_field.field import AxisField
from rfkeras.receptive_field.registry import Call, full_name, register_rule
from rfkeras.receptive_field.states import Along
from rfkeras.receptive_field.tensor import TensorField
from rfkeras.receptive_field.units import SpectrogramScale

KAPRE = "kapre.time_frequency"


def _maps(layer: Any) -> tuple[int, int, int]:
    """Dimensions of time, frequency and channels in kapre's spectrograms."""
    layout = getattr(layer, "output_data_format", None) or layer.data_format
    return (2, 3, 1) if layout == "channels_first" else (1, 2, 3)


@register_rule(f"{KAPRE}.STFT")
def stft(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Frames and frequency bins of a waveform."""
    time, frequency, channels = _maps(layer)
    samples, waves = (1, 2) if layer.input_data_format == "channels_last" else (2, 1)
    shape: list[int | None] = [inputs.shape[0], None, None, None]
    length = inputs.shape[samples]
    if length is not None:
        length += (layer.n_fft - layer.hop_length) if layer.pad_begin else 0
        length = (
            -(-length // layer.hop_length)
            if layer.pad_end
            else max((length - layer.win_length) // layer.hop_length + 1, 0)
        )
    shape[time], shape[frequency] = length, layer.n_fft // 2 + 1
    shape[channels] = inputs.shape[waves]
    return inputs.spectrogram(tuple(shape), time, frequency, layer)


@register_rule(f"{KAPRE}.Magnitude", f"{KAPRE}.Phase")
def of_complex(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """A number of each complex one."""
    return inputs


@register_rule(f"{KAPRE}.MagnitudeToDecibel")
def decibel(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Logarithm of every value."""
    return inputs.noted(
        "its floor lies under the clip's loudest value, which is not counted as seen"
    )


@register_rule(f"{KAPRE}.ConcatenateFrequencyMap")
def frequency_map(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """A channel more, the same for every clip."""
    channels = 1 if layer.data_format == "channels_first" else -1
    before = inputs.shape[channels]
    return inputs.as_channels(channels).resized(
        channels, None if before is None else before + 1
    )


@register_rule(f"{KAPRE}.Delta")
def delta(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Slope over a window along time; the map is mirrored at its ends."""
    time = _maps(layer)[0]
    return inputs.slide(time, layer.win_length, padding="same")


@register_rule("kapre.augmentation.SpecAugment", "kapre.augmentation.ChannelSwap")
def augmentation(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Nothing at inference."""
    return inputs


@register_rule(f"{KAPRE}.ApplyFilterbank")
def filter_bank(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Bands summed up of frequency bins: along frequency, pixels are counted from here on."""
    _, frequency, _ = _maps(layer)
    bands = layer.filterbank.shape[1]
    if inputs.source is None:
        return inputs.resized(frequency, bands)
    states = tuple(
        Along(AxisField(), frequency)
        if isinstance(state, Along) and state.dim == frequency
        else state
        for state in inputs.axes
    )
    source = inputs.source.again(layer, _kapre_scale(layer, inputs.source.begun_by))
    result = replace(inputs, source=source, axes=states).resized(frequency, bands)
    return result.noted("along frequency, its bands are counted from here on")


def _kapre_scale(layer: Any, stft: Any) -> SpectrogramScale | None:
    """The units, where the filter bank is the one that they are defined for."""
    options = {"f_min": 0.0, "f_max": None, "htk": False, **layer.filterbank_kwargs}
    if layer.type != "mel" or options["f_min"] or options["htk"]:
        return None
    rate = options["sample_rate"]
    if options["f_max"] not in (None, rate / 2) or full_name(type(stft)) != f"{KAPRE}.STFT":
        return None
    return SpectrogramScale(rate, stft.win_length, stft.hop_length, layer.filterbank.shape[1])


@register_rule(layers.MelSpectrogram)
def mel_spectrogram(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Keras' own: (batch, bands, frames)."""
    shape = tuple(layer.compute_output_shape(inputs.shape))
    return inputs.spectrogram(shape, time=-1, frequency=-2, begun_by=layer)


@register_rule(layers.STFTSpectrogram)
def stft_spectrogram(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Keras' own: (batch, frames, bins), or with `expand_dims` one dimension more."""
    shape = tuple(layer.compute_output_shape(inputs.shape))
    if layer.expand_dims:
        time, frequency = (2, 3) if layer.data_format == "channels_first" else (1, 2)
    else:
        time, frequency = (2, 1) if layer.data_format == "channels_first" else (1, 2)
    return inputs.spectrogram(shape, time, frequency, layer)
