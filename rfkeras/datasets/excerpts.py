"""Choose excerpts of clips, read them, and form batches.

Every order and every random choice is a function of the seed, the epoch and the position in
it, so that a resumed run reads the same batches.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from rfkeras.utils.text import count

if TYPE_CHECKING:
    import tensorflow as tf

# With a cache, files up to this length are always decoded whole, even if they no longer fit,
# so that the state of the cache never changes a sample. Longer files are read by excerpt.
WHOLE_FILE_SECONDS = 60.0
_MAX_READERS = 16  # more threads wait for the interpreter lock instead of for files
_SEED_LIMIT = 2**31
# Added to the seed, so that these random streams are independent of others in a training run
# that also use (seed, step).
_EXCERPT_STREAM = 1 << 40
_BUFFER_STREAM = 2 << 40


# Plans: which clips are in which batch


def default_steps_per_epoch(clips: int, batch_size: int) -> int:
    """Return the number of full batches in one pass over the clips, at least 1."""
    return max(1, clips // batch_size)


@dataclass(frozen=True)
class WorkerPart:
    """The part of every global batch that one worker reads.

    A global batch is divided in order: the first worker reads the first clips, and its first
    replica gets the first of those.

    Args:
        index: Number of the worker, from 0.
        count: Number of workers.
        replicas: Number of replicas (devices) per worker.

    Raises:
        ConfigError: The numbers are out of range.
    """

    index: int = 0
    count: int = 1
    replicas: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count or self.replicas < 1:
            raise ConfigError(
                "A part needs an index from 0 to count - 1 and at least one replica. Received: "
                f"index={self.index}, count={self.count}, replicas={self.replicas}."
            )

    def batch(self, batch_size: int) -> int:
        """Return the number of clips of a global batch that the worker reads.

        Raises:
            ConfigError: The batch size is not a multiple of the number of replicas.
        """
        replicas = self.count * self.replicas
        if batch_size % replicas:
            raise ConfigError(
                f"batch_size must be a multiple of the {replicas} replicas. Received: "
                f"{batch_size}."
            )
        return batch_size // self.count

    def global_position(self, position: tf.Tensor, batch_size: int) -> tf.Tensor:
        """Convert a position among the worker's clips to one among the clips of all workers."""
        own = self.batch(batch_size)
        return position // own * batch_size + self.index * own + position % own

    def holds(self, position: tf.Tensor, batch_size: int) -> tf.Tensor:
        """Return whether the worker reads the clip at this global position."""
        return position % batch_size // self.batch(batch_size) == self.index


WHOLE = WorkerPart()


