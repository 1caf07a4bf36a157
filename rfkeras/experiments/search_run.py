"""Run a search: from its options to its table, plots and recipe."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.experiments.oracle import SearchTuner, serve
from rfkeras.experiments.search import (
    COORDINATOR,
    HYPERBAND,
    WORKER,
    HeartbeatMonitor,
    Role,
    Search,
    SearchFolder,
    check_space,
    heartbeat,
    open_folder,
)
from rfkeras.experiments.search_report import (
    FAILED,
    RUNNING,
    TrialRow,
    best_row,
    trial_line,
    write_best,
    write_plots,
    write_table,
)
from rfkeras.experiments.trial import TrialRunner, run_trial
from rfkeras.training.callbacks import metric_label
from rfkeras.utils.files import try_exclusive
from rfkeras.utils.progress import print_status
from rfkeras.utils.text import count


def run_search(
    search: Search,
    folder: SearchFolder,
    role: Role | None = None,
    worker_timeout_seconds: float = 60.0,
    retry_failed: bool = False,
    runner: TrialRunner = run_trial,
) -> None:
    """Finish a search, or this process's part of it.

    Args:
        search: The search.
        folder: Its folder. If it already holds this search, the search is continued.
        role: Role of this process; None if it does everything.
        worker_timeout_seconds: The coordinator considers a worker dead if it is silent for
            this long.
        retry_failed: Start with the failed trials.
        runner: Trains a trial.

    Raises:
        ConfigError: Options are impossible, or the folder holds another search.
        DatasetError: The data cannot be used.
        RFKerasError: Too many trials failed, or the coordinator or the workers are gone.
        KeyboardInterrupt: Ctrl-C. The search can be resumed.
    """
    role = role or Role()
    check_space(search.space, search.base, search.shortest)
    folder.root.mkdir(parents=True, exist_ok=True)
    if role.kind == WORKER:
        open_folder(search, folder)
        with heartbeat(folder.workers / role.name):
            _run_worker(SearchTuner(search, folder, role, runner), search, folder, role)
        return
    with try_exclusive(folder.lock) as holder:
        if holder is not None:
            raise ConfigError(f"Process {holder} is already running the search {folder.root}.")
        open_folder(search, folder)
        tuner = SearchTuner(search, folder, role, runner)
        if retry_failed:
            tuner.own_oracle.retry_failed()
        _run_all(tuner, search, folder, role, worker_timeout_seconds)


def _run_worker(tuner: SearchTuner, search: Search, folder: SearchFolder, role: Role) -> None:
    """Run trials of a coordinator until none is left."""
    print_status(
        f"Worker {role.name} of the search in {folder.root}, coordinator at {role.address}"
    )

    def on_end(row: TrialRow) -> None:
        score = f"failed: {row.reason}" if row.score is None else f"{row.score:.4f}"
        print(f"trial {row.trial_id}: {search.monitor} {score}", flush=True)

    tuner.run_trials(on_end)


def _run_all(
    tuner: SearchTuner, search: Search, folder: SearchFolder, role: Role, timeout_seconds: float
) -> None:
    """Run all trials, or serve the workers that run them, and report the results."""
    oracle = tuner.own_oracle
    print(f"Search folder: {folder.root}", flush=True)
    _announce(search, len(oracle.end_order))
    reported = set(oracle.end_order)

    def report() -> None:
        rows = tuner.rows()
        for row in rows:
            if row.status != RUNNING and row.trial_id not in reported:
                reported.add(row.trial_id)
                print(trial_line(search, row, rows, planned_trials(search)), flush=True)
        write_table(search, folder, rows)
        write_best(search, folder, rows)
        write_plots(search, folder, rows)

    try:
        if role.kind == COORDINATOR:
            print_status(f"Coordinator at {role.address}, waiting for workers")
            serve(tuner, oracle, HeartbeatMonitor(folder.workers, timeout_seconds), report)
        else:
            tuner.run_trials(lambda _: report())
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Resume with: rfkeras tune --resume {shlex.quote(str(folder.root))}"
        ) from None
    report()
    _conclude(search, folder, tuner.rows(), oracle.has_given_up)


def planned_trials(search: Search) -> int:
    """Return the number of trials of a search, unless its space has fewer values."""
    return sum(trials for trials, _ in search.rungs())


def _announce(search: Search, ended: int) -> None:
    """Print the plan of the search."""
    epochs = sum(trials * epochs for trials, epochs in search.rungs())
    plan = f"{count(planned_trials(search), 'trial')}, {count(epochs, 'epoch')} in total"
    before = f", {ended} already done" if ended else ""
    print_status(f"{search.method}: {plan}{before}")
    print_status(f"Trials are compared by {metric_label(search.monitor)}")
    if search.method == HYPERBAND:
        rungs = ", ".join(f"{trials} x {epochs}" for trials, epochs in search.rungs())
        print_status(f"Trials x epochs, in the order in which they start: {rungs}")
    for name, text in search.space.to_text().items():
        print_status(f"  {name}: {text}")


def _conclude(
    search: Search, folder: SearchFolder, rows: Sequence[TrialRow], has_given_up: bool
) -> None:
    """Print the result of the search.

    Raises:
        RFKerasError: Too many trials in a row have failed.
    """
    if has_given_up:
        reason = [row.reason for row in rows if row.status == FAILED][-1]
        raise RFKerasError(
            f"{count(search.max_failures, 'trial')} failed in a row, the last with: {reason} "
            f"See output.txt of the trials in {folder.root / 'trials'}. Fix the cause, then "
            f"run: rfkeras tune --resume {shlex.quote(str(folder.root))} --retry-failed"
        )
    if len(rows) < planned_trials(search):
        failed = sum(row.status == FAILED for row in rows)
        why = (
            f"{failed} failed, so fewer were promoted"
            if failed and search.method == HYPERBAND
            else "there are no other values to try"
        )
        print(f"The search ended after {count(len(rows), 'trial')}: {why}.")
    best = best_row(search, rows)
    if best is None:
        return
    print(
        f"Best: {search.monitor} {best.score:.4f}, trial {best.trial_id}. This score is "
        "optimistic, because the trial was chosen by it on the validation split. The test "
        "split has not been used.\n"
        f"Train and test it: rfkeras train --recipe {shlex.quote(str(folder.best))}\n"
        f"Search folder: {folder.root}"
    )
