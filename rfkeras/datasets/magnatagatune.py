"""MagnaTagATune: 25,863 clips of 29 s with 188 tags, of which 50 are commonly used.

Layout: `annotations_final.csv` (tab-separated: clip_id, 188 tags as 0 or 1, mp3_path) and
the folders 0 to 9 and a to f of MP3 files, in data_dir, its `mp3` or its `audio`.

The usual split is by folder: 0 to b train, c validation, d to f test. Three files of the
published archive are empty and always left out. Clips without any of the 50 tags are kept;
published results differ in whether they leave them out.

Sources: split and order of the 50 tags follow
https://github.com/jongpillee/music_dataset_split (MTAT_split) and
https://github.com/minzwon/sota-music-tagging-models (split/mtat/top50_tags.txt). The empty
files are listed in many public loaders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from rfkeras.datasets.base import AudioDataset, Published, Split
from rfkeras.datasets.tables import (
    check_subset,
    first_folder,
    official_names,
    read_rows,
    safe_path,
)
from rfkeras.errors import DatasetError
from rfkeras.utils.text import first_few

HOMEPAGE = "https://mirg.city.ac.uk/datasets/magnatagatune/ (annotations_final.csv, mp3.zip.*)"
SUBSETS = ("top50", "all")
ANNOTATIONS = "annotations_final.csv"
ALL_TAGS = 188
FOLDERS = {"train": "0123456789ab", "validation": "c", "test": "def"}
EMPTY_FILES = (
    "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
    "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
    "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_xiveme_"
    "ordre_couperin-88-117.mp3",
)
# Sorted by frequency, as in the outputs of published systems.
# fmt: off
TOP_50 = [
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast",
    "piano", "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera",
    "male", "singing", "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute",
    "woman", "male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man", "classic",
    "choir", "voice", "new age", "dance", "male voice", "female vocal", "beats", "harp",
    "cello", "no voice", "weird", "country", "female voice", "metal", "choral",
]
# fmt: on
_CLIPS = {"train+validation+test": 25863 - len(EMPTY_FILES)}
_EXCERPT = re.compile(r"-\d+-\d+\.mp3$")  # place of the clip in its song, in seconds


@dataclass(frozen=True)
class _Clip:
    """One row: clip_id, path, tag values."""

    key: str
    path: PurePosixPath
    tags: list[bool]


def load(
    data_dir: Path, *, subset: str | None = None, audio_dir: Path | None = None
) -> AudioDataset:
    """Read the annotations; audio files are not opened.

    Args:
        data_dir: Folder of annotations_final.csv.
        subset: "top50" (the default) or "all" 188 tags.
        audio_dir: Folder that has the folders 0 to f, if it is not data_dir, its `mp3` or
            its `audio`.

    Returns:
        A data set with the splits train, validation and test. All labels count as known.

    Raises:
        ConfigError: There is no such subset.
        DatasetError: The annotations are missing or malformed.
    """
    subset = check_subset(subset, SUBSETS)
    path = data_dir / ANNOTATIONS
    rows = read_rows(path, HOMEPAGE)
    _, header = next(rows, ("", []))
    known = _tag_names(path, header)
    tags = TOP_50 if subset == "top50" else known
    clips = list(_clips(rows, len(header)))
    if not clips:
        raise DatasetError(f"{path} has a header but no clips. Download it again: {HOMEPAGE}")
    folder = audio_dir or _audio_dir(data_dir, clips[0])
    columns = [known.index(tag) for tag in tags]
    splits = {name: _as_split(name, clips, columns, folder) for name in FOLDERS}
    empty = [name for name in FOLDERS if len(splits[name]) == 0]
    if empty:
        raise DatasetError(
            f"{path} has no clips for {first_few(empty)} (folders {FOLDERS[empty[0]]}). "
            f"Download it again: {HOMEPAGE}"
        )
    return AudioDataset(
        name="magnatagatune",
        label_names=official_names(tags, str(path)),
        splits=splits,
        info={"subset": subset, "left_out": list(EMPTY_FILES), "audio_dir": str(folder)},
        published=Published(HOMEPAGE, _CLIPS, len(tags), group="song"),
    )


def _tag_names(path: Path, header: list[str]) -> list[str]:
    if len(header) != ALL_TAGS + 2 or (header[0], header[-1]) != ("clip_id", "mp3_path"):
        raise DatasetError(
            f"{path}: the first line must name clip_id, {ALL_TAGS} tags and mp3_path, "
            f"tab-separated. Received: {len(header)} columns, {first_few(header)}."
        )
    missing = [tag for tag in TOP_50 if tag not in header]
    if missing:
        raise DatasetError(f"{path} has no column for the tags {first_few(missing)}.")
    return header[1:-1]


def _clips(rows: Iterator[tuple[str, list[str]]], columns: int) -> Iterator[_Clip]:
    seen: set[str] = set()
    for where, fields in rows:
        if len(fields) != columns or not set(fields[1:-1]) <= {"0", "1"}:
            raise DatasetError(f"{where}: expected {columns - 2} values, each 0 or 1.")
        path = safe_path(fields[-1], where)
        if len(path.parts) < 2 or path.parts[0] not in set("".join(FOLDERS.values())):
            raise DatasetError(
                f"{where}: {fields[-1]!r} is in none of the folders 0 to f, which determine "
                "the split."
            )
        if fields[0] in seen:
            raise DatasetError(f"{where}: clip {fields[0]} is repeated.")
        seen.add(fields[0])
        if str(path) not in EMPTY_FILES:
            yield _Clip(fields[0], path, [value == "1" for value in fields[1:-1]])


def _audio_dir(data_dir: Path, clip: _Clip) -> Path:
    candidates = (data_dir, data_dir / "mp3", data_dir / "audio")
    return first_folder(candidates, clip.path.parts[0]) or data_dir


def _as_split(name: str, clips: list[_Clip], columns: list[int], folder: Path) -> Split:
    mine = [clip for clip in clips if clip.path.parts[0] in FOLDERS[name]]
    labels = np.array([clip.tags for clip in mine], np.float32).reshape(len(mine), ALL_TAGS)
    return Split(
        keys=tuple(clip.key for clip in mine),
        paths=tuple(folder / clip.path for clip in mine),
        labels=labels[:, columns],
        mask=np.ones((len(mine), len(columns)), np.float32),
        groups=tuple(_EXCERPT.sub("", clip.path.name) for clip in mine),
    )
