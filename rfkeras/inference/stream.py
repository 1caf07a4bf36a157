"""Tag audio of any length in chunks, with constant memory. Imports no framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.decode import FILE_DECODERS, open_audio
from rfkeras.audio.io import AudioFormat, Waveform, source_name
from rfkeras.audio.source import Source
from rfkeras.errors import AudioError, ConfigError, unknown_name
from rfkeras.frontend.presets import SpectrogramScale
from rfkeras.inference.chunks import ChunkPlan, FrameTimes
from rfkeras.inference.levels import QUIET_MIX_RMS, LevelMeter, cancelling_channels

Array = NDArray[np.float32]
Progress = Callable[[float], None]
UNNAMED = "audio"  # in errors about audio that is not from a named file
BLOCK_SECONDS = 10.0  # length of a block of a file
_SPECTROGRAM_SECONDS = 20.0  # of a file at a time

# Number of blocks decoded ahead, while the network computes. A chunk needs several blocks;
# with fewer the network would wait, and more are not faster.
BLOCKS_AHEAD = 6


@dataclass(frozen=True)
class TagResult:
    """Tags and embedding of a waveform.

    Attributes:
        seconds: Length of the waveform.
        logits: (classes,) float32; log odds if the model pools probabilities.
        scores: (classes,) float32, in [0, 1].
        frame_scores: (n, classes) float32, in [0, 1]; None unless requested.
        embedding: (features,) float32, the mean over the frames.
        frame_embeddings: (n, features) float32; None unless requested.
        notes: What is odd about the sound, one sentence each: damage that was read around, a
            level far from that of music, channels that cancel.
    """

    seconds: float
    logits: Array
    scores: Array
    frame_scores: Array | None
    embedding: Array
    frame_embeddings: Array | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """Consecutive frames of a waveform, available as soon as they are computed.

    Attributes:
        first_frame: Number of the first frame, counted from the waveform's start.
        seconds: How much of the audio has been read.
        frame_logits: (n, classes) float32.
        frame_scores: (n, classes) float32, in [0, 1].
        log_weights: Logarithm of each frame's weight in the clip's logits, up to a constant,
            (n, classes) float32; None if all frames have the same weight.
        frame_embeddings: (n, features) float32.
    """

    first_frame: int
    seconds: float
    frame_logits: Array
    frame_scores: Array
    log_weights: Array | None
    frame_embeddings: Array


class ComputationError(Exception):
    """A network cannot compute a chunk.

    Args:
        error: The error of the framework.
        needs_memory: Whether a shorter chunk would need less of what is missing.
    """

    def __init__(self, error: BaseException, *, needs_memory: bool) -> None:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        super().__init__(f"{type(error).__name__}: {reason}")
        self.needs_memory = needs_memory


class ChunkOutputs(NamedTuple):
    """Outputs of a network for a chunk.

    Attributes:
        logits: Logits of the frames, (1, n, classes) float32.
        scores: Their scores, in [0, 1], (1, n, classes) float32.
        log_weights: Logarithm of each frame's weight in the clip's logits, up to a constant,
            (1, n, classes) float32; None if all frames have the same weight.
        embeddings: Of the frames, (1, n, features) float32.
    """

    logits: Array
    scores: Array
    log_weights: Array | None
    embeddings: Array


class ChunkTagger(ABC):
    """Runs a network on audio of any length, in chunks; the network is that of a subclass.

    Args:
        chunk_seconds: Approximate amount of new audio per chunk.
        decoder: Decoder for files, one of `rfkeras.audio.decode.FILE_DECODERS`.

    Attributes:
        chunk_seconds: Approximate amount of new audio per chunk.
        decoder: Decoder for files.
        name: Name of the model.
        label_names: Name of each tag.
        thresholds: Lowest score with which each tag applies, (classes,); None if tags are
            mutually exclusive.
        audio_format: Format of the input waveforms.
        frames: Times of the frames.
        exact: Whether chunks give the same results as a single pass.
        reason_not_exact: Why they do not, and how to change that if possible; None if exact.
        plan: Layout of the chunks.
        shortest_samples: Shortest audio that the network can compute. Shorter audio is padded
            to it with zeros at its end.
        scale: Units of the spectrogram.
        spectrogram_least_samples: Shortest audio that the front-end does not pad.
        pooling: How the logits of frames are pooled, one of `rfkeras.layers.head.POOLINGS`.
        workers: Number of chunks that are computed at the same time.

    Raises:
        ConfigError: chunk_seconds is not positive, or the decoder is unknown.
    """

    name: str
    label_names: tuple[str, ...]
    thresholds: NDArray[np.float64] | None
    audio_format: AudioFormat
    frames: FrameTimes
    exact: bool
    reason_not_exact: str | None
    plan: ChunkPlan
    shortest_samples: int
    scale: SpectrogramScale
    spectrogram_least_samples: int
    pooling: str
    workers: int = 1

    def __init__(self, chunk_seconds: float, decoder: str) -> None:
        if not 0 < chunk_seconds < float("inf"):
            raise ConfigError(
                f"chunk_seconds must be a positive number. Received: {chunk_seconds!r}."
            )
        if decoder not in FILE_DECODERS:
            raise ConfigError(unknown_name("decoder", decoder, FILE_DECODERS))
        self.chunk_seconds = chunk_seconds
        self.decoder = decoder

    @abstractmethod
    def compute(self, waveform: Array, *, shared: bool = False) -> ChunkOutputs:
        """Compute the frames of a waveform.

        Args:
            waveform: (1, samples) or (1, samples, channels) float32, at least
                `shortest_samples` long.
            shared: Whether `workers` calls run at the same time and share the cores.

        Raises:
            ComputationError: The network cannot compute it.
        """

    @abstractmethod
    def mel_db(self, waveform: Waveform) -> Array:
        """Return the front-end's spectrogram of a waveform, before standardisation.

        Args:
            waveform: (samples,) or (samples, channels), float32.

        Returns:
            (frames, bands), mean dB over the channels. Audio shorter than
            `spectrogram_least_samples` is padded with zeros.
        """

    @abstractmethod
    def logits_and_scores(self, pooled: Array) -> tuple[Array, Array]:
        """Convert pooled outputs (classes,) to logits and scores, (classes,) float32 each."""

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate of the input waveforms."""
        return self.audio_format.sample_rate_hz

    @property
    def channels(self) -> int:
        """Number of channels of the input waveforms, 1 or 2."""
        return self.audio_format.channels

    def stream(self, blocks: Iterable[Waveform]) -> Iterator[Piece]:
        """Yield the frames of a waveform as soon as enough audio has arrived.

        Args:
            blocks: Consecutive parts of the waveform, of any lengths: float (samples,) or
                (samples, channels), at the model's sample rate.

        Yields:
            Consecutive pieces without gaps; at least one.

        Raises:
            ConfigError: A block has another shape or contains NaN or infinite samples, or there
                are no samples.
        """
        first_frame = 0
        for chunk, outputs in self._computed(chunked(blocks, self.plan, self.audio_format)):
            kept = slice(
                self.plan.skip if chunk.number else 0, None if chunk.last else self.plan.stop
            )
            logits, scores, embeddings = (
                rows[0, kept] for rows in (outputs.logits, outputs.scores, outputs.embeddings)
            )
            log_weights = outputs.log_weights
            if log_weights is not None:
                log_weights = log_weights[0, kept]
            seconds = chunk.stop_sample / self.sample_rate_hz
            if len(logits):
                yield Piece(first_frame, seconds, logits, scores, log_weights, embeddings)
            first_frame += len(logits)

    def file_spectrogram(self, source: Source, most_columns: int) -> NDArray[np.float64]:
        """Return the front-end's spectrogram of a file; memory does not grow with its length.

        Args:
            source: A path, or the bytes of a file.
            most_columns: The frames are averaged to at most this many columns.

        Returns:
            (columns, bands), dB before standardisation.

        Raises:
            AudioError: The file cannot be used.
        """
        hop = self.scale.hop_samples
        block_frames = max(1, self.audio_format.samples(_SPECTROGRAM_SECONDS) // hop)
        with open_audio(source, self.audio_format, decoder=self.decoder) as file:
            n_frames = 1 + max(file.length, self.spectrogram_least_samples) // hop
            columns = min(n_frames, most_columns)
            sums = np.zeros((columns, self.scale.n_mels))
            counts = np.zeros((columns, 1))
            for first in range(0, n_frames, block_frames):
                start = min(first * hop, file.length - 1)
                stop = min(start + block_frames * hop, file.length)
                mel = self.mel_db(file.read(start, stop - start))
                mel = mel[: min(block_frames, n_frames - first)]
                column = (first + np.arange(len(mel))) * columns // n_frames
                np.add.at(sums, column, mel)
                np.add.at(counts, column, 1)
        return sums / counts

    def _computed(self, chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, ChunkOutputs]]:
        """Yield the outputs of chunks, in their order.

        Raises:
            AudioError: The network cannot compute a chunk.
        """
        first = next(chunks)
        if first.last or self.workers == 1:
            yield first, self._outputs_of(first)
            for chunk in chunks:
                yield chunk, self._outputs_of(chunk)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: deque[tuple[Chunk, Future[ChunkOutputs]]] = deque()
            for chunk in chain([first], chunks):
                own = replace(chunk, samples=chunk.samples.copy())
                waiting.append((own, pool.submit(self._outputs_of, own, shared=True)))
                if len(waiting) > self.workers:
                    done, outputs = waiting.popleft()
                    yield done, outputs.result()
            for done, outputs in waiting:
                yield done, outputs.result()

    def _outputs_of(self, chunk: Chunk, *, shared: bool = False) -> ChunkOutputs:
        """Return the outputs for a chunk.

        Raises:
            AudioError: The network cannot compute it.
        """
        samples = chunk.samples
        if len(samples) < self.shortest_samples:  # the whole audio: later chunks are longer
            short_by = self.shortest_samples - len(samples)
            samples = np.pad(samples, [(0, short_by), *[(0, 0)] * (samples.ndim - 1)])
        try:
            return self.compute(samples[None], shared=shared)
        except ComputationError as error:
            start_s = (chunk.stop_sample - len(chunk.samples)) / self.sample_rate_hz
            advice = " Set chunk_seconds to a smaller value." if error.needs_memory else ""
            raise AudioError(
                UNNAMED,
                f"model {self.name!r} cannot compute {len(samples):,} samples from "
                f"{start_s:.3f} s on: {error}.{advice}",
            ) from error

    def run(
        self,
        blocks: Iterable[Waveform],
        *,
        frames: bool = False,
        embeddings: bool = False,
        on_progress: Progress | None = None,
    ) -> TagResult:
        """Return the tags and the embedding of a waveform.

        Args:
            blocks: Consecutive parts of the waveform, of any lengths: float (samples,) or
                (samples, channels), at the model's sample rate.
            frames: Also return the scores of every frame.
            embeddings: Also return the embedding of every frame.
            on_progress: Called repeatedly with the seconds of audio done.

        Raises:
            ConfigError: A block has another shape or contains NaN or infinite samples, or there
                are no samples.
        """
        clip, embedding = RunningPool(self.pooling), RunningMean()
        frame_scores: list[Array] = []
        frame_embeddings: list[Array] = []
        level = blocks if isinstance(blocks, LevelMeter) else LevelMeter(blocks)
        for piece in self.stream(level):
            clip.add(piece.frame_logits, piece.log_weights)
            embedding.add(piece.frame_embeddings)
            if frames:
                frame_scores.append(piece.frame_scores)
            if embeddings:
                frame_embeddings.append(piece.frame_embeddings)
            if on_progress is not None:
                on_progress(piece.seconds)
        seconds = level.samples / self.sample_rate_hz
        if on_progress is not None:
            on_progress(seconds)  # the last chunk may have no frame
        logits, scores = self.logits_and_scores(clip.result().astype(np.float32))
        return TagResult(
            seconds,
            logits,
            scores,
            np.concatenate(frame_scores) if frames else None,
            embedding.result().astype(np.float32),
            np.concatenate(frame_embeddings) if embeddings else None,
            level.notes(self.sample_rate_hz),
        )

    def run_file(
        self,
        source: Source,
        *,
        frames: bool = False,
        embeddings: bool = False,
        on_progress: Progress | None = None,
        strict: bool = False,
    ) -> TagResult:
        """Return the tags and the embedding of an audio file.

        The file is decoded while the network computes.

        Args:
            source: A path, or the bytes of a file.
            frames: See `run`.
            embeddings: See `run`.
            on_progress: See `run`.
            strict: Raise an error for damage that can be read around.

        Raises:
            AudioError: The file cannot be used.
        """
        block_samples = self.audio_format.samples(BLOCK_SECONDS)
        damage: list[str] = []
        blocks = file_blocks(source, self.audio_format, block_samples, self.decoder, damage)
        level = LevelMeter(blocks)
        try:
            result = self.run(
                level, frames=frames, embeddings=embeddings, on_progress=on_progress
            )
        except AudioError as error:
            if error.path != UNNAMED:
                raise
            raise AudioError(source_name(source), error.reason) from error
        if strict and damage:
            raise AudioError(source_name(source), "; ".join(damage))
        notes = [*damage, *result.notes]
        if self.channels == 1 and level.rms < QUIET_MIX_RMS:
            cancelled = cancelling_channels(
                source, self.sample_rate_hz, self.decoder, result.seconds
            )
            notes += [] if cancelled is None else [cancelled]
        return replace(result, notes=tuple(notes))


