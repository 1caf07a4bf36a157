"""tf.data pipelines: batches to train on, windows to evaluate.

Whichever way a data set is stored, files or shards, the same two functions read it, and
every order and every random choice is a function of seed, epoch and position.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.decode import DECODERS
from rfkeras.audio.io import AudioFormat, Waveform
from rfkeras.datasets import excerpts
from rfkeras.datasets.base import BadFileLog, Split
from rfkeras.datasets.excerpts import (
    WHOLE,
    ClipReader,
    EvaluationPlan,
    Part,
    WaveformCache,
    finish,
    readers,
)
from rfkeras.datasets.packed import PackedSplit
from rfkeras.errors import AudioError, ConfigError, DatasetError, unknown_name

if TYPE_CHECKING:
    import tensorflow as tf

# Clips tried in turn when one cannot be read. The limit on bad files normally stops the
# run long before so many neighbours are bad.
_CANDIDATES = 16


def training_batches(
    split: Split,
    audio: AudioFormat,
    *,
    excerpt_seconds: float,
    batch_size: int,
    seed: int,
    steps_per_epoch: int,
    total_steps: int,
    bad_files: BadFileLog,
    start_step: int = 0,
    decoder: str = "soundfile",
    cache_bytes: int = 0,
    cache: WaveformCache | None = None,
    part: Part = WHOLE,
) -> tf.data.Dataset:
    """Random excerpts with labels, from one step of a training run to its last.

    Step s of epoch e holds the same clips and excerpts whatever start_step is. A clip
    shorter than the excerpt is repeated circularly. A file that cannot be read is recorded
    in bad_files and the next clip of the epoch's order takes its place; when too many
    cannot, iterating raises a TensorFlow error and `bad_files.raise_if_stopped()` the
    DatasetError behind it.

    Args:
        split: The clips, from files or from packed shards.
        audio: Format of the waveforms.
        excerpt_seconds: Length of an excerpt.
        batch_size: Excerpts in a batch.
        seed: Seed of order and excerpts, 0 to 2^31 - 1.
        steps_per_epoch: Batches in an epoch; see `order.default_steps_per_epoch`. Clips
            left over sit out that epoch. When there are too few, they come round again.
        total_steps: Batches of the whole run.
        bad_files: Collects files that cannot be read.
        start_step: Batches of the run already done.
        decoder: "soundfile"; "isolated", which does the same in processes that may die; or
            "tfio" to decode shards inside the TensorFlow graph.
        cache_bytes: Keep decoded files in memory up to this many bytes (files of up to
            60 s; shards need no cache). 0 keeps nothing.
        cache: A cache shared with other pipelines, instead of cache_bytes.
        part: What this worker reads of every batch, where several train together: it
            decodes no other clip. From files, the parts of all workers make up the very
            batches of a single one. Packed shards are dealt to the workers anew in each
            epoch, so that each reads its own files; where there are fewer shards than
            workers, all read all of them, and the batches are those of a single one again.

    Returns:
        (waveform, labels, mask) of float32, (batch, samples) or (batch, samples, 2),
        (batch, classes) and (batch, classes). Its cardinality is total_steps - start_step;
        with several replicas a worker, a batch for each of them in turn, and so many times
        as many.

    Raises:
        ConfigError: An argument is out of range, or the decoder does not fit the data.
        DatasetError: The split is empty.
    """
    own_batch = part.batch(batch_size)
    excerpts.check_steps(
        batch_size=batch_size,
        seed=seed,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        start_step=start_step,
    )
    count = _check(split, audio, excerpt_seconds, batch_size, decoder)
    if cache is not None and cache_bytes:
        raise ConfigError("Give either cache or cache_bytes, not both.")
    if isinstance(split, PackedSplit):
        from rfkeras.datasets import packed_pipeline

        return packed_pipeline.training_batches(
            split,
            audio,
            count=count,
            batch_size=batch_size,
            seed=seed,
            steps_per_epoch=steps_per_epoch,
            steps=(start_step, total_steps),
            decoder=decoder,
            bad_files=bad_files,
            part=part,
        )

    import tensorflow as tf

    if cache is None and cache_bytes:
        cache = WaveformCache(cache_bytes)
    reader = ClipReader(audio, cache, decoder)
    labels, mask = tf.constant(split.labels), tf.constant(split.mask)
    epoch_clips = steps_per_epoch * batch_size

    def read(rows: NDArray[np.int64], fraction: np.float64) -> tuple[Waveform, np.int64]:
        return _first_readable(split, rows, float(fraction), count, reader, bad_files)

    def load(own: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        clip = part.place(own, batch_size)
        epoch, position = clip // epoch_clips, clip % epoch_clips
        candidates = position + tf.range(min(_CANDIDATES, len(split)), dtype=tf.int64)
        rows = excerpts.clip_rows(seed, epoch, candidates, len(split))
        fraction = excerpts.excerpt_fraction(seed, epoch, position)
        waveform, row = tf.numpy_function(read, [rows, fraction], (tf.float32, tf.int64))
        row = tf.ensure_shape(row, [])
        return (
            tf.ensure_shape(waveform, audio.shape(count)),
            tf.gather(labels, row),
            tf.gather(mask, row),
        )

    clips = tf.data.Dataset.range(start_step * own_batch, total_steps * own_batch)
    elements = clips.map(load, num_parallel_calls=readers())
    return finish(elements, own_batch // part.replicas)


def evaluation_batches(
    split: Split,
    audio: AudioFormat,
    *,
    window_seconds: float,
    batch_size: int,
    bad_files: BadFileLog,
    decoder: str = "soundfile",
    cache: WaveformCache | None = None,
) -> tuple[tf.data.Dataset, EvaluationPlan]:
    """Consecutive windows that cover every clip, in batches that are always full.

    A clip shorter than a window is repeated circularly; the last window of a longer one is
    moved back to end with the clip; the last batch is filled up with the first windows.
    Clips that cannot be read are recorded in bad_files and are not in `plan.kept_rows`.

    Args:
        split: The clips, from files or from packed shards.
        audio: Format of the waveforms.
        window_seconds: Length of a window.
        batch_size: Windows in a batch.
        bad_files: Collects files that cannot be read.
        decoder: "soundfile"; "isolated", which does the same in processes that may die; or
            "tfio" to decode shards inside the TensorFlow graph.
        cache: Keeps decoded files in memory; may be shared with a training pipeline.

    Returns:
        The waveforms, float32 (batch, samples) or (batch, samples, 2) with cardinality
        plan.batches, and the plan that turns window scores into clip scores. The data set
        may be iterated again: it is the same each time.

    Raises:
        ConfigError: An argument is out of range, or the decoder does not fit the data.
        DatasetError: The split is empty, no clip can be read, or too many cannot.
    """
    count = _check(split, audio, window_seconds, batch_size, decoder)
    if isinstance(split, PackedSplit):
        from rfkeras.datasets import packed_pipeline

        return packed_pipeline.evaluation_batches(
            split,
            audio,
            count=count,
            batch_size=batch_size,
            decoder=decoder,
            bad_files=bad_files,
        )

    import tensorflow as tf

    reader = ClipReader(audio, cache, decoder)
    plan = EvaluationPlan.from_lengths(_lengths(split, reader, bad_files), count, batch_size)
    if plan.windows == 0:
        raise DatasetError(
            f"None of the {len(split)} clips can be read. First: {bad_files.files[0].path}: "
            f"{bad_files.files[0].reason}."
        )

    def read(window: np.int64) -> Waveform:
        row, start = int(plan.rows[window]), int(plan.starts[window])
        if row not in plan.failed:
            try:
                return reader.window(split.paths[row], start, count)
            except AudioError as error:
                plan.failed.add(row)
                bad_files.record(error, "evaluation")
        # The plan leaves this clip out: its scores are never looked at.
        return np.zeros(audio.shape(count), np.float32)

    def load(window: tf.Tensor) -> tf.Tensor:
        waveform = tf.numpy_function(read, [window % plan.windows], tf.float32)
        return tf.ensure_shape(waveform, audio.shape(count))

    windows = tf.data.Dataset.range(plan.batches * batch_size)
    return finish(windows.map(load, num_parallel_calls=readers()), batch_size), plan


def _check(
    split: Split, audio: AudioFormat, seconds: float, batch_size: int, decoder: str
) -> int:
    """Samples in an excerpt, after refusing what cannot work."""
    if decoder not in DECODERS:
        raise ConfigError(unknown_name("decoder", decoder, DECODERS))
    if decoder == "tfio" and not isinstance(split, PackedSplit):
        raise ConfigError(
            'decoder="tfio" reads packed shards only: on a broken audio file tensorflow-io '
            'ends the process. Use decoder="soundfile", or pack the data set first with '
            "`rfkeras data pack`."
        )
    if len(split) == 0:
        raise DatasetError("The split has no clips.")
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1. Received: {batch_size}.")
    count = audio.samples(seconds)
    if count < 1:
        raise ConfigError(
            f"An excerpt or window must last at least one sample. Received: {seconds} s."
        )
    return count


def _first_readable(
    split: Split,
    rows: NDArray[np.int64],
    fraction: float,
    count: int,
    reader: ClipReader,
    bad_files: BadFileLog,
) -> tuple[Waveform, np.int64]:
    """An excerpt of the first of these clips that can be read, and its row."""
    for row in rows:
        # Known bad files are tried again: a damaged file may have good excerpts, and a run
        # that was resumed, with an empty list, must see the same batches.
        try:
            return reader.excerpt(split.paths[row], fraction, count), row
        except AudioError as error:
            bad_files.record(error, "training")
    raise bad_files.stop(
        f"{len(rows)} clips in a row cannot be read, among them {split.paths[rows[0]]}."
    )


def _lengths(split: Split, reader: ClipReader, bad_files: BadFileLog) -> list[int | None]:
    """Length of each clip in samples, None (and recorded) where it cannot be read."""

    def length(path: Path) -> int | AudioError:
        try:
            return reader.length(path)
        except AudioError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = list(pool.map(length, split.paths))
    for result in results:
        if isinstance(result, AudioError):
            bad_files.record(result, "evaluation")
    return [None if isinstance(result, AudioError) else result for result in results]
