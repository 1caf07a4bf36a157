"""`rfkeras find`: find the files whose tags fulfil an expression.

Nothing here imports NumPy or TensorFlow, so that the answer comes at once.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rfkeras.cli.main import COMMANDS
from rfkeras.errors import ConfigError
from rfkeras.inference.query import Query, TagScore, unknown_tag
from rfkeras.utils.files import malformed, parse_json, read_text, write_text
from rfkeras.utils.remote import RemotePath, is_remote, to_path
from rfkeras.utils.text import TAG_SEPARATOR, count, printable

STANDARD_INPUT = "-"
_COLUMNS = ["path", "seconds", "error", "tags", "thresholds"]  # of CSV, before the scores
_ESCAPE = re.compile(r"\\u(dc[89a-f][0-9a-f])")
_SIDECARS = "*.tags.json"
_PLAYLIST_SUFFIX = ".m3u8"


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "find",
        help=COMMANDS["find"],
        description=(
            "Print the paths of the tagged files that fulfil an expression, such as "
            '"violin > 0.5 and not drums".'
        ),
        epilog=(
            "Expressions: TAG (it applies: its score reached its threshold), TAG > NUMBER "
            "(also >=, <, <=), not, and, or, and parentheses. not binds most, or least. Tags "
            "with characters other than letters, digits and _ need quotation marks: "
            "\"'hip-hop' and not voice\". Put the whole expression in quotation marks, because "
            "> means something else to the shell. Records of one file in several TAGS, for "
            "example of two models, count as one."
        ),
    )
    parser.add_argument(
        "tags",
        nargs="+",
        metavar="TAGS",
        help="output of `rfkeras tag`: a .jsonl, .json or .csv file, the folder of "
        "--output-dir, or - for JSON lines from standard input",
    )
    parser.add_argument("expression", metavar="EXPRESSION", help="what the tags must fulfil")
    parser.add_argument(
        "--sort", metavar="TAG", help="highest score of this tag first (default: as in TAGS)"
    )
    parser.add_argument("--top", type=int, metavar="N", help="only the first N files")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "-0", "--null", action="store_true", help="end paths with NUL, for `xargs -0`"
    )
    add_playlist_argument(shown)
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    parser.set_defaults(run=run)


def add_playlist_argument(parser: Any) -> None:
    """Add the flag for a playlist."""
    parser.add_argument(
        "--m3u8",
        type=to_path,
        metavar="FILE",
        help="write the files to this playlist (.m3u8) instead of standard output",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    check_selection(options)
    query = _query(options.expression)
    names = {*query.names, *([] if options.sort is None else [options.sort])}
    library = Library(names)
    for word in options.tags:
        library.read(word)
    if not library.files:
        raise ConfigError(
            f"{', '.join(options.tags)}: no record of a tagged file. Write one with "
            "`rfkeras tag FOLDER --output tags.jsonl`."
        )
    query.check_names(library.known)
    if options.sort is not None and options.sort not in library.known:
        raise ConfigError(f"--sort: {unknown_tag(options.sort, library.known)}")
    files = [file for file in library.files.values() if names <= file.scores.keys()]
    found = [file for file in files if query(file.scores)]
    if options.sort is not None:
        found.sort(key=lambda file: -file.scores[options.sort].score)
    found = found[: options.top]
    if options.m3u8 is not None:
        write_playlist(options.m3u8, found)
    else:
        _print_paths([file.path for file in found], null=options.null)
    if not options.quiet:
        _summarise(library, len(files), len(found))
    return 0


def _query(text: str) -> Query:
    try:
        return Query(text)
    except ConfigError:
        if not os.path.lexists(text):
            raise
        raise ConfigError(
            f"{text} is a file, but the last word must be the expression, as in: rfkeras find "
            'tags.jsonl "violin > 0.5".'
        ) from None


def _print_paths(paths: Sequence[str], *, null: bool) -> None:
    if not null:
        sys.stdout.writelines(f"{path}\n" for path in paths)
        return
    sys.stdout.flush()  # programs read the names as bytes, whatever the encoding of text
    sys.stdout.buffer.writelines(os.fsencode(_on_disk(path)) + b"\0" for path in paths)
    sys.stdout.buffer.flush()


def check_selection(options: argparse.Namespace) -> None:
    """Check `--top` and `--m3u8`.

    Raises:
        ConfigError: One of them has a wrong value.
    """
    if options.top is not None and options.top < 1:
        raise ConfigError(f"--top must be at least 1. Received: {options.top}.")
    path = options.m3u8
    if path is None:
        return
    if path.suffix.lower() != _PLAYLIST_SUFFIX:
        raise ConfigError(f"--m3u8 must end in {_PLAYLIST_SUFFIX}. Received: {path}.")
    if isinstance(path, RemotePath):
        path.check_writable()
    if path.is_dir():
        raise ConfigError(f"--m3u8 must be a file. Received: {path}, which is a folder.")


def _summarise(library: Library, searched: int, found: int) -> None:
    parts = [f"{found:,} of {count(searched, 'file')} found."]
    other = len(library.files) - searched
    if other:
        parts.append(f"Left out: {count(other, 'file')} without a score of every tag named.")
    if library.unusable:
        parts.append(f"Left out: {count(library.unusable, 'file')} that could not be tagged.")
    print(*parts, file=sys.stderr)


# Records of tagged files


@dataclass
class TaggedFile:
    """A file with some of its tags.

    Attributes:
        path: Its path, as in the first record.
        absolute_path: Its path when it was tagged, independent of the current folder; None if
            unknown.
        seconds: Its length; None if unknown.
        scores: The scores of the tags asked for, as far as its records have them.
    """

    path: str
    absolute_path: str | None = None
    seconds: float | None = None
    scores: dict[str, TagScore] = field(default_factory=dict)


class Library:
    """The files in outputs of `rfkeras tag`.

    Args:
        names: The tags whose scores are kept.

    Attributes:
        files: The tagged files. Records of the same file are merged; a later score replaces an
            earlier one.
        known: All tags in the records.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.files: dict[str, TaggedFile] = {}
        self.known: set[str] = set()
        self._names = tuple(names)
        self._failed: set[str] = set()

    @property
    def unusable(self) -> int:
        """Number of files that have no record but that of an error."""
        return len(self._failed - self.files.keys())

    def read(self, source: str) -> None:
        """Add the records in a file or folder; "-" is standard input.

        Raises:
            ConfigError: It cannot be read, or was not written by `rfkeras tag`.
        """
        for place, record in _records(source):
            try:
                with malformed():
                    self._add(record)
            except ValueError as error:
                raise _foreign(place) from error

    def _add(self, record: Mapping[str, Any]) -> None:
        path = printable(record["path"])
        absolute = record.get("absolute_path")
        key = path if absolute is None else str(absolute)
        if "error" in record:
            self._failed.add(key)
            return
        scores, applied = record["scores"], record["tags"]
        self.known.update(scores)
        file = self.files.setdefault(key, TaggedFile(path, absolute, record.get("seconds")))
        for name in self._names:
            if name in scores:
                file.scores[name] = TagScore(float(scores[name]), name in applied)


