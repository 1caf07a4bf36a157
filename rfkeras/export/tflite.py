"""Export models as TFLite files with built-in operations only."""

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

from rfkeras.errors import ConfigError
from rfkeras.export.portable import NETWORK_SCOPE, Arrays, PortableModel
from rfkeras.export.saved_model import ExportError, explaining
from rfkeras.export.single_file import Exported, Plan, quiet, write_checked

SIGNATURE = "serving_default"
CONVERTER_CHARACTERS = 500  # of the converter's message, which can be pages long


def tflite(
    model: keras.Model,
    path: str | Path,
    labels: Sequence[str] | None = None,
    *,
    precision: str = "float32",
    calibration: Sequence[NDArray[np.float32]] | None = None,
    trial: Sequence[NDArray[np.float32]] | None = None,
    frontend: bool = True,
    max_difference: float | None = None,
) -> Exported:
    """Write a model as a .tflite file and compare the file with the model.

    The file has one signature, `serving_default`. Its input is `waveform` float32 (batch,
    samples) or (batch, samples, channels); without a front-end it is `spectrogram`. Its outputs
    are `scores` (batch, classes), `frame_scores` (batch, time', classes) and `embedding`
    (batch, features); a model that does not end in `ClipLogits` has only `scores`. A file has
    no assertions: a clip with NaN or infinite samples has NaN outputs, and an empty batch empty
    ones. Batch size and length can vary: `Interpreter.get_signature_runner()`
    resizes automatically, otherwise call `resize_tensor_input`. Only built-in operations of
    TFLite are used. `labels.txt` and `model.json` (sample rate, thresholds and so on) are
    appended as a zip archive, where TFLite metadata usually is; `read_card` reads the latter.

    Args:
        model: A zoo model, or another functional model with one input and one output.
        path: File to write.
        labels: Tag of each output; defaults to the names in the model.
        precision: "float32"; "float16": weights of half the size, computed in float32; "int8":
            weights and activations of the network in 8 bits. The front-end always uses float32.
        calibration: Input batches for int8, from audio similar to what the model will process.
        trial: Batches for the comparison; defaults to the calibration batches, or synthetic
            audio.
        frontend: False: take the front-end's spectrogram as input.
        max_difference: Largest allowed difference of a clip's score from the model's, instead
            of the precision's (int8: 0.1). Frames, embeddings and the order of the tags are
            then not checked.

    Raises:
        ConfigError: The precision is unknown, int8 has no calibration, or the model cannot be
            converted.
        ExportError: The conversion fails, or the result differs by more than the precision
            allows. No file is written then.
    """
    with explaining(model, "TFLite"):
        portable = PortableModel(model, labels, frontend)
    plan = Plan(portable, precision, calibration, trial, max_difference)
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
    """Return the card that `tflite` saved in a file: labels, thresholds, sample rate and so on.

    Raises:
        ExportError: The file has no card.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return dict(json.loads(archive.read("model.json")))
    except (KeyError, zipfile.BadZipFile, ValueError) as error:
        raise ExportError(
            f"{path} contains no model.json. It was not written by rfkeras.export.tflite."
        ) from error


class TFLiteRunner:
    """Runs a TFLite model: a function from a batch to outputs by name.

    Args:
        model: Content of a file.
        threads: Threads of the interpreter.
    """

    def __init__(self, model: bytes, threads: int = 2):
        with quiet():
            self._interpreter = tf.lite.Interpreter(model_content=model, num_threads=threads)
            self._runner = self._interpreter.get_signature_runner(SIGNATURE)
        (self._input,) = self._runner.get_input_details()

    def __call__(self, batch: NDArray[np.float32]) -> Arrays:
        if not len(batch):
            raise ConfigError("Empty batch: the input has no rows. Send at least one clip.")
        outputs = self._runner(**{self._input: batch})
        return {name: np.array(value) for name, value in outputs.items()}

    @property
    def operations(self) -> dict[str, int]:
        """Number of uses of each operation, without DELEGATE, which runs a group of others."""
        names = [details["op_name"] for details in self._interpreter._get_ops_details()]
        return dict(Counter(name for name in names if name != "DELEGATE"))


def _convert(portable: PortableModel, plan: Plan) -> bytes:
    """Convert a portable model to TFLite."""
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
                f"Model {portable.card['name']!r} cannot be expressed with TFLite's built-in "
                "operations; recurrent layers are the usual reason. ONNX and SavedModel "
                f"support them. The converter's message: {str(error)[-CONVERTER_CHARACTERS:]}"
            ) from error


def halve(content: bytes) -> bytes:
    """Store the weights of the network's convolutions and products in float16.

    A DEQUANTIZE operation after each weight restores float32 once, on loading. TFLite's own
    float16 conversion has the same form, but would also round the constants of the Fourier
    transform, which raises the noise floor of the spectrogram.

    Args:
        content: Content of a float32 model.
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
    restore.version = 3  # the first version with float16
    model.operatorCodes.append(restore)

    restored: dict[int, int] = {}
    replaced: set[int] = set()
    operators: list[Any] = []
    for operator in graph.operators:
        inside = NETWORK_SCOPE in graph.tensors[operator.outputs[0]].name.decode()
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
    """Return whether a tensor is a constant."""
    return model.buffers[tensor.buffer].data is not None


def _halve_tensor(schema: Any, model: Any, graph: Any, index: int) -> Any:
    """Round a constant and return the operator that restores it as a new tensor."""
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


def _to_int8(scratch: str, input_name: str, batches: Sequence[NDArray[np.float32]]) -> bytes:
    """Convert with quantisation, calibrated on batches."""
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
    # The debugger is the only public way to exclude operations from quantisation.
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=in_float)
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=representative, debug_options=options
    )
    return bytes(debugger.get_nondebug_quantized_model())


def _kept_in_float(operations: Sequence[tuple[str, str]]) -> list[str]:
    """Return the names of outputs that int8 does not quantise.

    These are all operations outside the network, and those of the network up to its first
    convolution. Spectrograms of near silence are far outside the range of music, which integers
    cannot represent. After the first normalisation this no longer matters.

    Args:
        operations: (operation, name of its output), in order.
    """
    kept, begun = [], False
    for operation, name in operations:
        inside = NETWORK_SCOPE in name
        if not inside or not begun:
            kept.append(name)
        begun = begun or (inside and operation == "CONV_2D")
    return kept
