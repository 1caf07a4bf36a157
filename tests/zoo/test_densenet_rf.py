"""The densely connected network."""

import numpy as np
import pytest

import zoo
from rfkeras.errors import ConfigError
from rfkeras.layers import DampedConv2D, DecomposedConv2D
from rfkeras.rf import RHO_MAX, rf_of_rho
from tests.helpers.architecture_support import (
    check_published_start,
    check_variant,
    trainable_parameters,
)
from tests.helpers.receptive_field import gradient_support
from zoo.densenet_rf import plan_densenet

TINY = {"width": 4, "growth_rate": 4}
VARIANT = {
    "frequency_aware": True, "damping": 0.1, "damp_time": True, "decomposition": 2,
}  # fmt: skip


def expected_parameters(rho, width=64, growth=32, channels=1, classes=20):
    """Count convolutions and two numbers per channel of each normalisation."""
    count, previous = 25 * channels * width + 2 * width, width
    stages = plan_densenet(rho).stages
    assert [len(stage) for stage in stages] == [1, 2, 4, 16]
    for number, stage in enumerate(stages):
        if number > 0:
            count += 2 * previous + previous * (previous // 2)
            previous //= 2
        for time, frequency in stage:
            narrow = 4 * growth
            count += 2 * previous + previous * narrow
            count += 2 * narrow + time * frequency * narrow * growth
            previous += growth
    return count + 2 * previous + previous * classes + 2 * classes


def test_parameters_of_the_defaults():
    model = zoo.create_model("densenet_rf", 20, frontend=None)
    assert trainable_parameters(model) == expected_parameters(7) == 1_175_488


@pytest.mark.parametrize("rho", [0, 1, 12, RHO_MAX, (3, 15)])
def test_parameters_for_a_rho(rho):
    options = {"width": 10, "growth_rate": 3, "input_channels": 2}
    model = zoo.create_model("densenet_rf", 5, rho=rho, frontend=None, **options)
    assert trainable_parameters(model) == expected_parameters(rho, 10, 3, 2, 5)


def test_growth_rate_defaults_to_half_of_the_width():
    model = zoo.create_model("densenet_rf_tiny", 20, frontend=None)
    assert model.get_layer("stage1_layer1").growth_rate == 8
    assert trainable_parameters(model) == expected_parameters(7, 16, 8)
    assert zoo.model_info("densenet_rf_small").options["width"] == 32


@pytest.mark.parametrize("rho", range(RHO_MAX + 1))
def test_a_rho_gives_the_field_of_the_residual_network(rho):
    pair = (rho, RHO_MAX - rho)
    plan = zoo.model_info("densenet_rf").plan_for(rho=pair)
    assert (plan.time.size, plan.frequency.size) == rf_of_rho(pair)


@pytest.mark.parametrize("rho", [0, 1, 2, 4, 7, 9, 12])
def test_measured_field_equals_the_plan_on_both_axes(rho):
    pair = (rho, 12 - rho)
    plan = plan_densenet(pair)
    frames, bands = (field.size + 64 for field in (plan.time, plan.frequency))
    options = {"width": 1, "growth_rate": 1, "initialization": "he", "frontend": None}
    model = zoo.create_model("densenet_rf", 2, rho=pair, **options)
    middle, spans = gradient_support(model, frames, bands)
    for axis, field in enumerate((plan.time, plan.frequency)):
        assert spans[axis] == field.window(middle[axis])


def test_maps_of_the_transitions():
    model = zoo.create_model("densenet_rf", 2, frontend=None)
    channels = [model.get_layer(f"stage{stage}_pool").output.shape[-1] for stage in (1, 2, 3)]
    assert channels == [(64 + 32) // 2, (48 + 2 * 32) // 2, (56 + 4 * 32) // 2]
    assert model.get_layer("final_relu").output.shape[-1] == 92 + 16 * 32
    sizes = model.get_layer("stage3_pool").compute_output_shape((1, 53, 31, 92))
    assert sizes == (1, 26, 15, 92)


def test_variants_reach_every_layer():
    model = zoo.create_model("densenet_rf", 2, frontend=None, **TINY, **VARIANT)
    layers = [layer for layer in model.layers if "_layer" in layer.name]
    assert len(layers) == 23
    assert all(layer.frequency is not None for layer in layers)
    assert all(isinstance(layer.conv2, DecomposedConv2D) for layer in layers)
    damped = [isinstance(layer.conv2.spread, DampedConv2D) for layer in layers]
    assert damped == [True] * 8 + [False] * 15  # 1x1 kernels have no edges
    assert isinstance(model.get_layer("stem_conv"), DampedConv2D)


def test_published_initialisation():
    check_published_start("densenet_rf", **TINY)


def test_variants_together(tmp_path):
    check_variant("densenet_rf", tmp_path, rho=(2, 5), **TINY, **VARIANT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": 23}, "from 0 to 22.*Received: rho=23"),
        ({"width": 0}, "width"),
        ({"width": 1.5}, "width"),
        ({"growth_rate": 0}, "growth_rate must be a whole number"),
        ({"damping": 2}, "damping"),
        ({"decomposition": 9}, "decomposition"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        zoo.create_model("densenet_rf", 2, frontend=None, **{**TINY, **options})


def test_shortest_spectrogram():
    frames = zoo.model_info("densenet_rf").plan_for().minimum_frames
    model = zoo.create_model("densenet_rf", 2, frontend=None, initialization="he", **TINY)
    assert np.isfinite(model(np.ones((1, frames, 40, 1), "float32"))).all()
    last = model.get_layer("stage3_pool")
    assert last.output.shape[1] is None
