"""GTZAN: 1,000 clips of 30 s, 100 per genre, in the fault-filtered split.

Layout: `genres/blues/blues.00000.wav` (or `.au`). The genre folders can also be in
`genres_original/`, in `gtzan_genre/genres/` (as mirdata unpacks them) or directly in data_dir.

The data set has repeated recordings and wrong labels, so a random split mostly measures how
well a model recognises recordings. Only the 930 files of the fault-filtered split (Kereliuk,
Sturm, Larsen 2015) are used: 443 train, 197 validation, 290 test. To use your own lists, put
train_filtered.txt, valid_filtered.txt and test_filtered.txt into data_dir, with one file
such as `blues/blues.00029.wav` per line.

In the most common WAV copy, jazz.00054 cannot be read (in the original .au files it can). It
is a training clip; checking the files reports it and leaves it out.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import numpy as np

from rfkeras.datasets.base import AudioDataset, Published, Split
from rfkeras.datasets.tables import FolderListing, first_folder, read_text
from rfkeras.errors import DatasetError
from rfkeras.utils.text import first_few

HOMEPAGE = "http://marsyas.info/downloads/datasets.html or https://huggingface.co/datasets/marsyas/gtzan"
# Numbers of the files in the published lists, by split and genre.
RANGES = {
    "train": {
        "blues": "29-49 73-97",
        "classical": "30-33 43-48 50-67 80-99",
        "country": "19-26 28-29 65-99",
        "disco": "5 15-20 22-37 39-45 47 49 53-54 56-57 59 61 70 73-74 89",
        "hiphop": "2-25 28-29 31-38 41-42 55-61 77-80",
        "jazz": "0-1 11-24 41 47-72",
        "metal": "2-3 5 21 24 35 46-57 59-66 69 71-72 79-80 84 86 89-99",
        "pop": "2-9 11-12 16-20 23-29 31-36 38-42 44 46 49-50 80 97-99",
        "reggae": "0-2 4 6 9 11-12 14-32 42-45 49-51 54-60 63 69",
        "rock": "0-9 16-26 57-70 91-99",
    },
    "validation": {
        "blues": "0-11 50-60",
        "classical": "0-10 68-76",
        "country": "0-7 9-18 27 41-42 45 49",
        "disco": "0 2-4 6-14 46 48 52 67-68 72 75 90 95",
        "hiphop": "81-98",
        "jazz": "2-10 25-32",
        "metal": "0-1 6-11 16-20 36-37 68 76-77 81-82",
        "pop": "10 53 55 58-62 81 83-86",
        "reggae": "61-62 70 72 74 76-78 85 92-99",
        "rock": "38 49-56 71-85",
    },
    "test": {
        "blues": "12-28 61-72 98-99",
        "classical": "11-29 34-41 49 77-79",
        "country": "30-40 43-44 46-48 50-51 53-64",
        "disco": "1 21 58 62-66 69 76-88 91-94 96-97 99",
        "hiphop": "0 26-27 30 40 43-45 51-54 62-75 99",
        "jazz": "73-99",
        "metal": "12-15 22-23 25-33 38-39 67 70 73-75 78 83 85 87-88",
        "pop": "0-1 13-14 43 63-66 69-79 82 88-96",
        "reggae": "34-40 46-48 52-53 64-68 71 79 82-84 87-90",
        "rock": "10-15 27-37 39-48 86-90",
    },
}
LISTS = "https://github.com/coreyker/dnn-mgr"
CLIP_SECONDS = 30.0
GENRES = tuple(RANGES["train"])
_LIST_FILES = {
    "train": "train_filtered.txt",
    "validation": "valid_filtered.txt",
    "test": "test_filtered.txt",
}
_CLIPS = {"train": 443, "validation": 197, "test": 290}
_FILES_PER_GENRE = 100
_SUFFIXES = (".wav", ".au", ".flac", ".mp3")
_LINE = re.compile(r"(?:([a-z]+)/)?(([a-z]+)\.\d{5})\.[a-z0-9]+")


def load(data_dir: Path, *, audio_dir: Path | None = None) -> AudioDataset:
    """Find the files of the fault-filtered split; audio files are not opened.

    Args:
        data_dir: The folder genres or genres_original, or its parent.
        audio_dir: Folder of the ten genre folders, if it is elsewhere.

    Returns:
        A single-label data set with the splits train, validation and test.

    Raises:
        DatasetError: There is no genre folder, or a list is malformed.
    """
    places = (data_dir, data_dir / "genres", data_dir / "genres_original")
    nested = (data_dir / "Data" / "genres_original", data_dir / "gtzan_genre" / "genres")
    folder = audio_dir or first_folder(places + nested, GENRES[0])
    if folder is None or not any((folder / genre).is_dir() for genre in GENRES):
        raise DatasetError(
            f"{audio_dir or data_dir} has no folders {first_few(GENRES)}, neither directly nor "
            f"in genres or genres_original. Download GTZAN: {HOMEPAGE}"
        )
    own_lists = any((data_dir / name).is_file() for name in _LIST_FILES.values())
    keys = _own_lists(data_dir) if own_lists else {s: filtered_keys(s) for s in _LIST_FILES}
    audio = FolderListing(folder)
    return AudioDataset(
        name="gtzan",
        label_names=GENRES,
        splits={name: _as_split(files, audio) for name, files in keys.items()},
        clip_seconds=CLIP_SECONDS,
        task="single_label",
        info={
            "splits": f"lists in {data_dir}" if own_lists else "fault-filtered (Kereliuk 2015)",
            "audio_dir": str(folder),
        },
        published=Published(HOMEPAGE, {} if own_lists else _CLIPS, len(GENRES)),
        remarks=_remarks(audio),
    )


def numbers(ranges: str) -> list[int]:
    """Expand "5 15-17" to 5, 15, 16, 17."""
    result: list[int] = []
    for item in ranges.split():
        first, _, last = item.partition("-")
        result += range(int(first), int(last or first) + 1)
    return result


def filtered_keys(split: str) -> list[str]:
    """Return the files of a published split by genre and number: "blues.00029"."""
    return [
        f"{genre}.{number:05d}"
        for genre, ranges in RANGES[split].items()
        for number in numbers(ranges)
    ]


def _own_lists(data_dir: Path) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    split_of: dict[str, str] = {}
    for split, file in _LIST_FILES.items():
        path = data_dir / file
        lists[split] = []
        for number, line in enumerate(read_text(path, LISTS).splitlines(), 1):
            if not line.strip():
                continue
            match = _LINE.fullmatch(line.strip())
            genre = match[3] if match else ""
            if match is None or genre not in GENRES or match[1] not in (None, genre):
                raise DatasetError(
                    f"{path}, line {number}: expected genre/genre.00000.wav with one of the "
                    f"genres {', '.join(GENRES)}. Received: {line.strip()!r}."
                )
            key = match[2]
            if key in split_of:
                raise DatasetError(
                    f"{path}, line {number}: {key} is already in {split_of[key]}."
                )
            split_of[key] = split
            lists[split].append(key)
        if not lists[split]:
            raise DatasetError(f"{path} has no files. Published lists: {LISTS}")
    return lists


def _as_split(keys: list[str], audio: FolderListing) -> Split:
    genres = [key.partition(".")[0] for key in keys]
    labels = np.zeros((len(keys), len(GENRES)), np.float32)
    labels[np.arange(len(keys)), [GENRES.index(genre) for genre in genres]] = 1
    paths = [PurePosixPath(genre, key) for genre, key in zip(genres, keys, strict=True)]
    return Split(
        keys=tuple(keys),
        paths=tuple(audio.find(path, _SUFFIXES) for path in paths),
        labels=labels,
        mask=np.ones_like(labels),
    )


def _remarks(audio: FolderListing) -> tuple[str, ...]:
    """Return a remark if a genre has fewer than 100 files."""
    found = {
        genre: sum(
            name.startswith(f"{genre}.") and name.endswith(_SUFFIXES)
            for name in audio.names(PurePosixPath(genre))
        )
        for genre in GENRES
    }
    short = [f"{genre} ({count})" for genre, count in found.items() if count < _FILES_PER_GENRE]
    if not short:
        return ()
    return (f"genres with fewer than {_FILES_PER_GENRE} files: {first_few(short)}",)
