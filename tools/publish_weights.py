"""Publish a finished run as pretrained weights of the zoo.

`python -m tools.publish_weights runs/NAME --weights WEIGHTS`

Copies the model into zoo/weights and writes its card and the index. All scores come from the
files of the run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import CheckpointError, ConfigError, RFKerasError
from rfkeras.utils.files import atomic_write, write_text
from zoo.pretrained import FOLDER, PretrainedWeights, read_index, sha256_of, write_index
from zoo.registry import model_info

FONT_LICENCES = {
    "TimGM6mb": "GPL-2.0",
    "GeneralUser": "GeneralUser GS licence 2.0, which allows any use",
    "FluidR3": "MIT",
}


@dataclass(frozen=True)
class Published:
    """The contents of a card.

    Attributes:
        entry: Entry of the index.
        config: Configuration of the run.
        environment: Content of environment.json.
        seconds: Time of training and validation.
        choice: Content of final_weights.json.
        reports: Content of report.json by the name of the test; the run's own test first.
        commit: Commit of the code; None if unknown.
        bytes: Size of the file with the weights.
    """

    entry: PretrainedWeights
    config: TrainConfig
    environment: dict[str, Any]
    seconds: float
    choice: dict[str, Any]
    reports: dict[str, dict[str, Any]]
    commit: str | None
    bytes: int


def write_card(published: Published, model: Any) -> str:
    """Return the card in Markdown.

    Args:
        published: Contents of the card.
        model: The model, for its parameters and receptive field.
    """
    parts = [
        f"# {published.entry}\n",
        summary_section(published.entry, model, published.bytes),
        _use(published),
        _scores(published),
        _tags(published),
        _data(published),
        _training(published),
        _licence(published),
    ]
    return "\n".join(parts)


def summary_section(entry: PretrainedWeights, model: Any, n_bytes: int) -> str:
    """Return the first section of a card: size, tags, input and receptive field.

    Args:
        entry: Entry of the index.
        model: The model.
        n_bytes: Size of the file.
    """
    import numpy as np

    import rfkeras
    from rfkeras.frontend import find_frontend
    from zoo.registry import model_info

    count = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    lines = [
        f"{model_info(entry.model).summary} {count:,} parameters, "
        f"{n_bytes / 1e6:.1f} MB. From audio to {len(entry.labels)} tags "
        f"({entry.task}): {', '.join(entry.labels)}.\n",
        "```python",
        "import zoo\n",
        f'model = zoo.create_model("{entry.model}", weights="{entry.name}")',
        "```\n",
    ]
    frontend = find_frontend(model)
    if frontend is None:
        return "\n".join(lines)
    field = rfkeras.receptive_field(model)
    channels = "mono" if entry.options["input_channels"] == 1 else "stereo"
    preset = entry.options["frontend"]["preset"]
    seen = "unlimited"
    if field.time.size is not None:
        seen = f"{field.time_ms:.0f} ms ({field.time.size} frames)"
    floor = "fixed, so a frame does not depend on the rest of the clip"
    lines += [
        "| | |",
        "|---|---|",
        f"| input | {channels}, {frontend.sample_rate_hz} Hz, {preset} |",
        f"| dB floor | {floor if frontend.fixed_floor else 'under the loudest point'} |",
        f"| receptive field | {seen} |",
    ]
    if field.time.jump is not None:
        stride = f"{field.time.jump * frontend.hop_ms:.0f} ms ({field.time.jump} frames)"
        lines.append(f"| stride of the frame outputs | {stride} |")
    return "\n".join([*lines, ""])


def _use(published: Published) -> str:
    synthetic = published.config.dataset == "gm_instruments"
    limits = (
        "It was only trained on synthetic audio: music composed by a program and rendered with "
        "General MIDI sound fonts, with one to five instruments playing together. It was "
        "neither trained nor evaluated on real recordings, so check its scores on yours. "
        'The tag "voice" means the choir sounds of a sound font; the training audio contains '
        "no singing with words."
        if synthetic
        else "It only knows sounds like those in its training data."
    )
    return (
        "## Use and limits\n\n"
        "Use it to try the library without training, as a starting point for fine-tuning "
        f"(`--init-weights {published.entry}`), for demonstrations and tests. Do not use it "
        f"for decisions about people or rights. {limits}\n"
    )


def _interval(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.3f} ({row[f'{key}_low']:.3f}-{row[f'{key}_high']:.3f})"


def _scores(published: Published) -> str:
    lines = [
        "## Scores\n",
        "| test | clips | mAP (95 % CI) | ROC-AUC (95 % CI) | F1 | chance mAP |",
        "|---|---|---|---|---|---|",
    ]
    for name, report in published.reports.items():
        summary = report["summary"]
        macro = summary["macro"]
        intervals = f"{_interval(macro, 'average_precision')} | {_interval(macro, 'roc_auc')}"
        lines.append(
            f"| {name} | {summary['counts']['clips']} | {intervals} | {macro['f1']:.3f} "
            f"| {summary['chance']['average_precision']:.3f} |"
        )
    choice, config = published.choice, published.config
    chosen = choice["candidates"][choice["weights"]]
    epoch = f" (epoch {chosen['epoch']} of {config.epochs})" if "epoch" in chosen else ""
    where = "on the validation split" if config.thresholds == "validation" else "at 0.5"
    lines.append(
        f"\nWeights: {choice['weights']}{epoch}, {choice['monitor']} "
        f"{chosen[choice['monitor']]:.3f}. The thresholds for F1 were chosen {where} and are "
        "saved in the model. The test split was only evaluated once.\n"
    )
    return "\n".join(lines)


def _tags(published: Published) -> str:
    names = list(published.reports)
    own = published.reports[names[0]]["tags"]
    others = [
        {row["name"]: row["average_precision"] for row in published.reports[name]["tags"]}
        for name in names[1:]
    ]
    heads = "".join(f" AP, {name} |" for name in names[1:])
    lines = [
        f"| tag | positive of annotated | AP, {names[0]} (95 % CI) |{heads} threshold |",
        "|---|---|---|" + "---|" * len(others) + "---|",
    ]
    for row in own:
        also = "".join(f" {_number(other.get(row['name']))} |" for other in others)
        lines.append(
            f"| {row['name']} | {row['positive']} of {row['annotated']} "
            f"| {_interval(row, 'average_precision')} |{also} {row['threshold']:.2f} |"
        )
    return "\n".join([*lines, ""])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _data(published: Published) -> str:
    data = published.environment["data"]
    clips = ", ".join(f"{count:,} {name}" for name, count in data["clips"].items())
    lines = [
        "## Data\n",
        "| | |",
        "|---|---|",
        f"| data set | {data['name']} |",
        f"| clips | {clips} |",
    ]
    for key in ("version", "size", "seed", "validation"):
        if key in data:
            lines.append(f"| {key} | {data[key]} |")
    for path in _fonts(published.config):
        checksum = f"`{sha256_of(path)}`" if path.is_file() else "not available"
        lines.append(f"| sound font {path.stem} ({font_licence(path)}) | SHA-256 {checksum} |")
    return "\n".join([*lines, ""])


def _fonts(config: TrainConfig) -> list[Path]:
    if config.dataset != "gm_instruments":
        return []
    from rfkeras.synthesis.render import default_sound_font, parse_sound_fonts

    if config.sound_font is None:
        return [default_sound_font()]
    return list(parse_sound_fonts(config.sound_font))


def font_licence(path: Path) -> str:
    """Return the licence of a sound font by its name."""
    for name, licence in FONT_LICENCES.items():
        if path.stem.startswith(name):
            return licence
    return "licence: see its source"


def _training(published: Published) -> str:
    config, environment = published.config, published.environment
    defaults = TrainConfig()
    changed = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(defaults, field.name)
    }
    machine = f"{environment['cpu_count']} cores ({environment['processor']})"
    packages = environment["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("tensorflow", "keras"))
    lines = [
        "## Training\n",
        "```sh",
        shlex.join(_bare(part) for part in environment["command"]),
        "```\n",
        "| | |",
        "|---|---|",
        f"| code | rfkeras {packages['rfkeras']}, commit {published.commit or 'unknown'} |",
        f"| machine | {machine}, devices {', '.join(environment['devices'])} |",
        f"| versions | {versions} |",
        f"| time | {published.seconds / 60:.0f} min |",
    ]
    lines += [f"| `{name}` | {_shown(value)} |" for name, value in changed.items()]
    return "\n".join([*lines, ""])


def _shown(value: Any) -> str:
    return _bare(value) if isinstance(value, str) else str(value)


def _bare(text: str) -> str:
    """Return a text with file names instead of paths."""
    return os.pathsep.join(part.rpartition(os.sep)[2] for part in text.split(os.pathsep))


def _licence(published: Published) -> str:
    fonts = [f"{path.stem}: {font_licence(path)}" for path in _fonts(published.config)]
    named = f" The sound fonts have their own licences: {'; '.join(fonts)}." if fonts else ""
    contained = " The weights contain no part of them." if fonts else ""
    return f"## Licence\n\nWeights: Apache-2.0, like the code.{named}{contained}\n"


METRICS = ("average_precision", "roc_auc", "f1")
OWN_TEST = "test split"


def publish(
    run: Path,
    weights: str,
    *,
    also: dict[str, Path] | None = None,
    commit: str | None = None,
    default: bool = True,
    folder: Path = FOLDER,
) -> PretrainedWeights:
    """Add the model of a finished run to the pretrained weights.

    Args:
        run: Folder of the run.
        weights: Name of the weights.
        also: Reports (report.json) of other tests, by the name of the test.
        commit: Commit of the code that trained it; None reads it from environment.json.
        default: Whether the name of the model without ":WEIGHTS" means these weights.
        folder: Folder of index, files and cards.

    Returns:
        The new entry of the index.

    Raises:
        CheckpointError: The run is not finished, or one of its files cannot be read.
        ConfigError: The name of the weights is not allowed.
    """
    import rfkeras
    from rfkeras.training.run_dir import RunFolder

    check_weights_name(weights)
    files = RunFolder(run)
    config = files.read_config()
    model = rfkeras.load_model(files.model)
    stem = f"{config.model}-{weights}"
    file = folder / f"{stem}.keras"
    with atomic_write(file, suffix=".keras") as aside:  # Keras requires this suffix
        model.save(aside)  # without the optimiser
    reports = {OWN_TEST: _read_json(files.report_json)}
    reports |= {name: _read_json(path) for name, path in (also or {}).items()}
    entry = PretrainedWeights(
        model=config.model,
        name=weights,
        file=file.name,
        sha256=sha256_of(file),
        options=options_of_run(config),
        labels=tuple(row["name"] for row in reports[OWN_TEST]["tags"]),
        task=reports[OWN_TEST]["task"],
        metrics={
            name: {key: report["summary"]["macro"][key] for key in METRICS}
            for name, report in reports.items()
        },
        card=f"{stem}.md",
        default=default,
    )
    environment = _read_json(files.environment)
    published = Published(
        entry=entry,
        config=config,
        environment=environment,
        seconds=_training_seconds(files.log),
        choice=_read_json(files.final_weights),
        reports=reports,
        commit=commit or environment.get("commit"),
        bytes=file.stat().st_size,
    )
    write_text(folder / f"{stem}.md", write_card(published, model))
    add_to_index(entry, folder)
    return entry


def check_weights_name(name: str) -> None:
    """Reject a name of weights that cannot be part of a file name.

    Raises:
        ConfigError: It contains other characters than letters, digits, - and _.
    """
    if not name or not name.replace("_", "").replace("-", "").isalnum():
        raise ConfigError(
            "Names of weights may contain letters, digits, - and _, such as gm_instruments. "
            f"Received: {name!r}."
        )


def add_to_index(entry: PretrainedWeights, folder: Path) -> None:
    """Add an entry to the index, or replace the one of that name.

    If it is the default of its model, no other weights of the model are; if it is recommended,
    no other weights are.
    """
    others = [
        dataclasses.replace(
            row,
            default=row.default and not (entry.default and row.model == entry.model),
            recommended=row.recommended and not entry.recommended,
        )
        for row in read_index(folder)
        if str(row) != str(entry)
    ]
    write_index((*others, entry), folder)


def table_row(cells: Iterable[Any]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def options_of_run(config: TrainConfig) -> dict[str, Any]:
    """Return the options of `zoo.create_model` for the model of a run, as JSON values."""
    known = model_info(config.model).options
    options = {**known, **config.model_options(), "input_channels": config.input_channels}
    options["frontend"] = {"preset": config.frontend, "fixed_floor": config.fixed_floor}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in options.items()}


def _training_seconds(log: Path) -> float:
    import csv

    try:
        with log.open(encoding="utf-8", newline="") as file:
            return float(list(csv.DictReader(file))[-1]["seconds"])
    except (OSError, IndexError, KeyError, ValueError) as error:
        raise CheckpointError(f"{log} cannot be read as the log of a run: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}. Only a finished run can be published."
        ) from error


def _named_report(text: str) -> tuple[str, Path]:
    name, colon, path = text.partition(":")
    if not (name and colon and path):
        raise argparse.ArgumentTypeError(f"must be NAME:FILE. Received: {text!r}")
    return name, Path(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.publish_weights",
        description="Publish the model of a finished run as pretrained weights.",
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--weights", required=True, help="name of the weights")
    parser.add_argument(
        "--also-report",
        type=_named_report,
        action="append",
        default=[],
        metavar="NAME:FILE",
        help="report.json of another test, such as an unknown sound font; can be repeated",
    )
    parser.add_argument("--commit", help="commit of the code that trained it")
    parser.add_argument(
        "--not-default",
        action="store_true",
        help="do not use these weights for the model's name without :WEIGHTS",
    )
    options = parser.parse_args(arguments)
    try:
        entry = publish(
            options.run,
            options.weights,
            also=dict(options.also_report),
            commit=options.commit,
            default=not options.not_default,
        )
    except (RFKerasError, OSError) as error:
        print(f"tools.publish_weights: error: {error}", file=sys.stderr)
        return 1
    print(f"Published {entry}: {FOLDER / entry.file}, card {entry.card}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
