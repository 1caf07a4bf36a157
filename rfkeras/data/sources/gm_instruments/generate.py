"""Make the data set, complete it, or find it complete."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from rfkeras.data.sources.gm_instruments import compose, files, layout, soundfont
from rfkeras.data.sources.gm_instruments.pool import default_workers, make_clips
from rfkeras.data.sources.gm_instruments.progress import tracked
from rfkeras.data.sources.gm_instruments.song import CLIP_SECONDS
from rfkeras.data.sources.gm_instruments.soundfont import SoundFont
from rfkeras.errors import ConfigError
from rfkeras.files import remove_leftovers, write_bytes, write_text
from rfkeras.locks import exclusive

CACHE_VARIABLE = "RFKERAS_CACHE_DIR"
MANIFEST = "manifest.json"
_TAG_LENGTH = 12


def default_cache_dir() -> Path:
    """Where generated data goes: $RFKERAS_CACHE_DIR, or the user's cache directory."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("rfkeras"))


def generate(
    root: Path,
    *,
    size: int = layout.DEFAULT_SIZE,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    sound_font: Path | Sequence[Path] | None = None,
) -> Path:
    """Make the data set under a folder, or finish what an earlier call began.

    Every clip is checked against its checksum; missing and changed ones are made (again).
    Killed at any moment, the next call goes on where this one stopped. A second call on
    the same folder waits for the first to end.

    Args:
        root: Folder that holds all variants; see default_cache_dir.
        size: Number of clips, 2 to 500000; about 19 % of them are the test split. Below
            some 200 not every class occurs in both splits.
        seed: Seed of the composition, 0 or more.
        workers: Processes; None for one on each core.
        progress: Show progress on standard error.
        sound_font: Another SoundFont 2 file, or several of which each clip takes one in
            turn; None for TimGM6mb. The compositions and labels stay the same.

    Returns:
        The folder openmic-2018 in the layout of that data set.

    Raises:
        ConfigError: An argument has a value that is not allowed, or the folder cannot be
            written.
        DatasetError: The sound font lacks sounds, or a clip could not be made.
    """
    train, test = layout.clip_indices(size)
    workers = default_workers() if workers is None else workers
    if seed < 0 or workers < 1:
        raise ConfigError(
            "gm_instruments needs a seed of 0 or more and at least 1 worker. "
            f"Received: seed={seed}, workers={workers}."
        )
    paths = [sound_font] if isinstance(sound_font, Path) else list(sound_font or ())
    fonts = [soundfont.load(path.resolve()) for path in paths or [soundfont.default_path()]]
    tag = "-".join(font.sha256[:_TAG_LENGTH] for font in fonts) if paths else None
    variant = root.expanduser().resolve() / layout.folder_name(seed, size, tag)
    folder = variant / "openmic-2018"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: the folder cannot be made: {error}. Choose another place, or set "
            f"{CACHE_VARIABLE}."
        ) from error

    def announce_wait(holder: str) -> None:
        if progress:
            print(
                f"{variant}: process {holder} is working on this data set; waiting for it.",
                file=sys.stderr,
                flush=True,
            )

    with exclusive(variant / ".lock", announce_wait):
        _complete(variant, [*train, *test], seed, size, fonts, workers, progress=progress)
    return folder


def _complete(
    variant: Path,
    indices: list[int],
    seed: int,
    size: int,
    fonts: Sequence[SoundFont],
    workers: int,
    *,
    progress: bool,
) -> None:
    """Bring a data set whose lock is held to completion."""
    folder, manifest = variant / "openmic-2018", variant / MANIFEST
    remove_leftovers(variant)
    paths = {index: layout.audio_path(layout.clip_key(seed, index)) for index in indices}
    journal = files.Journal(variant / "clips.sha256")
    good = files.intact(folder, journal.read())
    missing = [index for index in indices if paths[index] not in good]
    if missing:
        # A manifest stands for a complete data set, so it goes before anything changes.
        manifest.unlink(missing_ok=True)
        clips = make_clips(folder, seed, missing, [font.path for font in fonts], workers)
        shown = tracked(clips, len(missing), "gm_instruments: clips", enabled=progress)
        journal.append((paths[index], value) for index, value in shown)
    if manifest.is_file() and _agrees(manifest, folder, size):
        return
    for path, content in layout.label_files(seed, size).items():
        write_bytes(folder / path, content)
    sums = journal.read()
    listed = {path: sums[path] for path in paths.values()}
    for path in layout.LABEL_FILES:
        listed[path] = files.checksum(folder / path) or ""
    _write_manifest(manifest, seed, size, fonts, listed)


def _agrees(manifest: Path, folder: Path, size: int) -> bool:
    """Whether the manifest is readable and the label files are as it says."""
    try:
        sums = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        labels = {path: str(sums[path]) for path in layout.LABEL_FILES}
    except (ValueError, KeyError, TypeError):
        return False
    whole = len(sums) == size + len(labels)
    return whole and files.intact(folder, labels) == set(labels)


def _write_manifest(
    path: Path, seed: int, size: int, fonts: Sequence[SoundFont], sums: dict[str, str]
) -> None:
    """Say what the data set is and what made it; its presence says that all is there."""
    made_with = ("midirenderer", "pretty_midi", "soundfile", "soxr", "numpy")
    content = {
        "name": "gm_instruments",
        "version": compose.VERSION,
        "seed": seed,
        "size": size,
        "label_rate": compose.LABEL_RATE,
        "clip_seconds": CLIP_SECONDS,
        "sound_fonts": [{"file": font.path.name, "sha256": font.sha256} for font in fonts],
        "made_with": {name: importlib.metadata.version(name) for name in made_with},
        "files": dict(sorted(sums.items())),
    }
    write_text(path, json.dumps(content, indent=1) + "\n")
