"""The mel front-end as one Keras layer, built on kapre's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import librosa
import numpy as np
import tensorflow as tf

from rfkeras.errors import ConfigError
from rfkeras.frontend.filters import GroupedFilterbank
from rfkeras.frontend.transform import DB_OF_E, CentredSTFT, floored_log, power
from rfkeras.receptive_field.units import scale_of_frontend

AMIN = 1e-10  # power under which the dB stage does not go: librosa's and the paper's value
ARGUMENTS = (
    "sample_rate_hz",
    "n_fft",
    "window_samples",
    "hop_samples",
    "n_mels",
    "order",
    "a_weighting",
    "dynamic_range_db",
    "fixed_floor",
    "min_frames",
)


@keras.saving.register_keras_serializable(package="rfkeras")
class Frontend(keras.layers.Layer):
    """Waveform to standardised mel spectrogram in dB, on the device.

    Centred STFT (Hann window, reflect padding), power, dB with a floor, optional
    A-weighting, Slaney mel filter bank, standardisation per mel band. It computes in
    float32 under every dtype policy. Audio shorter than `min_frames` needs is padded with
    zeros at its end.

    Args:
        sample_rate_hz: Rate of the waveforms it is given. It cannot be told from the
            samples: audio at another rate must be resampled before.
        n_fft: FFT length in samples, at least the window's.
        window_samples: Length of the Hann window.
        hop_samples: Samples between frames.
        n_mels: Mel bands between 0 Hz and half the sample rate.
        order: "db_then_mel" applies the filter bank to dB values, as the published
            networks' features do; "mel_then_db" is the usual log-mel.
        a_weighting: Add the A-weighting curve to the dB values of each FFT bin; only in
            the order "db_then_mel".
        dynamic_range_db: The floor lies this far under the maximum.
        fixed_floor: Take the floor from the level of a full-scale sine instead of from
            the loudest point of the clip (all its channels together). Then a frame does
            not depend on the rest of the clip, and a file computed in pieces equals the
            whole.
        min_frames: Fewest frames of the output.
        **kwargs: As for `keras.layers.Layer`; dtype is always float32.

    Input shape:
        (batch, samples), or (batch, samples, channels); float in [-1, 1].

    Output shape:
        (batch, 1 + samples // hop_samples, n_mels, channels), float32.

    Raises:
        ConfigError: A parameter out of range.
    """

    def __init__(
        self,
        sample_rate_hz: int,
        n_fft: int = 2048,
        window_samples: int = 2048,
        hop_samples: int = 512,
        n_mels: int = 256,
        order: str = "db_then_mel",
        a_weighting: bool = True,
        dynamic_range_db: float = 80.0,
        fixed_floor: bool = False,
        min_frames: int = 1,
        **kwargs: Any,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.sample_rate_hz = sample_rate_hz
        self.n_fft = n_fft
        self.window_samples = window_samples
        self.hop_samples = hop_samples
        self.n_mels = n_mels
        self.order = order
        self.a_weighting = a_weighting
        self.dynamic_range_db = dynamic_range_db
        self.fixed_floor = fixed_floor
        self.min_frames = min_frames
        self._check()
        self.stft = CentredSTFT(
            n_fft,
            window_samples,
            hop_samples,
            window_name="hann_window",
            dtype="float32",
            name="stft",
        )
        self.mel = GroupedFilterbank(
            {"sample_rate": sample_rate_hz, "n_freq": n_fft // 2 + 1, "n_mels": n_mels},
            dtype="float32",
            name="mel",
        )
        # Power under which the dB stage does not go, and its range under the loudest point.
        self.amin = AMIN
        self.range_db: float | None = dynamic_range_db
        if fixed_floor:
            self.amin = 10.0 ** ((self._full_scale_db() - dynamic_range_db) / 10.0)
            self.range_db = None
        #: (n_mels,) float64, what the A-weighting adds to each band.
        self.offset_db = self._weighting_db() if a_weighting else np.zeros(n_mels)

    def _check(self) -> None:
        whole = ("sample_rate_hz", "n_fft", "window_samples", "hop_samples", "n_mels")
        for name in (*whole, "min_frames"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"Frontend: {name} must be a whole number of at least 1. "
                    f"Received: {value!r}."
                )
        if self.window_samples > self.n_fft:
            raise ConfigError(
                "Frontend: window_samples must not exceed n_fft. Received: "
                f"window_samples={self.window_samples}, n_fft={self.n_fft}."
            )
        if self.order not in ("db_then_mel", "mel_then_db"):
            raise ConfigError(
                "Frontend: order must be 'db_then_mel' or 'mel_then_db'. "
                f"Received: {self.order!r}."
            )
        if self.a_weighting and self.order != "db_then_mel":
            raise ConfigError(
                "Frontend: a_weighting=True needs order='db_then_mel'. "
                f"Received: order={self.order!r}."
            )
        if not self.dynamic_range_db > 0:
            raise ConfigError(
                "Frontend: dynamic_range_db must be positive. "
                f"Received: {self.dynamic_range_db!r}."
            )

    def _full_scale_db(self) -> float:
        """Level of a full-scale sine where dB is taken."""
        level_db = 20.0 * math.log10(self.window_samples / 4)  # half the Hann window's sum
        if self.order == "mel_then_db":
            level_db += 10.0 * math.log10(float(np.max(self.mel.filterbank)))
        return level_db

    def _weighting_db(self) -> Any:
        """The A-weighting behind the filter bank, which is linear in dB, (n_mels,)."""
        bins_hz = librosa.fft_frequencies(sr=self.sample_rate_hz, n_fft=self.n_fft)
        with np.errstate(divide="ignore"):  # 0 Hz is -inf before librosa's floor
            weights_db = librosa.A_weighting(bins_hz)
        return weights_db @ np.asarray(self.mel.filterbank, np.float64)

    @property
    def hop_ms(self) -> float:
        """Time between two frames in milliseconds."""
        return 1000.0 * self.hop_samples / self.sample_rate_hz

    @property
    def min_samples(self) -> int:
        """Samples up to which shorter audio is padded."""
        return max((self.min_frames - 1) * self.hop_samples, self.window_samples // 2 + 1)

    def build(self, input_shape: Sequence[int | None]) -> None:
        if len(input_shape) not in (2, 3):
            raise ConfigError(
                "Frontend takes waveforms (batch, samples) or (batch, samples, channels). "
                f"Received: shape {tuple(input_shape)}."
            )
        for name, initializer in (("mean_db", "zeros"), ("std_db", "ones")):
            weight = self.add_weight(
                shape=(self.n_mels,), initializer=initializer, trainable=False, name=name
            )
            setattr(self, name, weight)

    def call(self, inputs: Any) -> Any:
        mean_db, std_db = map(tf.convert_to_tensor, (self.mean_db, self.std_db))
        shift = (self.offset_db.astype(np.float32) - mean_db) / std_db
        return self._spectrogram(inputs, DB_OF_E / std_db, shift)

    def mel_db(self, waveform: Any) -> Any:
        """The mel spectrogram before standardisation, shapes as for the layer itself."""
        scale = tf.fill([self.n_mels], np.float32(DB_OF_E))
        return self._spectrogram(waveform, scale, self.offset_db.astype(np.float32))

    def _spectrogram(self, waveform: Any, scale: Any, shift: Any) -> Any:
        """Logarithms of power in mel bands, times `scale` plus `shift`, (n_mels,) each."""
        x = tf.convert_to_tensor(waveform, tf.float32)
        shape = self.compute_output_shape(x.shape)
        x = x[:, None, :] if x.shape.rank == 2 else tf.transpose(x, (0, 2, 1))
        short_by = tf.maximum(0, self.min_samples - tf.shape(x)[-1])
        x = tf.pad(x, [[0, 0], [0, 0], [0, short_by]])
        parts = self.mel.scaled(scale) if self.order == "db_then_mel" else None

        def bands(clips: Any) -> Any:
            spectra = power(self.stft(clips))  # (batch, channel, time, bin)
            if parts is None:
                return self._log(self.mel(spectra)) * scale + shift
            return self.mel.apply(self._log(spectra), parts) + shift

        if tf.executing_eagerly() or tf.config.list_physical_devices("GPU"):
            mel = bands(x)
        else:
            # One by one: a clip's spectrum stays in the processor's caches, a batch's does not.
            # A GPU wants the batch at once; and without a graph a map is slow.
            mel = tf.map_fn(
                lambda index: bands(x[index][None])[0],
                tf.range(tf.shape(x)[0]),
                fn_output_signature=tf.TensorSpec([shape[3], shape[1], self.n_mels]),
            )
        mel = tf.transpose(mel, (0, 2, 3, 1))
        mel.set_shape(shape)  # where the length is known, map_fn does not say so
        return mel

    def _log(self, values: Any) -> Any:
        return floored_log(values, self.amin, self.range_db)

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """See `rfkeras.receptive_field.register_rule`: here pixels begin."""
        shape = self.compute_output_shape(inputs.shape)
        return inputs.spectrogram(shape, 1, 2, self, scale_of_frontend(self))

    def adapt(self, waveforms: Iterable[Any]) -> None:
        """Set mean and standard deviation of every mel band from these batches.

        Args:
            waveforms: Batches shaped as the layer's input, of the training set.

        Raises:
            ConfigError: There was no batch.
        """
        count, total, squares = 0, np.zeros(self.n_mels), np.zeros(self.n_mels)
        sums = tf.function(self._band_sums, reduce_retracing=True)
        for batch in waveforms:
            if not self.built:
                self.build(batch.shape)
            n_values, batch_total, batch_squares = sums(batch)
            count += int(n_values)
            total += batch_total.numpy()
            squares += batch_squares.numpy()
        if count == 0:
            raise ConfigError("Frontend.adapt needs at least one batch of waveforms.")
        mean = total / count
        variance = np.maximum(squares / count - mean**2, 0.0)
        self.mean_db.assign(mean.astype(np.float32))
        self.std_db.assign(np.sqrt(variance + keras.config.epsilon()).astype(np.float32))

    def _band_sums(self, batch: Any) -> tuple[Any, Any, Any]:
        mel = tf.cast(self.mel_db(batch), tf.float64)
        return (
            tf.size(mel) // self.n_mels,
            tf.reduce_sum(mel, (0, 1, 3)),
            tf.reduce_sum(tf.square(mel), (0, 1, 3)),
        )

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        samples = input_shape[1]
        if samples is not None:
            samples = 1 + max(samples, self.min_samples) // self.hop_samples
        channels = 1 if len(input_shape) == 2 else input_shape[2]
        return (input_shape[0], samples, self.n_mels, channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **{name: getattr(self, name) for name in ARGUMENTS}}
