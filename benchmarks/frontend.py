"""Compare the front-end with other libraries that compute the same spectrograms."""

from __future__ import annotations

from benchmarks.suite import Bar, Row, Section, Settings
from benchmarks.turns import Side, take_turns
from rfkeras.frontend import PRESETS, preset_config

BATCHES, SECONDS = (16, 1), 10.0
OURS, LIBROSA, EACH_CALL = "rfkeras", "librosa", "librosa, filter bank each call"
NUMPY = "rfkeras, NumPy"
SIDES: dict[str, tuple[str, dict[str, bool]]] = {
    OURS: ("rfkeras_layer", {}),
    NUMPY: ("rfkeras_numpy", {}),
    "rfkeras, TFLite": ("rfkeras_tflite", {}),
    "rfkeras, ONNX Runtime": ("rfkeras_onnx", {}),
    LIBROSA: ("librosa_once", {}),
    "librosa in threads": ("librosa_once", {"in_threads": True}),
    EACH_CALL: ("librosa_each_call", {}),
    "scipy and NumPy": ("scipy_numpy", {}),
    "kapre": ("kapre_layers", {}),
    "tf.signal": ("tf_signal", {}),
}
TIMES_LIBROSA = 5.0

TEXT = f"""
Waveforms to mel spectrograms in dB, for clips of {SECONDS:g} s in float32. All implementations
compute the same values, which a test checks. Windows and filter banks are computed once, except
in "{EACH_CALL}": that is `librosa.feature.melspectrogram` and, for the presets with
A-weighting, `librosa.perceptual_weighting`, which computes in float64. librosa processes one
clip at a time on one processor; "in threads" processes as many clips at a time as there are
processors. "{NUMPY}" is the front-end of `rfkeras tag` with ONNX Runtime, clip by clip.
"TFLite" and "ONNX Runtime" are the front-end of exported files, which avoids complex numbers.
"""


def measure(settings: Settings) -> Section:
    """Measure every preset, for a batch and for one clip."""
    presets = ["mel_32k"] if settings.short else list(PRESETS)
    batches = (2,) if settings.short else BATCHES
    seconds = 0.1 if settings.short else SECONDS
    names = (OURS, NUMPY, LIBROSA) if settings.short else tuple(SIDES)
    rows: list[Row] = []
    bars: list[Bar] = []
    for preset in presets:
        for batch in batches:
            samples = int(seconds * preset_config(preset)["sample_rate_hz"])
            sides = {
                name: _side(name, {"preset": preset, "shape": [batch, samples]})
                for name in names
            }
            times = take_turns(sides, threads=settings.threads, rounds=settings.rounds, calls=3)
            for name, measured in times.items():
                rows.append(
                    {
                        "preset": preset,
                        "batch": batch,
                        "by": name,
                        "ms a clip": measured.median / batch,
                        "from": min(measured.milliseconds) / batch,
                        "to": max(measured.milliseconds) / batch,
                        "times librosa": times[LIBROSA].median / measured.median,
                        "peak MB": round(measured.peak_mb),
                    }
                )
            if not settings.short and batch == max(BATCHES):
                bars += [
                    Bar(
                        f"{preset}, batch {batch}: times {name}",
                        times[name].median / times[OURS].median,
                        TIMES_LIBROSA,
                    )
                    for name in (LIBROSA, EACH_CALL)
                ]
    return Section("Front-end", TEXT.strip(), rows, bars)


def _side(name: str, arguments: dict[str, object]) -> Side:
    function, more = SIDES[name]
    return Side(f"benchmarks.frontend_sides:{function}", {**arguments, **more})
