"""The measured receptive field of built models equals the formula."""

import pytest

import zoo
from rfkeras.rf import RHO_MAX, plan_backbone
from tests.helpers.receptive_field import gradient_support


@pytest.mark.usefixtures("averaging_pools")
@pytest.mark.parametrize("rho", range(RHO_MAX + 1))
def test_measured_field_equals_formula_for_every_rho_on_both_axes(rho):
    pair = (rho, RHO_MAX - rho)
    plan = plan_backbone(pair)
    frames, bands = (field.size + 64 for field in (plan.time, plan.frequency))
    model = zoo.create_model(
        "resnet_rf", 2, rho=pair, width=1, frontend=None, initialization="he"
    )
    middle, spans = gradient_support(model, frames, bands)
    for axis, field in enumerate((plan.time, plan.frequency)):
        assert spans[axis] == field.window(middle[axis])
