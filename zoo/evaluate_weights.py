"""Evaluate packaged weights on sets of labelled clips, and compare weights of one model.

`python -m zoo.evaluate_weights --set composed=music:all --gcompris instruments.rcc`

Each set is used if its flag is given. For each set and model the table shows the mean average
precision of every weights of the model and the difference from the first of them, all with
95 % bootstrap intervals over the clips. The same resamples are used for all weights, so the
differences are paired. The intervals treat clips as independent, which excerpts of one song are
not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.io import AudioFormat, read_audio
from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.evaluation.bootstrap import (
    Interval,
    bootstrap_intervals,
    bootstrap_mean_average_precision,
)
from rfkeras.evaluation.calibration import expected_calibration_error
from rfkeras.evaluation.metrics import (
    average_precision,
    check_scored,
    f1,
    mean_of_defined,
    positive_rate,
    probabilities,
)
from rfkeras.evaluation.result import ClipScores
from rfkeras.tasks import DEFAULT_THRESHOLD, MULTI_LABEL
from rfkeras.utils.files import default_cache_dir, write_text
from rfkeras.utils.progress import track
from zoo.evaluation_sets import (
    GCOMPRIS,
    MIDI_BANDS,
    EvaluationSet,
    folder_set,
    gcompris_set,
    midi_set,
)
from zoo.pretrained import find_weights, load_model, read_index

JSON_FILE, TABLE_FILE = "evaluation.json", "evaluation.md"
SAMPLES = 1000

_BATCH = 8
_BYTES_PER_BATCH = 16e6


@dataclass(frozen=True)
class Candidate:
    """Weights to evaluate.

    Attributes:
        weights: "MODEL:WEIGHTS".
        source: What `load_model` opens.
    """

    weights: str
    source: str

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.weights.partition(":")[0]


@dataclass(frozen=True)
class WeightsResult:
    """The metrics of one set of weights on a test set.

    Attributes:
        weights: "MODEL:WEIGHTS".
        model: Name of the model.
        mean_average_precision: Mean over the tags that occur, with its interval.
        average_precision: By tag, with intervals; tags that occur only.
        f1: Mean F1 of these tags with the thresholds saved in the model.
        calibration_error: Mean expected calibration error of the annotated tags.
        top_1: Share of the clips of one class whose class has the highest score; None for
            sets of several classes per clip.
        difference: Mean average precision minus that of the first weights of the same model;
            None for the first.
    """

    weights: str
    model: str
    mean_average_precision: Interval
    average_precision: dict[str, Interval]
    f1: float
    calibration_error: float
    top_1: float | None
    difference: Interval | None


@dataclass(frozen=True)
class SetResult:
    """The metrics of all weights on a test set.

    Attributes:
        name: Name of the set.
        description: What its clips are.
        clips: Number of clips.
        positive: Number of positives by tag; tags that occur only.
        annotated: Number of known labels of these tags.
        chance: Average precision of a random ranking, by tag.
        weights: Results of each weights.
    """

    name: str
    description: str
    clips: int
    positive: dict[str, int]
    annotated: dict[str, int]
    chance: dict[str, float]
    weights: tuple[WeightsResult, ...]

    @property
    def mean_chance(self) -> float:
        """Mean average precision of a random ranking."""
        return mean_of_defined(np.array([*self.chance.values()]))


def evaluate_set(
    test: EvaluationSet,
    candidates: Sequence[Candidate],
    *,
    samples: int = SAMPLES,
    open_model: Callable[[str], Any] = load_model,
    quiet: bool = False,
) -> SetResult:
    """Evaluate weights on a set.

    Args:
        test: The set.
        candidates: The weights; those of one model in the order from before to after.
        samples: Number of bootstrap resamples.
        open_model: Loads the model of a source.
        quiet: Show no progress.

    Raises:
        ConfigError: Weights lack a class that occurs in the set.
        AudioError: A clip cannot be read.
    """
    from zoo.tagger import label_names  # imports TensorFlow

    positives = (test.clips.labels * test.clips.mask).sum(axis=0)
    columns = np.flatnonzero(positives >= test.least_positives)
    names = [test.label_names[column] for column in columns]
    labels, mask = test.clips.labels[:, columns], test.clips.mask[:, columns]
    results: list[WeightsResult] = []
    first: dict[str, Any] = {}
    for candidate in candidates:
        model = open_model(candidate.source)
        known = label_names(model)
        missing = [name for name in names if name not in known]
        if missing:
            raise ConfigError(
                f"{candidate.weights} has no tag {', '.join(missing)}, which set "
                f"{test.name!r} contains."
            )
        label = f"{test.name}: {candidate.weights}"
        logits = clip_logits(model, test, label=label, quiet=quiet)
        everything = probabilities(logits, MULTI_LABEL)
        own = [known.index(name) for name in names]
        scores = everything[:, own]
        thresholds = model.head.thresholds or [DEFAULT_THRESHOLD] * len(known)
        scored = check_scored(scores, labels, mask)
        clips = ClipScores(scored.scores, scored.labels, scored.mask, np.array(test.clips.keys))
        replicates = bootstrap_mean_average_precision([clips], samples)
        bounds = bootstrap_intervals(scores, labels, mask, samples=samples).average_precision
        values = average_precision(scores, labels, mask).values
        before = first.setdefault(candidate.model, replicates)
        results.append(
            WeightsResult(
                weights=candidate.weights,
                model=candidate.model,
                mean_average_precision=replicates.interval,
                average_precision={
                    name: Interval(float(value), float(low), float(high))
                    for name, value, (low, high) in zip(names, values, bounds, strict=True)
                },
                f1=f1(
                    scores, labels, mask, threshold=[thresholds[column] for column in own]
                ).macro,
                calibration_error=mean_of_defined(
                    expected_calibration_error(scores, labels, mask)
                ),
                top_1=_top_1(everything, known, names, labels) if test.single else None,
                difference=None if before is replicates else replicates.minus(before),
            )
        )
    rates = positive_rate(labels, mask).values
    return SetResult(
        name=test.name,
        description=test.description,
        clips=len(test.clips),
        positive=dict(zip(names, map(int, (labels * mask).sum(axis=0)), strict=True)),
        annotated=dict(zip(names, map(int, mask.sum(axis=0)), strict=True)),
        chance=dict(zip(names, map(float, rates), strict=True)),
        weights=tuple(results),
    )


def _top_1(
    scores: NDArray[np.float64], known: Sequence[str], names: Sequence[str], labels: Any
) -> float:
    """Return the share of clips with a class whose class has the highest score of all tags."""
    named = labels.any(axis=1)
    best = scores[named].argmax(axis=1)
    true = [known.index(names[column]) for column in labels[named].argmax(axis=1)]
    return float(np.mean(best == np.array(true)))


def clip_logits(
    model: Any, test: EvaluationSet, *, label: str = "Scoring", quiet: bool = False
) -> NDArray[np.float64]:
    """Return the logits of all clips in float64, (clips, classes of the model).

    Args:
        model: A tagger of the zoo.
        test: The set.
        label: Name of the job in the progress bar.
        quiet: Show no progress.

    Raises:
        AudioError: A clip cannot be read.
        ConfigError: The model takes spectrograms.
    """
    from rfkeras.frontend import find_frontend

    frontend = find_frontend(model)
    if frontend is None:
        raise ConfigError(f"{label}: the model takes no waveforms.")
    channels = 2 if len(model.inputs[0].shape) == 3 else 1
    audio = AudioFormat(frontend.sample_rate_hz, channels)
    read = (read_audio(path, audio) for path in test.clips.paths)
    tracked = track(read, len(test.clips), label, unit="clips", quiet=quiet, plain_lines=2)
    logits = [model.read(np.stack(batch)).logits for batch in _batches(tracked)]
    return np.concatenate([np.asarray(rows, np.float64) for rows in logits])


def _batches(waveforms: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield consecutive waveforms of one length, at most 8 and not too many bytes at once."""
    for _, run in itertools.groupby(waveforms, key=len):
        batch: list[Any] = []
        for waveform in run:
            batch.append(waveform)
            if len(batch) == _BATCH or waveform.nbytes * len(batch) > _BYTES_PER_BATCH:
                yield batch
                batch = []
        if batch:
            yield batch


