"""Rules of layers that combine or reshape tensors, and of the operations of `keras.ops`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import prod
from typing import Any

import keras
from keras import layers

from rfkeras.errors import ConfigError
from rfkeras.rf import tensor
from rfkeras.rf.axis import Taps
from rfkeras.rf.rule_registry import Call, register_rule
from rfkeras.rf.tensor import Shape, TensorField, join


@register_rule(
    layers.Add,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.Subtract,
)
def elementwise(layer: Any, inputs: Sequence[Any], call: Call) -> TensorField:
    """Combine position by position; Keras inserts missing dimensions after the batch."""
    tensors = call.tensors()
    rank = max(tensor.rank for tensor in tensors)
    return join([_of_rank(tensor, rank) for tensor in tensors])


def _of_rank(tensor: TensorField, rank: int) -> TensorField:
    while tensor.rank < rank:
        tensor = tensor.inserted(1)
    return tensor


@register_rule(layers.Concatenate)
def concatenate(layer: Any, inputs: Sequence[Any], call: Call) -> TensorField:
    """Concatenate along a dimension, usually that of channels."""
    return join(call.tensors(), concatenated=layer.axis)


@register_rule(layers.Dot)
def dot(layer: Any, inputs: Sequence[Any], call: Call) -> TensorField:
    """Sum products over one dimension of each; the result has all the others."""
    first, second = call.tensors()
    axes = (layer.axes,) * 2 if isinstance(layer.axes, int) else layer.axes
    why = "products are summed over it"
    first, second = (
        seen.unlimited(axis, why).dropped((axis,))
        for seen, axis in zip((first, second), axes, strict=True)
    )
    for _ in range(1, second.rank):
        first = first.inserted(first.rank)
    while second.rank < first.rank:
        second = second.inserted(1)
    result = join([first, second])
    return result if result.rank > 1 else result.inserted(1)


FOLDED = "it is folded into another dimension"
PRIMES = (1_000_003, 1_000_033, 1_000_037, 1_000_039)  # stand for unknown lengths


@register_rule(layers.Permute)
def permute(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Reorder dimensions."""
    return inputs.permuted((0, *layer.dims))


