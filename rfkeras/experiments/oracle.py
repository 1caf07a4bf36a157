"""keras-tuner's search methods, with workarounds for faults of keras-tuner 1.4.8.

All code that depends on keras-tuner is here. The oracle chooses the values of each trial and
keeps the state of the search, the tuner trains the trials, and `serve` is the coordinator of
several workers. Comments in the code refer to these faults by number:

1. State and trials are overwritten in place, so a kill can leave half a file.
2. The state is saved before an ended trial is removed from the running ones, so after a kill
   that trial would run again.
3. A trial that was handed out but is not yet in the saved state would be listed as running
   forever after a restart.
4. A second report of the same trial, by a worker that was considered dead, counts twice.
5. Too many failures in a row raise an error while a lock is held, and again at each restart.
6. The trial of a dead worker waits forever for that worker, and the other workers leave.
7. Messages between machines round values to float32 and change their order.
8. Seed 0 is treated as no seed.
9. A tuner reloads only the state that was saved under its own role and name.
10. A tuner that has to wait for others asks again without a pause.
11. The server never ends if its workers die.
"""

from __future__ import annotations

import copy
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc
import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.oracles import BayesianOptimizationOracle, HyperbandOracle, RandomSearchOracle

from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.experiments.search import (
    BAYESIAN,
    HYPERBAND,
    WORKER,
    HeartbeatMonitor,
    Role,
    Search,
    SearchFolder,
    complete_config,
)
from rfkeras.experiments.search_report import DONE, FAILED, RUNNING, TrialRow, trial_row
from rfkeras.experiments.search_space import Grid, SearchSpace
from rfkeras.experiments.trial import (
    TrialOutcome,
    TrialRunner,
    has_diverged,
    record_failure,
    run_trial,
)
from rfkeras.utils.files import write_text
from rfkeras.utils.progress import print_status

EPOCHS, PROMOTED_FROM = "tuner/epochs", "tuner/trial_id"  # values that Hyperband adds
_STATUS = {TrialStatus.COMPLETED: DONE, TrialStatus.FAILED: FAILED}
_IDLE_SECONDS = 1.0
_POLL_SECONDS = 0.5

_F = TypeVar("_F", bound=Callable[..., Any])


def _synchronized(method: _F) -> _F:
    """Allow one call at a time, from any thread or worker."""
    return cast(_F, keras_tuner.synchronized(method))


class DurableOracle(keras_tuner.Oracle):
    """An oracle that survives kills at any time and dead workers.

    Attributes:
        max_failures: Number of consecutive failed trials that ends the search.
        folder: Folder of the search, in which trials that have diverged are recorded.
        has_run_out: Whether a process asked for a trial when there was none left.
    """

    trials: dict[str, Any]
    ongoing_trials: dict[str, Any]
    tuner_ids: set[str]
    start_order: list[str]
    end_order: list[str]
    _retry_queue: list[str]

    max_failures = 3
    folder: SearchFolder | None = None
    has_run_out = False
    _ended_before = 0

    @property
    def state_file(self) -> Path:
        """The file of the state."""
        return Path(self._get_oracle_fname())

    @property
    def has_given_up(self) -> bool:
        """Return whether too many trials in a row have failed since this process started."""
        # Fault 5: counted here, so that nothing is raised under a lock or after a restart.
        last = self.end_order[self._ended_before :][-self.max_failures :]
        failed = [
            self.trials[trial_id].status == TrialStatus.FAILED
            # A trial that has diverged says nothing about the others.
            and not (self.folder and has_diverged(self.folder.trial(trial_id)))
            for trial_id in last
        ]
        return len(last) == self.max_failures and all(failed)

    @property
    def unfinished(self) -> int:
        """Number of trials that were handed out and have not ended."""
        return len(self.trials) - len(self.end_order)

    def save(self) -> None:
        # Fault 1: a file is replaced as a whole.
        write_text(self.state_file, json.dumps(self.get_state()))

    def _save_trial(self, trial: Trial) -> None:
        # Fault 1.
        path = Path(self._get_trial_dir(trial.trial_id)) / "trial.json"
        write_text(path, json.dumps(trial.get_state()))

    def reload(self) -> None:
        super().reload()
        # Fault 3: trials that are not in the saved state are forgotten.
        self.trials = {trial_id: self.trials[trial_id] for trial_id in self.start_order}
        self._retry_queue = [
            trial_id
            for trial_id in dict.fromkeys(self._retry_queue)
            if trial_id not in self.end_order
        ]
        self._ended_before = len(self.end_order)

    @_synchronized
    def retry_failed(self) -> None:
        """Hand out the failed trials again."""
        failed = [
            trial_id
            for trial_id in self.end_order
            if self.trials[trial_id].status == TrialStatus.FAILED
        ]
        self.end_order = [trial_id for trial_id in self.end_order if trial_id not in failed]
        self._retry_queue = failed[::-1] + self._retry_queue  # taken from the end
        self._ended_before = len(self.end_order)

    @_synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        if self.has_given_up and tuner_id not in self.ongoing_trials:
            self.tuner_ids.discard(tuner_id)
            trial = Trial(self.get_space(), status=TrialStatus.STOPPED)
        else:
            trial = super().create_trial(tuner_id)
            if trial.status == TrialStatus.STOPPED and self.ongoing_trials:
                # Fault 6: stay, because a dead worker's trial may need a new worker.
                trial.status = TrialStatus.IDLE
                self.tuner_ids.add(tuner_id)
        self.has_run_out |= trial.status == TrialStatus.STOPPED
        return trial

    @_synchronized
    def end_trial(self, trial: Trial) -> None:
        trial_id = trial.trial_id
        if trial_id in self._retry_queue:  # its worker was considered dead
            self._retry_queue.remove(trial_id)
        if trial_id not in self.end_order:  # fault 4: count the first report only
            # Fault 7: keep the values as they were before the message.
            trial.hyperparameters = self.trials[trial_id].hyperparameters
            super().end_trial(trial)
        self.ongoing_trials = {
            tuner_id: ongoing
            for tuner_id, ongoing in self.ongoing_trials.items()
            if ongoing.trial_id != trial_id
        }
        self.save()  # fault 2: save again, without the trial among the running ones

    @_synchronized
    def forget_worker(self, tuner_id: str) -> str | None:
        """Consider a worker dead and return the id of its trial, which others may take."""
        # Fault 6.
        self.tuner_ids.discard(tuner_id)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is None:
            return None
        self._retry_queue.append(trial.trial_id)
        self.save()
        return str(trial.trial_id)

    @_synchronized
    def snapshot(self) -> tuple[list[Trial], set[str], int]:
        """Return all trials in the order of their start, the workers, and the number ended."""
        trials = [copy.copy(trial) for trial in self.trials.values()]
        return trials, set(self.tuner_ids), len(self.end_order)


