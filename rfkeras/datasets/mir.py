"""Data sets of the packages mirdata and soundata, opened as rfkeras' own.

A data set is "mirdata:NAME" or "soundata:NAME". The packages read its annotations; the table
MAPPINGS says which of them are tags and splits. `rfkeras.datasets.download` fetches the files.
"""

from __future__ import annotations

import copy
import csv
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from rfkeras.datasets.base import (
    SPLITS,
    AudioDataset,
    Published,
    Split,
    hold_out,
    hold_out_by_class,
    hold_out_groups,
    hold_out_whole_groups,
)
from rfkeras.datasets.tables import official_names
from rfkeras.errors import ConfigError, DatasetError, did_you_mean, unknown_name
from rfkeras.tasks import MULTI_LABEL, SINGLE_LABEL
from rfkeras.utils.remote import RemotePath, to_path
from rfkeras.utils.text import count, first_few

PACKAGES = ("mirdata", "soundata")
SPLIT_SEED = 2018
TEST_SHARE = 0.2  # held out where a data set has no official split
# What the packages raise if a file is missing or malformed, or an optional package is missing.
_UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    csv.Error,
    ImportError,
)
# Names of splits in the packages, and ours.
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "development"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
# Data sets of the packages that rfkeras has readers of its own for.
READERS = {
    "mirdata:openmic2018": "openmic",
    "mirdata:mtg_jamendo_autotagging_moodtheme": "mtg_jamendo",
    "mirdata:gtzan_genre": "gtzan",
    "soundata:tau2019uas": "dcase",
    "soundata:tau2020uas_mobile": "dcase",
}


@dataclass(frozen=True)
class TagMapping:
    """Maps the clips of a mirdata or soundata data set to labels and splits.

    Attributes are those of the package's `Track` or `Clip`. "sound_info.id" is the entry "id"
    of the dictionary "sound_info".

    Attributes:
        tags: Attribute that has the tag, a list of tags, or soundata's `Tags`.
        task: "single_label" or "multi_label".
        split: Attribute with the name of the official split; None if there is none. Missing
            splits are held out: 20 % of the clips for test, `validation_share` of the
            training clips for validation.
        fold: Attribute with the number of the official fold; None if there is none. The
            chosen fold is the test split, the next one validation.
        group: Attribute of the song or recording that must not be in two splits.
        group_in_id: Regular expression whose first group is the song or recording in the
            identifier of a clip, instead of `group`.
        names: Names for tags that the package abbreviates.
    """

    tags: str
    task: str = SINGLE_LABEL
    split: str | None = None
    fold: str | None = None
    group: str | None = None
    group_in_id: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)


_IRMAS = {
    **{"cel": "cello", "cla": "clarinet", "flu": "flute", "gac": "acoustic guitar"},
    **{"gel": "electric guitar", "org": "organ", "pia": "piano", "sax": "saxophone"},
    **{"tru": "trumpet", "vio": "violin", "voi": "voice"},
}
MAPPINGS: Mapping[str, TagMapping] = {
    "mirdata:ballroom": TagMapping("genre"),
    "mirdata:egfxset": TagMapping("effect"),
    "mirdata:good_sounds": TagMapping("instrument", group="sound_info.id"),
    "mirdata:irmas": TagMapping(
        "instrument", MULTI_LABEL, split="split", group_in_id=r"(\d+)__\d+", names=_IRMAS
    ),
    "mirdata:medley_solos_db": TagMapping("instrument", split="subset", group="song_id"),
    "mirdata:mridangam_stroke": TagMapping("stroke_name"),
    "mirdata:tinysol": TagMapping("instrument_full", fold="split"),
    "soundata:esc50": TagMapping("category", fold="fold", group="src_file"),
    "soundata:fsd50k": TagMapping("tags", MULTI_LABEL, split="split"),
    "soundata:fsdnoisy18k": TagMapping("tags", split="split"),
    "soundata:urbansound8k": TagMapping("class_label", fold="fold", group="freesound_id"),
}


# The packages


def local_folder(data_dir: str | Path) -> Path:
    """Return the absolute path of a folder.

    Raises:
        ConfigError: It is a URL.
    """
    folder = to_path(data_dir)
    if isinstance(folder, RemotePath):
        raise ConfigError(f"mirdata and soundata need a local folder. Received: {folder}.")
    return folder.absolute()


def import_package(package: str) -> Any:
    """Return mirdata or soundata.

    Raises:
        ConfigError: It is not installed. The message explains how to install it.
    """
    try:
        # Their import sets up the program's logging and warns about versions of Python.
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"Data sets of {package} need the package {package}: "
            f"pip install 'rfkeras[datasets]' ({error})"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the packages from setting up the program's logging, and hide what they log."""
    root = logging.getLogger()
    placeholder, level = logging.NullHandler(), root.level
    root.addHandler(placeholder)
    try:
        yield
    finally:
        root.removeHandler(placeholder)
        root.setLevel(level)


