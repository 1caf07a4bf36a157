"""Render the clips of the receptive-field experiment, as files for `tools.sweep_on_jax`.

`python -m tools.experiment_clips OUT --sound-font TimGM6mb.sf2 --sound-font GeneralUser.sf2
--unheard-font FluidR3_GM.sf2 --recordings notes.csv --hold-out GROUP ...`

Writes a file of spectrograms and labels for every set of `SETS`, at most 10 MB each. The tags
are the 20 instruments and three properties of the piece that only a longer stretch of music
shows: its mode, its metre and its tempo.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rfkeras.errors import RFKerasError
from rfkeras.synthesis.coding import Coding
from rfkeras.synthesis.ensemble import compose_ensemble
from rfkeras.synthesis.ensemble_clips import Settings, clip_recorder
from rfkeras.synthesis.mapping import CLASSES
from rfkeras.synthesis.recording_chain import Chain, draw_chain
from rfkeras.synthesis.recording_steps import Noise, Room
from rfkeras.synthesis.recordings import load_recordings
from rfkeras.synthesis.render import SAMPLE_RATE_HZ
from rfkeras.utils.processes import usable_cores
from rfkeras.utils.progress import track
from tools.feature_parts import BLOCK_CLIPS, PartWriter, compress, read_scale
from tools.render_features import quantised, write_front

PATTERNS = ("minor", "triple_metre", "fast")
"""Tags of the piece: minor mode, three beats in a bar, more than 120 beats per minute."""
TAGS = (*CLASSES, *PATTERNS)
FAST_BPM = 120
FRONTEND, STEP_DB = "perceptual_mel_22k", 1.5
PART_MB = 10.0

# Classes of the recordings that are held out, and can be played alone.
SOLOS = (
    "bass",
    "cello",
    "cymbals",
    "drums",
    "guitar",
    "mallet_percussion",
    "piano",
    "saxophone",
    "ukulele",
)


@dataclass(frozen=True)
class ClipSet:
    """A set of clips.

    Attributes:
        clips: Their number.
        seed: Seed of the compositions. Sets with one seed have the same compositions.
        sounds: "seen", "unheard font" or "unheard recordings".
        place: "near" or "far", where the clips are recorded; "" for a clean sound.
    """

    clips: int
    seed: int
    sounds: str = "seen"
    place: str = ""


SETS = {
    "train": ClipSet(1000, 2100),
    "new": ClipSet(400, 2200),
    "font": ClipSet(400, 2200, "unheard font"),
    "recordings": ClipSet(400, 2300, "unheard recordings"),
    "near_train": ClipSet(1000, 2100, place="near"),
    "near": ClipSet(400, 2200, place="near"),
    "far": ClipSet(400, 2200, place="far"),
}


def is_near(chain: Chain) -> bool | None:
    """Return whether a chain is of the near or the far kind; None if it is of neither.

    Near: a room of less than 8 m or none, an MP3 file, no brown noise. Far: a room of 8 m or
    more, an AAC or Opus file. Both kinds have the other steps in common.
    """
    rooms = [step.size_m for step in chain.steps if isinstance(step, Room)]
    codecs = [step.codec for step in chain.steps if isinstance(step, Coding)]
    colours = [step.colour for step in chain.steps if isinstance(step, Noise)]
    if codecs == ["mp3"] and max(rooms, default=0.0) < 8 and "brown" not in colours:
        return True
    if codecs in (["aac"], ["opus"]) and min(rooms, default=0.0) >= 8:
        return False
    return None


def draw_place(rng: random.Random, place: str) -> Chain:
    """Draw a chain of recording of one kind."""
    while True:
        chain = draw_chain(rng)
        if is_near(chain) is (place == "near"):
            return chain


def settings_of_set(chosen: ClipSet, sounds: argparse.Namespace) -> Settings:
    """Return the settings of the music of a set.

    Args:
        chosen: The set.
        sounds: The command line.
    """
    fonts = tuple(str(path.resolve()) for path in sounds.sound_font)
    common = {"negative_rate": 0.0, "chain": False, "seed": chosen.seed}
    if chosen.sounds == "unheard font":
        return Settings(fonts=(str(sounds.unheard_font.resolve()),), **common)
    table = str(sounds.recordings.resolve())
    if chosen.sounds == "seen":
        return Settings(
            fonts=fonts, recordings=table, leave_out=tuple(sounds.hold_out), **common
        )
    return Settings(
        fonts=fonts,
        recordings=table,
        leave_out=tuple(sounds.seen),
        recording_share=1.0,
        parts=(1, 1),
        featured=SOLOS,
        **common,
    )


def pattern_tags(song: Any) -> tuple[int, ...]:
    """Return the tags of `PATTERNS` of a song."""
    return (
        int(song.mode == "minor"),
        int(song.beats_per_bar == 3),
        int(song.tempo_bpm > FAST_BPM),
    )


def clip_maker(
    chosen: ClipSet, settings: Settings, front_file: Path
) -> Callable[[int], tuple[Any, Any, Any]]:
    """Return a function from the number of a clip to its steps, labels and mask."""
    with np.load(front_file) as arrays:
        front = {name: arrays[name] for name in arrays.files}
    scale = read_scale(str(front["scale"]))
    record = clip_recorder(settings)

    def make(index: int) -> tuple[Any, Any, Any]:
        samples = record(index)
        if chosen.place:
            rng = random.Random(f"place/{chosen.place}/{chosen.seed}/{index}")
            samples = draw_place(rng, chosen.place).apply(samples, SAMPLE_RATE_HZ)
        piece = compose_ensemble(
            settings.seed, index, parts=settings.parts, featured=settings.featured
        ).composition
        labels = np.array([*piece.labels, *pattern_tags(piece.song)], np.float16)
        mask = np.array([*piece.mask, *(True for _ in PATTERNS)], bool)
        return quantised(samples, front, scale), labels, mask

    return make


_worker: dict[str, Any] = {}


def _start(chosen: ClipSet, settings: Settings, front_file: Path) -> None:
    _worker["make"] = clip_maker(chosen, settings, front_file)


def _block(indices: Sequence[int]) -> tuple[bytes, Any, Any, tuple[int, ...]]:
    steps, labels, mask = zip(*(_worker["make"](index) for index in indices), strict=True)
    stacked = np.stack(steps)
    return compress(stacked), np.stack(labels), np.stack(mask), stacked.shape[1:]


def write_set(
    name: str, chosen: ClipSet, settings: Settings, front_file: Path, out: Path, workers: int
) -> list[Path]:
    """Render a set and write its files; return them.

    Args:
        name: Name of the set, and of its files.
        chosen: The set.
        settings: Settings of its music.
        front_file: File of `render_features front`.
        out: Folder of the files.
        workers: Number of processes.
    """
    indices = [
        range(first, min(first + BLOCK_CLIPS, chosen.clips))
        for first in range(0, chosen.clips, BLOCK_CLIPS)
    ]
    with np.load(front_file) as arrays:
        scale = read_scale(str(arrays["scale"]))
    with ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("spawn"),
        _start,
        (chosen, settings, front_file),
    ) as pool:
        writer = PartWriter(out / f"{name}.npz", scale, PART_MB)
        found = track(pool.map(_block, indices), len(indices), name, unit="blocks")
        for rows, (block, labels, mask, shape) in zip(indices, found, strict=True):
            writer.add(block, shape, labels, mask, [f"{name}/{row}" for row in rows])
    return writer.finish()


def main(argv: Sequence[str] | None = None) -> int:
    """Render all sets, or those that are named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--sound-font", type=Path, action="append", required=True)
    parser.add_argument("--unheard-font", type=Path, required=True)
    parser.add_argument("--recordings", type=Path, required=True)
    parser.add_argument("--hold-out", nargs="+", required=True, metavar="RECORDING")
    parser.add_argument("--set", choices=SETS, action="append", help="only this set")
    parser.add_argument("--workers", type=int, default=usable_cores())
    given = parser.parse_args(argv)
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    given.out.mkdir(parents=True, exist_ok=True)
    front = given.out / "front.npz"
    try:
        names = load_recordings(given.recordings, estimate_pitches=True).names
        given.seen = [name for name in names if name not in given.hold_out]
        write_front(front, FRONTEND, STEP_DB, TAGS)
        for name in given.set or SETS:
            chosen = SETS[name]
            settings = settings_of_set(chosen, given)
            for path in write_set(name, chosen, settings, front, given.out, given.workers):
                print(path, flush=True)
    except RFKerasError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
