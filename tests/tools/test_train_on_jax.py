"""Training on JAX, from features to files; `make backends` runs it."""

import json
import os
from dataclasses import asdict

import numpy as np
import pytest

pytest.importorskip("jax")
if os.environ.get("KERAS_BACKEND") != "jax":
    pytest.skip("needs KERAS_BACKEND=jax", allow_module_level=True)

import jax
import jax.numpy as jnp
import keras

import zoo
from tools import jax_network, train_on_jax
from tools.feature_parts import Features, Scale, compress, read_parts, write_part
from tools.jax_batches import Augmentation

LABELS = ("low", "high", "both")
SCALE = Scale("perceptual_mel_22k", 80.0, 0.5, -26.0, (0.1,) * 32, (2.0,) * 32, LABELS)
OPTIONS = "width=4,rho=1,blocks=[1,1,1],allow_rf_change=true"


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """Write clips of noise in the lower bands, the upper bands, or both."""
    rng = np.random.default_rng(0)
    kinds = np.arange(24) % 4
    low, high = kinds % 2, kinds // 2
    labels = np.stack([low, high, low * high], axis=1).astype("float16")
    bands = np.concatenate([np.outer(low, np.ones(16)), np.outer(high, np.ones(16))], axis=1)
    steps = 60 * bands[:, None] + rng.uniform(20, 60, (24, 40, 32))
    path = tmp_path_factory.mktemp("features") / "f-000.npz"
    splits = np.repeat([0, 1], [16, 8]).astype("uint8")
    keys = np.array([f"clip{number}" for number in range(24)])
    known = np.ones((24, 3), bool)
    features = Features(steps.astype("uint8"), labels, known, splits, keys, SCALE)
    write_part(path, features, [compress(features.steps[:16]), compress(features.steps[16:])])
    return path


def train(part, out, *models, **flags):
    settings = {
        "batch": 8,
        "chunk": 20,
        "excerpt-seconds": 0.5,
        "evaluation-batch": 5,
        "precision": "float32",
        "learning-rate": 0.01,
        "averaging": 0.9,
        "mix": 0,
        "gain-db": "0 5",
        **flags,
    }
    arguments = " ".join(f"--{name} {value}" for name, value in settings.items()).split()
    arguments += [text for model in models for text in ("--model", model)]
    return train_on_jax.main([str(part), "--out", str(out), *arguments])


