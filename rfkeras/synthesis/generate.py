"""Generate the built-in data set in a folder, or complete a partial one.

The folder has the layout of OpenMIC-2018. Clips are made by worker processes, and a journal
lists the finished ones, so that `generate` can be killed at any time and continued later.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path

from rfkeras.errors import ConfigError
from rfkeras.synthesis.clip_files import (
    LABEL_FILES,
    ClipJournal,
    announce_wait,
    checksum,
    clip_key,
    complete_audio,
    intact,
    label_files,
)
from rfkeras.synthesis.compose import LABEL_RATE, VERSION, compose
from rfkeras.synthesis.render import SoundFont, default_sound_font, load_sound_font
from rfkeras.synthesis.song import CLIP_SECONDS
from rfkeras.utils.files import (
    CACHE_VARIABLE,
    exclusive,
    remove_leftovers,
    write_bytes,
    write_text,
)
from rfkeras.utils.processes import usable_cores

MANIFEST = "manifest.json"
_SOUND_FONT_TAG_LENGTH = 12

DEFAULT_SIZE = 1000
TEST_SHARE = 3 / 16
FIRST_TEST_INDEX = 900_000
"""Training clips are numbered from 0, test clips from here. Random streams depend on the
number, so no stream is used in both splits."""

MAX_SIZE = 500_000


def generate(
    root: Path,
    *,
    size: int = DEFAULT_SIZE,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    sound_font: Path | Sequence[Path] | None = None,
) -> Path:
    """Make the data set in a folder, or finish what an earlier call began.

    Every clip is checked against its checksum; missing and changed clips are made again.
    The call may be killed at any time: the next one continues where it stopped. A second
    call on the same folder waits for the first to end.

    Args:
        root: Folder for all variants of the data set; see `default_cache_dir`.
        size: Number of clips, 2 to 500000. About 19 % of them are the test split. With fewer
            than about 200 clips, some classes do not occur in both splits.
        seed: Seed of the composition, 0 or more.
        workers: Number of processes; None for one per core.
        progress: Show progress on standard error.
        sound_font: A SoundFont 2 file to use instead of TimGM6mb, or several files, which
            the clips use in turn. Compositions and labels stay the same.

    Returns:
        The folder openmic-2018, in the layout of that data set.

    Raises:
        ConfigError: An argument has a value that is not allowed, or the folder cannot be
            written.
        DatasetError: The sound font lacks sounds, or a clip could not be made.
    """
    train, test = clip_indices(size)
    workers = usable_cores() if workers is None else workers
    if seed < 0 or workers < 1:
        raise ConfigError(
            "gm_instruments needs a seed of 0 or more and at least 1 worker. "
            f"Received: seed={seed}, workers={workers}."
        )
    paths = [sound_font] if isinstance(sound_font, Path) else list(sound_font or ())
    fonts = [load_sound_font(path.resolve()) for path in paths or [default_sound_font()]]
    tag = "-".join(font.sha256[:_SOUND_FONT_TAG_LENGTH] for font in fonts) if paths else None
    variant = root.expanduser().resolve() / folder_name(seed, size, tag)
    folder = variant / "openmic-2018"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: the folder cannot be created: {error}. Choose another folder, or set "
            f"{CACHE_VARIABLE}."
        ) from error

    with exclusive(variant / ".lock", announce_wait(variant, progress=progress)):
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
    """Complete a data set whose lock is held."""
    folder, manifest = variant / "openmic-2018", variant / MANIFEST
    remove_leftovers(variant)
    maker = {
        "kind": "gm_instruments",
        "seed": seed,
        "fonts": [str(font.path) for font in fonts],
    }
    sums = complete_audio(
        folder,
        ClipJournal(variant / "clips.sha256"),
        maker,
        indices,
        workers=workers,
        what="gm_instruments",
        progress=progress,
        # The manifest marks a complete data set.
        changing=functools.partial(manifest.unlink, missing_ok=True),
    )
    if manifest.is_file() and _labels_are_intact(manifest, folder, size):
        return
    train, test = ([clip_key(seed, index) for index in split] for split in clip_indices(size))
    clips_of_all = (compose(seed, index) for index in indices)
    answers = [(clip.labels, clip.mask) for clip in clips_of_all]
    for path, content in label_files(train, test, answers).items():
        write_bytes(folder / path, content)
    for path in LABEL_FILES:
        sums[path] = checksum(folder / path) or ""
    _write_manifest(manifest, seed, size, fonts, sums)


def _labels_are_intact(manifest: Path, folder: Path, size: int) -> bool:
    """Return whether the manifest is readable and the label files match it."""
    try:
        sums = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        labels = {path: str(sums[path]) for path in LABEL_FILES}
    except (ValueError, KeyError, TypeError):
        return False
    whole = len(sums) == size + len(labels)
    return whole and intact(folder, labels) == set(labels)


def _write_manifest(
    path: Path, seed: int, size: int, fonts: Sequence[SoundFont], sums: dict[str, str]
) -> None:
    """Write what the data set is and what made it; it marks the data set as complete."""
    made_with = ("midirenderer", "pretty_midi", "soundfile", "soxr", "numpy")
    content = {
        "name": "gm_instruments",
        "version": VERSION,
        "seed": seed,
        "size": size,
        "label_rate": LABEL_RATE,
        "clip_seconds": CLIP_SECONDS,
        "sound_fonts": [{"file": font.path.name, "sha256": font.sha256} for font in fonts],
        "made_with": {name: importlib.metadata.version(name) for name in made_with},
        "files": dict(sorted(sums.items())),
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def folder_name(seed: int, size: int, sound_font_tag: str | None) -> str:
    """Return the folder name of one variant of the data set.

    Args:
        seed: Seed of the composition.
        size: Number of clips.
        sound_font_tag: First characters of the sound font's SHA-256; None for the default.
    """
    name = f"gm_instruments-v{VERSION}-seed{seed}-size{size}"
    return name if sound_font_tag is None else f"{name}-font-{sound_font_tag}"


def clip_indices(size: int) -> tuple[range, range]:
    """Return the numbers of the training clips and of the test clips.

    A larger set contains the clips of a smaller one with the same seed.

    Raises:
        ConfigError: size is not in 2..500000.
    """
    if not 2 <= size <= MAX_SIZE:
        raise ConfigError(
            f"The size of gm_instruments must be 2 to {MAX_SIZE} clips. Received: {size}."
        )
    test = max(1, round(size * TEST_SHARE))
    return range(size - test), range(FIRST_TEST_INDEX, FIRST_TEST_INDEX + test)
