"""Export models as ONNX files with standard operators only.

`onnx` writes a file for others; `write_engine` writes the graph that
`rfkeras.inference.OnnxTagger` runs in chunks. `python -m rfkeras.export.onnx MODEL ENGINE.onnx`
does so in a process of its own, which pays for TensorFlow. It exits with 3, and the reason on
standard error, if the model cannot be converted.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.export.portable import NETWORK_SCOPE, Arrays, PortableModel
from rfkeras.export.saved_model import ExportError, explaining
from rfkeras.export.single_file import Exported, Plan, quiet, write_checked
from rfkeras.folding import in_float32
from rfkeras.frontend import find_frontend
from rfkeras.frontend.numpy_mel import numpy_mel
from rfkeras.inference import engines
from rfkeras.inference.frames import FrameGrid
from rfkeras.inference.keras_tagger import StreamTagger
from rfkeras.utils.files import atomic_write
from rfkeras.utils.model_graph import inlined
from rfkeras.utils.processes import onnx_session
from zoo.pretrained import load_model

INTEGER_OPERATORS = ["Conv", "Add", "MaxPool", "Concat", "Pad"]
OPSET = 17
PACKAGES = ("onnx", "onnxruntime", "tf2onnx")
NOT_CONVERTIBLE = 3  # exit status, see above


def onnx(
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
    """Write a model as an .onnx file and verify the file with ONNX Runtime.

    Inputs, outputs and arguments are those of `rfkeras.export.tflite`, also for clips with NaN
    and empty batches; batch size and length can vary. Only standard operators of opset 17 are
    used. The content of `model.json` is in the file's metadata, each value as JSON: `labels`,
    `sample_rate_hz`, `thresholds` and so on.

    Args:
        model: A zoo model, or another functional model with one input and one output.
        path: File to write.
        labels: Tag of each output; defaults to the names in the model.
        precision: "float32"; "float16": weights of half the size, converted to float32 on
            loading; "int8": convolutions and their inputs in 8 bits (with QuantizeLinear and
            DequantizeLinear around them). The front-end always uses float32.
        calibration: Input batches for int8, from audio similar to what the model will process.
        trial: Batches for the comparison; defaults to the calibration batches, or synthetic
            audio.
        frontend: False: take the front-end's spectrogram as input.
        max_difference: Largest allowed difference of a clip's score from the model's, instead
            of the precision's (int8: 0.1). Frames, embeddings and the order of the tags are
            then not checked.

    Raises:
        ConfigError: A package of the extra 'onnx' is missing, the precision is unknown, int8
            has no calibration, or the model cannot be converted.
        ExportError: The conversion fails, or the result differs by more than the precision
            allows. No file is written then.
    """
    need_packages()
    with explaining(model, "ONNX"):
        portable = PortableModel(model, labels, frontend)
    plan = Plan(portable, precision, calibration, trial, max_difference)
    proto = convert(portable.serve, portable.card["name"])
    if precision == "int8":
        with quiet():
            proto = to_int8(proto, portable.input_name, plan.calibration)
    elif precision == "float16":
        halve(proto)
    _write_metadata(proto, portable.card)
    content = proto.SerializeToString()

    def write(aside: Path) -> None:
        aside.write_bytes(content)

    return write_checked(
        plan,
        Path(path),
        OnnxRunner(content),
        dict(Counter(node.op_type for node in proto.graph.node)),
        write,
    )


class OnnxRunner:
    """Runs an ONNX model on the CPU: a function from a batch to outputs by name.

    Args:
        model: Content of a file.
        threads: Threads per operator.
    """

    def __init__(self, model: bytes, threads: int = 2):
        self._session = onnx_session(model, threads)
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: NDArray[np.float32]) -> Arrays:
        if not len(batch):
            raise ConfigError("Empty batch: the input has no rows. Send at least one clip.")
        values = self._session.run(self._outputs, {self._input: batch})
        return dict(zip(self._outputs, values, strict=True))


def need_packages() -> None:
    """Check that the packages of the extra are installed."""
    for package in PACKAGES:
        try:
            with quiet():
                import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"Export to ONNX needs the package {package}, which is not installed: "
                "pip install 'rfkeras[onnx]'."
            ) from error


def convert(function: Any, name: str) -> Any:
    """Convert a `tf.function` with one signature to ONNX.

    Args:
        function: The function.
        name: Name of the graph.

    Raises:
        ExportError: It has operations that ONNX lacks.
    """
    import tf2onnx

    try:
        with quiet():
            proto, _ = tf2onnx.convert.from_function(
                function, input_signature=function.input_signature, opset=OPSET
            )
    except Exception as error:
        raise ExportError(
            f"Model {name!r} cannot be converted to ONNX: {error}. Use SavedModel."
        ) from error
    proto.producer_name = "rfkeras"
    proto.graph.name = name
    return proto


def _write_metadata(proto: Any, values_by_key: Mapping[str, Any]) -> None:
    """Write values into the file's metadata, as JSON."""
    import onnx.helper

    values = {key: json.dumps(value, default=str) for key, value in values_by_key.items()}
    onnx.helper.set_model_props(proto, values)


