"""The head: poolings, label names, tasks and thresholds."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from rfkeras.errors import ConfigError
from rfkeras.layers import ClipLogits, find_head
from rfkeras.layers.head import POOLINGS

RNG = np.random.default_rng(0)
MAP = RNG.normal(0, 3, (2, 7, 5, 4)).astype(np.float32)


def _head(pooling: str, **options: object) -> ClipLogits:
    head = ClipLogits(pooling=pooling, **options)
    head.build(MAP.shape)
    if pooling == "attention":
        head.attention_kernel.assign(np.random.default_rng(1).normal(0, 1, (4, 4)))
    return head


def _reference(pooling: str, head: ClipLogits) -> np.ndarray:
    values = MAP.astype(np.float64).reshape(2, 35, 4)
    if pooling == "average":
        return values.mean(1)
    if pooling == "max":
        return values.max(1)
    if pooling == "log_mean_exp":
        return logsumexp(values, axis=1) - np.log(35)
    weights = softmax(values @ head.attention_kernel.numpy().astype(np.float64), axis=1)
    return (weights * values).sum(1)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_equals_its_definition(pooling: str) -> None:
    head = _head(pooling)
    np.testing.assert_allclose(head(MAP), _reference(pooling, head), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_frames_pooled_over_time_equal_the_clip(pooling: str) -> None:
    head = _head(pooling)
    frames, log_weights = head.frame_logits(MAP)
    assert frames.shape == (2, 7, 4)
    assert (log_weights is not None) == (pooling == "attention")
    clip = head.clip_logits(frames, log_weights)
    np.testing.assert_allclose(clip, head(MAP), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(_head(pooling, frames=True)(MAP), frames)


def test_attention_starts_as_the_average() -> None:
    head = ClipLogits(pooling="attention")
    np.testing.assert_allclose(head(MAP), MAP.mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_config_contains_the_pooling() -> None:
    head = ClipLogits.from_config(ClipLogits(pooling="max", frames=True).get_config())
    assert (head.pooling, head.frames) == ("max", True)
    assert head.compute_output_shape((None, None, 5, 4)) == (None, None, 4)


def test_unknown_pooling_is_rejected() -> None:
    with pytest.raises(ConfigError, match="log_mean_exp"):
        ClipLogits(pooling="log_mean")


def test_clip_logits_average_time_and_frequency_in_float32():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float16")
    out = ClipLogits(dtype="float32")(x)
    assert out.dtype == "float32"
    np.testing.assert_allclose(out, x.astype("float32").mean((1, 2)), atol=1e-3)


def test_clip_logits_keep_label_names():
    layer = ClipLogits(label_names=["a", "b"])
    assert ClipLogits.from_config(layer.get_config()).label_names == ("a", "b")
    with pytest.raises(ConfigError, match="3 classes but 2 label names"):
        layer.build((None, 1, 1, 3))


def test_head_is_found_in_a_nested_model():
    inputs = keras.Input((4, 4, 3))
    inner = keras.Model(inputs, ClipLogits(task="single_label", name="logits")(inputs))
    outer = keras.Model(inputs, inner(keras.layers.ReLU()(inputs)))
    assert find_head(outer) is find_head(inner) is inner.get_layer("logits")
    assert find_head(keras.Model(inputs, keras.layers.ReLU()(inputs))) is None


def test_scores_of_both_tasks():
    logits = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    tags = ClipLogits().scores(logits)
    np.testing.assert_allclose(tags, 1 / (1 + np.exp(-logits)), atol=1e-6)
    classes = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        ClipLogits(task="single_label").scores(logits), classes, atol=1e-6
    )
    with pytest.raises(ConfigError, match="Did you mean 'multi_label'"):
        ClipLogits(task="multilabel")
    with pytest.raises(ConfigError, match="4 classes but 2 thresholds"):
        ClipLogits(thresholds=[0.5, 0.5]).build((None, 1, 1, 4))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "a"), "must differ. Repeated: a"),
        (("a", " a "), "must differ"),
        (("fl\u00fbte", "flu\u0302te"), "must differ"),
        (("a", "b\nc"), "control character, U\\+000A"),
        (("a", "b\u2028c"), "line separator"),
        (("a", "b\u200b"), "invisible format character"),
        (("a", ""), "must not be empty"),
        (("a", "  "), "must not be empty"),
        ("ab", "must be a sequence of texts"),
        ((1, 2), "must be a sequence of texts"),
    ],
)
def test_wrong_label_names(names, message):
    with pytest.raises(ConfigError, match=f"ClipLogits: label_names.*{message}"):
        ClipLogits(label_names=names)


def test_label_names_are_stored_clean():
    head = ClipLogits(label_names=(" flu\u0302te", "Voice", "voice"))
    assert head.label_names == ("fl\u00fbte", "Voice", "voice")


def test_a_file_with_wrong_names_opens_with_other_names(capsys):
    config = ClipLogits(label_names=("a", "b", "c", "d", "e")).get_config()
    stored = {**config, "label_names": ["a", "a", "b\nc", "a (2)", "\u200b"]}
    head = ClipLogits.from_config(stored)
    assert head.label_names == ("a", "a (2)", "b c", "a (2) (2)", "class_4")
    err = capsys.readouterr().err
    assert err.startswith("Note: invalid tag names in the model")
    assert err.count("\n") == 1
    assert ClipLogits.from_config(head.get_config()).label_names == head.label_names
    assert not capsys.readouterr().err
