"""The front-end layer: waveform to standardised mel spectrogram, inside the model.

On TensorFlow, kapre's layers compute the spectrogram (`rfkeras.frontend.kapre_layers`); on JAX
and PyTorch, operations of Keras compute the same numbers. TensorFlow is imported only if Keras
uses it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import librosa
import numpy as np
from keras import ops

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.frontend.numpy_mel import N_GROUPS, group_bands, hann_window
from rfkeras.frontend.presets import preset_config, scale_of_frontend
from rfkeras.utils.model_graph import sublayers
from rfkeras.utils.text import count as counted
from rfkeras.utils.text import first_few

DB_OF_E = 10.0 / math.log(10.0)  # dB of a factor e in power
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


ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
if ON_TENSORFLOW:
    from rfkeras.frontend import kapre_layers


def _as_it_is(method: Callable[..., Any]) -> Callable[..., Any]:
    """Keep AutoGraph from replacing the type of a method's errors."""
    return kapre_layers.without_autograph(method) if ON_TENSORFLOW else method


def _numpy(values: Any) -> Any:
    return ops.convert_to_numpy(values)


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
        window_samples: Length of the Hann window; None for n_fft.
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
        window_samples: int | None = None,
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
        self.window_samples = n_fft if window_samples is None else window_samples
        self.hop_samples = hop_samples
        self.n_mels = n_mels
        self.order = order
        self.a_weighting = a_weighting
        self.dynamic_range_db = dynamic_range_db
        self.fixed_floor = fixed_floor
        self.min_frames = min_frames
        self._check()
        if ON_TENSORFLOW:
            self.stft = kapre_layers.CentredSTFT(
                n_fft,
                self.window_samples,
                hop_samples,
                window_name="hann_window",
                dtype="float32",
                name="stft",
            )
            self.mel: Any = kapre_layers.GroupedFilterbank(
                {"sample_rate": sample_rate_hz, "n_freq": n_fft // 2 + 1, "n_mels": n_mels},
                dtype="float32",
                name="mel",
            )
        else:
            self.mel = MelFilters(sample_rate_hz, n_fft, n_mels)
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

    @_as_it_is
    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        check_waveform(inputs)  # before Keras converts it to the layer's dtype
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs: Any) -> Any:
        _check_not_converted(inputs)
        mean_db, std_db = self._statistics()
        shift = (self._offset_db() - mean_db) / std_db
        return self._spectrogram(inputs, DB_OF_E / std_db, shift)

    def _statistics(self) -> tuple[Any, Any]:
        """Return the mean and the deviation of the bands as tensors, (n_mels,) each."""
        # Keras would return variables of TensorFlow, which NumPy cannot combine with arrays.
        convert = kapre_layers.tensor if ON_TENSORFLOW else ops.convert_to_tensor
        return convert(self.mean_db), convert(self.std_db)

    def _offset_db(self) -> Any:
        return ops.convert_to_tensor(self.offset_db.astype(np.float32))

    def mel_db(self, waveform: Any) -> Any:
        """Compute the mel spectrogram in dB before standardisation.

        Args:
            waveform: Same shape as the layer's input.

        Returns:
            Same shape as the layer's output.
        """
        scale = ops.full([self.n_mels], DB_OF_E, "float32")
        return self._spectrogram(waveform, scale, self._offset_db())

    def standardise(self, mel_db: Any) -> Any:
        """Standardise each mel band of the result of `mel_db`, as the layer does itself.

        Args:
            mel_db: (batch, time, n_mels, channels), any floating-point type.

        Returns:
            Same shape as the input, float32. Equal to the layer's output up to rounding.
        """
        mean_db, std_db = self._statistics()
        return (ops.cast(mel_db, "float32") - mean_db[:, None]) / std_db[:, None]

    def _spectrogram(self, waveform: Any, scale: Any, shift: Any) -> Any:
        """Compute log power in mel bands, times `scale` plus `shift`, (n_mels,) each."""
        if ON_TENSORFLOW:
            return kapre_layers.spectrogram(self, waveform, scale, shift)
        return keras_spectrogram(self, waveform, scale, shift)

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
        sums = kapre_layers.band_sums(self) if ON_TENSORFLOW else self._band_sums
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
            total += np.asarray(batch_total)
            squares += np.asarray(batch_squares)
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
        """Return count, sums and sums of squares per band, and whether all is finite."""
        mel = _numpy(batch if are_features else self.mel_db(batch)).astype(np.float64)
        finite = np.isfinite(_numpy(batch)).all()
        return mel.size // self.n_mels, mel.sum((0, 1, 3)), (mel**2).sum((0, 1, 3)), finite

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
    if ON_TENSORFLOW:
        source = kapre_layers.source_of_cast(waveform)
        if source is not None:
            raise ConfigError(_integers(source))
    if not ops.is_tensor(waveform) or _is_traced(waveform):
        return
    # Outside a graph the cast leaves no trace but the values.
    loudest = ops.max(ops.abs(waveform)) if 0 not in waveform.shape else 0.0
    if loudest > 1.0 and ops.all(waveform == ops.round(waveform)):
        raise ConfigError(_integers("whole numbers"))


