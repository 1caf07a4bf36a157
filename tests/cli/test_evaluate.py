"""`evaluate` for both tasks: arrays, runs, thresholds and errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn import metrics

import zoo
from rfkeras.audio.io import AudioFormat
from rfkeras.cli.evaluate import DATA_FLAGS, _sources, load_arrays
from rfkeras.cli.main import build_parser, run
from rfkeras.config.resolve import complete, merge_options
from rfkeras.errors import DatasetError
from rfkeras.evaluation.report import evaluate
from rfkeras.evaluation.result import read_scores
from rfkeras.inference import StreamTagger
from rfkeras.layers import find_head
from rfkeras.training import run as finishing
from rfkeras.training.data import open_inputs
from rfkeras.training.run_dir import create_run_folder, write_environment, write_training_clips
from tests.helpers.layouts import write_dcase
from zoo.pretrained import load_model


def report_in(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def finished_run(root, flags):
    """Write a run folder like that of `train`, with an untrained model."""
    small = {"width": 2, "rho": 1, "blocks": (1, 1, 1), "allow_rf_change": True}
    config = complete(merge_options({**flags, **small, "batch_size": 4, "export": False}))
    folder = create_run_folder(config, root)
    inputs = open_inputs(config, AudioFormat(22050), folder.bad_files)
    write_environment(folder, [], {"fingerprints": inputs.fingerprints})
    keys = inputs.dataset.split("train").keys
    write_training_clips(folder, inputs.dataset.name, keys)
    keras.utils.set_random_seed(0)
    model = zoo.create_model(
        "resnet_rf",
        label_names=inputs.dataset.label_names,
        task=inputs.dataset.task,
        initialization="he",
        **small,
    )
    model.get_layer("classifier_bn").beta.assign([-1.0, 0.0, 1.0])  # so thresholds differ
    folder.log.write_text("epoch,loss\n1,0.5\n")
    finishing.finish(model, folder, inputs)
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Write a small single-label data set of three scenes."""
    return write_dcase(tmp_path_factory.mktemp("dcase"), locations=3, takes=1, audio=True)


@pytest.fixture(scope="module")
def single_run(scenes, tmp_path_factory):
    flags = {"dataset": "dcase", "data_dir": str(scenes), "subset": "2020-1b"}
    flags |= {"validation_share": 0.5}
    return finished_run(tmp_path_factory.mktemp("runs") / "single", flags)


@pytest.fixture(scope="module")
def multi_run(tone_folder, tmp_path_factory):
    flags = {"dataset": "folder", "data_dir": str(tone_folder), "window_seconds": 1.0}
    return finished_run(tmp_path_factory.mktemp("runs") / "multi", flags)