def write_table(results: Sequence[SetResult]) -> str:
    """Return the results in Markdown: one table of the means, one of the tags per set."""
    lines = [
        "| set | clips | tags | chance | model | weights | mAP (95 % CI) "
        "| difference (95 % CI) | F1 | ECE | top-1 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        start = (
            f"| {result.name} | {result.clips} | {len(result.chance)} "
            f"| {result.mean_chance:.3f} |"
        )
        for row in result.weights:
            name = row.weights.partition(":")[2]
            top = "" if row.top_1 is None else f"{row.top_1:.2f}"
            difference = "" if row.difference is None else shown(row.difference, sign="+")
            lines.append(
                f"{start} {row.model} | {name} | {shown(row.mean_average_precision)} "
                f"| {difference} | {row.f1:.3f} | {row.calibration_error:.3f} | {top} |"
            )
    for result in results:
        heads = "".join(f" {row.weights} |" for row in result.weights)
        lines += [
            f"\n## {result.name}: average precision by tag (95 % CI)\n",
            f"{result.description}\n",
            f"| tag | positive of annotated | chance |{heads}",
            "|---|---|---|" + "---|" * len(result.weights),
        ]
        for tag, chance in result.chance.items():
            cells = "".join(f" {shown(row.average_precision[tag])} |" for row in result.weights)
            counts = f"{result.positive[tag]} of {result.annotated[tag]}"
            lines.append(f"| {tag} | {counts} | {chance:.3f} |{cells}")
    return "\n".join(lines) + "\n"


