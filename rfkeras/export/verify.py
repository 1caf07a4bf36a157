"""Proof that an export computes what the model computes."""

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

TOLERANCE = 1e-5  # of a probability; the same operations in another order of threads
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
        ExportError: It cannot be loaded there, or a probability differs by more than 1e-5.
    """
    served = _run_clean(Path(path), inputs)
    largest = 0.0
    for batch, scores in zip(inputs, served, strict=True):
        with tf.device("/cpu:0"):  # where the clean process computes, whatever trained it
            logits = keras.ops.convert_to_numpy(model(batch, training=False))
        expected = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
        largest = max(largest, float(np.max(np.abs(scores - expected))))
    if not largest <= TOLERANCE:
        raise ExportError(
            f"{path} differs from the model by {largest:.2g} in a probability; "
            f"at most {TOLERANCE:g} is allowed."
        )
    return largest


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