class _Hyperband(DurableOracle, HyperbandOracle):
    pass


class _Bayesian(DurableOracle, BayesianOptimizationOracle):
    pass


class _Random(DurableOracle, RandomSearchOracle):
    pass


def make_oracle(search: Search) -> DurableOracle:
    """Return the oracle of a search, which chooses the values of each trial."""
    shared: dict[str, Any] = {
        "objective": keras_tuner.Objective(
            search.monitor, "min" if search.lower_is_better else "max"
        ),
        "hyperparameters": hyperparameters(search.space),
        "allow_new_entries": False,
        "tune_new_entries": False,
        "seed": search.seed + 1,  # fault 8
        "max_consecutive_failed_trials": sys.maxsize,  # fault 5
    }
    oracle: DurableOracle
    if search.method == HYPERBAND:
        oracle = _Hyperband(
            max_epochs=search.base.epochs,
            factor=search.factor,
            hyperband_iterations=search.iterations,
            **shared,
        )
    else:
        kind = _Bayesian if search.method == BAYESIAN else _Random
        oracle = kind(max_trials=search.trials, **shared)
    oracle.max_failures = search.max_failures
    oracle.verbose = 0
    return oracle


def hyperparameters(space: SearchSpace) -> keras_tuner.HyperParameters:
    """Declare a space to keras-tuner: indices of grids, and numbers of ranges."""
    declared = keras_tuner.HyperParameters()
    for name, parameter in space.parameters.items():
        condition: dict[str, Any] = {}
        if parameter.when is not None:
            parent, values = parameter.when
            grid = space.parameters[parent]
            assert isinstance(grid, Grid)
            places = [grid.values.index(value) for value in values]
            condition = {"parent_name": parent, "parent_values": places}
        if isinstance(parameter, Grid):
            declared.Choice(name, list(range(len(parameter.values))), **condition)
        else:
            scale = "log" if parameter.log else "linear"
            declared.Float(
                name,
                float(parameter.low),
                float(parameter.high),
                sampling=scale,
                **condition,
            )
    return declared


