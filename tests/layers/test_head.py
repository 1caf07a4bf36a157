from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from rfkeras.errors import ConfigError
from rfkeras.layers import ClipLogits
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
def test_each_pooling_is_its_definition(pooling: str) -> None:
    head = _head(pooling)
    np.testing.assert_allclose(head(MAP), _reference(pooling, head), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_frames_pooled_over_time_are_the_clip(pooling: str) -> None:
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


def test_pooling_is_kept_in_the_configuration() -> None:
    head = ClipLogits.from_config(ClipLogits(pooling="max", frames=True).get_config())
    assert (head.pooling, head.frames) == ("max", True)
    assert head.compute_output_shape((None, None, 5, 4)) == (None, None, 4)


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ConfigError, match="log_mean_exp"):
        ClipLogits(pooling="log_mean")
