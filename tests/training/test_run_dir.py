"""Snapshots are complete or absent, and fit only the model that they are from."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import CheckpointError
from rfkeras.training.run_dir import (
    RunFolder,
    create_run_folder,
    latest_unfinished,
    load_snapshot,
    read_record,
    save_snapshot,
    state_variables,
)


def model(units=3):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(units), keras.layers.Dropout(0.5)]
    built = keras.Sequential([keras.Input((4,)), *layers])
    built.compile("adam", "mse")
    built.fit(np.ones((2, 4)), np.ones((2, units)), verbose=0)
    return built


def test_a_snapshot_restores_values_and_record(tmp_path):
    first = model()
    variables = [*state_variables(first), *first.optimizer.variables]
    values = [v.numpy().copy() for v in variables]
    save_snapshot(tmp_path / "s.npz", variables, {"steps_done": 7, "history": [{"a": 0.5}]})
    first.fit(np.zeros((2, 4)), np.ones((2, 3)), verbose=0)
    assert any((v.numpy() != old).any() for v, old in zip(variables, values, strict=True))
    record = load_snapshot(tmp_path / "s.npz", variables)
    assert record == {"steps_done": 7, "history": [{"a": 0.5}]}
    assert record == read_record(tmp_path / "s.npz")
    for variable, old in zip(variables, values, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]


def test_the_files_of_a_run_have_the_documented_names(tmp_path):
    folder = RunFolder(tmp_path)
    names = {
        name: str(getattr(folder, name).relative_to(tmp_path))
        for name, value in vars(RunFolder).items()
        if isinstance(value, property) and isinstance(getattr(folder, name), Path)
    }
    documented = {
        "lock": ".lock",
        "config": "config.json",
        "environment": "environment.json",
        "initial_weights": "initial_weights.json",
        "training_clips": "training_clips.json",
        "log": "log.csv",
        "bad_files": "bad_files.csv",
        "tensorboard": "tensorboard",
        "last": "checkpoints/last.npz",
        "best": "checkpoints/best.npz",
        "final_weights": "final_weights.json",
        "pruning": "pruning.json",
        "model": "model.keras",
        "report": "report",
        "report_json": "report/report.json",
        "saved_model": "saved_model/1",
    }
    assert documented.items() <= names.items()


def test_the_newest_run_that_can_be_resumed_is_found(tmp_path):
    with pytest.raises(CheckpointError, match="no unfinished run"):
        latest_unfinished(tmp_path)
    for age, name in enumerate(("finished", "new", "old", "without snapshot")):
        folder = create_run_folder(TrainConfig(), tmp_path / name)
        if name != "without snapshot":
            folder.last.touch()
            os.utime(folder.last, (1e9 - age, 1e9 - age))
        if name == "finished":
            folder.saved_model.mkdir(parents=True)
    assert latest_unfinished(tmp_path).root.name == "new"


def test_state_variables_include_seeds():
    assert any("seed" in v.path for v in state_variables(model()))


def test_a_snapshot_of_another_model_is_an_error_and_changes_nothing(tmp_path):
    save_snapshot(tmp_path / "s.npz", state_variables(model(3)), {})
    other = model(5)
    before = [v.numpy().copy() for v in state_variables(other)]
    with pytest.raises(CheckpointError, match="first difference: .*kernel"):
        load_snapshot(tmp_path / "s.npz", state_variables(other))
    for variable, old in zip(state_variables(other), before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_damaged_snapshot_is_an_error(tmp_path, share):
    path = tmp_path / "s.npz"
    save_snapshot(path, state_variables(model()), {})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_record(path)


def test_a_missing_snapshot_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        read_record(tmp_path / "absent.npz")


def test_a_failed_write_keeps_the_old_snapshot(tmp_path):
    path = tmp_path / "s.npz"
    variables = state_variables(model())
    save_snapshot(path, variables, {"n": 1})
    with pytest.raises(TypeError):
        save_snapshot(path, variables, {"n": object()})
    assert read_record(path) == {"n": 1}


def test_a_finished_run_with_parts_of_its_own_is_no_obstacle(tmp_path):
    for number, name in enumerate(("finished", "unfinished")):
        config = TrainConfig(export=False, loss="my_focal" if name == "finished" else "auto")
        folder = create_run_folder(config, tmp_path / name)
        save_snapshot(folder.last, [], {})
        os.utime(folder.last, (9 - number, 9 - number))
    RunFolder(tmp_path / "finished").report_json.parent.mkdir()
    RunFolder(tmp_path / "finished").report_json.write_text("{}")
    assert latest_unfinished(tmp_path).root.name == "unfinished"
