"""keras-tuner's methods under kills at any time, failures and dead workers."""

import copy
import shutil
import threading
from dataclasses import replace

import pytest

from rfkeras.errors import RFKerasError
from rfkeras.experiments import oracle as oracle_module
from rfkeras.experiments.oracle import make_oracle, serve
from rfkeras.experiments.search import (
    HeartbeatMonitor,
    SearchFolder,
    hyperband_rungs,
    trial_config,
)
from rfkeras.experiments.trial import record_failure
from tests.helpers.search import score_of, small_search

pytestmark = pytest.mark.filterwarnings(  # from keras-tuner's locks
    "ignore:currentThread:DeprecationWarning", "ignore:getName:DeprecationWarning"
)


def opened(search, folder):
    """Return an oracle with its state in a folder, reloaded if there is any."""
    made = make_oracle(search)
    made._set_project_dir(str(folder), "oracle")
    if made.state_file.exists():
        made.reload()
    return made


def score(search, trial):
    """Return the score of a trial that is not trained."""
    numbers = trial.hyperparameters.values
    epochs = numbers.get("tuner/epochs", search.base.epochs)
    return score_of(trial_config(search.base, search.space.decode(numbers), epochs))


def finish(search, made, trial, value=None, failed=False):
    """Report a trial as completed, with a value or its own score, or as failed."""
    if failed:
        trial.status = "FAILED"
    else:
        reported = score(search, trial) if value is None else value
        made.update_trial(trial.trial_id, {search.monitor: reported})
        trial.status = "COMPLETED"
    made.end_trial(trial)


def run(search, made, tuner="tuner0"):
    """Run all trials; return their ids in the order in which they were handed out."""
    given = []
    while (trial := made.create_trial(tuner)).status != "STOPPED":
        given.append(trial.trial_id)
        finish(search, made, trial)
    return given


@pytest.mark.parametrize(("epochs", "factor"), [(1, 3), (4, 2), (9, 3), (200, 3)])
def test_hyperband_rungs_match_keras_tuner(epochs, factor, tmp_path):
    search = small_search("hyperband", epochs=epochs, factor=factor)
    if epochs == 200:  # 207 trials: compare only the sizes
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
def test_kill_at_any_write_loses_and_repeats_no_trial(method, tmp_path, monkeypatch):
    space = {"rho_time": "0:12", "shake": "true,false"}
    search = small_search(method, epochs=4, factor=2, trials=5, space=space)
    snapshots, write = [], oracle_module.write_text

    def recording_write(path, text):
        write(path, text)
        copied = tmp_path / f"{len(snapshots):03d}"
        shutil.copytree(tmp_path / "whole", copied)
        snapshots.append((copied, set(made.end_order)))

    made = opened(search, tmp_path / "whole")
    monkeypatch.setattr(oracle_module, "write_text", recording_write)
    planned = run(search, made)
    monkeypatch.undo()
    assert len(planned) == sum(size for size, _ in search.rungs())
    for folder, ended in snapshots[:: 2 if method == "random" else 9]:
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


def test_best_trial_has_the_highest_score_or_the_lowest_loss(tmp_path):
    for monitor, best in (("val_mAP", "1"), ("val_loss", "0")):
        search = small_search(trials=2)
        search = replace(search, base=replace(search.base, monitor=monitor))
        made = opened(search, tmp_path / monitor)
        for value in (0.1, 0.2):
            finish(search, made, made.create_trial("tuner0"), value)
        assert made.get_best_trials()[0].trial_id == best


def test_failures_in_a_row_end_the_search_and_can_be_retried(tmp_path):
    search = small_search(trials=9, max_failures=2)
    made = opened(search, tmp_path)
    for failed in (True, False, True, True):
        assert not made.has_given_up
        finish(search, made, made.create_trial("tuner0"), failed=failed)
    assert made.has_given_up
    assert made.create_trial("tuner0").status == "STOPPED"
    assert made.has_run_out
    assert not made.tuner_ids

    further = opened(search, tmp_path)  # a new process counts from zero
    assert not further.has_given_up
    assert run(search, further) == ["4", "5", "6", "7", "8"]
    retried = opened(search, tmp_path)
    retried.retry_failed()
    assert run(search, retried) == ["0", "2", "3"]
    assert {trial.status for trial in retried.trials.values()} == {"COMPLETED"}
    assert len(retried.end_order) == len(set(retried.end_order)) == 9


