"""keras-tuner's methods through kills at any moment, failures and dead workers."""

import copy
import csv
import shutil
import signal
import socket
import threading
import time
from dataclasses import replace

import pytest

from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.experiments import oracle as oracle_module
from rfkeras.experiments.oracle import Watch, beating, make_oracle, read_role, serve
from rfkeras.experiments.search import hyperband_rungs, trial_config
from tests.helpers.processes import start
from tests.helpers.search import HANGING, score_of, small_search

pytestmark = pytest.mark.filterwarnings(  # of keras-tuner's own locks
    "ignore:currentThread:DeprecationWarning", "ignore:getName:DeprecationWarning"
)


def opened(search, folder):
    made = make_oracle(search)
    made._set_project_dir(str(folder), "oracle")
    if made.state_file.exists():
        made.reload()
    return made


def score(search, trial):
    numbers = trial.hyperparameters.values
    epochs = numbers.get("tuner/epochs", search.base.epochs)
    return score_of(trial_config(search.base, search.space.decode(numbers), epochs))


def finish(search, made, trial, figure=None, failed=False):
    if failed:
        trial.status = "FAILED"
    else:
        value = score(search, trial) if figure is None else figure
        made.update_trial(trial.trial_id, {search.monitor: value})
        trial.status = "COMPLETED"
    made.end_trial(trial)


def run(search, made, tuner="tuner0"):
    """Run to the end; ids in the order in which they were given out."""
    given = []
    while (trial := made.create_trial(tuner)).status != "STOPPED":
        given.append(trial.trial_id)
        finish(search, made, trial)
    return given


@pytest.mark.parametrize(("epochs", "factor"), [(1, 3), (4, 2), (9, 3), (200, 3)])
def test_hyperband_rungs_are_those_that_keras_tuner_runs(epochs, factor, tmp_path):
    search = small_search("hyperband", epochs=epochs, factor=factor)
    if epochs == 200:  # 207 trials: by the sizes alone
        oracle = make_oracle(search)
        brackets = range(oracle._get_num_brackets())
        expected = [
            (oracle._get_size(bracket, rung), oracle._get_epochs(bracket, rung))
            for bracket in reversed(brackets)
            for rung in range(bracket + 1)
        ]
        assert hyperband_rungs(epochs, factor) == expected
        return
    made = opened(search, tmp_path)
    given = run(search, made)
    lengths = [made.trials[i].hyperparameters.values["tuner/epochs"] for i in given]
    expected = [length for size, length in search.rungs() for _ in range(size)]
    assert sorted(lengths) == sorted(expected)
    assert search.shortest == min(expected)


@pytest.mark.parametrize("method", ["random", "hyperband"])
def test_a_kill_at_any_write_loses_and_repeats_nothing(method, tmp_path, monkeypatch):
    space = {"rho_time": "0:12", "shake": "true,false"}
    search = small_search(method, epochs=4, factor=2, trials=5, space=space)
    moments, write = [], oracle_module.write_text

    def recording_write(path, text):
        write(path, text)
        copied = tmp_path / f"{len(moments):03d}"
        shutil.copytree(tmp_path / "whole", copied)
        moments.append((copied, set(made.end_order)))

    made = opened(search, tmp_path / "whole")
    monkeypatch.setattr(oracle_module, "write_text", recording_write)
    planned = run(search, made)
    monkeypatch.undo()
    assert len(planned) == sum(size for size, _ in search.rungs())
    for folder, ended in moments[:: 2 if method == "random" else 9]:
        again = opened(search, folder)
        saved = set(again.end_order)
        assert saved <= ended
        given = run(search, again)
        assert not saved & set(given)
        assert len(given) == len(set(given))
        assert sorted(again.end_order) == sorted(planned)
        assert {trial.status for trial in again.trials.values()} == {"COMPLETED"}


def test_values_do_not_depend_on_kills(tmp_path):
    search = small_search(trials=6)
    whole = opened(search, tmp_path / "a")
    run(search, whole)
    part = opened(search, tmp_path / "b")
    for _ in range(3):
        finish(search, part, part.create_trial("tuner0"))
    part.create_trial("tuner0")
    resumed = opened(search, tmp_path / "b")
    assert run(search, resumed) == ["3", "4", "5"]
    for trial_id, trial in whole.trials.items():
        assert resumed.trials[trial_id].hyperparameters.values == trial.hyperparameters.values
        assert resumed.trials[trial_id].score == trial.score
    other = opened(small_search(trials=6, seed=1), tmp_path / "c")
    other.create_trial("tuner0")
    assert other.trials["0"].hyperparameters.values != whole.trials["0"].hyperparameters.values


