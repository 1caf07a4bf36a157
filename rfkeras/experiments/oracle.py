"""keras-tuner's search methods, made to survive kills and dead workers.

What is changed, and why (keras-tuner 1.4.8):

- its state is written in place, so a kill in between leaves half a file: here a file is
  replaced whole;
- the state is saved before a trial leaves the list of running ones, so that after a kill
  it would be run again: here it is saved afterwards too;
- a trial that was given out, but not yet in the state when the process died, would be
  listed as running for ever: here it is forgotten;
- a second report of the same trial, by a worker that was taken for dead, would count twice;
- failures in a row raise inside a lock that is not released, and again at each later start:
  here they end the search, and count from the start of the process;
- a dead worker's trial would wait for that worker for ever, and the other workers leave:
  here they stay until all trials have ended.
"""

from __future__ import annotations

import copy
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    Search,
    SearchFolder,
    complete_config,
)
from rfkeras.experiments.search_report import DONE, FAILED, RUNNING, TrialRow, trial_row
from rfkeras.experiments.search_space import Grid, SearchSpace
from rfkeras.experiments.trial import Outcome, Runner, record_failure, run_in_process
from rfkeras.training.callbacks import say
from rfkeras.utils.files import write_text

EPOCHS, PROMOTED_FROM = "tuner/epochs", "tuner/trial_id"  # Hyperband's own values

_F = TypeVar("_F", bound=Callable[..., Any])


def _synchronized(method: _F) -> _F:
    """One call at a time, whichever thread or worker it comes from."""
    return cast(_F, keras_tuner.synchronized(method))


class DurableOracle(keras_tuner.Oracle):
    """What all methods here have over keras-tuner's.

    Attributes:
        max_failures: Trials that may fail one after the other.
        told_to_stop: Whether somebody asked for a trial when there was none left.
    """

    trials: dict[str, Any]
    ongoing_trials: dict[str, Any]
    tuner_ids: set[str]
    start_order: list[str]
    end_order: list[str]
    _retry_queue: list[str]

    max_failures = 3
    told_to_stop = False
    _ended_before = 0

    @property
    def state_file(self) -> Path:
        """The file of the state."""
        return Path(self._get_oracle_fname())

    @property
    def has_given_up(self) -> bool:
        """Whether too many trials in a row have failed since this process began."""
        last = self.end_order[self._ended_before :][-self.max_failures :]
        failed = [self.trials[trial_id].status == TrialStatus.FAILED for trial_id in last]
        return len(last) == self.max_failures and all(failed)

    def save(self) -> None:
        write_text(self.state_file, json.dumps(self.get_state()))

    def _save_trial(self, trial: Trial) -> None:
        path = Path(self._get_trial_dir(trial.trial_id)) / "trial.json"
        write_text(path, json.dumps(trial.get_state()))

    def reload(self) -> None:
        super().reload()
        self.trials = {trial_id: self.trials[trial_id] for trial_id in self.start_order}
        self._retry_queue = [
            trial_id
            for trial_id in dict.fromkeys(self._retry_queue)
            if trial_id not in self.end_order
        ]
        self._ended_before = len(self.end_order)

    @_synchronized
    def retry_failed(self) -> None:
        """Give out again what has failed."""
        failed = [
            trial_id
            for trial_id in self.end_order
            if self.trials[trial_id].status == TrialStatus.FAILED
        ]
        self.end_order = [trial_id for trial_id in self.end_order if trial_id not in failed]
        self._retry_queue = failed[::-1] + self._retry_queue  # given out from its end
        self._ended_before = len(self.end_order)

    @_synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        if self.has_given_up and tuner_id not in self.ongoing_trials:
            self.tuner_ids.discard(tuner_id)
            trial = Trial(self.get_space(), status=TrialStatus.STOPPED)
        else:
            trial = super().create_trial(tuner_id)
            if trial.status == TrialStatus.STOPPED and self.ongoing_trials:
                trial.status = TrialStatus.IDLE  # there may be a dead worker's trial to take
                self.tuner_ids.add(tuner_id)
        self.told_to_stop |= trial.status == TrialStatus.STOPPED
        return trial

    @_synchronized
    def end_trial(self, trial: Trial) -> None:
        trial_id = trial.trial_id
        if trial_id in self._retry_queue:  # its worker was taken for dead
            self._retry_queue.remove(trial_id)
        if trial_id not in self.end_order:
            # Messages between machines round the values and mix up their order.
            trial.hyperparameters = self.trials[trial_id].hyperparameters
            super().end_trial(trial)
        self.ongoing_trials = {
            tuner_id: ongoing
            for tuner_id, ongoing in self.ongoing_trials.items()
            if ongoing.trial_id != trial_id
        }
        self.save()

    @_synchronized
    def forget_worker(self, tuner_id: str) -> str | None:
        """Take a worker for dead: whoever asks next gets its trial, whose id is returned."""
        self.tuner_ids.discard(tuner_id)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is None:
            return None
        self._retry_queue.append(trial.trial_id)
        self.save()
        return str(trial.trial_id)

    @_synchronized
    def snapshot(self) -> tuple[list[Trial], set[str], int]:
        """All trials in the order of their start, the workers, and how many have ended."""
        trials = [copy.copy(trial) for trial in self.trials.values()]
        return trials, set(self.tuner_ids), len(self.end_order)

    @property
    def unfinished(self) -> int:
        """Trials that were given out and have not ended."""
        return len(self.trials) - len(self.end_order)


