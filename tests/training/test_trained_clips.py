"""Clips that a run was trained on are not scored as unseen clips."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rfkeras.config.resolve import merge_options
from rfkeras.datasets.base import AudioDataset, Split
from rfkeras.errors import DatasetError
from rfkeras.training.run_dir import create_run_folder, write_environment, write_training_clips
from rfkeras.training.scoring import check_not_trained_on

TRAINED = tuple(f"{n:02d}/{n}.mp3" for n in range(100, 120))


def configure(**flags):
    return merge_options({"dataset": "mtg_jamendo", "data_dir": "/clone", **flags})


def scored(keys, name="mtg_jamendo", split="test"):
    """Return the inputs of an evaluation: one split with these clips."""
    ones = np.ones((len(keys), 1), np.float32)
    clips = Split(tuple(keys), tuple(map(Path, keys)), ones, ones)
    dataset = AudioDataset(name, ("tag",), {split: clips})
    return SimpleNamespace(dataset=dataset, fingerprints={split: "same"})


@pytest.fixture
def trained(tmp_path):
    """Return a function that makes the folder of a run trained on TRAINED."""

    def make(dataset="mtg_jamendo", **flags):
        folder = create_run_folder(configure(dataset=dataset, **flags), tmp_path / "run")
        fingerprints = {"train": "same", "validation": "same", "test": "same"}
        write_environment(folder, [], {"fingerprints": fingerprints})
        write_training_clips(folder, dataset, TRAINED)
        return folder

    return make


@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        (
            {"data_dir": "/other", "fold": 1},
            "Another fold contains training clips: .* the fold of the run .0.,",
        ),
        ({"fold": 2}, "Another fold contains training clips"),
        ({"data_dir": "/other"}, "Use the splits of the run"),
        ({"subset": "top50tags"}, "Use the splits of the run"),
        ({"dataset": "packed", "data_dir": "/shards"}, "Use the splits of the run"),
    ],
)
def test_training_clips_are_found_in_any_folder_fold_or_subset(trained, flags, advice):
    folder = trained(fold=0)
    config = configure(**{"fold": 0, **flags})
    inputs = scored([*TRAINED[:5], "new.mp3"])
    found = f"5 of the 6 clips of split 'test': {TRAINED[0]}, .*, {TRAINED[2]} and 2 more. "
    with pytest.raises(DatasetError, match=found + advice):
        check_not_trained_on(folder, config, inputs)


def test_other_clips_are_accepted(trained):
    folder = trained(fold=0)
    other = configure(data_dir="/other")
    check_not_trained_on(folder, other, scored(["a.mp3", "b.mp3"]))
    check_not_trained_on(folder, other, scored(TRAINED, split="train"))  # requested explicitly
    check_not_trained_on(folder, other, scored(TRAINED, name="openmic"))  # other clips


def test_equal_paths_in_another_folder_data_set_give_a_note(trained, capsys):
    folder = trained("folder")
    same_names = scored(TRAINED[:2], name="folder")
    check_not_trained_on(folder, configure(dataset="folder", data_dir="/other"), same_names)
    note = capsys.readouterr().err
    assert "if these are the same files, " in note
    assert "was trained on 2 of the 2 clips of split 'test'" in note
    with pytest.raises(DatasetError, match="2 of the 2 clips"):
        check_not_trained_on(folder, configure(dataset="folder", test_share=0.3), same_names)


def test_the_runs_own_data_must_be_unchanged_with_or_without_a_record(trained):
    folder = trained()
    inputs = scored(["a.mp3"])
    check_not_trained_on(folder, configure(), inputs)
    inputs.fingerprints["test"] = "other"
    with pytest.raises(DatasetError, match="has changed since .* was trained"):
        check_not_trained_on(folder, configure(), inputs)
    folder.training_clips.unlink()  # as in folders of older versions
    with pytest.raises(DatasetError, match="has changed since .* was trained"):
        check_not_trained_on(folder, configure(), inputs)
    check_not_trained_on(folder, configure(data_dir="/other"), scored(TRAINED))


def test_the_record_is_compact_and_kept_when_a_run_is_resumed(trained):
    folder = trained()
    record = folder.training_clips.read_text()
    assert len(record) < 20 * len(TRAINED) + 60
    assert TRAINED[0] not in record
    folder.last.touch()
    write_training_clips(folder, "mtg_jamendo", ["other.mp3"])
    assert folder.training_clips.read_text() == record
    assert len(json.loads(record)["sha256_starts"]) == len(TRAINED)
