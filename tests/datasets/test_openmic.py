"""OpenMIC-2018, and gm_instruments, which has the same layout."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from rfkeras.audio.io import check_file
from rfkeras.datasets.load import load_dataset
from rfkeras.errors import AudioError, DatasetError

NAMES = ("accordion", "banjo", "bass")
NPZ, CSV = "openmic-2018.npz", "openmic-2018-aggregated-labels.csv"
KEYS = [f"{row:06d}_{row * 3840}" for row in range(20)]


def write_npz(path, relevance, mask, keys) -> None:
    features = np.zeros((len(mask), 10, 4), np.uint8)
    np.savez(path, X=features, Y_true=relevance, Y_mask=mask, sample_key=keys)


def write_csv(path, names, relevance, mask, keys) -> None:
    rows = ["sample_key,instrument,relevance,num_responses"]
    for key, values, known in zip(keys, relevance, mask, strict=True):
        rows += [
            f"{key},{name},{values[column]},3"
            for column, name in enumerate(names)
            if known[column]
        ]
    path.write_text("\n".join(rows) + "\n")


@pytest.fixture
def labels():
    rng = np.random.default_rng(0)
    mask = rng.random((20, 3)) < 0.6
    mask[:, 1] |= ~mask.any(axis=1)  # every clip has at least one annotation
    mask[0] = [True, True, False]
    relevance = np.where(mask, rng.random((20, 3)), 0.5)
    relevance[0] = [0.5, 0.4999, 0.9]  # exactly 0.5 counts, unannotated does not
    return relevance, mask


@pytest.fixture
def openmic(tmp_path, labels):
    """Return a folder in the published layout: 20 clips, pickled keys, no audio."""
    root = tmp_path / "openmic-2018"
    (root / "audio").mkdir(parents=True)
    (root / "partitions").mkdir()
    (root / "class-map.json").write_text(json.dumps({n: i for i, n in enumerate(NAMES)}))
    (root / "partitions" / "split01_train.csv").write_text("\n".join(KEYS[:15]) + "\n")
    (root / "partitions" / "split01_test.csv").write_text("\n".join(KEYS[15:]) + "\n")
    write_npz(root / NPZ, *labels, np.array(KEYS, object))
    write_csv(root / CSV, NAMES, *labels, KEYS)
    return root


def check_labels(dataset, labels):
    relevance, mask = labels
    for split in dataset.splits.values():
        for key, label, known in zip(split.keys, split.labels, split.mask, strict=True):
            row = KEYS.index(key)
            np.testing.assert_array_equal(known, mask[row])
            np.testing.assert_array_equal(label, (relevance[row] >= 0.5) & mask[row])


@pytest.mark.parametrize("parent", [False, True])
def test_the_published_layout_is_read(openmic, labels, parent):
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
    assert dataset.info["labels"] == CSV


def use_npz_with_plain_keys(openmic, labels):
    (openmic / CSV).unlink()
    write_npz(openmic / NPZ, *labels, np.array(KEYS))


def test_labels_from_an_npz_with_plain_keys_equal_those_from_the_csv(openmic, labels):
    from_csv = load_dataset("openmic", data_dir=openmic)
    use_npz_with_plain_keys(openmic, labels)
    from_npz = load_dataset("openmic", data_dir=openmic)
    check_labels(from_npz, labels)
    assert from_npz.info["labels"] == NPZ
    for name, split in from_csv.splits.items():
        np.testing.assert_array_equal(split.labels, from_npz.splits[name].labels)
        np.testing.assert_array_equal(split.mask, from_npz.splits[name].mask)


def test_the_seed_of_a_run_does_not_change_the_validation_split(openmic):
    keys = [
        load_dataset("openmic", data_dir=openmic, seed=seed).splits["validation"].keys
        for seed in (0, 1)
    ]
    assert keys[0] == keys[1]
    other = load_dataset("openmic", data_dir=openmic, split_seed=5)
    assert other.splits["validation"].keys != keys[0]
    larger = load_dataset("openmic", data_dir=openmic, validation_share=0.4)
    assert len(larger.splits["validation"]) == 6


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root / "audio"), "no sub-folder audio"),
        (lambda root: (root / "class-map.json").unlink(), "class-map.json is missing"),
        (lambda root: (root / "class-map.json").write_text('{"a": 1}'), "number the classes"),
        (lambda root: (root / "class-map.json").write_text("[]"), "must be a JSON object"),
        (lambda root: (root / CSV).write_bytes(b"\xff"), "labels.csv is missing or unreadable"),
        (
            lambda root: (root / "partitions" / "split01_test.csv").unlink(),
            "split01_test.csv is missing",
        ),
        (
            lambda root: (root / "partitions" / "split01_test.csv").write_text("\n"),
            "has no keys",
        ),
        (
            lambda root: (root / "partitions" / "split01_test.csv").write_text("zzz_1\n"),
            "1 of the 1 key of the test partition have no labels: zzz_1",
        ),
        (
            lambda root: (root / "partitions" / "split01_test.csv").write_text(KEYS[0]),
            "partitions train and test share 1 key: 000000_0",
        ),
        (
            lambda root: (root / "partitions" / "split01_test.csv").write_text("a\na\n"),
            "entry 2 repeats the key a",
        ),
        (
            lambda root: (root / "partitions" / "split01_test.csv").write_text("../../x\n"),
            "is not a key",
        ),
    ],
)
def test_malformed_files_are_rejected_with_a_reason(openmic, damage, message):
    damage(openmic)
    with pytest.raises(DatasetError, match=message):
        load_dataset("openmic", data_dir=openmic)


def test_missing_labels_are_reported(openmic):
    (openmic / NPZ).unlink()
    (openmic / CSV).unlink()
    with pytest.raises(DatasetError, match=f"has no labels: {CSV} is missing"):
        load_dataset("openmic", data_dir=openmic)


def test_csv_errors_have_line_numbers(openmic):
    path = openmic / CSV
    path.write_text("sample_key,instrument,relevance\nk,banjo,0.5\nk,kazoo,0.5\n")
    with pytest.raises(DatasetError, match="line 3: unknown instrument, or relevance that"):
        load_dataset("openmic", data_dir=openmic)
    path.write_text("key,instrument,relevance\n")
    with pytest.raises(DatasetError, match="needs the columns sample_key"):
        load_dataset("openmic", data_dir=openmic)


def test_npz_arrays_must_fit_keys_and_classes(openmic, labels):
    use_npz_with_plain_keys(openmic, labels)
    path = openmic / NPZ
    write_npz(path, *labels, np.array(KEYS[:19]))
    with pytest.raises(DatasetError, match="19 keys and 3 classes need"):
        load_dataset("openmic", data_dir=openmic)
    write_npz(path, *labels, np.array(KEYS).reshape(4, 5))
    with pytest.raises(DatasetError, match=r"one dimension. Received: shape \(4, 5\)"):
        load_dataset("openmic", data_dir=openmic)
    for keys in (np.arange(20), np.array([b"key"] * 20)):
        write_npz(path, *labels, keys)
        with pytest.raises(DatasetError, match="array 'sample_key' has the wrong dtype"):
            load_dataset("openmic", data_dir=openmic)
    np.savez(path, Y_true=labels[0], sample_key=np.array(KEYS))
    with pytest.raises(DatasetError, match="array 'Y_mask' cannot be read: it has no array"):
        load_dataset("openmic", data_dir=openmic)
    path.write_bytes(b"PK")
    with pytest.raises(DatasetError, match="array 'Y_true' cannot be read"):
        load_dataset("openmic", data_dir=openmic)


class Malicious:
    """Object that creates a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("name", ["Y_true", "Y_mask", "sample_key"])
