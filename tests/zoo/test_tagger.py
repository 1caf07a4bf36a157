"""Frame scores and embeddings of every architecture."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import rfkeras
import zoo
from rfkeras.errors import ConfigError
from rfkeras.layers import ClipLogits
from zoo.tagger import Reader

AUDIO = np.random.default_rng(0).normal(0, 0.1, (2, 40000)).astype(np.float32)
FEATURES = {"resnet_rf_tiny": 128, "vgg_rf_tiny": 96, "densenet_rf_tiny": 151, "crnn_tiny": 32}


@pytest.mark.parametrize("name", FEATURES)
def test_every_architecture_reads_frames_and_features(name: str) -> None:
    model = zoo.create_model(name, num_classes=3, initialization="he")
    reading = model.read(AUDIO)
    n_frames = reading.frame_logits.shape[1]
    np.testing.assert_allclose(reading.logits, model(AUDIO), rtol=1e-4, atol=1e-4)
    assert reading.frame_logits.shape == (2, n_frames, 3)
    assert reading.frame_embeddings.shape == (2, n_frames, FEATURES[name])
    np.testing.assert_allclose(model.embed(AUDIO), np.mean(reading.frame_embeddings, 1))
    frames = zoo.create_model(name, num_classes=3, initialization="he", head="frames")
    frames.set_weights(model.get_weights())
    np.testing.assert_allclose(frames(AUDIO), reading.frame_logits, rtol=1e-4, atol=1e-4)


def test_the_embedding_is_the_input_of_the_classifier() -> None:
    model = zoo.create_model("resnet_rf_tiny", num_classes=3, initialization="he")
    kernel = model.get_layer("classifier_conv").kernel.numpy()[0, 0]
    bn = model.get_layer("classifier_bn")
    logits = model.embed(AUDIO) @ kernel / np.sqrt(1 + bn.epsilon)
    np.testing.assert_allclose(logits, model(AUDIO), rtol=1e-3, atol=1e-4)
    by_frame = model.embed(AUDIO, per="frame") @ kernel / np.sqrt(1 + bn.epsilon)
    np.testing.assert_allclose(by_frame, model.read(AUDIO).frame_logits, rtol=1e-3, atol=1e-4)


def test_a_saved_tagger_is_loaded_as_a_tagger(tmp_path: Path) -> None:
    model = zoo.create_model("resnet_rf_tiny", num_classes=3, head="attention")
    model.save(tmp_path / "m.keras")
    again = rfkeras.load_model(tmp_path / "m.keras")
    assert isinstance(again, rfkeras.Tagger)
    np.testing.assert_array_equal(again.scores(AUDIO, per="frame"), 0.5)


def test_a_custom_model_becomes_a_tagger() -> None:
    spectrogram = keras.Input((None, 32, 1))
    x = keras.layers.Conv2D(8, 3, activation="relu")(spectrogram)
    logits = ClipLogits()(keras.layers.Activation("linear")(keras.layers.Conv2D(2, 1)(x)))
    model = rfkeras.Tagger(spectrogram, logits)
    assert model.embed(np.zeros((1, 20, 32, 1), "float32")).shape == (1, 8)
    assert model.embed(np.zeros((1, 20, 32, 1), "float32"), per="frame").shape == (1, 18, 8)


def test_models_that_are_not_taggers_are_rejected() -> None:
    spectrogram = keras.Input((None, 32, 1))
    with pytest.raises(ConfigError, match="does not end in a ClipLogits layer"):
        rfkeras.Tagger(spectrogram, keras.layers.Conv2D(2, 1)(spectrogram)).read(AUDIO)
    bare = rfkeras.Tagger(spectrogram, ClipLogits()(spectrogram))
    with pytest.raises(ConfigError, match="Conv2D or Dense"):
        bare.embed(np.zeros((1, 20, 32, 1), "float32"))
    with pytest.raises(ConfigError, match="'clip' or 'frame'"):
        bare.scores(np.zeros((1, 20, 32, 1), "float32"), per="bar")


def test_empty_batches_and_nan_are_rejected() -> None:
    model = zoo.create_model("resnet_rf_tiny", num_classes=3)
    wrong = AUDIO.copy()
    wrong[1, 5] = np.inf
    for call in (model.read, model.scores, model.embed):
        with pytest.raises(ConfigError, match="infinite values, in clip 1 of the batch"):
            call(wrong)
        with pytest.raises(ConfigError, match="must not be empty"):
            call(AUDIO[:0])


def test_samples_that_are_no_audio_are_rejected() -> None:
    model = zoo.create_model("resnet_rf_tiny", num_classes=3)
    loud = AUDIO.copy()
    loud[0, 7] = -1e30
    for call in (model.read, model.scores, model.embed):
        with pytest.raises(ConfigError, match="too large to be audio"):
            call(loud)


def test_inputs_of_another_rank_are_named_and_lists_are_read() -> None:
    model = zoo.create_model("resnet_rf_tiny", num_classes=3)
    for call in (model.read, model.scores, model.embed):
        with pytest.raises(ConfigError, match=r"Received: shape \(30000,\). Add the batch"):
            call(np.zeros(30000, np.float32))
        with pytest.raises(ConfigError, match=r"Received: shape \(1, 2, 30, 2\)."):
            call(np.zeros((1, 2, 30, 2), np.float32))
    with pytest.raises(ConfigError, match=r"The batch is empty. Received: shape \(0, 30000\)"):
        model(np.zeros((0, 30000), np.float32))
    listed = [[0.25, -0.25] * 4000]
    expected = model.scores(np.array(listed, np.float32))
    np.testing.assert_array_equal(model.scores(listed), expected)


def test_a_reader_may_start_at_the_input_of_the_classifier() -> None:
    inputs = keras.Input((None, 32, 1))
    spectrogram = keras.layers.Rescaling(2.0)(inputs)
    model = keras.Model(inputs, ClipLogits()(keras.layers.Conv2D(2, 1)(spectrogram)))
    x = np.random.default_rng(0).normal(size=(1, 20, 32, 1)).astype(np.float32)
    whole = Reader(model)(x)
    part = Reader(model, spectrogram)(2.0 * x)
    np.testing.assert_allclose(part.frame_logits, whole.frame_logits, rtol=1e-5)
    np.testing.assert_allclose(part.frame_embeddings, whole.frame_embeddings, rtol=1e-5)