@pytest.fixture
def arrays(tmp_path):
    """Write softmax scores and labels; return their flags, and the class numbers."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 50)
    np.save(tmp_path / "p.npy", 0.7 * rng.dirichlet(np.ones(3), 50) + 0.3 * np.eye(3)[truth])
    np.save(tmp_path / "g.npy", np.eye(3)[truth])
    files = ["--predictions", tmp_path / "p.npy", "--groundtruth", tmp_path / "g.npy"]
    return [str(part) for part in files], truth


def test_arrays_of_a_single_label_task(arrays, tmp_path, capsys):
    flags, truth = arrays
    output = tmp_path / "report"
    more = ["--task", "single_label", "--bootstrap", "20", "--output", str(output)]
    assert run(["evaluate", *flags, *more]) == 0
    chosen = np.load(tmp_path / "p.npy").argmax(axis=1)
    content = report_in(output)
    accuracy = metrics.accuracy_score(truth, chosen)
    assert content["summary"]["single_label"]["accuracy"] == accuracy
    assert content["confusion"] == metrics.confusion_matrix(truth, chosen).tolist()
    assert (output / "confusion.png").is_file()
    printed = capsys.readouterr().out
    assert f"Arrays accuracy {accuracy:.3f}" in printed


@pytest.mark.parametrize("task", [[], ["--task", "auto"], ["--task", "multi_label"]])
def test_arrays_are_multi_label_by_default(arrays, tmp_path, task):
    flags, _ = arrays
    output = tmp_path / "report"
    more = ["--bootstrap", "0", "--output", str(output)]
    assert run(["evaluate", *flags, *task, *more]) == 0
    content = report_in(output)
    assert (content["task"], content["confusion"]) == ("multi_label", None)
    assert [row["threshold"] for row in content["tags"]] == [0.5] * 3


def test_a_single_label_run_is_evaluated_with_its_own_task(single_run, tmp_path, capsys):
    assert run(["evaluate", "--run", str(single_run.root), "--output", str(tmp_path)]) == 0
    once, again = report_in(single_run.report), report_in(tmp_path)
    assert again["summary"]["single_label"] == pytest.approx(once["summary"]["single_label"])
    assert again["confusion"] == once["confusion"]
    assert np.sum(again["confusion"]) == 3
    printed = capsys.readouterr().out
    assert "Test accuracy" in printed
    assert printed.index("accuracy") < printed.index("mAP")


def test_data_options_of_a_run_reach_the_data_set(single_run, scenes, tmp_path, capsys):
    moved = tmp_path / "recordings"
    (scenes / "audio").rename(moved)
    try:
        flags = ["--run", str(single_run.root), "--output", str(tmp_path / "report")]
        flags += ["--bootstrap", "0"]
        assert run(["evaluate", *flags]) == 1
        capsys.readouterr()
        assert run(["evaluate", *flags, "--audio-dir", str(moved)]) == 0, capsys.readouterr()
        assert run(["evaluate", *flags, "--subset", "2019-1a"]) == 1
        assert "has the subset 2020-1b" in capsys.readouterr().err
    finally:
        moved.rename(scenes / "audio")


def test_the_saved_thresholds_decide_unless_half_is_requested(multi_run, tmp_path):
    run_flags = ["evaluate", "--run", str(multi_run.root), "--bootstrap", "0"]
    assert run([*run_flags, "--output", str(tmp_path / "own")]) == 0
    assert run([*run_flags, "--thresholds", "half", "--output", str(tmp_path / "half")]) == 0
    first, own, half = (
        report_in(path) for path in (multi_run.report, tmp_path / "own", tmp_path / "half")
    )
    kept = [row["threshold"] for row in first["tags"]]
    assert [row["threshold"] for row in own["tags"]] == kept
    assert len(set(kept)) > 1
    assert [row["threshold"] for row in half["tags"]] == [0.5] * 3
    macro = [content["summary"]["macro"] for content in (own, half)]
    assert macro[0]["f1_at_half"] == pytest.approx(macro[1]["f1"])
    assert macro[0]["average_precision"] == pytest.approx(macro[1]["average_precision"])


def test_another_threshold_does_not_change_the_report_of_the_run(multi_run, capsys):
    before = (multi_run.report / "report.json").read_bytes()
    assert run(["evaluate", "--run", str(multi_run.root), "--thresholds", "half"]) == 0
    assert (multi_run.report / "report.json").read_bytes() == before
    output = capsys.readouterr().out
    assert f"Report: {multi_run.root / 'report-folder-test-thresholds=half'}\n" in output


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ([], "report"),
        (["--window-seconds", "1.0", "--thresholds", "model"], "report"),  # as in the run
        (["--split", "train"], "report-folder-train"),
        (["--window-seconds", "0.5"], "report-folder-test-window_seconds=0.5"),
        (["--bootstrap", "0"], "report-folder-test-bootstrap=0"),
        (["--fold", "1", "--decoder", "tfio"], "report-folder-test-fold=1-decoder=tfio"),
        (["--allow-absolute"], "report-folder-test-allow_absolute=True"),
        (
            ["--dataset", "packed", "--data-dir", "s3://my/shards"],
            r"report-packed-test-data_dir=shards\.[0-9a-f]{6}",
        ),
    ],
)
def test_each_evaluation_of_a_run_has_its_own_report(multi_run, flags, name):
    options = build_parser().parse_args(["evaluate", "--run", str(multi_run.root), *flags])
    given = {n: getattr(options, n) for n in DATA_FLAGS if hasattr(options, n)}
    output = _sources(options, given)[2]
    assert output.parent == multi_run.root
    assert re.fullmatch(name, output.name)


def test_another_data_set_inherits_no_data_options_of_the_run(single_run, tone_folder, capsys):
    flags = ["--dataset", "folder", "--data-dir", str(tone_folder), "--bootstrap", "0"]
    assert run(["evaluate", "--run", str(single_run.root), *flags]) == 1
    output = capsys.readouterr().err
    assert "None of the tags of the data is a tag of the model" in output
    assert "subset" not in output


def saved_model(path, names, task):
    """Save a small untrained model; return the path."""
    size = {"width": 2, "rho": 1, "blocks": (1, 1, 1), "allow_rf_change": True}
    model = zoo.create_model("resnet_rf", label_names=names, task=task, **size)
    assert find_head(model).task == task
    model.save(path)
    return str(path)


def test_custom_data_takes_the_task_of_the_model(tone_folder, tmp_path, capsys):
    model = saved_model(tmp_path / "model.keras", ("high", "low", "mid"), "single_label")
    shards = tmp_path / "shards"
    assert run(["data", "pack", str(shards), *own(tone_folder), "--test-share", "0.25"]) == 0
    packed = ["--dataset", "packed", "--data-dir", str(shards)]
    for data in ([*own(tone_folder), "--test-share", "0.25"], packed):
        flags = ["--model-path", model, *data, "--output", str(tmp_path / "report")]
        assert run(["evaluate", *flags, "--bootstrap", "0"]) == 0, capsys.readouterr().err
        content = report_in(tmp_path / "report")
        assert content["task"] == "single_label"
        assert np.sum(content["confusion"]) == 18  # a quarter of 72 clips


@pytest.fixture(scope="module")
def five_tags(tmp_path_factory):
    """Save a model with two of the tones' three tags, and three others."""
    names = ("zebra", "low", "caf\u00e9", "high", "organ")
    return saved_model(tmp_path_factory.mktemp("five") / "m.keras", names, "multi_label"), names


