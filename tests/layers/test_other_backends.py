"""Layers, networks and whole models on JAX and PyTorch, compared with TensorFlow.

`make backends` computes the outputs in an environment for each, see
`tests.helpers.backend_outputs`, and runs these tests on its folder.
"""

import importlib.util
import inspect
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rfkeras.frontend import PRESETS, create_frontend
from tests.helpers.configurations import configurations
from tests.helpers.processes import ROOT, run
from tests.helpers.spectrograms import librosa_mel, music

FOLDER = "RFKERAS_BACKEND_OUTPUTS"
BACKENDS = ("jax", "torch")
TOLERANCE = 1e-4  # of the largest value of an output
PARITY_DB = 1e-3
# A unit at the kink of a ReLU may fall on its other side, which changes a gradient at once.
GRADIENT_TOLERANCE = 1e-2  # of the gradient's norm
LOSS_TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def outputs():
    """Return a function from the name of a file to its arrays."""
    if FOLDER not in os.environ:
        pytest.skip("`make backends` computes the outputs of all backends")
    folder = Path(os.environ[FOLDER])

    def load(name):
        with np.load(folder / f"{name}.npz") as arrays:
            return {key: arrays[key] for key in arrays.files}

    return load


def difference(name, found, expected):
    """Return the difference from TensorFlow as a share of what is allowed."""
    if name == "saved scores":  # after steps that enlarge any difference
        return 0.0
    if name == "whole input gradient":
        norms = np.linalg.norm(found - expected), np.linalg.norm(expected)
        return norms[0] / norms[1] / GRADIENT_TOLERANCE
    largest = np.abs(found - expected).max()
    if name == "whole losses of ten steps":
        return largest / LOSS_TOLERANCE
    if name.startswith("Frontend"):
        return largest / PARITY_DB
    return largest / max(np.abs(expected).max(), 1e-3) / TOLERANCE


@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_equal_those_of_tensorflow(backend, outputs):
    found, expected = outputs(backend), outputs("tensorflow")
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape, name
    shares = {name: difference(name, found[name], x) for name, x in expected.items()}
    assert {name: x for name, x in shares.items() if not x < 1} == {}
    losses = found["whole losses of ten steps"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PRESETS)
def test_front_ends_equal_librosa(backend, name, outputs):
    layer = create_frontend(name)
    expected = librosa_mel(music(layer.sample_rate_hz, 2.0), layer)
    found = outputs(backend)[f"Frontend {name} False"][0, :, :, 0]
    np.testing.assert_allclose(found, expected, atol=PARITY_DB)


@pytest.mark.parametrize("reader", ["tensorflow", *BACKENDS])
def test_models_saved_on_one_backend_load_on_the_others(reader, outputs):
    scores = outputs(f"{reader}_reads")
    assert sorted(scores) == ["jax", "tensorflow", "torch"]
    for writer, values in scores.items():
        expected = outputs(writer)["saved scores"]
        np.testing.assert_allclose(values, expected, atol=1e-4, err_msg=writer)


PAGE = (ROOT / "docs/backends.md").read_text(encoding="utf-8")
GRAPH = "A PyTorch graph"
TRAINING = {
    "`model.fit`": BACKENDS,
    "A PyTorch training loop": ("torch",),
    "A JAX training step": ("jax",),
}


def example(heading):
    """Return the program in a section of the page."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    [code] = re.findall(r"^```python\n(.*?)^```$", section, flags=re.S | re.M)
    return code


@pytest.mark.parametrize(
    ("heading", "backend"), [(key, name) for key, names in TRAINING.items() for name in names]
)
def test_the_examples_of_the_page_train(heading, backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    rng = np.random.default_rng(0)
    for number, name in enumerate(("birds", "rain", "voice")):
        (tmp_path / "mysounds" / name).mkdir(parents=True)
        for clip in range(8):
            tone = 0.1 * np.sin((0.05 + 0.3 * number) * np.arange(33075 + clip))
            noisy = tone + 0.01 * rng.normal(size=tone.size)
            soundfile.write(tmp_path / f"mysounds/{name}/{clip}.wav", noisy, 22050)
    (tmp_path / "program.py").write_text(example(heading), encoding="utf-8")
    status, out, err = run(
        "program.py",
        cwd=tmp_path,
        KERAS_BACKEND=backend,
        PYTHONPATH=str(ROOT),
        XLA_FLAGS="--xla_force_host_platform_device_count=2",  # for pmap
    )
    assert status == 0, err
    printed = {words[0]: words[1:] for words in map(str.split, out.splitlines())}
    losses = [float(value) for value in printed["losses:"]]
    assert losses[-1] < 0.9 * losses[0]
    if heading == "`model.fit`":
        assert float(printed["mAP:"][0]) > 0.9
        assert (tmp_path / "fitted.keras").is_file()
    elif backend == "torch":
        assert printed["scores:"] == ["4", "20"]
    else:
        assert float(printed["difference:"][0]) < 1e-4


# Runs a file of `torch.export` on noise where neither Keras nor rfkeras can be imported.
PYTORCH_ALONE = """
import sys
sys.modules.update({"keras": None, "rfkeras": None, "zoo": None})
import torch
graph = torch.export.load("tagger.pt2").module()
print(*graph(torch.randn(4, 22050)).shape)
"""


def test_the_graph_of_pytorch_equals_the_model(tmp_path):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    compiles = shutil.which("g++") is not None
    code = example(GRAPH)
    if not compiles:
        code = code.replace("(graph, compiled)", "(graph,)")
    (tmp_path / "program.py").write_text(code, encoding="utf-8")
    settings = {"PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    status, out, err = run("program.py", cwd=tmp_path, KERAS_BACKEND="torch", **settings)
    assert status == 0, err
    differences = [float(line.split()[1]) for line in out.splitlines()]
    assert len(differences) == 1 + compiles
    assert max(differences) < TOLERANCE
    status, out, err = run("-c", PYTORCH_ALONE, cwd=tmp_path, fork=False)
    assert status == 0, err
    assert out.split() == ["4", "20"]


def test_every_example_of_the_page_is_run():
    headings = [*TRAINING, GRAPH]
    assert PAGE.count("```python\n") == len(headings)
    for heading in headings:
        assert example(heading)


def test_every_layer_and_every_network_is_compared(outputs):
    import keras

    from rfkeras import layers

    expected = outputs("tensorflow")
    public = {name: getattr(layers, name) for name in layers.__all__}
    classes = [
        name
        for name, value in public.items()
        if inspect.isclass(value) and issubclass(value, keras.layers.Layer)
    ]
    wanted = {*classes, *configurations(), "Frontend", "whole"}
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
