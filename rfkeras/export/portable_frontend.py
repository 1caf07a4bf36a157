"""The front-end in operations that every converter has."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from rfkeras.export.power_spectrum import PowerSpectrum
from rfkeras.frontend.layer import Frontend
from rfkeras.frontend.transform import DB_OF_E, floored_log, frames


class PortableFrontend:
    """What a `Frontend` computes, as a function for graphs that will be converted.

    `Frontend` itself computes with kapre's complex numbers, which neither TFLite's own
    operations nor ONNX take at any length.

    Args:
        frontend: A built one; its statistics are copied.
    """

    def __init__(self, frontend: Frontend):
        self.frontend = frontend
        self._spectrum = PowerSpectrum(frontend.n_fft, frontend.window_samples)
        bins = self._spectrum.bins
        filters = np.asarray(frontend.mel.filterbank, np.float64)
        weights = np.zeros((len(bins), frontend.n_mels))
        _, first = np.unique(bins, return_index=True)  # a bin that comes twice counts once
        weights[first] = filters[bins[first]]
        mean_db, std_db = (
            v.numpy().astype(np.float64) for v in (frontend.mean_db, frontend.std_db)
        )
        if frontend.order == "db_then_mel":
            # Weighting, filters and standardisation are all linear in dB.
            weights, mean_db = weights * DB_OF_E / std_db, mean_db - frontend.offset_db
        self._weights = weights.astype(np.float32)
        self._scale = (DB_OF_E / std_db).astype(np.float32)
        self._shift = (-mean_db / std_db).astype(np.float32)

    def __call__(self, waveform: Any) -> Any:
        """The standardised spectrogram.

        Args:
            waveform: (batch, samples) or (batch, samples, channels), float32.

        Returns:
            (batch, time, mel, channels), float32.
        """
        channels = 1 if waveform.shape.rank == 2 else waveform.shape[2]
        if waveform.shape.rank == 3:
            waveform = tf.transpose(waveform, (0, 2, 1))
        shape = tf.shape(waveform)
        batch, samples = shape[0], shape[-1]
        rows = tf.reshape(waveform, tf.stack([batch * channels, samples]))
        power = self._spectrum(self._frames(rows, samples))
        # All channels of a clip in one row: the floor is under the loudest of them.
        power = tf.reshape(power, tf.stack([batch, -1, len(self._spectrum.bins)]))
        if self.frontend.order == "db_then_mel":
            mel = tf.matmul(self._log(power), self._weights) + self._shift
        else:
            mel = self._log(tf.matmul(power, self._weights)) * self._scale + self._shift
        if channels == 1:
            return tf.expand_dims(mel, -1)
        mel = tf.reshape(mel, tf.stack([batch, channels, -1, self.frontend.n_mels]))
        return tf.transpose(mel, (0, 2, 3, 1))

    def _frames(self, rows: Any, samples: Any) -> Any:
        """Windows of (rows, samples) around every hop, (rows, time, window_samples)."""
        window, hop = self.frontend.window_samples, self.frontend.hop_samples
        short_by = tf.maximum(0, self.frontend.min_samples - samples)
        rows = tf.pad(rows, [[0, 0], [0, short_by]])
        half = window // 2
        rows = tf.pad(rows, [[0, 0], [half, half]], mode="REFLECT")
        count = (tf.shape(rows)[1] - window) // hop + 1
        return frames(rows, window, hop, count)

    def _log(self, power: Any) -> Any:
        return floored_log(power, self.frontend.amin, self.frontend.range_db)
