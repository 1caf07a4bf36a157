"""Measure the speed and memory of `rfkeras tag`, as a whole process."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from benchmarks.audio import TEXT as AUDIO_TEXT
from benchmarks.audio import write_audio
from benchmarks.processes import Run, median_seconds, run_in_turns
from benchmarks.suite import Bar, Row, Section, Settings

TINY, WIDE = "resnet_rf_tiny", "resnet_rf, width 128"
SUFFIXES = ("wav", "ogg")
MINUTES = {TINY: (1.0, 10.0, 30.0), WIDE: (1.0, 3.0)}
MEMORY_MINUTES = (1.0, 4.0, 16.0, 60.0)
TIMES_REAL_TIME, BARRED_MINUTES = 100.0, 10.0
PICTURE = "memory_by_length.png"

TEXT = f"""
One stereo file at 44.1 kHz, tagged by the command `rfkeras tag`, from the start of the process
to its end, including the printed table. "without start-up" is the speed on additional audio:
the extra audio compared with the file of one minute, divided by the extra time. {AUDIO_TEXT}.
Memory is the peak resident memory of the process, for mono WAV files. The target refers to
`{TINY}` on files of {BARRED_MINUTES:g} minutes, including start-up.
"""


def measure(settings: Settings) -> Section:
    """Measure both models and formats for several lengths, and peak memory."""
    minutes = {TINY: (0.05,)} if settings.short else MINUTES
    suffixes = SUFFIXES[:1] if settings.short else SUFFIXES
    rows: list[Row] = []
    for model, lengths in minutes.items():
        name = TINY if model == TINY else str(_wide(settings.scratch))
        for suffix in suffixes:
            runs = _runs(settings, name, suffix, lengths, settings.rounds)
            rows += [_row(model, suffix, length, runs) for length in lengths]
    bars = [
        Bar(
            f"{TINY}, {row['format']}, {BARRED_MINUTES:g} minutes: times real time",
            row["times real time"],
            TIMES_REAL_TIME,
        )
        for row in rows
        if row["model"] == TINY and row["minutes"] == BARRED_MINUTES
    ]
    memory = (
        runs if settings.short else _runs(settings, TINY, "wav", MEMORY_MINUTES, 1, channels=1)
    )
    peaks = {length: runs[0].peak_mb for length, runs in memory.items()}
    draw_memory(settings.folder / PICTURE, peaks)
    shown = ", ".join(f"{peak:.0f} MB at {length:g} min" for length, peak in peaks.items())
    pictures = {PICTURE: f"Peak memory of `rfkeras tag` by file length: {shown}."}
    return Section("Tagging", TEXT.strip(), rows, bars, pictures)


def _wide(folder: Path) -> Path:
    """Save the network of full width with random weights; return the path."""
    path = folder / "wide.keras"
    if not path.exists():
        import zoo

        zoo.create_model("resnet_rf", 20, width=128, initialization="he").save(path)
    return path


def _runs(
    settings: Settings,
    model: str,
    suffix: str,
    lengths: tuple[float, ...],
    rounds: int,
    channels: int = 2,
) -> dict[float, list[Run]]:
    """Run the command; return the runs by minutes of audio."""
    paths = {n: settings.scratch / f"{n:g}_{channels}.{suffix}" for n in lengths}
    for length, path in paths.items():
        if not path.exists():
            write_audio(path, 60.0 * length, channels=channels)
    commands = {
        str(length): ["-m", "rfkeras.cli", "tag", str(path), "--model", model, "--quiet"]
        for length, path in paths.items()
    }
    runs = run_in_turns(commands, threads=settings.threads, rounds=rounds)
    return {length: runs[str(length)] for length in lengths}


def _row(model: str, suffix: str, length: float, runs: dict[float, list[Run]]) -> Row:
    seconds = median_seconds(runs[length])
    first = min(runs)
    beyond = None
    if length > first:
        more = seconds - median_seconds(runs[first])
        beyond = 60.0 * (length - first) / more
    return {
        "model": model,
        "format": suffix,
        "minutes": length,
        "s": seconds,
        "processor s": median(run.processor_seconds for run in runs[length]),
        "times real time": 60.0 * length / seconds,
        "beyond start-up": beyond,
        "peak MB": round(max(run.peak_mb for run in runs[length])),
    }


def draw_memory(path: Path, peaks: dict[float, float]) -> None:
    """Plot memory against the length of the file.

    Args:
        path: PNG file to write.
        peaks: Peak memory in MB by minutes of audio.
    """
    from rfkeras.utils.plotting import BLUE, new_figure, save_png, style_axes

    figure = new_figure(
        5.0,
        2.8,
        "Memory by file length",
        f"Peak resident memory of rfkeras tag in MB, {TINY}",
    )
    axes = figure.add_axes((0.12, 0.17, 0.83, 0.6))
    style_axes(axes)
    axes.plot(list(peaks), list(peaks.values()), color=BLUE, marker="o", linewidth=1.5)
    axes.set_ylim(0, 1.25 * max(peaks.values()))
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(peaks), [f"{minutes:g}" for minutes in peaks])
    axes.set_xlabel("minutes of audio", fontsize=8)
    for minutes, peak in peaks.items():
        axes.annotate(
            f"{peak:.0f}",
            (minutes, peak),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    save_png(figure, path)
