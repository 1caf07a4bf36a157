"""tf.data pipelines over packed shards: see `rfkeras.datasets.pipeline` for the contract."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from rfkeras.audio.decode import open_audio
from rfkeras.audio.io import AudioFormat, Waveform
from rfkeras.datasets import excerpts, packed
from rfkeras.datasets.base import BadFileLog
from rfkeras.datasets.excerpts import EvaluationPlan, Part, cut, finish, place
from rfkeras.datasets.packed import PackedSplit
from rfkeras.errors import AudioError, ConfigError, DatasetError

if TYPE_CHECKING:
    import tensorflow as tf

_HEADER_BYTES = 44
_SAMPLE_BYTES = 2


def is_packed_wav(wav: tf.Tensor, audio: AudioFormat) -> tf.Tensor:
    """Whether these bytes are what `to_wav` makes of one sample or more.

    Args:
        wav: Scalar string tensor.
        audio: Format of the shards.

    Returns:
        Scalar bool.
    """
    import tensorflow as tf

    frame_bytes = _SAMPLE_BYTES * audio.channels
    rate_hz = audio.sample_rate_hz
    middle = b"WAVEfmt " + struct.pack(
        "<IHHIIHH", 16, 1, audio.channels, rate_hz, rate_hz * frame_bytes, frame_bytes, 16
    )
    length = tf.strings.length(wav)
    sound_bytes = length - _HEADER_BYTES
    # What is too short to hold a header is compared all the same.
    padded = tf.strings.join([wav, tf.constant(b"\0" * _HEADER_BYTES)])

    def size(start: int) -> tf.Tensor:
        return tf.io.decode_raw(tf.strings.substr(padded, start, 4), tf.int32)[0]

    return tf.reduce_all(
        [
            sound_bytes > 0,
            sound_bytes % frame_bytes == 0,
            tf.equal(tf.strings.substr(padded, 0, 4), b"RIFF"),
            tf.equal(size(4), length - 8),
            tf.equal(tf.strings.substr(padded, 8, len(middle)), middle),
            tf.equal(tf.strings.substr(padded, 36, 4), b"data"),
            tf.equal(size(40), sound_bytes),
        ]
    )


def decode_packed_wav(wav: tf.Tensor, audio: AudioFormat) -> tf.Tensor:
    """Bytes that `is_packed_wav` to float32 (samples,) or (samples, 2), scaled as soundfile."""
    import tensorflow as tf
    import tensorflow_io as tfio

    integers = tfio.audio.decode_wav(wav, dtype=tf.int16)
    samples = tf.cast(tf.ensure_shape(integers, [None, audio.channels]), tf.float32) / 32768.0
    return samples[:, 0] if audio.channels == 1 else samples


_PARALLEL_SHARDS = 4
_BUFFER_RECORDS = 512  # records shuffled at a time: 0.2 GB of 10 s clips at 22050 Hz mono


def training_batches(
    split: PackedSplit,
    audio: AudioFormat,
    *,
    count: int,
    batch_size: int,
    seed: int,
    steps_per_epoch: int,
    steps: tuple[int, int],
    decoder: str,
    bad_files: BadFileLog,
    part: Part,
) -> tf.data.Dataset:
    """Random excerpts of `count` samples from step steps[0] to steps[1] of a run.

    The order of an epoch is that of its shards, drawn from (seed, epoch), then of a shuffle
    buffer seeded by (seed, epoch). A run that resumes in mid-epoch reads that epoch from
    its beginning and skips, without decoding, what was done.

    Of several workers each has its own shards in an epoch, every so-manieth of that order;
    which are whose changes from epoch to epoch, so that clips come equally often in the long
    run though shards differ in size.

    Raises:
        ConfigError: The shards hold another audio format.
    """
    import tensorflow as tf

    _prepare(split, audio, decoder)
    paths = tf.constant([shard.path for shard in split.shards])
    own_batch = part.batch(batch_size)
    by_file = len(split.shards) >= part.count
    first_epoch, last_epoch = steps[0] // steps_per_epoch, -(-steps[1] // steps_per_epoch)

    def records(epoch: tf.Tensor) -> tf.data.Dataset:
        # The seed of this graph alone, not of the process: the order must not hang on what
        # else was seeded, and with a process seed of 0 TensorFlow compares the seed of the
        # buffer, a tensor, with 0 in Python and fails.
        tf.random.set_seed(1)
        shard_rows = excerpts.clip_rows(
            seed, epoch, tf.range(len(split.shards), dtype=tf.int64), len(split.shards)
        )
        if by_file:
            shard_rows = shard_rows[part.index :: part.count]
        stream = tf.data.TFRecordDataset(
            tf.gather(paths, shard_rows),
            num_parallel_reads=min(_PARALLEL_SHARDS, len(split.shards)),
        )
        stream = stream.shuffle(
            min(_BUFFER_RECORDS, len(split)), seed=excerpts.shard_buffer_seed(seed, epoch)
        )
        if by_file:
            own = stream.repeat().take(steps_per_epoch * own_batch).enumerate()
            placed = own.map(lambda place, record: (part.place(place, batch_size), record))
        else:
            whole = stream.repeat().take(steps_per_epoch * batch_size).enumerate()
            placed = whole.filter(lambda place, _: part.holds(place, batch_size))
        return placed.map(
            lambda position, record: (record, excerpts.excerpt_fraction(seed, epoch, position))
        )

    def load(record: tf.Tensor, fraction: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        parsed = _parse(record, split.labels.shape[1])
        if decoder == "tfio":
            whole = _decode_in_graph(parsed, audio, bad_files)
            length = tf.shape(whole, out_type=tf.int64)[0]
            room = tf.maximum(length - count, 0) + 1
            start = tf.cast(fraction * tf.cast(room, tf.float64), tf.int64)
            waveform = _cut_in_graph(whole, start, count)
        else:
            waveform = tf.numpy_function(
                read, [parsed["wav"], parsed["key"], fraction], tf.float32
            )
        return (
            tf.ensure_shape(waveform, audio.shape(count)),
            parsed["labels"],
            parsed["mask"],
        )

    def read(wav: bytes, key: bytes, fraction: np.float64) -> Waveform:
        try:
            with open_audio(wav, audio, decoder=decoder) as file:
                start = place(file.length, float(fraction), count)
                return (
                    cut(file.read(), 0, count)
                    if file.length < count
                    else file.read(start, count)
                )
        except AudioError as error:
            raise _stop(key, error.reason, bad_files) from error

    clips = (steps[1] - steps[0]) * own_batch
    stream = tf.data.Dataset.range(first_epoch, last_epoch).flat_map(records)
    stream = stream.skip((steps[0] % steps_per_epoch) * own_batch).take(clips)
    stream = stream.apply(tf.data.experimental.assert_cardinality(clips))
    elements = stream.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return finish(elements, own_batch // part.replicas)


def evaluation_batches(
    split: PackedSplit,
    audio: AudioFormat,
    *,
    count: int,
    batch_size: int,
    decoder: str,
    bad_files: BadFileLog,
) -> tuple[tf.data.Dataset, EvaluationPlan]:
    """Windows of `count` samples that cover every clip, in the split's order.

    Raises:
        ConfigError: The shards hold another audio format.
    """
    import tensorflow as tf

    _prepare(split, audio, decoder)
    plan = EvaluationPlan.from_lengths(split.lengths, count, batch_size)
    starts = tf.RaggedTensor.from_value_rowids(
        tf.constant(plan.starts), tf.constant(plan.rows), nrows=len(split)
    )

    def windows(row: tf.Tensor, record: tf.Tensor) -> tf.data.Dataset:
        parsed = _parse(record, split.labels.shape[1])
        if decoder == "tfio":
            whole = _decode_in_graph(parsed, audio, bad_files)
        else:
            whole = tf.numpy_function(read, [parsed["wav"], parsed["key"]], tf.float32)
            whole = tf.ensure_shape(whole, (None, *audio.shape(1)[1:]))
        own_starts = tf.data.Dataset.from_tensor_slices(starts[row])
        return own_starts.map(lambda start: _cut_in_graph(whole, start, count))

    def read(wav: bytes, key: bytes) -> Waveform:
        try:
            with open_audio(wav, audio, decoder=decoder) as file:
                return file.read()
        except AudioError as error:
            raise _stop(key, error.reason, bad_files) from error

    paths = [shard.path for shard in split.shards]
    stream = (
        tf.data.TFRecordDataset(paths)
        .enumerate()
        .interleave(windows, cycle_length=1, num_parallel_calls=1)
    )
    padded = stream.repeat().take(plan.batches * batch_size)
    padded = padded.apply(tf.data.experimental.assert_cardinality(plan.batches * batch_size))
    return finish(padded, batch_size), plan


def _prepare(split: PackedSplit, audio: AudioFormat, decoder: str) -> None:
    if split.audio != audio:
        raise ConfigError(
            f"The shards hold {_words(split.audio)}, the model wants {_words(audio)}. Pack the "
            "data set again for this model's front-end."
        )
    packed.prepare_for(split.shards[0].path)
    if decoder == "tfio":
        packed.prepare(s3=False)


def _words(audio: AudioFormat) -> str:
    return f"{audio.sample_rate_hz} Hz {'mono' if audio.channels == 1 else 'stereo'}"


def _parse(record: tf.Tensor, classes: int) -> dict[str, tf.Tensor]:
    import tensorflow as tf

    parsed: dict[str, tf.Tensor] = tf.io.parse_single_example(
        record,
        {
            "key": tf.io.FixedLenFeature([], tf.string),
            "wav": tf.io.FixedLenFeature([], tf.string),
            "labels": tf.io.FixedLenFeature([classes], tf.float32),
            "mask": tf.io.FixedLenFeature([classes], tf.float32),
        },
    )
    return parsed


def _decode_in_graph(
    parsed: dict[str, tf.Tensor], audio: AudioFormat, bad_files: BadFileLog
) -> tf.Tensor:
    """The waveform of a record, decoded by tensorflow-io if it is what `pack` writes."""
    import tensorflow as tf

    def refuse(key: bytes) -> Waveform:
        raise _stop(key, "its sound is not the WAV that was packed", bad_files)

    whole = tf.cond(
        is_packed_wav(parsed["wav"], audio),
        lambda: decode_packed_wav(parsed["wav"], audio),
        lambda: tf.numpy_function(refuse, [parsed["key"]], tf.float32),
    )
    return tf.ensure_shape(whole, (None, *audio.shape(1)[1:]))


def _stop(key: bytes, reason: str, bad_files: BadFileLog) -> DatasetError:
    """What ends the run at a record that cannot be used."""
    return bad_files.stop(
        f"The record {key.decode(errors='backslashreplace')!r} of a packed shard cannot be "
        f"used: {reason}. Find the damaged shard with `rfkeras data check --dataset packed "
        "--data-dir DIR` and fetch or pack it again."
    )


def _cut_in_graph(whole: tf.Tensor, start: tf.Tensor, count: int) -> tf.Tensor:
    """`rfkeras.datasets.excerpts.cut` in the graph."""
    import tensorflow as tf

    length = tf.shape(whole, out_type=tf.int64)[0]
    return tf.gather(whole, (start + tf.range(count, dtype=tf.int64)) % length)
