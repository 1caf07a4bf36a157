"""Publish a trained .keras file, which did not come from a run folder, as pretrained weights.

`python -m tools.publish_trained MODEL.keras --weights NAME --training MODEL.json
--evaluation evaluation.json --data DIR`

Copies the model into zoo/weights and writes its card and the index. What the card says comes
from files: the record of the training (model, options, settings, device, seconds, curve), the
results of `zoo.evaluate_weights`, what `tools.calibrate` wrote next to the model, and the
descriptions of the composed training data with the credits of the recordings.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfkeras.errors import CheckpointError, ConfigError, RFKerasError
from rfkeras.synthesis.clip_files import COMPOSED
from rfkeras.utils.files import atomic_write, read_json, write_text
from tools.calibrate import json_file, picture_file
from tools.publish_weights import (
    add_to_index,
    check_weights_name,
    font_licence,
    summary_section,
    table_row,
)
from zoo.pretrained import FOLDER, PretrainedWeights, load_model, sha256_of
from zoo.registry import model_info

CURVE_ROWS = 8
_CONTENT = "an evaluation of zoo.evaluate_weights"


@dataclass(frozen=True)
class Trained:
    """The contents of a card.

    Attributes:
        entry: Entry of the index.
        record: What the training wrote: model, options, settings, clips, device, seconds,
            curve. Other entries are shown as they are.
        sets: Results by set, as `zoo.evaluate_weights` writes them.
        calibration: What `tools.calibrate` wrote; None if the model is not calibrated.
        picture: Name of the reliability diagram; None if there is none.
        data: Descriptions of the composed training data.
        unknown: Sentences on what the model does not know.
        commit: Commit of the code; None if unknown.
        bytes: Size of the file with the weights.
    """

    entry: PretrainedWeights
    record: Mapping[str, Any]
    sets: Sequence[Mapping[str, Any]]
    calibration: Mapping[str, Any] | None
    picture: str | None
    data: Sequence[Mapping[str, Any]]
    unknown: Sequence[str]
    commit: str | None
    bytes: int


def write_card(trained: Trained, model: Any) -> str:
    """Return the card in Markdown.

    Args:
        trained: Contents of the card.
        model: The model, for its parameters and receptive field.
    """
    parts = [
        f"# {trained.entry}\n",
        summary_section(trained.entry, model, trained.bytes),
        _use(trained),
        _scores(trained),
        _tags(trained),
        _calibration(trained),
        _data(trained),
        _training(trained),
        _licence(trained),
    ]
    return "\n".join(part for part in parts if part)


def _use(trained: Trained) -> str:
    lines = [
        "## Use and limits\n",
        f"Use it to tag instruments, or as a starting point for fine-tuning (`--init-weights "
        f"{trained.entry}`). Do not use it for decisions about people or rights.\n",
        "What it does not know:\n",
        *(f"- {sentence}" for sentence in trained.unknown),
    ]
    return "\n".join([*lines, ""])


def _own(trained: Trained, found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the results of the published weights on a set."""
    for row in found["weights"]:
        if row["weights"] == str(trained.entry):
            return dict(row)
    evaluated = ", ".join(row["weights"] for row in found["weights"])
    raise ConfigError(
        f"The evaluation on {found['name']!r} has no results of {trained.entry}. Evaluated: "
        f"{evaluated}. Evaluate the file with --weights {trained.entry}=FILE.keras."
    )


def _first(trained: Trained) -> str:
    """Return the name of the weights that the others are compared with."""
    rows = trained.sets[0]["weights"] if trained.sets else ()
    names = [row["weights"] for row in rows if row["model"] == trained.entry.model]
    return f"`{names[0].partition(':')[2]}`" if names else "before"


