"""tf.data pipelines: random excerpts for training, consecutive windows for evaluation.

The same two functions read data sets stored as files and as packed shards. This module reads
files; `rfkeras.datasets.packed_pipeline` reads shards.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.decode import DECODERS
from rfkeras.audio.io import AudioFormat, Waveform
from rfkeras.datasets import packed_pipeline
from rfkeras.datasets.base import BadFileLog, Split
from rfkeras.datasets.excerpts import (
    WHOLE,
    ClipReader,
    EvaluationPlan,
    TrainingPlan,
    WaveformCache,
    WorkerPart,
    batched,
    parallel_reads,
)
from rfkeras.datasets.packed import PackedSplit
from rfkeras.errors import AudioError, ConfigError, DatasetError, unknown_name
from rfkeras.utils.text import count

if TYPE_CHECKING:
    import tensorflow as tf

    from rfkeras.datasets.clip_features import ClipFeatures

# Clips to try in turn if one cannot be read. The limit on bad files normally ends the run
# long before this many neighbours are bad.
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
    part: WorkerPart = WHOLE,
    features: ClipFeatures | None = None,
) -> tf.data.Dataset:
    """Create the batches of a training run: random excerpts with labels.

    Step s of epoch e has the same clips and excerpts for any start_step. A clip shorter
    than the excerpt is repeated circularly. If a file cannot be read, it is recorded in
    bad_files and the next clip of the epoch takes its place. If there are too many bad
    files, iterating raises a TensorFlow error; `bad_files.raise_if_stopped()` then raises
    the DatasetError behind it.

    Args:
        split: The clips, as files or as packed shards.
        audio: Format of the waveforms.
        excerpt_seconds: Length of an excerpt.
        batch_size: Excerpts per batch.
        seed: Seed of order and excerpts, 0 to 2^31 - 1.
        steps_per_epoch: Batches per epoch, for example `default_steps_per_epoch`. Clips that
            are left over are skipped in that epoch. If there are too few, they repeat.
        total_steps: Batches in the whole run.
        bad_files: Collects files that cannot be read.
        start_step: Batches already done.
        decoder: "soundfile"; "isolated" to decode in separate processes that may crash; or
            "tfio" to decode packed shards inside the TensorFlow graph.
        cache_bytes: Keep decoded files of up to 60 s in memory, up to this many bytes. 0
            keeps nothing. Has no effect on shards.
        cache: A cache shared with other pipelines, instead of cache_bytes.
        part: In multi-worker training, the part of every batch that this worker reads. The
            worker decodes no other clips. With files, the parts of all workers together are
            the batches of a single worker. Packed shards are distributed over the workers
            again in each epoch, so that each worker reads its own files. With fewer shards
            than workers, every worker reads all shards, and the parts together are again
            the batches of a single worker.
        features: Spectrograms of the clips, from which the excerpts are cut instead. Only for
            files.

    Returns:
        (waveform, labels, mask) as float32 of shape (batch, samples) or (batch, samples, 2),
        (batch, classes) and (batch, classes). With `features`, the spectrogram replaces the
        waveform: float16 of shape (batch, time, mel, channel). The cardinality is total_steps
        - start_step. With several replicas per worker, each batch comes as one batch per
        replica in turn.

    Raises:
        ConfigError: An argument is out of range, or the decoder does not fit the data.
        DatasetError: The split is empty.
    """
    plan = TrainingPlan(batch_size, seed, steps_per_epoch, total_steps, start_step, part)
    samples = _checked_samples(split, audio, excerpt_seconds, batch_size, decoder)
    if cache is not None and cache_bytes:
        raise ConfigError("Give either cache or cache_bytes, not both.")
    if isinstance(split, PackedSplit):
        if features is not None:
            raise ConfigError("features is only for audio files, not for packed shards.")
        return packed_pipeline.training_batches(
            split, audio, plan, samples=samples, decoder=decoder, bad_files=bad_files
        )

    import tensorflow as tf

    if cache is None and cache_bytes:
        cache = WaveformCache(cache_bytes)
    reader = ClipReader(audio, cache, decoder)
    shape = audio.shape(samples) if features is None else features.excerpt_shape(samples)
    dtype = tf.float32 if features is None else tf.float16
    labels, mask = tf.constant(split.labels), tf.constant(split.mask)
    epoch_clips = steps_per_epoch * batch_size

    def read_clip(row: np.int64, fraction: float) -> Any:
        if features is not None:
            return features.excerpt(int(row), fraction, samples)
        return reader.excerpt(split.paths[row], fraction, samples)

    def read(rows: NDArray[np.int64], fraction: np.float64) -> tuple[Any, np.int64]:
        return _first_readable(split, rows, float(fraction), read_clip, bad_files)

    def load(own_position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        clip = plan.global_position(own_position)
        epoch, position = clip // epoch_clips, clip % epoch_clips
        candidates = position + tf.range(min(_CANDIDATES, len(split)), dtype=tf.int64)
        rows = plan.clip_rows(epoch, candidates, len(split))
        fraction = plan.excerpt_fraction(epoch, position)
        excerpt, row = tf.numpy_function(read, [rows, fraction], (dtype, tf.int64))
        row = tf.ensure_shape(row, [])
        return (
            tf.ensure_shape(excerpt, shape),
            tf.gather(labels, row),
            tf.gather(mask, row),
        )

    clips = tf.data.Dataset.range(start_step * plan.own_batch, total_steps * plan.own_batch)
    elements = clips.map(load, num_parallel_calls=parallel_reads())
    return batched(elements, plan.replica_batch)


def evaluation_batches(
    split: Split,
    audio: AudioFormat,
    *,
    window_seconds: float,
    batch_size: int,
    bad_files: BadFileLog,
    decoder: str = "soundfile",
    cache: WaveformCache | None = None,
    one_pass: range | None = None,
) -> tuple[tf.data.Dataset, EvaluationPlan]:
    """Create the batches of an evaluation: consecutive windows that cover every clip.

    A clip shorter than a window is repeated circularly. The last window of a longer clip is
    moved back to end with the clip. The last batch is filled up with the first windows.
    Clips that cannot be read are recorded in bad_files and left out of `plan.kept_rows`.

    Args:
        split: The clips, as files or as packed shards.
        audio: Format of the waveforms.
        window_seconds: Length of a window.
        batch_size: Windows per batch.
        bad_files: Collects files that cannot be read.
        decoder: "soundfile"; "isolated" to decode in separate processes that may crash; or
            "tfio" to decode packed shards inside the TensorFlow graph.
        cache: Keeps decoded files in memory; can be shared with a training pipeline.
        one_pass: Lengths in samples that the model scores in one pass. Then the windows are
            the clips of the commonest of these lengths. The rows of all others are in
            `plan.whole`; `whole_clips` reads them.

    Returns:
        The waveforms, float32 of shape (batch, samples) or (batch, samples, 2) with
        cardinality plan.batches, and the plan that converts window scores to clip scores.
        Iterating again gives the same batches.

    Raises:
        ConfigError: An argument is out of range, or the decoder does not fit the data.
        DatasetError: The split is empty, or no clip or too few clips can be read.
    """
    samples = _checked_samples(split, audio, window_seconds, batch_size, decoder)
    if isinstance(split, PackedSplit):
        return packed_pipeline.evaluation_batches(
            split,
            audio,
            samples=samples,
            batch_size=batch_size,
            decoder=decoder,
            bad_files=bad_files,
            one_pass=one_pass,
        )

    import tensorflow as tf

    reader = ClipReader(audio, cache, decoder)
    lengths = _lengths(split, reader, bad_files)
    plan = EvaluationPlan.from_lengths(lengths, samples, batch_size, one_pass)
    samples = plan.window
    if len(plan.kept_rows) == 0:
        raise DatasetError(
            f"None of the {count(len(split), 'clip')} can be read. First: "
            f"{bad_files.files[0].path}: {bad_files.files[0].reason}."
        )

    def read(window: np.int64) -> Waveform:
        row, start = int(plan.rows[window]), int(plan.starts[window])
        if row not in plan.failed:
            try:
                return reader.window(split.paths[row], start, samples)
            except AudioError as error:
                plan.failed.add(row)
                bad_files.record(error, "evaluation")
        # The plan leaves this clip out, so its scores are never used.
        return np.zeros(audio.shape(samples), np.float32)

    def load(window: tf.Tensor) -> tf.Tensor:
        waveform = tf.numpy_function(read, [window % plan.windows], tf.float32)
        return tf.ensure_shape(waveform, audio.shape(samples))

    windows = tf.data.Dataset.range(plan.batches * batch_size)
    return batched(windows.map(load, num_parallel_calls=parallel_reads()), batch_size), plan


def _checked_samples(
    split: Split, audio: AudioFormat, seconds: float, batch_size: int, decoder: str
) -> int:
    """Check the arguments and return the length of an excerpt or window in samples."""
    if decoder not in DECODERS:
        raise ConfigError(unknown_name("decoder", decoder, DECODERS))
    if decoder == "tfio" and not isinstance(split, PackedSplit):
        raise ConfigError(
            'decoder="tfio" only reads packed shards, because tensorflow-io ends the process '
            'at a broken audio file. Use decoder="soundfile", or pack the data set first with '
            "`rfkeras data pack`."
        )
    if len(split) == 0:
        raise DatasetError("The split has no clips.")
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1. Received: {batch_size}.")
    samples = audio.samples(seconds)
    if samples < 1:
        raise ConfigError(
            f"An excerpt or window must have at least one sample. Received: {seconds} s."
        )
    return samples


def _first_readable(
    split: Split,
    rows: NDArray[np.int64],
    fraction: float,
    read_clip: Callable[[np.int64, float], Any],
    bad_files: BadFileLog,
) -> tuple[Any, np.int64]:
    """Read an excerpt of the first clip that can be read; return it with the clip's row."""
    for row in rows:
        # Files that failed before are tried again. A damaged file can have readable excerpts,
        # and a resumed run, which starts with an empty list, must see the same batches.
        try:
            return read_clip(row, fraction), row
        except AudioError as error:
            bad_files.record(error, "training")
    raise bad_files.stop(
        f"{count(len(rows), 'clip')} in a row cannot be read, among them "
        f"{split.paths[rows[0]]}."
    )


def _lengths(split: Split, reader: ClipReader, bad_files: BadFileLog) -> list[int | None]:
    """Return the length of each clip in samples; record unreadable clips, which get None."""

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
