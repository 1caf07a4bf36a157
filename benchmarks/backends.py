"""Compare the backends of Keras on a whole model: scores of waveforms, and a training step."""

from __future__ import annotations

from typing import Any

from benchmarks.backend_sides import LOSSES, MODEL, SECONDS
from benchmarks.processes import run_python
from benchmarks.suite import Row, Section, Settings
from benchmarks.turns import Side, Times, take_turns

OWN = "benchmarks.backend_sides"
REFERENCE = "TensorFlow"
# By name: the backend, and whether XLA or torch.compile compiles the whole program.
SIDES = {
    REFERENCE: ("tensorflow", False),
    "TensorFlow, XLA": ("tensorflow", True),
    "JAX, jit": ("jax", True),
    "PyTorch, eager": ("torch", False),
    "PyTorch, torch.compile": ("torch", True),
}
BATCH = 10
# Function of a side, batch size and calls per turn.
WORK: dict[str, tuple[str, int, int]] = {
    "scores of 1 clip": ("inference", 1, 10),
    f"scores of {BATCH} clips": ("inference", BATCH, 3),
    f"training step, {BATCH} clips": ("training", BATCH, 2),
}

TEXT = f"""
The pretrained model `{MODEL}` with its front-end on clips of {SECONDS} s, float32, on the
backends of Keras. "{REFERENCE}" is a `tf.function`, "PyTorch, eager" is not compiled.
"JAX, jit" and "TensorFlow, XLA" are compiled by XLA as a whole, and "PyTorch, torch.compile" by
inductor. A training step is `train_on_batch`: forward, backward, Adam. Before a backend is
timed, its scores are compared with those of TensorFlow (at most 1e-4), and the losses of
{LOSSES} training steps (at most 1e-3). "ready": from the start of the process to the end of the
first call, compilation included.
"""


def measure(settings: Settings) -> Section:
    """Measure inference and training on all backends that are installed."""
    run_python(["-m", OWN, str(settings.scratch), str(_batch(settings))], settings.threads)
    rows: list[Row] = []
    for what, (function, clips, calls) in WORK.items():
        arguments = {
            "folder": str(settings.scratch),
            "clips": min(clips, _batch(settings)),
        }
        sides = {
            name: Side(
                f"{OWN}:{function}",
                {**arguments, "compiled": compiled},
                _environment(backend, settings),
            )
            for name, (backend, compiled) in SIDES.items()
        }
        times = take_turns(
            sides,
            threads=settings.threads,
            rounds=settings.rounds,
            calls=1 if settings.short else calls,
        )
        rows += _rows(what, times)
    return Section("Backends", TEXT.strip(), rows)


def _batch(settings: Settings) -> int:
    return 2 if settings.short else BATCH


def _environment(backend: str, settings: Settings) -> dict[str, str]:
    # inductor keeps compiled code here, so that nothing is left of an earlier run.
    cache = str(settings.scratch / "inductor")
    return {"KERAS_BACKEND": backend, "TORCHINDUCTOR_CACHE_DIR": cache}


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
