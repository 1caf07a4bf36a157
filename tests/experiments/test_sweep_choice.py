"""The recommendation of a sweep, and the warning about networks that did not learn."""

import dataclasses

import numpy as np
import pytest

from rfkeras.evaluation.bootstrap import bootstrap_mean_average_precision
from rfkeras.evaluation.result import read_scores, write_scores
from rfkeras.experiments.sweep import SweepRun, parse_extra_test
from rfkeras.experiments.sweep_report import (
    FinishedRun,
    not_trained_to_the_end,
    recommendations,
    summarise,
)

CLIPS, TAGS = 150, 4
SIZES = {2: 39, 7: 135, 11: 263, 22: 615}


@pytest.fixture
def finish(tmp_path):
    """Return a function that makes a finished run with scores of some skill."""
    labels = np.random.default_rng(0).random((CLIPS, TAGS)) < 0.3
    shared = np.random.default_rng(1).normal(size=labels.shape)

    def make(rho, skill, validation, seed=0, variant="plain", size=None, test="test"):
        own = np.random.default_rng(100 * seed + SIZES[rho]).normal(size=labels.shape)
        scores = skill * labels + shared + 0.2 * own
        run = SweepRun(variant, rho, seed)
        path = tmp_path / f"{run.name}-{test}.npz"
        write_scores(path, scores, labels, None, [f"clip {i}" for i in range(CLIPS)])
        size = size or (SIZES[rho], SIZES[rho])
        return FinishedRun(run, size, 23.2 * size[0], validation, {test: path})

    return make


def means(runs):
    groups = {}
    for finished in runs:
        groups.setdefault(finished.run.rho, []).append(read_scores(finished.scores["test"]))
    return {rho: bootstrap_mean_average_precision(models) for rho, models in groups.items()}


def test_recommends_the_best_on_validation_with_intervals_over_clips_and_seeds(finish):
    skills = {2: 0.3, 7: 1.50, 11: 1.52, 22: 0.8}
    validation = {2: 0.4, 7: 0.69, 11: 0.70, 22: 0.6}
    runs = [
        finish(rho, skills[rho], validation[rho], seed) for seed in (0, 1, 2) for rho in skills
    ]
    (line,) = recommendations(runs)
    mean = means(runs)
    near = mean[11].minus(mean[7], over_seeds=True)
    far = mean[11].minus(mean[22], over_seeds=True)
    assert near.low < 0 < near.high
    assert far.low > 0
    assert line == (
        "Recommendation: rho 11 (263 pixels, 6.10 s), the best on validation. "
        f"Test mAP {mean[11].mean:.3f}; against rho 7: {near.value:+.3f} "
        f"(95 % interval {near.low:+.3f} to {near.high:+.3f}); against rho 22: "
        f"{far.value:+.3f} ({far.low:+.3f} to {far.high:+.3f}). rho 7 is not "
        "distinguishable from it. You may take rho 7 (135 pixels, 3.13 s), the smallest and "
        "cheapest of them."
    )


def test_a_metric_that_is_best_when_low_reverses_the_choice(finish):
    runs = [finish(rho, skill, 1 / skill) for rho, skill in ((2, 0.4), (7, 2.0), (22, 0.8))]
    (line,) = recommendations(runs, "val_loss")
    assert "rho 7 (135 pixels, 3.13 s), the best on validation by val_loss." in line
    assert "against rho 22" in line.split("against rho 2:")[0]  # the next best comes first
    assert "All other values are worse." in line
    assert "The intervals leave out the spread of values with one seed." in line
    assert "rho 2 (39 pixels" in recommendations(runs)[0]


def test_test_scores_do_not_change_the_choice(finish):
    runs = [finish(2, 0.8, 0.7), finish(7, 2.0, 0.6)]
    (line,) = recommendations(runs)
    assert line.startswith("Recommendation: rho 2 (39 pixels, 0.90 s)")
    assert "rho 7 scored higher on the test clips" in line


def test_the_smallest_of_equal_values_may_be_the_best_itself(finish):
    (line,) = recommendations([finish(2, 1.0, 0.7), finish(7, 1.0, 0.6), finish(22, 1.0, 0.5)])
    assert "rho 7 and 22 are not distinguishable from it." in line
    assert "You may take" not in line


def test_one_value_of_rho_gives_no_recommendation(finish):
    (line,) = recommendations([finish(7, 1.0, 0.7, seed) for seed in (0, 1)])
    assert line.startswith("No recommendation: there is only rho 7 (135 pixels, 3.13 s)")
    undefined = [finish(rho, 1.0, float("nan")) for rho in (2, 7)]
    assert recommendations(undefined)[0].startswith("No recommendation: val_mAP is undefined")
    assert "rho 11" in recommendations([*undefined, finish(11, 1.0, 0.2)])[0]


def test_each_variant_has_a_line_and_fields_need_not_be_square(finish):
    runs = [
        finish(2, 0.5, 0.7, variant="plain"),
        finish(7, 0.5, 0.6, variant="plain"),
        finish(2, 0.5, 0.6, variant="shake"),
        finish(7, 0.5, 0.7, variant="shake", size=(135, 39)),
    ]
    runs[3] = dataclasses.replace(runs[3], run=SweepRun("shake", (7, 2), 0))
    first, second = recommendations(runs)
    assert first.startswith("Recommendation for plain: rho 2 (39 pixels, 0.90 s)")
    assert second.startswith("Recommendation for shake: rho 7x2 (135 x 39 pixels, 3.13 s)")


def test_networks_that_did_not_learn_their_training_clips_are_named(finish):
    training = parse_extra_test("training clips:split=train")
    name = training.name
    runs = [
        finish(rho, skill, 0.5, seed, test=name)
        for rho, skill in ((2, 2.0), (7, 30.0))
        for seed in (0, 1)
    ]
    points = summarise(runs, samples=0)
    lowest = points[0].seed_lowest
    assert lowest < 0.98 < points[1].seed_lowest
    warning = not_trained_to_the_end(points, (training,))
    assert warning.startswith(f"Not trained to the end: rho 2 ({lowest:.4f}"[:-1] + ").")
    assert not_trained_to_the_end(points[1:], (training,)) is None
    # Clips of other data, even if they are a training split, say nothing about the training.
    other = parse_extra_test(f"{name}:split=train,dataset=openmic")
    assert not_trained_to_the_end(points, (other,)) is None
    shake = [dataclasses.replace(point, variant="shake") for point in points]
    both = not_trained_to_the_end([*points, *shake], (training,))
    assert f"plain rho 2 ({str(lowest)[:5]}), shake rho 2 (" in both
