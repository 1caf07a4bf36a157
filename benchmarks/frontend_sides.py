"""Compute the mel spectrograms of a preset with several libraries.

Every function takes the name of a preset and a shape, (batch, samples), and returns a
function that computes (batch, time, mel) in dB, before standardisation. Filter banks and
windows are computed once, except in `librosa_each_call`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import librosa
import numpy as np

from rfkeras.frontend import preset_config

DEFAULTS = {"order": "db_then_mel", "a_weighting": True}
FLOOR: dict[str, Any] = {"ref": 1.0, "amin": 1e-10, "top_db": 80.0}
Spectrograms = Callable[[], Any]


def waveforms(shape: list[int]) -> Any:
    """Return noise, (batch, samples) float32; the content does not affect the speed."""
    return (0.1 * np.random.default_rng(0).normal(size=shape)).astype(np.float32)


def _preset(name: str) -> tuple[dict[str, Any], Any, Any]:
    """Return (settings, filter bank (mel, bins), A-weighting (bins,) in dB or None)."""
    preset = {**DEFAULTS, **preset_config(name)}
    rate, n_fft = preset["sample_rate_hz"], preset["n_fft"]
    bank = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=preset["n_mels"])
    if not preset["a_weighting"]:
        return preset, bank, None
    with np.errstate(divide="ignore"):  # 0 Hz is -inf before librosa's floor
        weights = librosa.A_weighting(librosa.fft_frequencies(sr=rate, n_fft=n_fft))
    return preset, bank, weights.astype(np.float32)


def _stft_options(preset: dict[str, Any]) -> dict[str, Any]:
    return {
        "n_fft": preset["n_fft"],
        "hop_length": preset["hop_samples"],
        "win_length": preset["window_samples"],
        "pad_mode": "reflect",
    }


def rfkeras_layer(preset: str, shape: list[int], threads: int) -> Spectrograms:
    """Use the front-end layer in a graph for any length, as models do."""
    import tensorflow as tf

    from benchmarks.keras_sides import set_threads
    from rfkeras.frontend import create_frontend

    set_threads(threads)
    x = tf.constant(waveforms(shape))
    specification = [tf.TensorSpec([None, None])]
    compute = tf.function(create_frontend(preset).mel_db, specification, autograph=False)
    return lambda: compute(x)[..., 0].numpy()


def rfkeras_numpy(preset: str, shape: list[int], threads: int) -> Spectrograms:
    """Use the front-end of engine files, clip by clip."""
    from rfkeras.frontend import create_frontend
    from rfkeras.frontend.numpy_mel import numpy_mel

    layer = create_frontend(preset)
    layer.build((None, None))
    spectrogram, x = numpy_mel(layer), waveforms(shape)
    return lambda: np.stack([spectrogram.mel_db(waveform)[..., 0] for waveform in x])


def rfkeras_tflite(preset: str, shape: list[int], threads: int) -> Spectrograms:
    """Use the front-end of exported TFLite models."""
    import tensorflow as tf

    portable, traced = _portable(preset)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [traced.get_concrete_function()], portable
    )
    interpreter = tf.lite.Interpreter(model_content=converter.convert(), num_threads=threads)
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(source["index"], shape)
    interpreter.allocate_tensors()
    x = waveforms(shape)

    def compute() -> Any:
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])[..., 0]

    return compute


def rfkeras_onnx(preset: str, shape: list[int], threads: int) -> Spectrograms:
    """Use the front-end of exported ONNX models."""
    from rfkeras.export.onnx import OnnxRunner, convert

    _, traced = _portable(preset)
    run = OnnxRunner(convert(traced, "frontend").SerializeToString(), threads)
    x = waveforms(shape)
    return lambda: next(iter(run(x).values()))[..., 0]


def _portable(preset: str) -> tuple[Any, Any]:
    """Return the front-end of exported models, and a function of it for any length."""
    import tensorflow as tf

    from rfkeras.export.portable import PortableFrontend
    from rfkeras.frontend import create_frontend

    layer = create_frontend(preset)
    layer.build((None, None))
    portable = PortableFrontend(layer)
    return portable, tf.function(portable, [tf.TensorSpec([None, None])], autograph=False)


def librosa_once(
    preset: str, shape: list[int], threads: int, in_threads: bool = False
) -> Spectrograms:
    """Use librosa clip by clip, or with `in_threads` several clips at a time."""
    settings, bank, weights = _preset(preset)
    options = _stft_options(settings)
    x = waveforms(shape)

    def clip(waveform: Any) -> Any:
        power = np.abs(librosa.stft(waveform, **options)) ** 2
        if settings["order"] == "mel_then_db":
            return librosa.power_to_db(bank @ power, **FLOOR).T
        db = librosa.power_to_db(power, **FLOOR)
        return (bank @ (db if weights is None else db + weights[:, None])).T

    if in_threads:
        pool = ThreadPoolExecutor(threads)
        return lambda: np.stack(list(pool.map(clip, x)))
    return lambda: np.stack([clip(waveform) for waveform in x])


def librosa_each_call(preset: str, shape: list[int], threads: int) -> Spectrograms:
    """Use librosa's high-level functions, which compute the filter bank in each call."""
    settings, _, _ = _preset(preset)
    options = _stft_options(settings)
    mel = {"sr": settings["sample_rate_hz"], "n_mels": settings["n_mels"]}
    bins_hz = librosa.fft_frequencies(sr=mel["sr"], n_fft=settings["n_fft"])
    x = waveforms(shape)

    def clip(waveform: Any) -> Any:
        if settings["order"] == "mel_then_db":
            power = librosa.feature.melspectrogram(y=waveform, **mel, **options)
            return librosa.power_to_db(power, **FLOOR).T
        power = np.abs(librosa.stft(waveform, **options)) ** 2
        with np.errstate(divide="ignore"):
            db = librosa.perceptual_weighting(power, bins_hz, **FLOOR)
        return librosa.feature.melspectrogram(S=db, **mel).T

    return lambda: np.stack([clip(waveform) for waveform in x])


