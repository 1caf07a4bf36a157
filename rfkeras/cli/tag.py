"""`rfkeras tag`: the tags of audio files, of the whole and over time."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rfkeras.cli.audio_job import (
    add_audio_arguments,
    check_output_file,
    finish,
    named_files,
    open_tagger,
    run_job,
)
from rfkeras.cli.beam import add_beam_argument, run_tag
from rfkeras.cli.main import COMMANDS
from rfkeras.errors import ConfigError
from rfkeras.evaluation.table import bar
from rfkeras.inference.audio_files import printable
from rfkeras.inference.output import Outcome, TagRules, Write, clock, spans_text

if TYPE_CHECKING:
    from rfkeras.inference import TagResult

if TYPE_CHECKING:
    from rfkeras.inference.audio_files import FoundFile
    from rfkeras.inference.batch import Display
    from rfkeras.inference.output import Outcome, TagRules, Write

    Output = Callable[[TagRules], AbstractContextManager[Write]]

_FORMATS = ("table", "json", "jsonl", "csv")
_SUFFIXES = {".txt": "table", ".json": "json", ".jsonl": "jsonl", ".csv": "csv"}
_TOP = 5


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "tag",
        help=COMMANDS["tag"],
        description=(
            "Say which tags (instruments, moods, ...) audio files have, and with --frames "
            "when. Tags whose score reaches their threshold apply, and are marked with *."
        ),
        epilog=(
            "json is one document, jsonl a line a file as soon as it is done, csv a row a file "
            "(with --frames a row a frame) with a column a tag. For archives: --output X.jsonl "
            "or --output-dir DIR with --skip-existing goes on where it was interrupted, and "
            "tries again what could not be read. A file that cannot be used is named on "
            "standard error and in the output; the exit status is then 1, and 130 after "
            "Ctrl-C."
        ),
    )
    add_audio_arguments(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="score from which every tag applies (default: those stored with the model)",
    )
    parser.add_argument(
        "--frames", action="store_true", help="also when each tag applies, frame by frame"
    )
    shown = parser.add_argument_group("output")
    shown.add_argument(
        "--format",
        choices=_FORMATS,
        help="(table; with --output by its ending: .txt, .json, .jsonl, .csv)",
    )
    shown.add_argument(
        "--top", type=int, default=_TOP, metavar="N", help=f"rows of a table ({_TOP})"
    )
    where = shown.add_mutually_exclusive_group()
    where.add_argument(
        "--output", type=Path, metavar="FILE", help="write there, not to standard output"
    )
    where.add_argument(
        "--output-dir",
        metavar="DIR",
        help="write a file for each: song.ogg.tags.json, in the same tree as the audio",
    )
    shown.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave out files whose tags stand in --output X.jsonl or --output-dir",
    )
    shown.add_argument(
        "--plot",
        type=Path,
        metavar="PNG|DIR",
        help="draw spectrogram and tags over time: a .png of one file, or a folder with "
        "song.ogg.png for each",
    )
    parser.add_argument(
        "--shard-files",
        type=int,
        metavar="N",
        help="files whose tags --beam writes at once, about (200)",
    )
    add_beam_argument(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if options.beam is not None:
        return run_tag(options)
    if options.output_dir is not None:
        options.output_dir = Path(options.output_dir)
    kind = _checked_format(options)
    files = named_files(options)
    pictures = _pictures(options, files)
    with ExitStack() as stack:
        output, is_done = _open(options, kind, files, stack)
        waiting = [file for file in files if not is_done(file)]
        return _tag(options, waiting, len(files) - len(waiting), output, pictures)


def _checked_format(options: argparse.Namespace) -> str:
    """The format, of flags that go together.

    Raises:
        ConfigError: They do not.
    """
    if options.top < 1:
        raise ConfigError(f"--top takes a number from 1. Received: {options.top}.")
    if options.shard_files is not None:
        raise ConfigError("--shard-files goes with --beam alone.")
    path, kind = options.output, options.format
    if options.output_dir is not None:
        if kind not in (None, "json"):
            raise ConfigError(
                f"--output-dir writes JSON files; --format {kind} needs --output."
            )
        if options.output_dir.exists() and not options.output_dir.is_dir():
            raise ConfigError(f"--output-dir {options.output_dir} is not a folder.")
        return "json"
    if path is not None:
        check_output_file(path)
        by_ending = _SUFFIXES.get(path.suffix.lower())
        if by_ending is None or kind not in (None, by_ending):
            endings = ", ".join(f"{suffix} ({name})" for suffix, name in _SUFFIXES.items())
            raise ConfigError(
                f"The ending of --output gives the format: {endings}. Received: {path}"
                f"{'' if kind is None else f' with --format {kind}'}."
            )
        kind = by_ending
    if options.skip_existing and (path is None or kind != "jsonl"):
        raise ConfigError(
            "--skip-existing goes on with what stands in --output X.jsonl or --output-dir DIR. "
            "Name one of them."
        )
    return kind or "table"


def _pictures(options: argparse.Namespace, files: list[FoundFile]) -> dict[str, Path]:
    """Where the picture of each file goes; empty without --plot.

    Raises:
        ConfigError: One picture was named for several files, or two would be the same.
    """
    from rfkeras.inference.audio_files import beside

    path = options.plot
    if path is None:
        return {}
    if path.suffix.lower() != ".png" or path.is_dir():
        if path.exists() and not path.is_dir():
            raise ConfigError(f"--plot takes a .png file or a folder. Received: {path}.")
        targets = beside(path, files, ".png")
        return {file.name: target for file, target in zip(files, targets, strict=True)}
    if len(files) > 1:
        raise ConfigError(
            f"--plot {path} is one picture, and there are {len(files)} files. Name a folder: "
            f"--plot {path.with_suffix('')}."
        )
    return {files[0].name: path}


def _open(
    options: argparse.Namespace, kind: str, files: list[FoundFile], stack: ExitStack
) -> tuple[Output, Callable[[FoundFile], bool]]:
    """(the output, to be opened by the tags' rules; whether a file is done already)."""
    from rfkeras.inference import batch
    from rfkeras.inference import output as outputs
    from rfkeras.inference.audio_files import beside

    def job() -> batch.Job:
        return batch.Job.of(options.model, options.threshold, frames=options.frames)

    if options.output_dir is not None:
        of_dir = job()
        paths = beside(options.output_dir, files, batch.SIDECAR_SUFFIX)
        targets = {file.name: target for file, target in zip(files, paths, strict=True)}
        return (
            lambda rules: batch.sidecars(targets, of_dir, rules),
            lambda file: (
                options.skip_existing and batch.has_sidecar(targets[file.name], file, of_dir)
            ),
        )
    if kind == "jsonl" and options.output is not None:
        wanted = {file.key for file in files}
        journal = stack.enter_context(
            batch.open_journal(options.output, job(), wanted, resume=options.skip_existing)
        )
        return journal.writing, lambda file: file.key in journal.finished

    @contextmanager
    def to_one(rules: TagRules) -> Iterator[Write]:
        # Data is UTF-8 everywhere; a table has the terminal's own encoding.
        encoding = sys.stdout.encoding if kind == "table" and not options.output else "utf-8"
        with outputs.text_output(options.output, encoding) as file:
            if kind == "table":
                opened = tag_tables(file, rules, top=options.top)
            elif kind == "csv":
                opened = outputs.csv_table(file, rules, frames=options.frames)
            else:
                of_kind = outputs.json_lines if kind == "jsonl" else outputs.json_document
                opened = of_kind(file, rules)
            with opened as write:
                yield write

    return to_one, lambda _: False


def _tag(
    options: argparse.Namespace,
    files: list[FoundFile],
    skipped: int,
    output: Output,
    pictures: dict[str, Path],
) -> int:
    from rfkeras.inference.audio_files import printable
    from rfkeras.inference.batch import Tally
    from rfkeras.inference.output import TagRules

    place = options.output_dir or options.output
    where = "" if place is None else f"Tags: {printable(place)}"
    if not files:  # the model, which takes seconds to load, is not needed
        return finish(options, Tally(0), "tagged", where, skipped=skipped)
    tagger = open_tagger(options)
    rules = TagRules.of(tagger, options.model, options.threshold)

    @contextmanager
    def opened(display: Display) -> Iterator[Write]:
        with output(rules) as write:

            def write_all(outcome: Outcome) -> None:
                if outcome.result is not None and pictures:
                    from rfkeras.inference.plot import plot_tags

                    # Before the tags: a file whose tags stand there is done.
                    plot_tags(pictures[outcome.file.name], tagger, rules, outcome)
                    if not options.frames:
                        whole = replace(outcome.result, frame_scores=None)
                        outcome = replace(outcome, result=whole)
                # The bar and the results may share a terminal.
                with display.hidden() if place is None else nullcontext():
                    write(outcome)

            yield write_all

    wanted = options.frames or bool(pictures)
    tally = run_job(options, tagger, files, opened, frames=wanted)
    return finish(options, tally, "tagged", where, skipped=skipped)


_NARROWEST, _PIPED = 48, 100
_MOST_SPANS = 8


@contextmanager
def tag_tables(file: TextIO, rules: TagRules, *, top: int) -> Iterator[Write]:
    """A table for each file: tags, scores, bars, and a mark on those that apply.

    Colours appear on a terminal only; elsewhere the lines are plain text of 100 columns. An
    output that cannot show block characters gets bars of `#`.

    Args:
        file: Where to.
        rules: The tags.
        top: Rows of a table.
    """
    console = Console(file=file, highlight=False, markup=False, emoji=False)
    console.width = max(console.width, _NARROWEST) if console.is_terminal else _PIPED
    unicode = (file.encoding or "utf-8").lower().startswith("utf")

    def write(outcome: Outcome) -> None:
        for line in _heading(outcome):
            console.print(line, soft_wrap=True)
        if outcome.result is not None:
            console.print(tag_table(rules, outcome.result, top=top, unicode=unicode))
        console.print()
        file.flush()

    yield write


def _heading(outcome: Outcome) -> Iterator[Text]:
    if outcome.result is None:
        yield Text.assemble(
            (outcome.file.name, "bold"), "  ", (printable(outcome.error or ""), "red")
        )
    else:
        # Rounded up, so that no time in the file is later than its length.
        length = clock(math.ceil(outcome.result.seconds))
        yield Text.assemble((outcome.file.name, "bold"), f"  {length}")


def tag_table(rules: TagRules, result: TagResult, *, top: int, unicode: bool = True) -> Table:
    """The tags of one file, those that matter most first.

    Args:
        rules: The tags.
        result: What the model says of it.
        top: Rows.
        unicode: Draw the bars with block characters; otherwise with `#`.
    """
    framed = result.frame_scores is not None
    applies = rules.applies(result.scores)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    table.add_column("", no_wrap=True)
    table.add_column("tag", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("cut", justify="right", no_wrap=True)
    table.add_column(f"0{'1':>9}", no_wrap=True, min_width=10)
    if framed:
        table.add_column("when", overflow="fold", ratio=1)
    spans = rules.spans(result) if framed else []
    for tag in rules.ranking(result)[:top]:
        style = "bold" if applies[tag] else ""
        cut = "" if rules.thresholds is None else f"{rules.thresholds[tag]:.2f}"
        score = float(result.scores[tag])
        table.add_row(
            "*" if applies[tag] else "",
            Text(rules.names[tag], style),
            Text(f"{score:.3f}", style),
            cut,
            Text(bar(score, unicode), "cyan"),
            *([spans_text(spans[tag], _MOST_SPANS)] if framed else []),
        )
    return table
