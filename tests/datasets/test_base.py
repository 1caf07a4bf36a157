"""What every data set has to keep to, and what is found when a copy does not."""

from collections import Counter

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from rfkeras.datasets.base import (
    AudioDataset,
    Published,
    Split,
    differences,
    hold_out_groups,
    overlaps,
)
from rfkeras.datasets.checks import check_present, missing_files, scan_split
from rfkeras.datasets.load import load_dataset
from rfkeras.datasets.tables import Folders, named, safe_path
from rfkeras.errors import ConfigError, DatasetError
from tests.helpers.layouts import write_tone


def split_of(labels, groups=None, folder=None, mask=None, prefix="clip"):
    labels = np.asarray(labels, np.float32)
    keys = tuple(f"{prefix}{row}" for row in range(len(labels)))
    paths = tuple((folder / f"{key}.wav") if folder else key for key in keys)
    mask = np.ones_like(labels) if mask is None else np.asarray(mask, np.float32)
    return Split(keys, paths, labels, mask, groups=groups)


# Exactly one class a clip


def test_single_label_data_is_accepted():
    dataset = AudioDataset(
        "scenes", ("a", "b"), {"test": split_of(np.eye(2))}, task="single_label"
    )
    assert dataset.task == "single_label"


@pytest.mark.parametrize(
    ("labels", "mask", "fault"),
    [
        ([[1, 0], [1, 1], [0, 0]], None, "'clip1' has 2 classes"),
        ([[1, 0], [0, 1], [0, 0]], None, "'clip2' has 0 classes"),
        ([[0.5, 0.5], [0, 1]], None, "'clip0' has 2 classes"),
        ([[1, 0], [0, 1]], [[1, 1], [0, 1]], "'clip1' has 1 labels that are masked"),
    ],
)
def test_the_first_clip_without_exactly_one_class_is_named(labels, mask, fault):
    with pytest.raises(DatasetError, match=rf"scenes, split 'test': .* but {fault}"):
        AudioDataset(
            "scenes", ("a", "b"), {"test": split_of(labels, mask=mask)}, task="single_label"
        )


def test_unknown_task_and_wrong_number_of_names():
    with pytest.raises(
        ConfigError, match=r"Unknown task 'multilabel'. Did you mean 'multi_lab"
    ):
        AudioDataset("x", ("a",), {}, task="multilabel")
    with pytest.raises(
        DatasetError, match=r"labels of shape \(2, 2\) do not fit 3 label names"
    ):
        AudioDataset("x", ("a", "b", "c"), {"test": split_of(np.eye(2))})


def test_lengths_and_groups_belong_to_their_clips():
    split = Split(
        ("a", "b", "c"),
        ("a", "b", "c"),
        np.eye(3, dtype=np.float32),
        np.ones((3, 3), np.float32),
        seconds=np.array([1.0, 2.0, 3.0]),
        groups=("x", "y", "x"),
    )
    chosen = split.select([2, 0])
    assert (chosen.groups, list(chosen.seconds)) == (("x", "x"), [3.0, 1.0])
    with pytest.raises(DatasetError, match=r"one entry of groups a clip.* 1 for 2 clips"):
        split_of(np.eye(2), groups=("x",))


# Holding out by group


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(
        st.lists(st.integers(1, 9), min_size=2, max_size=12), min_size=1, max_size=4
    ),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 2**31),
)
def test_no_group_is_in_two_parts_and_every_class_is_in_both(sizes, share, seed):
    rows = [
        (column, f"{column}-{place}")
        for column, places in enumerate(sizes)
        for place, count in enumerate(places)
        for _ in range(count)
    ]
    np.random.default_rng(seed).shuffle(rows)
    columns = np.array([int(column) for column, _ in rows])
    split = split_of(np.eye(len(sizes))[columns], tuple(str(group) for _, group in rows))
    names = [f"class {column}" for column in range(len(sizes))]
    kept, held_out = hold_out_groups(split, share, seed, names)
    assert sorted(kept.keys + held_out.keys) == sorted(split.keys)
    assert not set(kept.groups) & set(held_out.groups)
    assert kept.labels.sum(axis=0).min() > 0
    assert held_out.labels.sum(axis=0).min() > 0
    for column, places in enumerate(sizes):
        # As near to the share as whole groups allow: within the largest of them.
        wanted = share * sum(places)
        assert abs(held_out.labels[:, column].sum() - wanted) <= max(places)
    backwards = split.select(range(len(split))[::-1])
    again = hold_out_groups(backwards, share, seed, names)[1]
    assert set(again.groups) == set(held_out.groups)


def test_holding_out_needs_groups_and_a_share():
    with pytest.raises(ConfigError, match="groups missing"):
        hold_out_groups(split_of(np.eye(2)), 0.5, 0, "ab")
    with pytest.raises(ConfigError, match="share=1"):
        hold_out_groups(split_of(np.eye(2), ("a", "b")), 1, 0, "ab")


