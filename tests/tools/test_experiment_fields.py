"""Effective fields of the networks of the experiment (tools/experiment_fields.py)."""

import csv
import json

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import zoo
from tests.helpers.feature_files import SCALE, features, write
from tools import experiment_fields
from tools.feature_parts import Features

OPTIONS = {"width": 4, "blocks": [1, 1, 1], "allow_rf_change": True}
PLAN = {
    "conditions": [
        {"name": "plain", "options": OPTIONS, "rhos": [1, 3], "seeds": [0, 1]},
        {"name": "shake", "options": OPTIONS, "rhos": [1]},
    ]
}


def clips(count):
    part = features(count)
    steps = np.random.default_rng(count).integers(0, 256, (count, 120, 64)).astype("uint8")
    return Features(steps, part.labels, part.mask, part.splits, part.keys, SCALE)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    for name, count in (("train", 6), ("new", 5)):
        write(tmp_path / f"{name}-000.npz", clips(count))
    return tmp_path


def write_weights(folder, rho, scale=1.0):
    model = zoo.create_model(
        "resnet_rf_tiny", label_names=["a", "b"], frontend=None, rho=rho, **OPTIONS
    )
    rng = np.random.default_rng(rho)
    arrays = {v.path: np.abs(rng.normal(0.5, 0.1, v.shape)) * scale for v in model.weights}
    np.savez(folder / "weights" / f"plain-rho{rho}-seed0.npz", **arrays)


def main(folder):
    arguments = ["--plan", str(folder / "plan.json"), "--data", str(folder), "--clips", "2"]
    return experiment_fields.main(
        [str(folder), *arguments, "--out", str(folder / "effective.csv")]
    )


def test_fields_are_inside_the_exact_windows(folder):
    for rho in (1, 3):
        write_weights(folder, rho)
    assert main(folder) == 0
    with (folder / "effective.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["plain-rho1-seed0", "plain-rho3-seed0"]
    for row in rows:
        half, most, exact = (
            float(row[name]) for name in ("frames_50", "frames_95", "exact_pixels")
        )
        assert 1 < half < most <= exact
    assert float(rows[0]["frames_95"]) < float(rows[1]["frames_95"])


def test_networks_get_what_they_were_trained_on():
    train, test = clips(6), clips(5)
    found = experiment_fields.spectrograms(train, test, 3)
    assert found.shape == (3, 120, 64, 1)
    values_db = 0.5 * train.steps.astype(float)
    mean, deviation = values_db.mean(axis=(0, 1)), values_db.std(axis=(0, 1))
    expected = (0.5 * test.steps[:3] - mean) / deviation
    np.testing.assert_allclose(found[..., 0], expected, rtol=1e-3, atol=1e-3)


def test_wrong_folders_are_errors(folder, capsys):
    assert main(folder) == 2
    assert "no networks of 'plain'" in capsys.readouterr().err
    np.savez(folder / "weights" / "plain-rho1-seed0.npz", other=np.zeros(3))
    assert main(folder) == 2
    assert "has no weights" in capsys.readouterr().err
