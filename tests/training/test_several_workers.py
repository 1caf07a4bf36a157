"""Several processes train one model, with the same results if some are killed."""

import json
import os
import random
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import keras
import numpy as np
import pytest

from rfkeras.training.distributed import RESTART_STATUS, tf_config
from rfkeras.training.launch import _worker_environments, slot_environments, visible_gpus
from rfkeras.utils.keras_workarounds import TESTED_KERAS
from tests.helpers.processes import ROOT, run, start
from tests.training.test_resume import final_state, steps_done

pytestmark = pytest.mark.slow

FLAGS = (
    "--dataset folder --width 4 --rho 0 --blocks 1,1,1 --allow-rf-change --epochs 2 "
    "--batch-size 4 --excerpt-seconds 0.5 --window-seconds 1 --learning-rate 0.01 "
    "--checkpoint-steps 3 --devices cpu --no-export "
    "--mixup 0.3 --averaging swa --swa-start-epoch 1 --final-weights average"
).split()


def addresses(count=2):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for own in sockets:
            own.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{own.getsockname()[1]}" for own in sockets]


def start_workers(*arguments):
    """Start two processes that run the same command as workers of one job.

    They have as many threads as those of `rfkeras launch`; with others, sums are rounded
    differently.
    """
    hosts = addresses()
    threads = slot_environments(2, [], len(os.sched_getaffinity(0)))
    return [
        start(*arguments, cwd=ROOT, TF_CONFIG=tf_config(hosts, index), **threads[index])
        for index in range(2)
    ]


def ended(processes):
    """Wait for processes; return exit statuses, standard outputs and standard errors."""
    texts = [process.communicate(timeout=240) for process in processes]
    return [p.returncode for p in processes], *map(list, zip(*texts, strict=True))


@pytest.fixture(scope="module")
def tested_keras():
    """Skip a test that trains with several workers if rfkeras would refuse to."""
    if not keras.__version__.startswith(TESTED_KERAS):
        pytest.skip(f"several workers need Keras {TESTED_KERAS}x")


@pytest.fixture(scope="module")
def results(tested_keras):
    statuses, outs, errs = ended(start_workers("-m", "tests.helpers.two_workers"))
    assert statuses == [0, 0], errs
    return [json.loads(out.splitlines()[-1]) for out in outs]


def test_workers_exchange_messages(results):
    for index, worker in enumerate(results):
        assert worker["strategy"] == "CollectiveAllReduceStrategy", index
        assert worker["sizes"] == [0, 256 * 40]
        assert worker["intact"]
        assert worker["broadcast"] == [0.1, float("inf"), 0]  # from the chief
        assert worker["gathered"] == [{"worker": 0}, {"worker": 1}]
        assert worker["shared"] == [1.5, 0.0, 7]


def test_two_workers_take_the_step_of_one_device(results):
    # Most labels of the first worker's half are unknown: the loss is that of the batch.
    for worker in results:
        assert max(worker["difference"].values()) < 1e-5, worker["difference"]


def test_two_workers_keep_the_same_statistics_and_draw_different_numbers(results):
    for worker in results:
        assert worker["statistics_apart"] == 0
        assert worker["rolled_apart"] > 0


@pytest.fixture(scope="module")
def whole(tested_keras, tone_folder, tmp_path_factory):
    """Train with two workers without interruption."""
    folder = tmp_path_factory.mktemp("workers") / "whole"
    flags = [*FLAGS, "--data-dir", tone_folder, "--run-dir", folder, "--auto-resume"]
    statuses, outs, errs = ended(start_workers("train.py", *flags))
    assert statuses == [0, 0], errs
    assert "Test mAP" in outs[0]
    assert "mAP" not in outs[1] + errs[1]  # only the chief prints results
    return folder


def wait_for(folder, steps, processes):
    """Return once enough steps are saved."""
    while steps_done(folder) < steps:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)


