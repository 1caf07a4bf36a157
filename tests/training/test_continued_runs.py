"""A finished run that is trained for more epochs."""

import json

import numpy as np
import pytest

from rfkeras.cli.main import build_parser
from rfkeras.cli.main import run as command
from rfkeras.cli.train import open_run
from rfkeras.config.resolve import complete, continue_config
from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import CheckpointError, ConfigError
from rfkeras.training.run_dir import create_run_folder, read_record, save_snapshot
from tests.helpers.whole_runs import configuration, fit, snapshot


def resumed(root, *flags):
    """Open a run as `rfkeras train --resume` does."""
    arguments = ["train", "--resume", str(root), *flags]
    options = build_parser(("train",)).parse_args(arguments)
    del options.imports  # as `rfkeras.cli.main.run` does
    return open_run(options)


@pytest.mark.slow
def test_a_continued_run_equals_one_that_was_that_long_from_the_start(
    tone_folder, tmp_path, capsys
):
    options = {
        "hold_epochs": 0.5,
        "decay_end_epoch": 2,
        "averaging": "swa",
        "swa_start_epoch": 1,
        "swa_every": 1,
        "mixup": 0.3,
        "final_weights": "average",
    }
    whole = fit(configuration(tone_folder, epochs=4, **options), tmp_path / "whole")
    fit(configuration(tone_folder, epochs=2, **options), tmp_path / "short")
    config, folder, resume = resumed(tmp_path / "short", "--epochs", "4")
    assert resume
    assert (config.epochs, config.hold_epochs, config.decay_end_epoch) == (4, 0.5, 2)
    assert "from 2 to 4 epochs: the learning-rate schedule is kept" in capsys.readouterr().err
    continued = fit(config, folder.root, resume=True)
    last = [snapshot(tmp_path / f"{x}/checkpoints/last.npz") for x in ("whole", "short")]
    for (name, value), other in zip(last[0].items(), last[1].values(), strict=True):
        np.testing.assert_array_equal(other, value, err_msg=name)
    for one, other in zip(whole.model.variables, continued.model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert read_record(folder.last)["history"][-1]["epoch"] == 4
    (record,) = json.loads(folder.continued.read_text())
    assert record["changes"] == {"epochs": [2, 4]}
    assert not (folder.root / "results-epoch-2/model.keras").exists()  # it was not finished


def short_run(root, stopped=False, finished=False, **options):
    """Write the files of a run of four epochs that are needed to continue it."""
    folder = create_run_folder(complete(TrainConfig(epochs=4, **options)), root)
    record = {"steps_done": 40, "stopped": stopped, "history": [{}] * 4, "data": {}}
    save_snapshot(folder.last, [], record)
    if finished:
        for path in (folder.saved_model, folder.report):
            path.mkdir(parents=True)
        folder.model.write_text("model of epoch 4")
    return folder


def test_results_of_the_finished_run_are_kept_aside(tmp_path):
    folder = short_run(tmp_path / "run", finished=True)
    assert folder.is_finished
    resumed(folder.root, "--epochs", "6")
    assert not folder.is_finished
    kept = folder.root / "results-epoch-4"
    assert (kept / "model.keras").read_text() == "model of epoch 4"
    assert {path.name for path in kept.iterdir()} == {"model.keras", "report", "saved_model"}
    assert resumed(folder.root)[0].epochs == 6  # an interrupted continuation is resumed
    resumed(folder.root, "--epochs", "8", "--learning-rate", "1e-5")
    changes = [row["changes"] for row in json.loads(folder.continued.read_text())]
    assert [change["epochs"] for change in changes] == [[4, 6], [6, 8]]
    assert changes[1]["learning_rate"] == [1e-4, 1e-5]


def test_resuming_a_finished_run_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rfkeras.training.api.train_in", lambda *_: None)
    for finished in (False, True):
        folder = short_run(tmp_path / str(finished), finished=finished)
        assert command(["train", "--resume", str(folder.root)]) == 0
        assert ("add --epochs N" in capsys.readouterr().out) is finished


@pytest.mark.parametrize("schedule", ["linear", "published"])
def test_the_default_schedule_is_that_of_the_new_number_of_epochs(schedule):
    config = complete(TrainConfig(epochs=7, schedule=schedule))
    longer, rule = continue_config(config, {"epochs": "14"})
    assert longer == complete(TrainConfig(epochs=14, schedule=schedule))
    assert "that of a run of 14 epochs" in rule
    own = complete(TrainConfig(epochs=7, schedule=schedule, hold_epochs=2, decay_end_epoch=5))
    longer, rule = continue_config(own, {"epochs": "14"})
    assert (longer.hold_epochs, longer.decay_end_epoch) == (2, 5)
    assert "the added epochs use its final rate" in rule
    changed, _ = continue_config(own, {"epochs": 14, "decay_end_epoch": "12"})
    assert (changed.hold_epochs, changed.decay_end_epoch) == (2, 12)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "3"], "must be at least 4, that of the run. Received: 3"),
        (["--width", "8", "--epochs", "6"], "Leave out: --width. These may change: --epochs"),
        (["--epochs", "x"], "whole number"),
        (["--recipe", "r.yaml"], "Leave out --recipe"),
    ],
)
def test_what_cannot_be_continued_is_refused(flags, message, tmp_path):
    folder = short_run(tmp_path / "run", finished=True)
    with pytest.raises(ConfigError, match=message):
        resumed(folder.root, *flags)
    assert folder.is_finished
    assert folder.read_config().epochs == 4


def test_a_run_that_stopped_early_names_another_way(tmp_path):
    folder = short_run(tmp_path / "run", stopped=True, early_stop_epochs=1)
    with pytest.raises(CheckpointError, match="stopped early.*--init-weights"):
        resumed(folder.root, "--epochs", "6")