def test_the_best_is_the_highest_figure_or_the_lowest_loss(tmp_path):
    for monitor, best in (("val_mAP", "1"), ("val_loss", "0")):
        search = small_search(trials=2)
        search = replace(search, base=replace(search.base, monitor=monitor))
        made = opened(search, tmp_path / monitor)
        for figure in (0.1, 0.2):
            finish(search, made, made.create_trial("tuner0"), figure)
        assert made.get_best_trials()[0].trial_id == best


def test_failures_in_a_row_end_the_search_and_can_be_retried(tmp_path):
    search = small_search(trials=9, max_failures=2)
    made = opened(search, tmp_path)
    for failed in (True, False, True, True):
        assert not made.has_given_up
        finish(search, made, made.create_trial("tuner0"), failed=failed)
    assert made.has_given_up
    assert made.create_trial("tuner0").status == "STOPPED"
    assert made.told_to_stop
    assert not made.tuner_ids

    further = opened(search, tmp_path)  # a new process begins to count anew
    assert not further.has_given_up
    assert run(search, further) == ["4", "5", "6", "7", "8"]
    retried = opened(search, tmp_path)
    retried.retry_failed()
    assert run(search, retried) == ["0", "2", "3"]
    assert {trial.status for trial in retried.trials.values()} == {"COMPLETED"}
    assert len(retried.end_order) == len(set(retried.end_order)) == 9


def test_a_dead_workers_trial_goes_to_the_next_and_counts_once(tmp_path):
    search = small_search(trials=3)
    made = opened(search, tmp_path)
    lost = made.create_trial("a")
    assert made.create_trial("a").trial_id == lost.trial_id  # restarted under its name
    assert made.forget_worker("a") == lost.trial_id
    assert made.forget_worker("a") is None
    taken = made.create_trial("b")
    assert taken.trial_id == lost.trial_id
    finish(search, made, copy.copy(lost))  # the dead one was slow only
    finish(search, made, taken)
    assert made.end_order == [lost.trial_id]
    assert not made.ongoing_trials
    assert run(search, made, "b") == ["1", "2"]

    made = opened(search, tmp_path / "again")
    lost = made.create_trial("a")
    made.forget_worker("a")
    finish(search, made, lost)  # before anybody took it
    assert run(search, made, "b") == ["1", "2"]


def test_messages_between_machines_change_no_value(tmp_path):
    from keras_tuner.engine.trial import Trial

    search = small_search("random", trials=6)
    made = opened(search, tmp_path)
    while (trial := made.create_trial("a")).status != "STOPPED":
        before = dict(trial.hyperparameters.values)
        received = Trial.from_proto(trial.to_proto())
        decoded = search.space.decode(received.hyperparameters.values)
        assert decoded == search.space.decode(before)
        made.update_trial(trial.trial_id, {"val_mAP": 0.5})
        received.status = "COMPLETED"
        made.end_trial(Trial.from_proto(received.to_proto()))
        assert made.trials[trial.trial_id].hyperparameters.values == before
    assert len(made._tried_so_far) == 6


def test_conditional_options_are_set_only_where_their_condition_holds(tmp_path):
    space = {"optimizer": "adam,adamw", "weight_decay": "1e-3:0.1:log when optimizer=adamw"}
    search = small_search("random", trials=12, space=space)
    made = opened(search, tmp_path)
    run(search, made)
    seen = [search.space.decode(t.hyperparameters.values) for t in made.trials.values()]
    assert {values["optimizer"] for values in seen} == {"adam", "adamw"}
    for values in seen:
        assert ("weight_decay" in values) == (values["optimizer"] == "adamw")


def test_bayesian_search_learns_from_the_scores_also_after_a_restart(tmp_path):
    search = small_search("bayesian", trials=6, space={"rho_time": "0:22"})
    made = opened(search, tmp_path)
    for _ in range(3):
        finish(search, made, made.create_trial("tuner0"))
    resumed = opened(search, tmp_path)
    assert run(search, resumed) == ["3", "4", "5"]
    tried = [search.space.decode(t.hyperparameters.values) for t in resumed.trials.values()]
    distances = [abs(values["rho_time"] - 7) for values in tried]
    assert min(distances[3:]) <= 1
    assert sum(distances[3:]) < sum(distances[:3])


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
            *("-m", "tests.helpers.search", folder, "6"),
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
    monkeypatch.setattr("rfkeras.experiments.oracle._POLL_SECONDS", 0.01)
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
