"""`rfkeras tag` as a pipeline: shards of records, and dead letters of what cannot be used.

Each shard is one element, written under its name when it is whole. A runner that does an
element again writes the same files again, and a pipeline that failed is started again without
the files whose tags stand in finished shards.
"""

from __future__ import annotations

import hashlib
import json
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.utils.shared import Shared

from rfkeras.beam import runner as bulk_files
from rfkeras.beam.runner import counter, pipeline_options, run
from rfkeras.errors import ConfigError
from rfkeras.inference.audio_files import FoundFile
from rfkeras.inference.batch import Job, outcome_of
from rfkeras.inference.output import Outcome, TagRules, record_line
from rfkeras.utils.files import sole_writer

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


SUMMARY = "summary.json"
COUNTS = ("found", "done_before", "tagged", "dead")


@dataclass(frozen=True)
class TagSettings:
    """How files are tagged, and where the results go.

    Attributes:
        model: Name of the zoo, file or run folder, for every worker to open.
        threshold: One for all tags; None: those stored with the model.
        frames: Whether the scores of frames are told too.
        chunk_seconds: See `rfkeras.inference.StreamTagger`.
        decoder: See `rfkeras.inference.StreamTagger`.
        output_dir: Folder of the results, for every worker to write to.
        run: Part of the names of this pipeline's shards.
        shard_files: Files of a shard, about.
    """

    model: str
    threshold: float | None
    frames: bool
    chunk_seconds: float
    decoder: str
    output_dir: str
    shard_files: int
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    @property
    def job(self) -> Job:
        """What has to be the same for results to stand in one folder."""
        return Job.of(self.model, self.threshold, frames=self.frames)


def tag_files(
    settings: TagSettings,
    arguments: Sequence[str],
    lists: Sequence[str] = (),
    *,
    resume: bool = False,
    beam_arguments: Sequence[str] = (),
) -> dict[str, Any]:
    """Tag files by a pipeline.

    Args:
        settings: How, and where the results go.
        arguments: Files, folders, addresses and patterns, see `rfkeras.beam.runner.find`.
        lists: Text files of such words, one a line.
        resume: Leave out the files whose tags stand in the folder already.
        beam_arguments: See `rfkeras.beam.runner.pipeline_options`.

    Returns:
        The content of summary.json: the number of files that were `found`, of those
        `done_before`, `tagged` and `dead`, which add up, and the `hours` of audio tagged.

    Raises:
        ConfigError: Results stand in the folder and resume is off, or they are of another
            job; or no file was found.
        PipelineError: The pipeline ended before its work was done.
    """
    options = pipeline_options(beam_arguments)
    folder = settings.output_dir
    for path in (*arguments, *lists, settings.output_dir):
        bulk_files.check_reachable(path)
    job = settings.job
    if bulk_files.is_remote(folder):
        return _tag_files(settings, job, arguments, lists, resume, options)
    with sole_writer(Path(folder) / ".lock", Path(folder)):
        return _tag_files(settings, job, arguments, lists, resume, options)


def _tag_files(
    settings: TagSettings,
    job: Job,
    arguments: Sequence[str],
    lists: Sequence[str],
    resume: bool,
    options: Any,
) -> dict[str, Any]:
    finished, dead = earlier_shards(settings.output_dir, job, resume=resume)
    summary = FileSystems.join(settings.output_dir, SUMMARY)

    def build(pipeline: beam.Pipeline) -> None:
        words = [pipeline | "Arguments" >> beam.Create(list(arguments))]
        if lists:
            texts = pipeline | "Lists" >> beam.Create(list(lists))
            lines = texts | "Read lists" >> beam.io.ReadAllFromText()
            words.append(lines | "Leave out blanks" >> beam.Filter(str.strip))
        found = words | "All words" >> beam.Flatten() | "Find" >> beam.FlatMap(_find)
        done = pipeline | "Finished shards" >> beam.Create(finished)
        keys = done | "Read finished" >> beam.FlatMap(_keys_done)
        sorted_out = {"found": found, "done": keys} | "By file" >> beam.CoGroupByKey()
        told = sorted_out | "Choose" >> beam.FlatMap(_choose).with_outputs("file", main="count")
        count = told.file | "Count" >> beam.combiners.Count.Globally()
        shards = (
            told.file
            | "Number" >> beam.Map(_numbered, beam.pvalue.AsSingleton(count), settings)
            | "By shard" >> beam.GroupByKey()
        )
        counts = shards | "Tag" >> beam.ParDo(TagShard(settings, job))
        (
            (told.count, counts)
            | "All counts" >> beam.Flatten()
            | "Add up" >> beam.CombinePerKey(sum)
            | "As one" >> beam.combiners.ToDict()
            | "Summary" >> beam.Map(_write_summary, summary)
        )

    def progress() -> str:
        new = len(bulk_files.listed(settings.output_dir, f"{TAGS}-*.jsonl")) - len(finished)
        return f"{new} shards of tags written"

    run(options, build, progress)
    with FileSystems.open(summary) as stream:
        content: dict[str, Any] = json.loads(stream.read())
    drop_retried(settings.output_dir, settings.run, dead)
    if not content["found"]:
        raise ConfigError("There is no file to tag: the arguments and lists name none.")
    return content


