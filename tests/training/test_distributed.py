"""TF_CONFIG, and what it makes of a process."""

import json

import pytest

from rfkeras.errors import ConfigError
from rfkeras.training.distributed import Cluster, describe, make_strategy, read_cluster


def environment(cluster, **task):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def test_a_process_without_others_is_alone():
    assert read_cluster({}) is None
    assert read_cluster({"TF_CONFIG": ""}) is None
    assert read_cluster({"TF_CONFIG": "{}"}) is None
    assert read_cluster(environment({"worker": ["a:1"]}, type="worker", index=0)) is None


def test_the_first_worker_is_the_chief():
    two = {"worker": ["a:1", "b:2"]}
    assert read_cluster(environment(two, type="worker", index=0)) == Cluster(("a:1", "b:2"), 0)
    other = read_cluster(environment(two, type="worker", index=1))
    assert other == Cluster(("a:1", "b:2"), 1)
    assert not other.is_chief
    assert read_cluster({"TF_CONFIG": describe(["a:1", "b:2"], 1)}) == other


def test_a_named_chief_comes_before_the_workers():
    named = {"worker": ["a:1", "b:2"], "chief": ["c:3"]}
    chief = read_cluster(environment(named, type="chief", index=0))
    assert chief == Cluster(("c:3", "a:1", "b:2"), 0)
    assert chief.is_chief
    assert read_cluster(environment(named, type="worker", index=1)).index == 2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[1]", "cannot be read"),
        ('{"cluster": {"worker": 5}}', "cannot be read"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}}', "'ps' is no role"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator"}}', "'evaluator'"),
        ('{"cluster": {"chief": ["a:1", "b:1"]}}', "more than one chief"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 2}}', "worker 2 has no"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": -1}}', "worker -1 has no"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}}', "the same address"),
    ],
)
def test_what_does_not_describe_a_cluster_is_refused(value, message):
    with pytest.raises(ConfigError, match="TF_CONFIG does not describe a cluster") as error:
        read_cluster({"TF_CONFIG": value})
    assert message in str(error.value)
    assert "unset it to train in one process" in str(error.value)


def test_a_worker_does_not_divide_its_cpu():
    with pytest.raises(ConfigError, match="does not go with several workers"):
        make_strategy("cpu:2", collective=True)