class SearchTuner(BaseTuner):
    """A tuner whose trials are training runs.

    Args:
        search: The search.
        folder: Its folder. A search that it contains is continued.
        role: Role of this process.
        runner: Trains a trial.
    """

    def __init__(
        self,
        search: Search,
        folder: SearchFolder,
        role: Role,
        runner: TrialRunner = run_trial,
    ) -> None:
        self.search_options = search
        self.folder = folder
        self.runner = runner
        # `self.oracle` of a worker is a client of the coordinator; this one is then unused.
        self.own_oracle = own = make_oracle(search)
        own.folder = folder
        super().__init__(own, directory=str(folder.root), project_name=folder.state.name)
        # Fault 9: reload what any role and name has saved.
        if role.kind != WORKER and own.state_file.exists():
            own.reload()

    def save(self) -> None:
        """Save the oracle, which holds all of the state. Workers have no state."""
        if not self._is_worker():
            self.oracle.save()

    def run_trials(self, on_end: Callable[[TrialRow], None]) -> None:
        """Train until no trial is left.

        Args:
            on_end: Called with each trial that has ended.

        Raises:
            DatasetError: The data cannot be used.
            RFKerasError: The coordinator does not answer.
            KeyboardInterrupt: Ctrl-C. The running trial has saved its state.
        """
        while True:
            try:
                trial = self.oracle.create_trial(self.tuner_id)
                if trial.status == TrialStatus.STOPPED:
                    return
                if trial.status == TrialStatus.IDLE:
                    time.sleep(_IDLE_SECONDS)  # fault 10
                    continue
                outcome = self._train(trial)
                self._report(trial, outcome)
            except grpc.RpcError as error:
                raise RFKerasError(
                    f"The coordinator does not answer ({error.code().name}). Start it again, "
                    "then this worker, which will resume its trial."
                ) from error
            on_end(self.row(trial, outcome.score))

    def _train(self, trial: Trial) -> TrialOutcome:
        """Train a trial; a trial with impossible options fails."""
        values, epochs = self._values(trial)
        run = self.folder.trial(trial.trial_id)
        try:
            config = complete_config(self.search_options.base, values, epochs)
        except ConfigError as error:
            return record_failure(run, str(error))
        return self.runner(run, config)

    def _report(self, trial: Trial, outcome: TrialOutcome) -> None:
        """Report the outcome of a trial to the oracle."""
        if outcome.score is None:
            trial.status, trial.message = TrialStatus.FAILED, outcome.reason
        else:
            metrics = {self.search_options.monitor: outcome.score}
            self.oracle.update_trial(trial.trial_id, metrics)
            trial.status = TrialStatus.COMPLETED
        self.oracle.end_trial(trial)

    def _values(self, trial: Trial) -> tuple[dict[str, object], int]:
        """Return the values of the searched options and the number of epochs."""
        given = trial.hyperparameters.values
        epochs = given.get(EPOCHS, self.search_options.base.epochs)
        return self.search_options.space.decode(given), epochs

    def row(self, trial: Trial, score: float | None) -> TrialRow:
        """Return what is known of a trial."""
        values, epochs = self._values(trial)
        return trial_row(
            self.search_options,
            self.folder.trial(trial.trial_id),
            trial.trial_id,
            _STATUS.get(trial.status, RUNNING),
            score,
            values,
            epochs,
            trial.hyperparameters.values.get(PROMOTED_FROM, ""),
        )

    def rows(self) -> list[TrialRow]:
        """Return all trials in the order of their start. Workers know only their own trials."""
        trials, _, _ = self.own_oracle.snapshot()
        return [
            self.row(t, t.score if t.status == TrialStatus.COMPLETED else None) for t in trials
        ]


def serve(
    tuner: SearchTuner,
    oracle: DurableOracle,
    monitor: HeartbeatMonitor,
    on_end: Callable[[], None],
) -> None:
    """Serve the workers until all trials have ended and all workers have left.

    Args:
        tuner: The coordinator's tuner.
        oracle: Its oracle.
        monitor: Finds dead workers.
        on_end: Called after trials have ended.

    Raises:
        RFKerasError: The address cannot be used, or all workers are dead.
    """
    errors: list[Exception] = []

    def run_server() -> None:
        try:
            tuner.search()
        except Exception as error:  # noqa: BLE001  raised in the main thread below
            errors.append(error)

    # Fault 11: the server runs in a thread, which ends with this process.
    server = threading.Thread(target=run_server, daemon=True, name="keras-tuner server")
    server.start()
    _, _, reported = oracle.snapshot()
    idle_since: float | None = None
    had_workers = False
    while True:
        time.sleep(_POLL_SECONDS)
        if errors:
            raise RFKerasError(f"The coordinator cannot serve: {errors[0]}") from errors[0]
        _, workers, ended = oracle.snapshot()
        if ended != reported:
            reported = ended
            on_end()
        for name in monitor.dead(workers):
            trial_id = oracle.forget_worker(name)
            trial = f"; trial {trial_id} goes to the next worker" if trial_id else ""
            print_status(
                f"Worker {name} has been silent for {monitor.timeout_seconds:g} s{trial}"
            )
        had_workers |= bool(workers)
        if workers or not had_workers:
            idle_since = None
            continue
        if oracle.has_run_out and (not oracle.unfinished or oracle.has_given_up):
            return
        idle_since = idle_since or monitor.clock()
        if monitor.clock() - idle_since > monitor.timeout_seconds:
            raise RFKerasError(
                f"All workers have gone, but trials are left. Start the coordinator and the "
                f"workers again with the same commands: {ended} trials have ended and will "
                "not be repeated."
            )