def halve(proto: Any) -> None:
    """Store the weights of the network's convolutions and products in float16, in place.

    A Cast after each weight restores float32; ONNX Runtime computes it once, on loading.
    Computing in float16 would need kernels that CPUs do not have.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = proto.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    restored: dict[str, str] = {}
    casts = []
    for node in graph.node:
        if node.op_type not in ("Conv", "MatMul", "Gemm") or NETWORK_SCOPE not in node.name:
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
    for name in restored.keys() - read:  # other nodes may still read the float32 weights
        graph.initializer.remove(weights[name])


def to_int8(proto: Any, input_name: str, batches: Sequence[NDArray[np.float32]]) -> Any:
    """Return the model with quantised convolutions, calibrated on batches.

    Args:
        proto: A float32 model.
        input_name: Name of its input.
        batches: Input batches that determine the ranges.
    """
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = iter(batches)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {input_name: batch}

    # The first convolution also stays in float32: spectrograms of near silence are far outside
    # the range of music, which integers cannot represent.
    nodes = proto.graph.node
    first = next(
        (n.name for n in nodes if n.op_type == "Conv" and NETWORK_SCOPE in n.name), None
    )
    kept = [n.name for n in nodes if NETWORK_SCOPE not in n.name or n.name == first]
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


# Engine files


def write_engine(model: keras.Model, path: str | Path) -> None:
    """Write the engine file of a model.

    Args:
        model: Model that `StreamTagger` accepts.
        path: File to write.

    Raises:
        ConfigError: A package of the extra 'onnx' is missing; the model is not accepted by
            `StreamTagger`; its front-end is not its first layer; or its chunks cannot overlap
            so that every frame has its whole window.
        ExportError: The conversion fails.
    """
    need_packages()
    tagger = StreamTagger(model)
    graph = inlined(in_float32(model))
    frontend = find_frontend(graph)
    assert frontend is not None  # StreamTagger has checked it
    grid = FrameGrid(graph, frontend)
    if grid.overlap is None or not grid.starts_with_frontend:
        raise ConfigError(
            f"Model {model.name!r} cannot be converted to an engine file: its chunks depend on "
            "the length of the audio, or layers are before its front-end."
        )
    portable = PortableModel(model, frontend=False)
    proto = convert(portable.frames_function(), portable.card["name"])
    outputs = portable.frame_outputs
    record: dict[str, Any] = {
        "format": engines.FORMAT,
        "name": model.name,
        "labels": list(tagger.label_names),
        "thresholds": None if tagger.thresholds is None else tagger.thresholds.tolist(),
        "task": outputs.task,
        "outputs": outputs.kind,
        "pooling": tagger.pooling,
        "sample_rate_hz": tagger.sample_rate_hz,
        "channels": tagger.channels,
        "frames": asdict(tagger.frames),
        "reason_not_exact": tagger.reason_not_exact,
        "shortest_samples": tagger.shortest_samples,
        "overlap": grid.overlap.as_json(),
        "spectrogram": numpy_mel(frontend).as_json(),
        "mean_db": frontend.mean_db.numpy().tolist(),
        "std_db": frontend.std_db.numpy().tolist(),
    }
    _write_metadata(proto, {engines.RECORD: record})
    content = proto.SerializeToString()
    with atomic_write(path) as aside:
        aside.write_bytes(content)


def main(argv: Sequence[str]) -> int:
    """Convert a model; return the exit status."""
    source, path = argv
    tf.get_logger().setLevel("ERROR")
    try:
        write_engine(load_model(source), path)
    except (ConfigError, ExportError) as error:
        print(error, file=sys.stderr)
        return NOT_CONVERTIBLE
    except RFKerasError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
