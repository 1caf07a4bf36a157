"""Your own data: a CSV file of paths and tags, or a folder of class folders."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from rfkeras.datasets.load import load_dataset
from rfkeras.errors import ConfigError, DatasetError
from tests.datasets.conftest import music


def write_csv(folder, text, name="clips.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_csv_with_splits_and_unknown_tags(tmp_path):
    path = write_csv(
        tmp_path,
        "\ufeffpath,labels,split,unknown\n"
        "a.wav,rock|happy,train,\n"
        "sub/b.wav, rock ,validation,happy|sad\n"
        '"c,1.wav",,test,sad\n'
        "d.wav,sad,train,\n",
    )
    dataset = load_dataset("folder", data_dir=path)
    assert dataset.label_names == ("happy", "rock", "sad")
    assert {name: split.keys for name, split in dataset.splits.items()} == {
        "train": ("a.wav", "d.wav"),
        "validation": ("sub/b.wav",),
        "test": ("c,1.wav",),
    }
    assert dataset.splits["validation"].paths == (tmp_path / "sub" / "b.wav",)
    np.testing.assert_array_equal(dataset.splits["train"].labels, [[1, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(dataset.splits["validation"].mask, [[0, 1, 0]])
    np.testing.assert_array_equal(dataset.splits["test"].labels, [[0, 0, 0]])
    np.testing.assert_array_equal(dataset.splits["test"].mask, [[1, 1, 0]])


def many(rows: int, columns: str = "path,labels") -> str:
    return columns + "\n" + "".join(f"{row:02d}.wav,{'ab'[row % 2]}\n" for row in range(rows))


def test_csv_without_splits_is_divided_by_seed(tmp_path):
    path = write_csv(tmp_path, many(20))
    dataset = load_dataset("folder", data_dir=path, seed=1)
    keys = [dataset.splits[name].keys for name in ("train", "validation", "test")]
    assert [len(split) for split in keys] == [14, 3, 3]
    assert sorted(sum(keys, ())) == [f"{row:02d}.wav" for row in range(20)]
    again = load_dataset("folder", data_dir=path, seed=1)
    assert again.splits["test"].keys == keys[2]
    assert load_dataset("folder", data_dir=path, seed=2).splits["test"].keys != keys[2]
    half = load_dataset("folder", data_dir=path, test_share=0.5).splits
    assert len(half["test"]) == 10
    assert dataset.info["splits"] == "by seed 1, file by file"


def test_validation_is_held_out_of_train_when_the_csv_has_none(tmp_path):
    rows = "".join(f"{row}.wav,a,{'test' if row > 9 else 'train'}\n" for row in range(12))
    path = write_csv(tmp_path, "path,labels,split\n" + rows)
    dataset = load_dataset("folder", data_dir=path, validation_share=0.3)
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 7,
        "test": 2,
        "validation": 3,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.wav,x\n", "Unknown column 'label'. Did you mean 'labels'"),
        ("path\na.wav\n", "must name the column 'labels'"),
        ("path,labels\n", "no rows"),
        ("path,labels\na.wav,x,y\n", "line 2: the number of fields differs from the header"),
        ("path,labels\na.wav\n", "line 2: the number of fields differs from the header"),
        ("path,labels\na.wav,x\n,y\n", "line 3: the path is empty"),
        ("path,labels\na.wav,x\nb.wav,y\n./a.wav,y\n", "line 4: a.wav is already in line 2"),
        ("path,labels\n../a.wav,x\n", r"line 2: \.\./a\.wav leads out of"),
        ("path,labels\nsub/../../a.wav,x\n", "leads out of"),
        ("path,labels\n/etc/a.wav,x\n", "leads out of"),
        ("path,labels,split\na.wav,x,valid\n", "line 2: Unknown split 'valid'. Did you mean"),
        (
            "path,labels,split\na.wav,x,train\nb.wav,x,\n",
            "filled for 1 of 2 clips, but not for b",
        ),
        ("path,labels,unknown\na.wav,x,x\n", "line 2: x is both in labels and in unknown"),
        (
            "path,labels,unknown\na.wav,rock,\nb.wav,,rokc\n",
            "line 3: the unknown tag 'rokc' is not among the labels .* Did you mean 'rock'",
        ),
        ("path,labels\na.wav,\n", "no clip has a tag"),
    ],
)
def test_csv_errors_have_line_numbers(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message):
        load_dataset("folder", data_dir=write_csv(tmp_path, text))


def test_absolute_paths_only_when_allowed(tmp_path):
    path = write_csv(tmp_path, many(9) + f"{tmp_path}/far.wav,a\n../near.wav,b\n")
    dataset = load_dataset("folder", data_dir=path, allow_absolute=True)
    found = {str(path) for split in dataset.splits.values() for path in split.paths}
    assert {f"{tmp_path}/far.wav", f"{tmp_path}/../near.wav"} <= found


def test_a_csv_that_is_not_utf8_is_rejected(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"path,labels\n\xff.wav,a\n")
    with pytest.raises(DatasetError, match="UTF-8"):
        load_dataset("folder", data_dir=tmp_path / "a.csv")


def test_one_folder_per_class(tmp_path):
    for name in ("guitar/1.wav", "guitar/take2/2.FLAC", "voice/1.wav", "voice/3.mp3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, music(0.1, 8000), 8000)
    (tmp_path / "voice" / "notes.txt").write_text("no audio")
    (tmp_path / ".hidden").mkdir()
    dataset = load_dataset("folder", data_dir=tmp_path, test_share=0.25, validation_share=0.3)
    assert dataset.label_names == ("guitar", "voice")
    rows = {
        key: tuple(labels)
        for split in dataset.splits.values()
        for key, labels in zip(split.keys, split.labels, strict=True)
    }
    assert rows == {
        "guitar/1.wav": (1, 0),
        "guitar/take2/2.FLAC": (1, 0),
        "voice/1.wav": (0, 1),
        "voice/3.mp3": (0, 1),
    }
    assert all((split.mask == 1).all() for split in dataset.splits.values())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty is the folder of a class, but has no audio"):
        load_dataset("folder", data_dir=tmp_path)


def test_folder_errors(tmp_path):
    with pytest.raises(DatasetError, match="no sub-folders"):
        load_dataset("folder", data_dir=tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        load_dataset("folder", data_dir=tmp_path / "absent")


def test_names_and_options_are_checked(tmp_path):
    with pytest.raises(ConfigError, match=r"Unknown data set 'openmik'\. Did you mean"):
        load_dataset("openmik")
    with pytest.raises(ConfigError, match="'folder' needs --data-dir, a CSV file or a folder"):
        load_dataset("folder")
    with pytest.raises(ConfigError, match=r"Unknown option of folder 'test_shar'\. Did"):
        load_dataset("folder", data_dir=tmp_path, test_shar=0.1)
