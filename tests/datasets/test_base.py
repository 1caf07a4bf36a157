"""Splits, data sets, holding out clips by group, and paths from metadata."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from rfkeras.datasets.base import (
    AudioDataset,
    BadFileLog,
    Split,
    hold_out,
    hold_out_by_class,
    hold_out_groups,
    hold_out_whole_groups,
)
from rfkeras.datasets.load import load_dataset
from rfkeras.datasets.tables import FolderListing, safe_path
from rfkeras.errors import AudioError, ConfigError, DatasetError
from tests.datasets.conftest import split_of

# Exactly one class per clip


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
        ([[1, 0], [0, 1]], [[1, 1], [0, 1]], "'clip1' has 1 unknown label"),
    ],
)
def test_the_error_names_the_first_clip_without_exactly_one_class(labels, mask, fault):
    with pytest.raises(DatasetError, match=rf"scenes, split 'test': .* but {fault}"):
        AudioDataset(
            "scenes", ("a", "b"), {"test": split_of(labels, mask=mask)}, task="single_label"
        )


def test_an_unknown_task_or_a_wrong_number_of_names_is_rejected():
    with pytest.raises(
        ConfigError, match=r"Unknown task 'multilabel'. Did you mean 'multi_lab"
    ):
        AudioDataset("x", ("a",), {}, task="multilabel")
    with pytest.raises(
        DatasetError, match=r"labels of shape \(2, 2\) do not fit 3 label names"
    ):
        AudioDataset("x", ("a", "b", "c"), {"test": split_of(np.eye(2))})


def test_selection_keeps_the_lengths_and_groups_of_clips():
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
    with pytest.raises(DatasetError, match=r"one entry of groups per clip.* 1 for 2 clips"):
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
def test_no_group_is_divided_and_both_parts_have_every_class(sizes, share, seed):
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
        # Whole groups cannot match the share exactly; the largest one is the tolerance.
        wanted = share * sum(places)
        assert abs(held_out.labels[:, column].sum() - wanted) <= max(places)
    backwards = split.select(range(len(split))[::-1])
    again = hold_out_groups(backwards, share, seed, names)[1]
    assert set(again.groups) == set(held_out.groups)


@given(
    st.integers(2, 40),
    st.floats(0.05, 0.95),
    st.integers(0, 2**31 - 1),
    st.randoms(use_true_random=False),
)
def test_held_out_clips_do_not_depend_on_the_order_of_the_files(clips, share, seed, random):
    split = split_of(np.eye(clips))
    order = list(range(clips))
    random.shuffle(order)
    kept, held_out = hold_out(split, share, seed)
    assert sorted(kept.keys + held_out.keys) == sorted(split.keys)
    assert len(held_out) == min(clips - 1, max(1, round(share * clips)))
    for part in (kept, held_out):  # each in the order of the files
        assert list(part.keys) == [key for key in split.keys if key in part.keys]
    kept_again, held_out_again = hold_out(split.select(order), share, seed)
    assert set(held_out_again.keys) == set(held_out.keys)
    assert set(kept_again.keys) == set(kept.keys)


def test_the_seed_draws_other_clips():
    split = split_of(np.eye(40))
    drawn = {hold_out(split, 0.5, seed)[1].keys for seed in range(5)}
    assert len(drawn) == 5


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_holding_out_needs_a_share_between_0_and_1(share):
    with pytest.raises(ConfigError, match=f"share={share}, 2 clips"):
        hold_out(split_of(np.eye(2)), share, 0)
    with pytest.raises(ConfigError, match="at least 2 clips. Received: share=0.5, 1 clip"):
        hold_out(split_of(np.eye(1)), 0.5, 0)


def test_holding_out_groups_needs_groups_and_a_share():
    with pytest.raises(ConfigError, match="groups missing"):
        hold_out_groups(split_of(np.eye(2)), 0.5, 0, "ab")
    with pytest.raises(ConfigError, match="share=1"):
        hold_out_groups(split_of(np.eye(2), ("a", "b")), 1, 0, "ab")


# Paths from metadata


@pytest.mark.parametrize("text", ["", ".", "/a", "../a", "a/../../b", "a\\b", "a\0b", "a/.."])
def test_paths_out_of_the_folder_are_rejected(text):
    with pytest.raises(
        DatasetError, match="list.tsv, line 7: .* is not a path inside the audio"
    ):
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

    iterdir = Path.iterdir
    monkeypatch.setattr(
        Path, "iterdir", lambda path: listed.update([path.name]) or iterdir(path)
    )
    folders = FolderListing(tmp_path)
    found = [
        folders.find(safe_path(p, ""), (".wav", ".au")) for p in ("a/1", "a/2", "b/2", "c/1")
    ]
    assert [path.name for path in found] == ["1.wav", "2.au", "2.wav", "1.wav"]
    assert listed == {"a": 1, "b": 1, "c": 1}


def test_options_of_other_data_sets_are_rejected(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(10), 8000)
    with pytest.raises(
        ConfigError,
        match="'openmic' does not accept --audio-dir. Data sets that do: dcase, gtzan, mag",
    ):
        load_dataset("openmic", data_dir=tmp_path, audio_dir="x")
    with pytest.raises(ConfigError, match="'mtg_jamendo' needs --data-dir, the folder you unp"):
        load_dataset("mtg_jamendo")
    with pytest.raises(ConfigError, match="'packed' needs --data-dir, the folder or URL"):
        load_dataset("packed")


@pytest.mark.parametrize("divide", [hold_out, hold_out_by_class, hold_out_whole_groups])
def test_the_order_of_the_clips_does_not_matter(divide):
    rng = np.random.default_rng(0)
    groups = tuple(f"g{row // 2}" for row in range(40))
    split = split_of(np.eye(4)[rng.integers(0, 4, 40)], groups)
    held_out = {
        frozenset(divide(split.select(rng.permutation(40)), 0.3, 7)[1].keys) for _ in range(5)
    }
    assert len(held_out) == 1
    assert len(next(iter(held_out))) in (11, 12, 13)


def test_every_class_is_held_out_and_kept():
    sizes = [50, 10, 3, 2, 1]
    split = split_of(np.repeat(np.eye(5), sizes, axis=0))
    for reserve, expected in ((1, [10, 2, 1, 1, 0]), (2, [10, 2, 1, 0, 0])):
        kept, held_out = hold_out_by_class(split, 0.2, 0, reserve)
        assert held_out.labels.sum(axis=0).tolist() == expected
        assert set(kept.keys) | set(held_out.keys) == set(split.keys)
        assert len(kept) + len(held_out) == len(split)


def test_whole_groups_stay_together():
    groups = tuple("aaaabbbccd")
    kept, held_out = hold_out_whole_groups(split_of(np.ones((10, 2)), groups), 0.3, 1)
    assert not set(kept.groups) & set(held_out.groups)
    assert len(kept) + len(held_out) == 10
    with pytest.raises(ConfigError, match="at least 2 groups. Received: share=0.3, 1 group"):
        hold_out_whole_groups(split_of(np.ones((3, 1)), ("a",) * 3), 0.3, 0)


@pytest.mark.parametrize("written", [True, False])
def test_too_many_bad_files_are_an_error_that_names_the_full_list(tmp_path, written):
    path = tmp_path / "bad.csv" if written else None
    log = BadFileLog(path, total_files=10, max_bad_share=0.1)
    log.record(AudioError("a.wav", "no audio"), "test")
    with pytest.raises(DatasetError, match="2 of 10 audio files cannot be used") as caught:
        log.record(AudioError("b.wav", "no audio"), "test")
    assert (f"The full list is in {path}." in str(caught.value)) is written
    assert "The full list is in None" not in str(caught.value)
