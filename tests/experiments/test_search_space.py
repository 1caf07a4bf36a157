"""The notation of a search space, and the values that it gives."""

from dataclasses import fields

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import ConfigError
from rfkeras.experiments.search_space import (
    NOT_SEARCHED,
    SEARCHED,
    Continuous,
    Grid,
    parse_space,
    read_space,
    split_flags,
)


def parameter(**spec):
    """Return the parameter of one spec."""
    (one,) = parse_space(spec).parameters.values()
    return one


@pytest.mark.parametrize(
    ("name", "spec", "values"),
    [
        ("rho", "0:4", (0, 1, 2, 3, 4)),
        ("rho", "0:12:5", (0, 5, 10)),
        ("width", "16:128:2:log", (16, 32, 64, 128)),
        ("mixup", "0:0.5:0.1", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)),
        ("width", "64,32,128", (32, 64, 128)),
        ("shake", "true,false", (True, False)),
        ("damping", "none,0.01,0.1", (None, 0.01, 0.1)),
        ("averaging", "none,swa", ("none", "swa")),
        ("blocks", "4,4,4/4,4,1", ((4, 4, 4), (4, 4, 1))),
        ("rho", "7/7,3", (7, (7, 3))),
        ("rho_time", [5, 3], (3, 5)),
        ("blocks", [[4, 4, 4], [4, 4, 1]], ((4, 4, 4), (4, 4, 1))),
        ("shake", {"choices": [True, False]}, (True, False)),
        ("rho", {"min": 0, "max": 4, "step": 2}, (0, 2, 4)),
        (
            "learning_rate",
            {"min": 1e-4, "max": 1e-2, "step": 10, "log": True},
            (1e-4, 1e-3, 0.01),
        ),
    ],
)
def test_finite_specs(name, spec, values):
    assert parameter(**{name: spec}).values == values


def test_continuous_specs():
    rate = parameter(learning_rate="1e-4:1e-2:log")
    assert rate == Continuous(1e-4, 1e-2, log=True)
    assert rate.decode(0.00123456) == 0.001235
    assert parameter(mixup="0:0.5") == Continuous(0.0, 0.5)
    width = parameter(width="16:128:log")
    assert width == Continuous(16, 128, log=True, integer=True)
    assert [width.decode(n) for n in (16.4, 33.5001, 129)] == [16, 34, 128]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(1e-6, 1e3), st.floats(1.001, 1e4), st.floats(0, 1))
def test_value_survives_a_message_in_float32(low, ratio, place):
    span = Continuous(low, low * ratio, log=True)
    number = low * ratio**place
    sent = float(np.float32(number))
    assert span.decode(number) == span.decode(sent)
    assert low <= span.decode(sent) <= low * ratio
    assert span.decode(sent) == pytest.approx(min(max(number, low), low * ratio), rel=1e-3)


SPECS = st.fixed_dictionaries(
    {},
    optional={
        "rho_time": st.sampled_from(["0:12", "0:22:2", "3,7"]),
        "width": st.sampled_from(["32,64", "16:128:log", "16:64:2:log"]),
        "learning_rate": st.sampled_from(
            ["1e-4:0.01:log", "0.0001,0.0003", "1e-7:0.12345:log"]
        ),
        "mixup": st.sampled_from(["0:0.5", "0:0.4:0.1", "0,0.3"]),
        "blocks": st.just("4,4,4/4,4,1"),
        "damping": st.just("none,0.1"),
        "weight_decay": st.sampled_from(
            ["1e-3:0.1:log when optimizer=adamw", "0.01,0.1 when optimizer=adamw"]
        ),
    },
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(SPECS)
def test_space_is_read_back_from_its_text(specs):
    space = parse_space({**specs, "optimizer": "adam,adamw"})
    again = parse_space(space.to_text())
    assert again == space
    assert list(again.parameters) == list(space.parameters)


def test_options_come_after_those_they_depend_on():
    specs = {"weight_decay": {"min": 0.001, "max": 0.1, "when": {"optimizer": "adamw"}}}
    space = parse_space({**specs, "optimizer": ["adam", "adamw"]})
    assert list(space.parameters) == ["optimizer", "weight_decay"]
    assert space.parameters["weight_decay"].when == ("optimizer", ("adamw",))
    flag = split_flags(["weight-decay=0.001:0.1 when optimizer=adamw", "optimizer=adam,adamw"])
    assert parse_space(flag) == space
    assert space.decode({"optimizer": 0, "tuner/epochs": 3}) == {"optimizer": "adam"}


def test_file_with_unquoted_colons_is_rejected(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("rho: 2:12\nshake: [true, false]\n")
    assert yaml.safe_load(path.read_text())["rho"] == 132  # YAML 1.1 reads base 60
    with pytest.raises(ConfigError, match="quotation marks.*Received: 132"):
        read_space(path)
    path.write_text('rho: "2:12"\nshake: [true, false]\nmixup: {min: 0, max: 0.5}\n')
    assert read_space(path).parameters == {
        "rho": Grid(tuple(range(2, 13)), ordered=True),
        "shake": Grid((True, False)),
        "mixup": Continuous(0.0, 0.5),
    }


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ({}, "needs at least one option"),
        ({"shkae": "true,false"}, "Did you mean 'shake'"),
        ({"seed": "1,2"}, "luck"),
        ({"dataset": "openmic,gtzan"}, "could not be compared"),
        ({"rho": "0:3", "rho_time": "0,1"}, "both axes"),
        ({"rho": "3"}, "two or more different values"),
        ({"rho": "3,3"}, "two or more different values"),
        ({"rho": "5:1"}, "below the upper"),
        ({"rho": "1:2:3:4"}, "MIN:MAX:STEP"),
        ({"rho": ":3"}, "MIN:MAX"),
        ({"rho": "0:4:0"}, "above 0"),
        ({"rho": "0:4:x"}, "must be a number"),
        ({"width": "8:64:1.5"}, "whole number"),
        ({"width": "8:64:1:log"}, "factor above 1"),
        ({"learning_rate": "0:1:log"}, "must start above 0"),
        ({"mixup": "0:1:1e-4"}, "at most 1000 values"),
        ({"mixup": "0,ten"}, "mixup must be a number"),
        ({"shake": "yes,no"}, "true or false"),
        ({"optimizer": "adam:adamw"}, "is not a number|Unknown value"),
        ({"optimizer": "adam,sdg"}, "Unknown optimizer 'sdg'"),
        ({"rho": {"min": 0}}, "table with min, max"),
        ({"rho": {"min": 0, "max": 4, "log": "yes"}}, "log must be true or false"),
        ({"mixup": "0,1 when shake=true"}, "another option that is searched"),
        ({"mixup": "0,1 when shake=2", "shake": "true,false"}, "true or false"),
        (
            {"mixup": {"choices": [0, 1], "when": {"width": 8}}, "width": [16, 32]},
            "width is never 8",
        ),
    ],
)
def test_invalid_specs_are_rejected(specs, message):
    with pytest.raises(ConfigError, match=message):
        parse_space(specs)


@pytest.mark.parametrize("flags", [["rho"], ["rho="], ["rho=0:3", "rho=1,2"]])
def test_flags_that_are_not_specs(flags):
    with pytest.raises(ConfigError, match="--search"):
        split_flags(flags)


def test_every_option_can_be_searched_or_has_a_reason_why_not():
    assert {*SEARCHED, *NOT_SEARCHED} == {
        *(field.name for field in fields(TrainConfig)),
        "rho_time",
        "rho_frequency",
    }
    assert not {*SEARCHED} & {*NOT_SEARCHED}
