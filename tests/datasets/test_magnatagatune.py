"""MagnaTagATune: tags, split by folder, the empty files."""

import numpy as np
import pytest

from rfkeras.datasets import magnatagatune
from rfkeras.datasets.checks import differences
from rfkeras.datasets.load import load_dataset
from rfkeras.errors import ConfigError, DatasetError
from tests.helpers.layouts import CLIPS, write_magnatagatune, write_tone


def load(root, **options):
    return load_dataset("magnatagatune", data_dir=root, **options)


def tags_of(dataset, split, row):
    labels = dataset.splits[split].labels[row]
    return {dataset.label_names[column] for column in np.flatnonzero(labels)}


def test_split_by_folder_with_the_50_tags_in_their_usual_order(tmp_path):
    dataset = load(write_magnatagatune(tmp_path))
    assert len(set(dataset.label_names)) == 50
    assert dataset.label_names[:4] == ("guitar", "classical", "slow", "techno")
    assert dataset.label_names[-1] == "choral"
    paths = {name: split.paths for name, split in dataset.splits.items()}
    files = {
        name: [str(p.relative_to(tmp_path)) for p in found] for name, found in paths.items()
    }
    everything = list(CLIPS)
    assert files == {
        "train": everything[:3],
        "validation": everything[3:4],
        "test": everything[4:6],
    }
    assert tags_of(dataset, "train", 0) == {"guitar", "rock"}
    assert tags_of(dataset, "train", 2) == {"no vocal"}  # "other 7" is not among the 50
    assert tags_of(dataset, "test", 0) == {"choral", "guitar"}
    assert tags_of(dataset, "test", 1) == set()
    assert dataset.splits["train"].mask.all()
    assert dataset.splits["train"].keys == ("2", "3", "4")
    assert dataset.splits["train"].groups[:2] == ("band-album-01-song",) * 2


def test_all_188_tags_in_the_order_of_the_file(tmp_path):
    dataset = load(write_magnatagatune(tmp_path), subset="all")
    assert len(dataset.label_names) == 188
    assert dataset.label_names[0] == "other 0"
    assert tags_of(dataset, "train", 2) == {"no vocal", "other 7"}


def test_the_three_empty_files_are_left_out(tmp_path):
    clips = CLIPS | dict.fromkeys(magnatagatune.EMPTY_FILES, ("guitar",))
    dataset = load(write_magnatagatune(tmp_path, clips))
    assert sum(len(split) for split in dataset.splits.values()) == 6
    assert len(dataset.info["left_out"]) == 3
    assert dataset.published.clips == {"train+validation+test": 25863 - 3}


def test_audio_is_found_in_the_usual_folders(tmp_path):
    write_magnatagatune(tmp_path)
    first = next(iter(CLIPS))
    write_tone(tmp_path / "mp3" / first)
    assert load(tmp_path).splits["train"].paths[0] == tmp_path / "mp3" / first
    elsewhere = load(tmp_path, audio_dir=tmp_path / "disk")
    assert elsewhere.splits["train"].paths[0] == tmp_path / "disk" / first


def test_differences_from_the_published_data_set_are_listed(tmp_path):
    assert differences(load(write_magnatagatune(tmp_path))) == [
        "6 training and validation and test clips; the published data set has 25,860",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"clip_id"', '"id"', "first line must name clip_id, 188 tags and mp3_path"),
        ('"other 0"\t', "", "Received: 189 columns"),
        ('"guitar"', '"gitar"', "has no column for the tags guitar"),
        ('"0/band-album-01-song-0-29', '"../0/band', "is not a path inside the audio folder"),
        ('"0/band-album-01-song-0-29', '"g/band', "none of the folders 0 to f"),
        ('"0/band-album-01-song-0-29', '"band', "none of the folders 0 to f"),
        ('"3"', '"2"', "line 3: clip 2 is repeated"),
        ('"2"\t"0"', '"2"\t"yes"', "line 2: expected 188 values, each 0 or 1"),
        ('"2"\t"0"\t', '"2"\t', "line 2: expected 188 values"),
        ('"c/trio', '"b/trio', "has no clips for validation"),
        ('"clip_id"', '"clip_id', r"line \d+: "),
    ],
)
def test_malformed_annotations_are_rejected_with_a_reason(tmp_path, old, new, message):
    path = write_magnatagatune(tmp_path) / magnatagatune.ANNOTATIONS
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DatasetError, match=message):
        load(tmp_path)


def test_missing_annotations_are_reported(tmp_path):
    with pytest.raises(DatasetError, match=r"annotations_final\.csv: is missing.*mirg\.city"):
        load(tmp_path)
    header = write_magnatagatune(tmp_path) / magnatagatune.ANNOTATIONS
    header.write_text(header.read_text().splitlines()[0])
    with pytest.raises(DatasetError, match="has a header but no clips"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="Unknown subset 'top5'. Did you mean 'top50'"):
        load(tmp_path, subset="top5")
