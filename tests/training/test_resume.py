"""A run that is killed and resumed gives the same results as an uninterrupted run."""

import csv
import json
import random
import shutil
import signal
import time

import numpy as np
import pytest

from rfkeras.errors import CheckpointError
from rfkeras.training.run_dir import read_record
from tests.helpers.processes import run, start

pytestmark = pytest.mark.slow

FLAGS = (
    "--dataset folder --width 4 --rho 0 --blocks 1,0,0 --allow-rf-change --epochs 3 "
    "--batch-size 4 --excerpt-seconds 0.5 --window-seconds 1 --learning-rate 0.01 "
    "--checkpoint-steps 3 --devices cpu --no-export"
).split()
THREADS = {"TF_NUM_INTRAOP_THREADS": "2"}  # resuming is exact also with several threads

RECIPES = {
    signal.SIGINT: (
        "--fixed-floor --cache-features "
        "--mixup 0.3 --time-roll --spec-augment --precision mixed_bfloat16 --averaging swa "
        "--swa-start-epoch 2 --swa-every 1 --prune-share 0.5 --prune-epochs 1 --clip-norm 1 "
        "--class-weights balanced --final-weights average"
    ),
    signal.SIGTERM: (
        "--mixup 0.3 --gain-db 6 --averaging ema --ema-decay 0.9 --optimizer adamw --shake "
        "--monitor val_loss --task single_label --final-weights best"
    ),
}


def steps_done(folder):
    try:
        return read_record(folder / "checkpoints/last.npz")["steps_done"]
    except CheckpointError:
        return 0


def stop_after(process, folder, steps, how):
    """Send a signal once enough steps are saved; return standard error and exit status."""
    while steps_done(folder) < steps:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(how)
    return process.communicate(timeout=120)[1], process.returncode


def final_state(folder):
    with np.load(folder / "checkpoints/last.npz") as snapshot:
        count = len(json.loads(str(snapshot["meta"]))["variables"])
        arrays = [snapshot[f"v{i}"] for i in range(count)]
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"]
    report = json.loads((folder / "report/report.json").read_text())
    choice = json.loads((folder / "final_weights.json").read_text())
    return arrays, rows, report, choice


@pytest.fixture(scope="module", params=RECIPES)
def whole(request, tone_folder, tmp_path_factory):
    """Train without interruption; return the signal, the flags, the folder and the output."""
    folder = tmp_path_factory.mktemp("resume") / "whole"
    flags = [*FLAGS, *RECIPES[request.param].split()]
    arguments = (*flags, "--data-dir", tone_folder, "--run-dir", folder)
    status, _, err = run("train.py", *arguments, **THREADS)
    assert status == 0, err
    return request.param, flags, folder, err


def test_interrupting_and_killing_at_random_steps_gives_the_same_weights(
    whole, tone_folder, tmp_path
):
    how, flags, folder, _ = whole
    data, broken = tmp_path / "data", tmp_path / "broken"
    shutil.copytree(tone_folder, data)
    # Only a run that is not about to end can answer a signal.
    total = steps_done(folder)
    first = random.randrange(1, total * 2 // 3)
    steps_to_stop = [first, random.randrange(first + 1, total - 4)]
    arguments = (*flags, "--data-dir", data, "--run-dir", broken)
    process = start("train.py", *arguments, **THREADS)
    err, status = stop_after(process, broken, steps_to_stop[0], how)
    assert status == 128 + how, err
    assert f"Resume from the last saved step with: rfkeras train --resume {broken}" in err
    if how == signal.SIGINT:
        check_that_other_data_is_rejected(broken, data)
        process = start("train.py", "--resume", broken, **THREADS)
        _, status = stop_after(process, broken, steps_to_stop[1], signal.SIGKILL)
        assert status == -signal.SIGKILL
    status, _, err = run("train.py", "--resume", broken, **THREADS)
    assert status == 0, err

    arrays, rows, report, choice = final_state(folder)
    resumed_arrays, resumed_rows, resumed_report, resumed_choice = final_state(broken)
    for array, resumed in zip(arrays, resumed_arrays, strict=True):
        np.testing.assert_array_equal(resumed, array, err_msg=str(steps_to_stop))
    assert [row["epoch"] for row in resumed_rows] == ["1", "2", "3"]
    for row, resumed in zip(rows, resumed_rows, strict=True):
        for name, value in row.items():
            assert float(resumed[name]) == pytest.approx(float(value), rel=1e-5)
    assert resumed_choice == choice
    assert resumed_report["summary"]["macro"] == pytest.approx(report["summary"]["macro"])


def check_that_other_data_is_rejected(folder, data):
    """Check that an interrupted run is not resumed while there is another file."""
    shutil.copy(data / "low/03.wav", data / "low/new.wav")
    status, _, err = run("train.py", "--resume", folder)
    assert status == 1
    assert "has changed since the run began" in err
    assert "Traceback" not in err
    (data / "low/new.wav").unlink()


def test_final_weights_are_those_asked_for_or_the_better_ones(whole):
    how, _, folder, err = whole
    _, _, report, choice = final_state(folder)
    candidates = choice["candidates"]
    if how == signal.SIGINT:
        assert choice["weights"] == "average"
    else:
        better = candidates["average"]["val_loss"] < candidates["best"]["val_loss"]
        assert choice["weights"] == ("average" if better else "best")
        assert "accuracy" in json.dumps(report)
    assert f"Final weights: {choice['weights']}" in err


def test_resuming_without_a_run_is_an_error(tmp_path):
    status, _, err = run("train.py", "--resume", tmp_path)
    assert status == 1
    assert "is not a run folder" in err
