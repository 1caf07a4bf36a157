"""The network of a SavedModel: folded, with its weights as constants of the graph.

TensorFlow prepares the kernels of convolutions for the processor once where they are
constants, and at every call where they are variables, which might have changed. That saves
6 % of the time of a small network and 2 % of one of 16 MB, for which a process then needs
some 200 MB more, and some 100 MB for each further signature that it uses: so large networks
keep variables.
"""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import tensorflow as tf

from rfkeras.folding import fold_if_possible
from rfkeras.precision import computes_in_float32

LARGEST_BYTES = 2**25  # of constants


def for_inference(model: keras.Model) -> keras.Model:
    """What computes a model's outputs in its export.

    A model of float32 is folded. One of a reduced precision stays as it is: with other
    weights it would round otherwise, by more than folding is allowed to change.

    Args:
        model: Functional.

    Returns:
        A copy; the model itself also where it cannot be folded.
    """
    return fold_if_possible(model) if computes_in_float32(model) else model


def constants_pay(model: keras.Model) -> bool:
    """Whether a model's weights should be constants of its graph.

    Those of a reduced precision stay variables: constants would be stored in float32 and,
    once more, in what they are computed in.
    """
    size = sum(tf.as_dtype(v.dtype).size * v.shape.num_elements() for v in model.variables)
    return computes_in_float32(model) and size <= LARGEST_BYTES


def weights_of(model: keras.Model, constant: bool) -> contextlib.AbstractContextManager[Any]:
    """While it lasts, a model's weights are constants of the graph that is being traced.

    Args:
        model: The model, of whose layers some are applied meanwhile.
        constant: Whether; if not, they are variables as ever.
    """
    if not constant:
        return contextlib.nullcontext()
    values = [(variable, tf.constant(_value(variable))) for variable in model.variables]
    scope: contextlib.AbstractContextManager[Any] = keras.StatelessScope(values)
    return scope


def _value(variable: Any) -> Any:
    with tf.init_scope():  # outside of the graph
        return keras.ops.convert_to_numpy(variable)
