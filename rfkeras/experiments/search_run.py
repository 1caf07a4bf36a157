"""A search from its options to its table, pictures and recipe."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.experiments.oracle import (
    CHIEF,
    WORKER,
    Role,
    SearchTuner,
    Watch,
    beating,
    rows_of,
    serve,
)
from rfkeras.experiments.search import HYPERBAND, Search, SearchFolder, check_space, open_folder
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
from rfkeras.experiments.trial import Runner, run_in_process
from rfkeras.training.callbacks import say, spoken
from rfkeras.utils.files import try_exclusive


def run_search(
    search: Search,
    folder: SearchFolder,
    role: Role | None = None,
    worker_timeout_seconds: float = 60.0,
    retry_failed: bool = False,
    runner: Runner = run_in_process,
) -> None:
    """Do what is left of a search, or this process' part of it.

    Args:
        search: The search.
        folder: Where it goes; one that holds this search already goes on.
        role: What this process does; None: all of it.
        worker_timeout_seconds: Chief: how long a worker may show no life.
        retry_failed: Begin with the failed trials.
        runner: Trains a trial.

    Raises:
        ConfigError: Impossible options, or another search lies in the folder.
        DatasetError: The data cannot be used.
        RFKerasError: Too many trials failed, or chief or workers are gone.
        KeyboardInterrupt: Ctrl-C; the search can go on.
    """
    role = role or Role()
    check_space(search.space, search.base, search.shortest)
    folder.root.mkdir(parents=True, exist_ok=True)
    if role.kind == WORKER:
        open_folder(search, folder)
        with beating(folder.workers / role.name):
            _work(search, folder, role, runner)
        return
    with try_exclusive(folder.lock) as holder:
        if holder is not None:
            raise ConfigError(f"Process {holder} runs the search in {folder.root} already.")
        open_folder(search, folder)
        _lead(search, folder, role, worker_timeout_seconds, retry_failed, runner)


def _work(search: Search, folder: SearchFolder, role: Role, runner: Runner) -> None:
    say(f"Worker {role.name} of the search in {folder.root}, chief at {role.address}")
    tuner = SearchTuner(search, folder, role, runner)

    def on_end(row: TrialRow) -> None:
        score = f"failed: {row.reason}" if row.score is None else f"{row.score:.4f}"
        print(f"trial {row.trial_id}: {search.monitor} {score}", flush=True)

    tuner.run_trials(on_end)


def _lead(
    search: Search,
    folder: SearchFolder,
    role: Role,
    timeout_seconds: float,
    retry_failed: bool,
    runner: Runner,
) -> None:
    """Run all trials, or serve those who do."""
    tuner = SearchTuner(search, folder, role, runner)
    oracle = tuner.own_oracle
    if retry_failed:
        oracle.retry_failed()
    print(f"Search folder: {folder.root}", flush=True)
    _announce(search, len(oracle.end_order))
    reported = set(oracle.end_order)

    def report() -> None:
        rows = rows_of(tuner)
        for row in rows:
            if row.status != RUNNING and row.trial_id not in reported:
                reported.add(row.trial_id)
                print(trial_line(search, row, rows, planned_trials(search)), flush=True)
        write_table(search, folder, rows)
        write_best(search, folder, rows)
        write_plots(search, folder, rows)

    try:
        if role.kind == CHIEF:
            say(f"Chief at {role.address}, waiting for workers")
            serve(tuner, oracle, Watch(folder.workers, timeout_seconds), report)
        else:
            tuner.run_trials(lambda _: report())
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Go on with: tune.py --resume {shlex.quote(str(folder.root))}"
        ) from None
    report()
    _conclude(search, folder, rows_of(tuner), oracle.has_given_up)


def planned_trials(search: Search) -> int:
    """How many trials a search has in all, if its space is not used up before."""
    return sum(trials for trials, _ in search.rungs())


def _announce(search: Search, ended: int) -> None:
    trials = planned_trials(search)
    epochs = sum(trials * epochs for trials, epochs in search.rungs())
    before = f"; {ended} trials have ended" if ended else ""
    say(f"{search.method}: {trials} trials, {epochs} epochs in all{before}")
    say(f"Compared by {spoken(search.monitor)}")
    if search.method == HYPERBAND:
        shown = ", ".join(f"{trials} of {epochs}" for trials, epochs in search.rungs())
        say(f"Trials and their epochs, in the order of their start: {shown}")
    for name, text in search.space.to_text().items():
        say(f"  {name}: {text}")


def _conclude(
    search: Search, folder: SearchFolder, rows: Sequence[TrialRow], has_given_up: bool
) -> None:
    """Say what came of it.

    Raises:
        RFKerasError: Trials failed one after the other.
    """
    if has_given_up:
        reason = [row.reason for row in rows if row.status == FAILED][-1]
        raise RFKerasError(
            f"{search.max_failures} trials failed one after the other, the last with: {reason} "
            f"More is in output.txt of the trials in {folder.root / 'trials'}. Mend the cause, "
            f"then: tune.py --resume {shlex.quote(str(folder.root))} --retry-failed"
        )
    if len(rows) < planned_trials(search):
        failed = sum(row.status == FAILED for row in rows)
        why = (
            f"{failed} have failed, so fewer went on"
            if failed and search.method == HYPERBAND
            else "there are no other values to try"
        )
        print(f"The search is over after {len(rows)} trials: {why}.")
    best = best_row(search, rows)
    if best is None:
        return
    print(
        f"Best: {search.monitor} {best.score:.4f}, trial {best.trial_id}. The validation split "
        "chose it, so this figure flatters it; the test split has not been used.\n"
        f"Train and test it: train.py --recipe {shlex.quote(str(folder.best))}\n"
        f"Search folder: {folder.root}"
    )