def shown(interval: Interval, sign: str = "") -> str:
    """Return an interval as "0.612 (0.580-0.641)"; `sign` "+" shows signs, for differences."""
    value, low, high = interval.value, interval.low, interval.high
    between = " to " if sign else "-"
    return f"{value:{sign}.3f} ({low:{sign}.3f}{between}{high:{sign}.3f})"


def as_json(results: Sequence[SetResult]) -> str:
    """Return the results as JSON: a list of `SetResult`, with null for undefined numbers."""
    rows = [_without_nan(asdict(result)) for result in results]
    return json.dumps({"format": 1, "sets": rows}, indent=2, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def chosen_weights(names: Sequence[str]) -> list[Candidate]:
    """Return the named weights; without names, all multi-label weights in the package.

    Args:
        names: "MODEL:WEIGHTS" each, or "MODEL" for all weights of that model, or
            "MODEL:WEIGHTS=FILE.keras" for a file that is not in the package.

    Raises:
        ConfigError: A name is unknown.
    """
    entries = [entry for entry in read_index() if entry.task == MULTI_LABEL]
    packaged = [(entry.model, Candidate(str(entry), str(entry))) for entry in entries]
    chosen: list[Candidate] = []
    for name in names:
        weights, equals, file = name.partition("=")
        if equals:
            chosen.append(Candidate(weights, file))
            continue
        own = [candidate for model, candidate in packaged if model == name]
        found = str(find_weights(name)) if not own else ""
        chosen += own or [Candidate(found, found)]
    return chosen or [candidate for _, candidate in packaged]


def _sets(options: argparse.Namespace) -> list[EvaluationSet]:
    """Open the sets that the flags name, and print which are left out.

    Raises:
        ConfigError: No set is left, or --only names an unknown one.
    """
    cache = options.cache or default_cache_dir() / "evaluation"
    makers: dict[str, Callable[[], EvaluationSet]] = {}
    for text in options.set:
        makers[text.partition("=")[0]] = lambda text=text: folder_set(text)  # type: ignore[misc]
    if options.midi and options.sound_font:
        makers[MIDI_BANDS] = lambda: midi_set(
            options.midi, options.sound_font, cache, quiet=options.quiet
        )
    else:
        _say(f"Skipping {MIDI_BANDS}: give --midi and --sound-font.")
    if options.gcompris is not None:
        makers[GCOMPRIS] = lambda: gcompris_set(options.gcompris, cache)
    else:
        _say(f"Skipping {GCOMPRIS}: give --gcompris.")
    unknown = [name for name in options.sets if name not in makers]
    if unknown or not makers:
        raise ConfigError(
            f"There is no set {', '.join(unknown) or 'to evaluate on'}. Sets: "
            f"{', '.join(makers) or 'none; give --set, --midi or --gcompris'}."
        )
    opened = [
        make() for name, make in makers.items() if not options.sets or name in options.sets
    ]
    return [test.limited(options.limit) for test in opened]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m zoo.evaluate_weights",
        description="Evaluate packaged weights on sets of labelled clips.",
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="MODEL[:WEIGHTS[=FILE]]",
        help="weights to evaluate, those before first; FILE is a .keras file that is not in "
        "the package (default: all in the package)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=DIR[:SPLIT]",
        help="folder in the layout of OpenMIC-2018, such as one of `rfkeras data compose`; "
        "SPLIT is train, validation, test (the default) or all; can be repeated",
    )
    parser.add_argument(
        "--midi",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="MIDI files, folders with MIDI files, or .wad archives of games",
    )
    parser.add_argument(
        "--sound-font", type=Path, metavar="FILE", help="sound font (.sf2) that plays --midi"
    )
    parser.add_argument(
        "--gcompris",
        type=Path,
        metavar="FILE",
        help="instruments.rcc of GCompris (Debian: package gcompris-qt-data, "
        "/usr/share/gcompris-qt/rcc/instruments.rcc)",
    )
    parser.add_argument("--sets", nargs="+", default=[], metavar="NAME", help="only these sets")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="use at most N clips of each set"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=SAMPLES,
        metavar="N",
        help=f"bootstrap resamples (default: {SAMPLES})",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder for rendered and extracted clips"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help=f"write {JSON_FILE} and {TABLE_FILE} into this folder",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    options = parser.parse_args(arguments)
    try:
        candidates = chosen_weights(options.weights)
        results = [
            evaluate_set(test, candidates, samples=options.samples, quiet=options.quiet)
            for test in _sets(options)
        ]
        table = write_table(results)
        if options.output is not None:
            write_text(options.output / JSON_FILE, as_json(results))
            write_text(options.output / TABLE_FILE, table)
    except (RFKerasError, OSError) as error:
        print(f"zoo.evaluate_weights: error: {error}", file=sys.stderr)
        return 1
    print(table, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
