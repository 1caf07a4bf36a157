"""A trial's process: what its end means, and that it ends with the search."""

import json
import os
import subprocess
import sys
import time

import pytest

from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import DatasetError
from rfkeras.experiments.trial import failure_file, read_outcome, result_file, run_in_process
from rfkeras.training import launch
from rfkeras.training.launch import LOG
from rfkeras.training.run_dir import RunFolder
from rfkeras.utils.files import try_exclusive, write_text
from tests.helpers.processes import ROOT


def with_code(monkeypatch, code):
    monkeypatch.setattr(launch, "command", lambda module, folder: [sys.executable, "-c", code])


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL, perhaps out of memory"),
        ("import os; os.abort()", "killed by SIGABRT"),
        ("print('error: no such figure'); exit(1)", "no such figure"),
        ("raise MemoryError('too wide')", "MemoryError: too wide"),
        ("exit(7)", "exit status 7"),
    ],
)
def test_a_trial_that_dies_has_failed_and_its_reason_is_kept(
    code, reason, tmp_path, monkeypatch
):
    with_code(monkeypatch, code)
    folder = RunFolder(tmp_path / "trial")
    outcome = run_in_process(folder, TrainConfig())
    assert (outcome.figure, outcome.reason) == (None, reason)
    assert failure_file(folder).read_text() == reason + "\n"


def test_missing_data_and_ctrl_c_are_no_failures_of_the_trial(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "trial")
    with_code(monkeypatch, "print('error: no clips'); exit(3)")
    with pytest.raises(DatasetError, match="^no clips$"):
        run_in_process(folder, TrainConfig())
    with_code(monkeypatch, "exit(130)")
    with pytest.raises(KeyboardInterrupt):
        run_in_process(folder, TrainConfig())
    assert not failure_file(folder).exists()


def test_the_figure_is_read_back_and_nan_is_a_failure(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "trial")
    with_code(monkeypatch, "")
    run = {"figure": 0.25}
    write_text(result_file(folder), json.dumps(run))
    assert run_in_process(folder, TrainConfig()).figure == 0.25
    write_text(result_file(folder), json.dumps({"figure": float("nan")}))
    assert read_outcome(folder).reason == "val_mAP is not a number"


def test_a_folder_with_another_trial_is_not_gone_on_with(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "trial")
    with_code(monkeypatch, "exit(1)")
    run_in_process(folder, TrainConfig(width=4))
    outcome = run_in_process(folder, TrainConfig(width=8))
    assert outcome.figure is None
    assert "other options than the search says (width (" in outcome.reason


def test_a_trial_ends_with_the_process_that_started_it_and_waits_for_its_folder(tmp_path):
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
        for _ in range(600):
            if (folder / LOG).read_text():
                break
            time.sleep(0.05)
        assert f"Waiting for process {os.getpid()}" in (folder / LOG).read_text()
        assert trial.poll() is None
        trial.stdin.close()  # as the kernel does when the parent is killed
        assert trial.wait(timeout=30) == 130
