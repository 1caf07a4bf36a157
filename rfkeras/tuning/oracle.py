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
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.oracles import (
    BayesianOptimizationOracle,
    HyperbandOracle,
    RandomSearchOracle,
)

from rfkeras.files import write_text
from rfkeras.tuning.parameters import Grid
from rfkeras.tuning.search import BAYESIAN, HYPERBAND, Search
from rfkeras.tuning.space import SearchSpace

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
