"""What a search leaves: a table of its trials, and the recipe of the best one."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rfkeras.config import TrainConfig
from rfkeras.errors import ConfigError
from rfkeras.files import write_text
from rfkeras.receptive_field.units import scale_of_preset
from rfkeras.training.run_folder import RunFolder
from rfkeras.tuning.parameters import Value, shown_value
from rfkeras.tuning.runner import failure_file, read_result
from rfkeras.tuning.search import Search, SearchFolder
from rfkeras.tuning.trial_config import recipe_options, trial_config

DONE, FAILED, RUNNING = "done", "failed", "running"


@dataclass(frozen=True)
class TrialRow:
    """A trial.

    Attributes:
        trial_id: keras-tuner's name of it.
        status: "done", "failed", or "running" (also of one that is still to be resumed).
        score: The monitored figure on validation, of a trial that is done.
        values: Of the searched options; one whose condition does not hold is missing.
        epochs: That it has, as the learning rate's schedule counts them.
        promoted_from: Of Hyperband, the shorter trial with the same values.
        rf_pixels: Receptive field (time, frequency) in frames and mel bands; None where an
            axis has no limit.
        rf_time_ms: Audio behind one position; None without limit.
        parameters: Trainable ones, of a trial that is done.
        seconds: Of training and validation, of a trial that is done.
        reason: Why it failed.
    """

    trial_id: str
    status: str
    score: float | None
    values: dict[str, Value]
    epochs: int
    promoted_from: str
    rf_pixels: tuple[int | None, int | None]
    rf_time_ms: float | None
    parameters: int | None
    seconds: float | None
    reason: str


def trial_row(
    search: Search,
    folder: RunFolder,
    trial_id: str,
    status: str,
    score: float | None,
    values: dict[str, Value],
    epochs: int,
    promoted_from: str = "",
) -> TrialRow:
    """The row of a trial, with what its folder tells."""
    result = read_result(folder) if status == DONE else {}
    failure = failure_file(folder)
    reason = ""
    if status == FAILED and failure.exists():
        reason = failure.read_text(encoding="utf-8").strip()
    pixels: tuple[int | None, int | None] = (None, None)
    ms = None
    with contextlib.suppress(ConfigError):  # of a trial that failed for its options
        pixels, ms = receptive_field_of(trial_config(search.base, values, epochs))
    return TrialRow(
        trial_id=trial_id,
        status=status,
        score=score,
        values=values,
        epochs=epochs,
        promoted_from=promoted_from,
        rf_pixels=pixels,
        rf_time_ms=ms,
        parameters=result.get("parameters"),
        seconds=result.get("seconds"),
        reason=reason,
    )


def receptive_field_of(
    config: TrainConfig,
) -> tuple[tuple[int | None, int | None], float | None]:
    """((frames, mel bands), milliseconds along time) of a run's model; None: no limit."""
    import zoo

    plan = zoo.model_info(config.model).plan_for(**config.model_options())
    time, frequency = plan.time, plan.frequency
    ms = None if time is None else scale_of_preset(config.frontend).ms(time.size)
    sizes = (None if time is None else time.size, None if frequency is None else frequency.size)
    return sizes, ms


def best_row(search: Search, rows: Iterable[TrialRow]) -> TrialRow | None:
    """The trial with the best score; of equal ones the first. None: none is done."""
    best: TrialRow | None = None
    for row in rows:
        if row.score is not None and (best is None or search.better(row.score, best.score)):
            best = row
    return best


def write_table(search: Search, folder: SearchFolder, rows: Sequence[TrialRow]) -> None:
    """Write trials.csv, a line for each trial in the order of their start."""
    columns = [
        *("trial", "status", search.monitor, "epochs"),
        *search.space.parameters,
        *("rf_time_pixels", "rf_frequency_pixels", "rf_time_ms"),
        *("parameters", "seconds", "promoted_from", "reason"),
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells: dict[str, Any] = {
            "trial": row.trial_id,
            "status": row.status,
            search.monitor: None if row.score is None else f"{row.score:.6f}",
            "epochs": row.epochs,
            "rf_time_pixels": row.rf_pixels[0],
            "rf_frequency_pixels": row.rf_pixels[1],
            "rf_time_ms": None if row.rf_time_ms is None else f"{row.rf_time_ms:.1f}",
            "parameters": row.parameters,
            "seconds": row.seconds,
            "promoted_from": row.promoted_from,
            "reason": row.reason,
        }
        cells |= {name: shown_value(value) for name, value in row.values.items()}
        writer.writerow({name: "" if cell is None else cell for name, cell in cells.items()})
    write_text(folder.table, text.getvalue())


def write_best(search: Search, folder: SearchFolder, rows: Sequence[TrialRow]) -> None:
    """Write best.yaml, the recipe that trains the best trial's model anew."""
    import yaml

    best = best_row(search, rows)
    if best is None:
        return
    run = folder.trial(best.trial_id)
    config = trial_config(search.base, best.values, best.epochs)
    options = recipe_options(config)
    # Folders as the trial found them, wherever the recipe will be used.
    complete = run.read_config()
    for name in ("data_dir", "audio_dir", "sound_font"):
        if name in options:
            options[name] = getattr(complete, name)
    done = sum(row.status == DONE for row in rows)
    score = f"{search.monitor} {best.score:.4f}"
    lines = [
        f"Best of {done} trials ({search.method}) by the validation split: {score}, trial "
        f"{best.trial_id}, {best.epochs} epochs, seed {config.seed}.",
        f"Data: {_data(run)}.",
        f"Searched: {', '.join(search.space.parameters)}.",
        f"Command: {search.command}",
        "",
        "These options were chosen by that figure, which therefore flatters them. Train with "
        "train.py --recipe best.yaml: it scores the test split, which the search never saw.",
    ]
    header = "\n".join(
        "\n".join(
            textwrap.wrap(line, 92, initial_indent="# ", subsequent_indent="#   ")
            if line
            else ["#"]
        )
        for line in lines
    )
    table = yaml.safe_dump(options, sort_keys=False, default_flow_style=False)
    write_text(folder.best, f"{header}\n{table}")


def _data(run: RunFolder) -> str:
    """The data of a trial in words."""
    data = json.loads(run.environment.read_text(encoding="utf-8"))["data"]
    clips = ", ".join(f"{data['clips'][name]:,} for {name}" for name in ("train", "validation"))
    return f"{data['name']}, clips: {clips.replace('train', 'training')}"


def trial_line(search: Search, row: TrialRow, rows: Sequence[TrialRow], planned: int) -> str:
    """A line about a trial that has ended."""
    ended = sum(other.status != RUNNING for other in rows)
    values = ", ".join(f"{name} {shown_value(value)}" for name, value in row.values.items())
    head = f"[{ended}/{planned}] trial {row.trial_id}"
    if row.score is None:
        return f"{head}: failed ({values}): {row.reason}"
    best = best_row(search, rows)
    assert best is not None
    shown = "the best" if best is row else f"best {best.score:.4f}, trial {best.trial_id}"
    cost = f"{row.epochs} epoch{'s' * (row.epochs > 1)}"
    if row.seconds is not None:
        cost += f", {int(row.seconds) // 60}:{int(row.seconds) % 60:02d} min"
    return f"{head}: {search.monitor} {row.score:.4f} ({shown}), {values}; {cost}"