def test_pickled_arrays_are_not_read(openmic, labels, tmp_path, name):
    marker = tmp_path / "was-run"
    arrays = {"Y_true": labels[0], "Y_mask": labels[1], "sample_key": np.array(KEYS)}
    arrays[name] = np.array([*KEYS[:19], Malicious(marker)], object)
    np.savez(openmic / NPZ, **arrays)
    check_labels(load_dataset("openmic", data_dir=openmic), labels)  # from the CSV
    (openmic / CSV).unlink()
    with pytest.raises(DatasetError, match=f"array '{name}' cannot be read: .* Put {CSV}"):
        load_dataset("openmic", data_dir=openmic)
    assert not marker.exists()


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
    names = json.loads((root / "class-map.json").read_text())
    mask[np.arange(20000), rng.integers(20, size=20000)] = True  # one label per clip at least
    write_csv(root / CSV, names, rng.random((20000, 20)), mask, keys)
    dataset = load_dataset("openmic", data_dir=root)
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert sizes == {"train": 12678, "validation": 2237, "test": 5085}
    assert len(dataset.label_names) == 20
    assert dataset.label_names[::19] == ("accordion", "voice")
    present = [path for split in dataset.splits.values() for path in split.paths]
    clip = next(path for path in present if path.name == "000046_3840.ogg")
    assert check_file(clip, dataset.clip_seconds).frames == 441000


