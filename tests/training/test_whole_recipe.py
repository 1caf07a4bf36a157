"""Complete runs with the options of a recipe: files, choice of weights, errors."""

import json

import numpy as np
import pytest

from tests.helpers.processes import run
from tests.training.test_data import damaged_copy

pytestmark = pytest.mark.slow

FLAGS = (
    "--dataset folder --width 4 --rho 0 --blocks 1,0,0 --allow-rf-change --batch-size 8 "
    "--excerpt-seconds 0.5 "
    "--window-seconds 1 --learning-rate 0.01 --devices cpu --no-export"
).split()


def train(tone_folder, folder, options):
    status, out, err = run(
        *("train.py", *FLAGS, *options.split(), "--data-dir", tone_folder, "--run-dir", folder)
    )
    assert status == 0, err
    return out, err


def weights_and_policies(folder):
    """Return zeros and weights in kernels, and dtype policies, of the finished model."""
    code = (
        "import json, rfkeras, numpy as np; "
        f"model = rfkeras.load_model({str(folder / 'model.keras')!r}); "
        "kernels = [v.numpy() for v in model.trainable_variables if len(v.shape) > 1]; "
        "zeros = sum(int((k == 0).sum()) for k in kernels); "
        "policies = sorted({layer.dtype_policy.name for layer in model._flatten_layers()}); "
        "print(json.dumps([zeros, sum(k.size for k in kernels), policies]))"
    )
    status, out, err = run("-c", code)
    assert status == 0, err
    return json.loads(out.splitlines()[-1])


def test_pruned_jit_bfloat16_run_with_early_stopping(tone_folder, tmp_path):
    out, err = train(
        tone_folder,
        tmp_path / "run",
        "--epochs 30 --prune-share 0.5 --prune-epochs 2 --prune-scope layer --jit "
        "--initialization he --precision mixed_bfloat16 --early-stop-epochs 1 --mixup 0.3 "
        "--time-roll --monitor val_roc_auc",
    )
    folder = tmp_path / "run"
    zeros, weights, policies = weights_and_policies(folder)
    assert zeros == 0.5 * weights  # every kernel has an even number of weights
    assert policies == ["float32"]
    counts = json.loads((folder / "pruning.json").read_text())
    assert counts["nonzero"] == counts["parameters"] - zeros
    assert f"Pruned: {counts['nonzero']:,} parameters are left" in err
    log = np.genfromtxt(folder / "log.csv", delimiter=",", names=True)
    assert 3 < len(log) < 30
    choice = json.loads((folder / "final_weights.json").read_text())
    best = choice["candidates"]["best"]
    assert choice["weights"] == "best"
    assert best["epoch"] >= 3  # no epoch before the last prune is the best
    assert best["val_roc_auc"] == pytest.approx(log["val_roc_auc"][2:].max())
    assert log["val_roc_auc"][-1] <= best["val_roc_auc"]
    assert "validation roc auc" in err


def test_an_unknown_metric_is_an_error_before_training(tone_folder, tmp_path):
    status, _, err = run(
        *("train.py", *FLAGS, "--data-dir", tone_folder, "--run-dir", tmp_path / "run"),
        *("--monitor", "val_accuracy"),
    )
    assert status == 1
    assert "Unknown monitor 'val_accuracy'" in err
    assert "val_roc_auc" in err
    assert "Traceback" not in err
    assert not (tmp_path / "run/log.csv").exists()


def test_options_of_another_architecture_are_errors(tone_folder, tmp_path):
    status, _, err = run(
        *("train.py", "--dataset", "folder", "--data-dir", tone_folder),
        *("--model", "vgg_rf", "--shake", "--run-dir", tmp_path / "run"),
    )
    assert status == 1
    assert "Unknown option of vgg_rf 'shake'" in err
    assert "rho" in err


def test_two_devices_with_xla_clipping_and_averaging(tone_folder, tmp_path):
    options = (
        "--epochs 2 --devices cpu:2 --jit --clip-norm 1 --averaging swa --swa-every 1 "
        "--swa-start-epoch 1 --final-weights average --mixup 0.3 --optimizer adamw "
        "--task single_label --monitor val_accuracy"
    )
    _, err = train(tone_folder, tmp_path / "run", options)
    choice = json.loads((tmp_path / "run/final_weights.json").read_text())
    assert choice["weights"] == "average"
    assert "Final weights: average" in err
    assert 0.0 <= choice["candidates"]["average"]["val_mAP"] <= 1.0
    report = json.loads((tmp_path / "run/report/report.json").read_text())
    assert "accuracy" in json.dumps(report)


def test_last_weights_of_a_run_with_damaged_files(tone_folder, tmp_path):
    data = damaged_copy(tone_folder, tmp_path / "data", bad=1)
    folder = tmp_path / "run"
    options = (
        "--epochs 1 --final-weights last --task single_label --monitor val_accuracy "
        "--max-bad-share 0.1"
    )
    _, err = train(data, folder, options)
    assert "Skipping 2 unusable files" in err
    assert "file damaged and used only in part" in err
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["data"]["bad_files"] == 2
    assert len((folder / "bad_files.csv").read_text().splitlines()) == 3
    choice = json.loads((folder / "final_weights.json").read_text())
    assert choice["weights"] == "last"
    assert "Final weights: last" in err
    report = json.loads((folder / "report/report.json").read_text())
    assert "accuracy" in json.dumps(report)