def _records(source: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield records, each with its place for messages."""
    if source == STANDARD_INPUT:
        yield from _json_lines("standard input", sys.stdin.buffer)
        return
    path = to_path(source)
    if not path.exists():
        raise ConfigError(f"{source} does not exist. Name an output of `rfkeras tag`.")
    if path.is_dir():
        sidecars = sorted(path.rglob(_SIDECARS))
        if not sidecars:
            raise ConfigError(f"The folder {source} has no {_SIDECARS} of `rfkeras tag`.")
        for sidecar in sidecars:
            yield from _json_documents(sidecar)
    elif path.suffix.lower() == ".json":
        yield from _json_documents(path)
    elif path.suffix.lower() == ".csv":
        yield from _csv_rows(path)
    else:
        with path.open("rb") as file:
            yield from _json_lines(source, file)


def _json_lines(place: str, lines: Iterable[bytes]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        here = f"{place}, line {number},"
        try:
            with malformed():
                record = json.loads(line)
        except ValueError as error:
            if not line.endswith(b"\n") and number > 1:
                return  # `rfkeras tag` was killed, or is still writing
            raise _foreign(here) from error
        yield here, record


def _json_documents(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the records of --format json, or the one of a sidecar."""
    try:
        with malformed():
            content = parse_json(read_text(path))
            records = content.get("files", [content])
    except ValueError as error:
        raise _foreign(str(path)) from error
    for record in records:
        yield str(path), record


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the rows of --format csv as records."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        try:
            with malformed():
                head = next(rows, [])
                if head[: len(_COLUMNS)] != _COLUMNS:
                    raise ValueError(f"its first columns are {', '.join(head[:5])}")
                for row in rows:
                    record = _csv_record(head[len(_COLUMNS) :], *row)
                    yield f"{path}, line {rows.line_num},", record
        except (ValueError, csv.Error) as error:
            raise _foreign(f"{path}, line {max(1, rows.line_num)},") from error


def _csv_record(
    names: Sequence[str], path: str, seconds: str, error: str, tags: str, _: str, *scores: str
) -> Mapping[str, Any]:
    """Return the record in a row of CSV."""
    if error:
        return {"path": path, "error": error}

    def between(text: str) -> str:
        return f"{TAG_SEPARATOR}{text}{TAG_SEPARATOR}"

    return {
        "path": path,
        "seconds": float(seconds),
        "tags": [name for name in names if between(name) in between(tags)],
        "scores": dict(zip(names, scores, strict=True)),
    }


def _foreign(place: str) -> ConfigError:
    return ConfigError(
        f"{place} was not written by `rfkeras tag` as JSON lines, JSON or CSV of whole files. "
        "Name its --output FILE.jsonl, FILE.json or FILE.csv, or its --output-dir."
    )


def _on_disk(path: str) -> str:
    """Return the path of a file whose name has bytes that are not UTF-8, see `printable`."""
    if not _ESCAPE.search(path) or os.path.lexists(path):
        return path
    restored = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), path)
    return restored if os.path.lexists(restored) else path


