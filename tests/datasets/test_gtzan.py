"""GTZAN: the fault-filtered split, custom lists, folder layouts."""

import pytest

from rfkeras.datasets import gtzan
from rfkeras.datasets.checks import differences
from rfkeras.datasets.load import load_dataset
from rfkeras.errors import ConfigError, DatasetError
from tests.helpers.layouts import write_gtzan, write_gtzan_lists


def load(root, **options):
    return load_dataset("gtzan", data_dir=root, **options)


def test_the_fault_filtered_split_has_the_published_sizes():
    keys = {split: gtzan.filtered_keys(split) for split in gtzan.RANGES}
    assert {split: len(files) for split, files in keys.items()} == {
        "train": 443,
        "validation": 197,
        "test": 290,
    }
    together = [key for files in keys.values() for key in files]
    assert len(set(together)) == 930
    assert set(together) <= {f"{g}.{n:05d}" for g in gtzan.GENRES for n in range(100)}
    # First and last lines of the published lists.
    assert (keys["train"][0], keys["train"][-1]) == ("blues.00029", "rock.00099")
    assert (keys["validation"][0], keys["validation"][-1]) == ("blues.00000", "rock.00085")
    assert (keys["test"][0], keys["test"][-1]) == ("blues.00012", "rock.00090")
    assert gtzan.numbers("5 15-17") == [5, 15, 16, 17]


@pytest.mark.parametrize("place", ["", "genres", "genres_original", "Data/genres_original"])
@pytest.mark.parametrize("suffix", [".wav", ".au"])
def test_layouts(tmp_path, place, suffix):
    write_gtzan(tmp_path / place, suffix)
    dataset = load(tmp_path)
    assert dataset.task == "single_label"
    assert dataset.label_names == gtzan.GENRES
    assert dataset.label_names[::9] == ("blues", "rock")
    assert differences(dataset) == []
    train = dataset.splits["train"]
    assert train.paths[0] == tmp_path / place / "blues" / f"blues.00029{suffix}"
    for key, labels in zip(train.keys, train.labels, strict=True):
        assert gtzan.GENRES[labels.argmax()] == key.partition(".")[0]
    assert load(tmp_path, audio_dir=tmp_path / place).splits["train"].paths == train.paths


def test_missing_files_of_a_genre_are_counted(tmp_path):
    write_gtzan(tmp_path)
    (tmp_path / "jazz" / "jazz.00054.wav").unlink()
    dataset = load(tmp_path)
    assert differences(dataset) == ["genres with fewer than 100 files: jazz (99)"]
    assert tmp_path / "jazz" / "jazz.00054.wav" in dataset.splits["train"].paths


def test_custom_lists_replace_the_published_ones(tmp_path):
    write_gtzan(tmp_path / "genres")
    write_gtzan_lists(tmp_path)
    dataset = load(tmp_path)
    assert dataset.splits["test"].keys == ("blues.00012", "blues.00013")
    assert dataset.info["splits"] == f"lists in {tmp_path}"
    # Their lengths are not compared with published numbers; the folder still is.
    assert differences(dataset) == []
    (tmp_path / "genres" / "jazz" / "jazz.00054.wav").unlink()
    assert differences(load(tmp_path)) == ["genres with fewer than 100 files: jazz (99)"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("blues/jazz.00001.wav", "expected genre/genre.00000.wav"),
        ("polka/polka.00001.wav", "with one of the genres blues, classical"),
        ("../blues.00001.wav", "expected genre/genre.00000.wav"),
        ("blues/blues.1.wav", "line 1: expected .* Received: 'blues/blues.1.wav'"),
        (
            "blues/blues.00012.wav",
            r"test_filtered.txt, line 1: blues.00012 is already in train",
        ),
        ("", "has no files"),
    ],
)
def test_malformed_lists(tmp_path, line, message):
    write_gtzan(tmp_path / "genres")
    write_gtzan_lists(tmp_path)
    if "already" in message:
        (tmp_path / "train_filtered.txt").write_text(line)
    (tmp_path / "test_filtered.txt").write_text(line)
    with pytest.raises(DatasetError, match=message):
        load(tmp_path)


def test_errors_for_missing_lists_and_folders_give_the_source(tmp_path):
    with pytest.raises(
        DatasetError, match=r"no folders blues, classical, country and 7 more.*mars"
    ):
        load(tmp_path)
    with pytest.raises(DatasetError, match="no folders blues"):
        load(tmp_path, audio_dir=tmp_path / "absent")
    write_gtzan(tmp_path)
    write_gtzan_lists(tmp_path)
    (tmp_path / "valid_filtered.txt").unlink()
    with pytest.raises(
        DatasetError, match=r"valid_filtered\.txt: is missing.*coreyker/dnn-mgr"
    ):
        load(tmp_path)
    with pytest.raises(ConfigError, match="'gtzan' does not accept --subset"):
        load(tmp_path, subset="all")
