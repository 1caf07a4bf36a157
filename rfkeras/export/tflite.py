"""TFLite models: waveform in, scores out, by TFLite's own operations."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from rfkeras.export.portable import TRUNK_SCOPE, Arrays, PortableModel
from rfkeras.export.single_file import Exported, Plan, quiet, write_checked
from rfkeras.export.verify import ExportError


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


SIGNATURE = "serving_default"
CONVERTER_WORDS = 500  # characters of what can be pages


def tflite(
    model: keras.Model,
    path: str | Path,
    labels: Sequence[str] | None = None,
    *,
    precision: str = "float32",
    calibration: Sequence[NDArray[np.float32]] | None = None,
    trial: Sequence[NDArray[np.float32]] | None = None,
    frontend: bool = True,
) -> Exported:
    """Write a model as a .tflite file and compare it with the model.

    The file holds one signature, `serving_default`: `waveform` float32 (batch, samples), or
    (batch, samples, channels), or without a front-end `spectrogram`, to `scores`
    (batch, classes), `frame_scores` (batch, time', classes) and `embedding`
    (batch, features). Batch and length are free: `Interpreter.get_signature_runner()`
    resizes by itself, otherwise call `resize_tensor_input`. It needs TFLite's built-in
    operations only. `labels.txt` and `model.json` (sample rate, thresholds and so on) are
    appended to the file as a zip archive, where TFLite's metadata has them too; `read_card`
    reads the latter.

    Args:
        model: A model of the zoo, or a functional one that ends in `ClipLogits`.
        path: File to write.
        labels: Tag of each output; by default those kept in the model.
        precision: "float32"; "float16": weights of half the size, computed in float32;
            "int8": weights and maps of the network in 8 bits. The front-end always keeps
            its float32 numbers.
        calibration: Of int8: batches of the input, from audio like that which the model
            will hear.
        trial: Batches that the file is compared with the model on; by default the
            calibration's, or synthetic audio.
        frontend: False: take the front-end's spectrogram as input.

    Raises:
        ConfigError: Unknown precision, int8 without calibration, or a model that cannot be
            made portable.
        ExportError: The converter cannot convert it, or the result differs by more than the
            precision explains. No file is left then.
    """
    portable = PortableModel(model, labels, frontend)
    plan = Plan(portable, precision, calibration, trial)
    content = _convert(portable, plan)
    run = TFLiteRunner(content)

    def write(aside: Path) -> None:
        card = json.dumps(portable.card, indent=2, default=str)
        aside.write_bytes(content)
        with zipfile.ZipFile(aside, "a") as archive:
            archive.writestr("labels.txt", "".join(f"{n}\n" for n in portable.card["labels"]))
            archive.writestr("model.json", f"{card}\n")

    return write_checked(plan, Path(path), run, run.operations, write)


def read_card(path: str | Path) -> dict[str, Any]:
    """What `tflite` noted in a file: labels, thresholds, sample rate and so on.

    Raises:
        ExportError: The file has no such note.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return dict(json.loads(archive.read("model.json")))
    except (KeyError, zipfile.BadZipFile, ValueError) as error:
        raise ExportError(
            f"{path} holds no model.json: it was not written by rfkeras.export.tflite."
        ) from error


class TFLiteRunner:
    """A TFLite model as a function from a batch to its outputs by name.

    Args:
        model: Content of a file.
        threads: Of the interpreter.
    """

    def __init__(self, model: bytes, threads: int = 2):
        with quiet():
            self._interpreter = tf.lite.Interpreter(model_content=model, num_threads=threads)
            self._runner = self._interpreter.get_signature_runner(SIGNATURE)
        (self._input,) = self._runner.get_input_details()

    def __call__(self, batch: NDArray[np.float32]) -> Arrays:
        outputs = self._runner(**{self._input: batch})
        return {name: np.array(value) for name, value in outputs.items()}

    @property
    def operations(self) -> dict[str, int]:
        """How often each operation occurs; DELEGATE is what runs a group of others."""
        names = [details["op_name"] for details in self._interpreter._get_ops_details()]
        return dict(Counter(name for name in names if name != "DELEGATE"))


def _convert(portable: PortableModel, plan: Plan) -> bytes:
    with tempfile.TemporaryDirectory(prefix="rfkeras-") as scratch, quiet():
        module = portable.module()
        tf.saved_model.save(module, scratch, signatures={SIGNATURE: module.serve})
        try:
            if plan.precision == "int8":
                return _to_int8(scratch, portable.input_name, plan.calibration)
            content = bytes(tf.lite.TFLiteConverter.from_saved_model(scratch).convert())
            return halve(content) if plan.precision == "float16" else content
        except Exception as error:
            raise ExportError(
                f"TFLite's own operations cannot express model {portable.card['name']!r}; "
                "recurrent layers are the usual reason. ONNX and SavedModel take them. The "
                f"converter said: {str(error)[-CONVERTER_WORDS:]}"
            ) from error


def _to_int8(scratch: str, input_name: str, batches: Sequence[NDArray[np.float32]]) -> bytes:
    plain = bytes(tf.lite.TFLiteConverter.from_saved_model(scratch).convert())
    interpreter = tf.lite.Interpreter(model_content=plain)
    names = {each["index"]: each["name"] for each in interpreter.get_tensor_details()}
    in_float = _kept_in_float(
        [
            (operation["op_name"], names.get(index, ""))
            for operation in interpreter._get_ops_details()
            for index in operation["outputs"]
        ]
    )

    def representative() -> Any:
        for batch in batches:
            yield {input_name: batch}

    converter = tf.lite.TFLiteConverter.from_saved_model(scratch)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    # The debugger is the one public way to leave operations out of the quantisation.
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=in_float)
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=representative, debug_options=options
    )
    return bytes(debugger.get_nondebug_quantized_model())


def _kept_in_float(operations: Sequence[tuple[str, str]]) -> list[str]:
    """Names of outputs that int8 leaves alone, of (operation, name of its output) in order.

    All outside of the network, and of the network what ends in its first convolution: a
    spectrogram of near silence lies far outside of what music shows, and an integer cannot
    follow it there. Behind the first normalisation nothing does.
    """
    kept, begun = [], False
    for operation, name in operations:
        inside = TRUNK_SCOPE in name
        if not inside or not begun:
            kept.append(name)
        begun = begun or (inside and operation == "CONV_2D")
    return kept
