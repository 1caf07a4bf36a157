"""A search by a chief and workers: roles, signs of life, and two machines in small."""

import csv
import signal
import socket
import threading
import time

import pytest

from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.tuning.chief import serve
from rfkeras.tuning.oracle import make_oracle
from rfkeras.tuning.workers import Watch, beating, read_role
from tests.processes import start
from tests.tuning.support import HANGING, small_search

LOCKS = pytest.mark.filterwarnings(  # of keras-tuner
    "ignore:currentThread:DeprecationWarning", "ignore:getName:DeprecationWarning"
)
VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


def environment(*values):
    return {name: value for name, value in zip(VARIABLES, values, strict=True) if value}


def test_roles():
    assert read_role({}).kind == "alone"
    chief = read_role(environment("chief", "0.0.0.0", "8000"))
    assert (chief.kind, chief.address) == ("chief", "0.0.0.0:8000")
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
def test_half_an_environment_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        read_role(environment(*values))


def test_a_worker_is_dead_when_its_file_stands_still(tmp_path):
    now = [0.0]
    watch = Watch(tmp_path, 10.0, clock=lambda: now[0])
    (tmp_path / "a").write_text("1")
    assert watch.dead({"a", "b"}) == []
    now[0] = 9.0
    (tmp_path / "a").write_text("2")
    assert watch.dead({"a", "b"}) == []
    now[0] = 11.0
    assert watch.dead({"a", "b"}) == ["b"]  # never had a file
    now[0] = 20.0
    assert watch.dead({"a"}) == ["a"]
    assert watch.dead(set()) == []
    assert watch.dead({"a"}) == []  # came back, and has its time again


def test_a_living_process_keeps_changing_its_file(tmp_path):
    path = tmp_path / "workers" / "a"
    with beating(path):
        while not path.exists():
            time.sleep(0.01)
        first = path.read_text()
        deadline = time.monotonic() + 30
        while path.read_text() == first:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not path.exists()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
def test_chief_and_workers_end_with_every_trial_done_once_though_one_is_killed(tmp_path):
    folder, port = tmp_path / "search", free_port()
    names = ("chief", HANGING, "steady")
    processes = {
        name: start(
            *("-m", "tests.tuning.support", folder, "6"),
            **environment(name, "127.0.0.1", str(port)),
        )
        for name in names
    }
    log = folder / "log.txt"
    while not (log.exists() and HANGING in log.read_text()):
        assert processes["chief"].poll() is None, processes["chief"].communicate()[1]
        time.sleep(0.1)
    processes[HANGING].send_signal(signal.SIGKILL)
    results = {name: process.communicate(timeout=180) for name, process in processes.items()}
    assert processes["steady"].returncode == 0, results["steady"][1]
    assert processes["chief"].returncode == 0, results["chief"][1]
    assert f"Worker {HANGING} shows no life for 3 s; trial " in results["chief"][1]

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


class Server:
    """A tuner whose server does what it is told."""

    def __init__(self, search):
        self.search = search


def register(oracle, *names):
    for name in names:
        (oracle.state_file.parents[1] / name).write_text("1")
        oracle.create_trial(name)


@LOCKS
def test_a_chief_whose_workers_are_all_dead_ends(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rfkeras.tuning.chief._POLL_SECONDS", 0.01)
    oracle = make_oracle(small_search())
    oracle._set_project_dir(str(tmp_path), "oracle")
    register(oracle, "a", "b")
    with pytest.raises(RFKerasError, match="No worker is left, and trials are"):
        serve(Server(threading.Event().wait), oracle, Watch(tmp_path, 0.2), lambda: None)
    err = capsys.readouterr().err
    assert "Worker a shows no life for 0.2 s; trial 0 goes to the next" in err
    assert "Worker b shows no life for 0.2 s; trial 1 goes to the next" in err
    assert (oracle.tuner_ids, oracle.ongoing_trials) == (set(), {})


@LOCKS
def test_a_chief_that_cannot_serve_says_why(tmp_path):
    def fail():
        raise RuntimeError("Failed to bind to address 10.0.0.1:80")

    oracle = make_oracle(small_search())
    oracle._set_project_dir(str(tmp_path), "oracle")
    with pytest.raises(RFKerasError, match="The chief cannot serve: Failed to bind"):
        serve(Server(fail), oracle, Watch(tmp_path, 9.0), lambda: None)