@pytest.fixture(scope="module")
def trained(part, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    models = [f"resnet_rf_tiny,{OPTIONS},{more}" for more in ("name=a", "shake=true,name=b")]
    assert train(part, out, *models, steps=120, **{"evaluate-every": 0.0}) == 0
    return out


def test_a_small_set_is_learned(trained):
    for name in "ab":
        curve = json.loads((trained / f"{name}.json").read_text())["curve"]
        losses = [point["loss"] for point in curve if "loss" in point]
        assert losses[-1] < 0.8 * losses[0]
        assert curve[-1]["step"] == 120
        assert curve[-1]["mAP"] > 0.95


def test_the_file_has_the_averaged_weights_by_path(part, trained):
    arrays = dict(np.load(trained / "b.npz"))
    record = json.loads(str(arrays.pop("record")))
    assert record["options"]["initialization"] == "he"
    model = zoo.create_model(
        "resnet_rf_tiny", label_names=LABELS, frontend=None, **record["options"]
    )
    weights = {variable.path: variable for variable in model.weights}
    assert set(arrays) == {*weights, "frontend/mean_db", "frontend/std_db"}
    for name, variable in weights.items():
        variable.assign(arrays[name])
    features = train_on_jax.read_parts([part]).select("validation")
    mean = (arrays["frontend/mean_db"] - 2) / 0.1 + 26
    x = (features.steps * 0.5 - mean) / (arrays["frontend/std_db"] / 0.1)
    logits = np.asarray(model(x[..., None].astype("float32")))
    value = jax_network.mean_average_precision(logits, features.labels, features.mask)
    assert value == pytest.approx(record["curve"][-1]["mAP"], abs=1e-6)
    assert ((logits > 0) == features.labels).mean() > 0.9


def test_the_statistics_are_those_of_the_training_clips(part, trained):
    arrays = np.load(trained / "a.npz")
    steps = train_on_jax.read_parts([part]).select("train").steps * 0.5
    mean = SCALE.to_layer(steps.mean(axis=(0, 1)))
    np.testing.assert_allclose(arrays["frontend/mean_db"], mean, rtol=1e-4)
    deviation = 0.1 * steps.std(axis=(0, 1))
    np.testing.assert_allclose(arrays["frontend/std_db"], deviation, rtol=1e-4)


def test_training_goes_on_from_earlier_weights(part, trained, tmp_path):
    model = f"resnet_rf_tiny,{OPTIONS},name=a"
    options = {"learning-rate": 0.0, "weight-decay": 0.0, "start": trained}
    assert train(part, tmp_path, model, steps=10, **options) == 0
    before, after = np.load(trained / "a.npz"), np.load(tmp_path / "a.npz")
    assert json.loads(str(after["record"]))["started_from"] == "a.npz"
    for name in before.files:
        if name == "record" or name.endswith(("moving_mean", "moving_variance")):
            continue
        np.testing.assert_allclose(after[name], before[name], rtol=1e-4, atol=1e-5)
    other = f"resnet_rf_tiny,{OPTIONS},shake=true,name=a"
    assert train(part, tmp_path, other, steps=10, start=trained) == 1


def test_a_model_that_fails_does_not_stop_the_others(part, tmp_path, capsys):
    models = [f"resnet_rf_tiny,{OPTIONS},{more}" for more in ("name=a,width=0", "name=b")]
    assert train(part, tmp_path, *models, steps=60, **{"learning-rate": 1e30}) == 1
    printed = capsys.readouterr().out
    assert "resnet_rf_tiny FAILED: width must be" in printed
    assert "resnet_rf_tiny FAILED: The loss is nan" in printed
    assert list(tmp_path.iterdir()) == []


def test_compile_only_trains_nothing(part, tmp_path):
    arguments = [str(part), "--out", str(tmp_path), "--steps", "20", "--compile-only"]
    arguments += ["--chunk", "5", "--batch", "4", "--model", f"resnet_rf_tiny,{OPTIONS}"]
    assert train_on_jax.main([*arguments, "--capacity", "50"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_adamw_is_that_of_keras():
    rng = np.random.default_rng(0)
    values = [rng.normal(size=shape).astype("float32") for shape in ((3, 4), (5,))]
    variables = [keras.Variable(value) for value in values]
    optimizer = keras.optimizers.AdamW(0.02, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_list=[variables[1]])
    state = {
        "weights": [jnp.asarray(value) for value in values],
        "first": [jnp.zeros_like(value) for value in values],
        "second": [jnp.zeros_like(value) for value in values],
    }
    for step in range(1, 6):
        gradients = [rng.normal(size=value.shape).astype("float32") for value in values]
        optimizer.apply(gradients, variables)
        state = jax_network.adamw(
            {**state, "step": jnp.asarray(step)}, gradients, [True, False], 0.02, 0.1
        )
    for variable, weight in zip(variables, state["weights"], strict=True):
        np.testing.assert_allclose(np.asarray(variable.value), weight, atol=1e-6)


def test_consistency_adds_the_squared_difference_between_two_gains(part):
    train = read_parts([part], lambda text: None).select("train")
    network = jax_network.Network(
        "resnet_rf_tiny",
        LABELS,
        "float32",
        width=4,
        rho=1,
        blocks=[1, 1, 1],
        allow_rf_change=True,
    )
    kernel = network.model.get_layer("classifier_conv").kernel
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))  # new ones are 0
    data = {**train_on_jax.on_device(train), **train_on_jax.statistics(train)}

    def loss(consistency, gain_db):
        augmentation = Augmentation(gain_db, equaliser_db=0.0, mix=0.0)
        chunk = network.chunk_function(1, 8, 20, augmentation, 0.0, 0.9, consistency)
        key, rates = jax.random.key(0), jnp.zeros(1)
        return float(chunk(network.new_state(), data, key, rates)[1])

    assert loss(1.0, (0.0, 0.0)) == pytest.approx(loss(2.0, (0.0, 0.0)), abs=1e-6)
    one, two, three = (loss(weight, (-20.0, 0.0)) for weight in (1.0, 2.0, 3.0))
    assert two - one > 1e-4
    assert three - two == pytest.approx(two - one, rel=1e-3)


def test_mean_average_precision_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 9, (60, 5)) / 9  # with ties
    labels, mask = rng.integers(0, 2, (60, 5)), rng.random((60, 5)) < 0.7
    labels[:, 4] = 0
    expected = [
        metrics.average_precision_score(labels[mask[:, k], k], scores[mask[:, k], k])
        for k in range(4)
    ]
    value = jax_network.mean_average_precision(scores, labels, mask)
    assert value == pytest.approx(np.mean(expected), abs=1e-12)


def test_clips_that_get_ready_join_those_of_files(part, tmp_path, capsys):
    clips = {
        "steps": np.full((130, 40, 32), 50, np.uint8),
        "labels": np.zeros((130, 3), np.float16),
        "mask": np.ones((130, 3), bool),
        "done": np.ones(130, np.uint8),
    }
    for name, values in clips.items():
        np.save(tmp_path / f"{name}.npy", values)
    (tmp_path / "scale.json").write_text(json.dumps(asdict(SCALE)))
    model = f"resnet_rf_tiny,{OPTIONS}"
    assert train(part, tmp_path, model, steps=20, growing=tmp_path) == 0
    record = json.loads((tmp_path / "resnet_rf_tiny.json").read_text())
    assert record["clips"]["train"] == 16 + 128  # the last two do not fill a block
    other = json.dumps({**asdict(SCALE), "step_db": 1.0})
    (tmp_path / "scale.json").write_text(other)
    assert train(part, tmp_path, model, steps=20, growing=tmp_path) == 2
    assert "another front-end, step or tags" in capsys.readouterr().err
