"""Calibration: known distortions are undone, and errors are measured."""

import numpy as np
import pytest

from rfkeras.errors import ConfigError
from rfkeras.evaluation.calibration import (
    cross_fitted_logits,
    expected_calibration_error,
    fit_calibration,
    reliability_diagram,
)
from rfkeras.evaluation.metrics import check_scored


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def distorted():
    """Return logits that are too large by 2.5 and shifted, labels and mask of 3 tags."""
    rng = np.random.default_rng(0)
    true = rng.normal(-1.0, 2.0, (20000, 3))
    labels = rng.random(true.shape) < sigmoid(true)
    return (true - 0.7) * 2.5, labels, rng.random(true.shape) < 0.7


def test_a_known_distortion_is_undone(distorted):
    fitted = fit_calibration(*distorted)
    np.testing.assert_allclose(fitted.scale, 0.4, rtol=0.06)
    np.testing.assert_allclose(fitted.bias, 0.7, atol=0.06)
    logits, labels, mask = distorted
    before = expected_calibration_error(sigmoid(logits), labels, mask)
    after = expected_calibration_error(fitted.scores(logits), labels, mask)
    assert before.min() > 0.08
    assert after.max() < 0.012


def test_unknown_labels_do_not_count(distorted):
    logits, labels, mask = distorted
    flipped = np.where(mask, labels, ~labels)
    one, other = fit_calibration(logits, labels, mask), fit_calibration(logits, flipped, mask)
    np.testing.assert_array_equal(one.scale, other.scale)
    error = expected_calibration_error(sigmoid(logits), flipped, mask)
    np.testing.assert_array_equal(
        error, expected_calibration_error(sigmoid(logits), labels, mask)
    )


def test_the_fit_is_the_minimum_of_log_loss(distorted):
    # Logistic regression without a penalty has a unique minimum, which scikit-learn finds too.
    from sklearn.linear_model import LogisticRegression

    logits, labels, mask = distorted
    known = mask[:, 0]
    fitted = fit_calibration(logits[known, :1], labels[known, :1])
    reference = LogisticRegression(C=1e9).fit(logits[known, :1], labels[known, 0])
    assert fitted.scale[0] == pytest.approx(reference.coef_[0, 0], rel=1e-3)
    assert fitted.bias[0] == pytest.approx(reference.intercept_[0], abs=1e-3)


def test_a_temperature_alone_keeps_the_sign_of_logits(distorted):
    fitted = fit_calibration(*distorted, bias=False)
    assert (fitted.bias == 0).all()
    logits, labels, mask = distorted
    known = mask[:, 0]
    from sklearn.linear_model import LogisticRegression

    reference = LogisticRegression(C=1e9, fit_intercept=False)
    reference.fit(logits[known, :1], labels[known, 0])
    assert fitted.scale[0] == pytest.approx(reference.coef_[0, 0], rel=5e-3)


def test_rare_tags_stay_near_the_fit_of_all(distorted):
    logits, labels, mask = (array.copy() for array in distorted)
    mask[:, 1] = False
    mask[:3, 1] = True  # three clips, whose labels contradict the logits
    labels[:3, 1] = logits[:3, 1] < 0
    mask[:, 2] = False
    fitted = fit_calibration(logits, labels, mask)
    assert fitted.scale[1] == pytest.approx(0.4, rel=0.3)
    assert fitted.bias[1] == pytest.approx(0.7, abs=0.5)
    assert fitted.scale[2] == pytest.approx(fitted.scale[0], rel=0.02)  # no clip at all


def test_cross_fitting_uses_other_clips(distorted):
    logits, labels, mask = (array[:100] for array in distorted)
    crossed = cross_fitted_logits(logits, labels, mask)
    others = np.arange(100) % 5 != 2
    fitted = fit_calibration(logits[others], labels[others], mask[others])
    np.testing.assert_allclose(crossed[2::5], fitted.logits(logits[2::5]))


def test_separable_tags_get_finite_values():
    logits = np.concatenate([np.full((50, 2), -3.0), np.full((50, 2), 3.0)])
    fitted = fit_calibration(logits, logits > 0)
    assert np.isfinite(fitted.scale).all()
    assert (fitted.scale > 0).all()


def test_calibration_needs_known_labels():
    with pytest.raises(ConfigError, match="known labels. Received none"):
        fit_calibration(np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((4, 2)))


def test_expected_calibration_error_by_hand():
    scores = np.array([[0.1], [0.15], [0.9], [1.0]])
    labels = np.array([[0], [1], [1], [1]])
    # Bin of 0.1 to 0.2: mean score 0.125, share 0.5. Bin of 0.9 to 1: mean score 0.95, share 1.
    expected = (2 * 0.375 + 2 * 0.05) / 4
    assert expected_calibration_error(scores, labels)[0] == pytest.approx(expected)
    assert np.isnan(expected_calibration_error(scores, labels, np.zeros((4, 1)))[0])


def test_the_diagram_shows_both(distorted):
    logits, labels, mask = (array[:500] for array in distorted)
    before = check_scored(sigmoid(logits), labels, mask)
    after = check_scored(fit_calibration(*distorted).scores(logits), labels, mask)
    figure = reliability_diagram(before, after, ("flute", "$organ", "voice"))
    curves, errors = figure.axes
    assert [text.get_text() for text in curves.get_legend().get_texts()] == [
        "before",
        "calibrated",
    ]
    drawn = [points.get_offsets()[:, 0] for points in errors.collections]
    for places, scored in zip(drawn, (before, after), strict=True):
        expected = expected_calibration_error(scored.scores, scored.labels, scored.mask)
        np.testing.assert_allclose(places, expected)
