"""Layers that combine several tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers

from rfkeras.receptive_field.joining import join
from rfkeras.receptive_field.registry import Call, register_rule
from rfkeras.receptive_field.tensor import TensorField


@register_rule(
    layers.Add,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.Subtract,
)
def elementwise(layer: Any, inputs: Sequence[Any], call: Call) -> TensorField:
    """Position by position. Keras gives maps of fewer dimensions new ones behind the batch."""
    tensors = call.tensors()
    rank = max(tensor.rank for tensor in tensors)
    return join([_of_rank(tensor, rank) for tensor in tensors])


def _of_rank(tensor: TensorField, rank: int) -> TensorField:
    while tensor.rank < rank:
        tensor = tensor.inserted(1)
    return tensor


@register_rule(layers.Concatenate)
def concatenate(layer: Any, inputs: Sequence[Any], call: Call) -> TensorField:
    """One behind the other along a dimension, mostly that of channels."""
    return join(call.tensors(), concatenated=layer.axis)


@register_rule(layers.Dot)
def dot(layer: Any, inputs: Sequence[Any], call: Call) -> TensorField:
    """Products summed over a dimension of each; the others stand side by side."""
    first, second = call.tensors()
    axes = (layer.axes,) * 2 if isinstance(layer.axes, int) else layer.axes
    why = "products are summed over it"
    first, second = (
        seen.everywhere(axis, why).dropped((axis,))
        for seen, axis in zip((first, second), axes, strict=True)
    )
    for _ in range(1, second.rank):
        first = first.inserted(first.rank)
    while second.rank < first.rank:
        second = second.inserted(1)
    result = join([first, second])
    return result if result.rank > 1 else result.inserted(1)
