"""The card of ready weights: what they are, what they are for, and how good they are."""

from __future__ import annotations

import dataclasses
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfkeras.config import TrainConfig
from zoo.download import sha256_of
from zoo.pretrained import ReadyWeights

FONT_LICENCES = {
    "TimGM6mb": "GPL-2.0",
    "GeneralUser": "GeneralUser GS licence 2.0, which allows any use",
    "FluidR3": "MIT",
}


@dataclass(frozen=True)
class Published:
    """What a card is written from.

    Attributes:
        entry: The row of the index.
        config: The run's configuration.
        environment: Its environment.json.
        seconds: Time of training and validation.
        choice: Its final_weights.json.
        reports: Content of report.json by the name of the test; the run's own first.
        commit: Of the code; None if nobody knows.
        bytes: Size of the weights' file.
    """

    entry: ReadyWeights
    config: TrainConfig
    environment: dict[str, Any]
    seconds: float
    choice: dict[str, Any]
    reports: dict[str, dict[str, Any]]
    commit: str | None
    bytes: int


def write_card(published: Published, model: Any) -> str:
    """The card as Markdown.

    Args:
        published: What is known of the run.
        model: The model, whose parameters and receptive field are counted.
    """
    parts = [
        f"# {published.entry}\n",
        _what(published, model),
        _use(published),
        _figures(published),
        _tags(published),
        _data(published),
        _training(published),
        _licence(published),
    ]
    return "\n".join(parts)


def _what(published: Published, model: Any) -> str:
    import numpy as np

    import rfkeras
    from rfkeras.frontend import find_frontend
    from zoo.registry import model_info

    entry = published.entry
    count = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    lines = [
        f"{model_info(entry.model).summary} {count:,} parameters, "
        f"{published.bytes / 1e6:.1f} MB. From audio to {len(entry.labels)} tags "
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
    channels = "mono" if published.config.input_channels == 1 else "stereo"
    seen = "without limit"
    if field.time.size is not None:
        seen = f"{field.time_ms:.0f} ms ({field.time.size} frames)"
    floor = "fixed, so a frame does not depend on the rest of the clip"
    lines += [
        "| | |",
        "|---|---|",
        f"| input | {channels}, {frontend.sample_rate_hz} Hz, {published.config.frontend} |",
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
        "It was trained on synthetic audio alone: General MIDI sound fonts, composed by "
        "a program, one to five instruments at once. Recorded instruments, rooms, mixes and "
        "playing styles are unknown to it, so its scores on real recordings are a guess to "
        'be checked. The tag "voice" means choir sounds of a sound font: there are no sung '
        "words in the training audio."
        if synthetic
        else "It knows what its training data holds; other recordings may sound otherwise."
    )
    return (
        "## Use and limits\n\n"
        "For trying the library without training, as a start for fine-tuning "
        f"(`--init-weights {published.entry}`), for demonstrations and tests. Not for "
        f"decisions about people or rights. {limits}\n"
    )


def _interval(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.3f} ({row[f'{key}_low']:.3f}-{row[f'{key}_high']:.3f})"


def _figures(published: Published) -> str:
    lines = [
        "## Figures\n",
        "| test | clips | mAP (95 % CI) | ROC-AUC (95 % CI) | F1 | mAP of chance |",
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
        f"{chosen[choice['monitor']]:.3f}. The thresholds behind F1 were chosen {where} and "
        "are kept in the model. The test split was scored once.\n"
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
        checksum = f"`{sha256_of(path)}`" if path.is_file() else "not at hand"
        lines.append(f"| sound font {path.stem} ({_font_licence(path)}) | SHA-256 {checksum} |")
    return "\n".join([*lines, ""])


def _fonts(config: TrainConfig) -> list[Path]:
    if config.dataset != "gm_instruments":
        return []
    from rfkeras.data.sources.gm_instruments.soundfont import default_path, paths_in

    return list(paths_in(config.sound_font)) if config.sound_font else [default_path()]


def _font_licence(path: Path) -> str:
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
    """A text with the names of files instead of their paths."""
    return os.pathsep.join(part.rpartition(os.sep)[2] for part in text.split(os.pathsep))


def _licence(published: Published) -> str:
    fonts = [f"{path.stem}: {_font_licence(path)}" for path in _fonts(published.config)]
    named = f" The sound fonts have licences of their own: {'; '.join(fonts)}." if fonts else ""
    contained = " No part of them is in the weights' file." if fonts else ""
    return f"## Licence\n\nWeights: Apache-2.0, as the code.{named}{contained}\n"