# Playlists


def write_playlist(path: Path, files: Sequence[TaggedFile]) -> None:
    """Write a playlist that players find the files with, wherever they start.

    Local paths are relative to the playlist, unless they were absolute.

    Args:
        path: The playlist, in UTF-8.
        files: Its files, in this order.
    """
    lines = ["#EXTM3U"]
    for file in files:
        seconds = -1 if file.seconds is None else round(file.seconds)
        title = Path(file.path).stem
        lines.append(f"#EXTINF:{seconds},{' '.join(title.split())}")
        lines.append(_playlist_entry(file, path))
    write_text(path, "\n".join(lines) + "\n")


def _playlist_entry(file: TaggedFile, playlist: Path) -> str:
    if is_remote(file.path):
        return file.path
    path = _on_disk(file.path)
    if file.absolute_path is not None and not os.path.lexists(path):
        path = _on_disk(file.absolute_path)  # tagged from another folder
    place = Path(path)
    if len(path.splitlines()) > 1 or path != path.strip() or printable(path) != path:
        return f"file://{quote(os.fsencode(place.absolute().as_posix()))}"  # no line of text
    if place.is_absolute() or isinstance(playlist, RemotePath):
        return str(place.absolute())
    # Links are resolved, because `..` after a link leads elsewhere.
    real = place.parent.resolve() / place.name
    try:
        entry = Path(os.path.relpath(real, playlist.parent.resolve())).as_posix()
    except ValueError:  # on another drive of Windows
        return str(real)
    return f"./{entry}" if entry.startswith("#") else entry
