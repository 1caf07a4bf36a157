"""Proof that an export computes what the model computes.

Both sides run as graphs on the CPU. A graph fuses neighbouring operations and so rounds
less often than the same model called eagerly, which matters in a reduced precision: a
bfloat16 network, graph against graph, agreed within 6e-8 of a probability, and called
eagerly differed by 2.6e-3 from either.

How much is allowed depends on the precision. float32: 1e-5, the same operations in another
order of threads. Where a layer computes in bfloat16 or float16, another order may round a
value to its neighbour. The head averages its map of logits in float32; had every value of
the map moved to its neighbour, all in one direction, a logit z would move by |z| eps, with
eps the spacing of the numbers at 1, and its sigmoid by |z| sigmoid'(z) eps <= 0.224 eps. So
a quarter of eps is allowed: 2.0e-3 with bfloat16 and 2.4e-4 with float16.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from rfkeras.errors import RFKerasError
from rfkeras.export.saved_model import model_head

FLOAT32_TOLERANCE = 1e-5
SPACING_AT_1 = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
SCRIPT = Path(__file__).with_name("clean_process.py")


class ExportError(RFKerasError):
    """An exported model does not load, or computes something else than its source."""


def verify(
    path: str | Path, model: keras.Model, inputs: Sequence[NDArray[np.float32]]
) -> float:
    """Compare a SavedModel, loaded in a clean process, with the model it came from.

    The process can import TensorFlow, but not kapre, librosa, tensorflow_io or this
    library.

    Args:
        path: Folder of the SavedModel.
        model: The Keras model.
        inputs: Batches of its input; of several lengths and sizes, best.

    Returns:
        The largest difference of a probability.

    Raises:
        ExportError: It cannot be loaded there, or a probability differs by more than
            `tolerance(model)`.
    """
    served = _run_clean(Path(path), inputs)
    head = model_head(model)

    def compute(batch: Any) -> Any:
        with tf.device("/cpu:0"):  # where the clean process computes, whatever trained it
            return head.scores(model(batch, training=False))

    spec = tf.TensorSpec(model.inputs[0].shape, tf.float32)
    expect = tf.function(compute, input_signature=[spec])
    largest = 0.0
    for batch, scores in zip(inputs, served, strict=True):
        difference = scores.astype(np.float64) - expect(tf.constant(batch)).numpy()
        largest = max(largest, float(np.max(np.abs(difference))))
    allowed = tolerance(model)
    if not largest <= allowed:  # so that NaN is refused too
        raise ExportError(
            f"{path} differs from the model by {largest:.2g} in a probability; "
            f"at most {allowed:.2g} is allowed."
        )
    return largest


def tolerance(model: keras.Model) -> float:
    """Largest difference of a probability that rounding may cause; see the module's top."""
    coarsest = max(SPACING_AT_1.get(name, 0.0) for name in _compute_dtypes(model))
    return max(FLOAT32_TOLERANCE, coarsest / 4)


def _compute_dtypes(model: keras.Model) -> set[str]:
    names: set[str] = set()
    for layer in model.layers:
        names |= _compute_dtypes(layer) if isinstance(layer, keras.Model) else set()
        names.add(str(layer.compute_dtype))
    return names


def _run_clean(path: Path, inputs: Sequence[NDArray[np.float32]]) -> list[NDArray[Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        inputs_path, outputs_path = Path(scratch, "inputs.npz"), Path(scratch, "outputs.npz")
        np.savez(inputs_path, **{f"i{i}": batch for i, batch in enumerate(inputs)})
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
            return [outputs[f"i{i}"] for i in range(len(inputs))]