@dataclass(frozen=True)
class Chunk:
    """Part of a waveform.

    Attributes:
        number: Number of the chunk, from 0.
        samples: (n,) or (n, channels) float32, valid until the next chunk is taken.
        stop_sample: Position in the waveform after the chunk's last sample.
        last: Whether the waveform ends with this chunk.
    """

    number: int
    samples: Waveform
    stop_sample: int
    last: bool


def chunked(blocks: Iterable[Waveform], plan: ChunkPlan, audio: AudioFormat) -> Iterator[Chunk]:
    """Yield the chunks of a waveform that arrives in consecutive blocks.

    The chunks do not depend on the sizes of the blocks.

    Args:
        blocks: Float, (samples,) or (samples, channels), at the model's sample rate.
        plan: Layout of the chunks.
        audio: Format of the blocks.

    Raises:
        ConfigError: A block has another format or contains NaN or infinite samples, or there
            are no samples at all.
    """
    buffer = np.empty(audio.shape(plan.reserve_samples + 1), np.float32)
    filled = number = start = 0
    for block in blocks:
        _check_block(block, audio, start + filled)
        taken = 0
        while taken < len(block):
            count = min(len(block) - taken, len(buffer) - filled)
            buffer[filled : filled + count] = block[taken : taken + count]
            taken, filled = taken + count, filled + count
            if filled == len(buffer):
                yield Chunk(number, buffer[: plan.samples], start + plan.samples, last=False)
                filled -= plan.step_samples
                buffer[:filled] = buffer[plan.step_samples :]
                number, start = number + 1, start + plan.step_samples
    if not filled:
        raise ConfigError("The audio has no samples. Give at least one sample.")
    yield Chunk(number, buffer[:filled], start + filled, last=True)


