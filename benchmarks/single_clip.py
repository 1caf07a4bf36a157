"""Compare engines on the network of a single clip, without the front-end."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.network import FRAMES, N_MELS
from benchmarks.processes import run_python
from benchmarks.suite import Bar, Row, Section, Settings
from benchmarks.turns import Side, Times, take_turns

RHO = 7
CALLS = {4: 1, 32: 10, 128: 4}  # per turn, by width
OURS, RUNTIME, COMPILED = "rfkeras (OnnxTagger)", "ONNX Runtime", "torch.compile, frozen"
OWN, TORCH = "benchmarks.single_clip_sides", "benchmarks.torch_resnet"
SIDES: dict[str, tuple[str, dict[str, bool]]] = {
    OURS: (f"{OWN}:onnx_tagger", {}),
    RUNTIME: (f"{OWN}:onnx_runtime", {}),
    "OpenVINO": (f"{OWN}:openvino_graph", {}),
    COMPILED: (f"{TORCH}:single_clip", {"channels_last": True, "compiled": True}),
    "PyTorch channels_last": (f"{TORCH}:single_clip", {"channels_last": True}),
    "PyTorch": (f"{TORCH}:single_clip", {"channels_last": False}),
    "rfkeras SavedModel": (f"{OWN}:saved_model", {}),
    "TensorFlow": (f"{OWN}:tensorflow_function", {}),
    "TFLite": (f"{OWN}:tflite_static", {}),
}
# The largest share of ONNX Runtime's time, and the least speed relative to torch.compile.
MOST_OF_RUNTIME, TIMES_COMPILED = 1.1, 1.0

TEXT = f"""
The network of `resnet_rf` at rho {RHO} on the spectrogram of one clip of 10 s ({FRAMES} frames
by {N_MELS} mel bands), 20 tags, float32, without the front-end. All implementations have the
same weights. Before one is timed, its scores are compared with those of the Keras model; more
than 1e-4 is an error. "{OURS}": the engine of `rfkeras tag`, with the front-end replaced by
the spectrogram. "{RUNTIME}" and "OpenVINO": the file of `rfkeras export --to onnx
--without-frontend`, without anything of this library; for OpenVINO with a fixed shape.
"{COMPILED}": inductor with `torch._inductor.config.freezing`, channels_last and
`torch.inference_mode`. "PyTorch" is eager. "TensorFlow": the Keras model in a `tf.function`.
"rfkeras SavedModel": the exported SavedModel in TensorFlow. "TFLite": the folded network,
converted with a fixed shape, so that XNNPACK runs it.
"""


def measure(settings: Settings) -> Section:
    """Measure widths 32 and 128."""
    rows: list[Row] = []
    bars: list[Bar] = []
    for width in (4,) if settings.short else (32, 128):
        times = _times(settings, width)
        rows += _rows(width, times)
        if not settings.short:
            bars += _bars(width, times)
    return Section("Single clip", TEXT.strip(), rows, bars)


def _times(settings: Settings, width: int) -> dict[str, Times]:
    folder = settings.scratch / str(width)
    folder.mkdir()
    rho, frames = (1, 43) if settings.short else (RHO, FRAMES)
    run_python(
        ["-m", OWN, str(folder), str(rho), str(width), str(frames)], threads=settings.threads
    )
    arguments = {"folder": str(folder), "rho": rho, "width": width}
    # inductor keeps compiled code here, so that nothing is left of an earlier run.
    environment = {"TORCHINDUCTOR_CACHE_DIR": os.fspath(Path(folder, "inductor"))}
    sides = {
        name: Side(target, {**arguments, **more}, environment)
        for name, (target, more) in SIDES.items()
    }
    return take_turns(
        sides, threads=settings.threads, rounds=settings.rounds, calls=CALLS[width]
    )


def _rows(width: int, times: dict[str, Times]) -> list[Row]:
    return [
        {
            "width": width,
            "by": name,
            "ms a clip": measured.median,
            "from": min(measured.milliseconds),
            "to": max(measured.milliseconds),
            "of ONNX Runtime": measured.median / times[RUNTIME].median,
            "ready after s": measured.ready_ms / 1000,
            "peak MB": round(measured.peak_mb),
        }
        for name, measured in times.items()
    ]


def _bars(width: int, times: dict[str, Times]) -> list[Bar]:
    ours = times[OURS].median
    bars = [
        Bar(
            f"width {width}: speed relative to ONNX Runtime",
            times[RUNTIME].median / ours,
            1 / MOST_OF_RUNTIME,
        )
    ]
    if COMPILED in times:
        ratio = times[COMPILED].median / ours
        bars.append(
            Bar(f"width {width}: speed relative to torch.compile", ratio, TIMES_COMPILED)
        )
    return bars
