"""Your own data: a CSV file of paths and tags, or a folder with one sub-folder per class."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from rfkeras.audio.find import AUDIO_SUFFIXES
from rfkeras.datasets.base import SPLITS, AudioDataset, Split, hold_out
from rfkeras.errors import DatasetError, did_you_mean, unknown_name
from rfkeras.utils.text import count

TAG_SEPARATOR = "|"
_COLUMNS = ("path", "labels", "split", "unknown")


@dataclass(frozen=True)
class _Clip:
    """One row: key, file, tags that apply, tags that are unknown, split or ""."""

    key: str
    path: Path
    tags: frozenset[str]
    unknown: frozenset[str] = frozenset()
    split: str = ""


def load(
    source: Path,
    *,
    seed: int = 0,
    validation_share: float = 0.15,
    test_share: float = 0.15,
    allow_absolute: bool = False,
) -> AudioDataset:
    """Read a CSV file or a folder of class folders; audio files are not opened.

    A CSV file has a header and the columns `path` (relative to the CSV file) and `labels`
    (tags separated by "|", empty if none applies). Two columns are optional: `split` (train,
    validation or test, in all rows or in none) and `unknown` (tags that may or may not
    apply, which are masked). The tags of the data set are all those in `labels`, in
    alphabetical order.

    In a folder, every sub-folder is a class, and every audio file in it, at any depth, has
    that one tag.

    Without a split column, files are divided at random, one by one. If several files come
    from one recording, give the splits in a CSV file; otherwise parts of one recording end
    up in both training and test. If the split column has no validation clips, they are held
    out of train.

    Args:
        source: The CSV file or the folder.
        seed: Seed of the splits.
        validation_share: Share of the clips outside the test split held out for validation.
        test_share: Share of all clips held out for the test split.
        allow_absolute: Allow absolute paths in a CSV file, and paths that lead out of its
            folder.

    Returns:
        A multi-label data set.

    Raises:
        DatasetError: A file or folder is missing or malformed. The message names the line.
        ConfigError: There are too few clips to divide.
    """
    if source.is_dir():
        clips = _from_folder(source)
    elif source.is_file():
        clips = _from_csv(source, allow_absolute)
    else:
        raise DatasetError(
            f"{source} does not exist. Give a CSV file, or a folder with one sub-folder per "
            "class."
        )
    names = tuple(sorted(frozenset[str]().union(*(clip.tags for clip in clips))))
    if not names:
        raise DatasetError(f"{source}: no clip has a tag, so there is nothing to learn.")
    splits, how = _splits(clips, names, seed, validation_share, test_share)
    return AudioDataset(
        name="folder",
        label_names=names,
        splits=splits,
        info={"source": str(source), "splits": how},
    )


def _from_folder(root: Path) -> list[_Clip]:
    clips = []
    classes = sorted(
        entry for entry in root.iterdir() if entry.is_dir() and entry.name[0] != "."
    )
    for folder in classes:
        files = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in AUDIO_SUFFIXES and path.name[0] != "." and path.is_file()
        )
        if not files:
            raise DatasetError(
                f"{folder} is the folder of a class, but has no audio files. Audio suffixes: "
                f"{', '.join(AUDIO_SUFFIXES)}."
            )
        tags = frozenset([folder.name])
        clips += [_Clip(file.relative_to(root).as_posix(), file, tags) for file in files]
    if not clips:
        raise DatasetError(
            f"{root} has no sub-folders. Put the audio of each class into a sub-folder with "
            "its name, or give a CSV file with the columns path and labels."
        )
    return clips


def _from_csv(path: Path, allow_absolute: bool) -> list[_Clip]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            _check_columns(path, reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as a UTF-8 CSV file: {error}.") from error
    clips: list[_Clip] = []
    lines: dict[str, int] = {}
    for line, row in rows:
        clip = _clip(path, line, row, allow_absolute)
        if clip.key in lines:
            raise DatasetError(
                f"{path}, line {line}: {clip.key} is already in line {lines[clip.key]}. Give "
                "each file one row with all its tags."
            )
        lines[clip.key] = line
        clips.append(clip)
    if not clips:
        raise DatasetError(f"{path} has a header but no rows.")
    _check_unknown(path, clips, lines)
    return clips


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    for column in columns:
        if column not in _COLUMNS:
            raise DatasetError(f"{path}: {unknown_name('column', str(column), _COLUMNS)}")
    for column in _COLUMNS[:2]:
        if column not in columns:
            raise DatasetError(f"{path}: the first line must name the column {column!r}.")


def _clip(
    csv_path: Path, line: int, row: dict[str | None, str | None], allow_absolute: bool
) -> _Clip:
    where = f"{csv_path}, line {line}"
    if None in row or None in row.values():
        raise DatasetError(f"{where}: the number of fields differs from the header.")
    text = {str(name): str(value).strip() for name, value in row.items()}
    if not text["path"]:
        raise DatasetError(f"{where}: the path is empty.")
    relative = os.path.normpath(text["path"])
    outside = PurePosixPath(relative).parts[0] in ("/", "..")
    if outside and not allow_absolute:
        raise DatasetError(
            f"{where}: {text['path']} leads out of {csv_path.parent}. Use paths relative to "
            "the CSV file. If you trust it, add --allow-absolute (allow_absolute=True)."
        )
    split = text.get("split", "")
    if split and split not in SPLITS:
        raise DatasetError(f"{where}: {unknown_name('split', split, SPLITS)}")
    tags, unknown = _tags(text["labels"]), _tags(text.get("unknown", ""))
    if tags & unknown:
        raise DatasetError(
            f"{where}: {', '.join(sorted(tags & unknown))} is both in labels and in unknown."
        )
    return _Clip(
        PurePosixPath(relative).as_posix(), csv_path.parent / relative, tags, unknown, split
    )


def _tags(text: str) -> frozenset[str]:
    return frozenset(tag.strip() for tag in text.split(TAG_SEPARATOR)) - {""}


def _check_unknown(path: Path, clips: list[_Clip], lines: dict[str, int]) -> None:
    names = frozenset[str]().union(*(clip.tags for clip in clips))
    for clip in clips:
        for tag in sorted(clip.unknown - names):
            raise DatasetError(
                f"{path}, line {lines[clip.key]}: the unknown tag {tag!r} is not among the "
                f"labels of any row.{did_you_mean(tag, names)}"
            )


def _splits(
    clips: list[_Clip],
    names: tuple[str, ...],
    seed: int,
    validation_share: float,
    test_share: float,
) -> tuple[dict[str, Split], str]:
    given = [clip for clip in clips if clip.split]
    if given and len(given) < len(clips):
        without = next(clip for clip in clips if not clip.split)
        raise DatasetError(
            f"The column split is filled for {len(given)} of {count(len(clips), 'clip')}, but "
            f"not for {without.key}. Fill it for all clips or for none."
        )
    everything = _as_split(clips, names)
    if not given:
        rest, test = hold_out(everything, test_share, seed)
        train, validation = hold_out(rest, validation_share, seed)
        splits = {"train": train, "validation": validation, "test": test}
        return splits, f"by seed {seed}, file by file"
    splits = {
        name: everything.select([row for row, clip in enumerate(clips) if clip.split == name])
        for name in SPLITS
        if any(clip.split == name for clip in clips)
    }
    if "train" in splits and "validation" not in splits:
        splits["train"], splits["validation"] = hold_out(
            splits["train"], validation_share, seed
        )
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
