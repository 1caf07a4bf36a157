"""Excerpts of fixed length from files of any length, with or without a cache."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.decode import open_audio
from rfkeras.audio.io import AudioFormat, Waveform
from rfkeras.datasets.base import Split
from rfkeras.datasets.packed import PackedSplit
from rfkeras.errors import ConfigError

if TYPE_CHECKING:
    import tensorflow as tf


class WaveformCache:
    """Whole waveforms by file, up to a number of bytes; what no longer fits is not kept.

    Waveforms are kept as the float32 that was decoded, so a cached epoch has the very
    numbers of an uncached one. Nothing is thrown out: with every clip used once an epoch,
    making room for one would only evict another that is needed just as soon.

    Args:
        max_bytes: Bytes of samples to keep, 10 s of 22050 Hz mono being 882,000.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._waveforms: dict[object, Waveform] = {}
        self._lock = threading.Lock()

    def get(self, key: object) -> Waveform | None:
        """The waveform kept under that key, None when there is none."""
        return self._waveforms.get(key)

    def put(self, key: object, waveform: Waveform) -> None:
        """Keep a waveform if there is room for it."""
        with self._lock:
            fits = self.used_bytes + waveform.nbytes <= self.max_bytes
            if fits and key not in self._waveforms:
                waveform.flags.writeable = False
                self._waveforms[key] = waveform
                self.used_bytes += waveform.nbytes


# With a cache, files up to this long are decoded whole whether or not they still fit, so
# that the state of the cache never changes a number; longer ones are read by excerpt.
WHOLE_FILE_SECONDS = 60.0


def cut(whole: Waveform, start: int, count: int) -> Waveform:
    """Samples [start, start + count); a shorter waveform is repeated from its beginning."""
    if len(whole) >= count:
        return whole[start : start + count]
    return np.take(whole, np.arange(count), axis=0, mode="wrap")


def place(length: int, fraction: float, count: int) -> int:
    """Start of an excerpt of `count` samples, `fraction` in [0, 1) of the way through."""
    return int(fraction * (max(0, length - count) + 1))


class ClipReader:
    """Reads excerpts of files, decoding no more than needed.

    Args:
        audio: Format of the waveforms.
        cache: Where whole files are kept; None keeps nothing.
        decoder: One of `rfkeras.audio.decode.DECODERS`.
    """

    def __init__(
        self,
        audio: AudioFormat,
        cache: WaveformCache | None = None,
        decoder: str = "soundfile",
    ) -> None:
        self.audio = audio
        self.cache = cache
        self.decoder = decoder

    def excerpt(self, path: Path, fraction: float, count: int) -> Waveform:
        """An excerpt of `count` samples at a place that `fraction` in [0, 1) chooses.

        A file shorter than the excerpt is repeated circularly: no silence is invented.

        Raises:
            AudioError: The file cannot be used.
        """
        return self._read(path, lambda length: place(length, fraction, count), count)

    def window(self, path: Path, start: int, count: int) -> Waveform:
        """Samples [start, start + count), repeated circularly when the file is shorter.

        Raises:
            AudioError: The file cannot be used.
        """
        return self._read(path, lambda _: start, count)

    def length(self, path: Path) -> int:
        """Samples of the whole file in the model's format, from its headers.

        Raises:
            AudioError: The file cannot be used.
        """
        with open_audio(path, self.audio, decoder=self.decoder) as file:
            return file.length

    def _read(self, path: Path, start: Callable[[int], int], count: int) -> Waveform:
        key = (path, self.audio)
        whole = None if self.cache is None else self.cache.get(key)
        if whole is None:
            with open_audio(path, self.audio, decoder=self.decoder) as file:
                keep = self.cache is not None and file.length <= self.audio.samples(
                    WHOLE_FILE_SECONDS
                )
                if file.length > count and not keep:
                    return file.read(start(file.length), count)
                whole = file.read()
            if self.cache is not None and keep:
                self.cache.put(key, whole)
        return cut(whole, start(len(whole)), count)


# More readers than this wait for the interpreter's lock rather than for files.
_MOST_READERS = 16


def readers() -> int:
    """Files read at once: one a processor.

    tf.data's AUTOTUNE stays at one where reading takes a millisecond, as it does with short
    excerpts of WAV files, and leaves the other processors idle.
    """
    return min(os.cpu_count() or 1, _MOST_READERS)


