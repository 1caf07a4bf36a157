"""Compare the backends of Keras on a whole model: scores of waveforms, and a training step."""

from __future__ import annotations

from typing import Any

from benchmarks.backend_sides import LOSSES, MODEL, SECONDS
from benchmarks.processes import run_python
from benchmarks.suite import Row, Section, Settings
from benchmarks.turns import Side, Times, take_turns

OWN = "benchmarks.backend_sides"
REFERENCE = "TensorFlow"
# By name: the backend, and what XLA or torch.compile compiles.
SIDES: dict[str, tuple[str, dict[str, bool]]] = {
    REFERENCE: ("tensorflow", {}),
    "TensorFlow, XLA": ("tensorflow", {"compiled": True}),
    "JAX, jit": ("jax", {"compiled": True}),
    "PyTorch, eager": ("torch", {}),
}
# Only inference: torch.compile cannot trace a training step through the layers of Keras.
GRAPHS: dict[str, tuple[str, dict[str, bool]]] = {
    "PyTorch, torch.export": ("torch", {"exported": True}),
    "PyTorch, torch.export and torch.compile": ("torch", {"exported": True, "compiled": True}),
}
BATCH = 10
# Clips to score, or None for a training step; calls per turn.
WORK: dict[str, tuple[int | None, int]] = {
    "scores of 1 clip": (1, 10),
    f"scores of {BATCH} clips": (BATCH, 3),
    f"training step, {BATCH} clips": (None, 2),
}

TEXT = f"""
The pretrained model `{MODEL}` with its front-end on clips of {SECONDS} s, float32, on the
backends of Keras. "{REFERENCE}" is a `tf.function`, "PyTorch, eager" is not compiled.
"JAX, jit" and "TensorFlow, XLA" are compiled by XLA as a whole. "PyTorch, torch.export" is the
graph of the model, which inductor compiles for "torch.export and torch.compile".
A training step is `train_on_batch`: forward, backward, Adam. Before a backend is
timed, its scores are compared with those of TensorFlow (at most 1e-4), and the losses of
{LOSSES} training steps (at most 1e-3). "ready": from the start of the process to the end of the
first call, compilation included.
"""


def measure(settings: Settings) -> Section:
    """Measure inference and training on all backends that are installed."""
    run_python(["-m", OWN, str(settings.scratch), str(_batch(settings))], settings.threads)
    rows: list[Row] = []
    for what, (clips, calls) in WORK.items():
        times = take_turns(
            _sides(min(clips, _batch(settings)) if clips else None, settings),
            threads=settings.threads,
            rounds=settings.rounds,
            calls=1 if settings.short else calls,
        )
        rows += _rows(what, times)
    return Section("Backends", TEXT.strip(), rows)


def _sides(clips: int | None, settings: Settings) -> dict[str, Side]:
    """Return what is compared, by name: scores of that many clips, or a training step."""
    folder = {"folder": str(settings.scratch)}
    # inductor keeps compiled code here, so that nothing is left of an earlier run.
    cache = str(settings.scratch / "inductor")
    function = f"{OWN}:{'inference' if clips else 'training'}"
    counted = {"clips": clips} if clips else {}
    return {
        name: Side(
            function,
            {**folder, **counted, **options},
            {"KERAS_BACKEND": backend, "TORCHINDUCTOR_CACHE_DIR": cache},
        )
        for name, (backend, options) in (SIDES | GRAPHS if clips else SIDES).items()
    }


def _batch(settings: Settings) -> int:
    return 2 if settings.short else BATCH


def _rows(what: str, times: dict[str, Times]) -> list[dict[str, Any]]:
    return [
        {
            "what": what,
            "backend": name,
            "ms": measured.median,
            "from": min(measured.milliseconds),
            "to": max(measured.milliseconds),
            "of TensorFlow": measured.median / times[REFERENCE].median,
            "ready after s": measured.ready_ms / 1000,
            "peak MB": round(measured.peak_mb),
        }
        for name, measured in times.items()
    ]