@dataclass(frozen=True)
class TrainingPlan:
    """The batches of a training run.

    Args:
        batch_size: Excerpts per global batch.
        seed: Seed of order and excerpts, 0 to 2^31 - 1.
        steps_per_epoch: Batches per epoch.
        total_steps: Batches in the whole run.
        start_step: Batches already done.
        part: Part of every batch to read.

    Raises:
        ConfigError: A value is out of range.
    """

    batch_size: int
    seed: int
    steps_per_epoch: int
    total_steps: int
    start_step: int = 0
    part: WorkerPart = WHOLE

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.steps_per_epoch < 1:
            raise ConfigError(
                "batch_size and steps_per_epoch must be at least 1. Received: "
                f"{self.batch_size} and {self.steps_per_epoch}."
            )
        if not 0 <= self.seed < _SEED_LIMIT:
            raise ConfigError(
                f"The seed must be from 0 to {_SEED_LIMIT - 1}. Received: {self.seed}."
            )
        if not 0 <= self.start_step <= self.total_steps:
            raise ConfigError(
                f"start_step must be from 0 to total_steps ({self.total_steps}). Received: "
                f"{self.start_step}."
            )
        self.part.batch(self.batch_size)

    @property
    def own_batch(self) -> int:
        """Excerpts per batch that this worker reads."""
        return self.part.batch(self.batch_size)

    @property
    def replica_batch(self) -> int:
        """Excerpts per batch and replica."""
        return self.own_batch // self.part.replicas

    def global_position(self, position: tf.Tensor) -> tf.Tensor:
        """Convert a position among the worker's clips to one among the clips of all workers."""
        return self.part.global_position(position, self.batch_size)

    def clip_rows(self, epoch: tf.Tensor, positions: tf.Tensor, clips: int) -> tf.Tensor:
        """Return the rows of the clips at these positions of an epoch.

        Every clip comes once before any clip comes again.

        Args:
            epoch: int64 scalar.
            positions: int64 vector. Positions past the last clip wrap around.
            clips: Number of clips.

        Returns:
            int64 vector with the shape of positions.
        """
        import tensorflow as tf

        return tf.random.experimental.index_shuffle(
            positions % clips,
            seed=tf.stack([tf.constant(self.seed, tf.int64), epoch]),
            max_index=tf.constant(clips - 1, tf.int64),
        )

    def excerpt_fraction(self, epoch: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        """Return where an excerpt starts within its clip, as a float64 scalar in [0, 1)."""
        import tensorflow as tf

        step = tf.bitwise.left_shift(epoch, tf.constant(32, tf.int64)) + position
        return tf.random.stateless_uniform(
            [],
            seed=tf.stack([tf.constant(self.seed + _EXCERPT_STREAM, tf.int64), step]),
            dtype=tf.float64,
        )

    def buffer_seed(self, epoch: tf.Tensor) -> tf.Tensor:
        """Return the seed of the shuffle buffer in an epoch, an int64 scalar."""
        import tensorflow as tf

        return tf.random.stateless_uniform(
            [],
            seed=tf.stack([tf.constant(self.seed + _BUFFER_STREAM, tf.int64), epoch]),
            minval=1,
            maxval=2**62,
            dtype=tf.int64,
        )


@dataclass
class EvaluationPlan:
    """Maps the windows of an evaluation to the clips that they come from.

    Attributes:
        clips: Number of clips in the split, including unreadable ones.
        window: Samples per window.
        rows: (windows,) row of each window's clip in the split, without padding.
        starts: (windows,) first sample of each window.
        batch_size: Windows per batch. The last batch is padded with the first windows.
        whole: (whole clips,) rows of the clips that have no windows, because their scores are
            computed from the whole clip.
        failed: Rows whose clip turned out to be unreadable. It fills while the windows are
            read, so use kept_rows and average only afterwards.
    """

    clips: int
    window: int
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    batch_size: int
    whole: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    failed: set[int] = field(default_factory=set)

    @classmethod
    def from_lengths(
        cls,
        lengths: Sequence[int | None],
        window: int,
        batch_size: int,
        one_pass: range | None = None,
    ) -> EvaluationPlan:
        """Create a plan.

        Args:
            lengths: Length of each clip in samples; None for unreadable clips.
            window: Samples per window.
            batch_size: Windows per batch.
            one_pass: Lengths that the model scores in one pass. The clips of the commonest of
                these lengths then are the windows, if they fill half a batch. All others are
                left out, to be scored as a whole. None: all clips have windows.
        """
        whole = [False] * len(lengths)
        if one_pass is not None:
            common = _commonest(lengths, one_pass, window, batch_size)
            whole = [length is not None and length != common for length in lengths]
            window = common or window
        starts = [
            np.zeros(0, np.int64) if length is None or left else window_starts(length, window)
            for length, left in zip(lengths, whole, strict=True)
        ]
        rows = np.repeat(np.arange(len(lengths)), [len(clip) for clip in starts])
        return cls(
            len(lengths),
            window,
            rows.astype(np.int64),
            np.concatenate(starts),
            batch_size,
            np.flatnonzero(whole),
        )

    @property
    def windows(self) -> int:
        """Number of windows without padding."""
        return len(self.rows)

    @property
    def batches(self) -> int:
        """Number of full batches, including padding."""
        return -(-self.windows // self.batch_size)

    @property
    def kept_rows(self) -> NDArray[np.int64]:
        """Rows of the split that have a score, ascending."""
        scored = np.concatenate([self.rows, self.whole])
        kept: NDArray[np.int64] = np.setdiff1d(scored, sorted(self.failed))
        return kept

    def average(
        self,
        window_scores: NDArray[np.floating[Any]],
        whole_scores: Mapping[int, NDArray[np.floating[Any]]] | None = None,
    ) -> NDArray[np.float64]:
        """Average the scores of each clip over its windows.

        Args:
            window_scores: (windows, classes) in the order of the windows, with or without
                padding at the end.
            whole_scores: (classes,) by row, for the rows in `whole` that could be read.

        Returns:
            (len(kept_rows), classes) float64. Row i belongs to clip kept_rows[i].

        Raises:
            ConfigError: The number of scores does not fit the plan.
        """
        scores = np.asarray(window_scores, np.float64)
        if scores.ndim != 2 or len(scores) not in (
            self.windows,
            self.batches * self.batch_size,
        ):
            raise ConfigError(
                f"The plan has {count(self.windows, 'window')} "
                f"({self.batches * self.batch_size} with padding), so scores must have the "
                f"shape (windows, classes). Received: {scores.shape}."
            )
        sums = np.zeros((self.clips, scores.shape[1]))
        np.add.at(sums, self.rows, scores[: self.windows])
        counts = np.bincount(self.rows, minlength=self.clips)[:, None]
        for row, clip_scores in (whole_scores or {}).items():
            sums[row], counts[row] = clip_scores, 1
        kept = self.kept_rows
        return sums[kept] / counts[kept]


def _commonest(
    lengths: Sequence[int | None], allowed: range, preferred: int, batch_size: int
) -> int | None:
    """Return the commonest allowed length; None if its clips do not fill half a batch."""
    counts = Counter(length for length in lengths if length is not None and length in allowed)
    best = max(counts, key=lambda length: (counts[length], length == preferred), default=0)
    return best if 2 * counts[best] >= batch_size else None


def window_starts(length: int, window: int) -> NDArray[np.int64]:
    """Return the first samples of consecutive windows that cover a clip.

    The last window is moved back to end with the clip. A clip that is not longer than a
    window has one window, which starts at 0.

    Args:
        length: Samples in the clip, at least 1.
        window: Samples per window.
    """
    if length <= window:
        return np.zeros(1, np.int64)
    starts = np.arange(-(-length // window), dtype=np.int64) * window
    starts[-1] = length - window
    return starts


def rows_of(split: Split, part: WorkerPart) -> NDArray[np.int64]:
    """Return the rows of a split that a worker evaluates.

    They are consecutive, so that shards are not divided.

    Args:
        split: The clips.
        part: The worker.
    """
    if isinstance(split, PackedSplit):
        ends = np.cumsum([shard.records for shard in split.shards])
        # Each shard belongs to the worker whose share of the clips contains its middle.
        middles = ends - np.array([shard.records for shard in split.shards]) / 2
        owners = np.minimum(middles * part.count // max(len(split), 1), part.count - 1)
        return np.flatnonzero(np.repeat(owners, np.diff(ends, prepend=0)) == part.index)
    rows: NDArray[np.int64] = np.array_split(np.arange(len(split)), part.count)[part.index]
    return rows


def part_of(split: Split, part: WorkerPart) -> Split:
    """Return the clips of a split that a worker evaluates, possibly none; see `rows_of`."""
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


# Reading excerpts


class ClipReader:
    """Reads excerpts of audio files, decoding no more than needed.

    Args:
        audio: Format of the waveforms.
        cache: Keeps whole files in memory; None keeps nothing.
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

    def excerpt(self, path: Path, fraction: float, samples: int) -> Waveform:
        """Read an excerpt from a relative place in a file.

        Args:
            path: The file. A file shorter than the excerpt is repeated circularly.
            fraction: Place of the excerpt, from 0 (start) to just below 1 (end).
            samples: Length of the excerpt.

        Returns:
            float32 of shape (samples,) or (samples, 2).

        Raises:
            AudioError: The file cannot be used.
        """
        return self._read(
            path, lambda length: excerpt_start(length, fraction, samples), samples
        )

    def window(self, path: Path, start: int, samples: int) -> Waveform:
        """Read samples [start, start + samples); a shorter file is repeated circularly.

        Raises:
            AudioError: The file cannot be used.
        """
        return self._read(path, lambda _: start, samples)

    def length(self, path: Path) -> int:
        """Return the length of a file in samples at the model's rate, from its headers.

        Raises:
            AudioError: The file cannot be used.
        """
        with open_audio(path, self.audio, decoder=self.decoder) as file:
            return file.length

    def _read(self, path: Path, start: Callable[[int], int], samples: int) -> Waveform:
        key = (path, self.audio)
        whole = None if self.cache is None else self.cache.get(key)
        if whole is None:
            with open_audio(path, self.audio, decoder=self.decoder) as file:
                keep = self.cache is not None and file.length <= self.audio.samples(
                    WHOLE_FILE_SECONDS
                )
                if file.length > samples and not keep:
                    return file.read(start(file.length), samples)
                whole = file.read()
            if self.cache is not None and keep:
                self.cache.put(key, whole)
        return crop_or_repeat(whole, start(len(whole)), samples)


def excerpt_start(length: int, fraction: float, samples: int) -> int:
    """Return the first sample of an excerpt, `fraction` in [0, 1) of the way through."""
    return int(fraction * (max(0, length - samples) + 1))


def crop_or_repeat(whole: Waveform, start: int, samples: int) -> Waveform:
    """Return samples [start, start + samples); repeat a shorter waveform circularly."""
    if len(whole) >= samples:
        return whole[start : start + samples]
    return np.take(whole, np.arange(samples), axis=0, mode="wrap")


class WaveformCache:
    """Thread-safe cache of whole waveforms in memory.

    When the cache is full, further waveforms are not kept. Nothing is evicted: every clip is
    used once per epoch, so eviction would only remove another clip that is needed just as
    soon. Cached samples are the decoded float32 ones, so results do not change.

    Args:
        max_bytes: Limit on the samples. 10 s of mono at 22050 Hz takes 882,000 bytes.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._waveforms: dict[object, Waveform] = {}
        self._lock = threading.Lock()

    def get(self, key: object) -> Waveform | None:
        """Return the waveform stored under a key, or None."""
        return self._waveforms.get(key)

    def put(self, key: object, waveform: Waveform) -> None:
        """Store a waveform if there is room for it."""
        with self._lock:
            fits = self.used_bytes + waveform.nbytes <= self.max_bytes
            if fits and key not in self._waveforms:
                waveform.flags.writeable = False
                self._waveforms[key] = waveform
                self.used_bytes += waveform.nbytes


# Forming batches


def parallel_reads() -> int:
    """Return the number of files to read in parallel: one per processor.

    tf.data's AUTOTUNE reads one file at a time if each takes only a millisecond, as short
    excerpts of WAV files do, and leaves the other processors idle.
    """
    return min(os.cpu_count() or 1, _MAX_READERS)


def batched(elements: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """Batch and prefetch elements in their order."""
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = True
    # The replicas of one process divide its stream by elements. Workers do not share a
    # stream; each reads its own part.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    batches = elements.batch(batch_size, drop_remainder=True)
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
