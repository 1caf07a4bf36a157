"""Operations of `keras.ops` that select positions, add some, or repeat them."""

from __future__ import annotations

import itertools
from typing import Any

from rfkeras.errors import ConfigError
from rfkeras.receptive_field import taps
from rfkeras.receptive_field.registry import Call, register_rule
from rfkeras.receptive_field.rules.operations import numpy_ops
from rfkeras.receptive_field.tensor import TensorField


@register_rule(*numpy_ops("Split"))
def split(op: Any, inputs: TensorField, call: Call) -> list[TensorField]:
    """Parts of a dimension."""
    dim, parts = inputs.dim(op.axis), op.indices_or_sections
    length = inputs.shape[dim]
    if isinstance(parts, int):
        if length is None:
            why = "where its parts begin is not known"
            return [inputs.everywhere(dim, why).resized(dim, None)] * parts
        parts = range(length // parts, length, length // parts)
    bounds = [0, *parts, length]
    return [_sliced(inputs, dim, slice(*pair)) for pair in itertools.pairwise(bounds)]


@register_rule(*numpy_ops("Pad"))
def pad(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Values added at the ends; mirrored ones are taken for constant ones, as at a border."""
    widths = op.pad_width * inputs.rank if len(op.pad_width) == 1 else op.pad_width
    for dim, (before, after) in enumerate(widths):
        inputs = inputs.pad(dim, before, after) if before or after else inputs
    return inputs


@register_rule(*numpy_ops("Repeat"))
def repeat(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Every position several times."""
    if op.axis is None or not isinstance(op.repeats, int):
        raise ConfigError(
            f"{call.name!r}: keras.ops.repeat is followed along one axis, with one number "
            f"of repeats. Received: repeats={op.repeats!r}, axis={op.axis!r}."
        )
    return inputs.read(op.axis, taps.enlarged(inputs.shape[inputs.dim(op.axis)], op.repeats))


@register_rule(*numpy_ops("GetItem"))
def get_item(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """x[...]: positions, slices, new dimensions."""
    key = call.args[1] if len(call.args) > 1 else call.kwargs["key"]
    keys = list(key) if isinstance(key, tuple | list) else [key]
    used = sum(part is not None and part is not Ellipsis for part in keys)
    whole = [slice(None)] * (inputs.rank - used)
    place = keys.index(Ellipsis) if Ellipsis in keys else len(keys)
    dim = 0
    for part in [*keys[:place], *whole, *keys[place + 1 :]]:
        if part is None:
            inputs = inputs.inserted(dim)
        elif isinstance(part, slice):
            inputs = _sliced(inputs, dim, part)
        elif isinstance(part, int):
            inputs = _picked(inputs, dim, part)
            continue
        else:
            raise ConfigError(
                f"{call.name!r}: only whole numbers, slices, None and ... are followed "
                f"between the brackets of x[...]. Received: {part!r}."
            )
        dim += 1
    return inputs


def _sliced(seen: TensorField, dim: int, part: slice) -> TensorField:
    if part == slice(None):
        return seen
    reading = taps.sliced(seen.shape[dim], part)
    if reading is None:
        why = "a slice of it is counted from its end, whose place is not known, or backwards"
        return seen.everywhere(dim, why).resized(dim, None)
    return seen.read(dim, reading)


def _picked(seen: TensorField, dim: int, position: int) -> TensorField:
    length = seen.shape[dim]
    if position < 0 and length is None:
        why = "one position is counted from its end, whose place is not known"
        return seen.everywhere(dim, why).dropped((dim,))
    return seen.position(dim, position % length if length else position)
