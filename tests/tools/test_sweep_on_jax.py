"""Sweeps on JAX, from clips to results; `make backends` runs it."""

import fcntl
import json
import os

import numpy as np
import pytest

pytest.importorskip("jax")
if os.environ.get("KERAS_BACKEND") != "jax":
    pytest.skip("needs KERAS_BACKEND=jax", allow_module_level=True)

import jax
import jax.numpy as jnp

from tools import sweep_on_jax
from tools.feature_parts import Features, Scale, compress, write_part
from tools.jax_network import Network, mean_average_precision
from tools.sweep_plan import Condition

TAGS = ("low", "high")
SCALE = Scale("perceptual_mel_22k", 80.0, 0.5, -26.0, (0.1,) * 32, (2.0,) * 32, (*TAGS, "x"))
OPTIONS = {"width": 4, "blocks": [1, 1, 1], "allow_rf_change": True}
PLAN = {
    "name": "plain",
    "options": OPTIONS,
    "rhos": [1],
    "seeds": [0, 1],
    "tests": ["new"],
    "tags": list(TAGS),
    "excerpt_frames": 20,
    "steps": 100,
    "batch": 8,
    "learning_rate": 0.01,
}


def clips(count, seed):
    """Return clips of noise in the lower bands, the upper bands, or both."""
    rng = np.random.default_rng(seed)
    kinds = 1 + rng.integers(0, 3, count)
    low, high = kinds % 2, kinds // 2
    bands = np.concatenate([np.outer(low, np.ones(16)), np.outer(high, np.ones(16))], axis=1)
    steps = (60 * bands[:, None] + rng.uniform(20, 60, (count, 45, 32))).astype("uint8")
    labels = np.stack([low, high, rng.integers(0, 2, count)], axis=1).astype("float16")
    keys = np.array([f"{seed}/{number}" for number in range(count)])
    known = np.ones((count, 3), bool)
    return Features(steps, labels, known, np.zeros(count, "uint8"), keys, SCALE)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name, count, seed in (("train", 16, 0), ("new", 10, 1)):
        features = clips(count, seed)
        write_part(folder / f"{name}-000.npz", features, [compress(features.steps)])
    return folder


@pytest.fixture(scope="module")
def swept(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    flipped = {**PLAN, "name": "flipped", "seeds": [0], "flipped": 1.0, "clips": 12}
    (out / "plan.json").write_text(json.dumps({"conditions": [PLAN, flipped]}))
    assert main(data, out) == 0
    return out


def main(data, out, *more):
    return sweep_on_jax.main(
        [str(out / "plan.json"), "--data", str(data), "--out", str(out), *more]
    )


def rows(out):
    lines = (out / "runs.jsonl").read_text().splitlines()
    return {row["run"]: row for row in map(json.loads, lines)}


def test_runs_learn_and_are_scored_at_ten_points(swept):
    found = rows(swept)
    assert set(found) == {"plain-rho1-seed0", "plain-rho1-seed1", "flipped-rho1-seed0"}
    curve = found["plain-rho1-seed0"]["curve"]
    assert [point["step"] for point in curve] == list(range(10, 101, 10))
    assert curve[-1]["train"] > 0.95
    assert curve[-1]["new"] > 0.95
    # A network that learnt inverted labels knows its own clips, and is wrong about others.
    inverted = found["flipped-rho1-seed0"]
    assert inverted["clips"] == 12
    assert inverted["curve"][-1]["train"] > 0.9
    assert inverted["curve"][-1]["new"] < 0.8


def test_the_logits_give_the_figures(swept, data):
    with np.load(swept / "plain-rho1-seed1.npz") as arrays:
        logits = arrays["new"].astype("float32")
    features = clips(10, 1)
    value = mean_average_precision(logits, features.labels[:, :2], features.mask[:, :2])
    assert value == pytest.approx(rows(swept)["plain-rho1-seed1"]["curve"][-1]["new"], abs=1e-3)


def test_weights_of_the_first_seed_are_kept(swept):
    assert [path.name for path in sorted((swept / "weights").iterdir())] == [
        "flipped-rho1-seed0.npz",
        "plain-rho1-seed0.npz",
    ]


def test_finished_runs_are_not_trained_again(swept, data, capsys):
    assert main(data, swept) == 0
    assert len(rows(swept)) == 3
    assert capsys.readouterr().out == ""
    assert main(data, swept, "--seconds", "-1") == 0


def test_runs_of_other_processes_are_left_to_them(data, tmp_path):
    plan = {**PLAN, "steps": 10, "rhos": [1, 2], "seeds": [0, 1]}
    (tmp_path / "plan.json").write_text(json.dumps({"conditions": [plan]}))
    (tmp_path / "locks").mkdir()
    with (tmp_path / "locks" / "plain-rho1-seed0").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(data, tmp_path) == 0
        # A network that is compiled comes first: both of rho 2 before that of rho 1.
        assert list(rows(tmp_path)) == [
            "plain-rho2-seed0",
            "plain-rho2-seed1",
            "plain-rho1-seed1",
        ]
    assert main(data, tmp_path) == 0
    assert list(rows(tmp_path))[-1] == "plain-rho1-seed0"


def test_functions_are_compiled_for_the_cache(data, tmp_path, capsys):
    plans = [{**PLAN, "seeds": [0, 1], "rhos": [1, 2]}, {**PLAN, "name": "few", "clips": 12}]
    (tmp_path / "plan.json").write_text(json.dumps({"conditions": plans}))
    cache = tmp_path / "cache"
    try:
        assert main(data, tmp_path, "--compile-only", "--compile-cache", str(cache)) == 0
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
    assert not (tmp_path / "runs.jsonl").exists()
    assert any(cache.iterdir())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["plain-rho1-seed0:", "plain-rho2-seed0:"]


def test_scores_are_the_mean_over_windows():
    network = Network("resnet_rf_tiny", TAGS, "float32", rho=1, **OPTIONS)
    kernel = network.model.get_layer("classifier_conv").kernel
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
    steps = clips(3, 2).steps
    scale = {
        "step_db": 0.5,
        "mean": np.zeros(32, "float32"),
        "deviation": np.ones(32, "float32"),
    }
    state = network.new_state()
    found = sweep_on_jax.scores_function(network, 20)(
        state["weights"], state["others"], scale, jnp.asarray(steps)
    )
    windows = [steps[:, first : first + 20] for first in (0, 12, 25)]
    each = [network.model(window.astype("float32")[..., None] * 0.5) for window in windows]
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-4, atol=1e-5)


def test_wrong_sets_are_errors(data, tmp_path, capsys):
    for wrong, message in (
        ({"tests": ["old"]}, "has no clips of 'old'"),
        ({"tags": ["low", "y"]}, "no labels of y"),
        ({"clips": 99}, "needs 99 training clips"),
    ):
        (tmp_path / "plan.json").write_text(json.dumps({"conditions": [{**PLAN, **wrong}]}))
        assert main(data, tmp_path) == 2
        assert message in capsys.readouterr().err


def test_the_same_labels_are_inverted_for_every_rho():
    condition = Condition("a", flipped=0.3)
    one, other = (sweep_on_jax.training_clips(clips(40, 3), condition, seed=4) for _ in "ab")
    np.testing.assert_array_equal(one.labels, other.labels)
    share = (one.labels != clips(40, 3).labels).mean()
    assert 0.2 < share < 0.4
