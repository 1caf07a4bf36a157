"""Compare exported and converted models with their source.

All three outputs are compared on audio of several lengths and batch sizes, with the Keras
model's own graph on the CPU. The allowed difference of a clip's score depends on what was
rounded; a frame's score is no mean over many, and may differ by twice as much:

float32: 1e-5. Only the order of operations differs. Of the packaged weights, at most 2e-6 was
observed in a clip's score, and 5e-6 in a frame's, on synthetic audio. On recordings of single
notes with very quiet tails it was 6e-6 and 5e-5. There, the model and the file are both 2e-5
from the frames that an exact Fourier transform gives. float16: 5e-3. Weights keep 11 binary
digits, an average error of 2.4e-4 of each weight, and the errors partly cancel; at most 1.3e-3
was observed in a clip's score, and 5.6e-3 in a frame's. int8: 0.1, and a rank correlation of at
least 0.9. Weights and activations keep 8 digits. `resnet_rf_tiny:gm_instruments`, calibrated
on its own data, changed no clip's score by more than 0.054 in 51 batches, at a correlation of
0.987; on data of many levels and rooms, it and the `instruments` weights change a score by 0.1
to 0.2. The order of a clip's tags matters most; it is measured as Spearman's correlation of its
scores, averaged over clips.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import soundfile
import tensorflow as tf
from numpy.typing import NDArray

from rfkeras.errors import ConfigError
from rfkeras.export.portable import OUTPUTS, Arrays, PortableModel
from rfkeras.export.saved_model import (
    AUDIO_BYTES,
    EMBED,
    FRAMES,
    SERVE,
    ExportError,
    frame_times_or_none,
    least_samples,
    padded,
)
from rfkeras.frontend import find_frontend
from rfkeras.layers import model_outputs
from rfkeras.utils.model_graph import only_input
from zoo.tagger import Reader

FLOAT32_TOLERANCE = 1e-5
SPACING_AT_1 = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
TIME_TOLERANCE_S = 1e-3  # for float32 seconds; a stride is several hundred times as long
SCRIPT = Path(__file__).with_name("clean_process.py")
TOLERANCES = {"float32": 1e-5, "float16": 5e-3, "int8": 0.1}
FRAME_TOLERANCES = {precision: 2 * allowed for precision, allowed in TOLERANCES.items()}
LEAST_RANKING = {"float32": 0.0, "float16": 0.0, "int8": 0.9}
EMBEDDING_TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "int8": 0.5}
_OVERRIDE = "allow a larger difference (--max-difference, max_difference=)."
_ADVICE = {
    "float32": " In frames of very quiet audio, rounding can be the cause of slightly more: "
    f"{_OVERRIDE}",
    "float16": f" Use float32, or {_OVERRIDE}",
    "int8": " Calibrate with more audio similar to what the model will process (--calibrate, "
    f"calibration=), use float16, or {_OVERRIDE}",
}
Run = Callable[[NDArray[np.float32]], Arrays]


def verify(
    path: str | Path, model: keras.Model, inputs: Sequence[NDArray[np.float32]]
) -> float:
    """Compare a SavedModel, loaded in a clean process, with the model it was made from.

    The process can import TensorFlow, but not kapre, librosa, tensorflow_io or this library.
    `serving_default` is applied to every batch, `frames` and `embed` to the first, and
    `audio_bytes` to the first clip as a WAV file at the model's sample rate.

    Args:
        path: Folder of the SavedModel.
        model: The Keras model.
        inputs: Input batches, preferably of several lengths and sizes.

    Returns:
        The largest difference of a probability, over clips and frames.

    Raises:
        ExportError: The SavedModel cannot be loaded; a probability differs by more than
            `tolerance(model)`; or an embedding differs by more than 8 times that, relative to
            its largest value.
    """
    expected = _expected(model, inputs)
    served = _run_clean(Path(path), _requests(model, inputs))
    allowed = tolerance(model)
    if served.keys() != expected.keys():
        raise ExportError(f"{path} returned {sorted(served)}, not {sorted(expected)}.")
    largest = 0.0
    for key, values in served.items():
        difference = _difference(values, expected[key])
        if key.endswith("frame_times_s"):
            _check(path, key, difference, TIME_TOLERANCE_S, "s")
            continue
        if "embedding" in key.rpartition("/")[2]:
            scale = max(1.0, float(np.max(np.abs(expected[key]))))
            _check(path, key, difference / scale, 8 * allowed, "of the largest value")
            continue
        _check(path, key, difference, allowed, "in a probability")
        largest = max(largest, difference)
    return largest


def tolerance(model: keras.Model) -> float:
    """Return the largest allowed difference of a probability; see the module docstring."""
    coarsest = max(SPACING_AT_1.get(name, 0.0) for name in _compute_dtypes(model))
    return max(FLOAT32_TOLERANCE, coarsest / 4)


def _compute_dtypes(model: keras.Model) -> set[str]:
    """Return the compute types of all layers."""
    names: set[str] = set()
    for layer in model.layers:
        names |= _compute_dtypes(layer) if isinstance(layer, keras.Model) else set()
        names.add(str(layer.compute_dtype))
    return names


def _requests(
    model: keras.Model, inputs: Sequence[NDArray[np.float32]]
) -> dict[str, NDArray[Any]]:
    """Return the inputs for the clean process: every batch for scores, one for the rest."""
    asked: dict[str, NDArray[Any]] = {f"{SERVE}/{i}": batch for i, batch in enumerate(inputs)}
    asked |= {f"{FRAMES}/0": inputs[0], f"{EMBED}/0": inputs[0]}
    frontend = find_frontend(model)
    if frontend is not None and only_input(model).shape[1] is None:
        file = io.BytesIO()
        samples = _sixteen_bits(inputs[0][0])
        soundfile.write(file, samples, frontend.sample_rate_hz, format="WAV", subtype="PCM_16")
        asked[f"{AUDIO_BYTES}/0"] = np.frombuffer(file.getvalue(), np.uint8)
    return asked


def _sixteen_bits(waveform: NDArray[np.float32]) -> NDArray[np.int16]:
    """Round a waveform to 16-bit integers."""
    rounded: NDArray[np.int16] = np.clip(np.round(waveform * 32768.0), -32768, 32767).astype(
        np.int16
    )
    return rounded


def _expected(
    model: keras.Model, inputs: Sequence[NDArray[np.float32]]
) -> dict[str, NDArray[Any]]:
    """Return the model's own outputs for `_requests`, under the clean process's names."""
    outputs, least = model_outputs(model), least_samples(model)
    spec = tf.TensorSpec(only_input(model).shape, tf.float32)

    def compute(batch: Any) -> Any:
        with tf.device("/cpu:0"):  # the clean process also runs on the CPU
            return outputs.scores(model(padded(batch, least), training=False))

    scores = tf.function(compute, input_signature=[spec])
    expected = {
        f"{SERVE}/{i}/scores": scores(tf.constant(batch)).numpy()
        for i, batch in enumerate(inputs)
    }
    try:
        reader = Reader(model)
    except ConfigError:  # its export has no other signatures
        return expected

    def read(batch: Any) -> Any:
        with tf.device("/cpu:0"):
            reading = reader(padded(batch, least))
            return {
                "clip": reader.outputs.scores(reading.logits),
                "frame_scores": reader.outputs.scores(reading.frame_logits),
                "embedding": reading.embedding,
                "frame_embeddings": reading.frame_embeddings,
            }

    answers = tf.function(read, input_signature=[spec])
    reading = {name: value.numpy() for name, value in answers(inputs[0]).items()}
    frames = reading["frame_scores"]
    expected[f"{FRAMES}/0/frame_scores"] = frames
    times = frame_times_or_none(model)
    if times is not None:
        times_s = times.centres_ms(frames.shape[1]) / 1000
        expected[f"{FRAMES}/0/frame_times_s"] = np.tile(times_s, (len(frames), 1))
    for name in ("embedding", "frame_embeddings"):
        expected[f"{EMBED}/0/{name}"] = reading[name]
    if f"{AUDIO_BYTES}/0" in _requests(model, inputs):
        decoded = _sixteen_bits(inputs[0][:1]).astype(np.float32) / 32768.0
        expected[f"{AUDIO_BYTES}/0/scores"] = answers(decoded)["clip"].numpy()
    return expected


def _run_clean(path: Path, requests: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Run a SavedModel in a clean process."""
    with tempfile.TemporaryDirectory() as scratch:
        inputs_path, outputs_path = Path(scratch, "inputs.npz"), Path(scratch, "outputs.npz")
        np.savez(inputs_path, **requests)
        command = [sys.executable, "-I", SCRIPT, path.resolve(), inputs_path, outputs_path]
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"},
            check=False,
        )
        if done.returncode != 0:
            raise ExportError(
                f"{path} cannot be used in a clean process (exit status "
                f"{done.returncode}): {done.stderr.strip()[-2000:]}"
            )
        with np.load(outputs_path, allow_pickle=False) as outputs:
            return {name: outputs[name] for name in outputs.files}


