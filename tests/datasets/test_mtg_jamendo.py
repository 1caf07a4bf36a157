"""MTG-Jamendo: layouts, subsets, folds, order of tags, finding audio."""

import numpy as np
import pytest

from rfkeras.datasets.checks import differences, overlaps
from rfkeras.datasets.load import load_dataset
from rfkeras.errors import ConfigError, DatasetError
from tests.helpers.layouts import HEADER, TRACKS, jamendo_row, write_jamendo, write_tone

LAYOUTS = {
    "repository": "data/splits/split-0/autotagging_moodtheme",
    "its folder data": "splits/split-0/autotagging_moodtheme",
    "parent": "mtg-jamendo-dataset/data/splits/split-0/autotagging_moodtheme",
    "mediaeval": "split-0-moodtheme",
}


def load(root, **options):
    return load_dataset("mtg_jamendo", data_dir=root, **options)


def test_the_real_split_0_has_the_published_tracks_tags_and_artists(shared_folder):
    dataset = load(shared_folder / "datasets" / "mtg_jamendo")
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert sizes == {"train": 9949, "validation": 3802, "test": 4231}
    assert len(dataset.label_names) == 56
    assert dataset.label_names[::55] == ("action", "uplifting")
    assert list(dataset.label_names) == sorted(dataset.label_names)
    assert differences(dataset) == []
    assert overlaps(dataset) == {"key": {}, "artist": {}}
    train, test = dataset.splits["train"], dataset.splits["test"]
    assert train.keys[0] == "track_0000948"
    assert train.paths[0].parts[-2:] == ("48", "948.mp3")
    assert train.seconds[0] == 212.7
    assert [dataset.label_names[i] for i in np.flatnonzero(train.labels[0])] == ["background"]
    assert test.seconds.max() == 3931.3
    # Equal, row by row, to the ground truth that the organisers of the task distribute.
    truth = np.load(shared_folder / "datasets" / "mediaeval2019" / "groundtruth.npy")
    np.testing.assert_array_equal(test.labels, truth)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_tracks(tmp_path, layout):
    dataset = load(write_jamendo(tmp_path, LAYOUTS[layout]))
    assert dataset.label_names == ("dark", "happy", "sad")
    train = dataset.splits["train"]
    assert train.keys == ("track_0000100", "track_0000201", "track_0000302")
    np.testing.assert_array_equal(train.labels, [[1, 1, 0], [0, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(train.mask, np.ones((3, 3)))
    np.testing.assert_array_equal(train.seconds, [0.5, 0.4, 0.3])
    assert train.groups == ("artist_000001", "artist_000001", "artist_000002")
    assert len(dataset.splits["test"]) == 2
    assert dataset.task == "multi_label"


def test_categories_are_kept_if_there_are_several(tmp_path):
    tracks = {
        "train": {1: (1, 1.0, "genre---rock mood/theme---happy")},
        "validation": {2: (2, 1.0, "instrument---piano")},
        "test": {3: (3, 1.0, "genre---rock")},
    }
    write_jamendo(tmp_path, "data/splits/split-2/autotagging", tracks)
    dataset = load(tmp_path, subset="all", fold=2)
    assert dataset.label_names == ("genre---rock", "instrument---piano", "mood/theme---happy")
    assert dataset.info == {
        "subset": "all",
        "fold": 2,
        "audio_dir": str(tmp_path / "audio"),
    }
    assert differences(dataset) == [
        "3 training and validation and test clips; the published data set has 55,525",
        "3 labels; the published data set has 183",
    ]


def test_the_official_tag_order_takes_precedence_over_the_alphabet(tmp_path):
    write_jamendo(tmp_path, "split-0-moodtheme")
    order = ["sad", "happy", "never", "dark"]
    (tmp_path / "moodtheme_split.txt").write_text(
        "".join(f"mood/theme---{tag}\n" for tag in order)
    )
    dataset = load(tmp_path)
    assert dataset.label_names == tuple(order)
    np.testing.assert_array_equal(dataset.splits["train"].labels[0], [0, 1, 0, 1])
    assert dataset.remarks == ("1 tag without tracks: mood/theme---never",)
    (tmp_path / "moodtheme_split.txt").write_text("mood/theme---happy\n")
    with pytest.raises(
        DatasetError, match=r"does not have mood/theme---dark, mood/theme---sad"
    ):
        load(tmp_path)


def test_both_downloads_of_the_audio_are_found_in_all_folders(tmp_path):
    write_jamendo(tmp_path)
    elsewhere = tmp_path / "disk"
    write_tone(elsewhere / "00" / "100.low.mp3")
    write_tone(elsewhere / "01" / "201.mp3")
    write_tone(elsewhere / "01" / "201.low.mp3")
    paths = load(tmp_path, audio_dir=elsewhere).splits["train"].paths
    assert paths[0] == elsewhere / "00" / "100.low.mp3"
    assert paths[1] == elsewhere / "01" / "201.mp3"  # the better one if there are both
    assert paths[2] == elsewhere / "02" / "302.mp3"  # missing: reported later
    write_tone(tmp_path / "00" / "100.mp3")
    assert load(tmp_path).splits["train"].paths[0] == tmp_path / "00" / "100.mp3"
    write_tone(tmp_path / "audio" / "00" / "100.mp3")
    assert load(tmp_path).splits["train"].paths[0] == tmp_path / "audio" / "00" / "100.mp3"


def test_differences_from_the_published_data_set_are_listed(tmp_path):
    tracks = {**TRACKS, "test": {504: (1, 0.6, "mood/theme---sad")}}
    found = differences(load(write_jamendo(tmp_path, tracks=tracks)))
    assert found == [
        "3 training clips; the published data set has 9,949",
        "1 validation clip; the published data set has 3,802",
        "1 test clip; the published data set has 4,231",
        "3 labels; the published data set has 56",
        "1 artist is in both train and test: artist_000001",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("track_1\tartist_1\talbum_1\t1/1.mp3\t12.0", r"line 2: a track needs .* at least one"),
        ("track_1\tartist_1\talbum_1\t1/1.mp3\t12.0\t\t", "at least one tag"),
        ("track_1\t\talbum_1\t1/1.mp3\t12.0\tx---y", "a track needs an id, artist"),
        (
            "track_1\ta\tb\t1/1.mp3\tlong\tx---y",
            "duration must be in seconds. Received: 'long'",
        ),
        ("track_1\ta\tb\t1/1.mp3\t-3\tx---y", "duration must be in seconds"),
        ("track_1\ta\tb\t1/1.mp3\tnan\tx---y", "duration must be in seconds"),
        ("track_1\ta\tb\t../1.mp3\t3\tx---y", r"'\.\./1\.mp3' is not a path inside"),
        ("track_1\ta\tb\t/etc/1.mp3\t3\tx---y", "is not a path inside the audio folder"),
        (
            jamendo_row(403, 9, 1.0, "x---y"),
            "track_0000403 is in both train and validation",
        ),
    ],
)
def test_errors_for_malformed_rows_have_the_line(tmp_path, row, message):
    write_jamendo(tmp_path, "split-0-moodtheme")
    (tmp_path / "split-0-moodtheme-train.tsv").write_text(f"{HEADER}\r\n{row}\r\n")
    with pytest.raises(DatasetError, match=message):
        load(tmp_path)


def test_errors_for_missing_and_wrong_files_give_the_source(tmp_path):
    with pytest.raises(
        DatasetError, match=r"does not have split 0 of MTG-Jamendo moodtheme.*github\.com/MTG"
    ):
        load(tmp_path)
    write_jamendo(tmp_path, "split-0-moodtheme")
    with pytest.raises(DatasetError, match="does not have split 3 of MTG-Jamendo moodtheme"):
        load(tmp_path, fold=3)
    with pytest.raises(DatasetError, match="does not have split 0 of MTG-Jamendo genre"):
        load(tmp_path, subset="genre")
    (tmp_path / "split-0-moodtheme-test.tsv").write_text(HEADER + "\n")
    with pytest.raises(DatasetError, match="has a header but no tracks"):
        load(tmp_path)
    (tmp_path / "split-0-moodtheme-test.tsv").unlink()
    with pytest.raises(DatasetError, match=r"moodtheme-test\.tsv: is missing.*github\.com/MTG"):
        load(tmp_path)
    (tmp_path / "split-0-moodtheme-test.tsv").write_text("id,artist\n")
    with pytest.raises(
        DatasetError, match=r"first line must be TRACK_ID.*Received: 'id,artist'"
    ):
        load(tmp_path)
    (tmp_path / "split-0-moodtheme-test.tsv").write_bytes(b"\xff\xfeA")
    with pytest.raises(DatasetError, match="unreadable"):
        load(tmp_path)


def test_unknown_subsets_and_folds_are_rejected(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'moodtheme'"):
        load(tmp_path, subset="moodthem")
    with pytest.raises(ConfigError, match=r"folds 0 to 4. Received: fold=5"):
        load(tmp_path, fold=5)
