"""Layers that give a map another shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import prod
from typing import Any

from keras import layers

from rfkeras.receptive_field import taps
from rfkeras.receptive_field.field import Taps
from rfkeras.receptive_field.registry import Call, register_rule
from rfkeras.receptive_field.tensor import Shape, TensorField

FOLDED = "it is folded into another dimension"
PRIMES = (1_000_003, 1_000_033, 1_000_037, 1_000_039)  # stand for unknown lengths


@register_rule(layers.Permute)
def permute(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Dimensions in another order."""
    return inputs.permuted((0, *layer.dims))


@register_rule(layers.RepeatVector)
def repeat_vector(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """The same features at every step."""
    return inputs.inserted(1, layer.n)


@register_rule(layers.Reshape, layers.Flatten)
def reshape(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Any new shape of each sample."""
    if getattr(layer, "data_format", None) == "channels_first":  # a Flatten
        inputs = inputs.permuted((0, *range(2, inputs.rank), 1))
    shape = layer.compute_output_shape(inputs.shape)
    return reshaped(inputs, tuple(shape))


def reshaped(seen: TensorField, shape: Shape) -> TensorField:
    """With another shape of the same elements, as far as axes can be followed.

    Dimensions are matched in groups of equal size. A dimension that is a group by itself
    stays what it is. Of a larger group the first is followed where it gets shorter or
    longer by a whole factor; where all become one dimension they are features.
    """
    seen = seen.dropped([dim for dim in range(1, seen.rank) if seen.shape[dim] == 1])
    places = [place for place in range(1, len(shape)) if shape[place] != 1]
    old, new = _lengths(seen.shape[1:], [shape[place] for place in places])
    moved = {0: 0}
    for dims, targets in _groups(old, new):
        first, *rest = dims
        seen = seen.everywhere([1 + dim for dim in rest], FOLDED)
        if len(dims) > 1 or len(targets) > 1:
            reading = _folded(Fraction(new[targets[0]], old[first]))
            if reading is None or len(targets) == 1:
                seen = seen.everywhere(1 + first, FOLDED)
            else:
                seen = seen.read(1 + first, reading)
        moved[1 + first] = places[targets[0]]
    return seen.placed(moved, shape)


def _lengths(
    old: Sequence[int | None], new: Sequence[int | None]
) -> tuple[list[int], list[int]]:
    """Numbers in place of unknown lengths, which factorise as these must."""
    known_old, known_new = (prod(n for n in lengths if n) for lengths in (old, new))
    primes = iter(PRIMES)
    if None in new:
        before = [next(primes) * known_new if n is None else n for n in old]
    else:
        before = [max(known_new // known_old, 1) if n is None else n for n in old]
    missing = Fraction(prod(before), known_new)
    after = [missing.numerator if n is None else n for n in new]
    return before, after


def _groups(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Numbers of the dimensions, old and new, that have the same elements."""
    if prod(old) != prod(new):  # unknown lengths hide what becomes what
        yield list(range(len(old))), list(range(len(new)))
        return
    i = j = 0
    while i < len(old) and j < len(new):
        dims, targets = [i], [j]
        while (a := prod(old[d] for d in dims)) != (b := prod(new[t] for t in targets)):
            if a < b:
                i += 1
                dims.append(i)
            else:
                j += 1
                targets.append(j)
        yield dims, targets
        i, j = i + 1, j + 1


def _folded(ratio: Fraction) -> taps.Reading | None:
    """Positions read where a dimension's length is multiplied by that; None: not followed."""
    if ratio.numerator == 1:
        each = ratio.denominator
        return taps.Reading(Taps(((0, each, 1),), each), None)
    return taps.enlarged(None, int(ratio)) if ratio.denominator == 1 else None
