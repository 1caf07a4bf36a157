"""The OpenMIC-2018 reader, and gm_instruments which it reads too."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from io import BytesIO

import numpy as np
import pytest

from rfkeras.audio.io import check_file
from rfkeras.datasets.load import load_dataset
from rfkeras.datasets.openmic import load_array, load_strings
from rfkeras.errors import AudioError, DatasetError

NAMES = ("accordion", "banjo", "bass")
KEYS = [f"{row:06d}_{row * 3840}" for row in range(20)]


def pickled_keys(keys: list[object], protocol: int = 3) -> bytes:
    """An .npy member as NumPy writes an object array: header, then a pickle."""
    array = np.array(keys, dtype=object)
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, np.lib.format.header_data_from_array_1_0(array)
    )
    pickle.dump(array, buffer, protocol=protocol)
    return buffer.getvalue()


def write_npz(path, relevance, mask, key_member: bytes) -> None:
    np.savez(path, Y_true=relevance, Y_mask=mask, X=np.zeros((len(mask), 10, 4), np.uint8))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("sample_key.npy", key_member)


@pytest.fixture
def labels():
    rng = np.random.default_rng(0)
    mask = rng.random((20, 3)) < 0.6
    mask[:, 1] |= ~mask.any(axis=1)  # every clip has at least one annotation
    mask[0] = [True, True, False]
    relevance = np.where(mask, rng.random((20, 3)), 0.5)
    relevance[0] = [0.5, 0.4999, 0.9]  # exactly half counts, unannotated does not
    return relevance, mask


@pytest.fixture
def openmic(tmp_path, labels):
    """A folder in the layout of OpenMIC-2018: 15 training and 5 test clips, no audio."""
    root = tmp_path / "openmic-2018"
    (root / "audio").mkdir(parents=True)
    (root / "partitions").mkdir()
    (root / "class-map.json").write_text(json.dumps({n: i for i, n in enumerate(NAMES)}))
    (root / "partitions" / "split01_train.csv").write_text("\n".join(KEYS[:15]) + "\n")
    (root / "partitions" / "split01_test.csv").write_text("\n".join(KEYS[15:]) + "\n")
    write_npz(root / "openmic-2018.npz", *labels, pickled_keys(KEYS))
    rows = ["sample_key,instrument,relevance,num_responses"]
    for key, relevance, mask in zip(KEYS, *labels, strict=True):
        rows += [
            f"{key},{name},{relevance[column]},3"
            for column, name in enumerate(NAMES)
            if mask[column]
        ]
    (root / "openmic-2018-aggregated-labels.csv").write_text("\n".join(rows) + "\n")
    return root


def check_labels(dataset, labels):
    relevance, mask = labels
    for split in dataset.splits.values():
        for key, label, known in zip(split.keys, split.labels, split.mask, strict=True):
            row = KEYS.index(key)
            np.testing.assert_array_equal(known, mask[row])
            np.testing.assert_array_equal(label, (relevance[row] >= 0.5) & mask[row])


@pytest.mark.parametrize("parent", [False, True])
def test_openmic_layout(openmic, labels, parent):
    dataset = load_dataset("openmic", data_dir=openmic.parent if parent else openmic)
    assert dataset.name == "openmic"
    assert dataset.label_names == NAMES
    assert dataset.clip_seconds == 10.0
    assert dataset.splits["test"].keys == tuple(KEYS[15:])
    assert len(dataset.splits["validation"]) == 2  # 15 % of 15
    together = dataset.splits["train"].keys + dataset.splits["validation"].keys
    assert sorted(together) == KEYS[:15]
    first = dataset.splits["test"].paths[0]
    assert first == openmic / "audio" / "000" / "000015_57600.ogg"
    check_labels(dataset, labels)
    assert dataset.info["labels"] == "openmic-2018.npz"


def test_openmic_labels_from_csv_equal_those_of_the_npz(openmic, labels):
    from_npz = load_dataset("openmic", data_dir=openmic)
    (openmic / "openmic-2018.npz").unlink()
    from_csv = load_dataset("openmic", data_dir=openmic)
    check_labels(from_csv, labels)
    assert from_csv.info["labels"] == "openmic-2018-aggregated-labels.csv"
    for name, split in from_npz.splits.items():
        np.testing.assert_array_equal(split.labels, from_csv.splits[name].labels)
        np.testing.assert_array_equal(split.mask, from_csv.splits[name].mask)


def test_openmic_validation_does_not_move_with_the_run_seed(openmic):
    keys = [
        load_dataset("openmic", data_dir=openmic, seed=seed).splits["validation"].keys
        for seed in (0, 1)
    ]
    assert keys[0] == keys[1]
    other = load_dataset("openmic", data_dir=openmic, split_seed=5)
    assert other.splits["validation"].keys != keys[0]
    larger = load_dataset("openmic", data_dir=openmic, validation_share=0.4)
    assert len(larger.splits["validation"]) == 6


def test_openmic_reads_plain_unicode_keys(openmic, labels):
    buffer = BytesIO()
    np.save(buffer, np.array(KEYS))
    write_npz(openmic / "openmic-2018.npz", *labels, buffer.getvalue())
    check_labels(load_dataset("openmic", data_dir=openmic), labels)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root / "audio"), "no sub-folder audio"),
        (lambda root: (root / "class-map.json").unlink(), "class-map.json is missing"),
        (lambda root: (root / "class-map.json").write_text('{"a": 1}'), "number the classes"),
        (lambda root: (root / "class-map.json").write_text("[]"), "must be a JSON object"),
        (lambda root: (root / "openmic-2018.npz").write_bytes(b"PK"), "cannot be read"),
        (
            lambda root: (root / "partitions" / "split01_test.csv").unlink(),
            "split01_test.csv is missing",
        ),
        (
            lambda root: (root / "partitions" / "split01_test.csv").write_text("\n"),
            "lists no keys",
        ),
        (
            lambda root: (root / "partitions" / "split01_test.csv").write_text("zzz_1\n"),
            "1 of 1 keys of the test partition have no labels: zzz_1",
        ),
        (
            lambda root: (root / "partitions" / "split01_test.csv").write_text(KEYS[0]),
            "1 keys are in both train and test",
        ),
        (
            lambda root: (root / "partitions" / "split01_test.csv").write_text("a\na\n"),
            r"key a \(entry 2\) is there twice",
        ),
        (
            lambda root: (root / "partitions" / "split01_test.csv").write_text("../../x\n"),
            "is not a key",
        ),
    ],
)
def test_openmic_says_what_is_wrong(openmic, damage, message):
    damage(openmic)
    with pytest.raises(DatasetError, match=message):
        load_dataset("openmic", data_dir=openmic)


def test_openmic_without_any_labels(openmic):
    (openmic / "openmic-2018.npz").unlink()
    (openmic / "openmic-2018-aggregated-labels.csv").unlink()
    with pytest.raises(DatasetError, match="has no labels: neither"):
        load_dataset("openmic", data_dir=openmic)


def test_openmic_csv_errors_have_line_numbers(openmic):
    (openmic / "openmic-2018.npz").unlink()
    path = openmic / "openmic-2018-aggregated-labels.csv"
    path.write_text("sample_key,instrument,relevance\nk,banjo,0.5\nk,kazoo,0.5\n")
    with pytest.raises(DatasetError, match="line 3: unknown instrument or relevance"):
        load_dataset("openmic", data_dir=openmic)
    path.write_text("key,instrument,relevance\n")
    with pytest.raises(DatasetError, match="needs the columns sample_key"):
        load_dataset("openmic", data_dir=openmic)


def test_openmic_arrays_must_fit_keys_and_classes(openmic, labels):
    write_npz(openmic / "openmic-2018.npz", *labels, pickled_keys(KEYS[:19]))
    with pytest.raises(DatasetError, match="19 keys and 3 classes need"):
        load_dataset("openmic", data_dir=openmic)


def test_the_real_split_files_class_map_and_clip(shared_folder, tmp_path):
    real = shared_folder / "datasets" / "openmic"
    root = tmp_path / "openmic-2018"
    (root / "partitions").mkdir(parents=True)
    (root / "audio" / "000").mkdir(parents=True)
    shutil.copy(real / "class-map.json", root)
    for name in ("split01_train.csv", "split01_test.csv"):
        shutil.copy(real / name, root / "partitions")
    shutil.copy(real / "000046_3840.ogg", root / "audio" / "000")
    keys = "".join((real / f"split01_{n}.csv").read_text() for n in ("train", "test")).split()
    rng = np.random.default_rng(0)
    mask = rng.random((20000, 20)) < 0.1
    write_npz(root / "openmic-2018.npz", rng.random((20000, 20)), mask, pickled_keys(keys))
    dataset = load_dataset("openmic", data_dir=root)
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert sizes == {"train": 12678, "validation": 2237, "test": 5085}
    assert len(dataset.label_names) == 20
    assert dataset.label_names[::19] == ("accordion", "voice")
    present = [path for split in dataset.splits.values() for path in split.paths]
    clip = next(path for path in present if path.name == "000046_3840.ogg")
    assert check_file(clip, dataset.clip_seconds).frames == 441000


# Reading pickled strings safely


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_malicious_pickle_is_refused_and_not_run(openmic, labels, tmp_path):
    marker = tmp_path / "was-run"
    for member in (
        pickled_keys([*KEYS[:19], Malicious(marker)]),
        pickled_keys(KEYS).split(b"\x80\x03")[0] + pickle.dumps(Malicious(marker)),
    ):
        write_npz(openmic / "openmic-2018.npz", *labels, member)
        with pytest.raises(DatasetError, match=r"refused to unpickle .* posix\.mkdir"):
            load_dataset("openmic", data_dir=openmic)
        assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_object_arrays_of_strings_are_read_at_every_protocol(tmp_path, protocol):
    path = tmp_path / "a.npz"
    write_npz(path, np.zeros(1), np.zeros(1), pickled_keys(["ä", "b"], protocol))
    if protocol == 2:  # that protocol spells bytes as a call to _codecs.encode
        with pytest.raises(DatasetError, match=r"_codecs\.encode"):
            load_strings(path, "sample_key")
    else:
        assert load_strings(path, "sample_key") == ["ä", "b"]


@pytest.mark.parametrize("values", [[1, 2], [b"a", b"b"], ["a", None]])
def test_object_arrays_of_anything_but_strings_are_refused(tmp_path, values):
    path = tmp_path / "a.npz"
    write_npz(path, np.zeros(1), np.zeros(1), pickled_keys(values))
    with pytest.raises(DatasetError, match="must be a list of strings"):
        load_strings(path, "sample_key")


def test_pickled_number_arrays_and_missing_arrays_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, good=np.arange(3), bad=np.array([{}], dtype=object))
    np.testing.assert_array_equal(load_array(path, "good"), [0, 1, 2])
    with pytest.raises(DatasetError, match="cannot be read"):
        load_array(path, "bad")
    with pytest.raises(DatasetError, match=r"has no array 'other'\. It has: good, bad"):
        load_array(path, "other")
    with pytest.raises(DatasetError, match="has no array 'other'"):
        load_strings(path, "other")


def test_a_pickle_cut_short_is_a_clear_error(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path, np.zeros(1), np.zeros(1), pickled_keys(KEYS)[:-20])
    with pytest.raises(DatasetError, match="sample_key"):
        load_strings(path, "sample_key")


def test_gm_instruments_is_rendered_and_read_as_openmic(openmic, monkeypatch, tmp_path):
    from rfkeras import synthesis

    calls = []

    def generate(root, **options):
        calls.append((root, options))
        return openmic

    monkeypatch.setattr(synthesis, "generate", generate, raising=False)
    monkeypatch.setattr(
        synthesis, "default_cache_dir", lambda: tmp_path / "cache", raising=False
    )
    dataset = load_dataset("gm_instruments", seed=4, size=20, workers=2)
    load_dataset("gm_instruments", data_dir=tmp_path / "own")
    assert calls == [
        (tmp_path / "cache", {"seed": 4, "size": 20, "workers": 2}),
        (tmp_path / "own", {"seed": 0}),
    ]
    assert dataset.name == "gm_instruments"
    assert dataset.info["seed"] == 4
    assert dataset.info["size"] == 20
    assert dataset.info["version"] == openmic.parent.name
    with pytest.raises(AudioError, match="missing file"):
        check_file(dataset.splits["test"].paths[0])
