"""Training under MirroredStrategy with two devices."""

import json

import pytest

from tests.helpers.processes import ROOT, run


@pytest.fixture(scope="module")
def figures():
    status, out, err = run("-m", "tests.helpers.two_replicas", cwd=ROOT)
    assert status == 0, err
    return json.loads(out.splitlines()[-1])


def test_one_and_two_replicas_take_the_same_step_with_masks(figures):
    assert figures["replicas"] == 2
    assert figures["weight_difference"] < 1e-6
    assert figures["loss_difference"] < 1e-6


def test_moving_statistics_are_the_mean_over_the_replicas(figures):
    assert figures["statistics_difference"]["moving_mean"] < 1e-6
    assert figures["statistics_difference"]["moving_variance"] < 1e-6


def test_blocks_learn_under_two_replicas(figures):
    assert figures["block_losses"][-1] < 0.8 * figures["block_losses"][0]


@pytest.mark.parametrize("kind", ["recipe", "recipe_jit"])
def test_clipping_decay_weights_masks_and_averages_are_those_of_one_replica(figures, kind):
    assert max(figures[kind].values()) < 1e-5


def test_loss_scaling_is_that_of_one_replica(figures):
    # Float16 gradients: a part of a batch rounds differently from the whole.
    assert figures["recipe_float16"]["weights"] < 1e-3
    assert figures["recipe_float16"]["losses"] < 1e-3


def test_all_replicas_hold_the_same_values(figures):
    assert figures["copies_agree"]


def test_xla_learns_under_two_replicas_with_batch_normalisation(figures):
    # Slowly: gradients are clipped hard and half of the kernel is masked.
    assert figures["jit_losses"][-1] < 0.9 * figures["jit_losses"][0]


def test_a_step_that_overflows_on_any_replica_is_skipped(figures):
    assert figures["overflow_is_skipped"]


def test_replicas_draw_differently(figures):
    assert min(figures["draws"]) > 0.01  # spectrograms, labels, weights
