"""Training with MirroredStrategy on two devices."""

import json

import pytest

from tests.helpers.processes import ROOT, run


@pytest.fixture(scope="module")
def results():
    status, out, err = run("-m", "tests.helpers.two_replicas", cwd=ROOT)
    assert status == 0, err
    return json.loads(out.splitlines()[-1])


def test_one_and_two_replicas_take_the_same_step(results):
    assert results["replicas"] == 2
    assert results["weight_difference"] < 1e-6
    assert results["loss_difference"] < 1e-6


def test_moving_statistics_are_the_mean_over_the_replicas(results):
    assert results["statistics_difference"]["moving_mean"] < 1e-6
    assert results["statistics_difference"]["moving_variance"] < 1e-6


def test_blocks_learn_under_two_replicas(results):
    assert results["block_losses"][-1] < 0.8 * results["block_losses"][0]


@pytest.mark.parametrize("kind", ["recipe", "recipe_jit"])
def test_clipping_decay_masks_and_averages_equal_those_of_one_replica(results, kind):
    assert max(results[kind].values()) < 1e-5


def test_loss_scaling_equals_that_of_one_replica(results):
    # Float16 gradients of half a batch are rounded differently.
    assert results["recipe_float16"]["weights"] < 1e-3
    assert results["recipe_float16"]["losses"] < 1e-3


def test_all_replicas_have_the_same_values(results):
    assert results["copies_agree"]


def test_xla_learns_under_two_replicas_with_batch_normalisation(results):
    # Slowly, because gradients are clipped hard and half of the kernel is masked.
    assert results["jit_losses"][-1] < 0.9 * results["jit_losses"][0]


def test_a_step_that_overflows_on_any_replica_is_skipped(results):
    assert results["overflow_is_skipped"]


def test_replicas_draw_differently(results):
    assert min(results["draws"]) > 0.01  # spectrograms, labels, weights
