"""OpenMIC-2018: 20,000 clips of 10 s, 20 instruments, partially labelled.

Layout, below the folder `openmic-2018`:

    audio/{key[:3]}/{key}.ogg
    openmic-2018.npz                       Y_true, Y_mask, sample_key
    openmic-2018-aggregated-labels.csv     the same labels as text
    class-map.json                         instrument -> column
    partitions/split01_train.csv, split01_test.csv    one key a line, no header

A tag counts as present where its relevance is at least 0.5 and somebody annotated it. There
is no official validation split: one is held out of the train partition.
"""

from __future__ import annotations

import csv
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from rfkeras.datasets.base import AudioDataset, Published, Split, hold_out
from rfkeras.errors import DatasetError
from rfkeras.utils.files import check_archive, malformed, open_npz, parse_json, read_text

_NUMBERS = "biuf"


class _Inert:
    """Stands for whatever NumPy class or function a pickle names, and does nothing.

    NumPy's own, given the state that a damaged pickle holds, can end the process.
    """

    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        """Take the arguments that the pickle has for it."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


# Module and name of each global that a pickled object array of str refers to. NumPy 2
# renamed numpy.core to numpy._core.
_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


class _StringArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return _Inert


def load_array(path: Path, name: str) -> NDArray[Any]:
    """One plain (not pickled) array of an .npz file.

    Args:
        path: The .npz file.
        name: Name of the array.

    Raises:
        DatasetError: No such array, or it is malformed or pickled.
    """
    try:
        with open_npz(path) as arrays:
            if name not in arrays.files:
                raise DatasetError(
                    f"{path} has no array {name!r}. It has: {', '.join(arrays.files)}."
                )
            array = cast("NDArray[Any]", arrays[name])
            if array.dtype.kind not in _NUMBERS:
                raise DatasetError(f"{path}, array {name!r}, holds no numbers: {array.dtype}.")
            return array
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}, array {name!r}, cannot be read: {error}.") from error


def load_strings(path: Path, name: str) -> list[str]:
    """A one-dimensional array of strings in an .npz file, plain or of pickled objects.

    Args:
        path: The .npz file.
        name: Name of the array.

    Raises:
        DatasetError: No such array, or it is malformed, or its pickle holds anything but
            strings.
    """
    try:
        check_archive(path)
        with malformed(), zipfile.ZipFile(path) as archive:
            if f"{name}.npy" not in archive.namelist():
                raise DatasetError(f"{path} has no array {name!r}.")
            with archive.open(f"{name}.npy") as stream:
                values = _read_strings(cast(BinaryIO, stream))
    except pickle.UnpicklingError as error:
        raise DatasetError(
            f"{path}, array {name!r}: refused to unpickle it, because {error}. Only strings "
            "are admitted. Get the file from its official source."
        ) from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}, array {name!r}, cannot be read: {error}.") from error
    if values.ndim != 1 or not all(isinstance(value, str) for value in values.tolist()):
        raise DatasetError(
            f"{path}, array {name!r}, must be a list of strings. Received: shape "
            f"{values.shape}, dtype {values.dtype}."
        )
    return [str(value) for value in values.tolist()]


def _read_strings(stream: BinaryIO) -> NDArray[Any]:
    reader: Any = npy_format  # NumPy leaves these functions untyped
    version = reader.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = reader.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = reader.read_array_header_2_0(stream)
    else:
        raise ValueError(f"unknown .npy version {version}")
    if dtype.hasobject:
        return _strings_of(_StringArrayUnpickler(stream).load(), shape)
    count = int(np.prod(shape, dtype=np.int64))
    data = stream.read(count * dtype.itemsize)
    return np.frombuffer(data, dtype, count).reshape(shape)


def _strings_of(loaded: Any, shape: Any) -> NDArray[Any]:
    """The elements of a pickled object array: the last part of its state."""
    if not isinstance(loaded, _Inert):
        raise pickle.UnpicklingError(f"it holds a {type(loaded).__name__}, not an array")
    elements = loaded.state[-1]
    if not isinstance(elements, list) or len(shape) != 1 or len(elements) != shape[0]:
        raise ValueError(f"its elements do not fill an array of shape {shape}")
    values = np.empty(len(elements), object)
    values[:] = elements
    return values


HOMEPAGE = "https://zenodo.org/record/1432913 (openmic-2018-v1.0.0.tgz)"
CLIP_SECONDS = 10.0
SPLIT_SEED = 2018
FOLDER = "openmic-2018"
_LABELS_NPZ = "openmic-2018.npz"
_LABELS_CSV = "openmic-2018-aggregated-labels.csv"
_CSV_COLUMNS = ("sample_key", "instrument", "relevance")
_RELEVANT = 0.5
_NAMED_IN_ERROR = 3
_CLIPS = {"train+validation": 14915, "test": 5085}
_CLASSES = 20

PUBLISHED = Published(HOMEPAGE, _CLIPS, _CLASSES)

Labels = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


def load(
    data_dir: Path,
    *,
    validation_share: float = 0.15,
    split_seed: int = SPLIT_SEED,
    name: str = "openmic",
    info: Mapping[str, object] | None = None,
    published: Published | None = PUBLISHED,
) -> AudioDataset:
    """Read an OpenMIC-2018 folder; audio files are not opened.

    Args:
        data_dir: The folder openmic-2018, or the one it lies in.
        validation_share: Share of the train partition held out for validation.
        split_seed: Seed of that choice, fixed so that results compare.
        name: Name of the data set.
        info: Anything to add to the data set's info.
        published: What to hold the copy against; None for another data set in this layout.

    Returns:
        Splits train, validation and test. Labels come from openmic-2018.npz, or from
        openmic-2018-aggregated-labels.csv when there is none.

    Raises:
        DatasetError: A file is missing or malformed, or files contradict each other.
    """
    root = data_dir / FOLDER if (data_dir / FOLDER).is_dir() else data_dir
    if not (root / "audio").is_dir():
        raise DatasetError(
            f"{data_dir} is not an OpenMIC-2018 folder: it has no sub-folder audio. Unpack "
            "openmic-2018-v1.0.0.tgz and name the folder openmic-2018."
        )
    names = _class_names(root / "class-map.json")
    from_npz = (root / _LABELS_NPZ).is_file()
    labels = (
        _labels_from_npz(root / _LABELS_NPZ, len(names))
        if from_npz
        else _labels_from_csv(root / _LABELS_CSV, names)
    )
    partitions = root / "partitions"
    train_keys = _keys(partitions / "split01_train.csv")
    test_keys = _keys(partitions / "split01_test.csv")
    both = set(train_keys) & set(test_keys)
    if both:
        raise DatasetError(
            f"{partitions}: {len(both)} keys are in both train and test, {min(both)} first."
        )
    train, validation = hold_out(
        _split(root, train_keys, labels, "train"), validation_share, split_seed
    )
    return AudioDataset(
        name=name,
        label_names=names,
        splits={
            "train": train,
            "validation": validation,
            "test": _split(root, test_keys, labels, "test"),
        },
        clip_seconds=CLIP_SECONDS,
        info={
            "labels": _LABELS_NPZ if from_npz else _LABELS_CSV,
            "validation": f"{validation_share:g} of train, by seed {split_seed}",
            **(info or {}),
        },
        published=published,
    )


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
        raise DatasetError(f"{path} lists no keys.")
    seen: set[str] = set()
    for number, key in enumerate(keys, 1):
        if key in seen:
            raise DatasetError(f"{path}: key {key} (entry {number}) is there twice.")
        if "/" in key or "\\" in key or key.startswith("."):
            raise DatasetError(f"{path}: entry {number} is not a key: {key!r}.")
        seen.add(key)
    return keys


def _split(root: Path, keys: list[str], labels: Labels, name: str) -> Split:
    missing = [key for key in keys if key not in labels]
    if missing:
        raise DatasetError(
            f"{root}: {len(missing)} of {len(keys)} keys of the {name} partition have no "
            f"labels: {', '.join(missing[:_NAMED_IN_ERROR])}"
            f"{', ...' if len(missing) > _NAMED_IN_ERROR else ''}."
        )
    return Split(
        keys=tuple(keys),
        paths=tuple(root / "audio" / key[:3] / f"{key}.ogg" for key in keys),
        labels=np.stack([labels[key][0] for key in keys]),
        mask=np.stack([labels[key][1] for key in keys]),
    )


def _labels_from_npz(path: Path, classes: int) -> Labels:
    relevance = load_array(path, "Y_true")
    annotated = load_array(path, "Y_mask")
    keys = load_strings(path, "sample_key")
    shape = (len(keys), classes)
    if relevance.shape != shape or annotated.shape != shape:
        raise DatasetError(
            f"{path}: {len(keys)} keys and {classes} classes need Y_true and Y_mask of shape "
            f"{shape}. Received: {relevance.shape} and {annotated.shape}."
        )
    mask = annotated.astype(bool)
    positive = (relevance >= _RELEVANT) & mask
    rows = zip(positive.astype(np.float32), mask.astype(np.float32), strict=True)
    return dict(zip(keys, rows, strict=True))


def _labels_from_csv(path: Path, names: tuple[str, ...]) -> Labels:
    if not path.is_file():
        raise DatasetError(
            f"{path.parent} has no labels: neither {_LABELS_NPZ} nor {_LABELS_CSV} is there."
        )
    column = {name: number for number, name in enumerate(names)}
    labels: Labels = {}
    reader = csv.DictReader(_text(path).splitlines(), strict=True)
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
                    f"{path}, line {reader.line_num}: unknown instrument or relevance "
                    f"({error})."
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


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} is missing or unreadable ({error}). It belongs to OpenMIC-2018: unpack "
            "the archive again."
        ) from error
