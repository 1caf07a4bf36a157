"""`rfkeras tag` as a pipeline: shards of records, and dead letters for unusable files.

Each shard is one element and appears under its name only when complete. Repeating an element
writes the same file. After a failure, a new pipeline skips the files in finished shards.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.utils.shared import Shared

from rfkeras.audio.find import FoundFile, read_path_list
from rfkeras.beam.runner import (
    check_reachable,
    counter,
    find_files,
    is_remote,
    list_files,
    pipeline_options,
    read_source,
    run_pipeline,
    write_file,
)
from rfkeras.errors import ConfigError
from rfkeras.inference.batch import Job, TagOptions, outcome_of
from rfkeras.inference.output import Outcome, Stamp, record_line
from rfkeras.utils.files import sole_writer

TAGS, DEAD = "tags", "dead"
SUMMARY = "summary.json"
COUNTS = ("found", "done_before", "replaced", "tagged", "noted", "dead")


@dataclass(frozen=True)
class TagSettings:
    """Settings of a tagging pipeline.

    Attributes:
        options: What to compute. Every worker opens the model.
        output_dir: Folder for the results. Every worker writes to it.
        shard_files: Approximate number of files per shard.
        run: Part of the names of this pipeline's shards.
    """

    options: TagOptions
    output_dir: str
    shard_files: int
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])


def tag_files(
    settings: TagSettings,
    arguments: Sequence[str],
    lists: Sequence[str] = (),
    *,
    resume: bool = False,
    quiet: bool = False,
    beam_arguments: Sequence[str] = (),
) -> dict[str, Any]:
    """Tag files with a pipeline.

    Args:
        settings: What to compute and where to write it.
        arguments: Files, folders, addresses and patterns, see `rfkeras.beam.runner.find_files`.
        lists: Lists of further arguments, see `rfkeras.audio.find.read_path_list`.
        resume: Skip the files whose tags are already in the folder.
        quiet: Print no notes on what was left out.
        beam_arguments: See `rfkeras.beam.runner.pipeline_options`.

    Returns:
        The content of summary.json: the number of files `found`, which is the sum of
        `done_before`, `tagged` and `dead`; how many of those tagged have notes (`noted`) and
        how many were replaced since an earlier pipeline tagged them (`replaced`); and the
        `hours` of audio tagged.

    Raises:
        ConfigError: The folder contains results and resume is off, or another job wrote them;
            or no file was found.
        PipelineError: The pipeline ended before its work was done.
    """
    options = pipeline_options(beam_arguments)
    folder = settings.output_dir
    for path in (*arguments, *lists, settings.output_dir):
        check_reachable(path)
    job = settings.options.job()
    if is_remote(folder):
        return _tag_files(settings, job, arguments, lists, resume, quiet, options)
    with sole_writer(Path(folder) / ".lock", Path(folder)):
        return _tag_files(settings, job, arguments, lists, resume, quiet, options)


def _tag_files(
    settings: TagSettings,
    job: Job,
    arguments: Sequence[str],
    lists: Sequence[str],
    resume: bool,
    quiet: bool,
    options: Any,
) -> dict[str, Any]:
    finished, dead = earlier_shards(settings.output_dir, job, resume=resume)
    summary = FileSystems.join(settings.output_dir, SUMMARY)

    def build(pipeline: beam.Pipeline) -> None:
        words = [pipeline | "Arguments" >> beam.Create(list(map(os.fsencode, arguments)))]
        if lists:
            texts = pipeline | "Lists" >> beam.Create(list(lists))
            words.append(texts | "Read lists" >> beam.FlatMap(_listed, quiet))
        found = words | "All words" >> beam.Flatten() | "Find" >> beam.FlatMap(_find, quiet)
        done = pipeline | "Finished shards" >> beam.Create(finished)
        keys = done | "Read finished" >> beam.FlatMap(_keys_done)
        grouped = {"found": found, "done": keys} | "By file" >> beam.CoGroupByKey()
        chosen = grouped | "Choose" >> beam.FlatMap(_choose).with_outputs("file", main="count")
        count = chosen.file | "Count" >> beam.combiners.Count.Globally()
        shards = (
            chosen.file
            | "Number" >> beam.Map(_numbered, beam.pvalue.AsSingleton(count), settings)
            | "By shard" >> beam.GroupByKey()
        )
        counts = shards | "Tag" >> beam.ParDo(TagShard(settings, job))
        (
            (chosen.count, counts)
            | "All counts" >> beam.Flatten()
            | "Add up" >> beam.CombinePerKey(sum)
            | "As one" >> beam.combiners.ToDict()
            | "Summary" >> beam.Map(_write_summary, summary)
        )

    def progress() -> str:
        new = len(list_files(settings.output_dir, f"{TAGS}-*.jsonl")) - len(finished)
        return f"{new} shards of tags written"

    run_pipeline(options, build, progress)
    with FileSystems.open(summary) as stream:
        content: dict[str, Any] = json.loads(stream.read())
    if content["replaced"]:
        dead |= {path: _lines(path) for path in finished}
    drop_retried(settings.output_dir, settings.run, dead)
    if not content["found"]:
        raise ConfigError("Found no file to tag. Check the arguments and lists.")
    return content


def earlier_shards(
    output_dir: str, job: Job, *, resume: bool
) -> tuple[list[str], dict[str, list[bytes]]]:
    """Return the results of earlier pipelines in a folder; create the folder if needed.

    Args:
        output_dir: The folder.
        job: The job to resume.
        resume: Whether earlier results are allowed.

    Returns:
        (shards of tags; lines of the dead letters, by shard)

    Raises:
        ConfigError: There are results and resume is off, or another job wrote them.
    """
    if not FileSystems.exists(output_dir):
        FileSystems.mkdirs(output_dir)
        return [], {}
    shards = list_files(output_dir, f"{TAGS}-*.jsonl")
    dead = {path: _lines(path) for path in list_files(output_dir, f"{DEAD}-*.jsonl")}
    if not resume and (shards or dead):
        raise ConfigError(
            f"{output_dir} already contains results. Use --skip-existing to continue, or "
            "choose another --output-dir."
        )
    for path in (*shards, *dead):
        with FileSystems.open(path) as stream:
            job.check(json.loads(stream.readline()), path)
    return shards, dead


def _lines(path: str) -> list[bytes]:
    """Return the lines of a file."""
    with FileSystems.open(path) as stream:
        lines: list[bytes] = stream.read().splitlines(keepends=True)
    return lines


def key_of(line: bytes) -> str:
    """Return the key of the audio file that a line of a shard describes."""
    key: str = json.loads(line)["absolute_path"]
    return key


def drop_retried(folder: str, run: str, dead: Mapping[str, Sequence[bytes]]) -> None:
    """Remove files that a pipeline has tried again from earlier shards.

    Args:
        folder: Folder of the shards.
        run: Part of the names of the pipeline's shards.
        dead: Lines of the earlier shards, by path: the dead letters, from `earlier_shards`,
            and the tags if files were replaced.
    """
    waiting = {key_of(line) for lines in dead.values() for line in lines}
    if not waiting:
        return
    tried = set()
    for path in list_files(folder, f"*-{run}-*.jsonl"):
        tried |= waiting & {key_of(line) for line in _lines(path)}
    for path, lines in dead.items():
        left = [line for line in lines if key_of(line) not in tried]
        if left:
            write_file(path, b"".join(left))
        else:
            FileSystems.delete([path])


def _listed(path: str, quiet: bool) -> Iterator[bytes]:
    """Yield the paths in a list. They are bytes, because they need not be text."""
    with FileSystems.open(path) as stream:
        words, notes = read_path_list(path, stream.read())
    for text in notes:
        _note(text, quiet)
    yield from map(os.fsencode, words)


def _find(word: bytes, quiet: bool) -> Iterator[tuple[str, FoundFile]]:
    """Yield the files that an argument names, with their keys."""
    for file in find_files(os.fsdecode(word), lambda text: _note(text, quiet)):
        yield file.key, file


def _note(text: str, quiet: bool) -> None:
    """Print a note on the worker's standard error."""
    if not quiet:
        print(f"Note: {text}", file=sys.stderr)


