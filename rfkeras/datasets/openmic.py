"""OpenMIC-2018: 20,000 clips of 10 s, 20 instruments, partially labelled.

Layout of the folder `openmic-2018`:

    audio/{key[:3]}/{key}.ogg
    openmic-2018-aggregated-labels.csv                sample_key, instrument, relevance
    openmic-2018.npz                                  the same labels: Y_true, Y_mask
    openmic-2018-metadata.csv                         sample_key, artist_id and others
    class-map.json                                    instrument -> column
    partitions/split01_train.csv, split01_test.csv    one key per line, no header

A tag counts as present if it was annotated and its relevance is at least 0.5. There is no
official validation split, so one is held out of the train partition: artist by artist if the
metadata are there, else clip by clip.

Labels are read from the CSV file. The publishers generate the NumPy file from it (see
scripts/helper_numpy.py in https://github.com/cosmir/openmic-2018), but store its keys as a
pickle, which could run code.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.datasets.base import (
    GROUPED,
    AudioDataset,
    Published,
    Split,
    hold_out,
    hold_out_whole_groups,
)
from rfkeras.datasets.tables import official_names
from rfkeras.errors import DatasetError
from rfkeras.utils.files import open_npz, parse_json, read_text
from rfkeras.utils.text import count, first_few

HOMEPAGE = "https://zenodo.org/record/1432913 (openmic-2018-v1.0.0.tgz)"
CLIP_SECONDS = 10.0
SPLIT_SEED = 2018
FOLDER = "openmic-2018"
PUBLISHED = Published(HOMEPAGE, {"train+validation": 14915, "test": 5085}, 20, group="artist")
_LABELS_CSV = "openmic-2018-aggregated-labels.csv"
_LABELS_NPZ = "openmic-2018.npz"
_METADATA = "openmic-2018-metadata.csv"
_ARTIST_COLUMNS = ("artist_id", "artist_name")
_CSV_COLUMNS = ("sample_key", "instrument", "relevance")
_RELEVANT = 0.5

# Label row and mask row of each clip, by key.
Labels = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


def load(
    data_dir: Path,
    *,
    validation_share: float = 0.15,
    split_seed: int = SPLIT_SEED,
    split_rule: str = GROUPED,
    name: str = "openmic",
    info: Mapping[str, object] | None = None,
    published: Published | None = PUBLISHED,
) -> AudioDataset:
    """Read an OpenMIC-2018 folder; audio files are not opened.

    Args:
        data_dir: The folder openmic-2018 or its parent.
        validation_share: Share of the train partition held out for validation.
        split_seed: Seed of that choice, fixed so that results are comparable.
        split_rule: "grouped" holds out whole artists if the metadata name them, "clips" holds
            out clip by clip, as version 0.1.0 did.
        name: Name of the data set.
        info: Entries to add to the data set's info.
        published: Published numbers to compare with; None for another data set in this
            layout.

    Returns:
        A data set with the splits train, validation and test.

    Raises:
        DatasetError: A file is missing or malformed, or files contradict each other.
    """
    root = data_dir / FOLDER if (data_dir / FOLDER).is_dir() else data_dir
    if not (root / "audio").is_dir():
        raise DatasetError(
            f"{data_dir} is not an OpenMIC-2018 folder: it has no sub-folder audio. Unpack "
            "openmic-2018-v1.0.0.tgz and pass its folder openmic-2018."
        )
    names = _class_names(root / "class-map.json")
    labels, labels_file = _labels(root, names)
    partitions = root / "partitions"
    train_keys = _keys(partitions / "split01_train.csv")
    test_keys = _keys(partitions / "split01_test.csv")
    both = sorted(set(train_keys) & set(test_keys))
    if both:
        raise DatasetError(
            f"{partitions}: the partitions train and test share {count(len(both), 'key')}: "
            f"{first_few(both)}."
        )
    train = _split(root, train_keys, labels, "train")
    test = _split(root, test_keys, labels, "test")
    artists = _artists(root / _METADATA) if split_rule == GROUPED else {}
    notes: list[str] = []
    if artists:
        # A clip whose artist is not known is a group of its own.
        train = replace(train, groups=tuple(artists.get(key, key) for key in train_keys))
        train, validation = hold_out_whole_groups(train, validation_share, split_seed)
        how = f"{validation_share:g} of train, by artist and seed {split_seed}"
        shared = {artists.get(key, key) for key in train_keys}
        shared &= {artists.get(key, key) for key in test_keys}
        if shared:
            artists_in_both = count(len(shared), "artist is", "artists are")
            notes.append(f"{artists_in_both} in both official partitions, train and test")
    else:
        train, validation = hold_out(train, validation_share, split_seed)
        how = f"{validation_share:g} of train, by seed {split_seed}"
        if published is not None:
            missing = "" if (root / _METADATA).is_file() else f": {_METADATA} is missing"
            notes.append(
                "validation is held out clip by clip, so one artist can be in both train and "
                f"validation{missing}"
            )
    return AudioDataset(
        name=name,
        label_names=official_names(names, str(root / "class-map.json")),
        splits={
            "train": train,
            "validation": validation,
            "test": test,
        },
        clip_seconds=CLIP_SECONDS,
        info={
            "labels": labels_file,
            "validation": how,
            **(info or {}),
        },
        published=published,
        notes=tuple(notes),
    )


def _artists(path: Path) -> dict[str, str]:
    """Return the artist of each clip by key; empty without metadata that name them."""
    if not path.is_file():
        return {}
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    try:
        columns = reader.fieldnames or ()
        column = next((name for name in _ARTIST_COLUMNS if name in columns), None)
        if column is None or "sample_key" not in columns:
            return {}
        rows = [(row["sample_key"], (row[column] or "").strip()) for row in reader]
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}.") from error
    return {key: f"artist {artist}" for key, artist in rows if key and artist}


def _class_names(path: Path) -> tuple[str, ...]:
    try:
        mapping = dict(parse_json(_text(path)).items())
        names = tuple(sorted(mapping, key=mapping.__getitem__))
        columns = [mapping[name] for name in names]
    except (ValueError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{path} must be a JSON object of class names and columns: {error}."
        ) from error
    if columns != list(range(len(names))) or not names:
        raise DatasetError(
            f"{path} must number the classes 0, 1, 2, ... Received: {columns[:30]}."
        )
    return names


def _keys(path: Path) -> list[str]:
    keys = [line.strip() for line in _text(path).splitlines()]
    keys = [key for key in keys if key]
    if not keys:
        raise DatasetError(f"{path} has no keys.")
    seen: set[str] = set()
    for number, key in enumerate(keys, 1):
        if key in seen:
            raise DatasetError(f"{path}: entry {number} repeats the key {key}.")
        if "/" in key or "\\" in key or key.startswith("."):
            raise DatasetError(f"{path}: entry {number} is not a key: {key!r}.")
        seen.add(key)
    return keys


def _labels(root: Path, names: tuple[str, ...]) -> tuple[Labels, str]:
    """Read the labels; return also the name of the file that they come from."""
    if (root / _LABELS_CSV).is_file():
        return _labels_from_csv(root / _LABELS_CSV, names), _LABELS_CSV
    if (root / _LABELS_NPZ).is_file():
        return _labels_from_npz(root / _LABELS_NPZ, len(names)), _LABELS_NPZ
    raise DatasetError(
        f"{root} has no labels: {_LABELS_CSV} is missing. Unpack the archive again."
    )


def _labels_from_csv(path: Path, names: tuple[str, ...]) -> Labels:
    column = {name: number for number, name in enumerate(names)}
    labels: Labels = {}
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        if not set(_CSV_COLUMNS) <= set(reader.fieldnames or ()):
            raise DatasetError(
                f"{path} needs the columns {', '.join(_CSV_COLUMNS)}. Received: "
                f"{', '.join(reader.fieldnames or ())}."
            )
        for row in reader:
            try:
                class_column = column[row["instrument"]]
                relevance = float(row["relevance"])
            except (KeyError, TypeError, ValueError) as error:
                raise DatasetError(
                    f"{path}, line {reader.line_num}: unknown instrument, or relevance that is "
                    f"not a number ({error})."
                ) from error
            clip_labels, clip_mask = labels.setdefault(
                row["sample_key"],
                (np.zeros(len(names), np.float32), np.zeros(len(names), np.float32)),
            )
            clip_labels[class_column] = relevance >= _RELEVANT
            clip_mask[class_column] = 1
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}.") from error
    return labels


def _labels_from_npz(path: Path, classes: int) -> Labels:
    """Read labels from a NumPy file whose keys are plain strings."""
    relevance = _array(path, "Y_true", "biuf")
    annotated = _array(path, "Y_mask", "biuf")
    keys = _array(path, "sample_key", "U")
    if keys.ndim != 1:
        raise DatasetError(
            f"{path}: array 'sample_key' must have one dimension. Received: shape {keys.shape}."
        )
    shape = (len(keys), classes)
    if relevance.shape != shape or annotated.shape != shape:
        raise DatasetError(
            f"{path}: {len(keys)} keys and {classes} classes need Y_true and Y_mask of shape "
            f"{shape}. Received: {relevance.shape} and {annotated.shape}."
        )
    mask = annotated.astype(bool)
    positive = (relevance >= _RELEVANT) & mask
    rows = zip(positive.astype(np.float32), mask.astype(np.float32), strict=True)
    return dict(zip(keys.tolist(), rows, strict=True))


def _array(path: Path, name: str, kinds: str) -> NDArray[Any]:
    """Read an array of a NumPy file without unpickling; its dtype must be of these kinds."""
    try:
        with open_npz(path) as arrays:
            array: NDArray[Any] = arrays[name]
            if array.dtype.kind == "U":
                array.tolist()  # fails here if a character is not valid Unicode
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path}: array {name!r} cannot be read: {error}. Put {_LABELS_CSV}, which has the "
            "same labels, next to this file."
        ) from error
    if array.dtype.kind not in kinds:
        raise DatasetError(f"{path}: array {name!r} has the wrong dtype: {array.dtype}.")
    return array


def _split(root: Path, keys: list[str], labels: Labels, name: str) -> Split:
    missing = [key for key in keys if key not in labels]
    if missing:
        raise DatasetError(
            f"{root}: {len(missing)} of the {count(len(keys), 'key')} of the {name} partition "
            f"have no labels: {first_few(missing)}."
        )
    return Split(
        keys=tuple(keys),
        paths=tuple(root / "audio" / key[:3] / f"{key}.ogg" for key in keys),
        labels=np.stack([labels[key][0] for key in keys]),
        mask=np.stack([labels[key][1] for key in keys]),
    )


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} is missing or unreadable ({error}). It is part of OpenMIC-2018: unpack "
            "the archive again."
        ) from error
