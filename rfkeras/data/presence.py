"""Is the audio there at all? Asked before the first file is opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rfkeras.data.dataset import AudioDataset
from rfkeras.data.records import PackedSplit
from rfkeras.errors import DatasetError

_NAMED = 3
_THREADS = 16  # on a network file system each question costs a round trip


def missing_files(paths: Sequence[Path]) -> list[Path]:
    """Those of the paths at which no file lies, in their order."""
    with ThreadPoolExecutor(_THREADS) as pool:
        there = list(pool.map(os.path.isfile, paths, chunksize=256))
    return [path for path, found in zip(paths, there, strict=True) if not found]


def check_present(
    dataset: AudioDataset,
    splits: Sequence[str] | None = None,
    *,
    max_bad_share: float,
) -> None:
    """Refuse a data set of which more audio is missing than may be bad.

    Files are looked for, not opened: a wrong folder is found in a moment, where checking
    the files would read all of the audio that is there first.

    Args:
        dataset: The data set; packed splits are left out, for their shards were looked for.
        splits: Names of the splits that will be used, all when None.
        max_bad_share: Largest share of missing files that is tolerated, 0 to 1.

    Raises:
        DatasetError: More is missing. The message names the first files, says how many
            there are and where to get them.
    """
    paths = [
        path
        for name, split in dataset.splits.items()
        if (splits is None or name in splits) and not isinstance(split, PackedSplit)
        for path in split.paths
    ]
    missing = missing_files(paths)
    if len(missing) <= max_bad_share * len(paths):
        return
    first = ", ".join(str(path) for path in missing[:_NAMED])
    more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
    source = f" Get it from {dataset.published.homepage}." if dataset.published else ""
    if len(missing) == len(paths):
        advice = "Is the folder right (--data-dir, --audio-dir)?"
    else:
        advice = (
            f"To go on without them, raise max_bad_share (--max-bad-share) above "
            f"{len(missing) / len(paths):.4f}."
        )
    raise DatasetError(
        f"{len(missing):,} of the {len(paths):,} audio files of {dataset.name} are missing: "
        f"{first}{more}.{source} {advice}"
    )
