"""Calibration: make scores mean what they say, and measure whether they do.

A calibrated score is sigmoid(scale * logit + bias), with a scale (one over the temperature) and
a bias per tag. Both are fitted on clips that were not used in training, by the log loss on the
annotated clips. Rare tags have too few clips for two numbers of their own, so the logarithm of
the scale and the bias are drawn towards those that fit all tags together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rfkeras.errors import ConfigError
from rfkeras.evaluation.metrics import FloatArray, Scored, check_scored, probabilities
from rfkeras.tasks import MULTI_LABEL
from rfkeras.utils.plotting import (
    BLUE,
    GREY,
    ORANGE,
    add_axes,
    name_rows,
    new_figure,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 10
PRIOR_SCALE, PRIOR_BIAS = 4.0, 4.0
"""Weights of the penalties: a deviation of the scale by a factor e, or of the bias by 1, from
that of all tags costs as much as this increase of the summed log loss in nats."""

_PARTS = 5
_STEPS = 100
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Calibration:
    """Scale and bias of every tag.

    Attributes:
        scale: (classes,) positive; one over the temperature.
        bias: (classes,).
    """

    scale: FloatArray
    bias: FloatArray

    def logits(self, logits: ArrayLike) -> FloatArray:
        """Return calibrated logits (clips, classes)."""
        return np.asarray(logits, np.float64) * self.scale + self.bias

    def scores(self, logits: ArrayLike) -> FloatArray:
        """Return calibrated scores (clips, classes)."""
        return probabilities(self.logits(logits), MULTI_LABEL)


def fit_calibration(
    logits: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None, *, bias: bool = True
) -> Calibration:
    """Fit scale and bias of every tag.

    Args:
        logits: (clips, classes) finite numbers.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.
        bias: Fit a bias too; otherwise it is 0.

    Returns:
        The calibration. A tag without annotated clips has that of all tags together.

    Raises:
        ConfigError: A shape or value is not allowed, or no label is known.
    """
    scored = check_scored(logits, labels, mask)
    if not scored.mask.any():
        raise ConfigError("Calibration needs clips with known labels. Received none.")
    values, truth = scored.scores[scored.mask], scored.labels[scored.mask]
    start = np.zeros(2)
    shared = _fit(values, truth, start, np.full(2, 1e-6), bias=bias)
    tags = [
        _fit(
            scored.scores[known, tag],
            scored.labels[known, tag],
            shared,
            np.array([PRIOR_SCALE, PRIOR_BIAS]),
            bias=bias,
        )
        for tag, known in enumerate(scored.mask.T)
    ]
    fitted = np.array(tags)
    return Calibration(np.exp(fitted[:, 0]), fitted[:, 1])


def cross_fitted_logits(
    logits: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None, *, bias: bool = True
) -> FloatArray:
    """Return logits that are calibrated by fits to other clips, (clips, classes).

    Clip number n belongs to part n modulo 5, and is calibrated by a fit to the other parts.
    Errors measured on these logits are those to expect on new clips. Arguments and errors are
    the same as for `fit_calibration`.
    """
    scored = check_scored(logits, labels, mask)
    part = np.arange(len(scored.scores)) % _PARTS
    result = np.array(scored.scores)
    for number in range(min(_PARTS, len(part))):
        others, own = part != number, part == number
        fitted = fit_calibration(
            scored.scores[others], scored.labels[others], scored.mask[others], bias=bias
        )
        result[own] = fitted.logits(scored.scores[own])
    return result


def _fit(
    logits: FloatArray,
    labels: NDArray[np.bool_],
    prior: FloatArray,
    weight: FloatArray,
    *,
    bias: bool,
) -> FloatArray:
    """Return (log scale, bias) with the least penalised log loss, by damped Newton steps.

    Args:
        logits: (clips,).
        labels: (clips,).
        prior: (2,) values that the penalty draws towards, where the search begins.
        weight: (2,) weights of the penalties.
        bias: Fit the bias too.
    """
    found = prior.copy()

    def loss(point: FloatArray) -> float:
        z = np.exp(point[0]) * logits + point[1]
        penalty = float(weight @ (point - prior) ** 2)
        return float(np.sum(np.logaddexp(0, z) - labels * z)) + penalty

    value = loss(found)
    for _ in range(_STEPS):
        scaled = np.exp(found[0]) * logits
        score = probabilities(scaled + found[1], MULTI_LABEL)
        slopes = np.stack([scaled, np.ones_like(scaled)])
        gradient = slopes @ (score - labels) + 2 * weight * (found - prior)
        # The expected curvature, which is positive, unlike the exact one.
        curvature = (slopes * score * (1 - score)) @ slopes.T + 2 * np.diag(weight)
        if bias:
            step = np.linalg.solve(curvature, gradient)
        else:
            step = np.array([gradient[0] / curvature[0, 0], 0.0])
        size = 1.0
        while loss(found - size * step) > value and size > _TOLERANCE:
            size /= 2
        new = loss(found - size * step)
        if not new < value - _TOLERANCE:
            break
        found, value = found - size * step, new
    return found


def expected_calibration_error(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None, bins: int = BINS
) -> FloatArray:
    """Compute how far the scores of each tag are from the shares of positives.

    The scores from 0 to 1 are divided into bins of equal width. The error is the mean
    distance of a bin's mean score and its share of positives, weighted by clips.

    Args:
        scores: (clips, classes) probabilities.
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known; None: everywhere.
        bins: Number of bins.

    Returns:
        (classes,) NaN for a tag without annotated clips.
    """
    scored = check_scored(scores, labels, mask)
    errors = np.full(scored.scores.shape[1], np.nan)
    for tag, known in enumerate(scored.mask.T):
        if known.any():
            clips, score, share = _binned(
                scored.scores[known, tag], scored.labels[known, tag], bins
            )
            errors[tag] = clips @ np.abs(score - share) / clips.sum()
    return errors


def _binned(
    scores: FloatArray, labels: NDArray[np.bool_], bins: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return clips, mean score and share of positives of each bin; 0 for an empty bin."""
    place = np.clip((scores * bins).astype(int), 0, bins - 1)
    clips = np.bincount(place, minlength=bins).astype(np.float64)
    filled = np.maximum(clips, 1)
    score = np.bincount(place, weights=scores, minlength=bins) / filled
    share = np.bincount(place, weights=labels, minlength=bins) / filled
    return clips, score, share


