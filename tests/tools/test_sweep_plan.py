"""Plans of sweeps on JAX (tools/sweep_plan.py)."""

import json

import pytest

from rfkeras.errors import ConfigError
from tools.sweep_plan import read_plan, share_of

PLAN = [
    {"name": "plain", "rhos": [0, [7, 5]], "seeds": [0, 1]},
    {"name": "few", "rhos": [0], "seeds": [0], "clips": 150},
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


def test_runs_with_equal_compiled_functions_stand_together(plan):
    assert [run.name for run in read_plan(plan)] == [
        "plain-rho0-seed0",
        "plain-rho0-seed1",
        "few-rho0-seed0",  # another number of clips is no other function
        "plain-rho7x5-seed0",
        "plain-rho7x5-seed1",
        "equal-rho0-seed0",
        "equal-rho22-seed0",
    ]


def test_options_of_one_rho_are_added(plan):
    runs = {run.name: run for run in read_plan(plan)}
    equal = runs["equal-rho22-seed0"].condition
    assert equal.network_options(22) == {"dropout": 0.1, "width": 12, "rho": 22}
    assert equal.network_options(0) == {"dropout": 0.1, "rho": 0}
    assert equal.tests == ("far",)
    assert equal.batch == 16


def test_processes_share_the_runs(plan):
    runs = read_plan(plan)
    parts = [share_of(runs, f"{number}/3") for number in range(3)]
    assert sorted(run.name for part in parts for run in part) == sorted(r.name for r in runs)
    architectures = [{run.compiled for run in part} for part in parts]
    assert sum(map(len, architectures)) == len(set.union(*architectures))


@pytest.mark.parametrize("text", ["3/3", "1", "a/2", "0/0"])
def test_wrong_shares_are_errors(plan, text):
    with pytest.raises(ConfigError, match="--share"):
        share_of(read_plan(plan), text)


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