@register_rule(layers.RepeatVector)
def repeat_vector(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Repeat the same features at every step."""
    return inputs.inserted(1, layer.n)


@register_rule(layers.Reshape, layers.Flatten)
def reshape_layer(layer: Any, inputs: TensorField, call: Call) -> TensorField:
    """Change the shape of each sample."""
    if getattr(layer, "data_format", None) == "channels_first":  # a Flatten
        inputs = inputs.permuted((0, *range(2, inputs.rank), 1))
    shape = layer.compute_output_shape(inputs.shape)
    return reshaped(inputs, tuple(shape))


def reshaped(seen: TensorField, shape: Shape) -> TensorField:
    """Change the shape, keeping track of axes as far as possible.

    Dimensions are matched in groups of equal size. A dimension that is a group on its own
    keeps its axis. In a larger group, the first dimension keeps its axis if it becomes
    shorter or longer by an integer factor. If the whole group becomes one dimension, that
    dimension holds features.
    """
    seen = seen.dropped([dim for dim in range(1, seen.rank) if seen.shape[dim] == 1])
    places = [place for place in range(1, len(shape)) if shape[place] != 1]
    old, new = _lengths(seen.shape[1:], [shape[place] for place in places])
    moved = {0: 0}
    for dims, targets in _groups(old, new):
        first, *rest = dims
        seen = seen.unlimited([1 + dim for dim in rest], FOLDED)
        if len(dims) > 1 or len(targets) > 1:
            reading = _folded(Fraction(new[targets[0]], old[first]))
            if reading is None or len(targets) == 1:
                seen = seen.unlimited(1 + first, FOLDED)
            else:
                seen = seen.read(1 + first, reading)
        moved[1 + first] = places[targets[0]]
    return seen.placed(moved, shape)


def _lengths(
    old: Sequence[int | None], new: Sequence[int | None]
) -> tuple[list[int], list[int]]:
    """Replace unknown lengths by numbers that factorise in the same way."""
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
    """Yield groups of old and new dimensions with the same elements."""
    if prod(old) != prod(new):  # unknown lengths: cannot be matched
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


def _folded(ratio: Fraction) -> tensor.Reading | None:
    """Return the reading if a length is multiplied by this ratio; None if not traceable."""
    if ratio.numerator == 1:
        each = ratio.denominator
        return tensor.Reading(Taps(((0, each, 1),), each), None)
    return tensor.enlarged(None, int(ratio)) if ratio.denominator == 1 else None


POINTWISE = {
    "numpy": """
        Absolute Abs Add Angle Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh BitwiseAnd
        BitwiseInvert BitwiseNot BitwiseOr BitwiseXor Cbrt Ceil Clip Conj Conjugate
        Copy Cos Cosh Deg2rad Divide DivideNoNan Equal Exp Exp2 Expm1 Floor FloorDivide
        Greater GreaterEqual Heaviside Hypot Imag Isclose Isfinite Isinf Isnan Less
        LessEqual Log Log10 Log1p Log2 Logaddexp Logaddexp2 LogicalAnd LogicalNot LogicalOr
        LogicalXor Maximum Minimum Mod Multiply NanToNum Negative NotEqual Power Real
        Reciprocal Round Sign Signbit Sin Sinh Sqrt Square Subtract Tan Tanh TrueDivide Trunc
        Where
    """,
    "nn": """
        BatchNorm Celu Elu Gelu HardShrink HardSigmoid HardSilu HardTanh LeakyRelu LogSigmoid
        Relu Relu6 Selu Sigmoid Silu SoftShrink Softplus Softsign SparsePlus SparseSigmoid
        Squareplus TanhShrink Threshold
    """,
    "core": "Cast ConvertToTensor SaturateCast StopGradient",
    "math": "Erf Erfinv Rsqrt",
}
REDUCING = {
    "numpy": "All Amax Amin Any CountNonzero Max Mean Median Min Prod Std Sum Var",
    "math": "Logsumexp",
}


def _full_names(names: dict[str, str]) -> list[str]:
    """Return the full names of operations listed by module."""
    return [
        f"keras.src.ops.{module}.{name}"
        for module, text in names.items()
        for name in text.split()
    ]


def numpy_ops(*names: str) -> list[str]:
    """Return the full names of operations of `keras.ops.numpy`."""
    return [f"keras.src.ops.numpy.{name}" for name in names]


@register_rule(*_full_names(POINTWISE))
def pointwise(op: Any, inputs: Any, call: Call) -> TensorField:
    """Apply the same function at every position of one or several tensors."""
    return join(call.tensors())


@register_rule(*numpy_ops("FullLike", "OnesLike", "ZerosLike"))
def constant(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Create a constant with the shape of a tensor."""
    return TensorField(inputs.shape)


@register_rule(*numpy_ops("BroadcastTo"))
def broadcast_to(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Repeat positions along dimensions of length 1."""
    return join([inputs, TensorField(tuple(op.shape))])


@register_rule(*_full_names(REDUCING))
def reduction(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Reduce whole dimensions by a mean, sum, maximum and so on."""
    axis = range(1, inputs.rank) if op.axis is None else op.axis
    return inputs.pool(axis, bool(getattr(op, "keepdims", False)))  # CountNonzero has none


@register_rule("keras.src.ops.nn.Softmax", "keras.src.ops.nn.LogSoftmax")
def softmax(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Apply a softmax, which compares all positions of some dimensions."""
    axis = range(1, inputs.rank) if op.axis is None else op.axis
    return inputs.unlimited(axis, "softmax compares all its positions")


@register_rule(*numpy_ops("Cumsum", "Cumprod", "Flip", "Roll", "Sort", "Argsort"))
def rearranged(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Move positions by distances that are not fixed."""
    axis = range(1, inputs.rank) if op.axis is None else op.axis
    return inputs.unlimited(axis, f"{type(op).__name__.lower()} moves its positions")


@register_rule(*numpy_ops("Concatenate"))
def concatenate_operation(op: Any, inputs: Any, call: Call) -> TensorField:
    """Concatenate along a dimension."""
    return join(call.tensors(), concatenated=op.axis)


@register_rule(*numpy_ops("Matmul"))
def matmul(op: Any, inputs: Any, call: Call) -> TensorField:
    """Multiply matrices: sum over the last dimension of one and the last but one of two."""
    one, other = call.tensors()
    if min(one.rank, other.rank) < 2:
        raise ConfigError(
            f"{call.name!r}: keras.ops.matmul needs tensors with 2 or more dimensions here. "
            f"Received: shapes {one.shape} and {other.shape}."
        )
    columns = other.shape[-1]
    other = other.unlimited(-2, "products are summed over it").resized(-2, 1)
    return join([one.as_channels(-1).contract(-1, columns), other])


@register_rule(*numpy_ops("Stack"))
def stack(op: Any, inputs: Any, call: Call) -> TensorField:
    """Stack along a new dimension."""
    joined = join(call.tensors())
    return joined.inserted(op.axis, len(call.tensors()))


@register_rule(*numpy_ops("ExpandDims"))
def expand_dims(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Insert dimensions of length 1."""
    axes = [op.axis] if isinstance(op.axis, int) else op.axis
    rank = inputs.rank + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        inputs = inputs.inserted(axis)
    return inputs


@register_rule(*numpy_ops("Squeeze"))
def squeeze(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Remove dimensions of length 1."""
    if op.axis is None:
        return inputs.dropped([d for d in range(1, inputs.rank) if inputs.shape[d] == 1])
    return inputs.dropped([op.axis] if isinstance(op.axis, int) else op.axis)


@register_rule(*numpy_ops("Transpose"))
def transpose(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Reorder dimensions."""
    return _ordered(inputs, op.axes or range(inputs.rank)[::-1], call)


@register_rule(*numpy_ops("Swapaxes"))
def swapaxes(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Exchange two dimensions."""
    order = list(range(inputs.rank))
    one, other = inputs.dim(op.axis1), inputs.dim(op.axis2)
    order[one], order[other] = other, one
    return _ordered(inputs, order, call)


@register_rule(*numpy_ops("Moveaxis"))
def moveaxis(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Move dimensions to other places."""
    sources = [inputs.dim(axis) for axis in op.source]
    order = [dim for dim in range(inputs.rank) if dim not in sources]
    for place, dim in sorted(zip(map(inputs.dim, op.destination), sources, strict=True)):
        order.insert(place, dim)
    return _ordered(inputs, order, call)


def _ordered(inputs: TensorField, order: Any, call: Call) -> TensorField:
    if inputs.dim(order[0]) != 0:
        raise ConfigError(
            f"{call.name!r} moves the batch from the first dimension, so what a position sees "
            f"cannot be traced. Received: order {tuple(order)}."
        )
    return inputs.permuted(tuple(order))


@register_rule(*numpy_ops("Reshape"))
def reshape(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Change the shape; if the batch changes, everything is unlimited."""
    spec = keras.KerasTensor((inputs.shape[0] or None, *inputs.shape[1:]))
    shape = tuple(op.compute_output_spec(spec).shape)
    if len(shape) == 0 or (shape[0] is not None and shape[0] != inputs.shape[0]):
        return inputs.unlimited(range(1, inputs.rank), "it is folded into the batch").placed(
            {}, shape
        )
    return reshaped(inputs, shape)


@register_rule("keras.src.ops.nn.AveragePool", "keras.src.ops.nn.MaxPool")
def pooling(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Take the mean or maximum of windows."""
    first = op.data_format == "channels_first"
    dims = range(2, inputs.rank) if first else range(1, inputs.rank - 1)
    inputs = inputs.as_channels(1 if first else -1)
    sizes, strides = (
        (value,) * len(dims) if isinstance(value, int) else tuple(value)
        for value in (op.pool_size, op.pool_size if op.strides is None else op.strides)
    )
    for dim, size, stride in zip(dims, sizes, strides, strict=True):
        inputs = inputs.slide(dim, size, stride, padding=op.padding)
    return inputs


@register_rule(*numpy_ops("Split"))
def split(op: Any, inputs: TensorField, call: Call) -> list[TensorField]:
    """Split a dimension into parts."""
    dim, parts = inputs.dim(op.axis), op.indices_or_sections
    length = inputs.shape[dim]
    if isinstance(parts, int):
        if length is None:
            why = "the start of its parts is unknown"
            return [inputs.unlimited(dim, why).resized(dim, None)] * parts
        parts = range(length // parts, length, length // parts)
    bounds = [0, *parts, length]
    return [_sliced(inputs, dim, slice(*pair)) for pair in itertools.pairwise(bounds)]


@register_rule(*numpy_ops("Pad"))
def pad(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Add values at the ends; mirrored values count as constants, as at a border."""
    widths = op.pad_width * inputs.rank if len(op.pad_width) == 1 else op.pad_width
    for dim, (before, after) in enumerate(widths):
        inputs = inputs.pad(dim, before, after) if before or after else inputs
    return inputs


@register_rule(*numpy_ops("Repeat"))
def repeat(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Repeat every position."""
    if op.axis is None or not isinstance(op.repeats, int):
        raise ConfigError(
            f"{call.name!r}: keras.ops.repeat needs a single axis and a single number of "
            f"repeats here. Received: repeats={op.repeats!r}, axis={op.axis!r}."
        )
    return inputs.read(op.axis, tensor.enlarged(inputs.shape[inputs.dim(op.axis)], op.repeats))


@register_rule(*numpy_ops("GetItem"))
def get_item(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Index with positions, slices, None and ... as in x[...]."""
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
                f"{call.name!r}: x[...] supports only whole numbers, slices, None and ... "
                f"here. Received: {part!r}."
            )
        dim += 1
    return inputs


def _sliced(seen: TensorField, dim: int, part: slice) -> TensorField:
    if part == slice(None):
        return seen
    reading = tensor.sliced(seen.shape[dim], part)
    if reading is None:
        why = "its slice is reversed, or counted from an end at an unknown position"
        return seen.unlimited(dim, why).resized(dim, None)
    return seen.read(dim, reading)


def _picked(seen: TensorField, dim: int, position: int) -> TensorField:
    length = seen.shape[dim]
    if position < 0 and length is None:
        why = "the selected position is counted from an end at an unknown position"
        return seen.unlimited(dim, why).dropped((dim,))
    return seen.position(dim, position % length if length else position)
