"""Chunked processing gives the frames, tags and embeddings of a single pass."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from rfkeras.frontend import create_frontend
from rfkeras.inference import StreamTagger
from tests.helpers.taggers import (
    custom_tagger,
    music,
    small_frontend,
    split_randomly,
    zoo_tagger,
)
from zoo.tagger import Reading, top_head

# Relative to the largest value. Only the order of sums differs.
TOLERANCE = 1e-5


def one_pass(tagger, waveform):
    """Return the reading of the whole waveform, with the tagger's traced graph to save time."""
    frame_logits, _, weights, embeddings = tagger._read(waveform[None])
    logits = top_head(tagger.model).clip_logits(frame_logits, weights)
    embedding = tf.reduce_mean(embeddings, axis=1)
    return Reading(logits, frame_logits, weights, embedding, embeddings)


def lengths(plan, seed):
    """Return lengths at which chunks start to matter, to the sample, and random ones."""
    rng = np.random.default_rng(seed)
    hop = 64
    edge = plan.reserve_samples + int(rng.integers(0, 3)) * plan.step_samples
    return [
        1,
        int(rng.integers(2, plan.samples)),
        edge,
        edge + 1,
        edge + hop,
        plan.samples + 2 * plan.step_samples - 1,
        int(rng.integers(plan.samples, plan.samples + 6 * plan.step_samples)),
    ]


def check(model, chunk_seconds, several=None, seed=0, read=one_pass):
    tagger = StreamTagger(model, chunk_seconds)
    assert tagger.exact, tagger.reason_not_exact
    for number, samples in enumerate(several or lengths(tagger.plan, seed)):
        waveform = music(samples, tagger.channels, number)
        whole = read(tagger, waveform)
        blocks = split_randomly(waveform, 5, number)
        pieces = list(tagger.stream(blocks))
        frames = np.concatenate([piece.frame_logits for piece in pieces])
        assert [piece.first_frame for piece in pieces] == list(
            np.cumsum([0, *[len(piece.frame_logits) for piece in pieces]])[:-1]
        )
        result = tagger.run(blocks, frames=True, embeddings=True)
        for got, wanted in (
            (frames, whole.frame_logits),
            (result.logits, whole.logits),
            (result.embedding, whole.embedding),
            (result.frame_embeddings, whole.frame_embeddings),
        ):
            wanted = wanted[0].numpy()
            assert got.shape == wanted.shape, samples
            assert got.dtype == np.float32
            atol = TOLERANCE * max(1.0, np.abs(wanted).max())
            np.testing.assert_allclose(got, wanted, rtol=0, atol=atol)
        head = top_head(model)
        np.testing.assert_array_equal(result.scores, head.scores(result.logits))
        np.testing.assert_allclose(result.frame_scores, head.scores(frames), atol=1e-6)
        assert result.seconds == samples / tagger.sample_rate_hz
    return tagger


SHORT = {"blocks": (2, 1, 1), "allow_rf_change": True, "width": 4}
ZOO = {
    "rho 0, max": ("resnet_rf_tiny", {**SHORT, "rho": 0, "head": "max"}),
    "rho 7, attention": ("resnet_rf_tiny", {**SHORT, "rho": 7, "head": "attention"}),
    "rho 22": ("resnet_rf_tiny", {"rho": 22, "width": 4, "head": "log_mean_exp"}),
    "rho pair, frames": ("resnet_rf_tiny", {**SHORT, "rho": (5, 2), "head": "frames"}),
    "variants": (
        "resnet_rf_tiny",
        {
            **SHORT,
            "rho": 2,
            "shake": True,
            "frequency_aware": True,
            "damping": 0.1,
            "damp_time": True,
            "decomposition": 2,
            "task": "single_label",
        },
    ),
    "stereo vgg": ("vgg_rf_tiny", {"width": 4, "input_channels": 2}),
    "densenet": ("densenet_rf_tiny", {"rho": 1, "width": 4, "growth_rate": 2}),
}


@pytest.mark.parametrize("name", ZOO)
def test_zoo_models(name):
    architecture, options = ZOO[name]
    seed = list(ZOO).index(name)
    seconds = np.random.default_rng(seed).uniform(0.1, 8)
    tagger = check(zoo_tagger(architecture, **options), seconds, seed=seed)
    assert (tagger.thresholds is None) == (options.get("task") == "single_label")


@pytest.mark.parametrize("preset", ["perceptual_mel_22k", "mel_32k"])
def test_presets(preset):
    frontend = create_frontend(preset, fixed_floor=True)
    model = zoo_tagger("resnet_rf_tiny", rho=1, frontend=frontend, **SHORT)
    rate = frontend.sample_rate_hz
    check(
        model,
        1.0,
        [rate // 3, 5 * rate + 1],
        read=lambda tagger, waveform: model.read(waveform[None]),
    )


def dilated(x):
    x = layers.Conv2D(4, 5, strides=(3, 2), activation="relu")(x)
    x = layers.Conv2D(4, 3, dilation_rate=(2, 1), padding="same", activation="relu")(x)
    return layers.AveragePooling2D((4, 1), strides=(2, 1))(x)


def even(x):
    x = layers.Conv2D(4, (4, 3), padding="same", activation="relu")(x)
    x = layers.MaxPooling2D((3, 2), strides=(1, 2), padding="same")(x)
    return layers.Conv2D(4, (2, 3), strides=(5, 1))(layers.ZeroPadding2D(((7, 0), (0, 0)))(x))


def shortcut(x):
    short = layers.Cropping2D(((2, 2), (0, 0)))(x)
    return layers.Add()([layers.Conv2D(1, (5, 1), activation="relu")(x), short])


def cropped(x):
    x = layers.Conv2D(4, 3, padding="same")(layers.Cropping2D(((9, 12), (0, 0)))(x))
    return layers.Conv2D(4, 5, padding="same", activation="relu")(x)


@pytest.mark.parametrize("backbone", [dilated, even, shortcut, cropped])
@pytest.mark.parametrize("sizes", [(256, 64), (250, 100)])
def test_custom_models(backbone, sizes):
    frontend = small_frontend(window_samples=sizes[0], hop_samples=sizes[1], min_frames=30)
    tagger = check(custom_tagger(backbone, frontend), 0.7, seed=sizes[1])
    assert tagger.label_names == ("class_0", "class_1", "class_2")


def test_reduced_precision_is_ignored():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = zoo_tagger.__wrapped__("resnet_rf_tiny", rho=1, **SHORT)
    finally:
        keras.config.set_dtype_policy("float32")
    full = zoo_tagger("resnet_rf_tiny", rho=1, **SHORT)
    full.set_weights(half.get_weights())
    waveform = music(40000)
    by_half, by_full = (StreamTagger(model, 2.0).run([waveform]) for model in (half, full))
    np.testing.assert_array_equal(by_half.logits, by_full.logits)
