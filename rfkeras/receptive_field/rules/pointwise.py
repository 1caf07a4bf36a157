"""Layers that work position by position, and normalisations, some of which do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
from keras import layers

from rfkeras.receptive_field.registry import Call, register_rule
from rfkeras.receptive_field.states import Unlimited
from rfkeras.receptive_field.tensor import TensorField

# Activation functions that read all positions of the last dimension.
ACROSS_LAST = ("softmax", "log_softmax", "sparsemax", "glu")


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
    """The same function at every position; random layers do nothing at inference."""
    return inputs


def activated(layer: Any, seen: TensorField, call: Call) -> TensorField:
    """After the layer's own activation function."""
    function = layer.activation
    name = getattr(function, "__name__", type(function).__name__)
    if function is None or function is keras.activations.linear:
        return seen
    if isinstance(function, keras.Layer):
        return _through(function, seen, call)
    if getattr(keras.activations, name, None) is not function:
        return seen.noted(f"its activation {name!r} is taken to work position by position")
    if name in ACROSS_LAST:
        seen = seen.everywhere(-1, f"{name} compares all its positions")
    length = seen.shape[-1]
    return seen.resized(-1, length // 2) if name == "glu" and length else seen


def _through(function: keras.Layer, seen: TensorField, call: Call) -> TensorField:
    """After an activation that is a layer; what was done before it is the outer layer's."""
    states = tuple(
        replace(state, by=state.by or call.name) if isinstance(state, Unlimited) else state
        for state in seen.axes
    )
    result: TensorField = call.apply(function, replace(seen, axes=states, notes=()))
    return replace(result, notes=seen.notes)


@register_rule(layers.Activation)
def activation(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Any activation function."""
    return activated(layer, inputs, call)


@register_rule(layers.Softmax)
def softmax(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Softmax over some dimensions, all positions of which are compared."""
    return inputs.everywhere(layer.axis, "softmax compares all its positions")


@register_rule(layers.Dense)
def dense(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """A mixture of the last dimension."""
    return activated(layer, inputs.as_channels(-1).mix(-1, layer.units), call)


@register_rule(layers.Masking)
def masking(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Steps all of whose features have one value become zero."""
    return inputs.everywhere(-1, "all its positions together tell whether a step is masked")


@register_rule(
    layers.BatchNormalization,
    "rfkeras.layers.normalization.BatchNormalization",  # has a `call` of its own
)
def batch_normalization(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Known statistics at inference; called with training=True those of the batch."""
    if call.kwargs.get("training") is not True:
        return inputs
    others = set(range(1, inputs.rank)) - {inputs.dim(layer.axis)}
    return inputs.everywhere(others, "it is normalised by the batch, as in training")


@register_rule(layers.LayerNormalization, layers.RMSNormalization, layers.UnitNormalization)
def layer_normalization(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Statistics over some dimensions of each sample."""
    return inputs.everywhere(layer.axis, "it is normalised by all its positions")


@register_rule(layers.GroupNormalization)
def group_normalization(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Statistics over all dimensions of each sample."""
    return inputs.everywhere(range(1, inputs.rank), "it is normalised by all its positions")


@register_rule(layers.SpectralNormalization)
def spectral_normalization(layer: Any, inputs: TensorField, call: Call) -> Any:
    """The layer inside, with scaled weights."""
    return call.apply(layer.layer, inputs)
