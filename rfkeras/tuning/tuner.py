"""The loop of a search: ask for values, train, report."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus

from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.tuning.oracle import EPOCHS, PROMOTED_FROM, make_oracle
from rfkeras.tuning.results import DONE, FAILED, RUNNING, TrialRow, trial_row
from rfkeras.tuning.runner import Outcome, Runner, record_failure, run_in_process
from rfkeras.tuning.search import Search, SearchFolder
from rfkeras.tuning.trial_config import complete_config
from rfkeras.tuning.workers import WORKER, Role

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
