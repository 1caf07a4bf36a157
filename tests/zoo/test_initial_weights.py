"""Initial weights: every kernel of a new model has random numbers of its own."""

import itertools

import keras
import numpy as np
import pytest

import zoo
from rfkeras.layers import DecomposedConv2D, DenseLayer, ResidualBlock
from tests.helpers.configurations import configurations

NUMBERS = 64  # compared at the start of each kernel
SHAPE = (None, 8, 8, 16)


def random_starts(weights):
    """Return the first numbers of all random kernels, scaled, by path.

    Kernels of any shape drawn from one stream begin with the same numbers.
    """
    starts = {}
    for variable in weights:
        values = np.asarray(variable).ravel()[:NUMBERS]
        if len(variable.shape) > 1 and values.size == NUMBERS and values.std() > 0:
            starts[variable.path] = (values - values.mean()) / values.std()
    return starts


def assert_independent(weights):
    starts = random_starts(weights)
    assert len(starts) > 1
    for (one, first), (other, second) in itertools.combinations(starts.items(), 2):
        # 6 deviations of the correlation of independent numbers
        assert abs((first * second).mean()) < 6 / NUMBERS**0.5, (one, other)


@pytest.mark.parametrize("name", configurations())
def test_no_two_kernels_of_a_model_start_alike(name):
    keras.utils.set_random_seed(1)
    options = {**configurations()[name], "initialization": "he", "frontend": None}
    if "width" in options:
        options["width"] = 32
    assert_independent(zoo.create_model(name, num_classes=20, **options).weights)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: DecomposedConv2D(32, 3, 2),
        lambda: DecomposedConv2D(32, (1, 3), 2, initializer="he_normal"),
        lambda: ResidualBlock(32, branches=2, decomposition=2, initialization="he"),
        lambda: ResidualBlock(32, shake=True, damping=0.1, initialization="he"),
        lambda: ResidualBlock(32, branches=3, initialization="he", frequency_aware=True),
        lambda: DenseLayer(16, decomposition=2),
        lambda: DenseLayer(16, damping=0.1, damp_time=True),
    ],
)
def test_no_two_kernels_of_a_layer_start_alike(layer):
    for made in (layer(), type(layer()).from_config(layer().get_config())):
        made.build(SHAPE)
        assert_independent(made.weights)


def test_the_stem_is_initialised_by_its_inputs():
    keras.utils.set_random_seed(0)
    model = zoo.create_model(
        "resnet_rf", num_classes=2, width=128, rho=0, frontend=None, input_channels=2
    )
    kernel = model.get_layer("stem_conv").kernel.numpy()
    assert kernel.std() == pytest.approx((2 / (5 * 5 * 2)) ** 0.5, rel=0.03)