def finish(elements: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """Batch, prefetch, and keep the order that was computed."""
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = True
    # Replicas of one process share its stream by elements. (Several workers never share
    # one: each makes its own, see `rfkeras.datasets.excerpts`.)
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    batches = elements.batch(batch_size, drop_remainder=True)
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


_SEED_LIMIT = 2**31
# Added to the seed, so that these draws are independent of others that are keyed by
# (seed, step) elsewhere in a training run.
_EXCERPT_STREAM = 1 << 40
_BUFFER_STREAM = 2 << 40


def default_steps_per_epoch(clips: int, batch_size: int) -> int:
    """Full batches in one pass over the clips; 1 when they are fewer than a batch."""
    return max(1, clips // batch_size)


def check_steps(
    *, batch_size: int, seed: int, steps_per_epoch: int, total_steps: int, start_step: int
) -> None:
    """Refuse step counts, batch sizes and seeds that make no sense.

    Raises:
        ConfigError: One of them is out of range.
    """
    if batch_size < 1 or steps_per_epoch < 1:
        raise ConfigError(
            "batch_size and steps_per_epoch must be at least 1. Received: "
            f"{batch_size} and {steps_per_epoch}."
        )
    if not 0 <= seed < _SEED_LIMIT:
        raise ConfigError(f"The seed must lie in 0..{_SEED_LIMIT - 1}. Received: {seed}.")
    if not 0 <= start_step <= total_steps:
        raise ConfigError(
            f"start_step must lie in 0..total_steps. Received: {start_step} of {total_steps}."
        )


def clip_rows(seed: int, epoch: tf.Tensor, positions: tf.Tensor, clips: int) -> tf.Tensor:
    """Rows of the clips at these positions of an epoch; every clip comes once a pass.

    Args:
        seed: Seed of the run.
        epoch: int64 scalar.
        positions: int64 vector; positions past the last clip wrap round.
        clips: Number of clips.

    Returns:
        int64, like positions.
    """
    import tensorflow as tf

    return tf.random.experimental.index_shuffle(
        positions % clips,
        seed=tf.stack([tf.constant(seed, tf.int64), epoch]),
        max_index=tf.constant(clips - 1, tf.int64),
    )


def excerpt_fraction(seed: int, epoch: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """Where in its clip the excerpt at this position lies: float64 scalar in [0, 1)."""
    import tensorflow as tf

    return tf.random.stateless_uniform(
        [],
        seed=tf.stack([tf.constant(seed + _EXCERPT_STREAM, tf.int64), _mix(epoch, position)]),
        dtype=tf.float64,
    )


def shard_buffer_seed(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Seed of the shuffle buffer in an epoch, int64 scalar."""
    import tensorflow as tf

    return tf.random.stateless_uniform(
        [],
        seed=tf.stack([tf.constant(seed + _BUFFER_STREAM, tf.int64), epoch]),
        minval=1,
        maxval=2**62,
        dtype=tf.int64,
    )


def _mix(epoch: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return tf.bitwise.left_shift(epoch, tf.constant(32, tf.int64)) + position


@dataclass(frozen=True)
class Part:
    """Which part of every global batch a worker reads, and for how many replicas.

    A global batch is divided in order: the first worker reads its first clips, and of those
    the first replica the first.

    Args:
        index: The worker, from 0.
        count: Workers.
        replicas: Replicas of each worker, its devices.

    Raises:
        ConfigError: The numbers make no sense.
    """

    index: int = 0
    count: int = 1
    replicas: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count or self.replicas < 1:
            raise ConfigError(
                "A part has an index from 0 to count - 1 and at least one replica. Received: "
                f"index {self.index} of {self.count}, {self.replicas} replicas."
            )

    def batch(self, batch_size: int) -> int:
        """Clips of a global batch that the worker reads.

        Raises:
            ConfigError: The batch does not divide evenly over all replicas.
        """
        replicas = self.count * self.replicas
        if batch_size % replicas:
            raise ConfigError(
                f"batch_size must be a multiple of the {replicas} replicas. Received: "
                f"{batch_size}."
            )
        return batch_size // self.count

    def place(self, own: tf.Tensor, batch_size: int) -> tf.Tensor:
        """Place in the run's stream of clips of the clip at this place of the worker's own."""
        mine = self.batch(batch_size)
        return own // mine * batch_size + self.index * mine + own % mine

    def holds(self, place: tf.Tensor, batch_size: int) -> tf.Tensor:
        """Whether the worker reads the clip at this place of the run's stream."""
        return place % batch_size // self.batch(batch_size) == self.index


WHOLE = Part()


def rows_of(split: Split, part: Part) -> NDArray[np.int64]:
    """Rows of a split that a worker evaluates: neighbours, so that shards stay whole."""
    if isinstance(split, PackedSplit):
        ends = np.cumsum([shard.records for shard in split.shards])
        # A shard belongs to the worker in whose share of the clips its middle lies.
        middles = ends - np.array([shard.records for shard in split.shards]) / 2
        owners = np.minimum(middles * part.count // max(len(split), 1), part.count - 1)
        return np.flatnonzero(np.repeat(owners, np.diff(ends, prepend=0)) == part.index)
    rows: NDArray[np.int64] = np.array_split(np.arange(len(split)), part.count)[part.index]
    return rows


def part_of(split: Split, part: Part) -> Split:
    """The clips of a split that a worker evaluates, possibly none; see `rows_of`."""
    rows = rows_of(split, part)
    if not isinstance(split, PackedSplit):
        return split.select(rows)
    first = int(rows[0]) if len(rows) else 0
    chosen = slice(first, first + len(rows))
    starts = np.cumsum([0, *(shard.records for shard in split.shards)])[:-1]
    inside = (starts >= chosen.start) & (starts < chosen.stop)
    return replace(
        split,
        keys=split.keys[chosen],
        paths=split.paths[chosen],
        labels=split.labels[chosen],
        mask=split.mask[chosen],
        shards=tuple(split.shards[i] for i in np.flatnonzero(inside)),
        lengths=split.lengths[chosen],
    )


def window_starts(length: int, window: int) -> NDArray[np.int64]:
    """Starts of the consecutive windows that cover a clip.

    The last window is moved back so that it ends with the clip. A clip no longer than a
    window has one, at 0.

    Args:
        length: Samples in the clip, at least 1.
        window: Samples in a window.
    """
    if length <= window:
        return np.zeros(1, np.int64)
    starts = np.arange(-(-length // window), dtype=np.int64) * window
    starts[-1] = length - window
    return starts


@dataclass
class EvaluationPlan:
    """Maps the windows of an evaluation to the clips they come from.

    Attributes:
        clips: Clips in the split, the unreadable ones included.
        rows: (windows,) row in the split of each window's clip; padding is not in it.
        starts: (windows,) first sample of each window.
        batch_size: Windows in a batch; the last batch is padded with the first windows.
        failed: Rows found unreadable while the windows were read. It fills while the data
            set is iterated, so ask for kept_rows and averages afterwards.
    """

    clips: int
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    batch_size: int
    failed: set[int] = field(default_factory=set)

    @classmethod
    def from_lengths(
        cls, lengths: Sequence[int | None], window: int, batch_size: int
    ) -> EvaluationPlan:
        """The plan for clips of these lengths in samples; None marks an unreadable clip."""
        starts = [
            np.zeros(0, np.int64) if length is None else window_starts(length, window)
            for length in lengths
        ]
        rows = np.repeat(np.arange(len(lengths)), [len(clip) for clip in starts])
        return cls(len(lengths), rows.astype(np.int64), np.concatenate(starts), batch_size)

    @property
    def windows(self) -> int:
        """Windows without padding."""
        return len(self.rows)

    @property
    def batches(self) -> int:
        """Full batches, padding included."""
        return -(-self.windows // self.batch_size)

    @property
    def kept_rows(self) -> NDArray[np.int64]:
        """Rows of the split that have a score, ascending."""
        kept: NDArray[np.int64] = np.setdiff1d(self.rows, sorted(self.failed))
        return kept

    def average(self, window_scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Mean score of each clip over its windows.

        Args:
            window_scores: (windows, classes) in the data set's order; the padding at the
                end may still be there.

        Returns:
            (len(kept_rows), classes) float64: row i belongs to clip kept_rows[i].

        Raises:
            ConfigError: The number of scores fits neither with nor without padding.
        """
        scores = np.asarray(window_scores, np.float64)
        if scores.ndim != 2 or len(scores) not in (
            self.windows,
            self.batches * self.batch_size,
        ):
            raise ConfigError(
                f"The plan has {self.windows} windows ({self.batches * self.batch_size} with "
                f"padding), so it averages scores of shape (windows, classes). Received: "
                f"{scores.shape}."
            )
        sums = np.zeros((self.clips, scores.shape[1]))
        np.add.at(sums, self.rows, scores[: self.windows])
        counts = np.bincount(self.rows, minlength=self.clips)[:, None]
        kept = self.kept_rows
        return sums[kept] / counts[kept]