def initialize(
    name: str, home: Path, folder: Path | None = None, *, installed_index: bool = False
) -> Any:
    """Return the data set object of the package, with its index next to the data.

    The packages keep the index (the list of files and checksums) where they are installed,
    which may be read-only. Here it is in `.mirdata` or `.soundata`.

    Args:
        name: "mirdata:NAME" or "soundata:NAME".
        home: Folder that the paths of the index start from.
        folder: Folder that has the index; None for `home`.
        installed_index: Use the index in the installed package if there is no other, as
            after a download by the package itself.

    Raises:
        ConfigError: The package is not installed, or does not have or cannot use the data set.
    """
    package, _, own_name = name.partition(":")
    if package not in PACKAGES:
        raise ConfigError(
            f"Data sets with a colon start with {' or '.join(PACKAGES)}. Received: {name!r}."
        )
    module = import_package(package)
    if own_name not in module.list_datasets():
        raise ConfigError(
            unknown_name(f"data set of {package}", own_name, module.list_datasets())
        )
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = module.initialize(own_name, data_home=str(home))
        except _UNREADABLE as error:
            raise ConfigError(
                f"{package} cannot use {own_name}, perhaps for want of another package: "
                f"{type(error).__name__} {error}. See {package}'s documentation."
            ) from error
    index = copy.copy(dataset._index_data)
    beside = (folder or home) / f".{package}"
    only_installed = (
        Path(dataset.index_path).is_file() and not (beside / index.filename).is_file()
    )
    if index.remote is not None and not (installed_index and only_installed):
        index.indexes_dir = str(beside)
        index.remote = copy.copy(index.remote)
        index.remote.destination_dir = index.indexes_dir
        dataset._index_data, dataset.index_path = index, index.get_path()
    return dataset


def index_of(name: str, dataset: Any) -> dict[str, Any]:
    """Return the index of a data set of `initialize`.

    Raises:
        DatasetError: It is missing or malformed.
    """
    try:
        index: dict[str, Any] = dataset._index
    except (OSError, ValueError) as error:
        raise DatasetError(f"{_incomplete(name, dataset)} ({error})") from error
    return index


def _incomplete(name: str, dataset: Any) -> str:
    return (
        f"{dataset.data_home} does not have the files of {name}. Download and verify them: "
        f"rfkeras data download {name} --data-dir {dataset.data_home}"
    )


# Labels and splits


def mapping_of(name: str) -> TagMapping:
    """Return how a data set becomes labels and splits.

    Args:
        name: "mirdata:NAME" or "soundata:NAME".

    Raises:
        ConfigError: It is not in the table MAPPINGS. The message explains how to add your own.
    """
    if name in MAPPINGS:
        return MAPPINGS[name]
    if name in READERS:
        own = READERS[name]
        raise ConfigError(f"rfkeras has a reader of its own for {name}: use --dataset {own}.")
    package, _, own_name = name.partition(":")
    near = [key.partition(":")[2] for key in MAPPINGS if key.startswith(f"{package}:")]
    raise ConfigError(
        f"No mapping of {name!r} to tags.{did_you_mean(own_name, near)} Mapped: "
        f"{', '.join(MAPPINGS)}. Map it yourself in a "
        "file for --import: @rfkeras.register_dataset('mine') def mine(data_dir, "
        f"validation_share): return rfkeras.datasets.mir.load({name!r}, data_dir, "
        "TagMapping('ATTRIBUTE'), validation_share=validation_share). See docs/datasets.md."
    )


def load(
    name: str,
    data_dir: str | Path,
    mapping: TagMapping | None = None,
    *,
    fold: int | None = None,
    validation_share: float = 0.15,
) -> AudioDataset:
    """Open a data set of mirdata or soundata; audio files are not opened.

    Args:
        name: "mirdata:NAME" or "soundata:NAME".
        data_dir: Folder that `download` or the package downloaded it to.
        mapping: How its clips become labels and splits; None takes it from MAPPINGS.
        fold: Fold to test on, if the mapping has folds; None is the first.
        validation_share: Share of the training clips held out if there is no official
            validation split.

    Returns:
        A data set with the splits train, validation and test.

    Raises:
        ConfigError: The package is not installed, or has no such data set or fold.
        DatasetError: Files are missing or malformed.
    """
    mapping = mapping_of(name) if mapping is None else mapping
    folder = local_folder(data_dir)
    dataset = initialize(name, folder, installed_index=True)
    index_of(name, dataset)
    try:
        with quiet():
            rows, notes = _rows(dataset, mapping)
    except _UNREADABLE as error:
        raise DatasetError(f"{_incomplete(name, dataset)} ({error})") from error
    if not rows:
        raise DatasetError(f"{name}: the index in {folder} lists no clips with audio and tags.")
    tags = official_names(sorted({tag for row in rows for tag in row.tags}), name)
    whole = _as_split(rows, tags)
    places, how = _places(name, rows, mapping, fold)
    splits = {
        split: whole.select([row for row, place in enumerate(places) if place == split])
        for split in SPLITS
    }
    for split, share in (("test", TEST_SHARE), ("validation", validation_share)):
        if len(splits[split]) == 0:
            kept, held_out = _divide(splits["train"], share, mapping, tags)
            splits |= {"train": kept, split: held_out}
            how[split] = f"{share:g} of train, by seed {SPLIT_SEED}"
    return AudioDataset(
        name=name,
        label_names=tags,
        splits=splits,
        task=mapping.task,
        info={"version": dataset.version, **how},
        published=Published(dataset.readme, group="recording"),
        notes=notes,
    )


