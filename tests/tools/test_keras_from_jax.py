"""Whole models of weights that were trained on features (tools/keras_from_jax.py)."""

import json
from dataclasses import asdict

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow")

import zoo
from rfkeras.errors import CheckpointError
from rfkeras.frontend import create_frontend
from tests.helpers.small_models import LABELS, SMALL, music
from tests.helpers.weights import scatter
from tools.keras_from_jax import load, main
from tools.pack_features import scale_of

EXACT, QUANTISED = 1e-4, 2e-3  # largest differences of scores


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a network without front-end, its statistics, and its file."""
    frontend = create_frontend("perceptual_mel_22k", fixed_floor=True)
    scale = scale_of(frontend, "perceptual_mel_22k", 0.5, LABELS)
    options = {**SMALL, "shake": True}
    network = scatter(
        zoo.create_model("resnet_rf_tiny", label_names=LABELS, frontend=None, **options)
    )
    mean, deviation = np.linspace(10, 30, 256), np.linspace(5, 15, 256)
    arrays = {v.path: v.numpy() for v in network.weights}
    arrays["frontend/mean_db"] = scale.to_layer(mean).astype("float32")
    arrays["frontend/std_db"] = (deviation * np.asarray(scale.band_weight)).astype("float32")
    record = {"model": "resnet_rf_tiny", "options": options, "scale": asdict(scale)}
    path = tmp_path_factory.mktemp("trained") / "resnet_rf_tiny.npz"
    np.savez(path, **arrays, record=json.dumps(record))
    return network, frontend, scale, mean, deviation, path


def test_scores_from_waveforms_equal_those_from_features(trained, tmp_path):
    network, frontend, scale, mean, deviation, path = trained
    out = tmp_path / "run"
    assert main([str(path), str(out), "--model", "resnet_rf_tiny"]) == 0
    model = keras.models.load_model(out / "model.keras")
    assert model.head.label_names == LABELS
    waveforms = np.stack([music(2 * 22050, seed=n) * 0.03 ** (n % 3) for n in range(6)])
    scores = model.scores(waveforms).numpy()
    layer = frontend.mel_db(waveforms).numpy()[..., 0]
    weight, offset = np.asarray(scale.band_weight), np.asarray(scale.offset_db)
    exact = (layer - offset) / weight - scale.floor_db
    for above_floor_db, tolerance in (
        (exact, EXACT),
        (scale.quantise(layer) * scale.step_db, QUANTISED),
    ):
        x = ((above_floor_db - mean) / deviation).astype("float32")[..., None]
        difference = np.abs(network.scores(x).numpy() - scores).max()
        assert difference < tolerance
    assert difference > 1e-6  # quantisation has an effect
    assert np.ptp(scores, axis=0).min() > 5 * QUANTISED


def test_weights_that_do_not_fit_are_rejected(trained, tmp_path):
    path = trained[-1]
    arrays = dict(np.load(path))
    with pytest.raises(CheckpointError, match="resnet_rf_tiny"):
        load(path, "resnet_rf_small")
    missing = {name: values for name, values in arrays.items() if name != "stem_conv/kernel"}
    np.savez(tmp_path / "missing.npz", **missing)
    with pytest.raises(CheckpointError, match="stem_conv/kernel"):
        load(tmp_path / "missing.npz")
    np.savez(tmp_path / "shape.npz", **{**arrays, "stem_bn/gamma": np.ones(5)})
    with pytest.raises(CheckpointError, match="stem_bn/gamma"):
        load(tmp_path / "shape.npz")
    np.savez(tmp_path / "other.npz", a=np.ones(5))
    with pytest.raises(CheckpointError, match="not a file of"):
        load(tmp_path / "other.npz")
