"""Spectrograms by librosa, and audio that tests them; on any Keras backend."""

import librosa
import numpy as np


def music(sample_rate_hz, seconds=6.0):
    """Return a decaying chord over noise, with silence: loud, quiet and empty frames."""
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * sample_rate_hz)) / sample_rate_hz
    beat = t % 0.75
    x = sum(
        np.sin(2 * np.pi * 220 * 2 ** (k / 12) * h * t) * np.exp(-3 * beat) / (h * h)
        for k in (0, 4, 7)
        for h in range(1, 12)
    )
    x += 1e-3 * rng.normal(size=t.size)
    x[t > 0.8 * seconds] = 0
    return (0.2 * x / np.abs(x).max()).astype(np.float32)


def librosa_mel(waveform, layer):
    """Compute the spectrogram (frames, mel) with librosa, in float64."""
    power = (
        np.abs(
            librosa.stft(
                waveform.astype(np.float64),
                n_fft=layer.n_fft,
                win_length=layer.window_samples,
                hop_length=layer.hop_samples,
                pad_mode="reflect",
            )
        )
        ** 2
    )
    bank = librosa.filters.mel(sr=layer.sample_rate_hz, n_fft=layer.n_fft, n_mels=layer.n_mels)
    floor = {"ref": 1.0, "amin": 1e-10, "top_db": 80.0}
    if layer.order == "mel_then_db":
        return librosa.power_to_db(bank @ power, **floor).T
    bins_hz = librosa.fft_frequencies(sr=layer.sample_rate_hz, n_fft=layer.n_fft)[1:]
    weights = np.concatenate([[-80.0], librosa.A_weighting(bins_hz)])
    return (bank @ (librosa.power_to_db(power, **floor) + weights[:, None])).T
