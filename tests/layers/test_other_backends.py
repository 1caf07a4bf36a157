"""The blocks on Keras' other backends, if these are installed."""

import importlib.util
import json

import numpy as np
import pytest

from tests.helpers.processes import ROOT, run


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_shake_and_a_network_of_all_variants(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    status, out, err = run("-m", "tests.helpers.other_backend", cwd=ROOT, KERAS_BACKEND=backend)
    assert status == 0, err
    results = json.loads(out.splitlines()[-1])
    assert results["backend"] == backend
    assert results["sum_of_shares"] < 1e-6
    assert results["beta_spread_in_a_sample"] < 1e-6
    assert results["inference_error"] < 1e-6
    assert abs(np.corrcoef(results["alpha"], results["beta"])[0, 1]) < 0.35
    for share in (results["alpha"], results["beta"]):
        assert -1e-5 < min(share) < 0.2 < 0.8 < max(share) < 1 + 1e-5
    assert results["losses"][-1] < 0.9 * results["losses"][0]
