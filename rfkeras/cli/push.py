"""`rfkeras push`: upload the model of a run and its card to the Hugging Face Hub."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras import __version__
from rfkeras.cli.main import COMMANDS
from rfkeras.errors import CheckpointError, ConfigError
from rfkeras.tasks import MULTI_LABEL
from rfkeras.utils.text import count, printable

if TYPE_CHECKING:
    from rfkeras.config.train_config import TrainConfig
    from rfkeras.training.run_dir import RunFolder

CARD, ENGINE = "README.md", "model.onnx"
# Metrics of a report's macro means (or of "single_label"), with their names on the Hub.
METRICS = {
    "average_precision": ("mAP", "mean average precision (macro)"),
    "roc_auc": ("roc_auc", "ROC-AUC (macro)"),
    "f1": ("f1", "F1 (macro, with the saved thresholds)"),
    "accuracy": ("accuracy", "accuracy"),
}
# Options that describe the machine of the training, not the model.
_OF_THE_MACHINE = {"devices", "data_dir", "audio_dir", "checkpoint_steps", "export"}


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "push",
        help=COMMANDS["push"],
        description=(
            "Upload model.keras of a finished run and a model card to the Hugging Face Hub. "
            "The card has the labels, the options of the training, the scores of each tag on "
            "the test split, the thresholds and the receptive field. Others use the model as "
            "--model hf://USER/NAME. Needs the extra `hub`, and a token: `hf auth login`, or "
            "HF_TOKEN."
        ),
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument(
        "target", metavar="hf://USER/NAME", help="model on the Hub; @BRANCH names a branch"
    )
    parser.add_argument(
        "--dry-run",
        type=Path,
        metavar="DIR",
        help="write the files into this folder, and upload nothing",
    )
    parser.add_argument(
        "--license",
        metavar="ID",
        help="licence of the weights, such as apache-2.0 or cc-by-4.0 (default: none stated)",
    )
    parser.add_argument(
        "--limits", metavar="TEXT", help="what the model does not know, for the card"
    )
    parser.add_argument(
        "--engine",
        action="store_true",
        help=f"also upload {ENGINE}, the model for ONNX Runtime (needs the extra `onnx`)",
    )
    parser.add_argument("--private", action="store_true", help="make a new model private")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from zoo.pretrained import hub_address, need_hub

    repository, branch = hub_address(options.target)
    if options.dry_run is None:
        need_hub("rfkeras push")  # reported before the model is loaded
    with _folder(options.dry_run) as folder:
        write_files(
            options.run_folder,
            folder,
            repository,
            licence=options.license,
            limits=options.limits,
            engine=options.engine,
        )
        if options.license is None:
            print(
                "Note: the card states no licence, so others may not use the model. Choose one "
                "with --license.",
                file=sys.stderr,
            )
        if options.dry_run is not None:
            print(printable(folder))
            return 0
        print(upload(folder, repository, branch, private=options.private))
    return 0


@contextmanager
def _folder(path: Path | None) -> Iterator[Path]:
    """Create the folder to write to; a temporary one for None.

    Raises:
        ConfigError: The folder contains something.
    """
    if path is None:
        with tempfile.TemporaryDirectory(prefix="rfkeras-") as scratch:
            yield Path(scratch)
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"--dry-run must be a new or an empty folder. Received: {path}.")
    path.mkdir(parents=True, exist_ok=True)
    yield path


def write_files(
    run_folder: Path,
    folder: Path,
    repository: str,
    *,
    licence: str | None = None,
    limits: str | None = None,
    engine: bool = False,
) -> None:
    """Write what is uploaded: the model, its card, and the engine file if wanted.

    Args:
        run_folder: Folder of a finished run.
        folder: Folder to write to.
        repository: "USER/NAME" on the Hub.
        licence: Licence of the weights, as the Hub names it.
        limits: What the model does not know.
        engine: Also write the engine file.

    Raises:
        ConfigError: This is not a run folder; or the model cannot be converted, or a package
            for that is missing.
        CheckpointError: The run is not finished, or its model is damaged.
    """
    from rfkeras.training.run_dir import RunFolder
    from rfkeras.utils.files import read_json, write_text
    from zoo.pretrained import MODEL_FILE, load_model, users_classes

    files = RunFolder(run_folder)
    config = files.read_config()
    if not (files.model.is_file() and files.report_json.is_file()):
        raise CheckpointError(
            f"{run_folder} is not finished: it has no {files.model.name} or no report. Finish "
            f"it with rfkeras train --resume {run_folder}"
        )
    model = load_model(files.model)
    shutil.copyfile(files.model, folder / MODEL_FILE)
    if engine:
        from rfkeras.inference.engines import ONNX, engine_file

        made = engine_file(files.model, ONNX, instead="Leave out --engine.")
        assert made is not None
        shutil.copyfile(made, folder / ENGINE)
    card = Card(
        repository,
        config,
        model,
        read_json(files.report_json),
        _data_of(files),
        licence,
        limits,
        engine,
        tuple(users_classes(files.model)),
    )
    write_text(folder / CARD, card.text())


def _data_of(files: RunFolder) -> dict[str, Any]:
    """Return the description of the data in the record of a run; empty without one."""
    from rfkeras.utils.files import read_json

    return dict(read_json(files.environment)["data"]) if files.environment.is_file() else {}


def upload(folder: Path, repository: str, branch: str | None, *, private: bool) -> str:
    """Upload a folder to the Hub as one commit; create the model first if there is none.

    Args:
        folder: The files.
        repository: "USER/NAME" on the Hub.
        branch: Existing branch; None for the main one.
        private: Make a new model private.

    Returns:
        The address of the model.

    Raises:
        ConfigError: huggingface_hub is not installed.
        CheckpointError: The Hub refuses the upload, or cannot be reached.
    """
    from zoo.pretrained import hub_endpoint, need_hub

    hub = need_hub("rfkeras push")
    from huggingface_hub.errors import LocalTokenNotFoundError

    api = hub.HfApi(hub_endpoint(), library_name="rfkeras", library_version=__version__)
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=branch,
            commit_message=f"Upload by rfkeras {__version__}",
        )
    except Exception as error:
        # OSErrors, and those of the HTTP library that huggingface_hub uses.
        status = getattr(getattr(error, "response", None), "status_code", None)
        advice = "Check the connection; --dry-run DIR writes the files for an upload by hand."
        if status in (401, 403) or isinstance(error, LocalTokenNotFoundError):
            advice = (
                "Log in with a token that may write (`hf auth login`), or set HF_TOKEN, and "
                f"check that you may write to {repository}."
            )
        elif branch is not None and status == 404:
            advice = f"The branch {branch!r} must exist."
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"hf://{repository} could not be written: {reason} {advice}"
        ) from error
    return str(url)


@dataclass(frozen=True)
class Card:
    """The contents of a model card.

    Attributes:
        repository: "USER/NAME" on the Hub.
        config: Configuration of the run.
        model: The model.
        report: Content of report.json.
        data: Description of the data of the run.
        licence: Licence of the weights; None if none was stated.
        limits: What the model does not know; None if nobody stated it.
        engine: Whether the engine file is uploaded too.
        imports: Classes of the user that the model contains.
    """

    repository: str
    config: TrainConfig
    model: Any
    report: Mapping[str, Any]
    data: Mapping[str, Any]
    licence: str | None
    limits: str | None
    engine: bool
    imports: tuple[str, ...]

    def text(self) -> str:
        """Return the card: metadata for the Hub in YAML, and Markdown."""
        import yaml

        head = yaml.safe_dump(self.metadata(), sort_keys=False, allow_unicode=True)
        sections = (
            self._summary(),
            self._use(),
            self._network(),
            self._scores(),
            self._limits(),
            self._training(),
        )
        return f"---\n{head}---\n\n" + "\n".join(sections)

    def metadata(self) -> dict[str, Any]:
        """Return the metadata that the Hub searches and shows."""
        name = self.repository.rpartition("/")[2]
        licence = {} if self.licence is None else {"license": self.licence}
        return {
            **licence,
            "library_name": "rfkeras",
            "pipeline_tag": "audio-classification",
            "tags": ["rfkeras", "keras", "music", "music-tagging", "audio-classification"],
            "model-index": [{"name": name, "results": [self._result()]}],
        }

    def _result(self) -> dict[str, Any]:
        values = {**self.report["summary"]["macro"], **self._single_label()}
        metrics = [
            {"type": kind, "name": text, "value": round(values[key], 4)}
            for key, (kind, text) in METRICS.items()
            if values.get(key) is not None
        ]
        task = self.report["task"].replace("_", "-")
        return {
            "task": {"type": "audio-classification", "name": f"Audio tagging ({task})"},
            "dataset": {"type": self._dataset, "name": self._dataset, "split": "test"},
            "metrics": metrics,
        }

    def _single_label(self) -> Mapping[str, Any]:
        return dict(self.report["summary"].get("single_label") or {})

    @property
    def _dataset(self) -> str:
        return str(self.data.get("name", self.config.dataset))

    @property
    def _labels(self) -> list[str]:
        return [row["name"] for row in self.report["tags"]]

    def _summary(self) -> str:
        return (
            f"# {self.repository}\n\n"
            f"{self.config.model} of rfkeras, trained on the data set "
            f"{self._dataset}. From audio to {count(len(self._labels), 'tag')} "
            f"({self.report['task'].replace('_', '-')}): {', '.join(self._labels)}.\n"
        )

    def _use(self) -> str:
        source = f"hf://{self.repository}"
        lines = [
            "## Use\n",
            "```sh",
            "pip install 'rfkeras[hub]'",
            f"rfkeras tag song.ogg --model {source}",
            "```\n",
            "```python",
            "import rfkeras\n",
            f'model = rfkeras.load_model("{source}")  # waveforms in [-1, 1] to logits',
            "```",
        ]
        if self.imports:
            names = ", ".join(f"`{name}`" for name in self.imports)
            lines.append(
                f"\nThe model contains {names}, which rfkeras does not know: register them "
                "first (`--import FILE.py`)."
            )
        if self.engine:
            lines.append(f"\n`{ENGINE}` is the same model for ONNX Runtime.")
        return "\n".join([*lines, ""])

    def _network(self) -> str:
        import rfkeras
        from rfkeras.frontend import find_frontend

        shapes = [variable.shape for variable in self.model.trainable_variables]
        parameters = sum(map(math.prod, shapes))
        rows: list[Sequence[Any]] = [("trainable parameters", f"{parameters:,}")]
        frontend = find_frontend(self.model)
        if frontend is not None:
            channels = "mono" if self.config.input_channels == 1 else "stereo"
            rate = f"{channels}, {frontend.sample_rate_hz} Hz, {self.config.frontend}"
            rows.append(("input", rate))
            field = rfkeras.receptive_field(self.model)
            seen = "unlimited"
            if field.time.size is not None:
                seen = f"{field.time_ms:.0f} ms ({field.time.size} frames)"
            rows.append(("receptive field in time", seen))
            if field.frequency.size is not None:
                bands = f"{field.frequency.size} of {frontend.n_mels} mel bands"
                rows.append(("receptive field in frequency", bands))
        return "## Network\n\n" + _table(("", ""), rows)

    def _scores(self) -> str:
        summary = self.report["summary"]
        macro, clips = summary["macro"], summary["counts"]["clips"]
        rows: list[Sequence[Any]] = [
            ("mean average precision", _interval(macro, "average_precision")),
            ("chance", _number(summary["chance"].get("average_precision"))),
            ("ROC-AUC", _interval(macro, "roc_auc")),
            ("F1", _number(macro.get("f1"))),
        ]
        single = self._single_label()
        if single:
            rows.append(("accuracy", _interval(single, "accuracy")))
        tags = [
            (
                _cell(row["name"]),
                f"{row['positive']} of {row['annotated']}",
                _interval(row, "average_precision"),
                _interval(row, "roc_auc"),
                _number(row["f1"]),
                _number(row["threshold"]),
            )
            for row in self.report["tags"]
        ]
        heads = ("tag", "positive", "average precision", "ROC-AUC", "F1", "threshold")
        notes = "".join(f"- {note}\n" for note in self.report["notes"])
        rule = "The tag with the highest score applies."
        if self.report["task"] == MULTI_LABEL:
            chosen = self.config.thresholds == "validation"
            where = "chosen on the validation split" if chosen else "0.5"
            rule = (
                f"A tag applies if its score reaches its threshold, which was {where} and is "
                "saved in the model."
            )
        return (
            f"## Scores\n\nOn {count(clips, 'clip')} of the test split of {self._dataset}. The "
            "means are over the tags, the 95 % bootstrap intervals over the clips. "
            f"{rule}\n\n{_table(('', ''), rows)}\n{_table(heads, tags)}\n{notes}"
        )

    def _limits(self) -> str:
        stated = f"{self.limits} " if self.limits else ""
        licence = self.licence or "none stated, so ask the authors before you use the weights"
        return (
            f"## Limits and licence\n\n{stated}The model only knows sounds and tags like those "
            f"of {self._dataset}, so check its scores on your own music. Do not use it for "
            f"decisions about people or rights.\n\nLicence: {licence}.\n"
        )

    def _training(self) -> str:
        from rfkeras.config.train_config import TrainConfig

        defaults = TrainConfig()
        changed = [
            (f"`{field.name}`", _cell(_bare(getattr(self.config, field.name))))
            for field in dataclasses.fields(self.config)
            if field.name not in _OF_THE_MACHINE
            and getattr(self.config, field.name) != getattr(defaults, field.name)
        ]
        clips = self.data.get("clips", {})
        used = ", ".join(f"{number:,} {split}" for split, number in clips.items())
        rows = [("data set", self._dataset), *([("clips", used)] if used else []), *changed]
        return (
            "## Training\n\nThe data, and the options of `rfkeras train` that differ from the "
            f"defaults of rfkeras {__version__}:\n\n{_table(('', ''), rows)}"
        )


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    """Return a text as the cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(row: Mapping[str, Any], key: str) -> str:
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    bounds = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return _number(row.get(key)) + bounds


def _bare(value: Any) -> str:
    """Return an option as text, with file names instead of paths of this machine."""
    if not isinstance(value, str):
        return str(value)
    return os.pathsep.join(part.rpartition(os.sep)[2] for part in value.split(os.pathsep))
