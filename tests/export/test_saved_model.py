"""SavedModels: their content, and agreement with the model."""

import json
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import rfkeras
import zoo
from rfkeras.errors import ConfigError
from rfkeras.export import ExportError, saved_model, verify
from rfkeras.export.clean_process import BLOCKED
from rfkeras.export.verify import tolerance
from rfkeras.layers import ClipLogits, find_head
from tests.helpers.constants import constants, zeros_of_kernels
from tests.helpers.serving import run_in_this_process
from tests.helpers.small_models import SMALL, small
from tests.helpers.weights import scatter


@pytest.fixture(scope="module")
def model():
    built = small()
    rng = np.random.default_rng(0)
    for variable in built.trainable_variables:
        variable.assign(variable.numpy() + rng.normal(0, 0.05, variable.shape))
    built.compile(optimizer="adam", loss="mse")
    built.optimizer.build(built.trainable_variables)  # gives the optimiser a state
    return built


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return saved_model(model, tmp_path_factory.mktemp("export") / "saved_model" / "1")


def noise(batch, samples):
    return np.random.default_rng(1).normal(0, 0.1, (batch, samples)).astype("float32")


@pytest.fixture
def in_this_process(monkeypatch):
    """Let `verify` run SavedModels in this process."""
    monkeypatch.setattr(sys.modules[verify.__module__], "_run_clean", run_in_this_process)


def served(path, **inputs):
    return tf.saved_model.load(str(path)).signatures["serving_default"](**inputs)["scores"]


def test_clean_process_computes_the_same(model, exported):
    inputs = [noise(3, 22050), noise(1, 50), noise(2, 70000)]
    assert verify(exported, model, inputs) <= 1e-5
    assert {"kapre", "rfkeras", "zoo", "librosa", "tensorflow_io"} == BLOCKED


def test_a_different_model_is_detected(exported, in_this_process):
    other = small()
    with pytest.raises(ExportError, match="differs from the model"):
        verify(exported, other, [noise(1, 22050)])


def test_a_broken_folder_is_detected(model, tmp_path):
    with pytest.raises(ExportError, match="cannot be used in a clean process"):
        verify(tmp_path, model, [noise(1, 22050)])


def test_signature_has_fixed_names_and_free_sizes(exported):
    serve = tf.saved_model.load(str(exported)).signatures["serving_default"]
    assert serve.structured_input_signature[1] == {
        "waveform": tf.TensorSpec((None, None), tf.float32, name="waveform")
    }
    assert serve.structured_outputs == {
        "scores": tf.TensorSpec((None, 4), tf.float32, name="scores")
    }


def test_scores_are_probabilities(model, exported):
    serve = tf.saved_model.load(str(exported)).signatures["serving_default"]
    scores = serve(waveform=tf.constant(noise(2, 22050)))["scores"].numpy()
    logits = np.asarray(model(noise(2, 22050)))
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_empty_batch_is_a_clear_error(exported):
    serve = tf.saved_model.load(str(exported)).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="Empty batch: waveform"):
        serve(waveform=tf.zeros((0, 22050)))


def test_too_short_audio_is_padded_in_the_graph(exported):
    serve = tf.saved_model.load(str(exported)).signatures["serving_default"]
    short = noise(1, 500)
    padded = np.pad(short, [(0, 0), (0, 2048 - 500)])
    np.testing.assert_allclose(
        serve(waveform=tf.constant(short))["scores"],
        serve(waveform=tf.constant(padded))["scores"],
        atol=1e-6,
    )


def test_only_standard_operations_and_no_optimiser(model, exported):
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((exported / "saved_model.pb").read_bytes())
    graph = proto.meta_graphs[0].graph_def
    ops = {node.op for node in graph.node}
    for function in graph.library.function:
        ops |= {node.op for node in function.node_def}
    assert not [op for op in ops if op.startswith(("IO>", "PyFunc", "EagerPyFunc"))]
    assert not [node for node in graph.node if "optimizer" in node.name]