def test_gm_instruments_is_generated_and_read_as_openmic(openmic, monkeypatch, tmp_path):
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


# Validation by artist


def write_metadata(root, artists, header="track_id,artist_id,artist_name,sample_key"):
    rows = [f'{key[:6]},{artist},"A, B",{key}' for key, artist in artists.items()]
    path = root / "openmic-2018-metadata.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def validation(root, **options):
    dataset = load_dataset("openmic", data_dir=root, validation_share=0.4, **options)
    return dataset, dataset.splits["validation"].keys


def test_validation_is_held_out_by_artist_where_the_metadata_are_there(openmic):
    clip_by_clip, before = validation(openmic)
    assert clip_by_clip.notes == (
        "validation is held out clip by clip, so one artist can be in both train and "
        "validation: openmic-2018-metadata.csv is missing",
    )
    artists = {key: row // 3 for row, key in enumerate(KEYS)}
    write_metadata(openmic, artists)
    dataset, held_out = validation(openmic)
    assert len(held_out) == 6
    train = {artists[key] for key in dataset.splits["train"].keys}
    assert not train & {artists[key] for key in held_out}
    assert dataset.info["validation"] == "0.4 of train, by artist and seed 2018"
    assert dataset.notes == ()
    order = openmic / "partitions" / "split01_train.csv"
    order.write_text("\n".join(KEYS[:15][::-1]) + "\n")
    assert sorted(validation(openmic)[1]) == sorted(held_out)
    assert sorted(validation(openmic, split_rule="clips")[1]) == sorted(before)


def test_an_artist_in_both_partitions_is_noted(openmic):
    write_metadata(
        openmic, {key: "same" if row in (2, 17) else row for row, key in enumerate(KEYS)}
    )
    (note,) = validation(openmic)[0].notes
    assert note == "1 artist is in both official partitions, train and test"


def test_metadata_without_artists_are_of_no_use(openmic):
    write_metadata(openmic, dict.fromkeys(KEYS, 1), "track_id,a,b,sample_key")
    (note,) = validation(openmic)[0].notes
    assert note.endswith("in both train and validation")


def test_names_of_classes_follow_the_rule_of_names(openmic):
    (openmic / "class-map.json").write_text('{"accordion": 0, "banjo": 1, "bass\\u200b": 2}')
    with pytest.raises(DatasetError):
        load_dataset("openmic", data_dir=openmic)


def test_names_that_are_no_text_are_a_damaged_array(openmic, labels):
    use_npz_with_plain_keys(openmic, labels)
    beyond_unicode = np.full(20, 0x7FFFFFFF, "<u4").view("<U1")
    write_npz(openmic / NPZ, *labels, beyond_unicode)
    with pytest.raises(DatasetError, match="array 'sample_key' cannot be read"):
        load_dataset("openmic", data_dir=openmic)
