"""The processes of a sweep: several runs in one process, failures and interruptions."""

import json
import signal

import numpy as np
import pytest

from rfkeras.experiments import sweep_run
from rfkeras.experiments.sweep import Job, SweepRun, prepare_job
from rfkeras.experiments.sweep_run import run_jobs
from rfkeras.training.launch import start_child
from rfkeras.training.run_dir import RunFolder
from rfkeras.utils.files import try_exclusive
from tests.helpers.whole_runs import configuration, snapshot

pytestmark = pytest.mark.slow

FIRST, SECOND = SweepRun("shake", 1, 0), SweepRun("plain", 0, 1)


@pytest.fixture
def started(monkeypatch):
    """Return a list of the processes that the sweep starts."""
    processes = []

    def spy(*arguments, **options):
        processes.append(start_child(*arguments, **options))
        return processes[-1]

    monkeypatch.setattr(sweep_run, "start_child", spy)
    return processes


def jobs_of(data, folder, *runs, **options):
    jobs = []
    for run in runs:
        config = configuration(data, mixup=0.3, blocks="1,1,0", **options, **run.options())
        jobs.append(Job(run, RunFolder(folder / "runs" / run.name), config, ()))
    return jobs


def statuses(jobs, count=1):
    outcomes = []
    run_jobs(jobs, count, outcomes.append)
    return {outcome.job.run: outcome.status for outcome in outcomes}


def results(job):
    """Return all variables after the last step, and the test report."""
    report = json.loads(job.folder.report_json.read_text())
    return snapshot(job.folder.last), report["summary"]


def test_a_second_run_in_a_process_equals_the_same_run_alone(tone_folder, tmp_path):
    options = {"fixed_floor": True, "cache_features": True, "averaging": "ema", "epochs": 1}
    both = jobs_of(tone_folder, tmp_path / "both", FIRST, SECOND, **options)
    (alone,) = jobs_of(tone_folder, tmp_path / "alone", SECOND, **options)
    for job in both:
        prepare_job(job)
    roots = [str(job.folder.root) for job in both]
    module = "rfkeras.experiments.sweep_run"
    with start_child(module, both[0].folder, options=roots[1:], piped=True) as process:
        assert process.stdout.read().decode().splitlines() == [f"done {root}" for root in roots]
    assert process.returncode == 0
    assert statuses([alone]) == {SECOND: "done"}
    (variables, report), (others, other_report) = map(results, (both[1], alone))
    assert list(variables) == list(others)
    for name, value in variables.items():
        np.testing.assert_array_equal(value, others[name], err_msg=name)
    assert report == other_report
    for job in both:  # each has its own output, and only that
        text = (job.folder.root / "output.txt").read_text()
        assert text.count("Scoring the test split") == 1
        assert "epoch 1/1" in text


def test_failed_and_locked_runs_do_not_stop_the_others(tone_folder, tmp_path, started):
    third = SweepRun("plain", 0, 2)
    jobs = jobs_of(tone_folder, tmp_path, FIRST, SECOND, third, epochs=1)
    for job in jobs:
        prepare_job(job)
    jobs[0].folder.last.parent.mkdir(exist_ok=True)
    jobs[0].folder.last.write_bytes(b"nonsense")
    with try_exclusive(jobs[1].folder.lock):
        assert statuses(jobs) == {FIRST: "failed", SECOND: "elsewhere", third: "done"}
    assert len(started) == 2  # a new one after the failed run
    assert all(process.returncode is not None for process in started)
    output = (jobs[0].folder.root / "output.txt").read_text().splitlines()
    assert output[-1].startswith(f"error: {jobs[0].folder.last}")


def test_the_runs_of_a_killed_process_fail_and_a_new_process_does_the_rest(
    tone_folder, tmp_path, started, monkeypatch
):
    jobs = jobs_of(tone_folder, tmp_path, FIRST, SECOND, epochs=1)
    outcome = sweep_run._RunProcess.outcome

    def kill_first(self):
        if self._job.run == FIRST and jobs[0].folder.lock.exists():
            self._process.kill()
            self._process.wait()
        return outcome(self)

    monkeypatch.setattr(sweep_run._RunProcess, "outcome", kill_first)
    assert statuses(jobs) == {FIRST: "failed", SECOND: "done"}
    assert [process.returncode for process in started] == [-signal.SIGKILL, 0]
