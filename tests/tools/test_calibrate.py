"""Calibration of a model: what is folded, chosen and written."""

import json

import numpy as np
import pytest
import soundfile

import zoo
from rfkeras.datasets.base import Split
from rfkeras.errors import ConfigError
from rfkeras.evaluation.calibration import Calibration, fit_calibration
from rfkeras.evaluation.metrics import best_f1_thresholds, check_scored, log_loss
from tests.helpers.layouts import INSTRUMENTS, write_openmic
from tests.helpers.weights import scatter
from tools.calibrate import (
    above_negatives,
    calibrate,
    choose_calibration,
    fold_calibration,
    main,
)
from zoo.evaluation_sets import EvaluationSet
from zoo.pretrained import load_model

SMALL = {"width": 4, "rho": 1, "blocks": (1, 1, 1), "allow_rf_change": True}


def small_model(tags=("low", "mid", "high"), **options):
    return scatter(
        zoo.create_model(
            "resnet_rf_tiny", num_classes=len(tags), label_names=tags, **SMALL, **options
        )
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


@pytest.fixture(scope="module")
def sounds():
    return np.random.default_rng(0).normal(0, 0.1, (4, 22050)).astype("float32")


@pytest.mark.parametrize("head", ["average", "max"])
def test_the_fold_equals_calibrated_clip_scores(sounds, head):
    model = small_model(head=head)
    calibration = Calibration(np.array([0.4, 1.7, 0.9]), np.array([0.5, -1.0, 0.0]))
    expected = calibration.scores(np.asarray(model(sounds)))
    fold_calibration(model, calibration)
    np.testing.assert_allclose(sigmoid(model(sounds)), expected, atol=1e-5)
    # Frames and batches of other models that share the layers too.
    frames = model.scores(sounds, per="frame")
    assert np.isfinite(np.asarray(frames)).all()


def test_a_linear_layer_with_bias_is_folded_too(sounds):
    from tests.helpers.small_tagger import small_tagger
    from zoo.tagger import Tagger

    plain = small_tagger()
    model = Tagger(plain.input, plain.output)
    calibration = Calibration(np.array([0.4, 1.7, 0.9]), np.array([0.5, -1.0, 0.0]))
    expected = calibration.scores(np.asarray(model(sounds)))
    fold_calibration(model, calibration)
    np.testing.assert_allclose(sigmoid(model(sounds)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "log_mean_exp"}, "pool by average or max. Received: multi_label, log_mean"),
        ({"task": "single_label"}, "Received: single_label, average"),
    ],
)
def test_other_heads_are_rejected(options, message):
    with pytest.raises(ConfigError, match=message):
        fold_calibration(small_model(**options), Calibration(np.ones(3), np.zeros(3)))


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_a_bias_is_used_where_it_helps(shift):
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, (2000, 4))
    labels = (rng.random(true.shape) < sigmoid(true)).astype(float)
    mask = (rng.random(true.shape) < 0.8).astype(float)
    logits = 2 * (true + shift)
    chosen = choose_calibration(logits, labels, mask)
    assert chosen.bias == (shift > 0)
    assert (chosen.calibration.bias == 0).all() == (shift == 0)
    assert chosen.losses["before"] > chosen.losses["scale"]
    # The loss is per known label.
    known = mask == 1
    mean = log_loss(
        sigmoid(logits)[known][:, None],
        labels[known][:, None],
        np.ones((known.sum(), 1)),
        "multi_label",
    )
    assert chosen.losses["before"] == pytest.approx(mean)