def reliability_diagram(
    before: Scored, after: Scored, names: Sequence[str], bins: int = BINS
) -> Figure:
    """Draw the share of positives over the score, all tags pooled, and the error of each tag.

    Args:
        before: Scores that are not calibrated, with labels and mask.
        after: Calibrated scores of the same clips.
        names: Name of each tag.
        bins: Number of bins.
    """
    pooled = [_pooled(scored, bins) for scored in (before, after)]
    errors = [
        expected_calibration_error(scored.scores, scored.labels, scored.mask, bins)
        for scored in (before, after)
    ]
    rows = 0.2 * max(len(names), 8)
    figure = new_figure(
        9.2,
        rows + 1.5,
        "Reliability",
        "left: all tags pooled; the area of a dot shows the number of scores",
        "right: mean distance of score and share of positives (ECE) of each tag",
    )
    size = min(rows, 3.6)
    axes = add_axes(figure, 0.75, 1.5 - 1.0 + rows - size, size, size)
    style_axes(axes, grid="both", x_label="mean score", y_label="share of positives")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    looks = (("before", ORANGE, "o"), ("calibrated", BLUE, "s"))
    for (name, colour, marker), (clips, score, share) in zip(looks, pooled, strict=True):
        shown = clips > 0
        area = 10 + 90 * np.sqrt(clips[shown] / clips.sum())
        axes.plot(score[shown], share[shown], color=colour, linewidth=1)
        axes.scatter(
            score[shown],
            share[shown],
            s=area,
            color=colour,
            marker=marker,
            alpha=0.7,
            label=name,
        )
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    bars = add_axes(figure, 6.0, 0.5, 2.9, rows)
    style_axes(bars, grid="x", x_label="ECE")
    name_rows(bars, names)
    bars.set_ylim(len(names) - 0.5, -0.5)
    for (_, colour, marker), error in zip(looks, errors, strict=True):
        bars.scatter(error, range(len(names)), s=18, color=colour, marker=marker)
    bars.set_xlim(left=0)
    return figure


def _pooled(scored: Scored, bins: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    return _binned(scored.scores[scored.mask], scored.labels[scored.mask], bins)
