"""Weights of a TFLite model in float16."""

from __future__ import annotations

from typing import Any

import numpy as np

from rfkeras.export.portable import TRUNK_SCOPE


def halve(content: bytes) -> bytes:
    """Store the weights of the network's convolutions and products in float16.

    A DEQUANTIZE operation behind each makes it float32 again, once, when the model is
    loaded; this is the form that TFLite's own float16 conversion writes. That one would also
    round the constants of the Fourier transform, and with them lift the noise floor of the
    spectrogram.

    Args:
        content: Of a float32 model.
    """
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    (graph,) = model.subgraphs
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    builtin = schema.BuiltinOperator
    weighted = {builtin.CONV_2D, builtin.DEPTHWISE_CONV_2D, builtin.FULLY_CONNECTED}
    restore = schema.OperatorCodeT()
    restore.builtinCode = restore.deprecatedBuiltinCode = builtin.DEQUANTIZE
    restore.version = 3  # the first that takes float16
    model.operatorCodes.append(restore)

    restored: dict[int, int] = {}
    replaced: set[int] = set()
    operators: list[Any] = []
    for operator in graph.operators:
        inside = TRUNK_SCOPE in graph.tensors[operator.outputs[0]].name.decode()
        if inside and codes[operator.opcodeIndex] in weighted:
            index = int(operator.inputs[1])
            if index not in restored and _is_constant(model, graph.tensors[index]):
                restored[index] = len(graph.tensors)
                replaced.add(graph.tensors[index].buffer)
                operators.append(_halve_tensor(schema, model, graph, index))
            operator.inputs[1] = restored.get(index, index)
    graph.operators = operators + list(graph.operators)
    used = {tensor.buffer for tensor in graph.tensors}
    for number in replaced - used:
        model.buffers[number].data = None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _is_constant(model: Any, tensor: Any) -> bool:
    return model.buffers[tensor.buffer].data is not None


def _halve_tensor(schema: Any, model: Any, graph: Any, index: int) -> Any:
    """Round a constant; returns the operator that restores it as a new tensor."""
    tensor = graph.tensors[index]
    values = np.frombuffer(np.asarray(model.buffers[tensor.buffer].data).tobytes(), np.float32)
    half = schema.BufferT()
    half.data = np.frombuffer(values.astype(np.float16).tobytes(), np.uint8)
    model.buffers.append(half)
    back = schema.TensorT()
    back.name, back.shape, back.type = tensor.name + b"/float32", tensor.shape, tensor.type
    back.hasRank = True
    graph.tensors.append(back)
    tensor.type, tensor.buffer = schema.TensorType.FLOAT16, len(model.buffers) - 1
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs = np.array([index], np.int32)
    operator.outputs = np.array([len(graph.tensors) - 1], np.int32)
    return operator