def test_tags_of_model_and_data_are_matched_by_name(five_tags, tone_folder, tmp_path, capsys):
    path, names = five_tags
    model = load_model(path)
    find_head(model).thresholds = (0.11, 0.22, 0.33, 0.44, 0.55)
    model.save(tmp_path / "m.keras")
    output = tmp_path / "report"
    shards = tmp_path / "shards"
    assert run(["data", "pack", str(shards), *own(tone_folder)]) == 0
    tagger = StreamTagger(model)
    for data in (own(tone_folder), ["--dataset", "packed", "--data-dir", str(shards)]):
        capsys.readouterr()
        flags = [*data, "--bootstrap", "0", "--output", str(output)]
        assert run(["evaluate", "--model", str(tmp_path / "m.keras"), *flags]) == 0
        err = capsys.readouterr().err
        assert "left out 1 tag that the model does not have: mid\n" in err
        assert "no clip has 3 tags of the model: " in err
        content = report_in(output)
        assert [row["name"] for row in content["tags"]] == ["low", "high"]
        assert [row["threshold"] for row in content["tags"]] == [0.22, 0.44]
        kept = read_scores(output / "scores.npz")
        assert kept.scores.shape == kept.labels.shape == (len(kept.keys), 2)
        for key, scores, labels in zip(kept.keys[:4], kept.scores, kept.labels, strict=False):
            expected = tagger.run_file(tone_folder / key).scores[[1, 3]]
            np.testing.assert_allclose(scores, expected, atol=1e-3)  # 16-bit shards
            assert list(labels) == [key.startswith("low"), key.startswith("high")]


def test_a_single_label_model_decides_among_all_of_its_classes(tone_folder, tmp_path, capsys):
    path = saved_model(tmp_path / "m.keras", ("low", "noise", "high"), "single_label")
    output = tmp_path / "report"
    flags = [*own(tone_folder), "--bootstrap", "0", "--output", str(output)]
    assert run(["evaluate", "--model", path, *flags]) == 0, capsys.readouterr().err
    assert re.search(r"left out \d+ clips of other classes", capsys.readouterr().err)
    confusion = np.array(report_in(output)["confusion"])
    assert confusion.shape == (3, 3)
    assert confusion[1].sum() == 0
    assert confusion.sum() == len(read_scores(output / "scores.npz").keys)


def test_an_unknown_tag_of_the_model_that_no_clip_has(five_tags, tone_folder, tmp_path):
    rows = [f"{tone_folder}/low/{n:02d}.wav,low,zebra,test" for n in range(4)]
    rows += [f"{tone_folder}/high/{n:02d}.wav,high,,test" for n in range(4)]
    (tmp_path / "t.csv").write_text("\n".join(["path,labels,unknown,split", *rows]) + "\n")
    flags = ["--dataset", "folder", "--data-dir", str(tmp_path / "t.csv"), "--allow-absolute"]
    flags += ["--bootstrap", "0", "--output", str(tmp_path / "report")]
    assert run(["evaluate", "--model", five_tags[0], *flags]) == 0
    assert [row["name"] for row in report_in(tmp_path / "report")["tags"]] == ["low", "high"]


def test_no_shared_tag_is_an_error_with_the_nearest_name(tone_folder, tmp_path, capsys):
    path = saved_model(tmp_path / "m.keras", ("hihg", "organ"), "multi_label")
    assert run(["evaluate", "--model", path, *own(tone_folder)]) == 1
    assert "Did you mean 'hihg'?" in capsys.readouterr().err


