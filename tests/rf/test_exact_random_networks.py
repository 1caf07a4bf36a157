"""The receptive field of random networks equals what their outputs depend on.

The dependence is measured on the Keras models, independently of the rules: by raising every
pixel, for all positions, and by the gradient of the middle position.
"""

import pytest
from hypothesis import given, settings

import rfkeras
from tests.helpers.processes import run
from tests.helpers.random_networks import BORDER, QUIET, SHAPE, build, networks
from tests.helpers.random_sequences import STEPS, build_sequence, sequences
from tests.helpers.receptive_field import check_field, seen_pixels


def some_or_many(some, many):
    """Run a test with `some` networks, and in `make test-long` with `many`."""
    return pytest.mark.parametrize("number", [some, pytest.param(many, marks=pytest.mark.long)])


@some_or_many(60, 150)
def test_random_networks(number):
    @settings(max_examples=number, **QUIET)
    @given(networks)
    def check(network):
        model = build(network, SHAPE)
        rf = rfkeras.receptive_field(model)
        for axis, field in enumerate((rf.time, rf.frequency)):
            seen = seen_pixels(model, SHAPE, axis)
            assert rf.positions[axis] == len(seen)
            check_field(field, seen, BORDER)

    check()


@some_or_many(40, 90)
def test_random_sequence_networks(number):
    @settings(max_examples=number, **QUIET)
    @given(sequences)
    def check(network):
        model = build_sequence(network, STEPS)
        rf = rfkeras.receptive_field(model)
        assert rf.axes == ("time",)
        assert rf.frequency is None
        seen = seen_pixels(model, (STEPS,), 0)
        assert rf.positions == (len(seen), None)
        check_field(rf.time, seen, BORDER)

    check()


@some_or_many(32, 80)
def test_gradients_of_random_networks(number):
    arguments = ("-m", "tests.helpers.random_gradients", number)
    status, out, err = run(*arguments, TF_ENABLE_ONEDNN_OPTS="0")
    assert status == 0, err
    assert int(out.splitlines()[-1]) > number / 3