def _is_traced(tensor: Any) -> bool:
    """Return whether a tensor has no values yet: in a graph, or while it is traced."""
    if ON_TENSORFLOW:
        return not hasattr(tensor, "numpy")
    if keras.backend.backend() == "jax":
        import jax

        return isinstance(tensor, jax.core.Tracer)
    import torch

    return bool(torch.compiler.is_compiling())


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


def build_input(
    frontend: str | Frontend | None, input_channels: int, min_frames: int
) -> tuple[Any, Any]:
    """Create the input of a model, and the spectrogram for its backbone.

    Args:
        frontend: Name of a preset, a layer, or None for a model that takes spectrograms.
        input_channels: 1 (mono) or 2 (stereo).
        min_frames: Minimum number of frames the backbone needs; the front-end pads shorter
            audio to it.

    Returns:
        (input, spectrogram): symbolic tensors. The input is named "waveform", with shape
        (batch, samples) for mono or (batch, samples, 2) for stereo; or "spectrogram",
        (batch, time, mel, input_channels).

    Raises:
        ConfigError: Unknown preset, or input_channels is neither 1 nor 2.
    """
    if input_channels not in (1, 2):
        raise ConfigError(
            f"input_channels must be 1 (mono) or 2 (stereo). Received: {input_channels!r}."
        )
    if frontend is None:
        spectrogram = keras.Input((None, None, input_channels), name="spectrogram")
        return spectrogram, spectrogram

    layer = create_frontend(frontend) if isinstance(frontend, str) else frontend
    if not isinstance(layer, Frontend):
        raise ConfigError(
            "frontend must be the name of a preset, an rfkeras.frontend.Frontend, or None. "
            f"Received: {frontend!r}."
        )
    layer.min_frames = max(layer.min_frames, min_frames)
    shape = (None,) if input_channels == 1 else (None, input_channels)
    waveform = keras.Input(shape, dtype="float32", name="waveform")
    return waveform, layer(waveform)


# Without TensorFlow


class MelFilters:
    """The Slaney mel filter bank, in groups of bands.

    Args:
        sample_rate_hz: Sample rate.
        n_fft: FFT length in samples.
        n_mels: Number of bands.

    Attributes:
        filterbank: (bins, bands), float32.
        groups: As from `group_bands`.
    """

    def __init__(self, sample_rate_hz: int, n_fft: int, n_mels: int):
        filters = librosa.filters.mel(sr=sample_rate_hz, n_fft=n_fft, n_mels=n_mels)
        self.filterbank = np.asarray(filters.T, np.float32)
        self.groups = group_bands(self.filterbank, N_GROUPS)

    def __call__(self, values: Any) -> Any:
        """Apply the filters to the last axis."""
        filters = self.filterbank
        parts = [
            ops.matmul(values[..., low:high], ops.convert_to_tensor(filters[low:high, a:b]))
            for a, b, low, high in self.groups
        ]
        return ops.concatenate(parts, axis=-1)


def keras_spectrogram(frontend: Frontend, waveform: Any, scale: Any, shift: Any) -> Any:
    """Compute log power in mel bands with operations of Keras, on any backend.

    Args:
        frontend: The layer.
        waveform: (batch, samples) or (batch, samples, channels) with known shape.
        scale: Factor of each band, (n_mels,).
        shift: Added to each band after the factor, (n_mels,).

    Returns:
        (batch, frames, n_mels, channels), float32.
    """
    x = ops.cast(ops.convert_to_tensor(waveform), "float32")
    x = x[:, None, :] if len(x.shape) == 2 else ops.transpose(x, (0, 2, 1))
    samples = max(x.shape[-1], frontend.min_samples)
    half = frontend.window_samples // 2
    count = 1 + samples // frontend.hop_samples
    # Frames are n_fft long; the zeros at the end of the window mask what is behind it.
    needed = (count - 1) * frontend.hop_samples + frontend.n_fft
    x = ops.pad(x, [[0, 0], [0, 0], [0, samples - x.shape[-1]]])
    x = ops.pad(x, [[0, 0], [0, 0], [half, half]], mode="reflect")
    x = ops.pad(x, [[0, 0], [0, 0], [0, max(0, needed - x.shape[-1])]])[..., :needed]
    window = np.zeros(frontend.n_fft, np.float32)
    window[: frontend.window_samples] = hann_window(frontend.window_samples)
    framed = ops.extract_sequences(x, frontend.n_fft, frontend.hop_samples)
    framed = framed * ops.convert_to_tensor(window)
    real, imaginary = ops.rfft(framed)
    power = ops.square(real) + ops.square(imaginary)
    if frontend.order == "db_then_mel":
        bands = frontend.mel(_floored_log(power, frontend)) * scale + shift
    else:
        bands = _floored_log(frontend.mel(power), frontend) * scale + shift
    return ops.transpose(bands, (0, 2, 3, 1))


def _floored_log(power: Any, frontend: Frontend) -> Any:
    """Return natural logarithms of the power of clips, (batch, ...), with the floor."""
    floor: Any = frontend.amin
    if frontend.range_db is not None:
        ratio = np.float32(10.0 ** (-frontend.range_db / 10.0))
        axes = tuple(range(1, len(power.shape)))
        floor = ops.maximum(floor, ops.max(power, axis=axes, keepdims=True) * ratio)
    return ops.log(ops.maximum(power, floor))
