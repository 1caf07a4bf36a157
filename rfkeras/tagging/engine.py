"""Tags of audio of any length, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rfkeras.data.audio_format import AudioFormat, Waveform
from rfkeras.data.decoding import FILE_DECODERS
from rfkeras.data.opening import Source
from rfkeras.errors import ConfigError, unknown_name
from rfkeras.export.saved_model import label_names
from rfkeras.folding import fold_if_possible
from rfkeras.frontend import find_frontend
from rfkeras.tagger import Reader
from rfkeras.tagging.accumulate import RunningMean, RunningPool
from rfkeras.tagging.blocks import chunked, file_blocks
from rfkeras.tagging.frames import FrameTimes
from rfkeras.tagging.grid import FrameGrid
from rfkeras.tagging.result import Array, Piece, TagResult
from rfkeras.tasks import HALF, MULTI_LABEL

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