def _difference(served: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest absolute difference; NaN if the shapes differ."""
    if served.shape != expected.shape:
        return float("nan")
    return float(np.max(np.abs(served.astype(np.float64) - expected)))


def _check(path: str | Path, key: str, difference: float, allowed: float, measure: str) -> None:
    """Check that a difference is allowed."""
    if not difference <= allowed:  # also rejects NaN
        raise ExportError(
            f"{path} differs from the model by {difference:.2g} {measure} ({key}); at most "
            f"{allowed:.2g} is allowed."
        )


@dataclass(frozen=True)
class Agreement:
    """Differences between a converted model and its source.

    Attributes:
        score: Largest difference of a clip's score.
        frame_score: Largest difference of a frame's score.
        embedding: Largest difference of an embedding, relative to the largest value.
        ranking: Spearman's correlation of each clip's scores, averaged over clips; 1 for equal
            order.
        n_batches: Number of batches compared.
    """

    score: float
    frame_score: float
    embedding: float
    ranking: float
    n_batches: int


def compare(
    portable: PortableModel, run: Run, batches: Sequence[NDArray[np.float32]]
) -> Agreement:
    """Compare a converted model with its source on some batches.

    Args:
        portable: The source.
        run: The converted model: a function from a batch to outputs by name.
        batches: Inputs.

    Raises:
        ExportError: Outputs differ in shape.
    """
    largest = dict.fromkeys(OUTPUTS, 0.0)
    rankings: list[float] = []
    for batch in batches:
        expected, got = portable.expect(batch), run(batch)
        for name in portable.outputs:
            if expected[name].shape != got[name].shape:
                raise ExportError(
                    f"For input {batch.shape} the converted model's {name} have shape "
                    f"{got[name].shape}; the source's have {expected[name].shape}."
                )
            scale = np.abs(expected[name]).max() if name == "embedding" else 1.0
            difference = np.abs(expected[name].astype(np.float64) - got[name]).max()
            # Unlike Python's max, np.maximum keeps NaN.
            largest[name] = float(np.maximum(largest[name], difference / (scale or 1.0)))
        rankings += _rank_correlations(expected["scores"], got["scores"])
    return Agreement(
        largest["scores"],
        largest["frame_scores"],
        largest["embedding"],
        float(np.mean(rankings)) if rankings else 1.0,
        len(batches),
    )


def check(agreement: Agreement, precision: str, max_difference: float | None = None) -> None:
    """Check that a converted model is close enough to its source.

    Args:
        agreement: The differences.
        precision: One of `TOLERANCES`.
        max_difference: Largest allowed difference of a clip's score, instead of the
            precision's. The differences of frames and embeddings, and the order of the tags,
            are then not checked.

    Raises:
        ExportError: A difference exceeds what rounding to the precision explains.
    """
    advice = _ADVICE[precision]
    frames, embedding = FRAME_TOLERANCES[precision], EMBEDDING_TOLERANCES[precision]
    limits = [
        ("a score", agreement.score, TOLERANCES[precision]),
        ("a frame score", agreement.frame_score, frames),
        ("an embedding (relative)", agreement.embedding, embedding),
    ]
    if max_difference is not None:
        limits = [("a score", agreement.score, max_difference)]
    for name, value, bound in limits:
        if not value <= bound:  # also rejects NaN
            raise ExportError(
                f"The converted {precision} model differs from its source by {value:.2g} in "
                f"{name}; at most {bound:.2g} is allowed. Nothing was written.{advice}"
            )
    if max_difference is None and agreement.ranking < LEAST_RANKING[precision]:
        raise ExportError(
            f"The converted {precision} model ranks a clip's tags differently: the correlation "
            f"is {agreement.ranking:.2f}; at least {LEAST_RANKING[precision]} is required. "
            f"Nothing was written.{advice}"
        )


def _rank_correlations(first: NDArray[np.float32], second: NDArray[np.float32]) -> list[float]:
    """Return Spearman's correlation of each row; skip rows of one class or of equal values."""
    correlations = []
    for a, b in zip(first, second, strict=True):
        if len(a) > 1 and np.ptp(a) > 0:
            ranks = np.argsort(np.argsort(np.stack([a, b]), kind="stable"), kind="stable")
            matrix: Any = np.corrcoef(ranks)
            correlations.append(float(matrix[0, 1]))
    return correlations
