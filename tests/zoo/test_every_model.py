"""Checks that every model of the zoo must pass."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import rfkeras
import zoo
from rfkeras.export import verify
from tests.helpers.configurations import combined_configurations, configurations, few_layers
from tests.helpers.processes import ROOT, run
from tests.helpers.receptive_field import gradient_support

CONFIGURATIONS = configurations()
LABELS = ("a", "b", "c")
MIXED = ("mixed_float16", "mixed_bfloat16")
# Each network in float32, and each with the most options in one mixed policy. Each layer is
# tested with both policies elsewhere.
POLICIES = [(name, "float32") for name in CONFIGURATIONS] + [
    (name, MIXED[place % 2]) for place, name in enumerate(combined_configurations())
]
every_model = pytest.mark.parametrize("name", CONFIGURATIONS)
# The layers of the other networks are also in one of these.
every_combination = pytest.mark.parametrize("name", combined_configurations())


def build(name, **options):
    options = {"initialization": "he", "label_names": LABELS, **CONFIGURATIONS[name], **options}
    return zoo.create_model(name, **options)


def build_shallow(name, **options):
    with few_layers(name) as few:
        return build(name, **few, **options)


@pytest.fixture
def default_policy():
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.usefixtures("default_policy")
@pytest.mark.parametrize(("name", "policy"), POLICIES)
def test_config_and_file_round_trip(name, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    model = build_shallow(name, task="single_label")
    again = keras.Model.from_config(model.get_config())
    x = np.random.default_rng(0).normal(0, 0.1, (2, 30_000)).astype("float32")
    model.get_layer("frontend").adapt([x])
    config = json.dumps(model.get_config())
    assert json.dumps(again.get_config()) == config
    model.save(tmp_path / "m.keras")
    loaded = rfkeras.load_model(tmp_path / "m.keras")
    assert json.dumps(loaded.get_config()) == config
    logits = model(x)
    assert logits.dtype == "float32"
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(loaded(x), logits, atol=1e-6)


@every_model
def test_every_trainable_weight_gets_a_gradient(name):
    keras.utils.set_random_seed(0)
    model = build(name, frontend=None)
    x = tf.random.stateless_normal((4, 130, 256, 1), (0, 0))
    labels = tf.constant(np.eye(3, dtype="float32")[[0, 1, 2, 0]])
    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
        loss = tf.reduce_mean(losses)
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [v.value for v in variables])
    for variable, gradient in zip(variables, gradients, strict=True):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path
        assert np.abs(gradient).max() > 0, variable.path


@every_model
@pytest.mark.usefixtures("one_clean_process")
def test_export_equals_the_model(name, tmp_path):
    keras.utils.set_random_seed(0)
    model = build_shallow(name)
    rfkeras.export.saved_model(model, tmp_path / "1")
    rng = np.random.default_rng(0)
    batches = [rng.normal(0, 0.1, shape).astype("float32") for shape in ((2, 40_000), (1, 99))]
    assert verify(tmp_path / "1", model, batches) < 1e-5


# For the last step of a recurrent network, which sees all earlier frames and none later.
UNLIMITED_PIXELS = 90


@every_model
@pytest.mark.usefixtures("averaging_pools")
def test_receptive_field_is_that_of_the_plan(name):
    options = {"frontend": None, "width": 4} if CONFIGURATIONS[name] else {"frontend": None}
    if "rho" in zoo.model_info(name).options:
        options["rho"] = (3, 2)
    model = build(name, **options)
    plan = zoo.model_info(name).plan_for(**options)
    fields = (plan.time, plan.frequency)
    sizes = [UNLIMITED_PIXELS if field is None else field.size + 64 for field in fields]
    middle, spans = gradient_support(model, *sizes)
    for axis, field in enumerate(fields):
        whole = (0, sizes[axis])
        assert spans[axis] == (whole if field is None else field.window(middle[axis])), axis


@pytest.fixture(scope="module")
def replica_metrics():
    status, out, err = run("-m", "tests.helpers.two_replicas_zoo", cwd=ROOT)
    assert status == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow
@every_combination
def test_two_replicas_take_a_step(name, replica_metrics):
    metrics = replica_metrics[name]
    assert metrics["replicas"] == 2
    assert np.isfinite(metrics["loss"])
    assert (
        metrics["replicas_differ_by"] == 0
    )  # after the step all replicas hold the same weights
    assert metrics["moved"] > 0


def test_shake_draws_differ_between_replicas(replica_metrics):
    one, two = replica_metrics["shake_shares"]
    assert len(one) == len(two) == 4
    assert not set(one) & set(two)
