"""Thresholds against every cut there is, on annotated clips, with ties."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_curve

from rfkeras.evaluation.metrics import f1
from rfkeras.evaluation.thresholds import best_f1_thresholds


def random_tags(seed: int, decimals: int, clips: int = 120, tags: int = 5):
    rng = np.random.default_rng(seed)
    labels = rng.random((clips, tags)) < rng.uniform(0.02, 0.9, tags)
    labels[0] = True
    scores = np.round(np.clip(0.6 * rng.random((clips, tags)) + 0.3 * labels, 0, 1), decimals)
    mask = rng.random((clips, tags)) < 0.7
    mask[0] = True
    return scores, labels, mask


@pytest.mark.parametrize("decimals", [1, 2, 15])
@pytest.mark.parametrize("seed", range(8))
def test_no_threshold_has_more_f1_by_brute_force(seed, decimals):
    scores, labels, mask = random_tags(seed, decimals)
    chosen = best_f1_thresholds(scores, labels, mask)
    reached = f1(scores, labels, mask, threshold=chosen).values
    for tag in range(scores.shape[1]):
        known = mask[:, tag]
        truth, ranked = labels[known, tag], scores[known, tag]
        every = [f1_score(truth, ranked >= cut) for cut in np.unique(ranked)]
        assert reached[tag] == pytest.approx(max(every), abs=1e-12)
        precision, recall, _ = precision_recall_curve(truth, ranked)
        product = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        assert reached[tag] == pytest.approx(product.max(), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_lies_midway_between_neighbouring_scores(seed):
    scores, labels, mask = random_tags(seed, decimals=2)
    chosen = best_f1_thresholds(scores, labels, mask)
    for tag, threshold in enumerate(chosen):
        ranked = np.unique(np.append(scores[mask[:, tag], tag], 0.0))
        above = ranked[ranked > threshold].min()
        below = ranked[ranked < threshold].max()
        assert threshold == pytest.approx((above + below) / 2, abs=1e-12)


def test_of_equal_f1_the_highest_threshold_is_taken():
    # F1 is 2/3 for the top clip alone and for all four.
    scores, labels = [[0.9], [0.5], [0.4], [0.3]], [[1], [0], [0], [1]]
    assert best_f1_thresholds(scores, labels)[0] == pytest.approx(0.7)


def test_everything_positive_is_claimed_with_room_below():
    assert best_f1_thresholds([[0.2], [0.6]], [[1], [1]])[0] == pytest.approx(0.1)
    assert best_f1_thresholds([[-2.0], [1.0]], [[1], [1]])[0] == -2  # logits: no room


def test_tags_without_known_positives_keep_one_half(partly_labelled):
    chosen = best_f1_thresholds(*partly_labelled)
    assert chosen[[3, 5]].tolist() == [0.5, 0.5]
    assert chosen[2] == pytest.approx(0.25)  # one score for all: claim them all


def test_neighbouring_floats_are_still_cut_between():
    upper = np.nextafter(0.7, 1)
    scores, labels = np.array([[0.7], [upper]]), np.array([[0], [1]])
    threshold = best_f1_thresholds(scores, labels)[0]
    assert ((scores >= threshold) == labels).all()


def test_chosen_on_one_half_they_help_on_the_other():
    rng = np.random.default_rng(0)
    labels = rng.random((4000, 20)) < 0.08
    scores = 1 / (1 + np.exp(3 - 2 * labels - rng.normal(size=labels.shape)))
    chosen = best_f1_thresholds(scores[::2], labels[::2])
    at_half = f1(scores[1::2], labels[1::2]).macro
    assert f1(scores[1::2], labels[1::2], threshold=chosen).macro > at_half + 0.2


def test_195_tags_of_11000_clips_take_a_second():
    rng = np.random.default_rng(0)
    labels = rng.random((11_000, 195)) < 0.05
    start = time.process_time()
    best_f1_thresholds(rng.random(labels.shape), labels)
    assert time.process_time() - start < 10  # 0.4 s where this was written
