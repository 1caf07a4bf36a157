"""Clips that a run was trained on are not scored as unseen ones."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rfkeras.config.train_config import TrainConfig, resolve
from rfkeras.datasets.base import AudioDataset, Split
from rfkeras.errors import DatasetError
from rfkeras.training.run_dir import (
    check_same_data,
    create_run_folder,
    write_environment,
    write_training_clips,
)

TRAINED = tuple(f"{n:02d}/{n}.mp3" for n in range(100, 120))


def configure(**flags):
    return resolve(TrainConfig, {"dataset": "mtg_jamendo", "data_dir": "/clone", **flags})


def scored(keys, name="mtg_jamendo", split="test"):
    """What `evaluate` opened: one split of these clips."""
    ones = np.ones((len(keys), 1), np.float32)
    clips = Split(tuple(keys), tuple(map(Path, keys)), ones, ones)
    dataset = AudioDataset(name, ("tag",), {split: clips})
    return SimpleNamespace(dataset=dataset, fingerprints={split: "same"})


@pytest.fixture
def trained(tmp_path):
    """Makes the folder of a run that was trained on TRAINED."""

    def make(dataset="mtg_jamendo", **flags):
        folder = create_run_folder(configure(dataset=dataset, **flags), tmp_path / "run")
        fingerprints = {"train": "same", "validation": "same", "test": "same"}
        write_environment(folder, [], {"fingerprints": fingerprints})
        write_training_clips(folder, dataset, TRAINED)
        return folder

    return make


@pytest.mark.parametrize(
    ("flags", "way_out"),
    [
        (
            {"data_dir": "/other", "fold": 1},
            "Another fold holds clips .* the fold of the run, 0",
        ),
        ({"fold": 2}, "Another fold holds clips trained on"),
        ({"data_dir": "/other"}, "Score data with the splits of the run"),
        ({"subset": "top50tags"}, "Score data with the splits of the run"),
        ({"dataset": "packed", "data_dir": "/shards"}, "Score data with the splits of the run"),
    ],
)
def test_training_clips_are_found_wherever_the_data_lies(trained, flags, way_out):
    folder = trained(fold=0)
    config = configure(**{"fold": 0, **flags})
    inputs = scored([*TRAINED[:5], "new.mp3"])
    says = f"5 of 6 clips of split 'test' were trained on .*: {TRAINED[0]}, .*, {TRAINED[2]}, "
    with pytest.raises(DatasetError, match=says + r"\.\.\. ?.*" + way_out):
        check_same_data(folder, config, inputs)


def test_clips_that_were_not_trained_on_are_scored(trained):
    folder = trained(fold=0)
    other = configure(data_dir="/other")
    check_same_data(folder, other, scored(["a.mp3", "b.mp3"]))
    check_same_data(folder, other, scored(TRAINED, split="train"))  # asked for by name
    check_same_data(folder, other, scored(TRAINED, name="openmic"))  # other clips


def test_own_sounds_elsewhere_may_share_names_and_make_a_note(trained, capsys):
    folder = trained("folder")
    same_names = scored(TRAINED[:2], name="folder")
    check_same_data(folder, configure(dataset="folder", data_dir="/other"), same_names)
    assert (
        "if these are the same files: 2 of 2 clips of split 'test'" in capsys.readouterr().err
    )
    with pytest.raises(DatasetError, match="2 of 2 clips"):
        check_same_data(folder, configure(dataset="folder", test_share=0.3), same_names)


def test_own_data_must_be_as_it_was_with_or_without_a_record(trained):
    folder = trained()
    inputs = scored(["a.mp3"])
    check_same_data(folder, configure(), inputs)
    inputs.fingerprints["test"] = "other"
    with pytest.raises(DatasetError, match="holds other clips or labels than when"):
        check_same_data(folder, configure(), inputs)
    folder.training_clips.unlink()  # as in folders of older versions
    with pytest.raises(DatasetError, match="holds other clips or labels than when"):
        check_same_data(folder, configure(), inputs)
    check_same_data(folder, configure(data_dir="/other"), scored(TRAINED))


def test_the_record_is_compact_and_kept_when_a_run_goes_on(trained):
    folder = trained()
    record = folder.training_clips.read_text()
    assert len(record) < 20 * len(TRAINED) + 60
    assert TRAINED[0] not in record
    folder.last.touch()
    write_training_clips(folder, "mtg_jamendo", ["other.mp3"])
    assert folder.training_clips.read_text() == record
    assert len(json.loads(record)["sha256_starts"]) == len(TRAINED)
