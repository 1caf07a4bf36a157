"""The in-graph resampler against exact tones and against soxr."""

import numpy as np
import pytest
import soxr
import tensorflow as tf

from rfkeras.audio.io import resampled_length
from rfkeras.export.audio_graph import resample

# The last two share almost no divisor with 22,050 and use the other algorithm.
RATES = (8000, 11025, 16000, 32000, 44100, 48000, 96000, 192000, 44056, 191999)
TARGET = 22050


@pytest.fixture(scope="module")
def to_target():
    spec = [tf.TensorSpec((None, None)), tf.TensorSpec((), tf.int32)]
    return tf.function(lambda x, rate: resample(x, rate, TARGET), input_signature=spec)


def tones(rate, count, slower, channels=2):
    """Return tones in the pass band of both rates, at these times."""
    rng = np.random.default_rng(0)
    hz = rng.uniform(20, 0.455 * slower, (20, channels))
    phase = rng.uniform(0, 6.28, (20, channels))
    t = np.arange(count)[:, None, None] / rate
    return 0.05 * np.sin(2 * np.pi * hz * t + phase).sum(1)


@pytest.mark.parametrize("rate", RATES)
def test_tones_pass_unchanged_and_without_delay(to_target, rate):
    frames = rate // 3 + 7
    slower = min(rate, TARGET)
    samples = tones(rate, frames, slower).astype("float32")
    out = to_target(samples, rate).numpy()
    assert len(out) == resampled_length(frames, rate, TARGET)
    inner = slice(TARGET // 20, -TARGET // 20)  # beyond the ends the filter sees silence
    exact = tones(TARGET, len(out), slower)
    assert np.sqrt(np.mean((out - exact)[inner] ** 2)) < 1e-6
    reference = soxr.resample(samples, rate, TARGET, quality="HQ")
    both = min(len(out), len(reference))
    difference = (out[:both] - reference[:both])[inner]
    assert np.sqrt(np.mean(difference**2)) < 1e-4


@pytest.mark.parametrize("rate", [48000, 44056])
def test_aliasing_tones_are_removed(to_target, rate):
    t = np.arange(rate // 2) / rate
    out = to_target(np.sin(2 * np.pi * 11500 * t)[:, None].astype("float32"), rate).numpy()
    assert np.abs(out[2000:-2000]).max() < 2e-5


@pytest.mark.parametrize("frames", [1, 2, 159, 160, 161, 4000])
@pytest.mark.parametrize("rate", [TARGET, 44100, 11025, 191999])
def test_output_lengths_match_the_file_reader(to_target, rate, frames):
    out = to_target(np.ones((frames, 1), "float32"), rate)
    assert out.shape == (resampled_length(frames, rate, TARGET), 1)


def test_equal_rates_change_nothing(to_target):
    samples = np.random.default_rng(0).normal(size=(1000, 2)).astype("float32")
    np.testing.assert_array_equal(to_target(samples, TARGET), samples)
