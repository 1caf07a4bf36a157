"""Results for a tagged file: which tags apply and when, as JSON, JSON lines, tables or JAMS."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from rfkeras import __version__
from rfkeras.audio.find import FoundFile
from rfkeras.errors import ConfigError
from rfkeras.tasks import MULTI_LABEL, SINGLE_LABEL
from rfkeras.utils.files import atomic_write
from rfkeras.utils.remote import RemotePath
from rfkeras.utils.text import TAG_SEPARATOR, clock, printable

if TYPE_CHECKING:
    from rfkeras.inference import ChunkTagger, FrameTimes, TagResult

Span = tuple[float, float]
Scores = NDArray[np.floating[Any]]
_CLOSED_GAP_S = 2
_SCORE_DIGITS, _FRAME_SCORE_DIGITS, _TIME_DIGITS = 6, 4, 4
_SPAN_DIGITS = 6  # finer than a sample, so that no span is rounded to nothing
_JAMS_VERSION = "0.3.4"
# Formats with one file per audio file, and the endings of these files.
SIDECAR_SUFFIXES = {"json": ".tags.json", "jams": ".jams", "segments": ".segments.txt"}


@dataclass(frozen=True)
class Stamp:
    """Size and time of an audio file, which show whether it was replaced.

    Attributes:
        size_bytes: Size of the file.
        modified_ns: Time of the last change, in nanoseconds since 1970.
    """

    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, file: FoundFile) -> Stamp | None:
        """Return the stamp of a file; None if it is missing, or a remote file of a
        pipeline."""
        is_url = isinstance(file.path, RemotePath)
        if not is_url and printable(os.path.realpath(file.path)) != file.key:
            return None  # a pipeline's remote file, of which only the name is known
        try:
            status = file.path.stat()
        except (OSError, ValueError):
            return None
        return cls(status.st_size, status.st_mtime_ns)

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> Stamp | None:
        """Return the stamp in a record; None for records of version 0.1.0."""
        size, time = record.get("source_bytes"), record.get("source_modified_ns")
        if not (isinstance(size, int) and isinstance(time, int)):
            return None
        return cls(size, time)

    def is_older(self, file: FoundFile) -> bool:
        """Return whether a file was replaced since; not if it is missing now."""
        return Stamp.of(file) not in (None, self)

    def fields(self) -> dict[str, int]:
        """Return the fields of a record."""
        return {"source_bytes": self.size_bytes, "source_modified_ns": self.modified_ns}


@dataclass(frozen=True)
class Outcome:
    """The outcome for one file: a result or an error.

    Attributes:
        file: The file.
        result: The model's result; None if the file could not be read.
        error: Why the file could not be used; None if it was.
        stamp: Size and time of the file before it was read; None if unknown.
    """

    file: FoundFile
    result: TagResult | None = None
    error: str | None = None
    stamp: Stamp | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about a file that was used, one sentence each."""
        return () if self.result is None else self.result.notes


class OutputError(OSError):
    """The output that all files of a job share cannot be written, so the job ends."""