class _Hyperband(DurableOracle, HyperbandOracle):
    pass


class _Bayesian(DurableOracle, BayesianOptimizationOracle):
    pass


class _Random(DurableOracle, RandomSearchOracle):
    pass


def make_oracle(search: Search) -> DurableOracle:
    """keras-tuner's part of a search: it chooses the values of each trial."""
    shared: dict[str, Any] = {
        "objective": keras_tuner.Objective(
            search.monitor, "min" if search.lower_is_better else "max"
        ),
        "hyperparameters": hyperparameters(search.space),
        "allow_new_entries": False,
        "tune_new_entries": False,
        "seed": search.seed + 1,  # 0 would be taken for none
        "max_consecutive_failed_trials": sys.maxsize,  # see above
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
    """The space as keras-tuner sees it: places in grids, and numbers between two."""
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


ID, IP, PORT = "KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT"
ALONE, CHIEF, WORKER = "alone", "chief", "worker"
_BEAT_SECONDS = 1.0


@dataclass(frozen=True)
class Role:
    """What this process does in a search.

    Attributes:
        kind: "alone", "chief" (hands out trials, trains none) or "worker".
        name: keras-tuner's id of this process.
        address: "IP:PORT" of the chief; "" when alone.
    """

    kind: str = ALONE
    name: str = "tuner0"  # keras-tuner's own default
    address: str = ""


def read_role(environment: Mapping[str, str]) -> Role:
    """The role that keras-tuner's environment variables give this process.

    Raises:
        ConfigError: Some of them are missing or impossible.
    """
    given = [name for name in (ID, IP, PORT) if environment.get(name)]
    if not given:
        return Role()
    missing = [name for name in (ID, IP, PORT) if name not in given]
    if missing:
        raise ConfigError(
            f"A search by several processes needs {ID} (chief, or a name for each worker), "
            f"{IP} and {PORT}. Missing: {', '.join(missing)}."
        )
    name, port = environment[ID], environment[PORT]
    if not re.fullmatch(r"[\w-]+", name):
        raise ConfigError(f"{ID} must be letters, digits, - and _. Received: {name!r}.")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"{PORT} must be a number from 1 to 65535. Received: {port!r}.")
    kind = CHIEF if "chief" in name else WORKER  # as keras-tuner tells them apart
    return Role(kind, name, f"{environment[IP]}:{port}")


@contextmanager
def beating(path: Path) -> Iterator[None]:
    """Keep changing a file as long as the block, and this process, lasts."""
    over = threading.Event()

    def beat() -> None:
        count = 0
        while True:
            count += 1
            write_text(path, f"{time.time():.0f} {count}\n")
            if over.wait(_BEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        path.unlink(missing_ok=True)


@dataclass
class Watch:
    """Tells which workers are dead, by the clock of this process alone.

    Attributes:
        folder: Where their files are.
        timeout_seconds: How long a file may stand still.
        clock: Seconds that only grow.
    """

    folder: Path
    timeout_seconds: float
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)

    def dead(self, names: Collection[str]) -> list[str]:
        """Those of these workers whose file has not changed for too long."""
        now = self.clock()
        for name in names:
            content = self._read(name)
            if name not in self._seen or self._seen[name][0] != content:
                self._seen[name] = content, now
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}
        return [
            name for name in sorted(names) if now - self._seen[name][1] > self.timeout_seconds
        ]

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""


_IDLE_SECONDS = 1.0  # keras-tuner asks again at once where all that is left hangs on others
_STATUS = {TrialStatus.COMPLETED: DONE, TrialStatus.FAILED: FAILED}


