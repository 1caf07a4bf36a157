"""Ways to make one logit a clip of a map of logits over time and frequency.

Each is defined so that pooling over frequency first, which gives a logit for every frame,
and then over time, gives what pooling over both at once gives. The second step needs, for
attention, how much each frame weighs; for the others frames weigh alike.

log_mean_exp is the smooth maximum of Pinheiro and Collobert, "From Image-level to
Pixel-level Labeling with Convolutional Networks" (2015), with sharpness 1. attention gives
every tag and position a weight, a softmax over all positions of a learnt linear map of the
logits; it starts as the average.
"""

from __future__ import annotations

from typing import Any

from keras import ops

POOLINGS = ("average", "max", "log_mean_exp", "attention")


def pool(logits: Any, pooling: str, axes: tuple[int, ...], log_weights: Any = None) -> Any:
    """Logits pooled over some axes.

    Args:
        logits: Float tensor of at least as many dimensions as axes.
        pooling: One of `POOLINGS`.
        axes: To pool over.
        log_weights: Of attention: logarithm of each logit's weight, up to a constant.
    """
    if pooling == "average":
        return ops.mean(logits, axis=axes)
    if pooling == "max":
        return ops.max(logits, axis=axes)
    if pooling == "log_mean_exp":
        count = ops.ones_like(logits)
        return ops.logsumexp(logits, axis=axes) - ops.log(ops.sum(count, axis=axes))
    weights = ops.exp(log_weights - ops.max(log_weights, axis=axes, keepdims=True))
    return ops.sum(weights * logits, axis=axes) / ops.sum(weights, axis=axes)