def scipy_numpy(preset: str, shape: list[int], threads: int) -> Spectrograms:
    """Use scipy's transform of the whole batch, and NumPy for the rest."""
    from scipy.signal import stft

    settings, bank, weights = _preset(preset)
    window = settings["window_samples"]
    options = {"nperseg": window, "noverlap": window - settings["hop_samples"]}
    scale = np.float32(window / 2)  # scipy divides by the sum of the Hann window
    x = waveforms(shape)

    def decibel(power: Any) -> Any:
        db = 10.0 * np.log10(np.maximum(power, FLOOR["amin"]))
        return np.maximum(db, db.max((1, 2), keepdims=True) - FLOOR["top_db"])

    def compute() -> Any:
        _, _, z = stft(x, nfft=settings["n_fft"], boundary="even", padded=False, **options)
        z *= scale
        power = z.real**2 + z.imag**2  # (batch, bin, time)
        if settings["order"] == "mel_then_db":
            mel = decibel(bank @ power)
        else:
            db = decibel(power)
            mel = bank @ (db if weights is None else db + weights[:, None])
        return mel.transpose(0, 2, 1)

    return compute


def kapre_layers(preset: str, shape: list[int], threads: int) -> Spectrograms:
    """Use kapre's layers in a graph, with power because its dB layer expects it."""
    import kapre
    import tensorflow as tf

    from benchmarks.keras_sides import set_threads

    set_threads(threads)
    settings, _, weights = _preset(preset)
    first = {"input_data_format": "channels_first", "output_data_format": "channels_first"}
    transform = kapre.STFT(
        settings["n_fft"], settings["window_samples"], settings["hop_samples"], **first
    )
    magnitude, decibel = kapre.Magnitude(), kapre.MagnitudeToDecibel(amin=FLOOR["amin"])
    bank = kapre.ApplyFilterbank(
        "mel",
        {
            "sample_rate": settings["sample_rate_hz"],
            "n_freq": settings["n_fft"] // 2 + 1,
            "n_mels": settings["n_mels"],
        },
        "channels_first",
    )

    def spectrogram(x: Any) -> Any:
        power = tf.square(magnitude(transform(x[:, None])))
        if settings["order"] == "mel_then_db":
            return decibel(bank(power))[:, 0]
        db = decibel(power)
        return bank(db if weights is None else db + weights)[:, 0]

    return _in_graph(spectrogram, settings, shape)


def tf_signal(preset: str, shape: list[int], threads: int) -> Spectrograms:
    """Use `tf.signal.stft` and one product with the whole filter bank."""
    import tensorflow as tf

    from benchmarks.keras_sides import set_threads

    set_threads(threads)
    settings, bank, weights = _preset(preset)
    filters = np.ascontiguousarray(bank.T)

    def decibel(power: Any) -> Any:
        db = 10.0 / np.log(10.0) * tf.math.log(tf.maximum(power, FLOOR["amin"]))
        return tf.maximum(db, tf.reduce_max(db, (1, 2), keepdims=True) - FLOOR["top_db"])

    def spectrogram(x: Any) -> Any:
        sizes = (settings["window_samples"], settings["hop_samples"], settings["n_fft"])
        power = tf.square(tf.abs(tf.signal.stft(x, *sizes)))
        if settings["order"] == "mel_then_db":
            return decibel(power @ filters)
        db = decibel(power)
        return (db if weights is None else db + weights) @ filters

    return _in_graph(spectrogram, settings, shape)


def _in_graph(
    spectrogram: Callable[[Any], Any], settings: dict[str, Any], shape: list[int]
) -> Spectrograms:
    import tensorflow as tf

    half = settings["window_samples"] // 2
    x = tf.constant(waveforms(shape))

    def centred(x: Any) -> Any:
        return spectrogram(tf.pad(x, [[0, 0], [half, half]], mode="REFLECT"))

    compute = tf.function(centred, [tf.TensorSpec([None, None])], autograph=False)
    return lambda: compute(x).numpy()