def test_thresholds_are_above_negatives():
    thresholds = np.array([0.2, 0.6])
    raised = above_negatives(thresholds, np.array([[0.1, 0.3], [0.5, 0.2]]))
    np.testing.assert_allclose(raised, [0.55, 0.6])
    many = np.zeros((250, 2))
    many[:3] = [[0.99, 0.0], [0.95, 0.0], [0.5, 0.0]]  # two of 250 may be above
    np.testing.assert_allclose(above_negatives(thresholds, many), [0.55, 0.6])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return clips of noise, some of them low, with the tags of the small model."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(3)
    paths, labels = [], []
    for number in range(30):
        noise = rng.normal(0, 0.1, 22050)
        low = number % 3 == 0
        wave = np.convolve(noise, np.ones(12) / 4, "same") if low else noise
        paths.append(folder / f"{number}.wav")
        soundfile.write(paths[-1], wave.astype("float32"), 22050, subtype="FLOAT")
        labels.append([low, not low, number % 2])
    labels = np.array(labels, "float32")
    keys = tuple(path.stem for path in paths)
    clips = Split(keys, tuple(paths), labels, np.ones_like(labels))
    return EvaluationSet("noise", "Noise.", ("low", "mid", "high"), clips)


def test_the_saved_model_is_calibrated(data, tmp_path):
    model = small_model()
    model.save(tmp_path / "raw.keras")
    output = tmp_path / "calibrated.keras"
    content = calibrate(str(tmp_path / "raw.keras"), data, output)
    waves = np.stack([soundfile.read(path, dtype="float32")[0] for path in data.clips.paths])
    logits = np.asarray(model(waves), np.float64)
    labels, mask = data.clips.labels, data.clips.mask
    fitted = fit_calibration(logits, labels, mask, bias=content["bias"])
    saved = load_model(output)
    np.testing.assert_allclose(sigmoid(saved(waves)), fitted.scores(logits), atol=1e-5)
    thresholds = best_f1_thresholds(fitted.scores(logits), labels, mask)
    np.testing.assert_allclose(saved.head.thresholds, thresholds, atol=1e-5)
    assert [row["name"] for row in content["tags"]] == ["low", "mid", "high"]
    assert [row["threshold"] for row in content["tags"]] == list(saved.head.thresholds)
    written = json.loads((tmp_path / "calibrated-calibration.json").read_text())
    assert written == content
    png = (tmp_path / "calibrated-reliability.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    before, after = (content["calibration_error"][key] for key in ("before", "after"))
    assert 0 <= after < before
    assert check_scored(sigmoid(logits), labels, mask).scores.shape == (30, 3)


def test_negatives_raise_thresholds(data, tmp_path):
    small_model().save(tmp_path / "raw.keras")
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    soundfile.write(quiet / "noise.wav", np.zeros(22050, "float32"), 22050)
    calibrate(str(tmp_path / "raw.keras"), data, tmp_path / "a.keras")
    content = calibrate(str(tmp_path / "raw.keras"), data, tmp_path / "b.keras", quiet)
    assert content["negatives"] == 1
    with_negatives = load_model(tmp_path / "b.keras")
    scores = sigmoid(with_negatives(np.zeros((1, 22050), "float32")))[0]
    thresholds = np.array(with_negatives.head.thresholds)
    assert (scores < thresholds).all()
    expected = above_negatives(
        np.array(load_model(tmp_path / "a.keras").head.thresholds), scores[None]
    )
    np.testing.assert_allclose(thresholds, expected, atol=1e-4)


def test_other_tags_are_rejected(data, tmp_path):
    small_model(tags=("low", "high", "mid")).save(tmp_path / "raw.keras")
    with pytest.raises(ConfigError, match="low, high, mid and low, mid, high"):
        calibrate(str(tmp_path / "raw.keras"), data, tmp_path / "out.keras")


def test_the_command(tmp_path, capsys):
    folder = write_openmic(tmp_path, train=4, test=6)
    small_model(tags=tuple(INSTRUMENTS)).save(tmp_path / "raw.keras")
    base = [str(tmp_path / "raw.keras"), "--data", str(folder)]
    assert main([*base, "--output", str(tmp_path / "new.keras")]) == 0
    shown = capsys.readouterr().out
    assert "expected calibration error 0." in shown
    assert json.loads((tmp_path / "new-calibration.json").read_text())["clips"] == 6
    assert main([*base, "--output", str(tmp_path / "new.h5")]) == 1
    assert "--output must end in .keras" in capsys.readouterr().err