# Copies that are not as published


def test_clips_labels_and_overlaps_are_compared():
    splits = {
        "train": split_of(np.eye(2), ("ann", "bob")),
        "validation": split_of(np.eye(2), ("cid", "bob"), prefix="v"),
        "test": split_of([[1, 0]], ("ann",)),  # and its key is that of the first in train
    }
    published = Published("https://x", {"train+validation": 4, "test": 2}, 3, group="artist")
    dataset = AudioDataset("x", ("a", "b"), splits, published=published, remarks=("hm",))
    assert overlaps(dataset) == {
        "key": {"train, test": ["clip0"]},
        "artist": {"train, validation": ["bob"], "train, test": ["ann"]},
    }
    assert differences(dataset) == [
        "hm",
        "test: 1 clips, published are 2",
        "2 labels, published are 3",
        "train, test: 1 keys are in both: clip0",
        "train, validation: 1 artists are in both: bob",
        "train, test: 1 artists are in both: ann",
    ]
    own = AudioDataset("x", ("a", "b"), {"train": splits["train"]})
    assert differences(own) == []


# Missing audio


def test_missing_audio_is_one_message_with_three_names(tmp_path):
    split = split_of(np.eye(40), folder=tmp_path)
    for path in split.paths[:30]:
        path.touch()
    assert missing_files(split.paths) == list(split.paths[30:])
    dataset = AudioDataset(
        "set", tuple(map(str, range(40))), {"test": split}, published=Published("https://x")
    )
    check_present(dataset, max_bad_share=0.25)
    with pytest.raises(DatasetError) as caught:
        check_present(dataset, max_bad_share=0.24)
    assert str(caught.value) == (
        f"10 of the 40 audio files of set are missing: {tmp_path}/clip30.wav, "
        f"{tmp_path}/clip31.wav, {tmp_path}/clip32.wav and 7 more. Get it from https://x. To "
        "go on without them, raise max_bad_share (--max-bad-share) above 0.2500."
    )
    check_present(dataset, ("train",), max_bad_share=0.0)  # a split that nobody asked for


def test_a_wrong_folder_is_guessed_when_nothing_is_there(tmp_path):
    dataset = AudioDataset("set", ("a", "b"), {"test": split_of(np.eye(2), folder=tmp_path)})
    with pytest.raises(DatasetError, match=r"2 of the 2 .*Is the folder right .*--audio-dir"):
        check_present(dataset, max_bad_share=0.5)


def test_a_file_much_shorter_than_its_metadata_says_is_truncated(tmp_path):
    split = split_of(np.eye(3), folder=tmp_path)
    for path in split.paths:
        write_tone(path, 3.0)
    seconds = np.array([3.0, 4.9, 5.5])
    split = Split(split.keys, split.paths, split.labels, split.mask, seconds=seconds)
    result = scan_split(split, expected_seconds=100.0)
    np.testing.assert_array_equal(result.good_rows, [0, 1])
    assert result.bad[0].reason == "truncated: 3.00 s long, expected 5.5 s"
    assert [info.duration_seconds for info in result.infos] == [3.0, 3.0]


# Paths from metadata


@pytest.mark.parametrize("text", ["", ".", "/a", "../a", "a/../../b", "a\\b", "a\0b", "a/.."])
def test_paths_that_lead_elsewhere_are_refused(text):
    with pytest.raises(DatasetError, match="list.tsv, line 7: .* is no path inside the audio"):
        safe_path(text, "list.tsv, line 7")


@given(st.text(max_size=30))
def test_an_accepted_path_stays_below_the_folder(text):
    try:
        path = safe_path(text, "here")
    except DatasetError:
        return
    assert path.parts
    assert not path.is_absolute()
    assert ".." not in path.parts


def test_each_folder_is_listed_once(tmp_path, monkeypatch):
    for name in ("a/1.wav", "a/2.au", "b/1.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed = Counter()
    import os

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.update([path.name]) or scandir(path))
    folders = Folders(tmp_path)
    found = [
        folders.find(safe_path(p, ""), (".wav", ".au")) for p in ("a/1", "a/2", "b/2", "c/1")
    ]
    assert [path.name for path in found] == ["1.wav", "2.au", "2.wav", "1.wav"]
    assert listed == {"a": 1, "b": 1, "c": 1}


def test_three_names_and_how_many_more():
    assert named("ab") == "a, b"
    assert named("abcd") == "a, b, c and 1 more"


def test_options_of_other_data_sets_are_refused_with_those_that_take_them(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(10), 8000)
    with pytest.raises(
        ConfigError,
        match="'openmic' takes no audio_dir. Those that do: dcase, gtzan, magnatagatune, mtg",
    ):
        load_dataset("openmic", data_dir=tmp_path, audio_dir="x")
    with pytest.raises(ConfigError, match="'mtg_jamendo' needs data_dir"):
        load_dataset("mtg_jamendo")
