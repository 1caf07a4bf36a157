"""SavedModels: what is in them, and that they compute what the model computes."""

import json

import numpy as np
import pytest
import tensorflow as tf

import zoo
from rfkeras.errors import ConfigError
from rfkeras.export import ExportError, saved_model, verify
from rfkeras.export.clean_process import REFUSED


@pytest.fixture(scope="module")
def model():
    built = zoo.create_model("resnet_rf", label_names=("flute", "voice", "organ"), width=8)
    rng = np.random.default_rng(0)
    for variable in built.trainable_variables:
        variable.assign(variable.numpy() + rng.normal(0, 0.05, variable.shape))
    built.compile(optimizer="adam", loss="mse")
    built.fit(noise(2, 22050), np.zeros((2, 3)), verbose=0)  # so the optimiser has state
    return built


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return saved_model(model, tmp_path_factory.mktemp("export") / "saved_model" / "1")


def noise(batch, samples):
    return np.random.default_rng(1).normal(0, 0.1, (batch, samples)).astype("float32")


def test_clean_process_computes_the_same(model, exported):
    inputs = [noise(3, 22050), noise(1, 50), noise(2, 70000)]
    assert verify(exported, model, inputs) <= 1e-5
    assert {"kapre", "rfkeras", "zoo", "librosa", "tensorflow_io"} == REFUSED


def test_a_different_model_is_found_out(model, exported):
    other = zoo.create_model("resnet_rf", label_names=("flute", "voice", "organ"), width=8)
    with pytest.raises(ExportError, match="differs from the model"):
        verify(exported, other, [noise(1, 22050)])


def test_a_broken_folder_is_found_out(model, tmp_path):
    with pytest.raises(ExportError, match="cannot be used in a clean process"):
        verify(tmp_path, model, [noise(1, 22050)])


def test_signature_has_fixed_names_and_free_sizes(exported):
    serve = tf.saved_model.load(str(exported)).signatures["serving_default"]
    assert serve.structured_input_signature[1] == {
        "waveform": tf.TensorSpec((None, None), tf.float32, name="waveform")
    }
    assert serve.structured_outputs == {
        "scores": tf.TensorSpec((None, 3), tf.float32, name="scores")
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
    padded = np.pad(short, [(0, 0), (0, 8192 - 500)])
    np.testing.assert_allclose(
        serve(waveform=tf.constant(short))["scores"],
        serve(waveform=tf.constant(padded))["scores"],
        atol=1e-6,
    )


def test_only_stock_operations_and_no_optimiser(model, exported):
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((exported / "saved_model.pb").read_bytes())
    graph = proto.meta_graphs[0].graph_def
    ops = {node.op for node in graph.node}
    for function in graph.library.function:
        ops |= {node.op for node in function.node_def}
    assert not [op for op in ops if op.startswith(("IO>", "PyFunc", "EagerPyFunc"))]
    reader = tf.train.load_checkpoint(str(exported / "variables" / "variables"))
    saved = reader.get_variable_to_shape_map()
    values = [k for k in saved if k.endswith("VARIABLE_VALUE")]
    weights = len(model.trainable_variables) + len(model.non_trainable_variables)
    assert len(values) == weights
    assert not [name for name in saved if "optimizer" in name]


def test_labels_and_sample_rate_lie_in_the_assets(exported):
    assert (exported / "assets/labels.txt").read_text() == "flute\nvoice\norgan\n"
    card = json.loads((exported / "assets/model.json").read_text())
    assert card["sample_rate_hz"] == 22050
    assert card["channels"] == 1
    assert card["min_samples"] == 8192


def test_model_without_a_front_end_takes_spectrograms(tmp_path):
    network = zoo.create_model("resnet_rf", 3, width=4, frontend=None)
    path = saved_model(network, tmp_path / "1")
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    scores = serve(spectrogram=tf.zeros((2, 40, 64, 1)))["scores"]
    np.testing.assert_array_equal(scores, np.full((2, 3), 0.5))
    assert (path / "assets/labels.txt").read_text() == "class_0\nclass_1\nclass_2\n"


def test_an_existing_folder_is_left_alone(model, exported):
    with pytest.raises(ConfigError, match="exists"):
        saved_model(model, exported)


def test_wrong_number_of_labels(model, tmp_path):
    with pytest.raises(ConfigError, match="3 outputs but 2 labels"):
        saved_model(model, tmp_path / "1", labels=["a", "b"])
