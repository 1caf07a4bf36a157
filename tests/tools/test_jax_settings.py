"""Learning rate, clock and command line of the training on JAX (tools/jax_settings.py)."""

from dataclasses import replace

import numpy as np
import pytest

from rfkeras.errors import ConfigError
from tools.jax_settings import Clock, Settings, check_settings, parse_model, rates


@pytest.mark.parametrize(
    ("schedule", "middle"), [("linear", 0.5 + 0.5 * 0.1), ("cosine", 0.5 + 0.5 * 0.1)]
)
def test_the_rate_rises_and_falls(schedule, middle):
    settings = Settings(learning_rate=2.0, final_share=0.1, warm_up=0.2, schedule=schedule)
    points = rates([0.0, 0.1, 0.2, 0.6, 1.0, 1.5], settings)
    np.testing.assert_allclose(points, 2 * np.array([0, 0.5, 1, middle, 0.1, 0.1]), rtol=1e-6)
    quarter = rates(0.4, settings) / 2
    assert quarter == pytest.approx(0.775 if schedule == "linear" else 0.8682, abs=1e-4)


def test_the_clock_fits_steps_into_the_time():
    clock = Clock(100.0, Settings(seconds=60.0, chunk=10))
    clock.begin(0, 110.0)
    assert 10 < clock.total(0, 110.0) < 10_000
    assert clock.total(10, 112.0) == 10 + 240  # 5 steps a second, 48 seconds left
    clock.reserve_s = 8.0
    assert clock.total(10, 112.0) == 10 + 200
    assert clock.total(100, 152.5) == 100
    assert Clock(0.0, Settings(seconds=60.0)).total(0, 61.0) == 0


def test_the_clock_keeps_to_the_steps():
    clock = Clock(0.0, Settings(steps=70, chunk=10))
    assert clock.total(0, 1e6) == 70
    both = Clock(0.0, Settings(seconds=60.0, steps=70, chunk=10))
    both.begin(0, 0.0)
    assert both.total(10, 1.0) == 70
    assert both.total(10, 10.0) == 60


def test_a_model_has_settings_and_options_of_its_own():
    default = Settings(batch=64, seconds=9.0)
    name, settings, options = parse_model("resnet_rf,seconds=20,rho=5,blocks=[1,1,1]", default)
    assert name == "resnet_rf"
    assert settings == replace(default, seconds=20.0)
    assert options == {"rho": 5, "blocks": [1, 1, 1]}
    for wrong, message in (
        ("resnet_rf,batch", "Did you mean"),
        ("resnet_rf,batch=many", "batch"),
        ("resnet_rf,head=max", "JSON"),
        ("resnet_rf,rhoo=5", "Did you mean 'rho'"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_model(wrong, default)


def test_wrong_settings_are_named():
    uneven = {"consistency": 0.1, "batch": 5}
    for wrong in ({"precision": "bfloat61"}, {"schedule": "cosin"}, uneven, {}):
        with pytest.raises(ConfigError):
            check_settings(Settings(**{"steps": 1, **wrong} if wrong else {}))
