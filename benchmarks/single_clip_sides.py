"""Run the network of one clip on several engines.

`python -m benchmarks.single_clip_sides FOLDER RHO WIDTH FRAMES` writes one network in all
formats, a spectrogram and the scores of the Keras model. Every function prepares an engine with
these files, compares its scores, and returns the function to be timed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 20
FRONTEND = "perceptual_mel_22k"
MOST = 1e-4  # in a score
SPECTROGRAM, SCORES, STATE = "spectrogram.npy", "scores.npy", "state.npz"
GRAPH, ENGINE, LITE, SAVED = "network.onnx", "engine.onnx", "network.tflite", "saved_model"
Infer = Callable[[], Any]


def checked(infer: Infer, folder: str, scores_of: Callable[[Any], Any]) -> Infer:
    """Compare the scores of an engine with those of the Keras model.

    Args:
        infer: Runs the network.
        folder: Folder of the files.
        scores_of: Converts what `infer` returns to (1, classes).

    Returns:
        `infer`.

    Raises:
        ValueError: The scores differ.
    """
    expected = np.load(Path(folder, SCORES))
    difference = np.abs(np.asarray(scores_of(infer())) - expected).max()
    if not difference <= MOST:  # also NaN
        raise ValueError(
            f"The scores differ by {difference:.2g} from those of the Keras model; at most "
            f"{MOST:g} is allowed."
        )
    return infer


def sigmoid(logits: Any) -> Any:
    """Return the scores of logits."""
    return 1.0 / (1.0 + np.exp(-np.asarray(logits)))


def read(folder: str) -> Any:
    """Return the spectrogram, (1, time, mel, 1) float32."""
    return np.load(Path(folder, SPECTROGRAM))


def onnx_tagger(folder: str, rho: int, width: int, threads: int) -> Infer:
    """Use the engine of `rfkeras tag`, whose front-end returns a given spectrogram."""
    from rfkeras.inference.engines import OnnxTagger

    tagger: Any = OnnxTagger(Path(folder, ENGINE), threads=threads)
    tagger._mel = _Given(read(folder)[0])
    silence = np.zeros((1, 1), np.float32)

    def scores(outputs: Any) -> Any:
        return tagger.logits_and_scores(outputs.logits.mean(axis=1))[1]

    return checked(lambda: tagger.compute(silence), folder, scores)


class _Given:
    def __init__(self, levels: Any):
        self._levels = levels

    def mel_db(self, waveform: Any) -> Any:
        return self._levels.copy()  # it is standardised in place


def onnx_runtime(folder: str, rho: int, width: int, threads: int) -> Infer:
    """Use ONNX Runtime with the exported network."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        Path(folder, GRAPH), options, providers=["CPUExecutionProvider"]
    )
    inputs = {session.get_inputs()[0].name: read(folder)}
    return checked(lambda: session.run(["scores"], inputs), folder, lambda outputs: outputs[0])


def openvino_graph(folder: str, rho: int, width: int, threads: int) -> Infer:
    """Use OpenVINO with the exported network and a fixed shape."""
    import openvino

    x = read(folder)
    core = openvino.Core()
    graph = core.read_model(Path(folder, GRAPH))
    graph.reshape(x.shape)
    hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(graph, "CPU", {**hints, "INFERENCE_PRECISION_HINT": "f32"})
    return checked(lambda: compiled(x), folder, lambda outputs: outputs["scores"])


def saved_model(folder: str, rho: int, width: int, threads: int) -> Infer:
    """Use the exported SavedModel with plain TensorFlow."""
    import tensorflow as tf

    from benchmarks.keras_sides import set_threads

    set_threads(threads)
    served = tf.saved_model.load(str(Path(folder, SAVED))).signatures["serving_default"]
    (name,) = served.structured_input_signature[1]
    x = tf.constant(read(folder))
    return checked(lambda: served(**{name: x})["scores"].numpy(), folder, lambda scores: scores)