@dataclass(frozen=True)
class _Row:
    """A clip: identifier, audio file, tags, value of the split or fold, group."""

    key: str
    path: Path
    tags: list[str]
    place: Any
    group: str | None


def _rows(dataset: Any, mapping: TagMapping) -> tuple[list[_Row], tuple[str, ...]]:
    """Read all clips; return notes on those that are left out."""
    is_music = "tracks" in dataset._index  # in soundata, tracks are called clips
    keys, clip_of = (
        (dataset.track_ids, dataset.track) if is_music else (dataset.clip_ids, dataset.clip)
    )
    rows, without = [], {"audio": 0, "tag": 0}
    place = mapping.split or mapping.fold
    for key in keys:
        clip = clip_of(key)
        tags = [mapping.names.get(tag, tag) for tag in _tags(_value(clip, mapping.tags))]
        if clip.audio_path is None:
            without["audio"] += 1
        elif not tags and mapping.task == SINGLE_LABEL:
            without["tag"] += 1
        else:
            where = None if place is None else _value(clip, place)
            path = Path(clip.audio_path)
            rows.append(_Row(key, path, tags, where, _group(clip, key, mapping)))
    return rows, tuple(
        f"left out {count(number, 'clip')} without {what}"
        for what, number in without.items()
        if number
    )


def _value(clip: Any, path: str) -> Any:
    for name in path.split("."):
        clip = clip[name] if isinstance(clip, Mapping) else getattr(clip, name)
    return clip


def _tags(value: Any) -> list[str]:
    value = getattr(value, "labels", value)  # soundata's Tags
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(tag) for tag in value]


def _group(clip: Any, key: str, mapping: TagMapping) -> str | None:
    if mapping.group is not None:
        return f"recording {_value(clip, mapping.group)}"
    if mapping.group_in_id is None:
        return None
    found = re.fullmatch(mapping.group_in_id, key)
    return f"clip {key}" if found is None else f"recording {found[1]}"


def _as_split(rows: Sequence[_Row], tags: tuple[str, ...]) -> Split:
    column = {tag: number for number, tag in enumerate(tags)}
    labels = np.zeros((len(rows), len(tags)), np.float32)
    for number, row in enumerate(rows):
        labels[number, [column[tag] for tag in row.tags]] = 1
    groups = tuple(row.group or row.key for row in rows)
    return Split(
        keys=tuple(row.key for row in rows),
        paths=tuple(row.path for row in rows),
        labels=labels,
        mask=np.ones_like(labels),
        groups=groups if any(row.group for row in rows) else None,
    )


def _places(
    name: str, rows: Sequence[_Row], mapping: TagMapping, fold: int | None
) -> tuple[list[str], dict[str, object]]:
    """Return the split of each clip, and facts about the choice."""
    if mapping.fold is not None:
        folds = sorted({int(row.place) for row in rows})
        test = folds[0] if fold is None else fold
        if test not in folds:
            raise ConfigError(
                f"{name} has the folds {', '.join(map(str, folds))}. Received: fold={fold}."
            )
        validation = folds[(folds.index(test) + 1) % len(folds)]
        of_fold = {validation: "validation", test: "test"}
        places = [of_fold.get(int(row.place), "train") for row in rows]
        return places, {"fold": test, "validation": f"fold {validation}"}
    if mapping.split is None:
        return ["train"] * len(rows), {}
    unknown = {str(row.place) for row in rows if str(row.place) not in _SPLIT_NAMES}
    if unknown:
        raise DatasetError(
            f"{name}: {first_few(sorted(unknown))} is not the name of a split. Known: "
            f"{', '.join(_SPLIT_NAMES)}."
        )
    return [_SPLIT_NAMES[str(row.place)] for row in rows], {}


def _divide(
    split: Split, share: float, mapping: TagMapping, tags: tuple[str, ...]
) -> tuple[Split, Split]:
    """Hold out clips, recording by recording or class by class where possible."""
    single = mapping.task == SINGLE_LABEL
    if split.groups is not None and single:
        return hold_out_groups(split, share, SPLIT_SEED, tags)
    if split.groups is not None:
        return hold_out_whole_groups(split, share, SPLIT_SEED)
    return (hold_out_by_class if single else hold_out)(split, share, SPLIT_SEED)
