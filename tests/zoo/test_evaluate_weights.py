"""Evaluation of packaged weights: numbers against scikit-learn, and the command."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from sklearn.metrics import average_precision_score

import zoo
from rfkeras.datasets.base import Split
from rfkeras.errors import ConfigError
from rfkeras.evaluation.calibration import expected_calibration_error
from tests.helpers.layouts import write_openmic
from tests.helpers.weights import scatter
from zoo import evaluate_weights
from zoo.evaluate_weights import (
    Candidate,
    chosen_weights,
    clip_logits,
    evaluate_set,
    main,
    write_table,
)
from zoo.evaluation_sets import EvaluationSet

TAGS = ("drums", "flute", "organ", "piano")


def entry(model, name):
    return Candidate(f"{model}:{name}", f"{model}:{name}")


@pytest.fixture
def test_set():
    """Return 40 clips of three classes in another order than the model's tags."""
    rng = np.random.default_rng(1)
    labels = (rng.random((40, 3)) < 0.4).astype("float32")
    labels[:, 2] = 0  # this class does not occur
    mask = (rng.random((40, 3)) < 0.8).astype("float32")
    keys = tuple(f"clip{i}" for i in range(40))
    clips = Split(keys, keys, labels * mask, mask)
    return EvaluationSet("trial", "Made up.", ("piano", "drums", "organ"), clips)


def scored(monkeypatch, test, noise):
    """Let models score their name's noise; return the scores by "MODEL:WEIGHTS"."""
    scores = {}
    for name, amount in noise.items():
        rng = np.random.default_rng(7)
        values = rng.random((len(test.clips), len(TAGS)))
        for column, tag in enumerate(test.label_names):
            place = TAGS.index(tag)
            values[:, place] = amount * values[:, place] + (1 - amount) * (
                0.2 + 0.6 * test.clips.labels[:, column]
            )
        scores[name] = values
    logits = {name: np.log(values / (1 - values)) for name, values in scores.items()}
    monkeypatch.setattr(
        evaluate_weights, "clip_logits", lambda model, test, **_: logits[model.name]
    )
    return scores


def opened(name, tags=TAGS):
    head = SimpleNamespace(thresholds=(0.3, 0.4, 0.5, 0.6), label_names=tags)
    return SimpleNamespace(name=name, head=head)


@pytest.fixture(autouse=True)
def _names_of_the_head(monkeypatch, request):
    if "command" not in request.node.name:
        monkeypatch.setattr("zoo.tagger.label_names", lambda model: model.head.label_names)


def test_numbers_agree_with_scikit_learn(monkeypatch, test_set):
    noise = {"a:old": 0.9, "a:new": 0.5, "b:old": 0.8}
    scores = scored(monkeypatch, test_set, noise)
    entries = [entry("a", "old"), entry("a", "new"), entry("b", "old")]
    result = evaluate_set(test_set, entries, samples=200, open_model=opened)
    assert [row.weights for row in result.weights] == list(noise)
    assert list(result.chance) == ["piano", "drums"]
    for row in result.weights:
        expected = {}
        for column, tag in ((0, "piano"), (1, "drums")):
            known = test_set.clips.mask[:, column] == 1
            truth = test_set.clips.labels[known, column]
            values = scores[row.weights][known, TAGS.index(tag)]
            expected[tag] = average_precision_score(truth, values)
            assert result.chance[tag] == pytest.approx(truth.mean())
            assert result.positive[tag] == truth.sum()
            assert result.annotated[tag] == known.sum()
            interval = row.average_precision[tag]
            assert interval.value == pytest.approx(expected[tag])
            assert interval.low < interval.value < interval.high
        mean = np.mean(list(expected.values()))
        assert row.mean_average_precision.value == pytest.approx(mean)
        own = scores[row.weights][:, [3, 0]]
        errors = expected_calibration_error(
            own, test_set.clips.labels[:, :2], test_set.clips.mask[:, :2]
        )
        assert row.calibration_error == pytest.approx(errors.mean())
        assert row.top_1 is None
    old, new, other = result.weights
    assert old.difference is None
    assert other.difference is None  # the first of its model
    gain = new.mean_average_precision.value - old.mean_average_precision.value
    assert new.difference.value == pytest.approx(gain)
    # Paired: narrower than two independent intervals would be.
    width = new.difference.high - new.difference.low
    widths = [
        row.mean_average_precision.high - row.mean_average_precision.low for row in (old, new)
    ]
    assert width < np.hypot(*widths)


def test_rare_tags_are_left_out_where_the_set_says_so(monkeypatch, test_set):
    scored(monkeypatch, test_set, {"a:old": 0.7})
    rare = test_set.clips.labels[:, 1]
    rare[np.flatnonzero(rare)[4:]] = 0  # the drums keep 4 positives
    for least, tags in ((4, {"piano", "drums"}), (5, {"piano"})):
        strict = dataclasses.replace(test_set, least_positives=least)
        result = evaluate_set(strict, [entry("a", "old")], samples=0, open_model=opened)
        assert set(result.chance) == tags


