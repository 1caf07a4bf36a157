"""Input pipelines, as training reads from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.keras_sides import set_threads
from rfkeras import datasets
from rfkeras.audio import AudioFormat

AUDIO = AudioFormat(22050)
CACHE_BYTES = 1 << 30


def split_of(folder: Path) -> datasets.Split:
    """The files of a folder, with labels that nobody looks at."""
    paths = tuple(sorted(folder.iterdir()))
    labels = np.zeros((len(paths), 20), np.float32)
    return datasets.Split(
        tuple(path.stem for path in paths), paths, labels, np.ones_like(labels)
    )


def pack(folder: Path, shards: Path) -> None:
    """Write a folder's files as shards."""
    tags = tuple(f"tag {number}" for number in range(20))
    dataset = datasets.AudioDataset("clips", tags, {"train": split_of(folder)})
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
    """So many batches of excerpts, from the first to the last.

    Args:
        folder: Of audio files, or of shards.
        excerpt_seconds: Length of an excerpt.
        batch_size: Excerpts in a batch.
        steps: Batches.
        threads: Processors.
        decoder: See `rfkeras.datasets.training_batches`.
        cached: Keep decoded files; the first passes, which are not timed, fill the cache.
    """
    set_threads(threads)
    packed = Path(folder, "index.json").exists()
    split = datasets.load_packed(folder).splits["train"] if packed else split_of(Path(folder))
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