def _interval(value: Mapping[str, float], sign: str = "") -> str:
    low, high = value["low"], value["high"]
    return f"{value['value']:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def _scores(trained: Trained) -> str:
    lines = [
        "## Scores\n",
        "Mean average precision over the tags that occur, with 95 % bootstrap intervals over "
        "the clips. The difference is from the first weights of this model that were "
        "evaluated, on the same resamples. F1 is that of the saved thresholds, ECE the "
        "expected calibration error, top-1 the share of single sounds whose class has the "
        "highest score.\n",
        f"| set | clips | tags | chance | mAP (95 % CI) | {_first(trained)} | difference "
        "(95 % CI) | F1 | ECE | top-1 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for found in trained.sets:
        own = _own(trained, found)
        chance = [*found["chance"].values()]
        before = next(row for row in found["weights"] if row["model"] == own["model"])
        compared = own["difference"] is not None
        cells = (
            found["name"],
            found["clips"],
            len(chance),
            f"{sum(chance) / len(chance):.3f}",
            _interval(own["mean_average_precision"]),
            f"{before['mean_average_precision']['value']:.3f}" if compared else "",
            _interval(own["difference"], "+") if compared else "",
            _number(own["f1"]),
            _number(own["calibration_error"]),
            _number(own["top_1"]),
        )
        lines.append(table_row(cells))
    lines += ["", *(f"- {found['name']}: {found['description']}" for found in trained.sets)]
    return "\n".join([*lines, ""])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _tags(trained: Trained) -> str:
    heads = ["tag", *(f"AP, {found['name']}" for found in trained.sets)]
    rows = {} if trained.calibration is None else trained.calibration["tags"]
    thresholds = {row["name"]: row["threshold"] for row in rows}
    if thresholds:
        heads.append("threshold")
    lines = [table_row(heads), "|" + "---|" * len(heads)]
    for tag in trained.entry.labels:
        cells = [tag]
        for found in trained.sets:
            precision = _own(trained, found)["average_precision"].get(tag)
            cells.append("-" if precision is None else _interval(precision))
        if thresholds:
            cells.append(f"{thresholds[tag]:.2f}")
        lines.append(table_row(cells))
    return "\n".join([*lines, ""])


def _calibration(trained: Trained) -> str:
    found = trained.calibration
    if found is None:
        return ""
    errors = found["calibration_error"]
    kept = "a scale and a bias" if found["bias"] else "a scale"
    thresholds = "Thresholds maximise F1 on these clips"
    if found["negatives"]:
        thresholds += (
            f", and are above the scores of 99 % of {found['negatives']} sounds without "
            "instruments"
        )
    thresholds += ". F1 and calibration error on these clips, in the tables, are optimistic"
    verb = "were" if found["bias"] else "was"
    lines = [
        "## Calibration\n",
        f"{kept.capitalize()} of each tag's logits {verb} fitted on {found['clips']} clips "
        f"({found['data'].rstrip('.')}) that training did not use. Expected calibration error "
        f"by cross-validation: {errors['before']:.3f} before, {errors['after']:.3f} after. "
        f"{thresholds}.\n",
    ]
    if trained.picture is not None:
        lines.append(f"![Reliability before and after calibration]({trained.picture})\n")
    return "\n".join(lines)


def _data(trained: Trained) -> str:
    lines = ["## Data\n", "| | |", "|---|---|"]
    for name, number in trained.record.get("clips", {}).items():
        lines.append(table_row((f"{name} clips", f"{number:,}")))
    for font in _fonts(trained).values():
        licence = font_licence(Path(font["file"]))
        lines.append(
            table_row((f"sound font {font['file']} ({licence})", f"SHA-256 `{font['sha256']}`"))
        )
    left_out = sorted({name for data in trained.data for name in data.get("leave_out", ())})
    if left_out:
        lines.append(table_row(("recordings left out, to test on", ", ".join(left_out))))
    credits = _credits(trained)
    if credits:
        lines += [
            "\nRecorded notes in the training clips:\n",
            "| recording | plays | source | repository | licence | notes |",
            "|---|---|---|---|---|---|",
            *map(table_row, sorted(credits)),
        ]
    return "\n".join([*lines, ""])


def _fonts(trained: Trained) -> dict[str, Mapping[str, str]]:
    """Return the sound fonts of all training data by checksum."""
    return {font["sha256"]: font for data in trained.data for font in data.get("fonts", ())}


def _credits(trained: Trained) -> set[tuple[str, str, str, str, str, int]]:
    """Return recording, classes, source, repository, licence and number of notes."""
    return {
        (
            row["recording"],
            ", ".join(row["classes"]),
            row["source"],
            _repository(row["repository"]),
            row["licence"],
            row["notes"],
        )
        for data in trained.data
        for row in data.get("credits", ())
    }


def _repository(text: str) -> str:
    """Return a link to a repository; "OWNER/NAME" is on GitHub."""
    return f"[{text}](https://github.com/{text})" if _ON_GITHUB.fullmatch(text) else text


_ON_GITHUB = re.compile(r"[\w.-]+/[\w.-]+")
_SHOWN_ELSEWHERE = frozenset(
    {"model", "options", "clips", "curve", "seconds", "device", "scale"}
)


def _training(trained: Trained) -> str:
    record = trained.record
    lines = ["## Training\n", "| | |", "|---|---|"]
    lines.append(table_row(("machine", record.get("device", "unknown"))))
    lines.append(table_row(("time", f"{record['seconds'] / 60:.1f} min")))
    lines.append(table_row(("code", f"commit {trained.commit or 'unknown'}")))
    for name, value in record.items():
        if name in _SHOWN_ELSEWHERE:
            continue
        inner = value.items() if isinstance(value, dict) else [(name, value)]
        lines += [table_row((f"`{key}`", each)) for key, each in inner]
    curve = list(record.get("curve", ()))
    if curve:
        shown = curve[:: max(1, -(-len(curve) // CURVE_ROWS))]
        shown = shown if shown[-1] is curve[-1] else [*shown, curve[-1]]
        heads = list(curve[-1])
        lines += ["", table_row(heads), "|" + "---|" * len(heads)]
        lines += [
            table_row([_rounded(point.get(head, "")) for head in heads]) for point in shown
        ]
    return "\n".join([*lines, ""])


def _rounded(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _licence(trained: Trained) -> str:
    fonts = [
        f"{Path(font['file']).stem}: {font_licence(Path(font['file']))}"
        for font in _fonts(trained).values()
    ]
    licences = sorted({licence for *_, licence, _ in _credits(trained)})
    text = "Weights: Apache-2.0, like the code."
    if fonts:
        text += f" The sound fonts have their own licences: {'; '.join(fonts)}."
    if licences:
        text += (
            f" The recorded notes are licensed under {', '.join(licences)}; the table above "
            "names their sources."
        )
    if fonts or licences:
        text += " The weights contain no part of them."
    return f"## Licence\n\n{text}\n"


def publish(
    file: Path,
    weights: str,
    *,
    training: Path,
    evaluation: Path,
    data: Sequence[Path],
    limits: str,
    unknown: Sequence[str] = (),
    commit: str | None = None,
    default: bool = True,
    recommended: bool = False,
    url: str | None = None,
    folder: Path = FOLDER,
) -> PretrainedWeights:
    """Add a trained model to the pretrained weights.

    Args:
        file: The .keras file. If `tools.calibrate` wrote it, its description and picture are
            next to it.
        weights: Name of the weights.
        training: JSON record of the training.
        evaluation: JSON file of `zoo.evaluate_weights` with results of these weights.
        data: Folders of the composed training data.
        limits: One sentence on what the model does not know, which `rfkeras tag` prints.
        unknown: More such sentences for the card.
        commit: Commit of the code that trained it.
        default: Whether the name of the model without ":WEIGHTS" means these weights.
        recommended: Whether `rfkeras tag` uses these weights if no model is named.
        url: Where the file can be downloaded; it is then not copied into the package.
        folder: Folder of index, files and cards.

    Returns:
        The new entry of the index.

    Raises:
        CheckpointError: A file cannot be read, or the options in the record do not give the
            network of the model.
        ConfigError: The name of the weights is not allowed, or the evaluation lacks them.
    """
    check_weights_name(weights)
    record = _read(training, "the record of a training")
    sets = _read(evaluation, _CONTENT)["sets"]
    descriptions = [_read(path / COMPOSED, "composed data") for path in data]
    calibrated = json_file(file).is_file()
    calibration = _read(json_file(file), "a calibration") if calibrated else None
    model = load_model(file)
    name = str(record["model"])
    options = _options(name, record, model)
    stem = f"{name}-{weights}"
    picture = None
    if picture_file(file).is_file():
        picture = f"{stem}-reliability.png"
    entry = PretrainedWeights(
        model=name,
        name=weights,
        file=f"{stem}.keras",
        sha256=sha256_of(file),
        options=options,
        labels=tuple(model.head.label_names),
        task=model.head.task,
        card=f"{stem}.md",
        url=url,
        default=default,
        recommended=recommended,
        calibrated=calibrated,
        limits=limits,
        metrics={
            found["name"]: {
                "average_precision": row["mean_average_precision"]["value"],
                "f1": row["f1"],
            }
            for found in sets
            for row in found["weights"]
            if row["weights"] == f"{name}:{weights}"
        },
    )
    trained = Trained(
        entry=entry,
        record=record,
        sets=sets,
        calibration=calibration,
        picture=picture,
        data=descriptions,
        unknown=(limits, *unknown),
        commit=commit or record.get("commit"),
        bytes=file.stat().st_size,
    )
    card = write_card(trained, model)
    if url is None:
        _copy(file, folder / entry.file)
    if picture is not None:
        _copy(picture_file(file), folder / picture)
    write_text(folder / f"{stem}.md", card)
    add_to_index(entry, folder)
    return entry


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as aside:
        shutil.copyfile(source, aside)


def _options(name: str, record: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Return the options of `zoo.create_model` that give the network of a model.

    Raises:
        CheckpointError: The options in the record give another network.
    """
    import zoo
    from rfkeras.frontend import find_frontend

    given = dict(record.get("options", {}))
    preset = given.pop("frontend", "perceptual_mel_22k")
    channels = given.pop("input_channels", 1)
    known = {key: value for key, value in model_info(name).options.items()}
    frontend = find_frontend(model)
    options = {
        **known,
        **given,
        "input_channels": channels,
        "frontend": {"preset": preset, "fixed_floor": bool(frontend and frontend.fixed_floor)},
    }
    same = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    built = zoo.create_model(
        name,
        num_classes=len(model.head.label_names),
        frontend=preset,
        input_channels=channels,
        **same,
    )
    wanted, found = ([tuple(v.shape) for v in each.variables] for each in (built, model))
    if wanted != found:
        raise CheckpointError(
            f"The options {record.get('options')} of {name} do not give the network in the "
            "file: the shapes of its variables differ. Write the options into the record."
        )
    return {key: list(v) if isinstance(v, tuple) else v for key, v in options.items()}


def _read(path: Path, what: str) -> dict[str, Any]:
    try:
        return dict(read_json(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as {what}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.publish_trained",
        description="Publish a trained .keras file as pretrained weights.",
    )
    parser.add_argument("file", type=Path, help=".keras file")
    parser.add_argument("--weights", required=True, help="name of the weights")
    parser.add_argument(
        "--training", type=Path, required=True, help="JSON record of the training"
    )
    parser.add_argument(
        "--evaluation", type=Path, required=True, help="evaluation.json of evaluate_weights"
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of the composed training data, for sources and licences",
    )
    parser.add_argument(
        "--limits", required=True, help="a sentence on what the model does not know"
    )
    parser.add_argument(
        "--unknown", action="append", default=[], help="another such sentence, for the card"
    )
    parser.add_argument("--commit", help="commit of the code that trained it")
    parser.add_argument(
        "--not-default",
        action="store_true",
        help="do not use these weights for the model's name without :WEIGHTS",
    )
    parser.add_argument(
        "--recommended",
        action="store_true",
        help="let `rfkeras tag` use these weights if no model is named",
    )
    parser.add_argument("--url", help="https:// address of a file that is not in the package")
    options = parser.parse_args(arguments)
    try:
        entry = publish(
            options.file,
            options.weights,
            training=options.training,
            evaluation=options.evaluation,
            data=options.data,
            limits=options.limits,
            unknown=options.unknown,
            commit=options.commit,
            default=not options.not_default,
            recommended=options.recommended,
            url=options.url,
        )
    except (RFKerasError, OSError) as error:
        print(f"tools.publish_trained: error: {error}", file=sys.stderr)
        return 1
    print(f"Published {entry}: {FOLDER / entry.file}, card {entry.card}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