class SearchTuner(BaseTuner):
    """keras-tuner's tuner for trials that are training runs.

    Args:
        search: The search.
        folder: Its folder. A search that lies there goes on.
        role: What this process does.
        runner: Trains a trial.
    """

    def __init__(
        self,
        search: Search,
        folder: SearchFolder,
        role: Role,
        runner: Runner = run_in_process,
    ) -> None:
        self.search_options = search
        self.folder = folder
        self.runner = runner
        self.own_oracle = own = make_oracle(search)  # of workers a mere description
        super().__init__(own, directory=str(folder.root), project_name=folder.state.name)
        # keras-tuner itself reloads only what this very role and name has left.
        if role.kind != WORKER and own.state_file.exists():
            own.reload()

    def save(self) -> None:
        """Nothing but the oracle has a state, and workers have none."""
        if not self._is_worker():
            self.oracle.save()

    def run_trials(self, on_end: Callable[[TrialRow], None]) -> None:
        """Train until nothing is left to do.

        Args:
            on_end: Called with each trial that has ended.

        Raises:
            DatasetError: The data cannot be used.
            RFKerasError: The chief does not answer.
            KeyboardInterrupt: Ctrl-C; the running trial has saved.
        """
        while True:
            try:
                trial = self.oracle.create_trial(self.tuner_id)
                if trial.status == TrialStatus.STOPPED:
                    return
                if trial.status == TrialStatus.IDLE:
                    time.sleep(_IDLE_SECONDS)
                    continue
                outcome = self._train(trial)
                self._report(trial, outcome)
            except grpc.RpcError as error:
                raise RFKerasError(
                    f"The chief does not answer ({error.code().name}). Start it again, then "
                    "this worker: the trial goes on."
                ) from error
            on_end(self.row(trial, outcome.figure))

    def _train(self, trial: Trial) -> Outcome:
        values, epochs = self._values(trial)
        run = self.folder.trial(trial.trial_id)
        try:
            config = complete_config(self.search_options.base, values, epochs)
        except ConfigError as error:
            return record_failure(run, str(error))
        return self.runner(run, config)

    def _report(self, trial: Trial, outcome: Outcome) -> None:
        if outcome.figure is None:
            trial.status, trial.message = TrialStatus.FAILED, outcome.reason
        else:
            metrics = {self.search_options.monitor: outcome.figure}
            self.oracle.update_trial(trial.trial_id, metrics)
            trial.status = TrialStatus.COMPLETED
        self.oracle.end_trial(trial)

    def _values(self, trial: Trial) -> tuple[dict[str, object], int]:
        """Values of the searched options, and epochs."""
        given = trial.hyperparameters.values
        epochs = given.get(EPOCHS, self.search_options.base.epochs)
        return self.search_options.space.decode(given), epochs

    def row(self, trial: Trial, score: float | None) -> TrialRow:
        """What is known of a trial."""
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


def rows_of(tuner: SearchTuner) -> list[TrialRow]:
    """All trials in the order of their start; not for workers, which know their own alone."""
    trials, _, _ = tuner.own_oracle.snapshot()
    return [
        tuner.row(t, t.score if t.status == TrialStatus.COMPLETED else None) for t in trials
    ]


_POLL_SECONDS = 0.5


def serve(
    tuner: SearchTuner,
    oracle: DurableOracle,
    watch: Watch,
    on_end: Callable[[], None],
) -> None:
    """Serve the workers until all trials have ended and all workers have left.

    keras-tuner's server runs in a thread beside, for it never ends when its workers die.

    Args:
        tuner: The chief's.
        oracle: Its oracle.
        watch: Tells which workers are dead.
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

    server = threading.Thread(target=run_server, daemon=True, name="keras-tuner server")
    server.start()
    _, _, reported = oracle.snapshot()
    lonely_since: float | None = None
    had_workers = False
    while True:
        time.sleep(_POLL_SECONDS)
        if errors:
            raise RFKerasError(f"The chief cannot serve: {errors[0]}") from errors[0]
        _, workers, ended = oracle.snapshot()
        if ended != reported:
            reported = ended
            on_end()
        for name in watch.dead(workers):
            trial_id = oracle.forget_worker(name)
            given_back = f"; trial {trial_id} goes to the next" if trial_id else ""
            say(f"Worker {name} shows no life for {watch.timeout_seconds:g} s{given_back}")
        had_workers |= bool(workers)
        if workers or not had_workers:
            lonely_since = None
            continue
        if oracle.told_to_stop and (not oracle.unfinished or oracle.has_given_up):
            return
        lonely_since = lonely_since or watch.clock()
        if watch.clock() - lonely_since > watch.timeout_seconds:
            raise RFKerasError(
                f"No worker is left, and trials are. Start chief and workers again by the same "
                f"commands: {ended} trials have ended, and no other begins anew."
            )
