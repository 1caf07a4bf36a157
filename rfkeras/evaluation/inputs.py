"""Checks on the arrays that the evaluation takes, shared by all of its metrics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rfkeras.errors import ConfigError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Scored:
    """Checked scores and labels.

    Attributes:
        scores: (clips, classes), finite; higher means more likely.
        labels: (clips, classes), False wherever the mask is False.
        mask: (clips, classes), True where the label is known.
    """

    scores: FloatArray
    labels: BoolArray
    mask: BoolArray


def check_scored(scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None) -> Scored:
    """Scores, labels and mask in the one form that the metrics use.

    Args:
        scores: (clips, classes) finite numbers.
        labels: (clips, classes) of 0 and 1; anything where the mask is 0.
        mask: (clips, classes) of 0 and 1; None means that every label is known.

    Raises:
        ConfigError: A shape, type or value is not allowed.
    """
    values = check_scores(scores)
    known = (
        np.ones(values.shape, dtype=np.bool_)
        if mask is None
        else check_binary("mask", mask, values.shape)
    )
    return Scored(values, check_binary("labels", labels, values.shape, where=known), known)


def check_scores(scores: ArrayLike) -> FloatArray:
    """The scores as (clips, classes) float64.

    Raises:
        ConfigError: They are not a non-empty table of finite numbers.
    """
    values = np.asarray(scores)
    if values.ndim != 2 or 0 in values.shape:
        raise ConfigError(
            "scores must be a table (clips, classes) with at least one clip and one class. "
            f"Received shape {values.shape}. For a single tag, reshape to (clips, 1)."
        )
    if values.dtype.kind not in "biuf":
        raise ConfigError(f"scores must be real numbers. Received dtype {values.dtype}.")
    values = values.astype(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        clip, tag = (int(i) for i in np.argwhere(bad)[0])
        raise ConfigError(
            f"scores must be finite. Received {int(bad.sum())} NaN or infinite values, the "
            f"first at clip {clip}, class {tag}. A model whose training diverged gives such "
            "scores: lower its learning rate, or look for bad input."
        )
    return values


def check_binary(
    name: str, values: ArrayLike, shape: tuple[int, ...], where: BoolArray | None = None
) -> BoolArray:
    """An array of 0 and 1 as booleans.

    Args:
        name: What the array is, for the message.
        values: Numbers or booleans.
        shape: The shape that it must have, that of the scores.
        where: Same shape; elsewhere any value is taken, and becomes False.

    Raises:
        ConfigError: Wrong shape, or something other than 0 and 1.
    """
    array = np.asarray(values)
    if array.shape != shape:
        raise ConfigError(
            f"{name} must have the shape of the scores, {shape}. Received {array.shape}."
        )
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"{name} must be 0 and 1. Received dtype {array.dtype}.")
    counted = np.ones(shape, dtype=np.bool_) if where is None else where
    bad = counted & (array != 0) & (array != 1)
    if bad.any():
        clip, tag = (int(i) for i in np.argwhere(bad)[0])
        raise ConfigError(
            f"{name} must be 0 or 1. Received {int(bad.sum())} other values, the first "
            f"{array[clip, tag]} at clip {clip}, class {tag}. Where nobody annotated a "
            "label, say so by a 0 in the mask."
        )
    result: BoolArray = counted & (array == 1)
    return result


def check_threshold(threshold: ArrayLike, classes: int) -> FloatArray:
    """One decision threshold per class, from a number or from one per class.

    Raises:
        ConfigError: It is neither, or not finite.
    """
    values = np.asarray(threshold)
    if values.dtype.kind not in "iuf" or values.shape not in ((), (classes,)):
        raise ConfigError(
            f"threshold must be one number, or one for each of the {classes} classes. "
            f"Received shape {values.shape}, dtype {values.dtype}."
        )
    if not np.isfinite(values).all():
        raise ConfigError(f"threshold must be finite. Received {values.tolist()}.")
    return np.broadcast_to(values, (classes,)).astype(np.float64)
