"""ONNX models of lower precision: weights in float16, convolutions in 8 bits."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.export.portable import TRUNK_SCOPE

INTEGER_OPERATORS = ["Conv", "Add", "MaxPool", "Concat", "Pad"]


def halve(proto: Any) -> None:
    """Store the weights of the network's convolutions and products in float16, in place.

    A Cast behind each makes it float32 again, which ONNX Runtime computes once, when the
    model is loaded. Computing in float16 itself would need kernels that CPUs do not have.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = proto.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    restored: dict[str, str] = {}
    casts = []
    for node in graph.node:
        if node.op_type not in ("Conv", "MatMul", "Gemm") or TRUNK_SCOPE not in node.name:
            continue
        name = node.input[1]
        tensor = weights.get(name)
        if name not in restored and tensor is not None:
            values = numpy_helper.to_array(tensor)
            if values.dtype != np.float32:
                continue
            half = f"{name}/float16"
            graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), half))
            restored[name] = f"{name}/float32"
            casts.append(
                helper.make_node(
                    "Cast", [half], [restored[name]], f"{name}/cast", to=TensorProto.FLOAT
                )
            )
        node.input[1] = restored.get(name, name)
    for cast in reversed(casts):
        graph.node.insert(0, cast)
    read = {name for node in graph.node for name in node.input}
    for name in restored.keys() - read:  # other nodes may read the float32 weights too
        graph.initializer.remove(weights[name])


def to_int8(proto: Any, input_name: str, batches: Sequence[NDArray[np.float32]]) -> Any:
    """The model with its convolutions quantised, by the ranges that batches show.

    Args:
        proto: A float32 model.
        input_name: Of its input.
        batches: Of the input.

    Returns:
        Another model.
    """
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {input_name: batch}

    # The first convolution stays too: a spectrogram of near silence lies far outside of what
    # music shows, and an integer cannot follow it there.
    nodes = proto.graph.node
    first = next((n.name for n in nodes if n.op_type == "Conv" and TRUNK_SCOPE in n.name), None)
    kept = [n.name for n in nodes if TRUNK_SCOPE not in n.name or n.name == first]
    with tempfile.TemporaryDirectory(prefix="rfkeras-") as scratch:
        plain, result = Path(scratch, "plain.onnx"), Path(scratch, "int8.onnx")
        onnx.save(proto, plain)
        quantization.quantize_static(
            plain,
            result,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=INTEGER_OPERATORS,
            per_channel=True,
            nodes_to_exclude=kept,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(result)
