"""Measure the input pipeline, and compare it with the speed of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.audio import TEXT as AUDIO_TEXT
from benchmarks.audio import write_audio
from benchmarks.keras_sides import set_threads
from benchmarks.network import FRAMES, FRONTEND, N_MELS, TRAINING_BATCH
from benchmarks.suite import Bar, Row, Section, Settings
from benchmarks.turns import Side, Times, take_turns
from rfkeras import datasets
from rfkeras.audio import AudioFormat

CLIP_SECONDS = 10.0
CLIPS = 16
SUFFIXES = ("wav", "flac", "ogg", "mp3")
EXCERPTS = (10.0, 1.25)
AUDIO = AudioFormat(22050)
CACHE_BYTES = 1 << 30
SHARDS, IN_GRAPH, CACHE = "shards", "shards, tfio", "ogg, cache"
# Seconds of audio in a timed pass. A pass takes seconds, because schedulers of shared machines
# assign processors for tenths of a second. Short excerpts are slower, so they get a quarter.
PASS_SECONDS = dict.fromkeys((SHARDS, IN_GRAPH, CACHE), 9600.0)
FILE_PASS_SECONDS = 2400.0
WIDTHS, RHO = (32, 128), 7
BARRED, TIMES_TRAINING = ("ogg", SHARDS), 2.0

TEXT = f"""
Files of {CLIP_SECONDS:g} s to labelled batches of mono excerpts at 22,050 Hz, with
`rfkeras.datasets.training_batches`: files are opened, decoded, mixed, resampled and batched in
random order, on the same processors as training and in the same turns. {AUDIO_TEXT}.
"shards": the same files, packed with `rfkeras data pack`. "tfio": decoded inside the graph by
tensorflow-io. "cache": decoded waveforms are kept in memory from the second pass on. An excerpt
of 1.25 s is read from a file of {CLIP_SECONDS:g} s, as when training on short excerpts. "times
training": seconds of audio from the pipeline, divided by seconds of audio that training of
`resnet_rf` (rho {RHO}, batches of {TRAINING_BATCH} clips of 10 s, from waveforms, float32)
processes in the same time without waiting for data. Pipeline and training share the processors
when they run together. Targets refer to excerpts of 10 s.
"""


def measure(settings: Settings) -> Section:
    """Measure each format and storage, with both excerpt lengths."""
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
    """Write audio files and shards; return their folders by the name of the side."""
    clips = 2 if settings.short else CLIPS
    folders = {suffix: settings.scratch / suffix for suffix in suffixes}
    for suffix, folder in folders.items():
        folder.mkdir()
        for number in range(clips):
            write_audio(folder / f"{number}.{suffix}", CLIP_SECONDS, seed=number)
    shards = settings.scratch / "shards"
    _pack(folders["ogg"], shards)
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
            "benchmarks.pipeline:batches",
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


def _split_of(folder: Path) -> datasets.Split:
    """Return the files of a folder with arbitrary labels."""
    paths = tuple(sorted(folder.iterdir()))
    labels = np.zeros((len(paths), 20), np.float32)
    return datasets.Split(
        tuple(path.stem for path in paths), paths, labels, np.ones_like(labels)
    )


def _pack(folder: Path, shards: Path) -> None:
    """Pack the files of a folder into shards."""
    tags = tuple(f"tag {number}" for number in range(20))
    dataset = datasets.AudioDataset("clips", tags, {"train": _split_of(folder)})
    datasets.pack(dataset, AUDIO, shards, workers=1, progress=False)


def batches(
    folder: str,
    excerpt_seconds: float,
    batch_size: int,
    steps: int,
    threads: int,
    decoder: str = "soundfile",
    cached: bool = False,
) -> Callable[[], Any]:
    """Prepare a pass over batches of excerpts.

    Args:
        folder: Folder of audio files or of shards.
        excerpt_seconds: Length of an excerpt.
        batch_size: Number of excerpts in a batch.
        steps: Number of batches.
        threads: Number of processors.
        decoder: See `rfkeras.datasets.training_batches`.
        cached: Keep decoded files in memory. The untimed first passes fill the cache.
    """
    set_threads(threads)
    packed = Path(folder, "index.json").exists()
    split = datasets.load_packed(folder).splits["train"] if packed else _split_of(Path(folder))
    pipeline = datasets.training_batches(
        split,
        AUDIO,
        excerpt_seconds=excerpt_seconds,
        batch_size=batch_size,
        seed=0,
        steps_per_epoch=steps,
        total_steps=steps,
        bad_files=datasets.BadFileLog(None, total_files=len(split)),
        decoder=decoder,
        cache_bytes=CACHE_BYTES if cached else 0,
    )

    def run() -> None:
        for _ in pipeline:
            pass

    return run
