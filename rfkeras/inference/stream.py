"""Tag audio of any length in chunks, with constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from rfkeras.audio.decode import FILE_DECODERS, open_audio
from rfkeras.audio.io import AudioFormat, Waveform, source_name
from rfkeras.audio.source import Source
from rfkeras.errors import AudioError, ConfigError, unknown_name
from rfkeras.folding import fold_if_possible
from rfkeras.frontend import find_frontend
from rfkeras.inference.frames import ChunkPlan, FrameGrid, FrameTimes
from rfkeras.inference.levels import QUIET_MIX_RMS, LevelMeter, cancelling_channels
from rfkeras.utils.model_graph import only_input
from zoo.tagger import Reader, label_names, tag_thresholds

Array = NDArray[np.float32]
Progress = Callable[[float], None]
UNNAMED = "audio"  # in errors about audio that is not from a named file
BLOCK_SECONDS = 10.0  # length of a block of a file

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


class StreamTagger:
    """Runs a model on audio of any length, in chunks.

    If the model's receptive field is limited and its front-end has a fixed floor, chunked
    results equal those of a single pass up to float rounding: neighbouring chunks overlap by
    one receptive field. Memory does not grow with the audio, except for requested frames. The
    tagger uses a folded copy of the model (`rfkeras.fold`) in float32, made when it is created.

    Args:
        model: A `rfkeras.Tagger`, or a functional or Sequential model with a front-end and a
            `ClipLogits` layer at its end; both may be in nested models.
        chunk_seconds: Approximate amount of new audio per chunk. Smaller values need less
            memory.
        decoder: Decoder for files: "soundfile", or "isolated", which uses soundfile in a
            separate process that may crash.
        fold: Compute with the folded copy. False: with the model itself, in its precision and
            with the weights that it has at the time of a call, such as during training.

    Attributes:
        model: The model.
        chunk_seconds: Approximate amount of new audio per chunk.
        decoder: Decoder for files.
        label_names: Name of each tag.
        thresholds: Lowest score with which each tag applies, (classes,); None if tags are
            mutually exclusive.
        audio_format: Format of the input waveforms.
        frames: Times of the frames.
        exact: Whether chunks give the same results as a single pass.
        reason_not_exact: Why they do not, and how to change that if possible; None if exact.
        plan: Layout of the chunks.
        shortest_samples: Shortest audio that the model can compute. Shorter audio is padded to
            it with zeros at its end.

    Raises:
        ConfigError: The model takes spectrograms, has several inputs or outputs, or cannot be
            read frame by frame; chunk_seconds is not positive; or the decoder is unknown.

    Example:
        >>> tagger = StreamTagger(rfkeras.load_model("runs/NAME/model.keras"))
        >>> result = tagger.run_file("concert.flac", frames=True)
        >>> result.scores, result.frame_scores, tagger.frames.centres_ms(3)
    """

    def __init__(
        self,
        model: keras.Model,
        chunk_seconds: float = 30.0,
        decoder: str = "soundfile",
        *,
        fold: bool = True,
    ) -> None:
        source = only_input(model)
        frontend = find_frontend(model)
        if frontend is None:
            raise ConfigError(
                f"Model {model.name!r} takes spectrograms, not audio. Create it with a "
                "front-end, such as frontend='perceptual_mel_22k', or call "
                "model.scores(spectrograms)."
            )
        if not 0 < chunk_seconds < float("inf"):
            raise ConfigError(
                f"chunk_seconds must be a positive number. Received: {chunk_seconds!r}."
            )
        shape = source.shape
        if len(shape) not in (2, 3):
            raise ConfigError(
                f"Model {model.name!r} needs waveforms (batch, samples) or (batch, samples, "
                f"channels). Received: an input of shape {tuple(shape)}."
            )
        if shape[1] is not None:
            raise ConfigError(
                f"Model {model.name!r} takes audio of {shape[1]} samples only. To accept any "
                "length, build it with keras.Input((None,)), or (None, 2) for stereo."
            )
        if decoder not in FILE_DECODERS:
            raise ConfigError(unknown_name("decoder", decoder, FILE_DECODERS))
        self.model = model
        self.chunk_seconds = chunk_seconds
        self.decoder = decoder
        self._reader = Reader(fold_if_possible(model) if fold else model)
        self.label_names = label_names(model)
        thresholds = tag_thresholds(model)
        self.thresholds = None if thresholds is None else np.array(thresholds)
        self.audio_format = AudioFormat(
            frontend.sample_rate_hz, 1 if len(shape) == 2 else int(shape[2])
        )
        grid = FrameGrid(model, frontend)
        self.plan = grid.plan(chunk_seconds)
        self.shortest_samples = grid.shortest
        self.exact = not grid.reasons
        self.reason_not_exact = "; ".join(grid.reasons) or None
        self.frames = grid.times() or self._chunk_times()
        # One signature for chunks of all lengths, so that the last one is not traced again.
        # There is no Python control flow to convert, and searching for it takes 0.3 s.
        self._read = tf.function(
            self._outputs,
            input_signature=[tf.TensorSpec((1, *shape[1:]), tf.float32)],
            autograph=False,
        )

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
        for chunk in chunked(blocks, self.plan, self.audio_format):
            kept = slice(
                self.plan.skip if chunk.number else 0, None if chunk.last else self.plan.stop
            )
            outputs: list[Any] = [
                None if rows is None else rows[0, kept] for rows in self._computed(chunk)
            ]
            logits, scores, log_weights, embeddings = outputs
            seconds = chunk.stop_sample / self.sample_rate_hz
            if len(logits):
                yield Piece(first_frame, seconds, logits, scores, log_weights, embeddings)
            first_frame += len(logits)

    def _computed(self, chunk: Chunk) -> list[Any]:
        """Return the outputs for a chunk as arrays.

        Raises:
            AudioError: The model cannot compute it.
        """
        samples = chunk.samples
        if len(samples) < self.shortest_samples:  # the whole audio: later chunks are longer
            short_by = self.shortest_samples - len(samples)
            samples = np.pad(samples, [(0, short_by), *[(0, 0)] * (samples.ndim - 1)])
        try:
            rows = self._read(samples[None])
            return [None if row is None else row.numpy() for row in rows]
        except (tf.errors.OpError, ValueError, MemoryError) as error:
            start_s = (chunk.stop_sample - len(chunk.samples)) / self.sample_rate_hz
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            advice = ""
            if isinstance(error, tf.errors.ResourceExhaustedError | MemoryError):
                advice = " Set chunk_seconds to a smaller value."
            raise AudioError(
                UNNAMED,
                f"model {self.model.name!r} cannot compute {len(samples):,} samples from "
                f"{start_s:.3f} s on: {type(error).__name__}: {reason}.{advice}",
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
        head = self._reader.head
        clip, embedding = RunningPool(head.pooling), RunningMean()
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
        logits = clip.result().astype(np.float32)
        return TagResult(
            seconds,
            self._reader.outputs.logits(logits).numpy(),
            self._reader.outputs.scores(logits).numpy(),
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

    def _outputs(self, waveform: Any) -> tuple[Any, Any, Any, Any]:
        reading = self._reader(waveform)
        scores = self._reader.outputs.scores(reading.frame_logits)
        return reading.frame_logits, scores, reading.log_weights, reading.frame_embeddings

    def _chunk_times(self) -> FrameTimes:
        """Return frame times for models with a fixed number of frames: one per chunk."""
        step_ms = 1000.0 * self.plan.step_samples / self.sample_rate_hz
        return FrameTimes(step_ms, step_ms / 2, None)


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
