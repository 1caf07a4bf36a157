"""Roles, heartbeats, and a search by several processes of which one is killed."""

import csv
import signal
import socket
import time

import pytest

from rfkeras.errors import ConfigError
from rfkeras.experiments.search import HeartbeatMonitor, heartbeat, read_role
from tests.helpers.processes import start
from tests.helpers.search import HANGING

VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


def environment(*values):
    """Return keras-tuner's variables with these values; None leaves one out."""
    return {name: value for name, value in zip(VARIABLES, values, strict=True) if value}


def test_roles():
    assert read_role({}).kind == "single"
    coordinator = read_role(environment("chief", "0.0.0.0", "8000"))
    assert (coordinator.kind, coordinator.address) == ("coordinator", "0.0.0.0:8000")
    worker = read_role(environment("gpu-3", "10.0.0.1", "8000"))
    assert (worker.kind, worker.name, worker.address) == ("worker", "gpu-3", "10.0.0.1:8000")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("chief", None, None), "Missing: KERASTUNER_ORACLE_IP, KERASTUNER_ORACLE_PORT"),
        ((None, "10.0.0.1", "8000"), "Missing: KERASTUNER_TUNER_ID"),
        (("a/b", "10.0.0.1", "8000"), "letters, digits"),
        (("a", "10.0.0.1", "http"), "from 1 to 65535"),
        (("a", "10.0.0.1", "70000"), "from 1 to 65535"),
    ],
)
def test_incomplete_or_invalid_variables_are_rejected(values, message):
    with pytest.raises(ConfigError, match=message):
        read_role(environment(*values))


def test_worker_is_dead_if_its_file_does_not_change(tmp_path):
    now = [0.0]
    monitor = HeartbeatMonitor(tmp_path, 10.0, clock=lambda: now[0])
    (tmp_path / "a").write_text("1")
    assert monitor.dead({"a", "b"}) == []
    now[0] = 9.0
    (tmp_path / "a").write_text("2")
    assert monitor.dead({"a", "b"}) == []
    now[0] = 11.0
    assert monitor.dead({"a", "b"}) == ["b"]  # it never had a file
    now[0] = 20.0
    assert monitor.dead({"a"}) == ["a"]
    assert monitor.dead(set()) == []
    assert monitor.dead({"a"}) == []  # it came back and has the full time again


def test_heartbeat_keeps_changing_the_file(tmp_path):
    path = tmp_path / "workers" / "a"
    with heartbeat(path):
        while not path.exists():
            time.sleep(0.01)
        first = path.read_text()
        deadline = time.monotonic() + 30
        while path.read_text() == first:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not path.exists()


def free_port():
    """Return a port that no process listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
def test_search_does_every_trial_once_although_a_worker_is_killed(tmp_path):
    folder, port = tmp_path / "search", free_port()
    processes = {}

    def begin(name):
        processes[name] = start(
            *("-m", "tests.helpers.search", folder, "6"),
            **environment(name, "127.0.0.1", str(port)),
        )

    begin("chief")
    begin(HANGING)
    log = folder / "log.txt"
    while not (log.exists() and HANGING in log.read_text()):
        assert processes["chief"].poll() is None, processes["chief"].communicate()[1]
        time.sleep(0.1)
    begin("steady")  # earlier, it might do all trials before the other is ready
    processes[HANGING].send_signal(signal.SIGKILL)
    results = {name: process.communicate(timeout=180) for name, process in processes.items()}
    assert processes["steady"].returncode == 0, results["steady"][1]
    assert processes["chief"].returncode == 0, results["chief"][1]
    assert f"Worker {HANGING} has been silent for 10 s; trial " in results["chief"][1]

    (lost,) = [line.split()[0] for line in log.read_text().splitlines() if HANGING in line]
    done = [line.split()[0] for line in log.read_text().splitlines() if "steady" in line]
    assert sorted(done) == ["0", "1", "2", "3", "4", "5"]
    assert lost in done
    with (folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["trial"], row["status"]) for row in rows] == [
        (str(k), "done") for k in range(6)
    ]
    assert (folder / "best.yaml").exists()
    assert results["chief"][0].count("\n[") == 6
