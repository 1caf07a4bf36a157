"""The OpenMIC-2018 folder layout: names, splits, and the files that hold the labels.

Everything here follows from (version, seed, size); no audio is needed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rfkeras.data.sources.gm_instruments.compose import VERSION, compose
from rfkeras.data.sources.gm_instruments.mapping import CLASSES
from rfkeras.errors import ConfigError

DEFAULT_SIZE = 1000
TEST_SHARE = 3 / 16
FIRST_TEST_INDEX = 900_000
"""Training clips are numbered from 0, test clips from here: their random streams, which
hang on the number, can never meet."""

MAX_SIZE = 500_000
LABEL_FILES = (
    "openmic-2018.npz",
    "openmic-2018-aggregated-labels.csv",
    "class-map.json",
    "partitions/split01_train.csv",
    "partitions/split01_test.csv",
)
_RESPONSES = 3


def folder_name(seed: int, size: int, sound_font_tag: str | None) -> str:
    """Folder of one variant of the data set.

    Args:
        seed: Seed of the composition.
        size: Number of clips.
        sound_font_tag: First characters of the sound font's sha256; None for the default.
    """
    name = f"gm_instruments-v{VERSION}-seed{seed}-size{size}"
    return name if sound_font_tag is None else f"{name}-font-{sound_font_tag}"


def clip_indices(size: int) -> tuple[range, range]:
    """Numbers of the training and of the test clips.

    A larger set holds the clips of a smaller one of the same seed, and more.

    Raises:
        ConfigError: size is not in 2..500000.
    """
    if not 2 <= size <= MAX_SIZE:
        raise ConfigError(
            f"The size of gm_instruments must be 2 to {MAX_SIZE} clips. Received: {size}."
        )
    test = max(1, round(size * TEST_SHARE))
    return range(size - test), range(FIRST_TEST_INDEX, FIRST_TEST_INDEX + test)


def clip_key(seed: int, index: int) -> str:
    """Key of a clip, in the manner of OpenMIC: six digits, underscore, a number."""
    return f"{index:06d}_{seed}"


def audio_path(key: str) -> str:
    """Where a clip lies, relative to the openmic-2018 folder."""
    return f"audio/{key[:3]}/{key}.ogg"


def label_files(seed: int, size: int) -> dict[str, bytes]:
    """Content of every file beside the audio, by path relative to the openmic-2018 folder."""
    train, test = clip_indices(size)
    indices = [*train, *test]
    keys = [clip_key(seed, index) for index in indices]
    clips = [compose(seed, index) for index in indices]
    labels = np.array([clip.labels for clip in clips], dtype=np.float64)
    mask = np.array([clip.mask for clip in clips], dtype=bool)

    archive = io.BytesIO()
    # Plain unicode keys: an array of objects could only be read by unpickling it.
    np.savez(
        archive,
        Y_true=np.where(mask, labels, 0.5),
        Y_mask=mask,
        sample_key=np.array(keys, dtype=np.str_),
    )
    class_map = {name: number for number, name in enumerate(CLASSES)}
    contents = (
        archive.getvalue(),
        _aggregated(keys, labels, mask),
        json.dumps(class_map, indent=4).encode(),
        _lines(keys[: len(train)]),
        _lines(keys[len(train) :]),
    )
    return dict(zip(LABEL_FILES, contents, strict=True))


def _lines(keys: Sequence[str]) -> bytes:
    return "".join(f"{key}\n" for key in keys).encode()


def _aggregated(
    keys: Sequence[str], labels: NDArray[np.float64], mask: NDArray[np.bool_]
) -> bytes:
    """The table of known labels: one row for each clip and class that was annotated."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("sample_key", "instrument", "relevance", "num_responses"))
    for row, key in enumerate(keys):
        for column, name in enumerate(CLASSES):
            if mask[row, column]:
                table.writerow((key, name, f"{labels[row, column]:.1f}", _RESPONSES))
    return text.getvalue().encode()
