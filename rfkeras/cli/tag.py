"""`rfkeras tag`: tag audio files, as a whole and over time."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rfkeras.cli.audio_job import (
    add_audio_arguments,
    check_output_file,
    decoder_of,
    finish,
    named_files,
    open_tagger,
    run_job,
    tag_options,
)
from rfkeras.cli.beam import add_beam_argument, run_tag
from rfkeras.cli.main import COMMANDS
from rfkeras.errors import AudioError, ConfigError
from rfkeras.utils.remote import RemotePath, to_path
from rfkeras.utils.table import (
    BAR_HEADING,
    Cell,
    Table,
    open_console,
    score_bar,
    shows_unicode,
)
from rfkeras.utils.text import clock, count

if TYPE_CHECKING:
    from rich.text import Text

    from rfkeras.audio.find import FoundFile
    from rfkeras.inference import ChunkTagger, TagResult
    from rfkeras.inference.batch import Display, FinishedSidecars, Journal
    from rfkeras.inference.html_pages import HtmlPages
    from rfkeras.inference.output import Outcome, TagRules, Write

    Output = Callable[[TagRules], AbstractContextManager[Write]]

_FORMATS = ("table", "json", "jsonl", "csv", "tsv", "jams", "segments")
_SUFFIXES = {
    ".txt": "table",
    ".json": "json",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
_PER_FILE = ("json", "jams", "segments")  # formats of --output-dir
_TOP = 5
_LEAST_WIDTH, _PIPED_WIDTH = 48, 100
_MOST_SPANS = 8


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "tag",
        help=COMMANDS["tag"],
        description=(
            "Show which tags (instruments, moods, ...) apply to audio files and, with "
            "--frames, when. Tags that apply (score at or above the threshold) have a *."
        ),
        epilog=(
            "Formats: json is one document. jsonl has one line per file, written as soon as "
            "the file is done. csv has one row per file (per frame with --frames), a "
            "column with the tags that apply, one with their thresholds, and the score of each "
            "tag. tsv has one row per file with only its path and the score of each tag. jams "
            "and segments write a file per audio file into --output-dir, with the times of "
            "the tags: jams is the JSON Annotated Music Specification; segments has lines of "
            "onset, offset (seconds) and tag, separated by tabs. "
            "To tag an archive, use --output X.jsonl or --output-dir DIR with "
            "--skip-existing: the same command then resumes after an interruption and retries "
            "files that failed. Files that cannot be used are listed on standard error and in "
            "the output. The exit status is then 1; after Ctrl-C it is 130, and 141 if the "
            "reader of standard output ends early, as in `| head`."
        ),
    )
    add_audio_arguments(parser, default_model=None)
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="one threshold for all tags (default: the thresholds saved in the model)",
    )
    parser.add_argument(
        "--frames", action="store_true", help="also show when each tag applies, per frame"
    )
    shown = parser.add_argument_group("output")
    shown.add_argument(
        "--format",
        choices=_FORMATS,
        help="output format (default: that of the --output file: .txt, .json, .jsonl, .csv or "
        ".tsv; json for --output-dir; otherwise table)",
    )
    shown.add_argument(
        "--top", type=int, default=_TOP, metavar="N", help=f"tags per table (default: {_TOP})"
    )
    where = shown.add_mutually_exclusive_group()
    where.add_argument(
        "--output",
        type=to_path,
        metavar="FILE",
        help="write to this file instead of standard output",
    )
    where.add_argument(
        "--output-dir",
        metavar="DIR",
        help="write one file per audio file, such as song.ogg.tags.json, in the same "
        "folder structure; with --format jams or segments: song.ogg.jams, "
        "song.ogg.segments.txt",
    )
    shown.add_argument(
        "--skip-existing",
        action="store_true",
        help="skip files already in --output X.jsonl, --output-dir or --html",
    )
    shown.add_argument(
        "--plot",
        type=to_path,
        metavar="PNG|DIR",
        help="draw spectrogram and tags over time: a .png file for one audio file, or a folder "
        "for one picture per file",
    )
    shown.add_argument(
        "--write-tags",
        action="store_true",
        help="show how the tags that apply would be written into the audio files, as the field "
        "RFKERAS_TAGS (needs the extra `tags`); nothing is written without --yes",
    )
    shown.add_argument("--yes", action="store_true", help="with --write-tags: write them")
    shown.add_argument(
        "--html",
        type=to_path,
        metavar="DIR",
        help="write pages to look at and listen to: DIR/index.html, a table of all songs, and "
        "one page per song; they open without a server",
    )
    shown.add_argument(
        "--copy-audio",
        action="store_true",
        help="with --html: copy the audio files into DIR, so that it can be moved",
    )
    parser.add_argument(
        "--shard-files",
        type=int,
        metavar="N",
        help="with --beam: approximate number of files per output shard (default: 200)",
    )
    add_beam_argument(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if options.model is None:
        _choose_model(options)
    if options.beam is not None:
        return run_tag(options)
    if options.output_dir is not None:
        options.output_dir = to_path(options.output_dir)
    kind = _checked_format(options)
    files = named_files(options)
    pictures = _pictures(options, files)
    pages = _pages(options, files)
    with ExitStack() as stack:
        output, is_done, earlier = _open(options, kind, files, pages, stack)
        waiting = [file for file in files if not is_done(file)]
        if earlier is not None and not options.quiet:
            _print_earlier(earlier)
        return _tag(options, waiting, len(files) - len(waiting), output, pictures, pages)


def _choose_model(options: argparse.Namespace) -> None:
    """Use the best packaged weights, and print what they do not know."""
    from zoo.pretrained import best_weights

    entry = best_weights()
    options.model = str(entry)
    if not options.quiet:
        known = f"{len(entry.labels)} tags"
        limits = f" {entry.limits}" if entry.limits else ""
        print(f"Model {entry} ({known}).{limits} Others: rfkeras models", file=sys.stderr)


def _checked_format(options: argparse.Namespace) -> str:
    """Check the flags and return the output format.

    Raises:
        ConfigError: Flags contradict each other or have wrong values.
    """
    if options.top < 1:
        raise ConfigError(f"--top must be at least 1. Received: {options.top}.")
    if options.shard_files is not None:
        raise ConfigError("--shard-files needs --beam.")
    if options.yes and not options.write_tags:
        raise ConfigError("--yes needs --write-tags.")
    if options.write_tags:
        from rfkeras.audio.file_tags import require_mutagen

        require_mutagen()
    path, kind = options.output, options.format
    if options.copy_audio and options.html is None:
        raise ConfigError("--copy-audio needs --html DIR.")
    if options.html is not None:
        if path is None and options.output_dir is None and kind is None:
            return "pages"
        if options.skip_existing:
            raise ConfigError(
                "--skip-existing works with --html or with another output, not with both. Run "
                "the command once for each."
            )
    if options.output_dir is not None:
        kind = kind or "json"
        if kind not in _PER_FILE:
            raise ConfigError(
                f"--output-dir writes files in the formats {', '.join(_PER_FILE)}. Use "
                f"--output for --format {kind}."
            )
        if kind == "segments" and options.skip_existing:
            raise ConfigError(
                "--skip-existing does not work with --format segments, whose files do not "
                "record what they were made from. Use --format jams or json."
            )
        if isinstance(options.output_dir, RemotePath):
            options.output_dir.check_writable()
        if options.output_dir.exists() and not options.output_dir.is_dir():
            raise ConfigError(f"--output-dir {options.output_dir} is not a folder.")
        options.frames |= kind != "json"  # the others consist of times
        return str(kind)
    if kind in ("jams", "segments"):
        raise ConfigError(
            f"--format {kind} writes one file per audio file: add --output-dir DIR."
        )
    if path is not None:
        check_output_file(path)
        by_ending = _SUFFIXES.get(path.suffix.lower())
        if by_ending is None or kind not in (None, by_ending):
            endings = ", ".join(f"{suffix} ({name})" for suffix, name in _SUFFIXES.items())
            raise ConfigError(
                f"--output must end in the suffix of its format: {endings}. Received: {path}"
                f"{'' if kind is None else f' with --format {kind}'}."
            )
        kind = by_ending
    if options.skip_existing and (path is None or kind != "jsonl"):
        raise ConfigError(
            "--skip-existing needs --output FILE.jsonl, --output-dir DIR or --html DIR."
        )
    if kind == "tsv" and options.frames:
        raise ConfigError("--format tsv has one row per file. Use --format csv for --frames.")
    return kind or "table"


def _pictures(options: argparse.Namespace, files: list[FoundFile]) -> dict[str, Path]:
    """Return the picture path of each audio file; empty without --plot.

    Raises:
        ConfigError: One picture was named for several files, or two pictures would have the
            same path.
    """
    from rfkeras.audio.find import output_paths

    path = options.plot
    if path is None:
        return {}
    if path.suffix.lower() != ".png" or path.is_dir():
        if path.exists() and not path.is_dir():
            raise ConfigError(f"--plot must be a .png file or a folder. Received: {path}.")
        targets = output_paths(path, files, ".png")
        return {file.name: target for file, target in zip(files, targets, strict=True)}
    if len(files) > 1:
        raise ConfigError(
            f"--plot {path} is one picture, but there are {len(files)} audio files. Use a "
            f"folder: --plot {path.with_suffix('')}."
        )
    return {files[0].name: path}


def _pages(options: argparse.Namespace, files: list[FoundFile]) -> HtmlPages | None:
    """Return the pages of --html; None without it."""
    if options.html is None:
        return None
    from rfkeras.inference.html_pages import HtmlPages

    job = replace(tag_options(options), frames=True).job()
    return HtmlPages(
        options.html, files, job, copy_audio=options.copy_audio, resume=options.skip_existing
    )


def _open(
    options: argparse.Namespace,
    kind: str,
    files: list[FoundFile],
    pages: HtmlPages | None,
    stack: ExitStack,
) -> tuple[Output, Callable[[FoundFile], bool], FinishedSidecars | HtmlPages | Journal | None]:
    """Return the output, a function of the tag rules; a test for finished files; and records.

    The records are those of an earlier command; None if the output cannot be resumed.
    """
    from rfkeras.audio.find import output_paths
    from rfkeras.inference import batch
    from rfkeras.inference import output as outputs

    if kind == "pages" and pages is not None:  # which `_tag` writes, and nothing else
        return lambda _: nullcontext(lambda _: None), pages.finished, pages
    if options.output_dir is not None:
        job = tag_options(options).job()
        paths = output_paths(options.output_dir, files, outputs.SIDECAR_SUFFIXES[kind])
        targets = {file.name: target for file, target in zip(files, paths, strict=True)}
        finished = batch.FinishedSidecars(targets, job, kind)
        return (
            lambda rules: batch.sidecars(targets, job, rules, kind),
            lambda file: options.skip_existing and finished(file),
            finished,
        )
    if kind == "jsonl" and options.output is not None:
        wanted = {file.key: file for file in files}
        journal = stack.enter_context(
            batch.open_journal(
                options.output,
                tag_options(options).job(),
                wanted,
                resume=options.skip_existing,
                files=wanted,
            )
        )
        return journal.writing, lambda file: file.key in journal.finished, journal

    @contextmanager
    def one_output(rules: TagRules) -> Iterator[Write]:
        # Data is always UTF-8; a table on the terminal has the terminal's encoding.
        encoding = sys.stdout.encoding if kind == "table" and not options.output else "utf-8"
        with outputs.text_output(options.output, encoding) as file:
            if kind == "table":
                opened = tag_tables(file, rules, top=options.top)
            elif kind == "csv":
                opened = outputs.csv_table(file, rules, frames=options.frames)
            elif kind == "tsv":
                opened = outputs.score_table(file, rules)
            else:
                json_output = outputs.json_lines if kind == "jsonl" else outputs.json_document
                opened = json_output(file, rules)
            with opened as write:
                yield write

    return one_output, lambda _: False, None


def _print_earlier(earlier: FinishedSidecars | HtmlPages | Journal) -> None:
    """Print what the sizes and times in the records of an earlier command show."""
    if earlier.replaced:
        print(
            f"Note: {count(earlier.replaced, 'file')} changed after tagging, and will be "
            "tagged again.",
            file=sys.stderr,
        )
    if earlier.unstamped:
        print(
            f"Note: {count(earlier.unstamped, 'file')} have records of version 0.1.0, without "
            "size and time. They count as done even if they were replaced.",
            file=sys.stderr,
        )


def _tag(
    options: argparse.Namespace,
    files: list[FoundFile],
    skipped: int,
    output: Output,
    pictures: dict[str, Path],
    pages: HtmlPages | None,
) -> int:
    from rfkeras.inference.batch import BatchSummary
    from rfkeras.utils.text import printable

    place = options.output_dir or options.output
    places = [] if place is None else [f"Tags: {printable(place)}"]
    places += [] if pages is None else [f"Pages: {printable(pages.index)}"]
    where = "; ".join(places)
    if not files:  # do not load the model, which takes seconds
        return finish(options, BatchSummary(0), "tagged", where, skipped=skipped)
    tagger = open_tagger(options)
    rules = tag_options(options).rules(tagger)
    writer = FileTagWriter(rules, options) if options.write_tags else None

    @contextmanager
    def opened(display: Display) -> Iterator[Write]:
        with output(rules) as write, _page_writer(pages, rules, tagger) as write_page:

            def write_all(outcome: Outcome) -> None:
                if outcome.result is not None and pictures:
                    from rfkeras.inference.plot import plot_tags

                    # Before the tags, because a file with tags counts as done.
                    plot_tags(pictures[outcome.file.name], tagger, rules, outcome)
                if outcome.result is not None and writer is not None:
                    # Before the page, which records size and time of the file.
                    outcome = writer.write(outcome, display)
                write_page(outcome)
                if outcome.result is not None and not options.frames:
                    whole = replace(outcome.result, frame_scores=None)
                    outcome = replace(outcome, result=whole)
                # The progress bar and the results may share a terminal.
                with display.hidden() if place is None else nullcontext():
                    write(outcome)

            yield write_all

    wanted = options.frames or bool(pictures) or pages is not None
    summary = run_job(options, tagger, files, opened, frames=wanted)
    if writer is not None and not options.quiet:
        print(writer.summary(), file=sys.stderr)
    return finish(options, summary, "tagged", where, skipped=skipped)


class FileTagWriter:
    """Writes the tags that apply into the audio files, or shows what it would write.

    Args:
        rules: Rules of the tags.
        options: The flags.
    """

    def __init__(self, rules: TagRules, options: argparse.Namespace) -> None:
        self._rules = rules
        self._writes: bool = options.yes
        self._decoder = decoder_of(options)
        self._changed = self._same = self._left = 0

    def write(self, outcome: Outcome, display: Display) -> Outcome:
        """Write the tags into a file.

        Returns:
            The outcome, with the size and time of the file as it is now.

        Raises:
            AudioError: The tags cannot be written; the file is as it was.
        """
        from rfkeras.audio.file_tags import FIELD, UntaggableError, plan_field, write_field
        from rfkeras.inference.output import Stamp

        assert outcome.result is not None
        file, tags = outcome.file, self._rules.tags_of(outcome.result)
        if outcome.stamp is not None and outcome.stamp.is_older(file):
            raise AudioError(file.name, "it changed while it was tagged")
        try:
            if self._writes:
                change = write_field(file.path, tags, decoder=self._decoder)
            else:
                change = plan_field(file.path, tags)
        except UntaggableError as error:
            self._left += 1
            display.note(f"{file.name}: no tags are written, because {error}")
            return outcome
        self._changed += change.is_needed
        self._same += not change.is_needed
        if self._writes:
            return replace(outcome, stamp=Stamp.of(file))
        if change.is_needed:
            before, after = change.before or "no tags", change.after or "no tags"
            display.note(f"{file.name}: {FIELD} would change from {before} to {after}")
        return outcome

    def summary(self) -> str:
        """Return what was done, as sentences."""
        changed = count(self._changed, "file")
        parts = [f"Tags written into {changed}"]
        if not self._writes:
            parts = [f"Tags would be written into {changed}"]
        if self._same:
            parts.append(f"{self._same:,} unchanged")
        if self._left:
            parts.append(f"{self._left:,} cannot carry tags")
        more = "" if self._writes else " Nothing was written; add --yes to write them."
        return ", ".join(parts) + f".{more}"


def _page_writer(
    pages: HtmlPages | None, rules: TagRules, tagger: ChunkTagger
) -> AbstractContextManager[Write]:
    """Return a function that writes the page of an outcome; one that does nothing for None."""
    if pages is None:
        return nullcontext(lambda _: None)
    from rfkeras.inference.html_pages import song_picture

    return pages.writing(rules, lambda outcome: song_picture(tagger, outcome))


@contextmanager
def tag_tables(file: TextIO, rules: TagRules, *, top: int) -> Iterator[Write]:
    """Write a table per file: tags, scores, bars, and a mark at tags that apply.

    Only terminals get colours; other outputs get plain text with 100 columns. Outputs that
    cannot show block characters get bars of `#`.

    Args:
        file: Text file to write to.
        rules: Rules of the tags.
        top: Number of rows per table.
    """
    from rfkeras.inference.output import shared_output

    console = open_console(file, least_width=_LEAST_WIDTH, piped_width=_PIPED_WIDTH)
    unicode = shows_unicode(console)

    def write(outcome: Outcome) -> None:
        with console.capture() as shown:
            for line in _heading(outcome):
                console.print(line, soft_wrap=True)
            if outcome.result is not None:
                table = tag_table(rules, outcome.result, top=top, unicode=unicode)
                console.print(table.to_rich())
            console.print()
        with shared_output(None):
            file.write(shown.get())
            file.flush()

    yield write


def _heading(outcome: Outcome) -> Iterator[Text]:
    from rich.text import Text

    from rfkeras.utils.text import printable

    if outcome.result is None:
        yield Text.assemble(
            (outcome.file.name, "bold"), "  ", (printable(outcome.error or ""), "red")
        )
    else:
        # Round up, so that no time in the file is later than its length.
        length = clock(math.ceil(outcome.result.seconds))
        yield Text.assemble((outcome.file.name, "bold"), f"  {length}")


def tag_table(rules: TagRules, result: TagResult, *, top: int, unicode: bool = True) -> Table:
    """Return the table of one file, with the most important tags first.

    Args:
        rules: Rules of the tags.
        result: Result of the file.
        top: Number of rows.
        unicode: Draw the bars with block characters; otherwise with `#`.
    """
    from rfkeras.inference.output import spans_text

    framed = result.frame_scores is not None
    applies = rules.applies(result.scores)
    table = Table(
        ["", "tag", "score", "threshold", BAR_HEADING, *(["when"] if framed else [])],
        right=["score", "threshold"],
        fixed=["", BAR_HEADING],
    )
    spans = rules.spans(result) if framed else []
    for tag in rules.ranking(result)[:top]:
        style = "bold" if applies[tag] else ""
        threshold = "" if rules.thresholds is None else f"{rules.thresholds[tag]:.2f}"
        score = float(result.scores[tag])
        table.add_row(
            "*" if applies[tag] else "",
            Cell(rules.names[tag], style),
            Cell(f"{score:.3f}", style),
            threshold,
            Cell(score_bar(score, unicode), "cyan"),
            *([spans_text(spans[tag], _MOST_SPANS)] if framed else []),
        )
    return table
