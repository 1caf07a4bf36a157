"""Pooling frames as they come equals pooling all of them at once."""

import numpy as np
import pytest

from rfkeras.layers.pooling import POOLINGS, pool
from rfkeras.tagging.accumulate import RunningMean, RunningPool


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("scale", [1.0, 300.0])  # exp(300) overflows
def test_running_pools(pooling, scale):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, scale, (500, 4)).astype(np.float32)
    weights = None
    if pooling == "attention":
        # Weights that grow, and shrink, by far from one piece to the next.
        drift = np.linspace(-scale, scale, 500)[:, None] * [1, -1, 0, 1]
        weights = (rng.normal(0, scale, (500, 4)) + drift).astype(np.float32)
    running = RunningPool(pooling)
    for part in np.split(np.arange(500), [1, 2, 90, 91, 300]):
        running.add(logits[part], None if weights is None else weights[part])
    whole = pool(logits[None], pooling, (1,), None if weights is None else weights[None])[0]
    np.testing.assert_allclose(running.result(), whole, rtol=1e-5, atol=1e-5 * scale)


def test_a_long_mean_does_not_drift():
    mean = RunningMean()
    for _ in range(1000):
        mean.add(np.full((1000, 1), 0.1, np.float32))
    assert mean.result() == pytest.approx(np.float32(0.1), rel=1e-12)
