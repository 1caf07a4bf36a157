"""The front-end layer: waveform to standardised mel spectrogram, inside the model.

Importing this module imports TensorFlow and kapre.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import kapre
import keras
import librosa
import numpy as np
import tensorflow as tf

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.frontend.presets import preset_config, scale_of_frontend
from rfkeras.utils.model_graph import sublayers
from rfkeras.utils.text import count as counted
from rfkeras.utils.text import first_few

DB_OF_E = 10.0 / math.log(10.0)  # dB of a factor e in power
N_GROUPS = 4  # measured: slower with two groups, no faster with eight
DEVIATIONS = 40  # most deviations between a band's mean and the other end of its dB range
AMIN = 1e-10  # lowest power in the dB stage, as in librosa and the paper
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
    """Converts waveforms to standardised mel spectrograms in dB, on the device.

    The stages are: centred STFT (Hann window, reflect padding), power, dB with a floor,
    optional A-weighting, Slaney mel filter bank, and standardisation per mel band. The layer
    computes in float32 under every dtype policy. Audio too short for `min_frames` is padded
    with zeros at its end.

    Args:
        sample_rate_hz: Sample rate of the waveforms. The layer cannot detect it, so audio
            at other rates must be resampled first.
        n_fft: FFT length in samples, at least window_samples.
        window_samples: Length of the Hann window.
        hop_samples: Samples between frames.
        n_mels: Number of mel bands between 0 Hz and half the sample rate.
        order: "db_then_mel" applies the filter bank to dB values, as in the features of the
            published networks; "mel_then_db" is the usual log-mel.
        a_weighting: Add the A-weighting curve to the dB values of each FFT bin. Requires
            order "db_then_mel".
        dynamic_range_db: Distance of the floor from the maximum, in dB.
        fixed_floor: Measure the floor from the level of a full-scale sine instead of the
            loudest point of the clip (over all channels). Then a frame does not depend on
            the rest of the clip, and processing a file in chunks gives the same result.
        min_frames: Minimum number of frames in the output.
        **kwargs: Arguments of `keras.layers.Layer`; dtype is always float32.

    Input shape:
        (batch, samples) or (batch, samples, channels); float in [-1, 1]. Integers are an
        error: divide them by their full scale first (32768 for int16).

    Output shape:
        (batch, 1 + samples // hop_samples, n_mels, channels), float32.

    Raises:
        ConfigError: An argument is out of range, or waveforms are integers.

    Example:
        >>> frontend = Frontend(22050, n_mels=128, fixed_floor=True)
        >>> frontend(np.zeros((2, 22050), "float32")).shape
        TensorShape([2, 44, 128, 1])
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
        # Lowest power in the dB stage, and its range below the loudest point.
        self.amin = AMIN
        self.range_db: float | None = dynamic_range_db
        if fixed_floor:
            self.amin = 10.0 ** ((self._full_scale_db() - dynamic_range_db) / 10.0)
            self.range_db = None
        #: (n_mels,) float64: dB that the A-weighting adds to each band.
        self.offset_db = self._weighting_db() if a_weighting else np.zeros(n_mels)

    def _check(self) -> None:
        whole = ("sample_rate_hz", "n_fft", "window_samples", "hop_samples", "n_mels")
        for name in (*whole, "min_frames"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(
                    f"Frontend: {name} must be a whole number of at least 1. "
                    f"Received: {value!r}."
                )
        if self.window_samples > self.n_fft:
            raise ConfigError(
                "Frontend: window_samples must be at most n_fft. Received: "
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
        if not 0 < self.dynamic_range_db < math.inf:
            raise ConfigError(
                "Frontend: dynamic_range_db must be a positive number. "
                f"Received: {self.dynamic_range_db!r}."
            )

    def _full_scale_db(self) -> float:
        """Return the level of a full-scale sine at the dB stage."""
        level_db = 20.0 * math.log10(self.window_samples / 4)  # half the sum of the Hann window
        if self.order == "mel_then_db":
            level_db += 10.0 * math.log10(float(np.max(self.mel.filterbank)))
        return level_db

    def _weighting_db(self) -> Any:
        """Return the A-weighting per mel band, (n_mels,): the filter bank is linear in dB."""
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
        """Number of samples to which shorter audio is padded."""
        return max((self.min_frames - 1) * self.hop_samples, self.window_samples // 2 + 1)

    def build(self, input_shape: Sequence[int | None]) -> None:
        if len(input_shape) not in (2, 3):
            raise ConfigError(
                "Frontend needs waveforms (batch, samples) or (batch, samples, channels). "
                f"Received: shape {tuple(input_shape)}."
            )
        for name, initializer in (("mean_db", "zeros"), ("std_db", "ones")):
            weight = self.add_weight(
                shape=(self.n_mels,), initializer=initializer, trainable=False, name=name
            )
            setattr(self, name, weight)

    # AutoGraph would replace the type of the error.
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        check_waveform(inputs)  # before Keras converts it to the layer's dtype
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs: Any) -> Any:
        _check_not_converted(inputs)
        mean_db, std_db = map(tf.convert_to_tensor, (self.mean_db, self.std_db))
        shift = (self.offset_db.astype(np.float32) - mean_db) / std_db
        return self._spectrogram(inputs, DB_OF_E / std_db, shift)

    def mel_db(self, waveform: Any) -> Any:
        """Compute the mel spectrogram in dB before standardisation.

        Args:
            waveform: Same shape as the layer's input.

        Returns:
            Same shape as the layer's output.
        """
        scale = tf.fill([self.n_mels], np.float32(DB_OF_E))
        return self._spectrogram(waveform, scale, self.offset_db.astype(np.float32))

    def standardise(self, mel_db: Any) -> Any:
        """Standardise each mel band of the result of `mel_db`, as the layer does itself.

        Args:
            mel_db: (batch, time, n_mels, channels), any floating-point type.

        Returns:
            Same shape as the input, float32. Equal to the layer's output up to rounding.
        """
        mean_db, std_db = map(tf.convert_to_tensor, (self.mean_db, self.std_db))
        return (tf.cast(mel_db, tf.float32) - mean_db[:, None]) / std_db[:, None]

    def _spectrogram(self, waveform: Any, scale: Any, shift: Any) -> Any:
        """Compute log power in mel bands, times `scale` plus `shift`, (n_mels,) each."""
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
            # Clip by clip: the spectrum of one clip fits in the processor's caches, that of a
            # batch does not. A GPU is faster on the whole batch, and eager map_fn is slow.
            mel = tf.map_fn(
                lambda index: bands(x[index][None])[0],
                tf.range(tf.shape(x)[0]),
                fn_output_signature=tf.TensorSpec([shape[3], shape[1], self.n_mels]),
            )
        mel = tf.transpose(mel, (0, 2, 3, 1))
        mel.set_shape(shape)  # map_fn loses a known length
        return mel

    def _log(self, values: Any) -> Any:
        return floored_log(values, self.amin, self.range_db)

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """Return what the output sees: the pixels of this spectrogram.

        See `rfkeras.rf.register_rule`.
        """
        shape = self.compute_output_shape(inputs.shape)
        return inputs.spectrogram(shape, 1, 2, self, scale_of_frontend(self))

    def adapt(self, waveforms: Iterable[Any], *, are_features: bool = False) -> None:
        """Set the mean and standard deviation of every mel band from training data.

        The deviation has a lower limit, a fortieth of `dynamic_range_db` (2 dB). In a band
        that was silent in the training data, such as the upper bands of telephone recordings,
        a tiny deviation would turn any other sound into a huge input of the network. A note
        on standard error names the bands at the limit.

        Args:
            waveforms: Batches of the training set, each with the layer's input shape.
            are_features: The batches are results of `mel_db` instead. The layer must be built.

        Raises:
            ConfigError: There is no batch, or a batch contains NaN or infinity.
        """
        count, total, squares = 0, np.zeros(self.n_mels), np.zeros(self.n_mels)
        sums = tf.function(self._band_sums, reduce_retracing=True)
        for number, batch in enumerate(waveforms, start=1):
            check_waveform(batch)
            if not self.built:
                self.build(batch.shape)
            n_values, batch_total, batch_squares, is_finite = sums(batch, are_features)
            if not (is_finite and np.isfinite(batch_squares).all()):
                raise ConfigError(
                    f"Frontend.adapt: batch {number} contains NaN or infinity. Remove these "
                    "recordings from the training data."
                )
            count += int(n_values)
            total += batch_total.numpy()
            squares += batch_squares.numpy()
        if count == 0:
            raise ConfigError("Frontend.adapt needs at least one batch.")
        mean = total / count
        variance = np.maximum(squares / count - mean**2, 0.0)
        deviation = np.sqrt(variance + keras.config.epsilon())
        limit = self._smallest_deviation()
        self.mean_db.assign(mean.astype(np.float32))
        self.std_db.assign(np.maximum(deviation, limit).astype(np.float32))
        has_bins = np.asarray(self.mel.filterbank).any(axis=0)
        quiet = np.flatnonzero((deviation < limit) & has_bins)
        if len(quiet):
            print(self._note(quiet), file=sys.stderr)

    def _smallest_deviation(self) -> Any:
        """Return the lower limit of the bands' deviations, (n_mels,)."""
        limit = np.full(self.n_mels, self.dynamic_range_db / DEVIATIONS)
        if self.order == "db_then_mel":  # a band is a weighted sum of dB values
            limit *= np.asarray(self.mel.filterbank, np.float64).sum(axis=0)
        # Filters between two bins have no weights.
        return np.maximum(limit, math.sqrt(keras.config.epsilon()))

    def _note(self, bands: Any) -> str:
        """Return a note about bands that hardly varied in the training data."""
        scale = scale_of_frontend(self)
        ranges = []
        for run in np.split(bands, np.flatnonzero(np.diff(bands) > 1) + 1):
            low_hz, high_hz = scale.hz_span(int(run[0]), int(run[-1]) + 1)
            place = str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}"
            ranges.append(f"{place} ({low_hz:.0f} to {high_hz:.0f} Hz)")
        limit_db = self.dynamic_range_db / DEVIATIONS
        return (
            f"Note: {counted(len(bands), 'mel band')} of {self.n_mels} hardly varied in the "
            f"training data (deviation below {limit_db:g} dB, so {limit_db:g} dB is used): "
            f"{first_few(ranges)}."
        )

    def _band_sums(self, batch: Any, are_features: bool) -> tuple[Any, Any, Any, Any]:
        mel = tf.cast(batch if are_features else self.mel_db(batch), tf.float64)
        return (
            tf.size(mel) // self.n_mels,
            tf.reduce_sum(mel, (0, 1, 3)),
            tf.reduce_sum(tf.square(mel), (0, 1, 3)),
            tf.reduce_all(tf.math.is_finite(tf.cast(batch, tf.float32))),
        )

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        samples = input_shape[1]
        if samples is not None:
            samples = 1 + max(samples, self.min_samples) // self.hop_samples
        channels = 1 if len(input_shape) == 2 else input_shape[2]
        return (input_shape[0], samples, self.n_mels, channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **{name: getattr(self, name) for name in ARGUMENTS}}


def check_waveform(waveform: Any) -> None:
    """Reject waveforms that are not floating-point numbers.

    Args:
        waveform: Array, tensor or symbolic tensor. Other objects pass.

    Raises:
        ConfigError: They are integers; the message names their full scale.
    """
    dtype = getattr(waveform, "dtype", None)
    if dtype is None and isinstance(waveform, list | tuple):
        dtype = np.asarray(waveform).dtype
    name = "" if dtype is None else getattr(dtype, "name", str(dtype))
    if name.startswith(("int", "uint", "bool")):
        raise ConfigError(_integers(name))


def _check_not_converted(waveform: Any) -> None:
    """Reject integers that a model around the front-end converted to floats on the way.

    Raises:
        ConfigError: The waveform was cast from integers, or has only whole numbers, some
            outside [-1, 1].
    """
    if not tf.is_tensor(waveform):
        return
    if hasattr(waveform, "numpy"):
        # Outside a graph the cast leaves no trace but the values.
        loudest = tf.reduce_max(tf.abs(waveform)) if tf.size(waveform) else 0.0
        if loudest > 1.0 and tf.reduce_all(waveform == tf.round(waveform)):
            raise ConfigError(_integers("whole numbers"))
        return
    operation = waveform.op
    while operation.type in ("Identity", "Cast") and operation.inputs:
        source = operation.inputs[0]
        if source.dtype.is_integer or source.dtype == tf.bool:
            raise ConfigError(_integers(source.dtype.name))
        operation = source.op


def _integers(kind: str) -> str:
    bits = "".join(character for character in kind if character.isdigit())
    scale = {"8": "128", "16": "32768", "32": "2147483648"}.get(bits, "their full scale")
    if kind.startswith("uint"):
        way = f"subtract {scale} and divide by {scale}"
    else:
        way = f"divide by {scale}"
    return (
        "Waveforms must be floating-point numbers in [-1, 1]. Convert integer samples to "
        f"float32 and {way}{'' if bits else ' (32768 for 16 bits)'}. Received: {kind}."
    )


def find_frontend(model: Any) -> Frontend | None:
    """Return the model's front-end, at any depth; None if the model takes spectrograms.

    It is found in nested, Sequential and subclassed models, inside wrappers such as
    `keras.layers.TimeDistributed`, and in layers that hold it as an attribute.

    Raises:
        ConfigError: The model has several different front-ends.
    """
    found = sublayers(model, Frontend)
    if len(found) > 1:
        names = ", ".join(repr(layer.name) for layer in found)
        raise ConfigError(
            f"Model {model.name!r} has {len(found)} front-ends ({names}), so its audio format "
            "and its frames are ambiguous. Apply one front-end layer wherever a spectrogram is "
            "needed."
        )
    return found[0] if found else None


def create_frontend(name: str, **overrides: Any) -> Any:
    """Create a `Frontend` from a preset.

    Args:
        name: Name of the preset, see `PRESETS`.
        **overrides: Arguments of `Frontend` that replace those of the preset.

    Returns:
        The layer, named "frontend" by default.

    Raises:
        ConfigError: Unknown preset or argument, or an argument is out of range.

    Example:
        >>> frontend = create_frontend("perceptual_mel_22k", fixed_floor=True)
        >>> frontend.n_mels
        256
    """
    known = (*ARGUMENTS, "name", "trainable", "dtype")
    for argument in overrides:
        if argument not in known:
            raise ConfigError(unknown_name("front-end argument", argument, known))
    return Frontend(**{**preset_config(name), "name": "frontend", **overrides})


@keras.saving.register_keras_serializable(package="rfkeras")
class CentredSTFT(kapre.STFT):
    """`kapre.STFT` with centred frames: waveforms are reflected at both ends.

    Args:
        n_fft: Length of the transform.
        win_length: Length of the window in samples; zeros fill it up to n_fft at its end.
        hop_length: Samples between frames.
        **kwargs: `window_name` of `kapre.STFT`, and arguments of `keras.layers.Layer`.

    Input shape:
        (batch, channel, samples) with more than win_length // 2 samples.

    Output shape:
        (batch, channel, 1 + samples // hop_length, n_fft // 2 + 1), complex64.
    """

    def __init__(self, n_fft: int, win_length: int, hop_length: int, **kwargs: Any):
        # channels_first: the transform runs over the last axis, so nothing is transposed.
        formats = {
            "input_data_format": "channels_first",
            "output_data_format": "channels_first",
        }
        super().__init__(n_fft, win_length, hop_length, **{**kwargs, **formats})
        self._window = np.zeros(n_fft, np.float32)
        self._window[:win_length] = self.window_fn(win_length)

    def call(self, x: Any) -> Any:
        shape = tf.shape(x)
        half = self.win_length // 2
        # Make each frame n_fft long: the zeros at the end of the window mask the rest. Pad
        # to whole blocks, so that `frames` does not have to slice, which would copy.
        zeros = self.n_fft - self.win_length
        zeros += -(shape[2] + 2 * half + zeros) % math.gcd(self.n_fft, self.hop_length)
        rows = reflected(tf.reshape(x, (-1, shape[2])), half, zeros)
        count = 1 + shape[2] // self.hop_length
        framed = frames(rows, self.n_fft, self.hop_length, count)
        spectra = tf.signal.rfft(framed * self._window)
        return tf.reshape(spectra, [shape[0], shape[1], count, self.n_fft // 2 + 1])


def reflected(rows: Any, width: int, zeros: Any) -> Any:
    """Extend rows by reflecting them at both ends, then append zeros.

    Gives the same result as `tf.pad(..., mode="REFLECT")`, which works sample by sample and
    takes several times as long.

    Args:
        rows: (rows, samples), with more samples than `width`.
        width: Samples to add at each end.
        zeros: Zeros to append.

    Returns:
        (rows, samples + 2 width + zeros).
    """
    n_rows, samples = tf.shape(rows)[0], tf.shape(rows)[1]
    front = tf.reverse(rows[:, 1 : width + 1], [1])
    behind = tf.reverse(rows[:, samples - width - 1 : samples - 1], [1])
    return tf.concat([front, rows, behind, tf.zeros([n_rows, zeros])], axis=1)


def frames(rows: Any, length: int, hop: int, count: Any) -> Any:
    """Cut rows into overlapping frames.

    Args:
        rows: (rows, samples), at least (count - 1) hop + length samples; further samples
            are ignored.
        length: Samples per frame.
        hop: Samples between the starts of frames.
        count: Number of frames.

    Returns:
        (rows, count, length).
    """
    # Gather blocks, not samples: the largest that divide both hop and length.
    block = math.gcd(length, hop)
    n_rows, n_blocks = tf.shape(rows)[0], tf.shape(rows)[1] // block
    blocks = tf.reshape(rows[:, : n_blocks * block], tf.stack([n_rows, n_blocks, block]))
    starts = tf.expand_dims(tf.range(count) * (hop // block), 1)
    indices = starts + np.arange(length // block, dtype=np.int32)
    return tf.reshape(tf.gather(blocks, indices, axis=1), tf.stack([n_rows, count, length]))


def power(spectra: Any) -> Any:
    """Return the squared magnitudes of complex numbers, float32."""
    # One pass: for complex numbers this is the difference times its conjugate.
    return tf.math.real(tf.math.squared_difference(spectra, tf.zeros([], spectra.dtype)))


def floored_log(values: Any, amin: float, range_db: float | None) -> Any:
    """Return natural logarithms of power with a floor.

    Args:
        values: Power of clips, (batch, ...).
        amin: Smaller values are raised to this.
        range_db: Values more than this many dB below the largest of their clip are raised
            to that level; None for no such limit.

    Returns:
        Logarithms; multiply by `DB_OF_E` for dB.
    """
    floor = amin
    if range_db is not None:
        # 0 (no limit) if float32 cannot represent the ratio.
        ratio = np.float32(10.0 ** (-range_db / 10.0))
        loudest = tf.reduce_max(values, axis=list(range(1, values.shape.rank)), keepdims=True)
        floor = tf.maximum(amin, loudest * ratio)
    return tf.math.log(tf.maximum(values, floor))


@keras.saving.register_keras_serializable(package="rfkeras")
class GroupedFilterbank(kapre.ApplyFilterbank):
    """`kapre.ApplyFilterbank` that multiplies groups of bands separately.

    A mel filter covers few bins, and neighbouring filters cover nearly the same bins, so a
    group of neighbouring bands needs only a range of bins. With 256 bands and 1,025 bins,
    four groups take a fifth of the multiplications of the full matrix.

    Args:
        filterbank_kwargs: Arguments of `kapre.ApplyFilterbank` with type "mel".
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        filterbank: The full matrix, (bins, bands).
        groups: (first band, end band, first bin, end bin) of each group; ends are
            exclusive.

    Input shape:
        (batch, channel, time, bin)

    Output shape:
        (batch, channel, time, band)
    """

    def __init__(self, filterbank_kwargs: dict[str, Any], **kwargs: Any):
        kwargs = {**kwargs, "type": "mel", "data_format": "channels_first"}
        super().__init__(filterbank_kwargs=filterbank_kwargs, **kwargs)
        filters = np.asarray(self.filterbank)
        self.groups = group_bands(filters, N_GROUPS)
        self._parts = [filters[low:high, a:b] for a, b, low, high in self.groups]

    def call(self, x: Any) -> Any:
        return self.apply(x, self._parts)

    def scaled(self, factors: Any) -> list[Any]:
        """Return parts for `apply` with bands multiplied by these factors, (bands,)."""
        return [
            part * factors[a:b]
            for (a, b, _, _), part in zip(self.groups, self._parts, strict=True)
        ]

    def apply(self, x: Any, parts: list[Any]) -> Any:
        """Multiply x by the layer's own parts, or by parts from `scaled`."""
        shape = tf.shape(x)
        rows = tf.reshape(x, (-1, x.shape[-1]))
        bands = [
            tf.matmul(rows[:, low:high], part)
            for (_, _, low, high), part in zip(self.groups, parts, strict=True)
        ]
        n_bands = self.filterbank.shape[1]
        return tf.reshape(tf.concat(bands, axis=1), [shape[0], shape[1], shape[2], n_bands])


def group_bands(filters: Any, n_groups: int) -> list[tuple[int, int, int, int]]:
    """Divide neighbouring bands into groups that need few multiplications in total.

    Args:
        filters: (bins, bands).
        n_groups: A power of two; fewer groups are made if there are fewer bands.

    Returns:
        (first band, end band, first bin, end bin) of every group; ends are exclusive. The
        bins are those where any filter of the group is non-zero, at least one bin.
    """
    n_bins = len(filters)
    used = filters != 0
    # A filter that lies between two bins is all zeros and does not widen the range.
    lows = np.where(used.any(0), used.argmax(0), n_bins)
    highs = np.where(used.any(0), n_bins - used[::-1].argmax(0), 0)

    def size(a: int, b: int) -> int:
        return (b - a) * max(1, int(highs[a:b].max()) - int(lows[a:b].min()))

    def divide(a: int, b: int, parts: int) -> list[tuple[int, int]]:
        if parts < 2 or b - a < 2:
            return [(a, b)]
        middle = min(range(a + 1, b), key=lambda m: size(a, m) + size(m, b))
        return divide(a, middle, parts // 2) + divide(middle, b, parts // 2)

    groups = []
    for a, b in divide(0, filters.shape[1], n_groups):
        low = min(int(lows[a:b].min()), n_bins - 1)
        groups.append((a, b, low, max(low + 1, int(highs[a:b].max()))))
    return groups
