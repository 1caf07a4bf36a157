"""MTG-Jamendo: 55,000 full tracks, tagged by genre, instrument, and mood or theme.

`data_dir` is one of

- a clone of the repository mtg-jamendo-dataset or its folder data, with
  `data/splits/split-0/autotagging_moodtheme-train.tsv` and so on;
- the flat folder of the MediaEval task, with `split-0-moodtheme-train.tsv` and so on.

A TSV file has the columns TRACK_ID, ARTIST_ID, ALBUM_ID, PATH, DURATION and TAGS. Every tag
of a track has its own column. Audio is `48/948.mp3` or, from the low-bandwidth download,
`48/948.low.mp3`.

Source: https://github.com/MTG/mtg-jamendo-dataset (README: subsets and numbers of tags).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from rfkeras.datasets.base import SPLITS, AudioDataset, Published, Split
from rfkeras.datasets.tables import (
    FolderListing,
    check_subset,
    first_folder,
    official_names,
    read_rows,
    read_text,
    safe_path,
)
from rfkeras.errors import ConfigError, DatasetError
from rfkeras.utils.text import count, first_few

HOMEPAGE = "https://github.com/MTG/mtg-jamendo-dataset (DOI 10.5281/zenodo.3826813)"
SUBSETS = ("moodtheme", "genre", "instrument", "top50tags", "all")
FOLDS = 5
_HEADER = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]
_CATEGORY_SEPARATOR = "---"
_SUFFIXES = (".mp3", ".low.mp3")
_TAGS = {"moodtheme": 56, "genre": 87, "instrument": 40, "top50tags": 50, "all": 183}
_TAG_LISTS = {"top50tags": "top50.txt"}  # others: moodtheme_split.txt and so on
_CLIPS: Mapping[tuple[str, int], Mapping[str, int]] = {
    ("moodtheme", 0): {"train": 9949, "validation": 3802, "test": 4231},
    **{("top50tags", fold): {"train+validation+test": 54380} for fold in range(FOLDS)},
    **{("all", fold): {"train+validation+test": 55525} for fold in range(FOLDS)},
}


@dataclass(frozen=True)
class _Track:
    """One row of a TSV file."""

    key: str
    artist: str
    path: PurePosixPath
    seconds: float
    tags: frozenset[str]


def load(
    data_dir: Path,
    *,
    subset: str | None = None,
    fold: int | None = None,
    audio_dir: Path | None = None,
) -> AudioDataset:
    """Read the official splits; audio files are not opened.

    Args:
        data_dir: The repository, its folder data, or the flat folder of MediaEval.
        subset: "moodtheme" (default), "genre", "instrument", "top50tags", or "all" for the
            whole autotagging set.
        fold: Official split, 0 (default) to 4.
        audio_dir: Folder that has the folders 00 to 99. None uses `audio` or `audios` (as
            mirdata calls it) in data_dir, or data_dir itself.

    Returns:
        A data set with the splits train, validation and test. Tags are in the official
        order. Their category is left out if all have the same one.

    Raises:
        ConfigError: There is no such subset or fold.
        DatasetError: A file is missing or malformed, or files contradict each other.
    """
    subset, fold = check_subset(subset, SUBSETS), 0 if fold is None else fold
    if not 0 <= fold < FOLDS:
        raise ConfigError(f"mtg_jamendo has folds 0 to {FOLDS - 1}. Received: fold={fold}.")
    files = _split_files(data_dir, subset, fold)
    tracks = {name: _tracks(path) for name, path in files.items()}
    _check_once(tracks)
    tags, remarks = _tag_order(data_dir, subset, tracks)
    audio = FolderListing(audio_dir or _audio_dir(data_dir, tracks["train"][0]))
    return AudioDataset(
        name="mtg_jamendo",
        label_names=official_names(_without_category(tags), str(files["train"])),
        splits={name: _as_split(rows, tags, audio) for name, rows in tracks.items()},
        info={"subset": subset, "fold": fold, "audio_dir": str(audio.root)},
        published=Published(
            HOMEPAGE, _CLIPS.get((subset, fold), {}), _TAGS[subset], group="artist"
        ),
        remarks=remarks,
    )


def _split_files(data_dir: Path, subset: str, fold: int) -> dict[str, Path]:
    """Return the TSV file of each split in the layout that is found."""
    stem = "autotagging" if subset == "all" else f"autotagging_{subset}"
    patterns = [
        f"data/splits/split-{fold}/{stem}-{{}}.tsv",
        f"splits/split-{fold}/{stem}-{{}}.tsv",
        f"mtg-jamendo-dataset/data/splits/split-{fold}/{stem}-{{}}.tsv",
        f"split-{fold}-{subset}-{{}}.tsv",
    ]
    for pattern in patterns:
        if (data_dir / pattern.format("train")).is_file():
            return {name: data_dir / pattern.format(name) for name in SPLITS}
    raise DatasetError(
        f"{data_dir} does not have split {fold} of MTG-Jamendo {subset}: neither "
        f"{patterns[0].format('train')} nor {patterns[-1].format('train')} exists. Clone "
        f"{HOMEPAGE}."
    )


def _tracks(path: Path) -> list[_Track]:
    rows = read_rows(path, HOMEPAGE)
    _, header = next(rows, ("", []))
    if header != _HEADER:
        raise DatasetError(
            f"{path}: the first line must be {' '.join(_HEADER)}, tab-separated. Received: "
            f"{' '.join(header)!r}."
        )
    tracks = [_track(where, fields) for where, fields in rows]
    if not tracks:
        raise DatasetError(f"{path} has a header but no tracks. Download it again: {HOMEPAGE}.")
    return tracks


def _track(where: str, fields: list[str]) -> _Track:
    tags = frozenset(fields[5:]) - {""}
    if len(fields) < len(_HEADER) or not tags or not all(fields[:5]):
        raise DatasetError(
            f"{where}: a track needs an id, artist, album, path, duration and at least one tag."
        )
    key, artist, _, path, duration = fields[:5]
    try:
        seconds = float(duration)
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise DatasetError(f"{where}: the duration must be in seconds. Received: {duration!r}.")
    return _Track(key, artist, safe_path(path, where), seconds, tags)


def _check_once(tracks: dict[str, list[_Track]]) -> None:
    split_of: dict[str, str] = {}
    for name, rows in tracks.items():
        for track in rows:
            if track.key in split_of:
                raise DatasetError(
                    f"MTG-Jamendo: {track.key} is in both {split_of[track.key]} and {name}. "
                    "The three files must have the same subset and fold."
                )
            split_of[track.key] = name


def _tag_order(
    data_dir: Path, subset: str, tracks: dict[str, list[_Track]]
) -> tuple[list[str], tuple[str, ...]]:
    """Return the tags in the official order, with their categories, and remarks on them."""
    used = frozenset[str]().union(*(track.tags for rows in tracks.values() for track in rows))
    list_name = _TAG_LISTS.get(subset, f"{subset}_split.txt")
    folders = ("data/tags", "tags", "mtg-jamendo-dataset/data/tags", ".")
    folder = first_folder((data_dir / name for name in folders), list_name)
    if folder is None:  # the official lists are alphabetical
        return sorted(used), ()
    listed = read_text(folder / list_name, HOMEPAGE).split()
    unlisted = sorted(used - set(listed))
    if unlisted:
        raise DatasetError(
            f"{folder / list_name} does not have {first_few(unlisted)}, which the splits use. "
            f"Use both from the same copy of {HOMEPAGE}."
        )
    unused = sorted(set(listed) - used)
    if not unused:
        return listed, ()
    return listed, (f"{count(len(unused), 'tag')} without tracks: {first_few(unused)}",)


def _without_category(tags: list[str]) -> tuple[str, ...]:
    """Remove "mood/theme---" from the tags, unless there are several categories."""
    if len({tag.partition(_CATEGORY_SEPARATOR)[0] for tag in tags}) > 1:
        return tuple(tags)
    return tuple(tag.rpartition(_CATEGORY_SEPARATOR)[2] for tag in tags)


def _audio_dir(data_dir: Path, track: _Track) -> Path:
    names = ("audio", "audios", "data/audio", ".")
    candidates = [data_dir / name for name in names]
    return first_folder(candidates, track.path.parts[0]) or candidates[0]


def _as_split(tracks: list[_Track], tags: list[str], audio: FolderListing) -> Split:
    column = {tag: number for number, tag in enumerate(tags)}
    labels = np.zeros((len(tracks), len(tags)), np.float32)
    for row, track in enumerate(tracks):
        labels[row, [column[tag] for tag in track.tags]] = 1
    return Split(
        keys=tuple(track.key for track in tracks),
        paths=tuple(audio.find(track.path.with_suffix(""), _SUFFIXES) for track in tracks),
        labels=labels,
        mask=np.ones_like(labels),
        seconds=np.array([track.seconds for track in tracks]),
        groups=tuple(track.artist for track in tracks),
    )
