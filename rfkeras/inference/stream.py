"""Tags of audio of any length, in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from rfkeras.audio.decode import FILE_DECODERS, open_audio
from rfkeras.audio.io import AudioFormat, Source, Waveform
from rfkeras.errors import ConfigError, unknown_name
from rfkeras.folding import fold_if_possible
from rfkeras.frontend import find_frontend
from rfkeras.inference.frames import ChunkPlan, FrameGrid, FrameTimes
from rfkeras.tasks import HALF, MULTI_LABEL
from zoo.tagger import Reader, label_names

Rows = NDArray[np.float32]


class RunningPool:
    """What `rfkeras.layers.head.pool` makes of all frames, without keeping any.

    Args:
        pooling: One of `rfkeras.layers.head.POOLINGS`.
    """

    def __init__(self, pooling: str) -> None:
        self._pooling = pooling
        self._count = 0
        self._peak: Any = -np.inf  # highest logit; of attention, log weight
        self._total: Any = -np.inf if pooling == "log_mean_exp" else 0.0
        self._weight: Any = 0.0

    def add(self, logits: Rows, log_weights: Rows | None = None) -> None:
        """Count in some frames.

        Args:
            logits: (n, classes).
            log_weights: Of attention, the same shape.
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
        """The pooled logits of all frames so far, (classes,); there must be one."""
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
    """The mean of rows that come in pieces."""

    def __init__(self) -> None:
        self._count = 0
        self._total: Any = 0.0

    def add(self, values: Rows) -> None:
        """Count in the rows of (n, features)."""
        self._count += len(values)
        self._total = self._total + values.sum(axis=0, dtype=np.float64)

    def result(self) -> NDArray[np.float64]:
        """Mean of all rows so far, (features,); there must be one."""
        return np.asarray(self._total / self._count)


# A chunk takes several blocks at once: while the network computes one, the next one's are
# decoded. With less ahead it waits for them; more changes nothing.
BLOCKS_AHEAD = 6


@dataclass(frozen=True)
class Chunk:
    """Part of a waveform.

    Attributes:
        number: From 0.
        samples: (n,) or (n, channels) float32, valid until the next chunk is taken.
        stop_sample: The waveform's sample after the last of them.
        last: Whether the waveform ends there.
    """

    number: int
    samples: Waveform
    stop_sample: int
    last: bool


def chunked(blocks: Iterable[Waveform], plan: ChunkPlan, audio: AudioFormat) -> Iterator[Chunk]:
    """The chunks of a waveform that comes in consecutive blocks.

    What the chunks are does not depend on the sizes of the blocks.

    Args:
        blocks: Float, (samples,) or (samples, channels), at the model's rate.
        plan: Of the chunks.
        audio: Format of the blocks.

    Raises:
        ConfigError: A block is not of that format or holds NaN or infinite samples, or
            there is not a single sample.
    """
    buffer = np.empty(audio.shape(plan.reserve_samples + 1), np.float32)
    filled = number = start = 0
    for block in blocks:
        _check(block, audio, start + filled)
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
        raise ConfigError("The audio has no samples: blocks must hold at least one.")
    yield Chunk(number, buffer[:filled], start + filled, last=True)


