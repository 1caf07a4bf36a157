"""A run that diverges stops, names the variable, and keeps the last good state."""

import csv
from unittest import mock

import numpy as np
import pytest

import zoo
from rfkeras.cli.main import run as command
from rfkeras.errors import CheckpointError
from rfkeras.experiments.sweep_run import main as run_of_sweep
from rfkeras.experiments.trial import main as trial
from rfkeras.training import run
from rfkeras.training.callbacks import Diverged
from rfkeras.training.run_dir import create_run_folder, load_snapshot, save_snapshot
from tests.helpers.whole_runs import AtEpoch, configuration, eager_model, fit, snapshot, weights
from zoo.pretrained import load_model


def spoil(variable, value=np.nan):
    values = np.array(variable.numpy())
    values.flat[0] = value
    variable.assign(values)


def small_network(**options):
    blocks = {"blocks": (1, 0, 0), "allow_rf_change": True}
    return zoo.create_model("resnet_rf", 3, width=4, rho=0, **blocks, **options)


def named(variables, part):
    return next(v for v in variables if part in v.path)


CHOICES = {
    "moving_variance": lambda model: named(model.tagger.variables, "moving_variance"),
    "kernel": lambda model: named(model.tagger.trainable_variables, "kernel"),
    "gamma_average": lambda model: named([v for _, v in model.averages], "gamma_average"),
    "mean_db": lambda model: model.frontend.mean_db,
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_run_that_meets_nan_keeps_the_last_good_epoch(name, tone_folder, tmp_path):
    def spoil_second(model, epoch):
        if epoch == 2:
            spoil(CHOICES[name](model))

    config = configuration(tone_folder, averaging="ema", epochs=4)
    with pytest.raises(Diverged, match="has diverged: variable .* in epoch 2") as error:
        fit(config, tmp_path / "run", spoil_second)
    if name != "mean_db":  # every weight after it follows
        assert name in str(error.value)
    assert "--resume" in str(error.value)
    assert "lower --learning-rate" in str(error.value)
    last, best = (snapshot(tmp_path / f"run/checkpoints/{x}.npz") for x in ("last", "best"))
    assert all(np.isfinite(value).all() for value in (*last.values(), *best.values()))
    with (tmp_path / "run/log.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]
    model = load_model(tmp_path / "run/model.keras")
    assert "weights of epoch 1" in str(error.value)
    for value, kept in zip(weights(model), best.values(), strict=False):
        np.testing.assert_array_equal(value, kept)


def test_a_run_that_starts_from_nan_does_not_train(tone_folder, tmp_path):
    start = run._start

    def start_spoiled(tagger, *arguments):
        start(tagger, *arguments)
        spoil(named(tagger.variables, "moving_mean"), np.inf)

    config = configuration(tone_folder)
    with (
        mock.patch.object(run, "_start", start_spoiled),
        pytest.raises(Diverged, match=r"moving_mean is NaN or infinite before the first step"),
    ):
        fit(config, tmp_path / "run")
    assert not (tmp_path / "run/checkpoints/last.npz").exists()
    assert not (tmp_path / "run/model.keras").exists()


def diverging(model, epoch):
    if epoch == 2:
        spoil(CHOICES["kernel"](model))


@pytest.fixture
def diverging_runs(monkeypatch):
    """Let every run of this process diverge in its second epoch."""
    monkeypatch.setattr(run, "build_training_model", eager_model)
    monkeypatch.setattr(run, "TensorBoardLogger", lambda _: AtEpoch(diverging))


def test_commands_end_with_a_status_and_a_message(
    tone_folder, tmp_path, diverging_runs, monkeypatch, capsys
):
    monkeypatch.setattr("rfkeras.experiments.trial.obey_parent", lambda: None)
    monkeypatch.setattr("rfkeras.experiments.sweep_run.obey_parent", lambda _: None)
    folder = create_run_folder(configuration(tone_folder), tmp_path / "run")
    assert trial(str(folder.root)) == 4
    assert "diverged: variable" in capsys.readouterr().err
    assert run_of_sweep([str(folder.root)]) == 1  # it resumes, and diverges again
    assert "has diverged: variable" in capsys.readouterr().err
    assert command(["train", "--resume", str(folder.root)]) == 1
    assert "rfkeras train: error: Training has diverged: variable" in capsys.readouterr().err
    assert not folder.is_finished


def test_a_snapshot_with_nan_is_refused_and_changes_nothing(tmp_path):
    model = small_network()
    before = weights(model)
    save_snapshot(tmp_path / "good.npz", model.variables, {})
    spoil(named(model.variables, "gamma"))
    save_snapshot(tmp_path / "bad.npz", model.variables, {})
    load_snapshot(tmp_path / "good.npz", model.variables)
    with pytest.raises(CheckpointError, match=r"bad.npz cannot be used: variable .*gamma"):
        load_snapshot(tmp_path / "bad.npz", model.variables)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.parametrize("part", ["gamma", "moving_variance", "kernel", "mean_db"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_model_with_nan_is_refused_wherever_it_is_loaded(part, value, tmp_path, capsys):
    model = small_network()
    spoil(named(model.variables, part), value)
    model.save(tmp_path / "model.keras")
    path = str(tmp_path / "model.keras")
    message = f"variable .*{part} contains NaN or infinity"
    with pytest.raises(CheckpointError, match=message):
        load_model(path)
    with pytest.raises(CheckpointError, match=message):
        small_network(weights=path)
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(CheckpointError, match=message):
        small_network(weights=tmp_path / "model.weights.h5")
    assert command(["export", path, "--to", "tflite", "--output", f"{path}.tflite"]) == 1
    assert part in capsys.readouterr().err


def test_initial_weights_with_nan_stop_the_run_before_it_trains(tone_folder, tmp_path):
    config = configuration(tone_folder)
    good = fit(config, tmp_path / "good")
    spoil(named(good.model.variables, "beta"))
    good.model.save(tmp_path / "bad.keras")
    config = configuration(tone_folder, init_weights=str(tmp_path / "bad.keras"))
    with pytest.raises(CheckpointError, match="beta contains NaN or infinity"):
        fit(config, tmp_path / "run")