def test_f1_uses_the_saved_thresholds(monkeypatch, test_set):
    from sklearn.metrics import f1_score

    scores = scored(monkeypatch, test_set, {"a:old": 0.7})["a:old"]
    result = evaluate_set(test_set, [entry("a", "old")], samples=0, open_model=opened)
    expected = []
    for column, (place, threshold) in enumerate(((3, 0.6), (0, 0.3))):
        known = test_set.clips.mask[:, column] == 1
        decided = scores[known, place] >= threshold
        expected.append(f1_score(test_set.clips.labels[known, column], decided))
    assert result.weights[0].f1 == pytest.approx(np.mean(expected))


def test_top_1_of_single_sounds(monkeypatch):
    labels = np.array([[1, 0], [0, 1], [0, 1], [0, 0]], "float32")
    keys = tuple("abcd")
    clips = Split(keys, keys, labels, np.ones_like(labels))
    test = EvaluationSet("single", "", ("piano", "drums"), clips, single=True)
    values = np.zeros((4, 4))
    values[0, 3] = 0.9  # right
    values[1, 0] = 0.9  # right
    values[2, 1] = 0.9  # a class that the set does not have
    values[3, 0] = 0.9  # a sound without a class does not count
    monkeypatch.setattr(evaluate_weights, "clip_logits", lambda *_, **__: values)
    result = evaluate_set(test, [entry("a", "old")], samples=0, open_model=opened)
    assert result.weights[0].top_1 == pytest.approx(2 / 3)


def test_a_missing_class_is_named(test_set):
    def lacking(name):
        return opened(name, ("piano",))

    with pytest.raises(ConfigError, match="a:b has no tag drums, which set 'trial'"):
        evaluate_set(test_set, [entry("a", "b")], open_model=lacking)


def test_scores_of_clips_of_different_lengths(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i, seconds in enumerate((1.0, 1.0, 2.5, 1.0)):
        paths.append(tmp_path / f"{i}.wav")
        noise = rng.normal(0, 0.1, int(seconds * 22050)).astype("float32")
        soundfile.write(paths[-1], noise, 22050, subtype="FLOAT")
    keys = tuple(map(str, range(4)))
    clips = Split(keys, tuple(paths), np.ones((4, 1), "float32"), np.ones((4, 1), "float32"))
    model = zoo.create_model(
        "resnet_rf_tiny", num_classes=2, width=4, rho=1, blocks=(1, 1, 1), allow_rf_change=True
    )
    scatter(model)
    logits = clip_logits(model, EvaluationSet("x", "", ("piano",), clips), quiet=True)
    for path, row in zip(paths, logits, strict=True):
        waveform, _ = soundfile.read(path, dtype="float32")
        np.testing.assert_allclose(row, np.asarray(model(waveform[None]))[0], atol=1e-5)


def test_weights_are_chosen_by_name():
    everything = [each.weights for each in chosen_weights([])]
    assert "resnet_rf_tiny:gm_instruments" in everything
    tiny = [each.weights for each in chosen_weights(["resnet_rf_tiny"])]
    assert tiny == [name for name in everything if name.startswith("resnet_rf_tiny:")]
    new = chosen_weights(["resnet_rf_tiny:new=runs/x.keras"])
    assert new == [Candidate("resnet_rf_tiny:new", "runs/x.keras")]
    assert new[0].model == "resnet_rf_tiny"
    with pytest.raises(ConfigError, match="gm_instruments"):
        chosen_weights(["resnet_rf_tiny:gm_instrument"])


def test_the_command(tmp_path, capsys):
    folder = write_openmic(tmp_path, train=4, test=3)
    base = ["--set", f"tones={folder}", "--weights", "resnet_rf_tiny:gm_instruments", "--quiet"]
    out = tmp_path / "out"
    assert main([*base, "--limit", "2", "--samples", "20", "--output", str(out)]) == 0
    shown = capsys.readouterr()
    assert "Skipping midi bands: give --midi and --sound-font." in shown.err
    assert "Skipping gcompris: give --gcompris." in shown.err
    assert shown.out == (out / "evaluation.md").read_text()
    assert shown.out.startswith("| set | clips |")
    saved = json.loads((out / "evaluation.json").read_text())["sets"][0]
    assert (saved["name"], saved["clips"]) == ("tones", 2)
    value = saved["weights"][0]["mean_average_precision"]["value"]
    assert f"| resnet_rf_tiny | gm_instruments | {value:.3f} (" in shown.out
    assert main([*base, "--sets", "other"]) == 1
    assert "There is no set other. Sets: tones." in capsys.readouterr().err
    assert main([]) == 1
    assert "give --set, --midi or --gcompris" in capsys.readouterr().err


def test_the_table_shows_differences(monkeypatch, test_set):
    scored(monkeypatch, test_set, {"a:old": 0.9, "a:new": 0.2})
    entries = [entry("a", "old"), entry("a", "new")]
    result = evaluate_set(test_set, entries, samples=50, open_model=opened)
    lines = write_table([result]).splitlines()
    gain = result.weights[1].difference
    assert f"| {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}) |" in lines[3]
    assert lines[2].split("|")[8].strip() == ""
    assert any(line.startswith("| drums |") for line in lines)