def test_folded_weights_are_constants_and_stored_once_for_all_signatures(model, exported):
    folded = rfkeras.fold(model)
    kernels = [v for v in folded.variables if len(v.shape) == 4]
    stored = [array for array in constants(exported) if array.ndim == 4]
    assert len(stored) == len(kernels) == 10
    for array, kernel in zip(
        sorted(stored, key=np.sum), sorted(map(np.asarray, kernels), key=np.sum), strict=True
    ):
        np.testing.assert_array_equal(array, kernel)
    loaded = tf.saved_model.load(str(exported))
    assert len(loaded.signatures) == 4
    assert list(loaded.model_variables) == []
    bytes_of_weights = sum(v.numpy().nbytes for v in folded.variables)
    assert (exported / "saved_model.pb").stat().st_size < bytes_of_weights + 2_000_000


def test_the_weights_of_a_large_model_stay_variables(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[saved_model.__module__], "LARGEST_BYTES", 100)
    network = zoo.create_model("resnet_rf", 3, head="attention", frontend=None, **SMALL)
    path = saved_model(scatter(network), tmp_path / "1")
    loaded = tf.saved_model.load(str(path))
    assert len(loaded.model_variables) == len(rfkeras.fold(network).variables)
    assert not [array for array in constants(path) if array.ndim == 4]
    batch = noise(2, 40 * 64).reshape(2, 40, 64, 1)
    frames = loaded.signatures["frames"](spectrogram=tf.constant(batch))["frame_scores"]
    np.testing.assert_allclose(frames, network.scores(batch, per="frame"), atol=1e-5)


