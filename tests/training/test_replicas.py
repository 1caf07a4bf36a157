"""Training under MirroredStrategy with two devices."""

import json

import pytest

from tests.processes import ROOT, run


@pytest.fixture(scope="module")
def figures():
    status, out, err = run("-m", "tests.training.two_replicas", cwd=ROOT)
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
