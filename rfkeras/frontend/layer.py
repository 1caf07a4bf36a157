"""The mel front-end as one Keras layer, composed of kapre's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import kapre
import keras
import librosa
import numpy as np
import tensorflow as tf

from rfkeras.errors import ConfigError
from rfkeras.receptive_field.units import scale_of_frontend

AMIN = 1e-10  # power under which the dB stage does not go: librosa's and the paper's value
NO_RANGE_LIMIT_DB = 1e6
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
        # channels_first inside: kapre then transposes no complex numbers.
        self.stft = kapre.STFT(
            n_fft=n_fft,
            win_length=window_samples,
            hop_length=hop_samples,
            window_name="hann_window",
            input_data_format="channels_first",
            output_data_format="channels_first",
            dtype="float32",
            name="stft",
        )
        self.magnitude = kapre.Magnitude(dtype="float32", name="magnitude")
        self.mel = kapre.ApplyFilterbank(
            type="mel",
            filterbank_kwargs={
                "sample_rate": sample_rate_hz,
                "n_freq": n_fft // 2 + 1,
                "n_mels": n_mels,
            },
            data_format="channels_first",
            dtype="float32",
            name="mel",
        )
        amin, range_db = AMIN, dynamic_range_db
        if fixed_floor:
            amin = 10.0 ** ((self._full_scale_db() - dynamic_range_db) / 10.0)
            range_db = NO_RANGE_LIMIT_DB
        # kapre's layer takes 10 log10 of what it is given, and is given power here.
        # Its reference must not fall below amin, or it would shift the result.
        self.decibel = kapre.MagnitudeToDecibel(
            ref_value=1.0, amin=amin, dynamic_range=range_db, dtype="float32", name="decibel"
        )
        self._reference_db = 10.0 * math.log10(max(amin, 1.0))
        bins_hz = librosa.fft_frequencies(sr=sample_rate_hz, n_fft=n_fft)
        with np.errstate(divide="ignore"):  # 0 Hz is -inf before librosa's floor
            self._a_weights_db = librosa.A_weighting(bins_hz).astype(np.float32)

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
        return (self.mel_db(inputs) - self.mean_db[:, None]) / self.std_db[:, None]

    def mel_db(self, waveform: Any) -> Any:
        """The mel spectrogram before standardisation, shapes as for the layer itself."""
        x = tf.convert_to_tensor(waveform, tf.float32)
        x = x[:, None, :] if x.shape.rank == 2 else tf.transpose(x, (0, 2, 1))
        short_by = tf.maximum(0, self.min_samples - tf.shape(x)[-1])
        x = tf.pad(x, [[0, 0], [0, 0], [0, short_by]])
        half = self.window_samples // 2
        x = tf.pad(x, [[0, 0], [0, 0], [half, half]], mode="REFLECT")
        power = tf.square(self.magnitude(self.stft(x)))  # (batch, channel, time, bin)
        if self.order == "db_then_mel":
            db = self._to_db(power)
            if self.a_weighting:
                db += self._a_weights_db
            mel = self.mel(db)
        else:
            mel = self._to_db(self.mel(power))
        return tf.transpose(mel, (0, 2, 3, 1))

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """See `rfkeras.receptive_field.register_rule`: here pixels begin."""
        shape = self.compute_output_shape(inputs.shape)
        return inputs.spectrogram(shape, 1, 2, self, scale_of_frontend(self))

    def _to_db(self, power: Any) -> Any:
        return self.decibel(power) + self._reference_db

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
