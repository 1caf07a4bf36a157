"""Ready weights: which there are, and the file that holds them.

`weights/index.json` lists them. A file lies beside it, or at a URL from which it is fetched
once; either way it is used only if its SHA-256 is the one in the index.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rfkeras.errors import CheckpointError, ConfigError, unknown_name
from rfkeras.files import write_text

FOLDER = Path(__file__).parent / "weights"
INDEX = "index.json"
FORMAT = 1


@dataclass(frozen=True)
class ReadyWeights:
    """Weights of one model that come with the library.

    Attributes:
        model: Name of the model in the zoo.
        name: Name of the weights, such as that of the data they were trained on.
        file: Name of the .keras file.
        sha256: Its checksum.
        options: Options of `zoo.create_model` with which the network was built, "frontend"
            as a table of the preset's name and of the arguments that differ from it.
        labels: Name of each tag.
        task: "multi_label" or "single_label".
        figures: Test figures by the name of the test set.
        card: Name of the Markdown file that says what they are, and what they are not.
        url: Where the file is fetched if it is not in the package; None for never.
        default: Whether these are meant where the model alone is named.
    """

    model: str
    name: str
    file: str
    sha256: str
    options: dict[str, Any]
    labels: tuple[str, ...]
    task: str
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    card: str | None = None
    url: str | None = None
    default: bool = False

    def __str__(self) -> str:
        return f"{self.model}:{self.name}"

    def path(self) -> Path:
        """The .keras file, fetched first where it must be.

        Raises:
            CheckpointError: It is missing, damaged or cannot be fetched.
        """
        from zoo.download import check_sha256, fetch

        packaged = FOLDER / self.file
        if packaged.is_file():
            check_sha256(packaged, self.sha256)
            return packaged
        if self.url is None:
            raise CheckpointError(
                f"The weights {self} should be in {packaged}, which is missing: install "
                "rfkeras anew."
            )
        return fetch(self.url, self.sha256, self.file)

    def card_text(self) -> str | None:
        """The card in Markdown; None where there is none in the package."""
        path = None if self.card is None else FOLDER / self.card
        return path.read_text(encoding="utf-8") if path and path.is_file() else None


def read_index(folder: Path | None = None) -> tuple[ReadyWeights, ...]:
    """All ready weights.

    Args:
        folder: Where index.json lies; None: in the package. No file means no weights.

    Raises:
        CheckpointError: The index is damaged or of another version.
    """
    path = (FOLDER if folder is None else folder) / INDEX
    if not path.is_file():
        return ()
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {index['format']}; this version reads {FORMAT}."
            )
        return tuple(
            ReadyWeights(**{**row, "labels": tuple(row["labels"])}) for row in index["weights"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read as an index of weights: {error}"
        ) from error


def write_index(entries: tuple[ReadyWeights, ...], folder: Path) -> None:
    """Write index.json, sorted by name."""
    rows = [asdict(entry) for entry in sorted(entries, key=str)]
    text = json.dumps({"format": FORMAT, "weights": rows}, indent=2)
    write_text(folder / INDEX, text + "\n")


def list_weights(pattern: str = "*") -> list[str]:
    """Ready weights as "MODEL:WEIGHTS", those that match a shell pattern, sorted."""
    return sorted(fnmatch.filter(map(str, read_index()), pattern))


def find_weights(text: str, model: str | None = None) -> ReadyWeights:
    """The ready weights of that name.

    Args:
        text: "MODEL:WEIGHTS", or "MODEL" for its only or default weights; where `model` is
            given, "WEIGHTS" alone too.
        model: The model whose weights they must be.

    Raises:
        ConfigError: There are none such; the message lists those that there are.
    """
    entries = read_index()
    if not entries:
        raise ConfigError(
            f"No model of this installation has ready weights. Received: {text!r}."
        )
    named, _, weights = text.partition(":")
    if model is not None and not weights:
        named, weights = model, text
    if model is not None and named != model:
        raise ConfigError(
            f"Weights of {named!r} do not fit model {model!r}. Received: {text!r}."
        )
    own = [entry for entry in entries if entry.model == named]
    if not own:
        with_weights = ", ".join(sorted({entry.model for entry in entries}))
        raise ConfigError(f"No model {named!r} with ready weights. These have: {with_weights}.")
    if weights:
        found = [entry for entry in own if entry.name == weights]
        if not found:
            names = [entry.name for entry in own]
            raise ConfigError(unknown_name(f"weights of {named}", weights, names))
        return found[0]
    chosen = own if len(own) == 1 else [entry for entry in own if entry.default]
    if len(chosen) != 1:
        raise ConfigError(
            f"{named} has several weights: name one of {', '.join(map(str, own))}."
        )
    return chosen[0]


def has_weights(text: str, model: str | None = None) -> bool:
    """Whether `find_weights` finds these."""
    try:
        find_weights(text, model)
    except ConfigError:
        return False
    return True


def check_agree(entry: ReadyWeights, given: Mapping[str, Any], free: tuple[str, ...]) -> None:
    """Refuse options of a model that its weights were not trained with.

    Args:
        entry: The weights.
        given: Options of `create_model` that were set.
        free: Options that say nothing of the weights.

    Raises:
        ConfigError: They differ; the message tells the weights' values.
    """
    for name, value in given.items():
        if name in free or name not in entry.options:
            continue
        theirs = entry.options[name]
        if _plain(value) != _plain(theirs):
            raise ConfigError(
                f"The weights {entry} have {name}={theirs!r}: leave {name} out, or train "
                f"anew. Received: {name}={value!r}."
            )


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