def file_blocks(
    source: Source, audio: AudioFormat, block_samples: int, decoder: str = "soundfile"
) -> Iterator[Waveform]:
    """The waveform of a file, decoded some blocks ahead in a thread.

    Args:
        source: A path, or the bytes of a file.
        audio: The format wanted.
        block_samples: Length of a block; the last may be shorter.
        decoder: One of `rfkeras.audio.decode.FILE_DECODERS`.

    Raises:
        AudioError: The file cannot be used, or ends before its declared length.
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


def _check(block: Waveform, audio: AudioFormat, first_sample: int) -> None:
    shape = audio.shape(len(block)) if np.ndim(block) else None
    if np.shape(block) != shape or not np.issubdtype(block.dtype, np.floating):
        wanted = "(samples,)" if audio.channels == 1 else f"(samples, {audio.channels})"
        raise ConfigError(
            f"A block of audio must be a float array {wanted} in [-1, 1] at "
            f"{audio.sample_rate_hz} Hz. Received: {type(block).__name__} of shape "
            f"{np.shape(block)}, {getattr(block, 'dtype', 'no array')}."
        )
    finite = np.isfinite(block)
    if not finite.all():
        sample = first_sample + int(np.argwhere(~finite)[0][0])
        raise ConfigError(
            f"The audio has NaN or infinite samples, first at "
            f"{sample / audio.sample_rate_hz:.3f} s."
        )


Array = NDArray[np.float32]


@dataclass(frozen=True)
class Piece:
    """Consecutive frames of a waveform, as soon as they are known.

    Attributes:
        first_frame: Number of the first of them, from 0 at the waveform's start.
        seconds: How far the audio has been read.
        frame_logits: (n, classes) float32.
        frame_scores: (n, classes) float32, in [0, 1].
        log_weights: Logarithm of each frame's weight in the clip's logits, up to a constant,
            (n, classes) float32; None where all weigh alike.
        frame_embeddings: (n, features) float32.
    """

    first_frame: int
    seconds: float
    frame_logits: Array
    frame_scores: Array
    log_weights: Array | None
    frame_embeddings: Array


@dataclass(frozen=True)
class TagResult:
    """Tags and features of a waveform.

    Attributes:
        seconds: Its length.
        logits: (classes,) float32.
        scores: (classes,) float32, in [0, 1].
        frame_scores: (n, classes) float32, in [0, 1]; None unless asked for.
        embedding: (features,) float32: mean over the frames.
        frame_embeddings: (n, features) float32; None unless asked for.
    """

    seconds: float
    logits: Array
    scores: Array
    frame_scores: Array | None
    embedding: Array
    frame_embeddings: Array | None


Progress = Callable[[float], None]

BLOCK_SECONDS = 10.0  # of a file, decoded at once


class StreamTagger:
    """Runs a model on audio of any length, in chunks.

    Where the model's receptive field is limited and its front-end has a fixed floor, frames
    and clips are what one pass over the whole audio gives, up to float rounding: neighbouring
    chunks overlap by as much as frames hear. Memory does not grow with the audio, but for the
    frames that are asked for. It computes with a folded copy of the model (`rfkeras.fold`), in
    float32, with the weights that the model has now.

    Args:
        model: A `rfkeras.Tagger`, or a functional model with a front-end and a `ClipLogits`
            layer at its end.
        chunk_seconds: About so much new audio goes into each pass.
        decoder: What reads files: "soundfile", or "isolated", which does the same in a
            process that may die.

    Attributes:
        model: The model.
        decoder: What reads files.
        label_names: Name of each tag.
        thresholds: Score of each tag from which it applies, (classes,); None where tags
            exclude each other.
        audio_format: Of the waveforms that it is given.
        frames: When the frames are.
        exact: Whether chunks give what the whole gives.
        reason_not_exact: Why they do not, and where it can be mended, how; None if exact.
        plan: The chunks.

    Raises:
        ConfigError: The model takes spectrograms, or cannot be read frame by frame;
            chunk_seconds is not positive; or there is no such decoder.

    Example:
        >>> tagger = StreamTagger(rfkeras.load_model("runs/NAME/model.keras"))
        >>> result = tagger.run_file("concert.flac", frames=True)
        >>> result.scores, result.frame_scores, tagger.frames.centres_ms(3)
    """

    def __init__(
        self, model: keras.Model, chunk_seconds: float = 30.0, decoder: str = "soundfile"
    ) -> None:
        frontend = find_frontend(model)
        if frontend is None:
            raise ConfigError(
                f"Model {model.name!r} takes spectrograms, not audio. Create it with a "
                "front-end, such as frontend='perceptual_mel_22k', or call model.scores("
                "spectrograms)."
            )
        if not 0 < chunk_seconds < float("inf"):
            raise ConfigError(
                f"chunk_seconds must be a positive number. Received: {chunk_seconds!r}."
            )
        shape = model.inputs[0].shape
        if shape[1] is not None:
            raise ConfigError(
                f"Model {model.name!r} takes audio of {shape[1]} samples only. Build it with "
                "keras.Input((None,)), or (None, 2) for stereo, so that it takes any length."
            )
        if decoder not in FILE_DECODERS:
            raise ConfigError(unknown_name("decoder", decoder, FILE_DECODERS))
        self.model = model
        self.decoder = decoder
        self._reader = Reader(fold_if_possible(model))
        head = self._reader.head
        self.label_names = label_names(model)
        thresholds = head.thresholds or [HALF] * len(self.label_names)
        self.thresholds = np.array(thresholds) if head.task == MULTI_LABEL else None
        self.audio_format = AudioFormat(
            frontend.sample_rate_hz, 1 if len(shape) == 2 else int(shape[2])
        )
        grid = FrameGrid(model, frontend)
        self.plan = grid.plan(chunk_seconds)
        self.exact = not grid.reasons
        self.reason_not_exact = "; ".join(grid.reasons) or None
        self.frames = grid.times() or self._one_a_chunk()
        # One signature for chunks of all lengths: the last one is traced no second time.
        # Nothing in it is control flow of Python, and looking for some takes 0.3 s.
        self._read = tf.function(
            self._outputs,
            input_signature=[tf.TensorSpec((1, *shape[1:]), tf.float32)],
            autograph=False,
        )

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the waveforms that it is given."""
        return self.audio_format.sample_rate_hz

    @property
    def channels(self) -> int:
        """Channels of the waveforms that it is given, 1 or 2."""
        return self.audio_format.channels

    def stream(self, blocks: Iterable[Waveform]) -> Iterator[Piece]:
        """The frames of a waveform, as soon as enough of it has come.

        Args:
            blocks: Consecutive pieces of the waveform, of any lengths: float (samples,) or
                (samples, channels), at the model's rate.

        Yields:
            Pieces that follow one another without gap; at least one.

        Raises:
            ConfigError: A block has another shape, or holds NaN or infinite samples; or there
                is no sample.
        """
        first_frame = 0
        for chunk in chunked(blocks, self.plan, self.audio_format):
            kept = slice(
                self.plan.skip if chunk.number else 0, None if chunk.last else self.plan.stop
            )
            outputs: list[Any] = [
                None if rows is None else rows.numpy()[0, kept]
                for rows in self._read(chunk.samples[None])
            ]
            logits, scores, log_weights, embeddings = outputs
            seconds = chunk.stop_sample / self.sample_rate_hz
            if len(logits):
                yield Piece(first_frame, seconds, logits, scores, log_weights, embeddings)
            first_frame += len(logits)

    def run(
        self,
        blocks: Iterable[Waveform],
        *,
        frames: bool = False,
        embeddings: bool = False,
        on_progress: Progress | None = None,
    ) -> TagResult:
        """Tags and embedding of a waveform.

        Args:
            blocks: Consecutive pieces of the waveform, of any lengths: float (samples,) or
                (samples, channels), at the model's rate.
            frames: Return the scores of every frame too.
            embeddings: Return the embedding of every frame too.
            on_progress: Called with the seconds of audio that are done, now and then.

        Raises:
            ConfigError: A block has another shape, or holds NaN or infinite samples; or there
                is no sample.
        """
        head = self._reader.head
        clip, embedding = RunningPool(head.pooling), RunningMean()
        frame_scores: list[Array] = []
        frame_embeddings: list[Array] = []
        length = _Length(blocks)
        for piece in self.stream(length):
            clip.add(piece.frame_logits, piece.log_weights)
            embedding.add(piece.frame_embeddings)
            if frames:
                frame_scores.append(piece.frame_scores)
            if embeddings:
                frame_embeddings.append(piece.frame_embeddings)
            if on_progress is not None:
                on_progress(piece.seconds)
        seconds = length.samples / self.sample_rate_hz
        if on_progress is not None:
            on_progress(seconds)  # the last chunk may have held no frame of its own
        logits = clip.result().astype(np.float32)
        return TagResult(
            seconds,
            logits,
            head.scores(logits).numpy(),
            np.concatenate(frame_scores) if frames else None,
            embedding.result().astype(np.float32),
            np.concatenate(frame_embeddings) if embeddings else None,
        )

    def run_file(
        self,
        source: Source,
        *,
        frames: bool = False,
        embeddings: bool = False,
        on_progress: Progress | None = None,
    ) -> TagResult:
        """Tags and embedding of an audio file, decoded as they are computed.

        Args:
            source: A path, or the bytes of a file.
            frames: As for `run`.
            embeddings: As for `run`.
            on_progress: As for `run`.

        Raises:
            AudioError: The file cannot be used, or ends before its declared length.
        """
        block_samples = self.audio_format.samples(BLOCK_SECONDS)
        blocks = file_blocks(source, self.audio_format, block_samples, self.decoder)
        return self.run(blocks, frames=frames, embeddings=embeddings, on_progress=on_progress)

    def _outputs(self, waveform: Any) -> tuple[Any, Any, Any, Any]:
        reading = self._reader(waveform)
        scores = self._reader.head.scores(reading.frame_logits)
        return reading.frame_logits, scores, reading.log_weights, reading.frame_embeddings

    def _one_a_chunk(self) -> FrameTimes:
        step_ms = 1000.0 * self.plan.step_samples / self.sample_rate_hz
        return FrameTimes(step_ms, step_ms / 2, None)


class _Length:
    """Blocks, counted as they pass."""

    def __init__(self, blocks: Iterable[Waveform]) -> None:
        self._blocks = blocks
        self.samples = 0

    def __iter__(self) -> Iterator[Waveform]:
        for block in self._blocks:
            yield block
            self.samples += len(block)
