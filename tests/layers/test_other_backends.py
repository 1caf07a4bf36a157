"""Layers and networks on JAX and PyTorch, compared with TensorFlow; `make backends` runs it.

There is an environment with both backends and one with TensorFlow, so TensorFlow's outputs can
come from a file, which RFKERAS_TENSORFLOW_OUTPUTS names.
"""

import importlib.util
import inspect
import json
import os

import numpy as np
import pytest

from tests.helpers.configurations import configurations
from tests.helpers.processes import ROOT, run

TOLERANCE = 1e-4  # of the largest value of an output
OUTPUTS = "RFKERAS_TENSORFLOW_OUTPUTS"


def outputs(backend, folder):
    """Return the outputs of `tests.helpers.backend_outputs` by name."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    path = folder / f"{backend}.npz"
    status, _, err = run(
        *("-m", "tests.helpers.backend_outputs", path), KERAS_BACKEND=backend, fork=False
    )
    assert status == 0, err
    return dict(np.load(path))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    if OUTPUTS in os.environ:
        return dict(np.load(os.environ[OUTPUTS]))
    if not any(importlib.util.find_spec(name) for name in ("jax", "torch")):
        pytest.skip("neither jax nor torch is installed")
    return outputs("tensorflow", tmp_path_factory.mktemp("tensorflow"))


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_outputs_equal_those_of_tensorflow(backend, expected, tmp_path):
    found = outputs(backend, tmp_path)
    assert list(found) == list(expected)
    differences = {}
    for name, values in expected.items():
        assert found[name].shape == values.shape, name
        largest = np.abs(values).max()
        differences[name] = np.abs(found[name] - values).max() / max(largest, 1e-3)
    assert {name: x for name, x in differences.items() if not x < TOLERANCE} == {}


def test_every_layer_and_every_network_is_compared(expected):
    import keras

    from rfkeras import layers

    public = {name: getattr(layers, name) for name in layers.__all__}
    classes = [
        name
        for name, value in public.items()
        if inspect.isclass(value) and issubclass(value, keras.layers.Layer)
    ]
    wanted = {*classes, *configurations()}
    assert wanted - {name.partition(" ")[0] for name in expected} == set()
    constant = {name for name, values in expected.items() if np.ptp(values) < 1e-3}
    assert constant <= {
        *("Mixup labels follow samples", "Mixup weight", "Mixup at inference 2"),
        "ReplicaSeedGenerator",
    }


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
