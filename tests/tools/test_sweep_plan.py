"""Plans of sweeps on JAX (tools/sweep_plan.py)."""

import json

import pytest

from rfkeras.errors import ConfigError
from tools.sweep_plan import Condition, read_plan

PLAN = [
    {"name": "plain", "rhos": [0, [7, 5]], "seeds": [0, 1]},
    {"name": "few", "rhos": [0], "seeds": [0], "clips": 150, "steps": 1000},
    {
        "name": "equal",
        "rhos": [0, 22],
        "options": {"dropout": 0.1},
        "by_rho": {"22": {"width": 12}},
        "tests": ["far"],
    },
]


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"defaults": {"batch": 16}, "conditions": PLAN}))
    return path


def test_runs_stand_in_the_order_of_conditions_seeds_and_rho(plan):
    assert [run.name for run in read_plan(plan)] == [
        "plain-rho0-seed0",
        "plain-rho7x5-seed0",
        "plain-rho0-seed1",
        "plain-rho7x5-seed1",
        "few-rho0-seed0",
        "equal-rho0-seed0",
        "equal-rho22-seed0",
    ]


def test_numbers_of_clips_and_steps_share_a_compiled_function(plan):
    runs = {run.name: run for run in read_plan(plan)}
    plain, few, wide = (
        runs[name] for name in ("plain-rho0-seed1", "few-rho0-seed0", "equal-rho0-seed0")
    )
    assert (plain.condition.chunk, few.condition.chunk) == (400, 100)
    assert plain.compiled == few.compiled
    assert plain.compiled != runs["plain-rho7x5-seed0"].compiled
    assert plain.compiled != wide.compiled


@pytest.mark.parametrize(("steps", "call"), [(4000, 100), (900, 90), (5, 1), (1270, 1)])
def test_calls_divide_the_steps_between_evaluations(steps, call):
    assert Condition("a", steps=steps).call == call


def test_options_of_one_rho_are_added(plan):
    runs = {run.name: run for run in read_plan(plan)}
    equal = runs["equal-rho22-seed0"].condition
    assert equal.network_options(22) == {"dropout": 0.1, "width": 12, "rho": 22}
    assert equal.network_options(0) == {"dropout": 0.1, "rho": 0}
    assert equal.tests == ("far",)
    assert equal.batch == 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"conditions": [3]}', "cannot be read"),
        ('{"conditions": [{"name": "a", "rho": 7}]}', "rhos"),
        ('{"conditions": [{"name": "a"}, {"name": "a"}]}', "same name"),
    ],
)
def test_wrong_plans_are_errors(tmp_path, content, message):
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_plan(path)