@contextmanager
def shared_output(path: Path | None, kept: str = "") -> Iterator[None]:
    """Turn the errors of writing in this block into OutputError.

    Args:
        path: The output; None for standard output.
        kept: What is kept, and how to resume.

    Raises:
        OutputError: The output cannot be written.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        place = "standard output" if path is None else printable(path)
        text = f"{place} cannot be written: {error.strerror or error}. {kept}".strip()
        raise OutputError(text) from error


Write = Callable[[Outcome], None]


@dataclass(frozen=True)
class TagRules:
    """The tags of a model and the rules that decide when they apply.

    Attributes:
        model: The model as named by the user.
        names: The tags.
        thresholds: (classes,) lowest score with which each tag applies; None if classes are
            mutually exclusive and the class with the highest score always applies.
        exclusive: Whether only the tag with the highest score can apply.
        sample_rate_hz: Sample rate of the model.
        frames: Times of the model's frames.
    """

    model: str
    names: tuple[str, ...]
    thresholds: Scores | None
    exclusive: bool
    sample_rate_hz: int
    frames: FrameTimes

    @classmethod
    def of(cls, tagger: ChunkTagger, model: str, threshold: float | None = None) -> TagRules:
        """Return the rules of a tagger.

        Args:
            tagger: The tagger.
            model: The model as named by the user.
            threshold: One threshold for all tags; None uses those saved in the model.

        Raises:
            ConfigError: The threshold is not between 0 and 1.
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise ConfigError(f"A threshold must be between 0 and 1. Received: {threshold:g}.")
        exclusive = tagger.thresholds is None
        names = tuple(tagger.label_names)
        thresholds = None if exclusive else np.asarray(tagger.thresholds, np.float64)
        if threshold is not None:
            thresholds = np.full(len(names), threshold)
        return cls(model, names, thresholds, exclusive, tagger.sample_rate_hz, tagger.frames)

    def applies(self, scores: Scores) -> NDArray[np.bool_]:
        """Return which tags apply for scores (..., classes)."""
        decided: NDArray[np.bool_] = (
            np.ones(scores.shape, bool)
            if self.thresholds is None
            # Scores are float32: a threshold of 0.3 must not be above a score of 0.3.
            else scores >= self.thresholds.astype(scores.dtype)
        )
        if self.exclusive:
            decided &= scores == scores.max(axis=-1, keepdims=True)
        return decided

    def edges(self, result: TagResult) -> NDArray[np.float64]:
        """Return the start of each frame and the end of the last, (frames + 1,) seconds.

        Frames in the padding after a very short file are empty.
        """
        n_frames = len(frame_scores_of(result))
        starts_ms, ends_ms = self.frames.starts_ms(n_frames), self.frames.ends_ms(n_frames)
        return np.clip(np.append(starts_ms, ends_ms[-1]) / 1000, 0.0, result.seconds)

    def spans(self, result: TagResult) -> list[list[Span]]:
        """Return for each tag the time spans in which it applies, in seconds."""
        edges = self.edges(result)
        return [spans(tag, edges) for tag in self.applies(frame_scores_of(result)).T]

    def ranking(self, result: TagResult) -> list[int]:
        """Return the tags in order of importance.

        Tags that apply to the whole file come first, then tags that apply for a longer time if
        the result has frames, then tags with higher scores.
        """
        seconds = np.zeros(len(self.names))
        if result.frame_scores is not None:
            seconds += [sum(end - start for start, end in tag) for tag in self.spans(result)]
        return [
            int(tag)
            for tag in np.lexsort((-result.scores, -seconds, ~self.applies(result.scores)))
        ]

    def applied(self, scores: Scores) -> list[int]:
        """Return the tags that apply for scores (classes,), best first."""
        applies = self.applies(scores)
        return [int(tag) for tag in np.argsort(-scores, kind="stable") if applies[tag]]

    def tags_of(self, result: TagResult) -> list[str]:
        """Return the names of the tags that apply to the whole file, best first."""
        return [self.names[tag] for tag in self.applied(result.scores)]

    def head(self) -> dict[str, Any]:
        """Return the fields that are the same for all files."""
        window_ms = self.frames.window_ms
        thresholds = None
        if self.thresholds is not None:
            pairs = zip(self.names, self.thresholds, strict=True)
            thresholds = {name: round(float(value), _SCORE_DIGITS) for name, value in pairs}
        return {
            "rfkeras": __version__,
            "model": printable(self.model),
            "task": SINGLE_LABEL if self.exclusive else MULTI_LABEL,
            "labels": list(self.names),
            "thresholds": thresholds,
            "sample_rate_hz": self.sample_rate_hz,
            "frame_stride_s": self.frames.stride_ms / 1000,
            "frame_window_s": None if window_ms is None else window_ms / 1000,
        }

    def record(self, outcome: Outcome) -> dict[str, Any]:
        """Return the record of one file.

        Returns:
            `path` and `error`; or `path`, `seconds`, `tags` (those that apply, best first) and
            `scores` by tag. A result with frames also has `frames` (`start_s`, `centre_s` and
            `scores` by tag) and `spans` ([start, end] in seconds for each tag that applies at
            some time). A file that is odd has `notes`, a list of sentences.
        """
        result = outcome.result
        if result is None:
            return {"path": outcome.file.name, "error": printable(outcome.error or "")}
        content: dict[str, Any] = {
            "path": outcome.file.name,
            "seconds": round(result.seconds, _TIME_DIGITS),
            "tags": self.tags_of(result),
            "scores": dict(zip(self.names, rounded(result.scores, _SCORE_DIGITS), strict=True)),
        }
        if result.frame_scores is not None:
            centres_s = self.frames.centres_ms(len(result.frame_scores)) / 1000
            columns = [rounded(tag, _FRAME_SCORE_DIGITS) for tag in result.frame_scores.T]
            content["frames"] = {
                "start_s": rounded(self.edges(result)[:-1], _TIME_DIGITS),
                "centre_s": rounded(centres_s, _TIME_DIGITS),
                "scores": dict(zip(self.names, columns, strict=True)),
            }
            content["spans"] = {
                name: [list(rounded(np.asarray(part), _TIME_DIGITS)) for part in tag]
                for name, tag in zip(self.names, self.spans(result), strict=True)
                if tag
            }
        if outcome.notes:
            content["notes"] = [printable(note) for note in outcome.notes]
        return content


