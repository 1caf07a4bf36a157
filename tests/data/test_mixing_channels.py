"""Mixing is the mean of the channels, to the last bit, by whatever way is fastest."""

import numpy as np
import pytest

from rfkeras.data.audio_format import to_channels


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_mono_is_the_mean(channels):
    rng = np.random.default_rng(0)
    samples = rng.normal(scale=10.0 ** rng.integers(-30, 30, (1000, 1)), size=(1000, channels))
    samples = samples.astype(np.float32)
    mono = to_channels(samples, 1)
    assert mono.dtype == np.float32
    np.testing.assert_array_equal(mono, samples.mean(axis=1, dtype=np.float32))
