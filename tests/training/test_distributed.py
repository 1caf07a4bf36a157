"""TF_CONFIG, devices and strategies."""

import json

import pytest
import tensorflow as tf

from rfkeras.errors import ConfigError
from rfkeras.training.distributed import (
    Cluster,
    check_batch_size,
    make_strategy,
    read_cluster,
    tf_config,
)


def environment(cluster, **task):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def test_one_process_is_not_a_cluster():
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
    assert read_cluster({"TF_CONFIG": tf_config(["a:1", "b:2"], 1)}) == other


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
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}}', "role 'ps' is unknown"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator"}}', "'evaluator'"),
        ('{"cluster": {"chief": ["a:1", "b:1"]}}', "more than one chief"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 2}}', "worker 2 has no"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": -1}}', "worker -1 has no"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}}', "the same address"),
    ],
)
def test_a_malformed_tf_config_is_an_error(value, message):
    with pytest.raises(ConfigError, match="TF_CONFIG does not describe a cluster") as error:
        read_cluster({"TF_CONFIG": value})
    assert message in str(error.value)
    assert "Unset it to train in one process" in str(error.value)


def test_a_worker_uses_its_cpu_as_one_device():
    with pytest.raises(ConfigError, match="--devices cpu:2 cannot be used with several"):
        make_strategy("cpu:2", collective=True)


@pytest.mark.parametrize("devices", ["tpu", "cpu:0", "cpu:x", "auto:2", "gpu:-1", ""])
def test_invalid_devices(devices):
    with pytest.raises(ConfigError, match="--devices must be"):
        make_strategy(devices)


def test_missing_gpus_are_an_error():
    missing = len(tf.config.list_physical_devices("GPU")) + 1
    with pytest.raises(ConfigError, match=f"--devices gpu:{missing} needs {missing} GPU"):
        make_strategy(f"gpu:{missing}")


def test_batches_must_divide_evenly_over_the_devices():
    class TwoReplicas:
        num_replicas_in_sync = 2

    check_batch_size(4, TwoReplicas())
    with pytest.raises(ConfigError, match="multiple of the 2 devices"):
        check_batch_size(5, TwoReplicas())