def test_trial_of_a_dead_worker_goes_to_the_next_and_counts_once(tmp_path):
    search = small_search(trials=3)
    made = opened(search, tmp_path)
    lost = made.create_trial("a")
    assert made.create_trial("a").trial_id == lost.trial_id  # restarted under the same name
    assert made.forget_worker("a") == lost.trial_id
    assert made.forget_worker("a") is None
    taken = made.create_trial("b")
    assert taken.trial_id == lost.trial_id
    finish(search, made, copy.copy(lost))  # the dead worker was only slow
    finish(search, made, taken)
    assert made.end_order == [lost.trial_id]
    assert not made.ongoing_trials
    assert run(search, made, "b") == ["1", "2"]

    made = opened(search, tmp_path / "again")
    lost = made.create_trial("a")
    made.forget_worker("a")
    finish(search, made, lost)  # before another worker took it
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


def test_conditional_options_are_set_only_if_their_condition_holds(tmp_path):
    space = {"optimizer": "adam,adamw", "weight_decay": "1e-3:0.1:log when optimizer=adamw"}
    search = small_search("random", trials=12, space=space)
    made = opened(search, tmp_path)
    run(search, made)
    seen = [search.space.decode(t.hyperparameters.values) for t in made.trials.values()]
    assert {values["optimizer"] for values in seen} == {"adam", "adamw"}
    for values in seen:
        assert ("weight_decay" in values) == (values["optimizer"] == "adamw")


def test_bayesian_search_learns_from_scores_before_and_after_a_restart(tmp_path):
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


class Server:
    """A tuner with a given server function."""

    def __init__(self, search):
        self.search = search


def register(oracle, *names):
    """Give each worker a heartbeat file and a trial."""
    for name in names:
        (oracle.state_file.parents[1] / name).write_text("1")
        oracle.create_trial(name)


def test_coordinator_ends_if_all_workers_are_dead(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rfkeras.experiments.oracle._POLL_SECONDS", 0.01)
    oracle = make_oracle(small_search())
    oracle._set_project_dir(str(tmp_path), "oracle")
    register(oracle, "a", "b")
    with pytest.raises(RFKerasError, match="All workers have gone, but trials are left"):
        serve(
            Server(threading.Event().wait),
            oracle,
            HeartbeatMonitor(tmp_path, 0.2),
            lambda: None,
        )
    err = capsys.readouterr().err
    assert "Worker a has been silent for 0.2 s; trial 0 goes to the next worker" in err
    assert "Worker b has been silent for 0.2 s; trial 1 goes to the next worker" in err
    assert (oracle.tuner_ids, oracle.ongoing_trials) == (set(), {})


def test_coordinator_that_cannot_serve_reports_the_reason(tmp_path):
    def fail():
        raise RuntimeError("Failed to bind to address 10.0.0.1:80")

    oracle = make_oracle(small_search())
    oracle._set_project_dir(str(tmp_path), "oracle")
    with pytest.raises(RFKerasError, match="The coordinator cannot serve: Failed to bind"):
        serve(Server(fail), oracle, HeartbeatMonitor(tmp_path, 9.0), lambda: None)


def test_trials_that_diverge_do_not_end_the_search(tmp_path):
    search = small_search(trials=5, max_failures=2)
    made = opened(search, tmp_path)
    made.folder = SearchFolder(tmp_path)
    for reason in ("diverged: loss", "diverged: loss", "diverged: loss", "too wide"):
        trial = made.create_trial("tuner0")
        record_failure(made.folder.trial(trial.trial_id), reason)
        finish(search, made, trial, failed=True)
        assert not made.has_given_up
    trial = made.create_trial("tuner0")
    finish(search, made, trial, failed=True)
    assert made.has_given_up
