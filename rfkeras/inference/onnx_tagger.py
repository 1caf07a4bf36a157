"""The tagger of engine files, on ONNX Runtime. Imports neither TensorFlow nor Keras.

An engine file is an ONNX graph from spectrograms to the frames of a model. The numbers of the
front-end and of the chunks are in its metadata. The front-end is computed by NumPy, whose
Fourier transform is many times faster than that of ONNX Runtime. `rfkeras.export.engine` writes
engine files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from rfkeras.audio.io import AudioFormat, Waveform
from rfkeras.errors import CheckpointError
from rfkeras.frontend.numpy_mel import MelSpectrogram
from rfkeras.inference.chunks import FrameTimes, Overlap
from rfkeras.inference.stream import Array, ChunkOutputs, ChunkTagger, ComputationError
from rfkeras.tasks import MULTI_LABEL
from rfkeras.utils.processes import usable_cores

FORMAT = 1
RECORD = "rfkeras_engine"
LOGITS, SCORES, WEIGHTS, EMBEDDINGS = (
    "frame_logits",
    "frame_scores",
    "log_weights",
    "frame_embeddings",
)
_SMALLEST = 6e-8  # the distance of 1 to the next smaller float32


class OnnxTagger(ChunkTagger):
    """Runs an engine file on audio of any length, in chunks.

    Args:
        path: The engine file.
        chunk_seconds: Approximate amount of new audio per chunk.
        decoder: See `ChunkTagger`.
        threads: Threads of the network; None for one per core.

    Raises:
        CheckpointError: It is not an engine file, is damaged, or was written by another
            version of rfkeras.
        ConfigError: See `ChunkTagger`.
    """

    def __init__(
        self,
        path: str | Path,
        chunk_seconds: float = 30.0,
        decoder: str = "soundfile",
        *,
        threads: int | None = None,
    ) -> None:
        super().__init__(chunk_seconds, decoder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            record = json.loads(self._session.get_modelmeta().custom_metadata_map[RECORD])
            if record["format"] != FORMAT:
                raise ValueError(
                    f"it has format {record['format']}, and this version reads {FORMAT}"
                )
            self._read_record(record)
        except Exception as error:
            # ONNX Runtime raises classes of its own for damaged files.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"{path} cannot be used as an engine file: {reason}. Remove it; it is written "
                "again when it is needed."
            ) from error
        self.plan = self._overlap.plan(chunk_seconds)
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def _read_record(self, record: dict[str, Any]) -> None:
        self.name = record["name"]
        self.label_names = tuple(record["labels"])
        thresholds = record["thresholds"]
        self.thresholds = None if thresholds is None else np.array(thresholds)
        self.audio_format = AudioFormat(record["sample_rate_hz"], record["channels"])
        self.frames = FrameTimes(**record["frames"])
        self.reason_not_exact = record["reason_not_exact"]
        self.exact = self.reason_not_exact is None
        self.shortest_samples = record["shortest_samples"]
        self.pooling = record["pooling"]
        self._overlap = Overlap.from_json(record["overlap"])
        self._task, self._are_logits = record["task"], record["outputs"] == "logits"
        self.scale = self._overlap.scale
        self._mel = MelSpectrogram.from_json(record["spectrogram"])
        self.spectrogram_least_samples = self._mel.min_samples
        self._mean_db = np.array(record["mean_db"], np.float32)
        self._std_db = np.array(record["std_db"], np.float32)

    def compute(self, waveform: Array) -> ChunkOutputs:
        """Compute the frames of a waveform; see `ChunkTagger.compute`."""
        try:
            levels = self._mel.mel_db(waveform[0])
            levels -= self._mean_db[:, None]
            levels /= self._std_db[:, None]
            rows = self._session.run(self._outputs, {self._input: levels[None]})
        except Exception as error:  # ONNX Runtime has classes of its own
            memory = isinstance(error, MemoryError) or "allocate" in str(error)
            raise ComputationError(error, needs_memory=memory) from error
        values = dict(zip(self._outputs, rows, strict=True))
        return ChunkOutputs(
            values[LOGITS], values[SCORES], values.get(WEIGHTS), values[EMBEDDINGS]
        )

    def mel_db(self, waveform: Waveform) -> Array:
        """Return the spectrogram before standardisation; see `ChunkTagger.mel_db`."""
        levels: Array = self._mel.mel_db(waveform).mean(axis=-1)
        return levels

    def logits_and_scores(self, pooled: Array) -> tuple[Array, Array]:
        """Convert pooled outputs; see `ChunkTagger.logits_and_scores`.

        The same as `rfkeras.layers.outputs.Outputs`, which needs Keras.
        """
        if self._are_logits:
            if self._task == MULTI_LABEL:
                return pooled, 0.5 * (1.0 + np.tanh(0.5 * pooled))
            powers = np.exp(pooled - pooled.max())
            return pooled, powers / powers.sum()
        shares = np.clip(pooled, _SMALLEST, 1.0 - _SMALLEST)
        logits = np.log(shares)
        return (logits - np.log1p(-shares) if self._task == MULTI_LABEL else logits), pooled
