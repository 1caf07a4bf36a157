"""Run a whole model on the backend of Keras that the environment variable KERAS_BACKEND names.

`python -m benchmarks.backend_sides FOLDER CLIPS` writes waveforms and labels, and the scores
and losses of TensorFlow. The other functions compare theirs, and return what is to be timed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.single_clip_sides import CLASSES, sigmoid

MODEL, SECONDS = "resnet_rf_small", 10
LOSSES = 3  # training steps whose losses are compared
MOST_SCORES, MOST_LOSSES = 1e-4, 1e-3
WAVES, LABELS, EXPECTED = "waves.npy", "labels.npy", "expected.npz"


def inference(
    folder: str, clips: int, threads: int, compiled: bool = False, exported: bool = False
) -> Callable[[], Any]:
    """Prepare the logits of waveforms; `exported`: by the graph of `torch.export`."""
    waves = np.load(Path(folder, WAVES))[:clips]
    compute = _compute(waves, compiled, exported, threads)
    _compare("scores", sigmoid(compute()), folder, MOST_SCORES, clips)
    return compute


def training(folder: str, threads: int, compiled: bool = False) -> Callable[[], Any]:
    """Prepare a training step."""
    step = _step(folder, compiled, threads)
    _compare("losses", [step() for _ in range(LOSSES)], folder, MOST_LOSSES)
    return step


def _compute(waves: Any, compiled: bool, exported: bool, threads: int) -> Callable[[], Any]:
    import keras

    import rfkeras

    _set_threads(threads)
    model = rfkeras.load_model(MODEL)
    if keras.backend.backend() == "jax":
        import jax

        weights = [
            [variable.value for variable in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]
        call = jax.jit(lambda *given: model.stateless_call(*given, training=False)[0])
        return lambda: np.asarray(call(*weights, waves))
    if keras.backend.backend() == "torch":
        import torch

        inputs = torch.from_numpy(waves)
        forward: Callable[[Any], Any] = model  # without training=True, it is inference
        if exported:
            with torch.no_grad():
                program = torch.export.export(model, (inputs,), strict=False)
            forward = program.module()
        if compiled:
            forward = torch.compile(forward)

        def infer() -> Any:
            with torch.inference_mode():
                return forward(inputs).numpy()

        return infer
    import tensorflow as tf

    graph = tf.function(
        lambda given: model(given, training=False), jit_compile=compiled, autograph=False
    )
    tensor = tf.constant(waves)
    return lambda: graph(tensor).numpy()


def _step(folder: str, compiled: bool, threads: int) -> Callable[[], float]:
    import keras

    import rfkeras
    from rfkeras.training.losses import MaskedBinaryCrossentropy

    _set_threads(threads)
    model = rfkeras.load_model(MODEL)
    model.compile(keras.optimizers.Adam(1e-4), MaskedBinaryCrossentropy(), jit_compile=compiled)
    batch = np.load(Path(folder, WAVES)), np.load(Path(folder, LABELS))
    return lambda: float(model.train_on_batch(*batch))


def _set_threads(threads: int) -> None:
    """Limit the threads of the backend. JAX takes one for each processor of the process."""
    import keras

    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(threads)
    elif keras.backend.backend() == "tensorflow":
        from benchmarks.keras_sides import set_threads

        set_threads(threads)


def _compare(
    what: str, found: Any, folder: str, allowed: float, count: int | None = None
) -> None:
    with np.load(Path(folder, EXPECTED)) as expected:
        difference = np.abs(np.asarray(found) - expected[what][:count]).max()
    if not difference <= allowed:  # also NaN
        raise ValueError(
            f"The {what} differ by {difference:.2g} from those of TensorFlow; at most "
            f"{allowed:g} is allowed."
        )


def write(folder: Path, clips: int) -> None:
    """Write waveforms and labels, and TensorFlow's scores and losses for them."""
    import rfkeras
    from rfkeras.frontend import find_frontend

    _set_threads(1)  # before anything computes
    frontend = find_frontend(rfkeras.load_model(MODEL))
    assert frontend is not None
    rng = np.random.default_rng(0)
    samples = SECONDS * frontend.sample_rate_hz
    # Noise in tones that differ, so that the scores of the clips do.
    tones = np.sin(rng.uniform(0.02, 0.5, (clips, 1)) * np.arange(samples))
    waves = 0.2 * tones + 0.02 * rng.normal(size=(clips, samples))
    np.save(folder / WAVES, waves.astype(np.float32))
    np.save(folder / LABELS, rng.integers(0, 2, (clips, CLASSES)).astype(np.float32))
    scores = sigmoid(_compute(np.load(folder / WAVES), False, False, 1)())
    step = _step(str(folder), False, 1)
    np.savez(folder / EXPECTED, scores=scores, losses=[step() for _ in range(LOSSES)])


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
