"""Sets of labelled clips to evaluate weights on: composed clips, MIDI bands, and GCompris.

Each is an `EvaluationSet`: audio files with labels and mask. What has to be rendered or
extracted is written into a cache folder once.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rfkeras.datasets.base import Split
from rfkeras.datasets.openmic import load
from rfkeras.errors import ConfigError, DatasetError, unknown_name
from rfkeras.synthesis.clip_files import COMPOSED
from rfkeras.synthesis.mapping import CLASSES
from rfkeras.synthesis.render import SAMPLE_RATE_HZ, encode_ogg, load_sound_font
from rfkeras.utils.files import open_npz, read_json, write_bytes, write_npz
from rfkeras.utils.progress import track
from zoo.midi_bands import EXCERPTS_PER_SONG, find_songs, render_excerpts

SPLITS = ("train", "validation", "test", "all")
GCOMPRIS = "gcompris"
MIDI_BANDS = "midi bands"

_MIDI_VERSION = 1  # of the excerpts and their labels; raise it if they change
_LEAST_POSITIVES = 8
_LABELS_FILE = "labels.npz"
_MOST_NAMES = 8  # of recordings in a description


@dataclass(frozen=True)
class EvaluationSet:
    """Labelled clips.

    Attributes:
        name: Name of the set.
        description: What the clips are, as one sentence.
        label_names: Class of each column.
        clips: The clips.
        single: Whether each clip with a label has exactly one class, so that the best score
            can be compared with it (top-1).
        least_positives: Tags with fewer positives are not evaluated, because their average
            precision would be mostly chance.
    """

    name: str
    description: str
    label_names: tuple[str, ...]
    clips: Split
    single: bool = False
    least_positives: int = 1

    def limited(self, clips: int | None) -> EvaluationSet:
        """Return the set with at most so many clips, evenly spaced."""
        if clips is None or clips >= len(self.clips):
            return self
        rows = np.linspace(0, len(self.clips) - 1, clips).round().astype(int)
        return replace(self, clips=self.clips.select(rows))


def folder_set(text: str) -> EvaluationSet:
    """Open a folder in the layout of OpenMIC-2018, such as one that was composed.

    Args:
        text: "NAME=DIR", which uses the test split, or "NAME=DIR:SPLIT" with one of `SPLITS`.

    Raises:
        ConfigError: The text has another form.
        DatasetError: The folder has another layout.
    """
    name, equals, place = text.partition("=")
    if not (name and equals and place):
        raise ConfigError(
            f"--set must be NAME=DIR or NAME=DIR:SPLIT, such as composed=music:all. "
            f"Received: {text!r}."
        )
    folder, colon, split = place.rpartition(":")
    if not colon or Path(place).is_dir():
        folder, split = place, "test"
    if split not in SPLITS:
        raise ConfigError(unknown_name("split", split, SPLITS))
    data = load(Path(folder), name=name, published=None)
    clips = _joined(list(data.splits.values())) if split == "all" else data.splits[split]
    described = "all clips" if split == "all" else f"{split} split"
    described = f"{Path(folder).name}, {described}{_composed(Path(folder))}."
    return EvaluationSet(name, described, data.label_names, clips)


def _composed(folder: Path) -> str:
    """Describe how the music in a folder was composed; "" if it was not."""
    if not (folder / COMPOSED).is_file():
        return ""
    content = read_json(folder / COMPOSED)
    low, high = content["parts"]
    sounds = [font["file"] for font in content["fonts"]]
    if content["recordings"] is not None:
        left_out = content["leave_out"]
        names = ", ".join(left_out)
        if len(left_out) > _MOST_NAMES:
            names = f"{len(left_out)} of its recordings"
        without = f" without {names}" if left_out else ""
        sounds.append(content["recordings"]["file"] + without)
    parts = "1 part" if high == 1 else f"{low} to {high} parts"
    return f": music of {parts}, seed {content['seed']}, played with {' and '.join(sounds)}"


def joined_sets(sets: Sequence[EvaluationSet]) -> EvaluationSet:
    """Return the clips of several sets as one.

    Raises:
        ConfigError: The sets have different classes.
    """
    first = sets[0]
    for other in sets[1:]:
        if other.label_names != first.label_names:
            raise ConfigError(
                f"{first.name} and {other.name} have different classes: "
                f"{', '.join(first.label_names)} and {', '.join(other.label_names)}."
            )
    name = " and ".join(each.name for each in sets)
    described = " ".join(each.description for each in sets)
    clips = _joined([each.clips for each in sets])
    return EvaluationSet(name, described, first.label_names, clips)


def _joined(splits: Sequence[Split]) -> Split:
    return Split(
        keys=tuple(key for split in splits for key in split.keys),
        paths=tuple(path for split in splits for path in split.paths),
        labels=np.concatenate([split.labels for split in splits]),
        mask=np.concatenate([split.mask for split in splits]),
    )


def midi_set(
    paths: Sequence[Path],
    sound_font: Path,
    cache: Path,
    *,
    excerpts: int = EXCERPTS_PER_SONG,
    quiet: bool = False,
) -> EvaluationSet:
    """Render excerpts of MIDI files; see `zoo.midi_bands`.

    Args:
        paths: MIDI files, archives and folders; see `find_songs`.
        sound_font: General MIDI sound font.
        cache: Folder for the rendered clips; those of an earlier call are used.
        excerpts: Excerpts per song.
        quiet: Show no progress.

    Raises:
        ConfigError: There is no MIDI file, or no sound font.
        DatasetError: A file cannot be played.
    """
    font = load_sound_font(sound_font.resolve())
    songs = find_songs(paths)
    digest = hashlib.sha256(f"{_MIDI_VERSION} {excerpts} {font.sha256}".encode())
    for song in songs:
        digest.update(hashlib.sha256(song.content).digest())
    folder = cache / f"midi-{digest.hexdigest()[:12]}"
    if not (folder / _LABELS_FILE).is_file():
        keys, labels, mask = [], [], []
        label = f"Rendering with {sound_font.stem}"
        for song in track(songs, len(songs), label, unit="songs", quiet=quiet):
            for excerpt in render_excerpts(song, font, excerpts):
                keys.append(f"{song.name}-{excerpt.start:.0f}s")
                encoded = encode_ogg(excerpt.samples, SAMPLE_RATE_HZ)
                write_bytes(folder / f"{keys[-1]}.ogg", encoded)
                labels.append(excerpt.labels)
                mask.append(excerpt.mask)
        arrays = {"keys": np.array(keys), "labels": np.array(labels), "mask": np.array(mask)}
        write_npz(folder / _LABELS_FILE, arrays)  # last: it marks the folder as complete
    with open_npz(folder / _LABELS_FILE) as arrays:
        keys = [str(key) for key in arrays["keys"]]
        clips = Split(
            keys=tuple(keys),
            paths=tuple(folder / f"{key}.ogg" for key in keys),
            labels=arrays["labels"].astype(np.float32),
            mask=arrays["mask"].astype(np.float32),
        )
    described = (
        f"Excerpts of {len(songs)} human-composed MIDI files, {sound_font.stem}. Tags with "
        f"fewer than {_LEAST_POSITIVES} positives are left out."
    )
    return EvaluationSet(
        MIDI_BANDS, described, CLASSES, clips, least_positives=_LEAST_POSITIVES
    )


# Sounds of the activity "instruments": their class, and classes that may apply too. A sound
# without a class is a negative for the other classes.
_GCOMPRIS_SOUNDS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "accordion": ("accordion", ()),
    "banjo": ("banjo", ()),
    "bongo": (None, ("drums",)),
    "castanets": (None, ("drums", "cymbals")),
    "cello": ("cello", ()),
    "clarinet": ("clarinet", ()),
    "cymbal": ("cymbals", ("drums",)),
    "drum_kit": ("drums", ("cymbals",)),
    "electric_guitar": ("guitar", ()),
    "flute_traversiere": ("flute", ()),
    "guitar": ("guitar", ()),
    "harmonica": (None, ("accordion",)),
    "harp": (None, ("guitar",)),
    "horn": (None, ("trombone", "trumpet")),
    "maracas": (None, ("drums", "cymbals")),
    "organ": ("organ", ()),
    "piano": ("piano", ()),
    "saxophone": ("saxophone", ()),
    "snare_drum": ("drums", ()),
    "tambourine": (None, ("drums", "cymbals")),
    "timpani": (None, ("drums",)),
    "triangle": (None, ("cymbals", "mallet_percussion")),
    "trombone": ("trombone", ()),
    "trumpet": ("trumpet", ()),
    "tuba": (None, ("trombone",)),
    "violin": ("violin", ()),
}


def gcompris_set(file: Path, cache: Path) -> EvaluationSet:
    """Extract the recordings of instruments of GCompris, for evaluation only.

    Args:
        file: instruments.rcc of GCompris, such as in Debian's package gcompris-qt-data.
        cache: Folder for the extracted files.

    Raises:
        DatasetError: The file is missing, is not a Qt resource file, or has none of the
            expected sounds.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{file} cannot be read: {error.strerror}. It is part of GCompris (Debian: "
            "gcompris-qt-data); give its path with --gcompris."
        ) from error
    try:
        resources = read_resources(content)
    except (struct.error, zlib.error, UnicodeDecodeError, ValueError) as error:
        raise DatasetError(f"{file} is not a Qt resource file: {error}.") from error
    folder = cache / f"gcompris-{hashlib.sha256(content).hexdigest()[:12]}"
    keys, paths, labels, mask = [], [], [], []
    for path, sound in sorted(resources.items()):
        name = Path(path).stem
        if not path.endswith(".ogg") or name not in _GCOMPRIS_SOUNDS:
            continue
        tag, doubtful = _GCOMPRIS_SOUNDS[name]
        keys.append(name)
        paths.append(folder / f"{name}.ogg")
        if not paths[-1].is_file():
            write_bytes(paths[-1], sound)
        labels.append([float(each == tag) for each in CLASSES])
        mask.append([float(each not in doubtful) for each in CLASSES])
    if not keys:
        raise DatasetError(f"{file} has no recordings of instruments.")
    clips = Split(
        keys=tuple(keys),
        paths=tuple(paths),
        labels=np.array(labels, np.float32),
        mask=np.array(mask, np.float32),
    )
    return EvaluationSet(
        GCOMPRIS,
        "Recordings of single instruments in GCompris; sounds without a class are negatives.",
        CLASSES,
        clips,
        single=True,
    )