def frame_scores_of(result: TagResult) -> Scores:
    """Return the frame scores of a result.

    Raises:
        ConfigError: The result has no frame scores.
    """
    if result.frame_scores is None:
        raise ConfigError("The result has no frame scores. Run the tagger with frames=True.")
    return result.frame_scores


def column_maxima(scores: NDArray[Any], most_columns: int) -> tuple[NDArray[Any], int]:
    """Reduce frame scores to as many columns as a plot can show.

    Args:
        scores: (frames, tags).
        most_columns: Largest number of columns.

    Returns:
        (columns, tags), the maximum over neighbouring frames so that short events stay visible;
        and the number of frames per column.
    """
    frames_per_column = -(-len(scores) // most_columns)
    starts = np.arange(0, len(scores), frames_per_column)
    return np.maximum.reduceat(scores, starts, axis=0), frames_per_column


def rounded(values: NDArray[Any], digits: int) -> list[float]:
    """Return values as Python floats with this many decimal places."""
    return [round(float(value), digits) for value in values]


def spans(active: NDArray[np.bool_], edges: NDArray[np.float64]) -> list[Span]:
    """Return the time spans in which frames are active, in seconds.

    Args:
        active: (frames,).
        edges: (frames + 1,) seconds; frame i lasts from edge i to edge i + 1.
    """
    padded = np.concatenate([[False], active & (np.diff(edges) > 0), [False]])
    changes = np.flatnonzero(padded[1:] != padded[:-1])
    return [
        (float(edges[first]), float(edges[stop]))
        for first, stop in zip(changes[::2], changes[1::2], strict=True)
    ]


def spans_text(parts: Sequence[Span], most: int) -> str:
    """Format spans as "0:12-0:47, 1:03-1:20".

    Spans are rounded outwards to whole seconds. Spans at most 2 s apart are joined, because
    a single missing frame does not matter to the reader.

    Args:
        parts: Spans in ascending order.
        most: Number of spans to write before "and 3 more".
    """
    whole: list[list[int]] = []
    for start, end in parts:
        first, last = math.floor(start), math.ceil(end)
        if whole and first - whole[-1][1] <= _CLOSED_GAP_S:
            whole[-1][1] = last
        else:
            whole.append([first, last])
    shown = [f"{clock(first)}-{clock(last)}" for first, last in whole[:most]]
    more = [f"and {len(whole) - most} more"] if len(whole) > most else []
    return ", ".join([*shown, *more])


def as_json(content: Any) -> str:
    """Return content as one line of JSON without escapes for Unicode characters."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def record_line(rules: TagRules, outcome: Outcome, **more: str) -> str:
    """Return a self-contained record as one line: with the model and further fields."""
    path, *rest = rules.record(outcome).items()
    stamp = {} if outcome.stamp is None else outcome.stamp.fields()
    record = dict([path, ("model", printable(rules.model)), *rest])
    return as_json(record | more | stamp) + "\n"


@contextmanager
def text_output(path: Path | None, encoding: str = "utf-8") -> Iterator[TextIO]:
    """Open the output: a file that appears only when complete, or standard output.

    Args:
        path: The file; None for standard output.
        encoding: Encoding of the text. Characters it cannot represent are written as escapes
            such as `\\u00e9`, which JSON readers decode.
    """
    if path is not None:
        with (
            atomic_write(path) as aside,
            aside.open("w", encoding=encoding, errors="backslashreplace", newline="") as file,
        ):
            yield file
        return
    binary: BinaryIO | None = getattr(sys.stdout, "buffer", None)
    if binary is None:  # standard output of a notebook accepts only text
        yield sys.stdout
        return
    sys.stdout.flush()
    text = io.TextIOWrapper(binary, encoding, "backslashreplace", newline="")
    try:
        yield text
    finally:
        try:
            text.flush()
        finally:
            text.detach()


@contextmanager
def json_document(file: TextIO, rules: TagRules) -> Iterator[Write]:
    """Write one JSON object: model, labels, thresholds, and `files` with one line per file."""
    file.write(as_json(rules.head())[:-1] + ', "files": [')
    separator = "\n"

    def write(outcome: Outcome) -> None:
        nonlocal separator
        record = as_json(rules.record(outcome))
        with shared_output(None):
            file.write(separator + record)
        separator = ",\n"

    yield write
    file.write("\n]}\n")


@contextmanager
def json_lines(file: TextIO, rules: TagRules) -> Iterator[Write]:
    """Write one JSON object per line, each as soon as its file is done."""

    def write(outcome: Outcome) -> None:
        line = record_line(rules, outcome)
        with shared_output(None):
            file.write(line)
            file.flush()

    yield write


@contextmanager
def csv_table(file: TextIO, rules: TagRules, *, frames: bool) -> Iterator[Write]:
    """Write one row per file, or per frame, with one column per tag.

    The columns are path, seconds (with frames: start_s and centre_s), error, tags (those that
    apply, best first), thresholds (of these tags, in the same order), and the score of each
    tag. A file that could not be read has one row with only the path and the error.
    """
    times = ["start_s", "centre_s"] if frames else ["seconds"]

    def put(rows: Iterable[Sequence[Any]]) -> None:
        text = io.StringIO()  # all rows of a file, or none
        csv.writer(text, lineterminator="\n").writerows(rows)
        with shared_output(None):
            file.write(text.getvalue())
            file.flush()

    put([["path", *times, "error", "tags", "thresholds", *rules.names]])

    def write(outcome: Outcome) -> None:
        put(_csv_rows(rules, outcome, times))

    yield write


@contextmanager
def score_table(file: TextIO, rules: TagRules) -> Iterator[Write]:
    """Write one row per file with the score of each tag, separated by tabs.

    The first row names the columns: path, and the tags in the order of the model. A file that
    could not be read has empty cells instead of scores, so that every file has its row.
    """

    def put(row: Sequence[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, "excel-tab", lineterminator="\n").writerow(row)
        with shared_output(None):
            file.write(text.getvalue())
            file.flush()

    put(["path", *rules.names])

    def write(outcome: Outcome) -> None:
        result = outcome.result
        scores = ("" for _ in rules.names)
        put([outcome.file.name, *(scores if result is None else _decimals(result.scores))])

    yield write


def _decimals(scores: Scores) -> Iterator[str]:
    """Yield scores without exponents, which not every reader of tables knows."""
    return (f"{score:.{_SCORE_DIGITS}f}" for score in scores)


def sidecar_text(
    kind: str, rules: TagRules, outcome: Outcome, origin: Mapping[str, Any]
) -> str:
    """Return the content of the file that is written for one audio file.

    Args:
        kind: Format, one of `SIDECAR_SUFFIXES`; with "jams" and "segments" the outcome has a
            result with frame scores.
        rules: The tags and their rules.
        outcome: The outcome.
        origin: Further fields of the record, in the formats that have one.
    """
    if kind == "segments" and outcome.result is not None:
        return segments_text(rules, outcome.result)
    if kind == "jams":
        content = jams_document(rules, outcome, origin)
    else:
        content = {**rules.head(), **rules.record(outcome), **origin}
    items = (f"{as_json(key)}: {as_json(value)}" for key, value in content.items())
    return "{\n" + ",\n".join(items) + "\n}\n"


def segments_text(rules: TagRules, result: TagResult) -> str:
    """Return the segments of a file as lines of onset, offset (seconds) and tag.

    Tabs separate the columns, as `mir_eval.io.load_labeled_intervals` and
    `sed_eval.io.load_event_list` read them. Segments are in the order of their onsets. A file
    in which no tag applies has no lines.
    """
    rows = [
        (*span, name)
        for name, tag in zip(rules.names, rules.spans(result), strict=True)
        for span in tag
    ]
    return "".join(
        f"{start:.{_SPAN_DIGITS}f}\t{end:.{_SPAN_DIGITS}f}\t{' '.join(name.split())}\n"
        for start, end, name in sorted(rows, key=lambda row: row[:2])
    )


def jams_document(
    rules: TagRules, outcome: Outcome, origin: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the tags of a file over time as the content of a JAMS file.

    Args:
        rules: The tags and their rules.
        outcome: The outcome of the file, with frame scores.
        origin: Further fields of the record in the sandbox.

    Returns:
        One annotation in the namespace tag_open, with one observation per segment, whose
        confidence is the mean score of its frames. `sandbox["rfkeras"]` has the record of the
        whole file.
    """
    result, head = outcome.result, rules.head()
    assert result is not None
    edges, frames = rules.edges(result), frame_scores_of(result)
    parts = [(*span, tag) for tag, each in enumerate(rules.spans(result)) for span in each]
    observations = []
    for start, end, tag in sorted(parts):
        inside = (edges[:-1] >= start) & (edges[:-1] < end)
        observations.append(
            {
                "time": round(start, _SPAN_DIGITS),
                "duration": round(end - start, _SPAN_DIGITS),
                "value": rules.names[tag],
                "confidence": round(float(frames[inside, tag].mean()), _SCORE_DIGITS),
            }
        )
    applies = (
        "its score is the highest" if rules.exclusive else "its score reaches its threshold"
    )
    metadata = {
        "annotation_tools": f"rfkeras {__version__}",
        "version": __version__,
        "data_source": "program",
        "annotation_rules": (
            f"A tag applies in a frame if {applies}. Adjacent frames make one observation, "
            "whose confidence is the mean score of these frames."
        ),
        "annotator": {
            name: head[name]
            for name in ("model", "task", "thresholds", "frame_stride_s", "frame_window_s")
        },
    }
    seconds = round(result.seconds, _SPAN_DIGITS)
    record = rules.record(replace(outcome, result=replace(result, frame_scores=None)))
    return {
        "annotations": [
            {
                "annotation_metadata": metadata,
                "namespace": "tag_open",
                "time": 0.0,
                "duration": seconds,
                "data": observations,
                "sandbox": {"labels": list(rules.names)},
            }
        ],
        "file_metadata": {
            "title": "",
            "artist": "",
            "release": "",
            "duration": seconds,
            "identifiers": {},
            "jams_version": _JAMS_VERSION,
        },
        "sandbox": {"rfkeras": {**head, **record, **origin}},
    }


def _csv_rows(
    rules: TagRules, outcome: Outcome, times: Sequence[str]
) -> Iterator[Sequence[Any]]:
    """Yield the rows of one file, with empty cells for the columns that have no value."""
    name, result = outcome.file.name, outcome.result
    if result is None:
        yield [name, *("" for _ in times), outcome.error, "", "", *("" for _ in rules.names)]
    elif result.frame_scores is None:
        seconds = round(result.seconds, _TIME_DIGITS)
        yield [name, seconds, "", *_tag_cells(rules, result.scores)]
    else:
        centres_s = rules.frames.centres_ms(len(result.frame_scores)) / 1000
        starts_s = rules.edges(result)[:-1]
        for start, centre, frame in zip(starts_s, centres_s, result.frame_scores, strict=True):
            when = (round(start, _TIME_DIGITS), round(centre, _TIME_DIGITS))
            yield [name, *when, "", *_tag_cells(rules, frame)]


def _tag_cells(rules: TagRules, scores: Scores) -> Iterator[str | float]:
    """Yield the tags that apply, their thresholds, and the scores (classes,)."""
    tags = rules.applied(scores)
    limits = () if rules.thresholds is None else rules.thresholds[tags]
    yield TAG_SEPARATOR.join(rules.names[tag] for tag in tags)
    yield TAG_SEPARATOR.join(f"{limit:.{_SCORE_DIGITS}g}" for limit in limits)
    yield from rounded(scores, _SCORE_DIGITS)


@dataclass(frozen=True)
class TaggedFile:
    """The tags of a file.

    Attributes:
        path: The file as it was found.
        error: Why it could not be used; None if it was. The other attributes are then empty.
        tags: Tags that apply to the whole file, the best first.
        scores: Score of every tag.
        spans: With `frames`, when each tag applies: (start, end) in seconds.
        result: All numbers.
    """

    path: Path
    error: str | None
    tags: tuple[str, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    result: TagResult | None = None

    @classmethod
    def of(cls, outcome: Outcome, rules: TagRules) -> TaggedFile:
        """Return the tags of an outcome."""
        result = outcome.result
        if result is None:
            return cls(outcome.file.path, outcome.error)
        scores = dict(zip(rules.names, map(float, result.scores), strict=True))
        spans = [] if result.frame_scores is None else rules.spans(result)
        times = {name: list(each) for name, each in zip(rules.names, spans, strict=False)}
        tags = tuple(rules.tags_of(result))
        return cls(outcome.file.path, None, tags, scores, times, result)