@keras.saving.register_keras_serializable("tests_export")
class Unserializable(keras.layers.Layer):
    """A layer that cannot be recreated from its configuration."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def test_a_model_that_cannot_be_folded_is_exported_unfolded(tmp_path):
    inputs = keras.Input((None, 8, 1), name="spectrogram")
    x = keras.layers.Conv2D(3, 3, padding="same")(Unserializable(lambda x: 2 * x)(inputs))
    x = keras.layers.BatchNormalization()(x)
    network = keras.Model(inputs, ClipLogits(label_names=("a", "b", "c"))(x))
    path = saved_model(network, tmp_path / "1", warmup=False)
    batch = noise(2, 9 * 8).reshape(2, 9, 8, 1)
    scores = served(path, spectrogram=tf.constant(batch))
    np.testing.assert_allclose(scores, keras.ops.sigmoid(network(batch)), atol=1e-6)


def test_labels_and_sample_rate_are_in_the_assets(exported):
    assert (exported / "assets/labels.txt").read_text() == "flute\nvoice\norgan\ndrums\n"
    card = json.loads((exported / "assets/model.json").read_text())
    assert card["sample_rate_hz"] == 22050
    assert card["channels"] == 1
    assert card["min_samples"] == 2048


def test_model_without_a_front_end_takes_spectrograms(tmp_path):
    network = zoo.create_model("resnet_rf", 3, frontend=None, **SMALL)
    path = saved_model(network, tmp_path / "1")
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    scores = serve(spectrogram=tf.zeros((2, 40, 64, 1)))["scores"]
    np.testing.assert_array_equal(scores, np.full((2, 3), 0.5))
    assert (path / "assets/labels.txt").read_text() == "class_0\nclass_1\nclass_2\n"


def test_an_existing_folder_is_not_overwritten(model, exported):
    with pytest.raises(ConfigError, match="exists"):
        saved_model(model, exported)


def test_wrong_number_of_labels(model, tmp_path):
    with pytest.raises(ConfigError, match="4 outputs but 2 labels"):
        saved_model(model, tmp_path / "1", labels=["a", "b"])


def test_a_single_label_model_serves_the_softmax(tmp_path, in_this_process):
    network = small(task="single_label")
    path = saved_model(network, tmp_path / "1")
    assert verify(path, network, [noise(3, 22050), noise(1, 50)]) <= 1e-5
    scores = served(path, waveform=tf.constant(noise(3, 22050))).numpy()
    powers = np.exp(np.asarray(network(noise(3, 22050)), np.float64))
    np.testing.assert_allclose(scores, powers / powers.sum(axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    card = json.loads((path / "assets/model.json").read_text())
    assert (card["task"], card["thresholds"]) == ("single_label", None)


def test_thresholds_are_in_the_card(model, exported, tmp_path):
    card = json.loads((exported / "assets/model.json").read_text())
    assert (card["task"], card["thresholds"]) == ("multi_label", [0.5] * 4)
    network = zoo.create_model("resnet_rf", 3, frontend=None, **SMALL)
    find_head(network).thresholds = (0.25, 0.5, 0.75)
    path = saved_model(network, tmp_path / "1")
    card = json.loads((path / "assets/model.json").read_text())
    assert card["thresholds"] == [0.25, 0.5, 0.75]


def test_a_model_without_a_head_is_treated_as_multi_label(tmp_path):
    inputs = keras.Input((3,), name="spectrogram")
    network = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    path = saved_model(network, tmp_path / "1")
    logits = np.array([[-1.0, 0.0, 2.0]], "float32")
    scores = served(path, spectrogram=tf.constant(logits))
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_a_bfloat16_model_agrees_within_its_bound_and_a_wrong_one_does_not(
    tmp_path, in_this_process
):
    default = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        network = small()
    finally:
        keras.config.set_dtype_policy(default)
    path = saved_model(network, tmp_path / "1")
    stored = tf.saved_model.load(str(path)).model_variables
    for variable, own in zip(stored, network.variables, strict=True):
        np.testing.assert_array_equal(variable, own)  # not folded
    batch = noise(2, 44100)
    assert verify(path, network, [batch, noise(1, 22050)]) <= tolerance(network) == 2.0**-9
    bias = network.get_layer("classifier_bn").beta
    bias.assign(bias.numpy() + 0.05)
    with pytest.raises(ExportError, match=r"at most 0\.002 is allowed") as error:
        verify(path, network, [batch])
    difference = float(re.search(r"differs from the model by (\S+)", str(error.value))[1])
    assert 0.0095 < difference < 0.02  # about a quarter of 0.05


@pytest.mark.parametrize(
    ("policy", "bound"),
    [("float32", 1e-5), ("mixed_float16", 2.0**-12), ("mixed_bfloat16", 2.0**-9)],
)
def test_the_tolerance_follows_the_coarsest_layer(policy, bound):
    inputs = keras.Input((3,))
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype=policy)])
    outputs = keras.layers.Activation("linear", dtype="float32")(inner(inputs))
    assert tolerance(keras.Model(inputs, outputs)) == bound


def test_zeros_of_a_pruned_model_stay_zeros(tmp_path):
    network = zoo.create_model("resnet_rf", 3, **SMALL)
    rng = np.random.default_rng(0)
    zeros = {}
    for variable in network.trainable_variables:
        if len(variable.shape) > 1:
            kept = variable.numpy() * (rng.random(variable.shape) < 0.2)
            variable.assign(kept)
        zeros[variable.path] = int((variable.numpy() == 0).sum())
    assert sum(zeros.values()) > 0.7 * sum(v.numpy().size for v in network.trainable_variables)
    network.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    path = saved_model(loaded, tmp_path / "1")
    # Folding multiplies each kernel by the scales of a normalisation: zeros stay zeros.
    kernels = zeros_of_kernels(loaded.variables)
    assert zeros_of_kernels(constants(path)) == kernels > 0.7 * sum(zeros.values())
    assert {v.path: int((v.numpy() == 0).sum()) for v in loaded.trainable_variables} == zeros
