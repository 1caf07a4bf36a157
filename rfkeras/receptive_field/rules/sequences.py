"""Layers over sequences: recurrences, attention, and one layer applied to every step."""

from __future__ import annotations

from typing import Any

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
    seen = call.tensors()[0].as_channels(-1)
    sequence = seen.everywhere(1, REMEMBERS).mix(-1, None)
    last = sequence.dropped((1,))
    output = sequence if layer.return_sequences else last
    states = len(call.shapes) - 1 if call.shapes else 0
    return [output, *(last for _ in range(states))] if layer.return_state else output


@register_rule(layers.Bidirectional)
def bidirectional(layer: Any, inputs: Any, call: Call) -> Any:
    """Two recurrences, one of them backwards."""
    seen = call.tensors()[0].as_channels(-1)
    sequence = seen.everywhere(1, REMEMBERS).mix(-1, None)
    last = sequence.dropped((1,))
    output = sequence if layer.return_sequences else last
    first = 2 if layer.merge_mode is None else 1
    outputs = [output] * first + [last] * (len(call.shapes) - first if call.shapes else 0)
    return outputs if len(outputs) > 1 else output


@register_rule(layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
def convolutional_recurrence(layer: Any, inputs: Any, call: Call) -> Any:
    """A recurrence whose states are maps; each step widens what they see."""
    cell = layer.cell
    steps = call.tensors()[0]
    seen, dims, channels = spatial(cell, steps.everywhere(1, REMEMBERS).dropped((1,)))
    sizes = zip(dims, cell.kernel_size, cell.strides, cell.dilation_rate, strict=True)
    for dim, kernel, stride, dilation in sizes:
        seen = seen.slide(dim, kernel, stride, dilation, cell.padding)
        if kernel > 1:
            seen = seen.everywhere(dim, "each step of the recurrence widens what is seen")
    last = seen.mix(channels, cell.filters)
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
    output = attended(query, [value, *keys], value.shape[-1])
    weights = output.resized(-1, value.shape[1])
    return [output, weights] if len(call.shapes) > 1 else output


@register_rule(layers.MultiHeadAttention, layers.GroupQueryAttention)
def multi_head_attention(layer: Any, inputs: TensorField, call: Call) -> Any:
    """Query, value and key by themselves: every position reads all."""
    query, *others = [seen for seen in call.tensors() if seen.rank == inputs.rank]
    output = attended(query, others, None)
    if len(call.shapes) < 2:
        return output
    return [output, TensorField(call.shapes[1], output.source, output.axes)]


def attended(
    query: TensorField, others: list[TensorField], features: int | None
) -> TensorField:
    """Of each position of the query, given all positions of the other tensors."""
    everything = [
        seen.everywhere(range(1, seen.rank), ATTENDS).placed({}, (1,) * seen.rank)
        for seen in [query.as_channels(-1), *others]
    ]
    joined = join(everything)
    return TensorField((*query.shape[:-1], features), joined.source, joined.axes)
