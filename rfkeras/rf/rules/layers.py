"""Rules of layers with one main input: activations, convolutions, recurrence, spectrograms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import keras
from keras import layers

from rfkeras.frontend.presets import SpectrogramScale
from rfkeras.rf import tensor
from rfkeras.rf.axis import AxisField
from rfkeras.rf.rule_registry import Call, full_name, register_rule
from rfkeras.rf.tensor import Along, TensorField, Unlimited, join

# Activation functions that read all positions of the last dimension.
ACROSS_LAST = ("softmax", "log_softmax", "sparsemax", "glu")


def _classes(*names: str) -> list[type]:
    """Return those of the layer classes that the installed version of Keras has."""
    return [getattr(layers, name) for name in names if hasattr(layers, name)]


@register_rule(
    layers.ActivityRegularization,
    layers.AlphaDropout,
    layers.Dropout,
    layers.ELU,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.LeakyReLU,
    layers.Normalization,
    layers.PReLU,
    layers.ReLU,
    layers.Rescaling,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)
def pointwise(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Keep the field: the layer works position by position, or does nothing at inference."""
    return inputs


def activated(layer: Any, seen: TensorField, call: Call) -> TensorField:
    """Apply the layer's activation function."""
    function = layer.activation
    name = getattr(function, "__name__", type(function).__name__)
    if function is None or function is keras.activations.linear:
        return seen
    if isinstance(function, keras.Layer):
        return _through(function, seen, call)
    if getattr(keras.activations, name, None) is not function:
        return seen.noted(f"its activation {name!r} is taken to work position by position")
    if name in ACROSS_LAST:
        seen = seen.unlimited(-1, f"{name} compares all its positions")
    length = seen.shape[-1]
    return seen.resized(-1, length // 2) if name == "glu" and length else seen


def _through(function: keras.Layer, seen: TensorField, call: Call) -> TensorField:
    """Apply an activation that is a layer; states before it belong to the outer layer."""
    states = tuple(
        replace(state, by=state.by or call.name) if isinstance(state, Unlimited) else state
        for state in seen.axes
    )
    result: TensorField = call.apply(function, replace(seen, axes=states, notes=()))
    return replace(result, notes=seen.notes)


@register_rule(layers.Activation)
def activation(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Apply any activation function."""
    return activated(layer, inputs, call)


@register_rule(layers.Softmax)
def softmax(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Apply a softmax, which compares all positions of some dimensions."""
    return inputs.unlimited(layer.axis, "softmax compares all its positions")


@register_rule(layers.Dense)
def dense(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Contract the last dimension."""
    return activated(layer, inputs.as_channels(-1).contract(-1, layer.units), call)


@register_rule(layers.Masking)
def masking(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Mask steps: whether a step is masked depends on all of its features."""
    return inputs.unlimited(-1, "masking of a step depends on all its positions")


@register_rule(
    layers.BatchNormalization,
    "rfkeras.layers.conv.BatchNormalization",  # it overrides `call`
)
def batch_normalization(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Keep the field at inference; with training=True, batch statistics make it unlimited."""
    if call.kwargs.get("training") is not True:
        return inputs
    others = set(range(1, inputs.rank)) - {inputs.dim(layer.axis)}
    return inputs.unlimited(others, "it is normalised by the batch, as in training")


@register_rule(*_classes("LayerNormalization", "RMSNormalization", "UnitNormalization"))
def layer_normalization(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Normalise by statistics over some dimensions of each sample."""
    return inputs.unlimited(layer.axis, "it is normalised over all its positions")


@register_rule(layers.GroupNormalization)
def group_normalization(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Normalise by statistics over all dimensions of each sample."""
    return inputs.unlimited(range(1, inputs.rank), "it is normalised over all its positions")


@register_rule(layers.SpectralNormalization)
def spectral_normalization(layer: Any, inputs: TensorField, call: Call) -> Any:
    """Apply the wrapped layer; its weights are scaled."""
    return call.apply(layer.layer, inputs)


def spatial(layer: Any, seen: TensorField) -> tuple[TensorField, range, int]:
    """Return (input, spatial dimensions, dimension of channels) of a layer."""
    if getattr(layer, "data_format", None) == "channels_first":
        dims, channels = range(2, seen.rank), 1
    else:
        dims, channels = range(1, seen.rank - 1), seen.rank - 1
    return seen.as_channels(channels), dims, channels


def slid(layer: Any, seen: TensorField, dims: range) -> TensorField:
    """Slide the kernel of a convolution, without regard to channels."""
    sizes = zip(dims, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    for dim, kernel, stride, dilation in sizes:
        seen = seen.slide(dim, kernel, stride, dilation, layer.padding)
    return seen


@register_rule(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def convolution(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Apply a convolution; groups of channels stay separate."""
    seen, dims, channels = spatial(layer, inputs)
    seen = slid(layer, seen, dims)
    if layer.groups > 1:
        parts, each = layer.groups, layer.filters // layer.groups
        seen = seen.read(channels, tensor.grouped(parts, layer.kernel.shape[-2], each))
    else:
        seen = seen.contract(channels, layer.filters)
    return activated(layer, seen, call)


@register_rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def depthwise_convolution(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Apply a convolution to each channel separately."""
    seen, dims, channels = spatial(layer, inputs)
    seen = slid(layer, seen, dims)
    seen = seen.read(channels, tensor.enlarged(seen.shape[channels], layer.depth_multiplier))
    return activated(layer, seen, call)


@register_rule(layers.SeparableConv1D, layers.SeparableConv2D)
def separable_convolution(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Apply a convolution to each channel separately, then contract the channels."""
    seen, dims, channels = spatial(layer, inputs)
    return activated(layer, slid(layer, seen, dims).contract(channels, layer.filters), call)


@register_rule(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
def transposed_convolution(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Apply a transposed convolution."""
    seen, dims, channels = spatial(layer, inputs)
    extra = layer.output_padding
    if extra is None or isinstance(extra, int):
        extra = (extra,) * len(dims)
    sizes = zip(dims, layer.kernel_size, layer.strides, layer.dilation_rate, extra, strict=True)
    for dim, kernel, stride, dilation, output_padding in sizes:
        reading = tensor.transposed(
            seen.shape[dim], kernel, stride, dilation, layer.padding, output_padding
        )
        seen = seen.read(dim, reading)
    return activated(layer, seen.contract(channels, layer.filters), call)


@register_rule(
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
)
def pooling(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Take the mean or maximum of windows."""
    seen, dims, _ = spatial(layer, inputs)
    sizes, strides = (_each(value, dims) for value in (layer.pool_size, layer.strides))
    for dim, size, stride in zip(dims, sizes, strides, strict=True):
        seen = seen.slide(dim, size, stride, padding=layer.padding)
    return seen


@register_rule(
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
)
def global_pooling(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Take the mean or maximum of the whole map."""
    seen, dims, _ = spatial(layer, inputs)
    return seen.pool(dims, layer.keepdims)


@register_rule(
    *_classes(
        "AdaptiveAveragePooling1D",
        "AdaptiveAveragePooling2D",
        "AdaptiveAveragePooling3D",
        "AdaptiveMaxPooling1D",
        "AdaptiveMaxPooling2D",
        "AdaptiveMaxPooling3D",
    )
)
def adaptive_pooling(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Spread a given number of windows over the whole map."""
    seen, dims, _ = spatial(layer, inputs)
    for dim, positions in zip(dims, _each(layer.output_size, dims), strict=True):
        length = seen.shape[dim]
        if positions == 1:
            seen = seen.pool(dim, keepdims=True)
        elif length is not None and length % positions == 0:
            seen = seen.slide(dim, length // positions, length // positions)
        else:
            why = "the size of its windows depends on the map's"
            seen = seen.unlimited(dim, why).resized(dim, positions)
    return seen


@register_rule(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
def zero_padding(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Add zeros at the ends."""
    seen, dims, _ = spatial(layer, inputs)
    sides = (layer.padding,) if len(dims) == 1 else layer.padding
    for dim, (before, after) in zip(dims, sides, strict=True):
        seen = seen.pad(dim, before, after)
    return seen


@register_rule(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D)
def cropping(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Remove positions at the ends."""
    seen, dims, _ = spatial(layer, inputs)
    sides = (layer.cropping,) if len(dims) == 1 else layer.cropping
    for dim, (before, after) in zip(dims, sides, strict=True):
        seen = seen.pad(dim, -before, -after)
    return seen


@register_rule(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D)
def up_sampling(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Enlarge the map by integer factors, by repetition or interpolation."""
    seen, dims, _ = spatial(layer, inputs)
    interpolation = getattr(layer, "interpolation", "nearest")
    for dim, factor in zip(dims, _each(layer.size, dims), strict=True):
        seen = seen.read(dim, tensor.enlarged(seen.shape[dim], factor, interpolation))
    return seen


def _each(value: Any, dims: range) -> tuple[int, ...]:
    return (value,) * len(dims) if isinstance(value, int) else tuple(value)


REMEMBERS = "its state depends on all earlier steps"
ATTENDS = "every position attends to all"


@register_rule(layers.SimpleRNN, layers.GRU, layers.LSTM, layers.RNN)
def recurrence(layer: Any, inputs: Any, call: Call) -> Any:
    """Apply a recurrence over time: each state depends on all steps before it."""
    steps, *others = call.tensors()
    sequence = steps.as_channels(-1).unlimited(1, REMEMBERS).contract(-1, None)
    sequence = given(sequence, others, REMEMBERS)
    last = sequence.dropped((1,))
    output = sequence if layer.return_sequences else last
    states = keras.tree.flatten(layer.cell.state_size)
    return [output, *(last for _ in states)] if layer.return_state else output


@register_rule(layers.Bidirectional)
def bidirectional(layer: Any, inputs: Any, call: Call) -> Any:
    """Apply two recurrences, one backwards; both may see all states."""
    (one, *states), (other, *more) = (
        keras.tree.flatten(call.apply(direction, *call.args, **call.kwargs))
        for direction in (layer.forward_layer, layer.backward_layer)
    )
    if layer.merge_mode is None:
        return [one, other, *states, *more]
    output = join([one, other], concatenated=-1 if layer.merge_mode == "concat" else None)
    return [output, *states, *more] if layer.return_state else output


@register_rule(layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
def convolutional_recurrence(layer: Any, inputs: Any, call: Call) -> Any:
    """Apply a recurrence whose states are maps; each step widens what they see."""
    cell = layer.cell
    steps, *others = call.tensors()
    seen, dims, channels = spatial(cell, steps.unlimited(1, REMEMBERS).dropped((1,)))
    sizes = zip(dims, cell.kernel_size, cell.strides, cell.dilation_rate, strict=True)
    for dim, kernel, stride, dilation in sizes:
        seen = seen.slide(dim, kernel, stride, dilation, cell.padding)
        if kernel > 1:
            seen = seen.unlimited(dim, "each step of the recurrence widens what is seen")
    last = given(seen.contract(channels, cell.filters), others, REMEMBERS)
    output = last.inserted(1, steps.shape[1]) if layer.return_sequences else last
    return [output, last, last] if layer.return_state else output


@register_rule(layers.TimeDistributed)
def time_distributed(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Apply the wrapped layer to every step separately."""
    steps = inputs.shape[1]
    # For the wrapped layer, steps are samples of the batch.
    into = {dim: max(dim - 1, 0) for dim in range(inputs.rank)}
    samples = inputs.placed(into, (None, *inputs.shape[2:]))
    seen: TensorField = call.apply(layer.layer, samples)
    back = {dim: dim + 1 for dim in range(seen.rank)}
    return seen.placed(back, (inputs.shape[0], steps, *seen.shape[1:]))


@register_rule(layers.Attention, layers.AdditiveAttention)
def attention(layer: Any, inputs: Any, call: Call) -> Any:
    """Attend: every position of the query reads all positions of value and key."""
    query, value, *keys = call.tensors()[: len(inputs)]
    output = attended(query, [value, *keys], value.shape[-1], range(1, query.rank - 1))
    weights = output.resized(-1, value.shape[1])
    return [output, weights] if len(call.shapes) > 1 else output


@register_rule(layers.MultiHeadAttention, layers.GroupQueryAttention)
def multi_head_attention(layer: Any, inputs: TensorField, call: Call) -> Any:
    """Attend: every position of the query reads all positions along the chosen axes."""
    masks = {id(x) for name, x in call.kwargs.items() if name.endswith("_mask")}
    masks |= {id(x) for x in call.args[3:]}
    query, *others = [seen for seen in call.tensors() if id(seen) not in masks]
    others = [seen for seen in others if seen.source is not None]
    axes = getattr(layer, "attention_axes", None) or range(1, query.rank - 1)
    output = attended(query, others, None, axes)
    output = given(output, [seen for seen in call.tensors() if id(seen) in masks], ATTENDS)
    if len(call.shapes) < 2:
        return output
    # The weights have a dimension of heads; their other dimensions are not traced.
    weights = output.unlimited(
        range(1, output.rank), "attention weights have a different layout"
    )
    return [output, TensorField(call.shapes[1], weights.source, weights.axes)]


def attended(
    query: TensorField,
    others: Sequence[TensorField],
    features: int | None,
    axes: Iterable[int],
) -> TensorField:
    """Let each position of the query see all positions of other tensors along some axes."""
    read = [*(query.dim(axis) for axis in axes), query.rank - 1]
    joined = query.as_channels(-1).unlimited(read, ATTENDS)
    for seen in others:
        seen = seen.unlimited(read, ATTENDS)
        for dim in read:
            seen = seen.resized(dim, 1)
        joined = join([joined, seen])
    return joined.resized(-1, features)


def given(seen: TensorField, others: Sequence[TensorField], why: str) -> TensorField:
    """Let each position also see all positions of other tensors."""
    ones = (1,) * (seen.rank - 1)
    whole = [
        other.unlimited(range(1, other.rank), why).placed({0: 0}, (other.shape[0], *ones))
        for other in others
    ]
    return join([seen, *whole])


KAPRE = "kapre.time_frequency"


def _maps(layer: Any) -> tuple[int, int, int]:
    """Return the dimensions of time, frequency and channels in a kapre layer's output."""
    layout = getattr(layer, "output_data_format", None) or layer.data_format
    return (2, 3, 1) if layout == "channels_first" else (1, 2, 3)


@register_rule(f"{KAPRE}.STFT")
def stft(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Compute frames and frequency bins of a waveform: pixels are counted from here."""
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
    return inputs.spectrogram(tuple(shape), time, frequency, layer, samples=samples)


@register_rule(f"{KAPRE}.Magnitude", f"{KAPRE}.Phase")
def of_complex(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Compute one real number from each complex one."""
    return inputs


@register_rule(f"{KAPRE}.MagnitudeToDecibel")
def decibel(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Take the logarithm of every value, with a floor relative to the clip."""
    return inputs.noted(
        "its floor depends on the clip's loudest value, which is not counted as seen"
    )


@register_rule(f"{KAPRE}.ConcatenateFrequencyMap")
def frequency_map(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Append a channel that is the same for every clip."""
    channels = 1 if layer.data_format == "channels_first" else -1
    before = inputs.shape[channels]
    return inputs.as_channels(channels).resized(
        channels, None if before is None else before + 1
    )


@register_rule(f"{KAPRE}.Delta")
def delta(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Compute the slope over a window along time; the map is mirrored at its ends."""
    time = _maps(layer)[0]
    return inputs.slide(time, layer.win_length, padding="same")


@register_rule("kapre.augmentation.SpecAugment", "kapre.augmentation.ChannelSwap")
def augmentation(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Keep the field: nothing happens at inference."""
    return inputs


@register_rule(f"{KAPRE}.ApplyFilterbank")
def filter_bank(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Sum frequency bins to bands; along frequency, pixels are counted from here."""
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
    """Return the units, if the filter bank is the one they are defined for."""
    options = {"f_min": 0.0, "f_max": None, "htk": False, **layer.filterbank_kwargs}
    if layer.type != "mel" or options["f_min"] or options["htk"]:
        return None
    rate = options["sample_rate"]
    if options["f_max"] not in (None, rate / 2) or full_name(type(stft)) != f"{KAPRE}.STFT":
        return None
    return SpectrogramScale(rate, stft.win_length, stft.hop_length, layer.filterbank.shape[1])


@register_rule(layers.MelSpectrogram)
def mel_spectrogram(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Compute Keras' mel spectrogram, (batch, bands, frames)."""
    shape = tuple(layer.compute_output_shape(inputs.shape))
    return inputs.spectrogram(shape, time=-1, frequency=-2, begun_by=layer, samples=-1)


@register_rule(layers.STFTSpectrogram)
def stft_spectrogram(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Compute Keras' spectrogram, (batch, frames, bins); one more axis with expand_dims."""
    shape = tuple(layer.compute_output_shape(inputs.shape))
    if layer.expand_dims:
        time, frequency = (2, 3) if layer.data_format == "channels_first" else (1, 2)
    else:
        time, frequency = (2, 1) if layer.data_format == "channels_first" else (1, 2)
    return inputs.spectrogram(shape, time, frequency, layer, samples=-1)
