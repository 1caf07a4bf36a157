"""Shards of results: tags, and dead letters of files that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from apache_beam.io.filesystems import FileSystems

from rfkeras.bulk import files as bulk_files
from rfkeras.errors import ConfigError
from rfkeras.tagging.resume import Job

TAGS, DEAD = "tags", "dead"


def earlier_shards(
    output_dir: str, job: Job, *, resume: bool
) -> tuple[list[str], dict[str, list[bytes]]]:
    """What earlier pipelines left in a folder, which is made if absent.

    Args:
        output_dir: The folder.
        job: The job that goes on.
        resume: Whether there may be something.

    Returns:
        (shards of tags; the lines of the dead letters, by shard)

    Raises:
        ConfigError: There is something and resume is off, or it is of another job.
    """
    if not FileSystems.exists(output_dir):
        FileSystems.mkdirs(output_dir)
        return [], {}
    shards = bulk_files.listed(output_dir, f"{TAGS}-*.jsonl")
    dead = {path: _lines(path) for path in bulk_files.listed(output_dir, f"{DEAD}-*.jsonl")}
    if not resume and (shards or dead):
        raise ConfigError(
            f"{output_dir} has results in it. Go on with them by --skip-existing, or name "
            "another --output-dir."
        )
    for path in (*shards, *dead):
        with FileSystems.open(path) as stream:
            job.check(json.loads(stream.readline()), path)
    return shards, dead


def _lines(path: str) -> list[bytes]:
    with FileSystems.open(path) as stream:
        lines: list[bytes] = stream.read().splitlines(keepends=True)
    return lines


def key_of(line: bytes) -> str:
    """The key of the file that a line of a shard is about."""
    key: str = json.loads(line)["absolute_path"]
    return key


def drop_retried(folder: str, run: str, dead: Mapping[str, Sequence[bytes]]) -> None:
    """Take the files that a pipeline has tried again out of earlier dead letters.

    Args:
        folder: Of the shards.
        run: Part of the names of the pipeline's shards.
        dead: The earlier dead letters, as `earlier_shards` gave them.
    """
    waiting = {key_of(line) for lines in dead.values() for line in lines}
    if not waiting:
        return
    tried = set()
    for path in bulk_files.listed(folder, f"*-{run}-*.jsonl"):
        tried |= waiting & {key_of(line) for line in _lines(path)}
    for path, lines in dead.items():
        left = [line for line in lines if key_of(line) not in tried]
        if left:
            bulk_files.write_whole(path, b"".join(left))
        else:
            FileSystems.delete([path])
