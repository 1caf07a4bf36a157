"""Operations of `keras.ops` in the graph of a functional model.

Their classes are private to Keras, so they are named here, not imported. All those that are
not named get an error, like any other unknown layer.
"""

from __future__ import annotations

from typing import Any

import keras

from rfkeras.errors import ConfigError
from rfkeras.receptive_field.joining import join
from rfkeras.receptive_field.registry import Call, register_rule
from rfkeras.receptive_field.rules.shapes import reshaped
from rfkeras.receptive_field.tensor import TensorField

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


def _named(names: dict[str, str]) -> list[str]:
    return [
        f"keras.src.ops.{module}.{name}"
        for module, text in names.items()
        for name in text.split()
    ]


def numpy_ops(*names: str) -> list[str]:
    """Full names of operations of `keras.ops.numpy`."""
    return [f"keras.src.ops.numpy.{name}" for name in names]


@register_rule(*_named(POINTWISE))
def pointwise(op: Any, inputs: Any, call: Call) -> TensorField:
    """The same function at every position, of one tensor or several."""
    return join(call.tensors())


@register_rule(*numpy_ops("FullLike", "OnesLike", "ZerosLike"))
def constant(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """A constant of the shape of a tensor."""
    return TensorField(inputs.shape)


@register_rule(*numpy_ops("BroadcastTo"))
def broadcast_to(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Positions repeated along dimensions of length 1."""
    return join([inputs, TensorField(tuple(op.shape))])


@register_rule(*_named(REDUCING))
def reduction(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Mean, sum, maximum and so on over whole dimensions."""
    axis = range(1, inputs.rank) if op.axis is None else op.axis
    return inputs.pool(axis, bool(getattr(op, "keepdims", False)))  # CountNonzero has none


@register_rule("keras.src.ops.nn.Softmax", "keras.src.ops.nn.LogSoftmax")
def softmax(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Softmax over some dimensions, all positions of which are compared."""
    axis = range(1, inputs.rank) if op.axis is None else op.axis
    return inputs.everywhere(axis, "softmax compares all its positions")


@register_rule(*numpy_ops("Cumsum", "Cumprod", "Flip", "Roll", "Sort", "Argsort"))
def rearranged(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Positions that see those of others, at no fixed distance."""
    axis = range(1, inputs.rank) if op.axis is None else op.axis
    return inputs.everywhere(axis, f"{type(op).__name__.lower()} moves its positions")


@register_rule(*numpy_ops("Concatenate"))
def concatenate(op: Any, inputs: Any, call: Call) -> TensorField:
    """One behind the other along a dimension."""
    return join(call.tensors(), concatenated=op.axis)


@register_rule(*numpy_ops("Matmul"))
def matmul(op: Any, inputs: Any, call: Call) -> TensorField:
    """Products summed over the last dimension of one and the one before it of the other."""
    one, other = call.tensors()
    if min(one.rank, other.rank) < 2:
        raise ConfigError(
            f"{call.name!r}: keras.ops.matmul is followed between tensors of 2 dimensions or "
            f"more. Received: shapes {one.shape} and {other.shape}."
        )
    columns = other.shape[-1]
    other = other.everywhere(-2, "products are summed over it").resized(-2, 1)
    return join([one.as_channels(-1).mix(-1, columns), other])


@register_rule(*numpy_ops("Stack"))
def stack(op: Any, inputs: Any, call: Call) -> TensorField:
    """Side by side along a new dimension."""
    joined = join(call.tensors())
    return joined.inserted(op.axis, len(call.tensors()))


@register_rule(*numpy_ops("ExpandDims"))
def expand_dims(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """New dimensions of length 1."""
    axes = [op.axis] if isinstance(op.axis, int) else op.axis
    rank = inputs.rank + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        inputs = inputs.inserted(axis)
    return inputs


@register_rule(*numpy_ops("Squeeze"))
def squeeze(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Without dimensions of length 1."""
    if op.axis is None:
        return inputs.dropped([d for d in range(1, inputs.rank) if inputs.shape[d] == 1])
    return inputs.dropped([op.axis] if isinstance(op.axis, int) else op.axis)


@register_rule(*numpy_ops("Transpose"))
def transpose(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Dimensions in another order."""
    return _ordered(inputs, op.axes or range(inputs.rank)[::-1], call)


@register_rule(*numpy_ops("Swapaxes"))
def swapaxes(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Two dimensions exchanged."""
    order = list(range(inputs.rank))
    one, other = inputs.dim(op.axis1), inputs.dim(op.axis2)
    order[one], order[other] = other, one
    return _ordered(inputs, order, call)


@register_rule(*numpy_ops("Moveaxis"))
def moveaxis(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Dimensions moved to other places."""
    sources = [inputs.dim(axis) for axis in op.source]
    order = [dim for dim in range(inputs.rank) if dim not in sources]
    for place, dim in sorted(zip(map(inputs.dim, op.destination), sources, strict=True)):
        order.insert(place, dim)
    return _ordered(inputs, order, call)


def _ordered(inputs: TensorField, order: Any, call: Call) -> TensorField:
    if inputs.dim(order[0]) != 0:
        raise ConfigError(
            f"{call.name!r} moves the batch away from the first dimension: what a position "
            f"sees cannot be followed. Received: order {tuple(order)}."
        )
    return inputs.permuted(tuple(order))


@register_rule(*numpy_ops("Reshape"))
def reshape(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Any new shape that leaves the batch alone."""
    spec = keras.KerasTensor((inputs.shape[0] or None, *inputs.shape[1:]))
    shape = tuple(op.compute_output_spec(spec).shape)
    if len(shape) == 0 or (shape[0] is not None and shape[0] != inputs.shape[0]):
        return inputs.everywhere(range(1, inputs.rank), "it is folded into the batch").placed(
            {}, shape
        )
    return reshaped(inputs, shape)


@register_rule("keras.src.ops.nn.AveragePool", "keras.src.ops.nn.MaxPool")
def pooling(op: Any, inputs: TensorField, call: Call) -> TensorField:
    """Mean or maximum of windows."""
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