_DIRECTORY, _ZLIB, _ZSTD = 2, 1, 4


def read_resources(content: bytes) -> dict[str, bytes]:
    """Read a compiled Qt resource file (.rcc): content by path.

    All numbers are big-endian. The header gives the positions of the tree, data and names. A
    node of the tree has a name, flags, and either the number and position of its children or
    the position of its data.

    Raises:
        ValueError: The content has another format, or is compressed with zstd.
        struct.error: It is cut.
    """
    if content[:4] != b"qres":
        raise ValueError("it does not begin with 'qres'")
    version, tree, data, names = struct.unpack_from(">4I", content, 4)
    node_bytes = 22 if version >= 2 else 14  # version 2 added a time
    files: dict[str, bytes] = {}

    def name_at(place: int) -> str:
        length = struct.unpack_from(">H", content, names + place)[0]
        start = names + place + 6  # after the length and a hash
        return content[start : start + 2 * length].decode("utf-16-be")

    def visit(node: int, path: str, depth: int) -> None:
        if depth > 20:
            raise ValueError("its folders are nested too deeply")
        place = tree + node * node_bytes
        name, flags = struct.unpack_from(">IH", content, place)
        here = f"{path}/{name_at(name)}" if node else ""
        if flags & _DIRECTORY:
            children, first = struct.unpack_from(">2I", content, place + 6)
            for child in range(first, first + children):
                visit(child, here, depth + 1)
            return
        start = data + struct.unpack_from(">I", content, place + 10)[0]
        size = struct.unpack_from(">I", content, start)[0]
        packed = content[start + 4 : start + 4 + size]
        if flags & _ZSTD:
            raise ValueError(f"{here} is compressed with zstd, which cannot be read")
        # Qt's zlib data begin with their length.
        files[here] = zlib.decompress(packed[4:]) if flags & _ZLIB else packed

    visit(0, "", 0)
    return files
