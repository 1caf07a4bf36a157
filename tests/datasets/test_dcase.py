"""DCASE acoustic scenes: editions, lists, validation by recording location."""

import re

import numpy as np
import pytest

from rfkeras.datasets import dcase
from rfkeras.datasets.checks import differences, overlaps
from rfkeras.datasets.load import load_dataset
from rfkeras.errors import ConfigError, DatasetError
from tests.helpers.layouts import write_dcase


def load(root, **options):
    return load_dataset("dcase", data_dir=root, **options)


@pytest.mark.parametrize("subset", dcase.SUBSETS)
def test_every_edition_is_recognised_by_its_folder_and_split_by_location(tmp_path, subset):
    folder = write_dcase(tmp_path, subset)
    by_parent, by_name = load(tmp_path), load(folder, subset=subset)
    classes = 3 if subset == "2020-1b" else 10
    for dataset in (by_parent, by_name):
        assert dataset.info["subset"] == subset
        assert dataset.task == "single_label"
        assert dataset.clip_seconds == 10.0
        assert len(dataset.label_names) == classes
        sizes = {name: len(split) for name, split in dataset.splits.items()}
        # With three training locations per class, one is as close to 15 % as possible.
        assert sizes == {"train": 6 * classes, "validation": 3 * classes, "test": 3 * classes}
        assert overlaps(dataset) == {"key": {}, "location": {}}
        for split in dataset.splits.values():
            np.testing.assert_array_equal(split.labels.sum(axis=0), len(split) / classes)
    assert by_parent.splits["validation"].keys == by_name.splits["validation"].keys
    test = by_name.splits["test"]
    assert test.paths[0] == folder / test.keys[0]
    assert test.keys[0].startswith(f"audio/{dataset.label_names[0]}-vienna-")
    assert dataset.label_names[test.labels[-1].argmax()] in test.keys[-1]


def test_the_three_classes_are_those_of_the_task(tmp_path):
    write_dcase(tmp_path, "2020-1b")
    assert load(tmp_path).label_names == ("indoor", "outdoor", "transportation")


def test_validation_share_and_seed(tmp_path):
    write_dcase(tmp_path, locations=21, takes=2)
    small, large = load(tmp_path), load(tmp_path, validation_share=0.4)
    assert len(small.splits["validation"]) == 3 * 3 * 2  # 15 % of 20 locations
    assert len(large.splits["validation"]) == 3 * 8 * 2
    documented, other = (load(tmp_path, split_seed=seed) for seed in (2020, 1))
    assert documented.splits["validation"].keys == small.splits["validation"].keys
    assert other.splits["validation"].keys != small.splits["validation"].keys
    assert load(tmp_path, seed=9).splits["validation"].keys == small.splits["validation"].keys


def test_audio_can_be_in_another_folder(tmp_path):
    write_dcase(tmp_path)
    path = load(tmp_path, audio_dir=tmp_path / "disk").splits["test"].paths[0]
    assert path == tmp_path / "disk" / "indoor-vienna-9-0-a.wav"


def test_differences_from_the_published_data_set_are_listed(tmp_path):
    write_dcase(tmp_path, "2019-1a")
    assert differences(load(tmp_path)) == [
        "120 clips in meta.csv; the published data set has 14,400",
        "90 training and validation clips; the published data set has 9,185",
        "30 test clips; the published data set has 4,185",
    ]


def test_a_location_in_both_train_and_test_is_listed(tmp_path):
    folder = write_dcase(tmp_path)
    meta = folder / "meta.csv"
    meta.write_text(meta.read_text().replace("\tvienna-9\t", "\tvienna-0\t"))
    assert any(
        re.fullmatch("1 location is in both (train|validation) and test: vienna-0", text)
        for text in differences(load(folder))
    )


def replaced(name, old, new):
    def damage(folder):
        path = folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "meta.csv").unlink(), r"meta\.csv: is missing.*zenodo\.org"),
        (
            lambda folder: (folder / "evaluation_setup" / "fold1_train.csv").unlink(),
            r"fold1_train\.csv: is missing.*zenodo\.org/record/3670185",
        ),
        (
            replaced("meta.csv", "identifier", "place"),
            "needs the columns filename, scene_label",
        ),
        (
            replaced("meta.csv", "\toutdoor\t", "\tpark\t"),
            r"line 5: scene 'park' is not one of",
        ),
        (replaced("meta.csv", "outdoor-vienna-1-0-a.wav\toutdoor", "outdoor"), "3 of 4 fields"),
        (replaced("meta.csv", "indoor-vienna-0-1-a", "indoor-vienna-0-0-a"), "is repeated"),
        (
            replaced("meta.csv", "audio/indoor-vienna-0-0", "../x"),
            "is not a path inside the audio",
        ),
        (
            replaced(
                "evaluation_setup/fold1_evaluate.csv", "indoor-vienna-9-0", "indoor-rome-1"
            ),
            r"line 2: 'audio/indoor-rome-1-a\.wav' is not in meta\.csv",
        ),
        (
            replaced("evaluation_setup/fold1_evaluate.csv", "\tindoor", "\toutdoor"),
            r"is 'outdoor' here and 'indoor' in meta\.csv",
        ),
        (
            replaced(
                "evaluation_setup/fold1_evaluate.csv", "indoor-vienna-9-1", "indoor-vienna-9-0"
            ),
            "line 3: .* is repeated",
        ),
        (
            replaced(
                "evaluation_setup/fold1_evaluate.csv", "indoor-vienna-9-0", "indoor-vienna-0-0"
            ),
            "train and evaluate share 1 clip: audio/indoor-vienna-0-0-a.wav",
        ),
        (
            lambda f: (f / "evaluation_setup" / "fold1_evaluate.csv").write_text("filename\n"),
            "has no clips",
        ),
    ],
)
def test_malformed_files_are_rejected_with_a_reason(tmp_path, damage, message):
    folder = write_dcase(tmp_path)
    damage(folder)
    with pytest.raises(DatasetError, match=message):
        load(folder)


def test_one_location_per_class_cannot_be_held_out(tmp_path):
    write_dcase(tmp_path, locations=2)
    with pytest.raises(DatasetError, match="All clips of 'indoor' are in the group 'vienna-0'"):
        load(tmp_path)


def test_the_edition_must_be_clear(tmp_path):
    with pytest.raises(ConfigError, match=r"could be any DCASE set.*--subset.*zenodo\.org"):
        load(tmp_path)
    folder = write_dcase(tmp_path, "2020-1b")
    with pytest.raises(
        ConfigError, match=r"has the subset 2020-1b. Received: subset='2018-1a'"
    ):
        load(folder, subset="2018-1a")
    renamed = folder.rename(tmp_path / "scenes")
    assert load(renamed, subset="2020-1b").info["subset"] == "2020-1b"
    write_dcase(tmp_path, "2018-1a")
    write_dcase(tmp_path, "2019-1a")
    with pytest.raises(
        ConfigError, match="several subsets. Choose one with --subset: 2018-1a, 2019-1a"
    ):
        load(tmp_path)
    assert load(tmp_path, subset="2018-1a").info["subset"] == "2018-1a"
    with pytest.raises(ConfigError, match="Unknown subset '2020-1c'"):
        load(tmp_path, subset="2020-1c")
    with pytest.raises(
        ConfigError, match="'dcase' does not accept --fold. Data sets that do: mtg_jamendo"
    ):
        load(tmp_path, fold=1)