def tensorflow_function(folder: str, rho: int, width: int, threads: int) -> Infer:
    """Use the Keras model in a graph, as it is."""
    import tensorflow as tf

    from benchmarks.keras_sides import set_threads

    set_threads(threads)
    model = _network(rho, width)
    model.load_weights(Path(folder, "network.weights.h5"))
    x = tf.constant(read(folder))
    compute = tf.function(lambda batch: model(batch, training=False), autograph=False)
    return checked(lambda: compute(x).numpy(), folder, sigmoid)


def tflite_static(folder: str, rho: int, width: int, threads: int) -> Infer:
    """Use TFLite."""
    import tensorflow as tf

    interpreter: Any = tf.lite.Interpreter(str(Path(folder, LITE)), num_threads=threads)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    x = read(folder)

    def infer() -> Any:
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return checked(infer, folder, sigmoid)


def _network(rho: int, width: int, frontend: str | None = None) -> Any:
    import zoo

    return zoo.create_model(
        "resnet_rf", CLASSES, rho=rho, width=width, frontend=frontend, initialization="he"
    )


def write(folder: Path, rho: int, width: int, frames: int) -> None:
    """Write a network with random weights in all formats."""
    import rfkeras
    from rfkeras.export.onnx import onnx, write_engine
    from rfkeras.frontend import create_frontend
    from rfkeras.layers.conv import BatchNormalization

    frontend = create_frontend(FRONTEND)
    rng = np.random.default_rng(0)
    samples = (frames - 1) * frontend.hop_samples
    noise = 0.1 * rng.normal(size=(2, samples))
    # Two clips that differ, so that a clip's scores are not the means over both.
    noise[1] = np.convolve(noise[1], np.ones(8) / 8, "same")
    spectrograms = frontend(noise.astype(np.float32)).numpy()
    x = spectrograms[:1]

    network = _network(rho, width)
    norms = [each for each in network._flatten_layers() if isinstance(each, BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0  # one batch sets the statistics, so that scores vary
    network(spectrograms, training=True)
    network.get_layer("classifier_bn").gamma.assign(np.full(CLASSES, 8.0))
    scores = sigmoid(network(x, training=False))
    assert np.ptp(scores) > 0.1
    np.save(folder / SPECTROGRAM, x)
    np.save(folder / SCORES, scores)
    network.save_weights(folder / "network.weights.h5")
    np.savez(folder / STATE, **_torch_state(network))

    whole = _network(rho, width, FRONTEND)
    load(whole, folder / STATE)
    write_engine(whole, folder / ENGINE)
    onnx(network, folder / GRAPH, trial=[x], max_difference=MOST)
    rfkeras.export.saved_model(network, folder / SAVED, warmup=False)
    _write_tflite(rfkeras.fold(network), x.shape, folder / LITE)


def _write_tflite(model: Any, shape: tuple[int, ...], path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.kept = [variable.value for variable in model.variables]
    module.serve = tf.function(
        lambda batch: model(batch, training=False), [tf.TensorSpec(shape)], autograph=False
    )
    saved = str(path.with_suffix(".saved"))
    tf.saved_model.save(module, saved, signatures=module.serve)
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(saved).convert())


def load(model: Any, path: Path) -> None:
    """Load a state into a model of this library."""
    from rfkeras.interop import load_torch_checkpoint

    with np.load(path) as state:
        load_torch_checkpoint(model, dict(state))


def _torch_state(model: Any) -> dict[str, Any]:
    """Return a model's weights under the names and with the axes of the PyTorch network."""
    from rfkeras.interop.torch import _slots

    return {
        slot.torch_name: slot.variable.numpy().transpose()
        if slot.is_kernel
        else slot.variable.numpy()
        for slot in _slots(model)
    }


if __name__ == "__main__":
    write(Path(sys.argv[1]), *(int(value) for value in sys.argv[2:]))
