"""tf.data pipelines over packed shards; `rfkeras.datasets.pipeline` describes the batches."""

from __future__ import annotations

import os
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.decode import open_audio
from rfkeras.audio.io import AudioFormat, Waveform
from rfkeras.datasets.base import BadFileLog
from rfkeras.datasets.excerpts import (
    EvaluationPlan,
    TrainingPlan,
    batched,
    crop_or_repeat,
    excerpt_start,
)
from rfkeras.datasets.packed import PackedSplit, load_tensorflow_io, through_tensorflow
from rfkeras.errors import AudioError, ConfigError, DatasetError
from rfkeras.utils.remote import is_remote, local_copy, to_path

if TYPE_CHECKING:
    import tensorflow as tf

_PARALLEL_SHARDS = 4
# Fetched, prefetched and open at a time are at most 4, 8 and 4.
_KEPT_SHARDS = 24
_BUFFER_RECORDS = 512  # records in the shuffle buffer: 0.2 GB of 10 s clips at 22050 Hz mono
_HEADER_BYTES = 44
_SAMPLE_BYTES = 2


def training_batches(
    split: PackedSplit,
    audio: AudioFormat,
    plan: TrainingPlan,
    *,
    samples: int,
    decoder: str,
    bad_files: BadFileLog,
) -> tf.data.Dataset:
    """Create the batches of a training run.

    In each epoch, the shards are read in an order drawn from (seed, epoch), through a shuffle
    buffer seeded by (seed, epoch). A run that resumes in the middle of an epoch reads the
    epoch from its beginning and skips, without decoding, what was done.

    Several workers take turns in the order of shards: worker i of n reads shards i, i + n and
    so on. The assignment changes with every epoch, so that in the long run all clips are
    read equally often although shards differ in size.

    Args:
        split: The clips.
        audio: Format of the waveforms; must be that of the shards.
        plan: Order, batches and steps of the run.
        samples: Samples per excerpt.
        decoder: One of `rfkeras.audio.decode.DECODERS`.
        bad_files: Keeps the error that ends the run at an unusable record.

    Raises:
        ConfigError: The shards have another audio format.
    """
    import tensorflow as tf

    from rfkeras.utils.keras_workarounds import with_length

    _prepare(split, audio, decoder)
    paths = tf.constant([shard.path for shard in split.shards])
    local = _local_shards(split, bad_files)
    part, steps_per_epoch = plan.part, plan.steps_per_epoch
    by_shard = len(split.shards) >= part.count
    first_epoch = plan.start_step // steps_per_epoch
    last_epoch = -(-plan.total_steps // steps_per_epoch)

    def records(epoch: tf.Tensor) -> tf.data.Dataset:
        # This sets the seed of this graph only, not of the process. Otherwise the order would
        # depend on other seeds of the process, and with a process seed of 0 TensorFlow would
        # compare the buffer's seed, a tensor, with 0 in Python and fail.
        tf.random.set_seed(1)
        shard_rows = plan.clip_rows(
            epoch, tf.range(len(split.shards), dtype=tf.int64), len(split.shards)
        )
        if by_shard:
            shard_rows = shard_rows[part.index :: part.count]
        stream = tf.data.TFRecordDataset(
            local(tf.gather(paths, shard_rows)),
            num_parallel_reads=min(_PARALLEL_SHARDS, len(split.shards)),
        )
        stream = stream.shuffle(min(_BUFFER_RECORDS, len(split)), seed=plan.buffer_seed(epoch))
        if by_shard:
            own = stream.repeat().take(steps_per_epoch * plan.own_batch).enumerate()
            placed = own.map(
                lambda own_position, record: (plan.global_position(own_position), record)
            )
        else:
            whole = stream.repeat().take(steps_per_epoch * plan.batch_size).enumerate()
            placed = whole.filter(lambda position, _: part.holds(position, plan.batch_size))
        return placed.map(
            lambda position, record: (record, plan.excerpt_fraction(epoch, position))
        )

    def load(record: tf.Tensor, fraction: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        parsed = _parse(record, split.labels.shape[1])
        if decoder == "tfio":
            whole = _decode_in_graph(parsed, audio, bad_files)
            length = tf.shape(whole, out_type=tf.int64)[0]
            room = tf.maximum(length - samples, 0) + 1
            start = tf.cast(fraction * tf.cast(room, tf.float64), tf.int64)
            waveform = _crop_or_repeat_in_graph(whole, start, samples)
        else:
            waveform = tf.numpy_function(
                read, [parsed["wav"], parsed["key"], fraction], tf.float32
            )
        return (
            tf.ensure_shape(waveform, audio.shape(samples)),
            parsed["labels"],
            parsed["mask"],
        )

    def read(wav: bytes, key: bytes, fraction: np.float64) -> Waveform:
        try:
            with open_audio(wav, audio, decoder=decoder) as file:
                if file.length < samples:
                    return crop_or_repeat(file.read(), 0, samples)
                return file.read(excerpt_start(file.length, float(fraction), samples), samples)
        except AudioError as error:
            raise _unusable(key, error.reason, bad_files) from error

    clips = (plan.total_steps - plan.start_step) * plan.own_batch
    stream = tf.data.Dataset.range(first_epoch, last_epoch).flat_map(records)
    stream = stream.skip((plan.start_step % steps_per_epoch) * plan.own_batch).take(clips)
    stream = with_length(stream, clips)
    elements = stream.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return batched(elements, plan.replica_batch)


def evaluation_batches(
    split: PackedSplit,
    audio: AudioFormat,
    *,
    samples: int,
    batch_size: int,
    decoder: str,
    bad_files: BadFileLog,
    one_pass: range | None = None,
) -> tuple[tf.data.Dataset, EvaluationPlan]:
    """Create the batches of an evaluation: windows that cover every clip, in their order.

    Args:
        split: The clips.
        audio: Format of the waveforms; must be that of the shards.
        samples: Samples per window.
        batch_size: Windows per batch.
        decoder: One of `rfkeras.audio.decode.DECODERS`.
        bad_files: Keeps the error that ends the run at an unusable record.
        one_pass: See `rfkeras.datasets.pipeline.evaluation_batches`.

    Raises:
        ConfigError: The shards have another audio format.
    """
    import tensorflow as tf

    from rfkeras.utils.keras_workarounds import with_length

    _prepare(split, audio, decoder)
    plan = EvaluationPlan.from_lengths(split.lengths, samples, batch_size, one_pass)
    samples = plan.window
    has_windows = np.zeros(len(split), bool)
    has_windows[plan.rows] = True
    starts = tf.RaggedTensor.from_value_rowids(
        tf.constant(plan.starts), tf.constant(plan.rows), nrows=len(split)
    )

    def windows(row: tf.Tensor, record: tf.Tensor) -> tf.data.Dataset:
        whole = _decode(record, audio, decoder, bad_files)
        own_starts = tf.data.Dataset.from_tensor_slices(starts[row])
        return own_starts.map(lambda start: _crop_or_repeat_in_graph(whole, start, samples))

    stream = _records_of(split, has_windows, bad_files).interleave(
        windows, cycle_length=1, num_parallel_calls=1
    )
    padded = stream.repeat().take(plan.batches * batch_size)
    padded = with_length(padded, plan.batches * batch_size)
    return batched(padded, batch_size), plan


def whole_clips(
    split: PackedSplit,
    rows: NDArray[np.integer[Any]],
    audio: AudioFormat,
    *,
    decoder: str,
    bad_files: BadFileLog,
) -> Iterator[tuple[int, Waveform]]:
    """Yield (row, waveform) of whole clips, in their order.

    Args:
        split: The clips.
        rows: Rows to read.
        audio: Format of the waveforms; must be that of the shards.
        decoder: One of `rfkeras.audio.decode.DECODERS`.
        bad_files: Keeps the error that ends the run at an unusable record.
    """
    wanted = np.zeros(len(split), bool)
    wanted[rows] = True
    records = _records_of(split, wanted, bad_files).map(
        lambda row, record: (row, _decode(record, audio, decoder, bad_files))
    )
    for row, waveform in records.prefetch(1).as_numpy_iterator():
        yield int(row), waveform


def _records_of(
    split: PackedSplit, wanted: NDArray[np.bool_], bad_files: BadFileLog
) -> tf.data.Dataset:
    """Return (row, record) of some clips of a split, in their order."""
    import tensorflow as tf

    chosen = tf.constant(wanted)
    paths = _local_shards(split, bad_files)([shard.path for shard in split.shards])
    return tf.data.TFRecordDataset(paths).enumerate().filter(lambda row, _: chosen[row])


def _local_shards(
    split: PackedSplit, bad_files: BadFileLog
) -> Callable[[Any], tf.data.Dataset]:
    """Return a function from the paths of shards to paths that TensorFlow can open.

    Remote shards are fetched a few ahead of their reader. Their local copies stay until this
    many further ones have been fetched, because TensorFlow does not report when it has opened a
    file.
    """
    import tensorflow as tf

    is_url = bool(split.shards) and is_remote(split.shards[0].path)
    fetches = is_url and not through_tensorflow(split.shards[0].path)
    kept: deque[ExitStack] = deque()
    lock = threading.Lock()

    def fetch(url: bytes) -> bytes:
        copy = ExitStack()
        try:
            path = copy.enter_context(local_copy(to_path(url.decode())))
        except OSError as error:
            raise bad_files.stop(
                f"{url.decode()} cannot be read: {error.strerror or error}."
            ) from error
        with lock:
            kept.append(copy)
            if len(kept) > _KEPT_SHARDS:
                kept.popleft().close()
        return os.fsencode(path)

    def local(paths: Any) -> tf.data.Dataset:
        urls = tf.data.Dataset.from_tensor_slices(paths)
        if not fetches:
            return urls
        return urls.map(
            lambda url: tf.ensure_shape(tf.numpy_function(fetch, [url], tf.string), []),
            num_parallel_calls=_PARALLEL_SHARDS,
            deterministic=True,
        )

    return local


def _decode(
    record: tf.Tensor,
    audio: AudioFormat,
    decoder: str,
    bad_files: BadFileLog,
) -> tf.Tensor:
    """Decode the whole clip in a record."""
    import tensorflow as tf

    def read(wav: bytes, key: bytes) -> Waveform:
        try:
            with open_audio(wav, audio, decoder=decoder) as file:
                return file.read()
        except AudioError as error:
            raise _unusable(key, error.reason, bad_files) from error

    # Without labels: a split can be evaluated with other tags than those in its shards.
    parsed = _parse(record)
    if decoder == "tfio":
        return _decode_in_graph(parsed, audio, bad_files)
    whole = tf.numpy_function(read, [parsed["wav"], parsed["key"]], tf.float32)
    return tf.ensure_shape(whole, (None, *audio.shape(1)[1:]))


def _prepare(split: PackedSplit, audio: AudioFormat, decoder: str) -> None:
    """Check the audio format of the shards, and load what is needed to read them."""
    if split.audio != audio:
        raise ConfigError(
            f"The shards have {_describe(split.audio)}, but the model needs "
            f"{_describe(audio)}. Pack the data set again for this model's front-end."
        )
    if decoder == "tfio":
        load_tensorflow_io(s3=False)


def _describe(audio: AudioFormat) -> str:
    return f"{audio.sample_rate_hz} Hz {'mono' if audio.channels == 1 else 'stereo'}"


def _parse(record: tf.Tensor, classes: int | None = None) -> dict[str, tf.Tensor]:
    """Return key and audio of a record; with a number of classes, also labels and mask."""
    import tensorflow as tf

    features = dict.fromkeys(("key", "wav"), tf.io.FixedLenFeature([], tf.string))
    if classes is not None:
        known = tf.io.FixedLenFeature([classes], tf.float32)
        features |= dict.fromkeys(("labels", "mask"), known)
    parsed: dict[str, tf.Tensor] = tf.io.parse_single_example(record, features)
    return parsed


def _decode_in_graph(
    parsed: dict[str, tf.Tensor], audio: AudioFormat, bad_files: BadFileLog
) -> tf.Tensor:
    """Decode a record with tensorflow-io, after checking that it is what `pack` writes."""
    import tensorflow as tf

    def refuse(key: bytes) -> Waveform:
        raise _unusable(key, "its audio is not the WAV data that was packed", bad_files)

    whole = tf.cond(
        _is_packed_wav(parsed["wav"], audio),
        lambda: _decode_packed_wav(parsed["wav"], audio),
        lambda: tf.numpy_function(refuse, [parsed["key"]], tf.float32),
    )
    return tf.ensure_shape(whole, (None, *audio.shape(1)[1:]))


def _is_packed_wav(wav: tf.Tensor, audio: AudioFormat) -> tf.Tensor:
    """Return whether bytes are the WAV file that `pack` makes of at least one sample.

    tensorflow-io must not be given anything else, because it can crash the process.

    Args:
        wav: Scalar string tensor.
        audio: Format of the shards.

    Returns:
        Scalar bool tensor.
    """
    import tensorflow as tf

    frame_bytes = _SAMPLE_BYTES * audio.channels
    rate_hz = audio.sample_rate_hz
    middle = b"WAVEfmt " + struct.pack(
        "<IHHIIHH", 16, 1, audio.channels, rate_hz, rate_hz * frame_bytes, frame_bytes, 16
    )
    length = tf.strings.length(wav)
    audio_bytes = length - _HEADER_BYTES
    # All comparisons are made even if the data is too short for a header.
    padded = tf.strings.join([wav, tf.constant(b"\0" * _HEADER_BYTES)])

    def size(start: int) -> tf.Tensor:
        return tf.io.decode_raw(tf.strings.substr(padded, start, 4), tf.int32)[0]

    return tf.reduce_all(
        [
            audio_bytes > 0,
            audio_bytes % frame_bytes == 0,
            tf.equal(tf.strings.substr(padded, 0, 4), b"RIFF"),
            tf.equal(size(4), length - 8),
            tf.equal(tf.strings.substr(padded, 8, len(middle)), middle),
            tf.equal(tf.strings.substr(padded, 36, 4), b"data"),
            tf.equal(size(40), audio_bytes),
        ]
    )


def _decode_packed_wav(wav: tf.Tensor, audio: AudioFormat) -> tf.Tensor:
    """Decode packed WAV data to float32 (samples,) or (samples, 2), scaled as by soundfile."""
    import tensorflow as tf
    import tensorflow_io as tfio

    integers = tfio.audio.decode_wav(wav, dtype=tf.int16)
    samples = tf.cast(tf.ensure_shape(integers, [None, audio.channels]), tf.float32) / 32768.0
    return samples[:, 0] if audio.channels == 1 else samples


def _crop_or_repeat_in_graph(whole: tf.Tensor, start: tf.Tensor, samples: int) -> tf.Tensor:
    """Apply `rfkeras.datasets.excerpts.crop_or_repeat` to a tensor."""
    import tensorflow as tf

    length = tf.shape(whole, out_type=tf.int64)[0]
    return tf.gather(whole, (start + tf.range(samples, dtype=tf.int64)) % length)


def _unusable(key: bytes, reason: str, bad_files: BadFileLog) -> DatasetError:
    """Create the error that ends the run at an unusable record."""
    return bad_files.stop(
        f"The record {key.decode(errors='backslashreplace')!r} of a packed shard cannot be "
        f"used: {reason}. Find the damaged shard with `rfkeras data check --dataset packed "
        "--data-dir DIR`, and copy or pack it again."
    )