def _check_block(block: Waveform, audio: AudioFormat, first_sample: int) -> None:
    """Check that a block has the right format and finite samples."""
    shape = audio.shape(len(block)) if np.ndim(block) else None
    if np.shape(block) != shape or not np.issubdtype(block.dtype, np.floating):
        wanted = "(samples,)" if audio.channels == 1 else f"(samples, {audio.channels})"
        advice = "" if np.ndim(block) else " Pass a whole waveform as one block: [waveform]."
        raise ConfigError(
            f"A block of audio must be a float array {wanted} in [-1, 1] at "
            f"{audio.sample_rate_hz} Hz. Received: {type(block).__name__} of shape "
            f"{np.shape(block)}, {getattr(block, 'dtype', 'no array')}.{advice}"
        )
    finite = np.isfinite(block)
    if not finite.all():
        sample = first_sample + int(np.argwhere(~finite)[0][0])
        raise ConfigError(
            "The audio has NaN or infinite samples, first at "
            f"{sample / audio.sample_rate_hz:.3f} s."
        )


def file_blocks(
    source: Source,
    audio: AudioFormat,
    block_samples: int,
    decoder: str = "soundfile",
    notes: list[str] | None = None,
) -> Iterator[Waveform]:
    """Yield the waveform of a file in blocks, decoded ahead in a thread.

    Args:
        source: A path, or the bytes of a file.
        audio: The requested format.
        block_samples: Length of a block; the last one may be shorter.
        decoder: One of `rfkeras.audio.decode.FILE_DECODERS`.
        notes: After the last block, a note about each damage that was read around is appended.

    Raises:
        AudioError: The file cannot be used.
    """
    opened = open_audio(source, audio, decoder=decoder)
    with opened as file, ThreadPoolExecutor(1) as thread:

        def read(start: int) -> Waveform:
            return file.read(start, min(block_samples, file.length - start))

        starts = iter(range(0, file.length, block_samples))
        ahead = deque(thread.submit(read, start) for start in islice(starts, BLOCKS_AHEAD))
        while ahead:
            block = ahead.popleft().result()
            ahead.extend(thread.submit(read, start) for start in islice(starts, 1))
            yield block
        if notes is not None:
            notes += file.notes


