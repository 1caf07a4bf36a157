"""Layers with windows that slide over a map: convolutions, pooling, padding, up-sampling."""

from __future__ import annotations

from typing import Any

from keras import layers

from rfkeras.receptive_field import taps
from rfkeras.receptive_field.registry import Call, register_rule
from rfkeras.receptive_field.rules.pointwise import activated
from rfkeras.receptive_field.tensor import TensorField


def spatial(layer: Any, seen: TensorField) -> tuple[TensorField, range, int]:
    """(input, its spatial dimensions, its dimension of channels) of a layer that has both."""
    if getattr(layer, "data_format", None) == "channels_first":
        dims, channels = range(2, seen.rank), 1
    else:
        dims, channels = range(1, seen.rank - 1), seen.rank - 1
    return seen.as_channels(channels), dims, channels


def slid(layer: Any, seen: TensorField, dims: range) -> TensorField:
    """After the kernel of a convolution, channels left aside."""
    sizes = zip(dims, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    for dim, kernel, stride, dilation in sizes:
        seen = seen.slide(dim, kernel, stride, dilation, layer.padding)
    return seen


@register_rule(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def convolution(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Convolution; grouped channels stay apart."""
    seen, dims, channels = spatial(layer, inputs)
    seen = slid(layer, seen, dims)
    if layer.groups > 1:
        parts, each = layer.groups, layer.filters // layer.groups
        seen = seen.read(channels, taps.grouped(parts, layer.kernel.shape[-2], each))
    else:
        seen = seen.mix(channels, layer.filters)
    return activated(layer, seen, call)


@register_rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def depthwise_convolution(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Convolution of each channel by itself."""
    seen, dims, channels = spatial(layer, inputs)
    seen = slid(layer, seen, dims)
    seen = seen.read(channels, taps.enlarged(seen.shape[channels], layer.depth_multiplier))
    return activated(layer, seen, call)


@register_rule(layers.SeparableConv1D, layers.SeparableConv2D)
def separable_convolution(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Convolution of each channel by itself, then a mixture of all."""
    seen, dims, channels = spatial(layer, inputs)
    return activated(layer, slid(layer, seen, dims).mix(channels, layer.filters), call)


@register_rule(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
def transposed_convolution(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Transposed convolution."""
    seen, dims, channels = spatial(layer, inputs)
    extra = layer.output_padding
    if extra is None or isinstance(extra, int):
        extra = (extra,) * len(dims)
    sizes = zip(dims, layer.kernel_size, layer.strides, layer.dilation_rate, extra, strict=True)
    for dim, kernel, stride, dilation, output_padding in sizes:
        reading = taps.transposed(
            seen.shape[dim], kernel, stride, dilation, layer.padding, output_padding
        )
        seen = seen.read(dim, reading)
    return activated(layer, seen.mix(channels, layer.filters), call)


@register_rule(
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
)
def pooling(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Mean or maximum of windows."""
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
    """Mean or maximum of the whole map."""
    seen, dims, _ = spatial(layer, inputs)
    return seen.pool(dims, layer.keepdims)


@register_rule(
    layers.AdaptiveAveragePooling1D,
    layers.AdaptiveAveragePooling2D,
    layers.AdaptiveAveragePooling3D,
    layers.AdaptiveMaxPooling1D,
    layers.AdaptiveMaxPooling2D,
    layers.AdaptiveMaxPooling3D,
)
def adaptive_pooling(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """As many windows as are asked for, spread over the whole map."""
    seen, dims, _ = spatial(layer, inputs)
    for dim, positions in zip(dims, _each(layer.output_size, dims), strict=True):
        length = seen.shape[dim]
        if positions == 1:
            seen = seen.pool(dim, keepdims=True)
        elif length is not None and length % positions == 0:
            seen = seen.slide(dim, length // positions, length // positions)
        else:
            why = "the size of its windows depends on the map's"
            seen = seen.everywhere(dim, why).resized(dim, positions)
    return seen


@register_rule(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
def zero_padding(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Zeros at the ends."""
    seen, dims, _ = spatial(layer, inputs)
    sides = (layer.padding,) if len(dims) == 1 else layer.padding
    for dim, (before, after) in zip(dims, sides, strict=True):
        seen = seen.pad(dim, before, after)
    return seen


@register_rule(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D)
def cropping(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Positions taken away at the ends."""
    seen, dims, _ = spatial(layer, inputs)
    sides = (layer.cropping,) if len(dims) == 1 else layer.cropping
    for dim, (before, after) in zip(dims, sides, strict=True):
        seen = seen.pad(dim, -before, -after)
    return seen


@register_rule(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D)
def up_sampling(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Whole multiples of the map's size, repeated or interpolated."""
    seen, dims, _ = spatial(layer, inputs)
    interpolation = getattr(layer, "interpolation", "nearest")
    for dim, factor in zip(dims, _each(layer.size, dims), strict=True):
        seen = seen.read(dim, taps.enlarged(seen.shape[dim], factor, interpolation))
    return seen


def _each(value: Any, dims: range) -> tuple[int, ...]:
    return (value,) * len(dims) if isinstance(value, int) else tuple(value)