def test_model_takes_everything_that_names_a_model(multi_run, five_tags, tmp_path, capsys):
    def sources(*words):
        options = build_parser().parse_args(["evaluate", *words])
        given = {n: getattr(options, n) for n in DATA_FLAGS if hasattr(options, n)}
        return _sources(options, given)

    data = ["--dataset", "folder", "--data-dir", "sounds"]
    for word in ("--model", "--model-path"):
        named = sources(word, "resnet_rf_small:gm_instruments", *data)
        assert named[1:] == (
            "resnet_rf_small:gm_instruments",
            Path("resnet_rf_small-gm_instruments-report"),
            None,
        )
        assert sources(word, "a/m.keras", *data)[2] == Path("a/m-report")
        assert sources(word, str(multi_run.root)) == sources("--run", str(multi_run.root))
    assert run(["evaluate", "--model", "resnet_rf_smal", *data]) == 1
    assert "Did you mean resnet_rf_small" in capsys.readouterr().err


def own(folder):
    return ["--dataset", "folder", "--data-dir", str(folder)]


def test_a_single_label_model_rejects_clips_with_several_tags(tone_folder, tmp_path, capsys):
    model = saved_model(tmp_path / "model.keras", ("high", "low"), "single_label")
    rows = [f"{tone_folder}/low/{n:02d}.wav,low|high" for n in range(8)]
    (tmp_path / "clips.csv").write_text("\n".join(["path,labels", *rows]))
    flags = ["evaluate", "--model-path", model, *own(tmp_path / "clips.csv")]
    assert run(flags) == 1
    assert "is outside" in capsys.readouterr().err
    assert run([*flags, "--allow-absolute"]) == 1
    output = capsys.readouterr().err
    assert "a single-label clip must have exactly one class" in output
    assert "has 2 classes" in output


def test_a_model_of_the_other_task_is_rejected(scenes, tmp_path, capsys):
    names = ("indoor", "outdoor", "transportation")
    model = saved_model(tmp_path / "model.keras", names, "multi_label")
    flags = ["--model-path", model, "--dataset", "dcase", "--data-dir", str(scenes)]
    assert run(["evaluate", *flags, "--validation-share", "0.5"]) == 1
    assert "is multi_label, but data set 'dcase' is single_label" in capsys.readouterr().err


def test_contradicting_flags_are_rejected(arrays, single_run, tmp_path, capsys):
    flags, _ = arrays
    np.save(tmp_path / "d.npy", np.load(tmp_path / "g.npy"))
    decisions = ["--task", "single_label", "--decisions", str(tmp_path / "d.npy")]
    own_run = ["--run", str(single_run.root)]
    for wrong, message in (
        ([*flags, "--thresholds", "half"], "--thresholds: only with --run or --model."),
        ([*flags, "--fold", "1"], "--fold: only with --run or --model."),
        ([*flags, *decisions], "the highest score decides"),
        ([*own_run, "--task", "single_label"], "--task: only with --predictions."),
        ([*own_run, "--thresholds", "half"], "--thresholds needs a multi-label model"),
    ):
        assert run(["evaluate", *wrong]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_single_label_task_rejects_several_labels_per_clip(arrays, tmp_path, capsys):
    flags, _ = arrays
    np.save(tmp_path / "g.npy", np.ones((50, 3)))
    assert run(["evaluate", *flags, "--task", "single_label"]) == 1
    assert "exactly one class per clip. Received 50 clips" in capsys.readouterr().err


# PR-AUC macro, ROC-AUC macro, F macro, PR-AUC micro, ROC-AUC micro, F micro, published by
# the MediaEval 2019 task "Emotion and Theme Recognition in Music" for split-0's test set.
OFFICIAL = {
    "2_faresnet": (0.146333, 0.757460, 0.203541, 0.168327, 0.802426, 0.185605),
    "5_resnet34": (0.102063, 0.716824, 0.157927, 0.118358, 0.770417, 0.141515),
}


@pytest.mark.parametrize("submission", OFFICIAL)
def test_official_mediaeval_scores_are_reproduced_to_six_digits(submission, shared_folder):
    mediaeval = shared_folder / "datasets" / "mediaeval2019"
    arrays = load_arrays(
        mediaeval / f"{submission}-predictions.npy",
        mediaeval / "groundtruth.npy",
        decisions=mediaeval / f"{submission}-decisions.npy",
    )
    report = evaluate(
        arrays.scores,
        arrays.labels,
        arrays.mask,
        label_names=arrays.label_names,
        decisions=arrays.decisions,
        bootstrap_samples=0,
    )
    scores = [
        report.summary[mean][metric]
        for mean in ("macro", "micro")
        for metric in ("average_precision", "roc_auc", "f1")
    ]
    assert [round(score, 6) for score in scores] == list(OFFICIAL[submission])
    assert report.summary["counts"]["tags"] == 56
    assert report.notes == ()


@pytest.fixture
def files(tmp_path):
    """Write a small, correct set of files; return their paths by role."""
    paths = {role: tmp_path / f"{role}.npy" for role in ("predictions", "groundtruth")}
    np.save(paths["predictions"], np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.3]], np.float32))
    np.save(paths["groundtruth"], np.array([[1, 0], [0, 1], [1, 0]], np.int64))
    return paths


