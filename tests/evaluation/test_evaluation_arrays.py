"""Scores from files: the official MediaEval figures, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from rfkeras.errors import DatasetError
from rfkeras.evaluation.arrays import load_arrays
from rfkeras.evaluation.report import evaluate

# PR-AUC macro, ROC-AUC macro, F macro, PR-AUC micro, ROC-AUC micro, F micro: published by
# the MediaEval 2019 task "Emotion and Theme Recognition in Music" for split-0's test set.
OFFICIAL = {
    "2_faresnet": (0.146333, 0.757460, 0.203541, 0.168327, 0.802426, 0.185605),
    "5_resnet34": (0.102063, 0.716824, 0.157927, 0.118358, 0.770417, 0.141515),
}


@pytest.mark.parametrize("submission", OFFICIAL)
def test_official_mediaeval_figures_are_reproduced_to_six_digits(submission, mediaeval):
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
    figures = [
        report.summary[mean][metric]
        for mean in ("macro", "micro")
        for metric in ("average_precision", "roc_auc", "f1")
    ]
    assert [round(figure, 6) for figure in figures] == list(OFFICIAL[submission])
    assert report.summary["counts"]["tags"] == 56
    assert report.notes == ()


@pytest.fixture
def files(tmp_path):
    """Paths of a small, correct set of files, by role."""
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


def test_without_names_mask_and_decisions_tags_are_numbered_and_all_labels_known(files):
    arrays = load_arrays(**files)
    assert arrays.label_names == ("tag 0", "tag 1")
    assert arrays.mask.all()
    assert arrays.decisions is None


def test_numbers_of_tags_have_equal_width(files):
    for path in files.values():
        np.save(path, np.zeros((2, 12)))
    names = load_arrays(**files).label_names
    assert (names[0], names[11]) == ("tag 00", "tag 11")


@pytest.mark.parametrize(
    ("role", "array", "says"),
    [
        ("predictions", np.zeros(3), r"table \(clips, classes\).*predictions\.npy"),
        ("predictions", np.full((3, 2), np.nan), "6 NaN or infinite"),
        ("predictions", np.array([["a", "b"]] * 3), "real numbers"),
        ("predictions", np.zeros((3, 2), complex), "real numbers"),
        ("groundtruth", np.zeros((4, 2)), r"labels must have the shape .*\(4, 2\)"),
        ("groundtruth", np.full((3, 2), 0.5), "labels must be 0 or 1.*mask"),
        ("groundtruth", np.array([[None] * 2] * 3), "without objects"),
    ],
)
def test_unfit_arrays_are_refused_with_the_file(files, role, array, says):
    np.save(files[role], array, allow_pickle=True)
    with pytest.raises(DatasetError, match=says) as caught:
        load_arrays(**files)
    assert str(files[role]) in str(caught.value)


@pytest.mark.parametrize("role", ["decisions", "mask"])
def test_unfit_decisions_and_masks_are_refused(files, tmp_path, role):
    np.save(tmp_path / "extra.npy", np.zeros((3, 1)))
    with pytest.raises(DatasetError, match=rf"{role} must have the shape"):
        load_arrays(**files, **{role: tmp_path / "extra.npy"})


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00"])
def test_files_that_hold_no_array_are_refused(files, content):
    files["predictions"].write_bytes(content)
    with pytest.raises(DatasetError, match=r"predictions: .* is not a NumPy array file"):
        load_arrays(**files)


def test_missing_files_and_archives_are_refused(files, tmp_path):
    with pytest.raises(DatasetError, match=r"groundtruth: no such file: .*nowhere\.npy"):
        load_arrays(files["predictions"], tmp_path / "nowhere.npy")
    np.savez(tmp_path / "many.npz", a=np.zeros((3, 2)))
    with pytest.raises(DatasetError, match=r"archive \(\.npz\)"):
        load_arrays(files["predictions"], tmp_path / "many.npz")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"one\n", "2 different lines.*Received 1 lines"),
        (b"one\none\n", "1 of them different"),
        (b"\xff\xfe\n", "as UTF-8 text"),
    ],
)
def test_unfit_label_names_are_refused(files, tmp_path, content, says):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(DatasetError, match=says):
        load_arrays(**files, label_names=tmp_path / "names.txt")
