"""Tiny copies of public data sets in their published layouts."""

import json
from pathlib import Path

import numpy as np
import soundfile

from rfkeras.datasets import dcase, gtzan, magnatagatune

RATE_HZ = 8000
HEADER = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"


def write_tone(path, seconds=0.3, hz=440.0, rate_hz=RATE_HZ):
    """Write a tone in the format of the file's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    signal = (0.3 * np.sin(2 * np.pi * hz * time)).astype("float32")
    formats = {".mp3": "MP3", ".wav": "WAV", ".au": "AU", ".ogg": "OGG"}
    soundfile.write(path, signal, rate_hz, format=formats[path.suffix])


# OpenMIC: each clip has two instruments, does not have a third, and the others are unknown

INSTRUMENTS = (
    "accordion banjo bass cello clarinet cymbals drums flute guitar mallet_percussion "
    "mandolin organ piano saxophone synthesizer trombone trumpet ukulele violin voice"
).split()


def write_openmic(root, train=10, test=4):
    """Write a folder openmic-2018 with audio and labels as CSV into `root`; return it."""
    folder = root / "openmic-2018"
    (folder / "partitions").mkdir(parents=True)
    columns = {name: number for number, name in enumerate(INSTRUMENTS)}
    (folder / "class-map.json").write_text(json.dumps(columns))
    keys = [f"{number:06d}_{number * 30}" for number in range(train + test)]
    rows = ["sample_key,instrument,relevance,num_responses"]
    for number, key in enumerate(keys):
        for offset, relevance in ((0, 1.0), (7, 0.7), (11, 0.1)):
            rows.append(f"{key},{INSTRUMENTS[(number + offset) % 20]},{relevance},3")
        write_tone(folder / "audio" / key[:3] / f"{key}.ogg", 10.0, 150 + 40 * number)
    (folder / "openmic-2018-aggregated-labels.csv").write_text("\n".join(rows) + "\n")
    for name, part in (("train", keys[:train]), ("test", keys[train:])):
        (folder / "partitions" / f"split01_{name}.csv").write_text("\n".join(part) + "\n")
    return folder


# MTG-Jamendo: track number -> artist, seconds, tags

TRACKS = {
    "train": {
        100: (1, 0.5, "mood/theme---happy mood/theme---dark"),
        201: (1, 0.4, "mood/theme---sad"),
        302: (2, 0.3, "mood/theme---happy"),
    },
    "validation": {403: (3, 0.4, "mood/theme---dark")},
    "test": {
        504: (4, 0.6, "mood/theme---sad mood/theme---dark"),
        105: (5, 0.3, "mood/theme---happy"),
    },
}


def jamendo_row(number, artist, seconds, tags):
    folder = f"{number % 100:02d}"
    fields = [f"track_{number:07d}", f"artist_{artist:06d}", "album_000001"]
    return "\t".join([*fields, f"{folder}/{number}.mp3", str(seconds), *tags.split()])


def write_tsv(path, tracks):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [jamendo_row(number, *values) for number, values in tracks.items()]
    path.write_bytes("\r\n".join([HEADER, *rows, ""]).encode())


def write_jamendo(root, stem="data/splits/split-0/autotagging_moodtheme", tracks=TRACKS):
    """Write the three lists of one split of MTG-Jamendo, without audio; return `root`."""
    for split, rows in tracks.items():
        write_tsv(root / f"{stem}-{split}.tsv", rows)
    return root


def write_jamendo_audio(folder, tracks=TRACKS, suffix=".mp3"):
    for rows in tracks.values():
        for number, (_, seconds, _) in rows.items():
            write_tone(folder / f"{number % 100:02d}" / f"{number}{suffix}", seconds, number)


# DCASE: each scene has `locations` with `takes` clips each; the last location is test


def write_dcase(root, subset="2020-1b", locations=4, takes=3, audio=False):
    """Write a development set into its own folder in `root`; return that folder."""
    edition = dcase.EDITIONS[subset]
    folder = root / edition.folder
    meta = ["filename\tscene_label\tidentifier\tsource_label"]
    lists = {"train": [], "evaluate": []}
    for place in range(locations):
        for number, scene in enumerate(edition.scenes):
            location = f"vienna-{place * len(edition.scenes) + number}"
            for take in range(takes):
                name = f"audio/{scene}-{location}-{take}-a.wav"
                meta.append(f"{name}\t{scene}\t{location}\ta")
                lists["evaluate" if place == locations - 1 else "train"].append(
                    f"{name}\t{scene}"
                )
                if audio:
                    write_tone(folder / name, 10.0, 200 + 50 * number, 1000)
    (folder / "evaluation_setup").mkdir(parents=True)
    (folder / "meta.csv").write_text("\n".join(meta) + "\n")
    for name, rows in lists.items():
        text = "\n".join(rows) + "\n"
        if subset.startswith("2018"):
            (folder / "evaluation_setup" / f"fold1_{name}.txt").write_text(text)
        else:
            header = "filename\tscene_label\n"
            (folder / "evaluation_setup" / f"fold1_{name}.csv").write_text(header + text)
    return folder


# MagnaTagATune

OTHER_TAGS = [f"other {number}" for number in range(magnatagatune.ALL_TAGS - 50)]
CLIPS = {
    "0/band-album-01-song-0-29.mp3": ("guitar", "rock"),
    "0/band-album-01-song-29-58.mp3": ("rock",),
    "b/singer-album-02-air-0-29.mp3": ("no vocal", "other 7"),
    "c/trio-album-01-blue-0-29.mp3": ("piano",),
    "d/choir-album-01-mass-0-29.mp3": ("choral", "guitar"),
    "f/noise-album-01-hum-0-29.mp3": (),
    magnatagatune.EMPTY_FILES[0]: ("guitar",),
}


def write_magnatagatune(root, clips=CLIPS):
    """Write annotations_final.csv, quoted like the published one, with tags in mixed order."""
    tags = [*OTHER_TAGS[:70], *sorted(magnatagatune.TOP_50), *OTHER_TAGS[70:]]
    rows = [["clip_id", *tags, "mp3_path"]]
    for number, (path, its_tags) in enumerate(clips.items(), 2):
        rows.append([str(number), *("1" if tag in its_tags else "0" for tag in tags), path])
    text = "\n".join("\t".join(f'"{value}"' for value in row) for row in rows) + "\n"
    root.mkdir(parents=True, exist_ok=True)
    (root / "annotations_final.csv").write_text(text)
    return root


# GTZAN


def write_gtzan(root, suffix=".wav"):
    """Write empty files with the names of all 1,000 clips."""
    for genre in gtzan.GENRES:
        (root / genre).mkdir(parents=True)
        for number in range(100):
            (root / genre / f"{genre}.{number:05d}{suffix}").touch()
    return root


def write_gtzan_lists(root, per_split=2):
    """Write custom lists with the first clips of the published ones."""
    files = {"train": "train", "validation": "valid", "test": "test"}
    for split, file in files.items():
        lines = [
            f"{k.partition('.')[0]}/{k}.wav" for k in gtzan.filtered_keys(split)[:per_split]
        ]
        Path(root, f"{file}_filtered.txt").write_text("\n".join(lines) + "\n")