def test_scores_mask_and_names_come_from_their_files(files, tmp_path):
    np.save(tmp_path / "mask.npy", np.array([[1, 1], [1, 1], [0, 1]]))
    np.save(tmp_path / "decisions.npy", np.array([[1, 0], [1, 1], [0, 0]], bool))
    (tmp_path / "names.txt").write_text("flute\nvoix aiguë\n\n", encoding="utf-8")
    arrays = load_arrays(
        **files,
        mask=tmp_path / "mask.npy",
        decisions=tmp_path / "decisions.npy",
        label_names=tmp_path / "names.txt",
    )
    assert arrays.label_names == ("flute", "voix aiguë")
    assert arrays.labels.tolist() == [[True, False], [False, True], [False, False]]
    assert arrays.mask.sum() == 5
    assert arrays.decisions is not None
    assert arrays.scores.dtype == np.float64
    assert arrays.scores[0, 0] == np.float32(0.9)


def test_by_default_tags_are_numbered_and_all_labels_known(files):
    arrays = load_arrays(**files)
    assert arrays.label_names == ("tag 0", "tag 1")
    assert arrays.mask.all()
    assert arrays.decisions is None


def test_tag_numbers_have_equal_width(files):
    for path in files.values():
        np.save(path, np.zeros((2, 12)))
    names = load_arrays(**files).label_names
    assert (names[0], names[11]) == ("tag 00", "tag 11")


@pytest.mark.parametrize(
    ("role", "array", "message"),
    [
        ("predictions", np.zeros(3), r"table \(clips, classes\).*predictions\.npy"),
        ("predictions", np.full((3, 2), np.nan), "6 NaN or infinite"),
        ("predictions", np.array([["a", "b"]] * 3), "real numbers"),
        ("predictions", np.zeros((3, 2), complex), "real numbers"),
        ("groundtruth", np.zeros((4, 2)), r"labels must have the shape .*\(4, 2\)"),
        ("groundtruth", np.full((3, 2), 0.5), "labels must be 0 or 1.*mask"),
        ("groundtruth", np.array([[None] * 2] * 3), "is not a NumPy array of numbers"),
    ],
)
def test_wrong_arrays_are_rejected_with_the_file_name(files, role, array, message):
    np.save(files[role], array, allow_pickle=True)
    with pytest.raises(DatasetError, match=message) as caught:
        load_arrays(**files)
    assert str(files[role]) in str(caught.value)


@pytest.mark.parametrize("role", ["decisions", "mask"])
def test_wrong_decisions_and_masks_are_rejected(files, tmp_path, role):
    np.save(tmp_path / "extra.npy", np.zeros((3, 1)))
    with pytest.raises(DatasetError, match=rf"{role} must have the shape"):
        load_arrays(**files, **{role: tmp_path / "extra.npy"})


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00"])
def test_files_without_an_array_are_rejected(files, content):
    files["predictions"].write_bytes(content)
    with pytest.raises(DatasetError, match=r"predictions: .* is not a NumPy array of numbers"):
        load_arrays(**files)


def test_missing_files_and_archives_are_rejected(files, tmp_path):
    with pytest.raises(DatasetError, match=r"groundtruth: no such file: .*nowhere\.npy"):
        load_arrays(files["predictions"], tmp_path / "nowhere.npy")
    np.savez(tmp_path / "many.npz", a=np.zeros((3, 2)))
    with pytest.raises(DatasetError, match=r"archive \(\.npz\)"):
        load_arrays(files["predictions"], tmp_path / "many.npz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\n", "2 different lines.*Received: 1 line"),
        (b"one\none\n", "must differ. Repeated: one"),
        (b"one\ntw\xe2\x80\xa8o\n", "a line separator"),
        (b"one\ntw\xe2\x80\x8bo\n", "an invisible format character"),
        (b"\xff\xfe\n", "as UTF-8 text"),
    ],
)
def test_wrong_label_names_are_rejected(files, tmp_path, content, message):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        load_arrays(**files, label_names=tmp_path / "names.txt")
