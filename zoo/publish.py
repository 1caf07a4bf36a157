"""Make ready weights of a finished run: `python -m zoo.publish runs/NAME --weights WEIGHTS`.

Copies the model into zoo/weights, writes its card and the index. Every figure is read from
the run's own files.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rfkeras.config import TrainConfig
from rfkeras.errors import CheckpointError, ConfigError, RFKerasError
from rfkeras.files import replacing, write_text
from zoo.card import Published, write_card
from zoo.download import sha256_of
from zoo.pretrained import FOLDER, ReadyWeights, read_index, write_index
from zoo.registry import model_info

FIGURES = ("average_precision", "roc_auc", "f1")
OWN_TEST = "test split"


def publish(
    run: Path,
    weights: str,
    *,
    also: dict[str, Path] | None = None,
    commit: str | None = None,
    default: bool = True,
    folder: Path = FOLDER,
) -> ReadyWeights:
    """Add the model of a finished run to the ready weights.

    Args:
        run: Folder of the run.
        weights: Name of the weights.
        also: Further reports (report.json) by the name of what they are of.
        commit: Of the code that trained it; None: as environment.json says.
        default: Whether the model's name alone means these weights.
        folder: Where index, files and cards lie.

    Returns:
        The new row of the index.

    Raises:
        CheckpointError: The run is not finished, or one of its files cannot be read.
        ConfigError: The weights' name is not allowed.
    """
    import rfkeras
    from rfkeras.training.run_folder import RunFolder

    if not weights or not weights.replace("_", "").replace("-", "").isalnum():
        raise ConfigError(
            "Weights have names of letters, digits, - and _, such as gm_instruments. "
            f"Received: {weights!r}."
        )
    files = RunFolder(run)
    config = files.read_config()
    model = rfkeras.load_model(files.model)
    stem = f"{config.model}-{weights}"
    file = folder / f"{stem}.keras"
    with replacing(file, suffix=".keras") as aside:  # Keras insists on its suffix
        model.save(aside)  # as loaded: without the optimiser
    reports = {OWN_TEST: _read_json(files.figures)}
    reports |= {name: _read_json(path) for name, path in (also or {}).items()}
    entry = ReadyWeights(
        model=config.model,
        name=weights,
        file=file.name,
        sha256=sha256_of(file),
        options=options_of_run(config),
        labels=tuple(row["name"] for row in reports[OWN_TEST]["tags"]),
        task=reports[OWN_TEST]["task"],
        figures={
            name: {key: report["summary"]["macro"][key] for key in FIGURES}
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
        choice=_read_json(files.choice),
        reports=reports,
        commit=commit or environment.get("commit"),
        bytes=file.stat().st_size,
    )
    write_text(folder / f"{stem}.md", write_card(published, model))
    others = [
        dataclasses.replace(row, default=row.default and not default)
        if row.model == entry.model
        else row
        for row in read_index(folder)
        if str(row) != str(entry)
    ]
    write_index((*others, entry), folder)
    return entry


def options_of_run(config: TrainConfig) -> dict[str, Any]:
    """Options of `zoo.create_model` with which a run built its model, as JSON values."""
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
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m zoo.publish", description="Make ready weights of a finished run."
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--weights", required=True, help="name of the weights")
    parser.add_argument(
        "--also-report",
        type=_named_report,
        action="append",
        default=[],
        metavar="NAME:FILE",
        help="report.json of another test, such as an unseen sound font; may be repeated",
    )
    parser.add_argument("--commit", help="of the code that trained it")
    parser.add_argument(
        "--not-default",
        action="store_true",
        help="do not make these the weights meant by the model's name alone",
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
        print(f"zoo.publish: error: {error}", file=sys.stderr)
        return 1
    print(f"Published {entry}: {FOLDER / entry.file}, card {entry.card}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
