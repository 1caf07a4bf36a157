"""Measure how long a fresh process takes until its first result."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from benchmarks.audio import write_audio
from benchmarks.processes import Run, median_seconds, run_in_turns
from benchmarks.suite import Row, Section, Settings

SECONDS = 10.0
KERAS = "import keras (with TensorFlow)"

TEXT = f"""
Whole processes in turns, from the start of Python to its end, with files already in memory.
"without Keras": the time minus that of importing Keras and TensorFlow. Training: one step
with a batch of four clips of {SECONDS:g} s from a folder of WAV files, including the tracing of
the network of width 128, with the public functions of the library. Scores: the pretrained model
`resnet_rf_tiny`, loaded and run on one of these files, from Python and with `rfkeras tag`.
"""


def measure(settings: Settings) -> Section:
    """Measure imports, RF arithmetic, commands, the first step and the first scores."""
    commands = _commands(settings)
    runs = run_in_turns(commands, threads=settings.threads, rounds=settings.rounds)
    keras = median_seconds(runs[KERAS]) if KERAS in runs else None
    rows = [_row(name, measured, keras) for name, measured in runs.items()]
    return Section("Start-up", TEXT.strip(), rows)


def _commands(settings: Settings) -> dict[str, list[str]]:
    cli = ["-m", "rfkeras.cli"]
    commands = {
        "python": ["-c", "pass"],
        "rfkeras --help": [*cli, "--help"],
        "import rfkeras": ["-c", "import rfkeras"],
        "receptive field of rho 7": [
            "-c",
            "import rfkeras; rfkeras.rf.rf_of_rho(7)",
        ],
        "rfkeras models": [*cli, "models"],
    }
    if settings.short:
        return commands
    clips = _clips(settings.scratch)
    sides = ["-m", "benchmarks.startup_sides"]
    commands |= {
        KERAS: ["-c", "import keras"],
        "rfkeras rf resnet_rf": [*cli, "rf", "resnet_rf", "--no-plots"],
        "zoo.create_model": [*sides, "create_model"],
        "first training step": [*sides, "first_batch", str(clips), "128", str(SECONDS)],
        "first scores": [*sides, "first_scores", str(clips / "one/0.wav")],
        "rfkeras tag": [*cli, "tag", str(clips / "one/0.wav"), "--quiet"],
    }
    return commands


def _clips(folder: Path) -> Path:
    for name in ("one", "two"):
        (folder / name).mkdir()
        for number in range(4):
            write_audio(folder / name / f"{number}.wav", SECONDS, seed=number)
    return folder


def _row(name: str, runs: list[Run], keras_seconds: float | None) -> Row:
    seconds = [run.seconds for run in runs]
    middle = median(seconds)
    needs_keras = keras_seconds is not None and middle >= keras_seconds and name != KERAS
    return {
        "what": name,
        "s": middle,
        "from": min(seconds),
        "to": max(seconds),
        "processor s": median(run.processor_seconds for run in runs),
        "s beyond Keras": middle - keras_seconds
        if needs_keras and keras_seconds is not None
        else None,
        "peak MB": round(max(run.peak_mb for run in runs)),
    }
