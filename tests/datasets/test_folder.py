"""Your own data: a CSV file of paths and tags, or a folder of class folders."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rfkeras.datasets.base import Split, hold_out
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
        "sub/b.wav, rock ,Validation,happy|sad\n"
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
        ("path,labels\n../a.wav,x\n", r"line 2: \.\./a\.wav is outside"),
        ("path,labels\nsub/../../a.wav,x\n", "is outside"),
        ("path,labels\n/etc/a.wav,x\n", "is outside"),
        (
            "path,labels,split\na.wav,x,validaton\n",
            "line 2: Unknown split 'validaton'. Did you mean",
        ),
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


def test_folder_errors(tmp_path):
    with pytest.raises(DatasetError, match="no sub-folders"):
        load_dataset("folder", data_dir=tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        load_dataset("folder", data_dir=tmp_path / "absent")
    touch(tmp_path, "a.wav")
    with pytest.raises(DatasetError, match="no sub-folders, only 1 audio file"):
        load_dataset("folder", data_dir=tmp_path)
    touch(tmp_path, "docs/a.pdf")
    with pytest.raises(DatasetError, match="none of its sub-folders has audio files: docs"):
        load_dataset("folder", data_dir=tmp_path)


# Class folders


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode("utf-8", "surrogateescape"))


def classes(root, **sizes):
    """Create empty files: classes(root, a=2) creates a/00.wav and a/01.wav."""
    for name, size in sizes.items():
        touch(root, *(f"{name}/{number:02d}.wav" for number in range(size)))


def keys_of(dataset):
    return {key for split in dataset.splits.values() for key in split.keys}


def per_class(dataset):
    """Return the number of clips per class by split."""
    return {
        name: split.labels.sum(axis=0).astype(int).tolist()
        for name, split in dataset.splits.items()
    }


def load(source, **options):
    return load_dataset("folder", data_dir=source, **options)


SPLIT_NAMES = [
    ("train", "validation", "test"),
    ("Train", "Val", "TEST"),
    ("training", "valid", "eval"),
    ("train", "dev", "evaluation"),
]


@pytest.mark.parametrize("names", SPLIT_NAMES)
def test_folders_named_as_splits_are_splits(tmp_path, names):
    for split, size in zip(names, (3, 2, 1), strict=True):
        classes(tmp_path / split, low=size, high=size)
    dataset = load(tmp_path)
    assert dataset.label_names == ("high", "low")
    assert per_class(dataset) == {"train": [3, 3], "validation": [2, 2], "test": [1, 1]}
    assert dataset.splits["test"].keys == (f"{names[2]}/high/00.wav", f"{names[2]}/low/00.wav")
    assert dataset.info["splits"] == "as given"


def test_validation_is_held_out_of_a_train_folder_by_class(tmp_path):
    classes(tmp_path / "train", low=10, high=20)
    classes(tmp_path / "test", low=1, high=1)
    touch(tmp_path, "test/loose.wav", "docs/readme.md", "train/empty/readme.md")
    dataset = load(tmp_path, validation_share=0.2)
    assert per_class(dataset) == {"train": [16, 8], "validation": [4, 2], "test": [1, 1]}
    assert [note for note in dataset.notes if "without an audio" not in note] == [
        "left out 1 audio file outside the class folders: " + str(tmp_path / "test/loose.wav"),
        "left out 2 folders without audio: docs, train/empty",
    ]


def test_splits_and_classes_cannot_be_mixed(tmp_path):
    classes(tmp_path / "train", low=1)
    classes(tmp_path, guitar=1)
    with pytest.raises(DatasetError, match=r"mixes splits \(train\) and .*\(guitar\)"):
        load(tmp_path)


def test_splits_without_class_folders_are_rejected(tmp_path):
    classes(tmp_path, train=3, test=3)
    with pytest.raises(DatasetError, match="train, test|test, train are splits, but no class"):
        load(tmp_path)


def test_splits_inside_all_class_folders(tmp_path):
    for name in ("low", "high"):
        classes(tmp_path / name, train=3, VAL=2, test=1)
    dataset = load(tmp_path)
    assert dataset.label_names == ("high", "low")
    assert per_class(dataset) == {"train": [3, 3], "validation": [2, 2], "test": [1, 1]}
    classes(tmp_path, low=1)  # a file outside the splits: none is taken as one
    assert load(tmp_path).info["splits"].startswith("by seed")


def test_splits_inside_some_class_folders_are_named(tmp_path):
    for name in ("a", "b"):
        classes(tmp_path / name, train=2, test=2)
    classes(tmp_path, c=2)
    assert load(tmp_path).notes[0] == (
        "the audio of a, b is in folders named as splits, which are ignored because c has "
        "audio outside such folders"
    )


@pytest.mark.parametrize(
    "names",
    [
        ("train_set", "val-set", "Test Set"),
        ("trainset", "validset", "Testset"),
        ("training_data", "dev_data", "evaluation_data"),
        ("Train_split", "VALIDATION_split", "eval_split"),
    ],
)
def test_longer_names_of_splits(tmp_path, names):
    for name in names:
        classes(tmp_path / name, a=2, b=2)
    dataset = load(tmp_path)
    assert dataset.label_names == ("a", "b")
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 4,
        "validation": 4,
        "test": 4,
    }
    classes(tmp_path / "test", a=2)
    assert len(load(tmp_path).splits["test"]) == 6
    assert f"the folders {names[2]}, test are one split, test" in load(tmp_path).notes


def test_folders_that_look_like_splits_of_another_name_are_named(tmp_path):
    for name in ("fold1", "fold2"):
        classes(tmp_path / name, piano=2, flute=2)
    (note,) = (note for note in load(tmp_path).notes if "sub-folders" in note)
    assert note == (
        "the tags are the folders fold1, fold2, which all have the same sub-folders: flute, "
        "piano. If those are the classes, name the outer folders train, validation and test"
    )
    classes(tmp_path / "fold2", organ=2)
    assert not any("sub-folders" in note for note in load(tmp_path).notes)


def test_the_parent_of_the_splits_is_rejected(tmp_path):
    classes(tmp_path / "data" / "train", low=2, high=2)
    classes(tmp_path / "data" / "test", low=2, high=2)
    with pytest.raises(DatasetError, match=f"Give that folder: {tmp_path / 'data'}"):
        load(tmp_path)


def test_the_rule_of_version_0_1_0_divides_file_by_file(tmp_path):
    classes(tmp_path, a=20, b=9, c=2)
    everything = load(tmp_path, split_rule="clips")
    keys = sorted(keys_of(everything))
    whole = Split(tuple(keys), tuple(map(Path, keys)), np.ones((31, 1)), np.ones((31, 1)))
    rest, test = hold_out(whole, 0.15, 0)
    train, validation = hold_out(rest, 0.15, 0)
    assert everything.splits["test"].keys == test.keys
    assert everything.splits["validation"].keys == validation.keys
    assert everything.splits["train"].keys == train.keys


def test_a_class_may_be_called_train(tmp_path):
    classes(tmp_path, train=4, dog=4)
    assert load(tmp_path).label_names == ("dog", "train")


def test_class_folders_are_divided_class_by_class(tmp_path):
    classes(tmp_path, a=100, b=20, c=7, d=3)
    dataset = load(tmp_path)
    found = per_class(dataset)
    assert found == {
        "train": [72, 15, 5, 1],
        "validation": [13, 2, 1, 1],
        "test": [15, 3, 1, 1],
    }
    assert dataset.info["splits"] == "by seed 0, class by class"
    other = load(tmp_path, seed=1)
    assert per_class(other) == found
    assert other.splits["test"].keys != dataset.splits["test"].keys
    old = load(tmp_path, split_rule="clips")
    assert old.info["splits"] == "by seed 0, file by file"
    assert len(old.splits["test"]) == 20


def test_the_division_does_not_depend_on_the_order_of_the_file_system(tmp_path, monkeypatch):
    classes(tmp_path, a=9, b=9)
    before = load(tmp_path)
    real = os.scandir

    @contextmanager
    def backwards(path):
        with real(path) as entries:
            yield list(entries)[::-1]

    monkeypatch.setattr("os.scandir", backwards)
    after = load(tmp_path)
    for name in ("train", "validation", "test"):
        assert after.splits[name].keys == before.splits[name].keys


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"a": 3}, {"train": [1], "validation": [1], "test": [1]}),
        ({"a": 2, "b": 2}, {"train": [1, 1], "validation": [0, 1], "test": [1, 0]}),
        ({"a": 2, "b": 3}, {"train": [1, 1], "validation": [1, 1], "test": [0, 1]}),
        ({"a": 1, "b": 6}, {"train": [1, 4], "validation": [0, 1], "test": [0, 1]}),
    ],
)
def test_small_classes(tmp_path, sizes, expected):
    classes(tmp_path, **sizes)
    dataset = load(tmp_path)
    assert per_class(dataset) == expected
    assert (
        f"only {sum(sizes.values())} clips in all: too few for reliable scores" in dataset.notes
    )
    if len(sizes) == 1:
        assert any(note.startswith("only one tag, 'a': add clips") for note in dataset.notes)


def test_one_clip_per_class_and_too_few_clips(tmp_path):
    classes(tmp_path, a=1, b=1)
    with pytest.raises(ConfigError, match="2 clips cannot be divided .*at least 3"):
        load(tmp_path)
    classes(tmp_path, c=1)
    assert [len(split) for split in load(tmp_path).splits.values()] == [1, 1, 1]


def test_what_is_not_data_is_left_out_with_notes(tmp_path):
    classes(tmp_path, rock=5, jazz=5)
    kept = keys_of(load(tmp_path))
    touch(
        tmp_path,
        *("rock/.ipynb_checkpoints/a.wav", "rock/.Trash-1000/files/b.wav", "jazz/._00.wav"),
        *("__MACOSX/rock/._00.wav", "rock/@eaDir/00.wav", "docs/readme.txt", "loose.wav"),
        *("rock/song.mid", "jazz/cover.jpg"),
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "jazz" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    dataset = load(tmp_path)
    assert dataset.label_names == ("jazz", "rock")
    assert keys_of(dataset) == kept
    kinds = [note.partition(":")[0] for note in dataset.notes]
    assert kinds == [
        "left out 1 file in an audio format that cannot be decoded",
        "left out 3 hidden files or folders",
        "left out 2 folders of the operating system",
        "left out 2 files without an audio suffix",
        "left out 1 file, link or folder that cannot be read",
        "left out 1 audio file outside the class folders",
        "left out 2 folders without audio",
    ]


def test_linked_albums_are_followed_and_other_formats_found(tmp_path):
    root = tmp_path / "music"
    classes(root, rock=3)
    touch(tmp_path, "elsewhere/1.m4a", "elsewhere/2.AU", "elsewhere/3.caf")
    (root / "rock" / "album").symlink_to(tmp_path / "elsewhere")
    (root / "pop").symlink_to(tmp_path / "elsewhere2")
    touch(tmp_path, "elsewhere2/x.wma")
    (root / "rock" / "loop").symlink_to(root)
    dataset = load(root)
    assert dataset.label_names == ("pop", "rock")
    assert {"rock/album/1.m4a", "rock/album/2.AU", "rock/album/3.caf", "pop/x.wma"} < keys_of(
        dataset
    )
    assert any(note.startswith("left out 1 link to a folder that") for note in dataset.notes)


def test_spellings_of_one_name_are_one_tag(tmp_path):
    for name in ("fl\u00fbte", "flu\u0302te", "fl\u200b\u00fbte"):
        classes(tmp_path, **{name: 2})
    classes(tmp_path, **{"vio\u200blin": 2})
    dataset = load(tmp_path)
    assert dataset.label_names == ("fl\u00fbte", "violin")
    one, two, *_ = dataset.notes
    assert one.startswith("different spellings are read as one tag: 'fl\u00fbte'")
    assert r"'flu\u0302te'" in one
    assert two == r"invisible characters were removed from 1 tag: 'violin' ('vio\u200blin')"


def test_names_that_cannot_be_tags(tmp_path):
    classes(tmp_path, **{"a\nb": 2, "c": 2})
    with pytest.raises(DatasetError, match=r"a\nb: The tag name 'a\\nb' has a control"):
        load(tmp_path)


# Tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_and_encodings(tmp_path, delimiter, encoding, end):
    rows = [
        ("Path ", " LABELS", "split"),
        ('"a;b,c\td.wav"', "rock|caf\u00e9", "train"),
        ("\u7434\u2028.wav", '"rock"', "test"),
        ("b.wav", "", "validation"),
        ("", "", ""),
    ]
    content = end.join(delimiter.join(row) for row in rows) + end
    (tmp_path / "clips.csv").write_bytes(content.encode(encoding))
    dataset = load(tmp_path / "clips.csv")
    assert dataset.label_names == ("caf\u00e9", "rock")
    assert dataset.splits["train"].keys == ("a;b,c\td.wav",)
    assert dataset.splits["test"].keys == ("\u7434\u2028.wav",)
    assert dataset.splits["validation"].labels.tolist() == [[0, 0]]


def test_a_spreadsheet_that_names_its_separator(tmp_path):
    path = write_csv(tmp_path, "sep=;\npath;labels;split\na.wav;x;test\nb.wav;x,y;test\n")
    assert load(path).label_names == ("x", "x,y")
    path = write_csv(tmp_path, '"sep=;"\r\npath;labels;split\r\na.wav;x,y;test\r\n')
    assert load(path).label_names == ("x,y",)
    path = write_csv(tmp_path, "sep=;\npath;labels\na.wav;x;z\n")
    with pytest.raises(DatasetError, match="line 3: the number of fields"):
        load(path)


def test_the_delimiter_is_the_one_that_names_the_columns(tmp_path):
    path = write_csv(tmp_path, "path;labels;a, b, c, d\n" + "x.wav;x;\ny.wav;y;\nz.wav;x;\n")
    assert load(path).label_names == ("x", "y")


def test_splits_in_a_table_have_the_names_of_folders(tmp_path):
    path = write_csv(
        tmp_path, "path,labels,split\na.wav,x,Training\nb.wav,y,val\nc.wav,x,test_set\n"
    )
    sizes = {name: split.keys for name, split in load(path).splits.items()}
    assert sizes == {"train": ("a.wav",), "validation": ("b.wav",), "test": ("c.wav",)}
    path = write_csv(tmp_path, "path,labels,split\na.wav,x,trian\n")
    with pytest.raises(DatasetError, match="Unknown split 'trian'. Did you mean 'train'"):
        load(path)


@pytest.mark.parametrize("folder", [".", "./", "sub/.."])
def test_a_folder_is_no_audio_file(tmp_path, folder):
    path = write_csv(tmp_path, f"path,labels\n{folder},x\n")
    with pytest.raises(DatasetError, match="line 2: .* is a folder, not an audio file"):
        load(path)


def test_other_columns_are_left_out_with_a_note(tmp_path):
    text = "id,path,labels,artist,spilt,\n" + "".join(
        f"{n},{n}.wav,x|y,me,train,\n" for n in range(12)
    )
    dataset = load(write_csv(tmp_path, text))
    assert dataset.notes == (
        "left out 3 columns of clips.csv: id, artist, spilt (Did you mean 'split'?)",
    )
    twice = write_csv(tmp_path, "path,labels,Labels\na.wav,x,y\n")
    with pytest.raises(DatasetError, match="names the column 'labels' twice"):
        load(twice)


def test_paths_of_other_systems(tmp_path):
    touch(tmp_path, "sub/a.wav", "flu\u0302te.wav", "back\\slash.wav")
    text = (
        "path,labels,split\nsub\\a.wav,x,train\nfl\u00fbte.wav,x,test\n"
        "back\\slash.wav,x,validation\n"
    )
    dataset = load(write_csv(tmp_path, text))
    assert dataset.splits["train"].keys == ("sub/a.wav",)
    assert dataset.splits["test"].paths[0].is_file()
    assert dataset.splits["validation"].keys == ("back\\slash.wav",)
    for path in ("C:\\music\\a.wav", "..\\a.wav", "c:/a.wav"):
        with pytest.raises(DatasetError, match="is outside"):
            load(write_csv(tmp_path, f"path,labels\n{path},x\n"))


def test_names_in_tables_follow_the_same_rule(tmp_path):
    text = "path,labels\n" + "".join(
        f"{n}.wav,{'flu' + chr(0x302) + 'te' if n % 2 else 'fl' + chr(0xFB) + 'te'}\n"
        for n in range(12)
    )
    dataset = load(write_csv(tmp_path, text))
    assert dataset.label_names == ("fl\u00fbte",)
    assert "are read as one tag" in dataset.notes[0]
    with pytest.raises(DatasetError, match="line 3: The tag name .* control character"):
        load(write_csv(tmp_path, 'path,labels\na.wav,"x\ny"\n'))


def test_reading_with_the_tags_of_a_model(tmp_path):
    path = write_csv(
        tmp_path,
        "path,labels,split,unknown\na.wav,rock|mine,test,\nb.wav,jazz,test,pop\n"
        "c.wav,rock,test,jazz\n",
    )
    model = ("pop", "rock", "jazz", "folk")
    test = load(path, label_names=model)
    assert test.label_names == model
    np.testing.assert_array_equal(
        test.splits["test"].labels, [[0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]
    )
    np.testing.assert_array_equal(
        test.splits["test"].mask, [[0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 0]]
    )
    assert test.notes[:2] == (
        "left out 1 tag that the model does not have: mine",
        "no clip has 2 tags of the model: folk, pop",
    )
    with pytest.raises(DatasetError, match="None of the tags .* Did you mean 'Jazz'"):
        load(path, label_names=("Jazz", "pop"))
    with pytest.raises(DatasetError, match="line 3: the unknown tag 'pop'"):
        load(path)


def test_names_and_options_are_checked(tmp_path):
    with pytest.raises(ConfigError, match=r"Unknown data set 'openmik'\. Did you mean"):
        load_dataset("openmik")
    with pytest.raises(ConfigError, match="Did you mean 'soundata:urbansound8k'"):
        load_dataset("UrbanSound8K")
    with pytest.raises(ConfigError, match="'folder' needs --data-dir, a CSV file or a folder"):
        load_dataset("folder")
    with pytest.raises(ConfigError, match=r"Unknown option of folder 'test_shar'\. Did"):
        load_dataset("folder", data_dir=tmp_path, test_shar=0.1)