def _find(word: str) -> Iterator[tuple[str, FoundFile]]:
    for file in bulk_files.find(word.strip()):
        yield file.key, file


def _keys_done(shard: str) -> Iterator[tuple[str, bool]]:
    with FileSystems.open(shard) as stream:
        while line := stream.readline():
            yield key_of(line), True


def _choose(grouped: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[Any]:
    """Of the files with one key, which are the same file, one if it is not done."""
    file = next(iter(grouped[1]["found"]), None)
    if file is None:
        return
    yield "found", 1
    if any(grouped[1]["done"]):
        yield "done_before", 1
    else:
        yield beam.pvalue.TaggedOutput("file", file)


def _numbered(file: FoundFile, count: int, settings: TagSettings) -> tuple[int, FoundFile]:
    """A file with the number of its shard, which a second try finds again."""
    shards = -(-count // settings.shard_files)
    return zlib.crc32(file.key.encode()) % shards, file


def _write_summary(counts: dict[str, int], path: str) -> None:
    content = {name: counts.get(name, 0) for name in COUNTS}
    hours = counts.get("milliseconds", 0) / 3_600_000
    text = json.dumps({**content, "hours": round(hours, 4)}, indent=1)
    bulk_files.write_whole(path, (text + "\n").encode())


class _Opened:
    """A tagger and its rules, one for all threads of a process."""

    def __init__(self, settings: TagSettings) -> None:
        from rfkeras.inference import StreamTagger
        from zoo.pretrained import open_model

        model = open_model(settings.model)
        self.tagger = StreamTagger(model, settings.chunk_seconds, settings.decoder)
        self.rules = TagRules.of(self.tagger, settings.model, settings.threshold)


class TagShard(beam.DoFn):
    """Tags the files of one shard and writes their records; gives the counts.

    Args:
        settings: How, and where to.
        job: What the records are marked with.
    """

    def __init__(self, settings: TagSettings, job: Job) -> None:
        self._settings = settings
        self._job = job
        self._shared = Shared()
        self._opened: _Opened | None = None

    def setup(self) -> None:
        """Open the model."""
        self._opened = self._shared.acquire(lambda: _Opened(self._settings))

    def process(self, shard: tuple[int, Iterable[FoundFile]]) -> Iterator[tuple[str, int]]:
        """Tag one shard's files, in the order of their keys."""
        assert self._opened is not None
        rules = self._opened.rules
        files = sorted(shard[1], key=lambda file: file.key)
        lines: dict[str, list[str]] = {TAGS: [], DEAD: []}
        for file in files:
            outcome = self._outcome(file)
            line = record_line(rules, outcome, absolute_path=file.key, job=self._job.digest)
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
        for kind in (DEAD, TAGS):  # the tags last: their shard is what counts as done
            path = FileSystems.join(self._settings.output_dir, f"{kind}-{name}.jsonl")
            if lines[kind]:
                text = "".join(lines[kind])
                bulk_files.write_whole(path, text.encode("utf-8", "backslashreplace"))
            elif FileSystems.exists(path):  # of a first try, which read fewer or more of them
                FileSystems.delete([path])
        counter("files_tagged").inc(len(lines[TAGS]))
        counter("files_dead").inc(len(lines[DEAD]))
        yield "tagged", len(lines[TAGS])
        yield "dead", len(lines[DEAD])

    def _outcome(self, file: FoundFile) -> Outcome:
        assert self._opened is not None
        tagger = self._opened.tagger
        return outcome_of(
            file,
            lambda: tagger.run_file(bulk_files.source_of(file), frames=self._settings.frames),
        )
