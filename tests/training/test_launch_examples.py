"""The examples for Slurm and Kubernetes, with stubs of the cluster's programs."""

import json
import os
import subprocess

import pytest
import yaml

from rfkeras.training.distributed import Cluster, read_cluster
from tests.helpers.processes import ROOT

EXAMPLES = ROOT / "examples"
# Records its arguments and exits with the status listed for this worker and call.
TRAINS = """#!/bin/bash
index=$(sed 's/.*"index": \\([0-9]*\\).*/\\1/' <<< "$TF_CONFIG")
echo "$TF_CONFIG" >> "$NOTES/tf_config-$index"
printf '%s\\n' "$@" > "$NOTES/arguments-$index"
call=$(wc -l < "$NOTES/tf_config-$index")
exit $(cut -d' ' -f$call "$NOTES/ends-$index")
"""
SCONTROL = """#!/bin/bash
test "$*" = "show hostnames node[07-08]" && printf 'node07\\nnode08\\n'
"""
# Runs the command once per task, in turn, and exits with the highest status.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
highest=0
for task in 0 1; do
  SLURM_PROCID=$task "$@"
  status=$?
  if ((status > highest)); then highest=$status; fi
done
exit $highest
"""


@pytest.fixture
def stubs(tmp_path):
    """Write the stubs; return the folder of their records and their environment."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"rfkeras": TRAINS, "scontrol": SCONTROL, "srun": SRUN}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    notes = tmp_path / "notes"
    notes.mkdir()
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return notes, {"PATH": path, "NOTES": str(notes)}


def clusters(notes, index):
    lines = (notes / f"tf_config-{index}").read_text().splitlines()
    return [read_cluster({"TF_CONFIG": line}) for line in lines]


@pytest.mark.parametrize(
    ("ends", "status", "calls"),
    [
        (("0", "0"), 0, 1),
        (("75 75 0", "137 137 0"), 0, 3),  # killed twice, restarted each time
        (("1", "1"), 1, 1),  # an error would recur
        (("143", "0"), 143, 1),  # the time limit
        (("75 75 75", "139 139 139"), 139, 3),
    ],
)
def test_slurm_lists_the_workers_and_restarts_lost_ones(stubs, ends, status, calls):
    notes, environment = stubs
    for index, text in enumerate(ends):
        (notes / f"ends-{index}").write_text(text)
    environment |= {"SLURM_JOB_NODELIST": "node[07-08]", "RFKERAS_RESTARTS": "2"}
    arguments = ["--run-dir", "/shared/a run", "--recipe", "x"]
    ended = subprocess.run(
        ["bash", EXAMPLES / "slurm/train.sbatch", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == status, ended.stderr
    for index in range(2):
        expected = Cluster(("node07:2222", "node08:2222"), index)
        assert clusters(notes, index) == [expected] * calls
        called = (notes / f"arguments-{index}").read_text().splitlines()
        assert called == ["train", "--auto-resume", *arguments]


def documents():
    text = (EXAMPLES / "kubernetes/train.yaml").read_text()
    return {item["kind"]: item for item in yaml.safe_load_all(text)}


def test_kubernetes_lists_the_workers(stubs):
    notes, environment = stubs
    kinds = documents()
    job = kinds["Job"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    fixed = {item["name"]: item["value"] for item in container["env"]}
    assert int(fixed["WORKERS"]) == job["completions"] == job["parallelism"]
    for index in range(job["completions"]):
        (notes / f"ends-{index}").write_text("0")
        subprocess.run(
            [*container["command"], *container["args"]],
            env={**environment, **fixed, "JOB_COMPLETION_INDEX": str(index)},
            check=True,
            timeout=30,
        )
        # The host name of a pod consists of its job, its index and its service.
        name, service = kinds["Job"]["metadata"]["name"], kinds["Service"]["metadata"]["name"]
        assert job["template"]["spec"]["subdomain"] == service
        hosts = tuple(f"{name}-{i}.{service}:2222" for i in range(job["completions"]))
        assert clusters(notes, index) == [Cluster(hosts, index)]
        called = (notes / f"arguments-{index}").read_text().splitlines()
        assert called == ["train", "--auto-resume", *container["args"][2:]]


def test_kubernetes_restarts_lost_workers_and_isolates_them():
    kinds = documents()
    job = kinds["Job"]["spec"]
    assert job["completionMode"] == "Indexed"
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy needs it
    rules = {
        tuple(rule["onExitCodes"]["values"]): rule["action"]
        for rule in job["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    }
    assert rules == {(1, 2): "FailJob", (75, 143): "Ignore"}
    labels = job["template"]["metadata"]["labels"]
    policy = kinds["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert policy["ingress"] == [{"from": [{"podSelector": {"matchLabels": labels}}]}]
    assert kinds["Service"]["spec"]["clusterIP"] == "None"
    json.dumps(kinds)  # no values that JSON does not have
