"""The tagger of Keras models, on TensorFlow."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rfkeras.audio.io import AudioFormat, Waveform
from rfkeras.errors import ConfigError
from rfkeras.folding import fold_if_possible
from rfkeras.frontend import find_frontend
from rfkeras.inference.chunks import FrameTimes
from rfkeras.inference.frames import FrameGrid
from rfkeras.inference.stream import Array, ChunkOutputs, ChunkTagger, ComputationError
from rfkeras.utils.model_graph import only_input
from zoo.tagger import Reader, label_names, tag_thresholds


class StreamTagger(ChunkTagger):
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
        model: The model. For the others see `ChunkTagger`.

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
        super().__init__(chunk_seconds, decoder)
        source = only_input(model)
        frontend = find_frontend(model)
        if frontend is None:
            raise ConfigError(
                f"Model {model.name!r} takes spectrograms, not audio. Create it with a "
                "front-end, such as frontend='perceptual_mel_22k', or call "
                "model.scores(spectrograms)."
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
        self.model = model
        self.name = model.name
        self._reader = Reader(fold_if_possible(model) if fold else model)
        self.pooling = self._reader.head.pooling
        self.label_names = label_names(model)
        thresholds = tag_thresholds(model)
        self.thresholds = None if thresholds is None else np.array(thresholds)
        self.audio_format = AudioFormat(
            frontend.sample_rate_hz, 1 if len(shape) == 2 else int(shape[2])
        )
        grid = FrameGrid(model, frontend)
        self.plan = grid.plan(chunk_seconds)
        self.shortest_samples = grid.shortest
        self.scale = grid.scale
        self.spectrogram_least_samples = frontend.min_samples
        self._frontend = frontend
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

    def compute(self, waveform: Array, *, shared: bool = False) -> ChunkOutputs:
        """Compute the frames of a waveform; see `ChunkTagger.compute`."""
        try:
            outputs = self._read(waveform)
            rows: list[Any] = [None if row is None else row.numpy() for row in outputs]
            return ChunkOutputs(*rows)
        except (tf.errors.OpError, ValueError, MemoryError) as error:
            memory = isinstance(error, tf.errors.ResourceExhaustedError | MemoryError)
            raise ComputationError(error, needs_memory=memory) from error

    def mel_db(self, waveform: Waveform) -> Array:
        """Return the spectrogram before standardisation; see `ChunkTagger.mel_db`."""
        levels: Array = self._frontend.mel_db(waveform[None]).numpy()[0].mean(-1)
        return levels

    def logits_and_scores(self, pooled: Array) -> tuple[Array, Array]:
        """Convert pooled outputs; see `ChunkTagger.logits_and_scores`."""
        outputs = self._reader.outputs
        return outputs.logits(pooled).numpy(), outputs.scores(pooled).numpy()

    def _outputs(self, waveform: Any) -> tuple[Any, Any, Any, Any]:
        reading = self._reader(waveform)
        scores = self._reader.outputs.scores(reading.frame_logits)
        return reading.frame_logits, scores, reading.log_weights, reading.frame_embeddings

    def _chunk_times(self) -> FrameTimes:
        """Return frame times for models with a fixed number of frames: one per chunk."""
        step_ms = 1000.0 * self.plan.step_samples / self.sample_rate_hz
        return FrameTimes(step_ms, step_ms / 2, None)
