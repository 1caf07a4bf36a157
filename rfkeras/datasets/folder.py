"""Your own data: a CSV file of paths and tags, or folders whose names are the classes."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from rfkeras.audio.find import AUDIO_SUFFIXES, FoundFile, walk_audio
from rfkeras.datasets.base import (
    GROUPED,
    SPLITS,
    AudioDataset,
    Split,
    hold_out,
    hold_out_by_class,
)
from rfkeras.datasets.tables import read_table
from rfkeras.errors import ConfigError, DatasetError, did_you_mean, unknown_name
from rfkeras.utils.label_names import clean_label_name, is_invisible, visible_label_name
from rfkeras.utils.remote import RemotePath, is_remote, to_path
from rfkeras.utils.text import count, first_few, printable

TAG_SEPARATOR = "|"
_COLUMNS = ("path", "labels", "split", "unknown")
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
_SPLIT_SUFFIX = re.compile(r"[ _-]?(set|split|data)$")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_FEW_CLIPS = 10


@dataclass(frozen=True)
class _Clip:
    """One row: key, file, tags that apply, tags that are unknown, split or ""."""

    key: str
    path: Path
    tags: frozenset[str]
    unknown: frozenset[str] = frozenset()
    split: str = ""


def split_of(name: str) -> str | None:
    """Return the split that a name such as "Train", "val" or "test_set" means; None if none."""
    return _SPLIT_WORDS.get(_SPLIT_SUFFIX.sub("", name.strip().casefold()))


class _Names:
    """Cleans the names of tags and remembers which were written in several ways."""

    def __init__(self) -> None:
        self._written: dict[str, set[str]] = defaultdict(set)

    def clean(self, text: str, where: str) -> str:
        """Return a tag's name.

        Raises:
            DatasetError: The name is empty or has a control character.
        """
        try:
            name = visible_label_name(text)
        except ConfigError as error:
            raise DatasetError(f"{where}: {error}") from error
        self._written[name].add(text.strip())
        return name

    def notes(self) -> list[str]:
        """Return a sentence on names that are written in several ways or were changed."""
        several = [name for name, written in self._written.items() if len(written) > 1]
        notes = []
        if several:
            forms = [
                f"{name!r} ({', '.join(sorted(map(ascii, self._written[name])))})"
                for name in sorted(several)
            ]
            notes.append(f"different spellings are read as one tag: {first_few(forms)}")
        changed = [
            f"{name!r} ({text!a})"
            for name, written in sorted(self._written.items())
            for text in written
            if len(written) == 1 and any(map(is_invisible, text))
        ]
        if changed:
            notes.append(
                f"invisible characters were removed from {count(len(changed), 'tag')}: "
                f"{first_few(changed)}"
            )
        return notes


def load(
    source: Path,
    *,
    seed: int = 0,
    validation_share: float = 0.15,
    test_share: float = 0.15,
    allow_absolute: bool = False,
    split_rule: str = GROUPED,
    label_names: Sequence[str] | None = None,
) -> AudioDataset:
    """Read a table or a folder of class folders; audio files are not opened.

    A table has a header and the columns `path` (relative to the table) and `labels` (tags
    separated by "|", empty if none applies), separated by commas, semicolons or tabs. Two
    columns are optional: `split` (train, validation or test, in all rows or in none) and
    `unknown` (tags that may or may not apply, which are masked). Other columns are left out.
    The tags of the data set are all those in `labels`, in alphabetical order.

    In a folder, every sub-folder is a class, and every audio file in it, at any depth, has
    that one tag. Sub-folders named train, validation (val, valid, dev) and test (eval) that
    have class folders, or are inside all class folders, are the splits. Names such as
    train_set or Training mean the same, also in the column `split` of a table.

    Without given splits, class folders are divided at random class by class, and the rows of
    a table one by one. If several files come from one recording, give the splits; otherwise
    parts of one recording end up in both training and test. If there are train clips but no
    validation clips, they are held out of train.

    Args:
        source: The table or the folder.
        seed: Seed of the splits.
        validation_share: Share of the clips outside the test split held out for validation.
        test_share: Share of all clips held out for the test split.
        allow_absolute: Allow absolute paths and URLs in a table, and paths outside its folder.
        split_rule: "grouped" divides class folders class by class, "clips" file by file, as
            version 0.1.0 did.
        label_names: Tags of the result, those of a model for example. Tags that no clip has
            are unknown for all clips, and other tags are left out. None uses the tags that
            are found.

    Returns:
        A multi-label data set.

    Raises:
        DatasetError: A file or folder is missing or malformed. The message names the line.
        ConfigError: There are too few clips to divide.
    """
    names = _Names()
    if source.is_dir():
        clips, notes = _from_folder(source, names)
    elif source.is_file():
        clips, notes = _from_table(source, allow_absolute, names, label_names)
    else:
        raise DatasetError(
            f"{source} does not exist. Give a CSV file, or a folder with one sub-folder per "
            "class."
        )
    notes += names.notes()
    found = tuple(sorted(frozenset[str]().union(*(clip.tags for clip in clips))))
    if not found:
        raise DatasetError(f"{source}: no clip has a tag, so there is nothing to learn.")
    by_class = split_rule == GROUPED and source.is_dir()
    everything = _as_split(clips, found)
    splits, how = _splits(clips, everything, seed, validation_share, test_share, by_class)
    columns = found
    if label_names is not None:
        columns = tuple(label_names)
        notes += _check_wanted(found, columns)
        splits = {name: with_columns(split, found, columns) for name, split in splits.items()}
    if len(found) == 1 and label_names is None:
        notes.append(
            f"only one tag, {found[0]!r}: add clips without it; otherwise there is nothing to "
            "distinguish"
        )
    if len(clips) < _FEW_CLIPS:
        notes.append(f"only {count(len(clips), 'clip')} in all: too few for reliable scores")
    return AudioDataset(
        name="folder",
        label_names=columns,
        splits=splits,
        info={"source": str(source), "splits": how},
        notes=tuple(notes),
    )


# Folders


def _from_folder(root: Path, names: _Names) -> tuple[list[_Clip], list[str]]:
    walk = walk_audio(root)
    faults = [file for file in walk.files if file.error is not None]
    files = [file for file in walk.files if file.error is None]
    below: dict[str, list[FoundFile]] = defaultdict(list)  # by the folder at the top
    for file in files:
        below[file.inside.parts[0] if len(file.inside.parts) > 1 else ""].append(file)
    loose = below.pop("", [])
    tops = [folder.parts[0] for folder in walk.folders if len(folder.parts) == 1]
    _check_folders(root, tops, below, loose)
    class_part, split_part = _layout(root, below)
    clips, unlabelled = [], list(loose)
    for file in files:
        parts = file.inside.parts
        if len(parts) < 2:
            continue
        if len(parts) < class_part + 2:
            unlabelled.append(file)
            continue
        name = names.clean(parts[class_part], str(root.joinpath(*parts[: class_part + 1])))
        split = "" if split_part is None else split_of(parts[split_part]) or ""
        key = file.inside.as_posix()
        clips.append(_Clip(key, file.path, frozenset([name]), split=split))
    kept = [file for file in files if len(file.inside.parts) >= class_part + 2]
    notes = [*walk.left_out.notes(), *_layout_notes(kept, class_part, split_part)]
    if faults:
        described = [f"{file.name} ({file.error})" for file in faults]
        notes.append(
            f"left out {count(len(faults), 'file, link or folder', 'files, links or folders')} "
            f"that cannot be read: {first_few(described)}"
        )
    if unlabelled:
        files_left = count(len(unlabelled), "audio file")
        notes.append(
            f"left out {files_left} outside the class folders: "
            f"{first_few(file.name for file in unlabelled)}"
        )
    used = {parent for clip in clips for parent in PurePosixPath(clip.key).parents}
    empty = [
        folder
        for folder in walk.folders
        if len(folder.parts) <= class_part + 1 and PurePosixPath(folder) not in used
    ]
    if empty:
        notes.append(
            f"left out {count(len(empty), 'folder')} without audio: "
            f"{first_few(map(printable, empty))}"
        )
    return clips, notes


def _check_folders(
    root: Path, tops: list[str], below: dict[str, list[FoundFile]], loose: list[FoundFile]
) -> None:
    """Reject a folder without class folders.

    Raises:
        DatasetError: There is no sub-folder, or none with audio.
    """
    if below:
        return
    advice = (
        "Put the audio of each class into a sub-folder with its name, or give a CSV file with "
        "the columns path and labels."
    )
    if tops:
        raise DatasetError(
            f"{root}: none of its sub-folders has audio files: {first_few(tops)}. Audio "
            f"suffixes: {', '.join(AUDIO_SUFFIXES)}. {advice}"
        )
    here = f", only {count(len(loose), 'audio file')}" if loose else ""
    raise DatasetError(f"{root} has no sub-folders{here}. {advice}")


def _layout(root: Path, below: dict[str, list[FoundFile]]) -> tuple[int, int | None]:
    """Return which part of a path is the class, and which the split (None: no splits).

    Raises:
        DatasetError: Some folders are splits and others are classes, splits have no class
            folders, or the folder with the splits is further inside.
    """
    named = [name for name in below if split_of(name)]
    divided = [
        name for name in named if any(len(file.inside.parts) > 2 for file in below[name])
    ]
    others = [name for name in below if name not in named]
    if divided and others:
        raise DatasetError(
            f"{root} mixes splits ({first_few(divided)}) and other folders "
            f"({first_few(others)}). Put all class folders into train/, validation/ and "
            "test/, or none. If a class has the name of a split, rename its folder."
        )
    if named and not divided and not others:
        raise DatasetError(
            f"{root}: {first_few(named)} {'is a split' if len(named) == 1 else 'are splits'}, "
            "but no class folder is inside. Put the audio of each class into a sub-folder, "
            f"such as {named[0]}/guitar, or give a CSV file with the columns path, labels and "
            "split."
        )
    if divided:
        return 1, 0
    if not all(_in_split(file) for files in below.values() for file in files):
        return 0, None
    deep = any(len(file.inside.parts) > 3 for files in below.values() for file in files)
    if len(others) == 1 and deep:
        raise DatasetError(
            f"{root} has one folder, {others[0]}, with the splits inside. Give that folder: "
            f"{root / others[0]}."
        )
    return 0, 1


def _in_split(file: FoundFile) -> bool:
    """Return whether a file is in a folder of its class that is named as a split."""
    return len(file.inside.parts) > 2 and split_of(file.inside.parts[1]) is not None


def _layout_notes(
    files: Sequence[FoundFile], class_part: int, split_part: int | None
) -> list[str]:
    """Return notes on folders that can be understood in more than one way."""
    notes = []
    if split_part is not None:
        spellings: dict[str, set[str]] = defaultdict(set)
        for file in files:
            name = file.inside.parts[split_part]
            spellings[split_of(name) or ""].add(name)
        notes += [
            f"the folders {', '.join(sorted(names))} are one split, {split}"
            for split, names in sorted(spellings.items())
            if len(names) > 1
        ]
        return notes
    inside: dict[str, set[str]] = defaultdict(set)
    divided: dict[str, bool] = {}  # whether all audio of a class is in splits
    for file in files:
        top, *middle = file.inside.parts[:-1]
        inside[top].add(middle[0] if middle else "")
        divided[top] = divided.get(top, True) and _in_split(file)
    if any(divided.values()):
        others = [printable(name) for name, whole in divided.items() if not whole]
        notes.append(
            f"the audio of {first_few(name for name, whole in divided.items() if whole)} is in "
            f"folders named as splits, which are ignored because {first_few(others)} has "
            "audio outside such folders"
        )
    first = next(iter(inside.values()), set())
    alike = len(inside) > 1 and all(names == first for names in inside.values())
    if alike and len(first) > 1 and "" not in first:
        notes.append(
            f"the tags are the folders {first_few(sorted(inside))}, which all have the same "
            f"sub-folders: {first_few(sorted(first))}. If those are the classes, name the "
            "outer folders train, validation and test"
        )
    return notes


# Tables


def _from_table(
    path: Path, allow_absolute: bool, names: _Names, label_names: Sequence[str] | None
) -> tuple[list[_Clip], list[str]]:
    table = read_table(path, _COLUMNS[:2], _COLUMNS[2:])
    clips: list[_Clip] = []
    lines: dict[str, int] = {}
    for line, row in table.rows:
        clip = _clip(path, line, row, allow_absolute, names)
        if clip.key in lines:
            raise DatasetError(
                f"{path}, line {line}: {clip.key} is already in line {lines[clip.key]}. Give "
                "each file one row with all its tags."
            )
        lines[clip.key] = line
        clips.append(clip)
    if not clips:
        raise DatasetError(f"{path} has a header but no rows.")
    _check_unknown(path, clips, lines, label_names)
    return clips, list(table.notes)


def _clip(
    csv_path: Path, line: int, row: dict[str, str], allow_absolute: bool, names: _Names
) -> _Clip:
    where = f"{csv_path}, line {line}"
    if not row["path"]:
        raise DatasetError(f"{where}: the path is empty.")
    remote = is_remote(row["path"])
    relative = row["path"] if remote else _local_path(csv_path.parent, row["path"])
    if relative == ".":
        raise DatasetError(f"{where}: {row['path']!r} is a folder, not an audio file.")
    is_absolute = PurePosixPath(relative).parts[0] in ("/", "..") or _DRIVE.match(relative)
    outside = remote or is_absolute
    if outside and not allow_absolute:
        raise DatasetError(
            f"{where}: {row['path']} is outside {csv_path.parent}. Use paths relative to "
            "the CSV file. If you trust it, add --allow-absolute (allow_absolute=True)."
        )
    written = row.get("split", "")
    split = split_of(written) or ""
    if written and not split:
        raise DatasetError(f"{where}: {unknown_name('split', written, SPLITS)}")
    tags = _tags(row["labels"], where, names)
    unknown = _tags(row.get("unknown", ""), where, names)
    if tags & unknown:
        raise DatasetError(
            f"{where}: {', '.join(sorted(tags & unknown))} is both in labels and in unknown."
        )
    key = relative if remote else PurePosixPath(relative).as_posix()
    return _Clip(key, _below(csv_path.parent, relative), tags, unknown, split)


def _below(folder: Path, relative: str) -> Path:
    """Return the file that a table names, which is below its folder unless it is absolute."""
    if is_remote(relative) or PurePosixPath(relative).is_absolute():
        return to_path(relative)
    return folder.joined(relative) if isinstance(folder, RemotePath) else folder / relative


def _local_path(folder: Path, text: str) -> str:
    """Return a path of a table as this system writes it.

    Tables from other systems have backslashes, or another Unicode form of the file's name.
    These forms are used if the path does not exist as it stands.
    """
    forms = [os.path.normpath(form) for form in _forms(text)]
    if isinstance(folder, RemotePath) and len(forms) == 1:  # a look-up takes a request
        return forms[0]
    return next((form for form in forms if _exists(_below(folder, form))), forms[-1])


def _exists(path: Path) -> bool:
    # Path.exists fails at too long names.
    return path.exists() if isinstance(path, RemotePath) else os.path.exists(path)  # noqa: PTH110


def _forms(text: str) -> Iterator[str]:
    yield text
    if not text.isascii():
        for form in ("NFC", "NFD"):
            yield unicodedata.normalize(form, text)
        yield text
    if "\\" in text:
        yield text.replace("\\", "/")


def _tags(text: str, where: str, names: _Names) -> frozenset[str]:
    tags = (tag.strip() for tag in text.split(TAG_SEPARATOR))
    return frozenset(names.clean(tag, where) for tag in tags if tag)


def _check_unknown(
    path: Path, clips: list[_Clip], lines: dict[str, int], label_names: Sequence[str] | None
) -> None:
    names = frozenset[str]().union(*(clip.tags for clip in clips))
    names |= frozenset(map(clean_label_name, label_names or ()))
    for clip in clips:
        for tag in sorted(clip.unknown - names):
            raise DatasetError(
                f"{path}, line {lines[clip.key]}: the unknown tag {tag!r} is not among the "
                f"labels of any row.{did_you_mean(tag, names)}"
            )


# Both


def _check_wanted(found: Sequence[str], label_names: Sequence[str]) -> list[str]:
    """Return notes on the tags that only the data or only the model has.

    Raises:
        DatasetError: They have no tag in common.
    """
    wanted = list(map(clean_label_name, label_names))
    absent = sorted(frozenset(wanted) - frozenset(found))
    others = sorted(frozenset(found) - frozenset(wanted))
    if len(others) == len(found):
        raise DatasetError(
            f"None of the tags of the data is a tag of the model. Data: {first_few(found)}. "
            f"Model: {first_few(wanted)}.{did_you_mean(found[0], wanted)}"
        )
    return tag_notes(others, absent)


def tag_notes(others: Sequence[str], absent: Sequence[str]) -> list[str]:
    """Return notes on tags of the data that the model lacks, and on tags only it has."""
    notes = []
    if others:
        notes.append(
            f"left out {count(len(others), 'tag')} that the model does not have: "
            f"{first_few(others)}"
        )
    if absent:
        notes.append(
            f"no clip has {count(len(absent), 'tag')} of the model: {first_few(absent)}"
        )
    return notes


def with_columns(split: Split, found: Sequence[str], label_names: Sequence[str]) -> Split:
    """Return a split with a column for each of these tags; those not found are unknown."""
    column = {name: number for number, name in enumerate(found)}
    # One more column, of unknown labels.
    source = [column.get(clean_label_name(name), len(found)) for name in label_names]
    unknown = np.zeros((len(split), 1), np.float32)
    return replace(
        split,
        labels=np.hstack([split.labels, unknown])[:, source],
        mask=np.hstack([split.mask, unknown])[:, source],
    )


def _splits(
    clips: list[_Clip],
    everything: Split,
    seed: int,
    validation_share: float,
    test_share: float,
    by_class: bool,
) -> tuple[dict[str, Split], str]:
    """Return the splits, and how they were made."""
    divide = hold_out_by_class if by_class else hold_out
    given = [clip for clip in clips if clip.split]
    if given and len(given) < len(clips):
        without = next(clip for clip in clips if not clip.split)
        raise DatasetError(
            f"The column split is filled for {len(given)} of {count(len(clips), 'clip')}, but "
            f"not for {without.key}. Fill it for all clips or for none."
        )
    if not given:
        if len(clips) < len(SPLITS):
            raise ConfigError(
                f"{count(len(clips), 'clip')} cannot be divided into {', '.join(SPLITS)}. Add "
                "clips (at least 3, better 10 of each class), or give the splits."
            )
        if by_class:
            rest, test = hold_out_by_class(everything, test_share, seed, reserve=2)
        else:
            rest, test = hold_out(everything, test_share, seed)
        train, validation = divide(rest, validation_share, seed)
        splits = {"train": train, "validation": validation, "test": test}
        how = "class by class" if by_class else "file by file"
        return splits, f"by seed {seed}, {how}"
    splits = {
        name: everything.select([row for row, clip in enumerate(clips) if clip.split == name])
        for name in SPLITS
        if any(clip.split == name for clip in clips)
    }
    if "train" in splits and "validation" not in splits:
        splits["train"], splits["validation"] = divide(splits["train"], validation_share, seed)
        return splits, f"as given; validation held out of train by seed {seed}"
    return splits, "as given"


def _as_split(clips: list[_Clip], names: tuple[str, ...]) -> Split:
    labels = [[name in clip.tags for name in names] for clip in clips]
    known = [[name not in clip.unknown for name in names] for clip in clips]
    return Split(
        keys=tuple(clip.key for clip in clips),
        paths=tuple(clip.path for clip in clips),
        labels=np.array(labels, np.float32),
        mask=np.array(known, np.float32),
    )
