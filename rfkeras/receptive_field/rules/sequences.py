"""Layers over sequences: recurrences, attention, and one layer applied to every step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import layers

from rfkeras.receptive_field.joining import join
from rfkeras.receptive_field.registry import Call, register_rule
from rfkeras.receptive_field.rules.windows import spatial
from rfkeras.receptive_field.tensor import TensorField

REMEMBERS = "its state remembers what was before"
ATTENDS = "every position attends to all"


@register_rule(layers.SimpleRNN, layers.GRU, layers.LSTM, layers.RNN)
def recurrence(layer: Any, inputs: Any, call: Call) -> Any:
    """States over time: a state is given what all steps before it left."""
    steps, *others = call.tensors()
    sequence = steps.as_channels(-1).everywhere(1, REMEMBERS).mix(-1, None)
    sequence = given(sequence, others, REMEMBERS)
    last = sequence.dropped((1,))
    output = sequence if layer.return_sequences else last
    states = keras.tree.flatten(layer.cell.state_size)
    return [output, *(last for _ in states)] if layer.return_state else output


@register_rule(layers.Bidirectional)
def bidirectional(layer: Any, inputs: Any, call: Call) -> Any:
    """Two recurrences, one of them backwards; both are taken to be given all states."""
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
    """A recurrence whose states are maps; each step widens what they see."""
    cell = layer.cell
    steps, *others = call.tensors()
    seen, dims, channels = spatial(cell, steps.everywhere(1, REMEMBERS).dropped((1,)))
    sizes = zip(dims, cell.kernel_size, cell.strides, cell.dilation_rate, strict=True)
    for dim, kernel, stride, dilation in sizes:
        seen = seen.slide(dim, kernel, stride, dilation, cell.padding)
        if kernel > 1:
            seen = seen.everywhere(dim, "each step of the recurrence widens what is seen")
    last = given(seen.mix(channels, cell.filters), others, REMEMBERS)
    output = last.inserted(1, steps.shape[1]) if layer.return_sequences else last
    return [output, last, last] if layer.return_state else output


@register_rule(layers.TimeDistributed)
def time_distributed(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """The layer inside, applied to every step by itself."""
    steps = inputs.shape[1]
    # Steps count as samples meanwhile: they lie along the batch.
    into = {dim: max(dim - 1, 0) for dim in range(inputs.rank)}
    samples = inputs.placed(into, (None, *inputs.shape[2:]))
    seen: TensorField = call.apply(layer.layer, samples)
    back = {dim: dim + 1 for dim in range(seen.rank)}
    return seen.placed(back, (inputs.shape[0], steps, *seen.shape[1:]))


@register_rule(layers.Attention, layers.AdditiveAttention)
def attention(layer: Any, inputs: Any, call: Call) -> Any:
    """[query, value(, key)]: every position of the query reads all of the others."""
    query, value, *keys = call.tensors()[: len(inputs)]
    output = attended(query, [value, *keys], value.shape[-1], range(1, query.rank - 1))
    weights = output.resized(-1, value.shape[1])
    return [output, weights] if len(call.shapes) > 1 else output


@register_rule(layers.MultiHeadAttention, layers.GroupQueryAttention)
def multi_head_attention(layer: Any, inputs: TensorField, call: Call) -> Any:
    """Query, value and key by themselves: every position reads all along the chosen axes."""
    masks = {id(x) for name, x in call.kwargs.items() if name.endswith("_mask")}
    masks |= {id(x) for x in call.args[3:]}
    query, *others = [seen for seen in call.tensors() if id(seen) not in masks]
    others = [seen for seen in others if seen.source is not None]
    axes = getattr(layer, "attention_axes", None) or range(1, query.rank - 1)
    output = attended(query, others, None, axes)
    output = given(output, [seen for seen in call.tensors() if id(seen) in masks], ATTENDS)
    if len(call.shapes) < 2:
        return output
    # Heads stand among the dimensions of the weights: what lies where is not followed.
    weights = output.everywhere(range(1, output.rank), "weights of attention are laid out anew")
    return [output, TensorField(call.shapes[1], weights.source, weights.axes)]


def attended(
    query: TensorField,
    others: Sequence[TensorField],
    features: int | None,
    axes: Iterable[int],
) -> TensorField:
    """Of each position of the query, given all of the other tensors' along some axes."""
    read = [*(query.dim(axis) for axis in axes), query.rank - 1]
    joined = query.as_channels(-1).everywhere(read, ATTENDS)
    for seen in others:
        seen = seen.everywhere(read, ATTENDS)
        for dim in read:
            seen = seen.resized(dim, 1)
        joined = join([joined, seen])
    return joined.resized(-1, features)


def given(seen: TensorField, others: Sequence[TensorField], why: str) -> TensorField:
    """The same, where each position also reads all positions of other tensors."""
    ones = (1,) * (seen.rank - 1)
    whole = [
        other.everywhere(range(1, other.rank), why).placed({0: 0}, (other.shape[0], *ones))
        for other in others
    ]
    return join([seen, *whole])
