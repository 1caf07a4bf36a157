"""A compact record of which clips were used, by digests of their keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from rfkeras.errors import CheckpointError
from rfkeras.files import write_text
from rfkeras.reading import malformed, read_json

# Of 100,000 clips held against 100,000 others, two share 12 digits once in 28,000 times.
_DIGITS = 12


def write_clip_record(path: Path, dataset: str, keys: Sequence[str]) -> None:
    """Write the record: 1 MB for 55,000 clips.

    Args:
        path: The JSON file to make.
        dataset: Name of the data set, of a packed one that of its source.
        keys: Keys of the clips.
    """
    content = {"dataset": dataset, "sha256_starts": sorted(map(_digest, keys))}
    write_text(path, json.dumps(content, indent=0) + "\n")


def recorded_clips(path: Path, dataset: str, keys: Sequence[str]) -> list[str]:
    """Those of the keys that are on record.

    Args:
        path: The JSON file; where there is none, nothing is on record.
        dataset: Name of the data set that the keys are of.
        keys: Keys of clips.

    Raises:
        CheckpointError: The file is no such record.
    """
    if not path.is_file():
        return []
    try:
        with malformed():
            record = read_json(path)
            if record["dataset"] != dataset:
                return []
            digests = set(record["sha256_starts"])
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no record of clips: {error}") from error
    return [key for key in keys if _digest(key) in digests]


def _digest(key: str) -> str:
    content = key.encode(errors="surrogateescape")
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