class RunningPool:
    """Pool frames that arrive in parts, like `rfkeras.layers.head.pool` over all of them.

    Args:
        pooling: One of `rfkeras.layers.head.POOLINGS`.
    """

    def __init__(self, pooling: str) -> None:
        self._pooling = pooling
        self._count = 0
        self._peak: Any = -np.inf  # highest logit; for attention, highest log weight
        self._total: Any = -np.inf if pooling == "log_mean_exp" else 0.0
        self._weight: Any = 0.0

    def add(self, logits: Array, log_weights: Array | None = None) -> None:
        """Add frames.

        Args:
            logits: (n, classes).
            log_weights: For attention, (n, classes).
        """
        values = logits.astype(np.float64)
        self._count += len(values)
        if self._pooling == "max":
            self._peak = np.maximum(self._peak, values.max(axis=0))
        elif self._pooling == "log_mean_exp":
            self._total = np.logaddexp(self._total, np.logaddexp.reduce(values, axis=0))
        elif log_weights is None:
            self._total = self._total + values.sum(axis=0)
        else:
            exponents = log_weights.astype(np.float64)
            peak = np.maximum(self._peak, exponents.max(axis=0))
            weights, fade = np.exp(exponents - peak), np.exp(self._peak - peak)
            self._total = fade * self._total + (weights * values).sum(axis=0)
            self._weight = fade * self._weight + weights.sum(axis=0)
            self._peak = peak

    def result(self) -> NDArray[np.float64]:
        """Return the pooled logits of the frames so far, (classes,); requires one frame."""
        if self._pooling == "max":
            pooled = self._peak
        elif self._pooling == "log_mean_exp":
            pooled = self._total - np.log(self._count)
        elif self._pooling == "attention":
            pooled = self._total / self._weight
        else:
            pooled = self._total / self._count
        return np.asarray(pooled)


class RunningMean:
    """Average rows that arrive in parts."""

    def __init__(self) -> None:
        self._count = 0
        self._total: Any = 0.0

    def add(self, values: Array) -> None:
        """Add rows (n, features)."""
        self._count += len(values)
        self._total = self._total + values.sum(axis=0, dtype=np.float64)

    def result(self) -> NDArray[np.float64]:
        """Return the mean of the rows so far, (features,); requires one row."""
        return np.asarray(self._total / self._count)
