"""The process of a trial: its exit statuses, and that it ends with the search."""

import json
import os
import subprocess
import sys
import time

import pytest

from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import DatasetError
from rfkeras.experiments.trial import failure_file, read_outcome, result_file, run_trial
from rfkeras.training import launch
from rfkeras.training.launch import LOG
from rfkeras.training.run_dir import RunFolder
from rfkeras.utils.files import try_exclusive, write_text
from tests.helpers.processes import ROOT


def with_code(monkeypatch, code):
    """Let trials run this Python code instead of training."""
    monkeypatch.setattr(launch, "command", lambda module, folder: [sys.executable, "-c", code])


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL, perhaps out of memory"),
        ("import os; os.abort()", "killed by SIGABRT"),
        ("print('error: no such metric'); exit(1)", "no such metric"),
        ("raise MemoryError('too wide')", "MemoryError: too wide"),
        ("exit(7)", "exit status 7"),
    ],
)
def test_trial_that_dies_has_failed_and_its_reason_is_recorded(
    code, reason, tmp_path, monkeypatch
):
    with_code(monkeypatch, code)
    folder = RunFolder(tmp_path / "trial")
    outcome = run_trial(folder, TrainConfig())
    assert (outcome.score, outcome.reason) == (None, reason)
    assert failure_file(folder).read_text() == reason + "\n"


def test_missing_data_and_ctrl_c_do_not_count_as_failures_of_the_trial(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "trial")
    with_code(monkeypatch, "print('error: no clips'); exit(3)")
    with pytest.raises(DatasetError, match="^no clips$"):
        run_trial(folder, TrainConfig())
    with_code(monkeypatch, "exit(130)")
    with pytest.raises(KeyboardInterrupt):
        run_trial(folder, TrainConfig())
    assert not failure_file(folder).exists()


def test_score_is_read_back_and_nan_is_a_failure(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "trial")
    with_code(monkeypatch, "")
    run = {"figure": 0.25}
    write_text(result_file(folder), json.dumps(run))
    assert run_trial(folder, TrainConfig()).score == 0.25
    write_text(result_file(folder), json.dumps({"figure": float("nan")}))
    assert read_outcome(folder).reason == "val_mAP is not a number"


def test_folder_with_another_trial_is_not_used(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "trial")
    with_code(monkeypatch, "exit(1)")
    run_trial(folder, TrainConfig(width=4))
    outcome = run_trial(folder, TrainConfig(width=8))
    assert outcome.score is None
    assert "options differ from those of the search: width (" in outcome.reason


def test_trial_waits_for_its_folder_and_ends_with_its_parent(tmp_path):
    folder = tmp_path / "trial"
    folder.mkdir()
    with try_exclusive(folder / ".lock") as holder:
        assert holder is None
        with (folder / LOG).open("w") as output:
            trial = subprocess.Popen(
                [sys.executable, "-m", "rfkeras.experiments.trial", str(folder)],
                stdin=subprocess.PIPE,
                stderr=output,
                cwd=ROOT,
            )
        waiting = f"Waiting for process {os.getpid()}"
        for _ in range(600):
            if waiting in (folder / LOG).read_text():  # TensorFlow may print before it
                break
            time.sleep(0.05)
        assert waiting in (folder / LOG).read_text()
        assert trial.poll() is None
        trial.stdin.close()  # as the kernel does when the parent is killed
        assert trial.wait(timeout=30) == 130
