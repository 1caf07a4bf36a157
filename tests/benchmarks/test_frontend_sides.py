"""The front-ends that the benchmark compares compute the same values."""

import numpy as np
import pytest

from benchmarks import frontend_sides
from benchmarks.frontend import SIDES
from rfkeras.frontend import create_frontend


@pytest.fixture(autouse=True)
def no_thread_limit(monkeypatch):
    # TensorFlow is already running, so its number of threads cannot change.
    monkeypatch.setattr("benchmarks.keras_sides.set_threads", lambda threads: None)


@pytest.mark.parametrize("preset", ["perceptual_mel_22k", "mel_32k"])
def test_all_sides_compute_the_same(preset):
    shape = [2, 8000]
    expected = create_frontend(preset).mel_db(frontend_sides.waveforms(shape)).numpy()[..., 0]
    for function, more in SIDES.values():
        compute = getattr(frontend_sides, function)(preset, shape, threads=1, **more)
        np.testing.assert_allclose(compute(), expected, atol=2e-3, err_msg=function)