def _keys_done(shard: str) -> Iterator[tuple[str, Stamp | None]]:
    """Yield the keys of the files in a finished shard, with their sizes and times."""
    with FileSystems.open(shard) as stream:
        while line := stream.readline():
            record = json.loads(line)
            yield record["absolute_path"], Stamp.recorded(record)


def _choose(grouped: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[Any]:
    """Yield one file per key unless it is done, and counts."""
    file = next(iter(grouped[1]["found"]), None)
    if file is None:
        return
    yield "found", 1
    done = list(grouped[1]["done"])
    # A file without a recorded size and time (of version 0.1.0, or remote) counts as done.
    if any(recorded is None or not recorded.is_older(file) for recorded in done):
        yield "done_before", 1
    else:
        if done:
            yield "replaced", 1
        yield beam.pvalue.TaggedOutput("file", file)


def _numbered(file: FoundFile, count: int, settings: TagSettings) -> tuple[int, FoundFile]:
    """Return a file with its shard number, which depends only on the key and the count."""
    shards = -(-count // settings.shard_files)
    return zlib.crc32(file.key.encode()) % shards, file


def _write_summary(counts: dict[str, int], path: str) -> None:
    """Write summary.json."""
    content = {name: counts.get(name, 0) for name in COUNTS}
    hours = counts.get("milliseconds", 0) / 3_600_000
    text = json.dumps({**content, "hours": round(hours, 4)}, indent=1)
    write_file(path, (text + "\n").encode())


class _Opened:
    """A tagger and its rules, shared by all threads of a process."""

    def __init__(self, settings: TagSettings) -> None:
        self.tagger = settings.options.open_tagger()
        self.rules = settings.options.rules(self.tagger)


class TagShard(beam.DoFn):
    """Tags the files of one shard, writes their records and yields counts.

    Args:
        settings: What to compute and where to write it.
        job: Identifies the records.
    """

    def __init__(self, settings: TagSettings, job: Job) -> None:
        self._settings = settings
        self._job = job
        self._shared = Shared()
        self._opened: _Opened | None = None

    def setup(self) -> None:
        """Load the model."""
        self._opened = self._shared.acquire(lambda: _Opened(self._settings))

    def process(self, shard: tuple[int, Iterable[FoundFile]]) -> Iterator[tuple[str, int]]:
        """Tag the files of one shard, in the order of their keys."""
        assert self._opened is not None
        rules = self._opened.rules
        files = sorted(shard[1], key=lambda file: file.key)
        lines: dict[str, list[str]] = {TAGS: [], DEAD: []}
        for file in files:
            outcome = self._outcome(file)
            line = record_line(rules, outcome, absolute_path=file.key, job=self._job.digest)
            if outcome.notes:
                yield "noted", 1
            if outcome.result is None:
                lines[DEAD].append(line)
                counter(f"dead: {(outcome.error or '').partition(':')[0][:60]}").inc()
            else:
                lines[TAGS].append(line)
                milliseconds = round(outcome.result.seconds * 1000)
                counter("audio_milliseconds").inc(milliseconds)
                yield "milliseconds", milliseconds
        members = "\n".join(file.key for file in files).encode()
        name = f"{self._settings.run}-{hashlib.sha256(members).hexdigest()[:16]}"
        for kind in (DEAD, TAGS):  # tags last, because a shard of tags marks its files as done
            path = FileSystems.join(self._settings.output_dir, f"{kind}-{name}.jsonl")
            if lines[kind]:
                text = "".join(lines[kind])
                write_file(path, text.encode("utf-8", "backslashreplace"))
            elif FileSystems.exists(
                path
            ):  # from an earlier attempt in which other files failed
                FileSystems.delete([path])
        counter("files_tagged").inc(len(lines[TAGS]))
        counter("files_dead").inc(len(lines[DEAD]))
        yield "tagged", len(lines[TAGS])
        yield "dead", len(lines[DEAD])

    def _outcome(self, file: FoundFile) -> Outcome:
        """Return the outcome for one file."""
        assert self._opened is not None
        tagger = self._opened.tagger
        options = self._settings.options
        return outcome_of(
            file,
            lambda: tagger.run_file(
                read_source(file), frames=options.frames, strict=options.strict
            ),
        )
