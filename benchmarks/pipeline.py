"""From files to batches, beside what training takes in the same time."""

from __future__ import annotations

from pathlib import Path

from benchmarks.audio import TEXT as AUDIO_TEXT
from benchmarks.audio import write_audio
from benchmarks.network import FRAMES, FRONTEND, N_MELS, TRAINING_BATCH
from benchmarks.pipeline_sides import pack
from benchmarks.suite import Bar, Row, Section, Settings
from benchmarks.turns import Side, Times, take_turns

CLIP_SECONDS = 10.0
CLIPS = 16
SUFFIXES = ("wav", "flac", "ogg", "mp3")
EXCERPTS = (10.0, 1.25)
SHARDS, IN_GRAPH, CACHE = "shards", "shards, tfio", "ogg, cache"
# Audio in a timed pass: seconds of work each, for systems that share processors out give
# them by tenths of a second. Of short excerpts a quarter, for they are more work.
PASS_SECONDS = dict.fromkeys((SHARDS, IN_GRAPH, CACHE), 9600.0)
FILE_PASS_SECONDS = 2400.0
WIDTHS, RHO = (32, 128), 7
BARRED, TIMES_TRAINING = ("ogg", SHARDS), 2.0

TEXT = f"""
Files of {CLIP_SECONDS:g} s to batches of mono excerpts at 22,050 Hz with labels, by
`rfkeras.datasets.training_batches`: opened, decoded, mixed, resampled and batched, in a random
order, on the same processors as training and in the same turns. {AUDIO_TEXT}. "shards": the
same files packed by `rfkeras data pack`; "tfio": decoded inside the graph by tensorflow-io;
"cache": decoded waveforms kept in memory, from the second pass on. An excerpt of 1.25 s is
read from a file of {CLIP_SECONDS:g} s, as training on short excerpts does. "times training":
audio from the pipeline, over audio that a training step of `resnet_rf` (rho {RHO}, batches of
{TRAINING_BATCH} clips of 10 s, from waveforms, float32) takes in the same time when it waits
for nothing; both share the processors when they run together. The bar is for excerpts of
10 s.
"""


def measure(settings: Settings) -> Section:
    """Each format and way of storing, with both lengths of excerpts."""
    suffixes, excerpts = (("ogg",), (1.25,)) if settings.short else (SUFFIXES, EXCERPTS)
    folders = _folders(settings, suffixes)
    rows: list[Row] = []
    bars: list[Bar] = []
    for seconds in excerpts:
        sides = _pipelines(settings, folders, seconds)
        steps = {} if settings.short else {f"width {width}": _step(width) for width in WIDTHS}
        times = take_turns(
            {**sides, **steps}, threads=settings.threads, rounds=settings.rounds, calls=1
        )
        taken = {
            width: 1000.0 * TRAINING_BATCH * CLIP_SECONDS / times[f"width {width}"].median
            for width in (() if settings.short else WIDTHS)
        }
        found = [
            _row(name, seconds, _pass_seconds(settings, name, seconds), times[name], taken)
            for name in sides
            if name in times
        ]
        rows += found
        if seconds == CLIP_SECONDS:
            bars = _bars(found)
    return Section("Input pipeline", TEXT.strip(), rows, bars)


def _folders(settings: Settings, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Folders of generated files, and of shards, by the name of the side that reads them."""
    clips = 2 if settings.short else CLIPS
    folders = {suffix: settings.scratch / suffix for suffix in suffixes}
    for suffix, folder in folders.items():
        folder.mkdir()
        for number in range(clips):
            write_audio(folder / f"{number}.{suffix}", CLIP_SECONDS, seed=number)
    shards = settings.scratch / "shards"
    pack(folders["ogg"], shards)
    folders |= {SHARDS: shards}
    return folders if settings.short else {**folders, IN_GRAPH: shards, CACHE: folders["ogg"]}


def _pass_seconds(settings: Settings, name: str, excerpt_seconds: float) -> float:
    if settings.short:
        return CLIP_SECONDS
    share = 1.0 if excerpt_seconds == CLIP_SECONDS else 0.25
    return share * PASS_SECONDS.get(name, FILE_PASS_SECONDS)


def _pipelines(
    settings: Settings, folders: dict[str, Path], excerpt_seconds: float
) -> dict[str, Side]:
    batch = 2 if settings.short else round(TRAINING_BATCH * CLIP_SECONDS / excerpt_seconds)
    return {
        name: Side(
            "benchmarks.pipeline_sides:batches",
            {
                "folder": str(folder),
                "excerpt_seconds": excerpt_seconds,
                "batch_size": batch,
                "steps": round(
                    _pass_seconds(settings, name, excerpt_seconds) / batch / excerpt_seconds
                ),
                "decoder": "tfio" if name == IN_GRAPH else "soundfile",
                "cached": name == CACHE,
            },
        )
        for name, folder in folders.items()
    }


def _step(width: int) -> Side:
    shape = [TRAINING_BATCH, FRAMES, N_MELS]
    arguments = {"rho": RHO, "width": width, "shape": shape, "frontend": FRONTEND}
    return Side("benchmarks.keras_sides:training", arguments)


def _row(
    name: str,
    excerpt_seconds: float,
    audio_seconds: float,
    times: Times,
    taken: dict[int, float],
) -> Row:
    rate = 1000.0 * audio_seconds / times.median
    row: Row = {
        "from": name,
        "excerpt s": excerpt_seconds,
        "excerpts/s": rate / excerpt_seconds,
        "audio s/s": rate,
    }
    for width, training in taken.items():
        row[f"times training, width {width}"] = rate / training
    return {**row, "peak MB": round(times.peak_mb)}


def _bars(rows: list[Row]) -> list[Bar]:
    return [
        Bar(
            f"from {row['from']}, {CLIP_SECONDS:g} s: times training at width {width}",
            row[f"times training, width {width}"],
            TIMES_TRAINING,
        )
        for row in rows
        if row["from"] in BARRED
        for width in WIDTHS
    ]