def test_killing_workers_at_random_steps_gives_the_same_weights(whole, tone_folder, tmp_path):
    """Kill a worker, resume with `rfkeras launch`, and kill the other one of its workers."""
    broken = tmp_path / "broken"
    flags = [*FLAGS, "--data-dir", tone_folder, "--run-dir", broken, "--auto-resume"]
    # The first loss must be noticed before the end, and leave steps to resume.
    total = steps_done(whole)
    first = random.randrange(1, total * 3 // 4)
    steps_to_kill = [first, random.randrange(first + 1, total - 4)]
    victim = random.Random().randrange(2)
    processes = start_workers("train.py", *flags)
    wait_for(broken, steps_to_kill[0], processes)
    processes[victim].send_signal(signal.SIGKILL)
    statuses, _, errs = ended(processes)
    assert statuses[victim] == -signal.SIGKILL
    assert statuses[1 - victim] == RESTART_STATUS, errs[1 - victim]
    assert "Another worker has ended or cannot be reached" in errs[1 - victim]

    saved = steps_done(broken)  # perhaps more: the loss is noticed some steps later
    launcher = start("-m", "rfkeras.cli", "launch", "--workers", 2, *flags)
    wait_for(broken, max(steps_to_kill[1], saved + 1), [launcher])
    os.kill(workers_of(launcher.pid)[1 - victim], signal.SIGKILL)
    out, err = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, err
    assert f"Worker {1 - victim} ended with SIGKILL" in err
    assert "Restarting all workers" in err
    # The chief may have finished before it noticed the second loss.
    finished = "The run is already finished" in out
    assert finished or "Test mAP" in out
    worker_output = (broken / "workers/worker-1.txt").read_text()
    assert "mAP" not in worker_output
    left = err if victim == 0 else worker_output  # of the worker that was not killed
    assert finished or "Another worker has ended or cannot be reached" in left

    arrays, rows, report, choice = final_state(whole)
    again, again_rows, again_report, again_choice = final_state(broken)
    for one, other in zip(arrays, again, strict=True):
        np.testing.assert_array_equal(other, one, err_msg=str(steps_to_kill))
    assert steps_done(broken) == steps_done(whole)
    assert again_choice == choice
    assert choice["weights"] == "average"
    assert again_report["summary"]["macro"] == report["summary"]["macro"]
    for row, other in zip(rows, again_rows, strict=True):
        for name, value in row.items():
            assert float(other[name]) == pytest.approx(float(value), rel=1e-5)


def test_a_finished_job_is_not_run_again(whole, tone_folder):
    flags = [*FLAGS, "--data-dir", tone_folder, "--run-dir", whole, "--auto-resume"]
    before = (whole / "model.keras").stat().st_mtime_ns
    statuses, outs, errs = ended(start_workers("train.py", *flags))
    assert statuses == [0, 0], errs
    assert "The run is already finished" in outs[0]
    assert (whole / "model.keras").stat().st_mtime_ns == before


def test_workers_with_different_options_are_an_error(tone_folder, tmp_path):
    hosts = addresses()
    processes = [
        start(
            "train.py",
            *FLAGS,
            *("--data-dir", tone_folder, "--run-dir", tmp_path / "run", "--seed", index),
            TF_CONFIG=tf_config(hosts, index),
        )
        for index in range(2)
    ]
    statuses, _, errs = ended(processes)
    assert statuses == [RESTART_STATUS, 1], errs
    assert "Worker 1 has other options than the chief: seed (0 there" in errs[1]


def workers_of(launcher):
    """Return the process ids of a launcher's workers."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text()
    return [int(text) for text in children.split()]


def test_launch_rejects_invalid_options(tone_folder, tmp_path):
    arguments = ("--data-dir", tone_folder, "--run-dir", tmp_path / "run", *FLAGS)
    status, _, err = run("-m", "rfkeras.cli", "launch", "--workers", 3, *arguments)
    assert status == 1
    assert "--batch-size must be a multiple of --workers 3. Received: 4." in err
    status, _, err = run("-m", "rfkeras.cli", "launch", "--workers", 0, *arguments)
    assert status == 1
    assert "--workers" in err


def test_workers_share_the_visible_gpus_or_use_none(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,-1,7")
    assert visible_gpus() == ["3", "5", "7"]
    gpus = [worker["CUDA_VISIBLE_DEVICES"] for worker in _worker_environments(2)]
    assert gpus == ["3,7", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    gpus = [worker["CUDA_VISIBLE_DEVICES"] for worker in _worker_environments(2)]
    assert gpus == ["-1", "-1"]
