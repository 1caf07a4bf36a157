"""The VGG-style baseline."""

import keras
import numpy as np
import pytest

import zoo
from rfkeras.errors import ConfigError
from rfkeras.layers import DampedConv2D, DecomposedConv2D, FrequencyChannel
from rfkeras.rf import rf_of_rho
from tests.helpers.architecture_support import (
    check_published_start,
    check_variant,
    trainable_parameters,
)
from tests.helpers.receptive_field import gradient_support
from zoo.vgg_rf import plan_vgg

RHOS = range(8)
TINY = {"width": 4}
VARIANT = {
    "frequency_aware": True, "damping": 0.1, "damp_time": True, "decomposition": 2,
}  # fmt: skip


def expected_parameters(rho, width=48, channels=1, classes=20):
    """Count convolutions and two numbers per channel of each normalisation."""
    factors = (1, 2, 2, 4, 4, 6, 6, 8)
    kernels = [kernel for stage in plan_vgg(rho).stages for kernel in stage]
    count, previous = 25 * channels * width + 2 * width, width
    for factor, (time, frequency) in zip(factors, kernels, strict=True):
        filters = factor * width
        count += time * frequency * previous * filters + 2 * filters
        previous = filters
    count += previous * previous + 2 * previous
    return count + previous * classes + 2 * classes


def test_parameters_of_the_published_channels():
    model = zoo.create_model("vgg_rf", 20, frontend=None)
    assert trainable_parameters(model) == expected_parameters(7) == 3_042_712


@pytest.mark.parametrize("rho", [*RHOS, (2, 5)])
def test_parameters_for_every_rho(rho):
    model = zoo.create_model("vgg_rf", 3, rho=rho, width=8, input_channels=2, frontend=None)
    assert trainable_parameters(model) == expected_parameters(rho, 8, 2, 3)


@pytest.mark.parametrize("rho", RHOS)
def test_a_rho_gives_the_field_of_the_residual_network(rho):
    plan = zoo.model_info("vgg_rf").plan_for(rho=(rho, 7 - rho))
    assert (plan.time.size, plan.frequency.size) == rf_of_rho((rho, 7 - rho))


@pytest.mark.usefixtures("averaging_pools")
@pytest.mark.parametrize("rho", RHOS)
def test_measured_field_equals_the_plan_on_both_axes(rho):
    plan = plan_vgg((rho, 7 - rho))
    frames, bands = (field.size + 64 for field in (plan.time, plan.frequency))
    model = zoo.create_model("vgg_rf", 2, rho=(rho, 7 - rho), width=1, frontend=None)
    middle, spans = gradient_support(model, frames, bands)
    for axis, field in enumerate((plan.time, plan.frequency)):
        assert spans[axis] == field.window(middle[axis])


def test_order_of_the_layers():
    model = zoo.create_model("vgg_rf", 2, frontend=None, **TINY)
    names = [layer.name for layer in model.layers]
    stage = "stage2_layer1_conv stage2_layer1_bn stage2_layer1_relu stage2_layer2_conv "
    stage += "stage2_layer2_bn stage2_layer2_relu stage2_pool stage2_dropout"
    start = names.index("stage2_layer1_conv")
    assert names[start : start + 8] == stage.split()
    end = "final_dropout1 final_conv final_bn final_relu final_dropout2 classifier_conv "
    assert names[-8:] == (end + "classifier_bn logits").split()


def test_he_normal_initialisation():
    keras.utils.set_random_seed(0)
    model = zoo.create_model("vgg_rf", 2, width=24, frontend=None)
    for name in ("stage3_layer4_conv", "stage4_layer1_conv", "final_conv"):
        kernel = model.get_layer(name).kernel.numpy()
        fan_in = np.prod(kernel.shape[:3])
        assert kernel.std() == pytest.approx(np.sqrt(2 / fan_in), rel=0.02)


def test_variants_change_the_documented_layers():
    plain = zoo.create_model("vgg_rf", 2, frontend=None, **TINY)
    assert not [x for x in plain.layers if isinstance(x, FrequencyChannel | DampedConv2D)]
    model = zoo.create_model("vgg_rf", 2, frontend=None, **TINY, **VARIANT)
    assert sum(isinstance(layer, FrequencyChannel) for layer in model.layers) == 9
    assert sum(isinstance(layer, DecomposedConv2D) for layer in model.layers) == 9
    assert isinstance(model.get_layer("stem_conv"), DampedConv2D)
    assert isinstance(model.get_layer("stage3_layer1_conv").spread, DampedConv2D)


def test_dropout_rates():
    model = zoo.create_model("vgg_rf", 2, frontend=None, dropout=0.2, final_dropout=0.4)
    rates = [layer.rate for layer in model.layers if hasattr(layer, "rate")]
    assert rates == [0.2, 0.2, 0.2, 0.4, 0.4]


def test_published_initialisation():
    check_published_start("vgg_rf", **TINY)


def test_variants_together(tmp_path):
    check_variant("vgg_rf", tmp_path, rho=(2, 5), **TINY, **VARIANT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": 8}, "from 0 to 7.*Received: rho=8"),
        ({"rho": (1, -1)}, "from 0 to 7"),
        ({"width": 0}, "width"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"damping": 2}, "damping"),
        ({"decomposition": 99}, "decomposition"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        zoo.create_model("vgg_rf", 2, frontend=None, **{**TINY, **options})


def test_sizes():
    widths = {name: zoo.model_info(name).options["width"] for name in zoo.list_models("vgg*")}
    assert widths == {"vgg_rf": 48, "vgg_rf_small": 24, "vgg_rf_tiny": 12}
