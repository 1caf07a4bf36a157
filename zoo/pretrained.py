"""Ready weights: which there are, and the file that holds them.

`weights/index.json` lists them. A file lies beside it, or at a URL from which it is fetched
once; either way it is used only if its SHA-256 is the one in the index.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from rfkeras.errors import CheckpointError, ConfigError, unknown_name
from rfkeras.utils.files import check_archive, malformed, replacing, write_text

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


MODEL_FILE = "model.keras"  # of a finished run, in its folder


def load_model(path: str | Path) -> Any:
    """Load a model that `train.py` or `model.save` wrote, ready to be called.

    Args:
        path: A .keras file.

    Returns:
        The Keras model, not compiled: waveforms (or spectrograms) in, logits out.

    Raises:
        CheckpointError: The file is missing, damaged, or names layers that are not known:
            those of Keras, of rfkeras, and what was registered by
            `keras.saving.register_keras_serializable` are. It cannot make Python run
            functions, also where Keras was told to allow that.
    """
    import keras

    # Importing registers the layers that the file names.
    import rfkeras.frontend.layer
    import rfkeras.layers  # noqa: F401
    import zoo.tagger  # noqa: F401

    path = Path(path)
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder. A model is one .keras file: that of a finished run is "
            "model.keras in its folder."
        )
    if not path.is_file():
        raise CheckpointError(
            f"There is no model {path}. A run writes it at its end: go on with an unfinished "
            "one by train.py --resume."
        )
    try:
        with malformed():
            _check_file(path)
            return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be loaded: {error}") from error


def _check_file(path: Path) -> None:
    """Refuse a damaged file before HDF5, which is native code, reads what is in it.

    Raises:
        ValueError: A member's checksum is wrong, or it would grow to far more than it is.
    """
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged!r} in it is damaged")


def open_model(source: str | Path) -> Any:
    """Load a model by whatever names it.

    Args:
        source: The folder of a finished run, a .keras file, or a model of the zoo with
            ready weights: "MODEL" or "MODEL:WEIGHTS" (`zoo.list_weights()`).

    Returns:
        As `load_model`.

    Raises:
        CheckpointError: The file or run cannot be loaded.
        ConfigError: There is neither such a file nor such a model with ready weights.

    Example:
        >>> model = open_model("resnet_rf_tiny:gm_instruments")
    """
    return load_model(model_file(source))


def model_file(source: str | Path) -> Path:
    """The .keras file that `open_model` loads; it may be missing.

    Raises:
        ConfigError: There is neither such a file nor such a model with ready weights.
    """

    path = Path(source)
    if (path / "config.json").is_file() or (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    if path.suffix == ".keras" or path.is_file():
        return path
    try:
        # A folder that holds no model may happen to be called like one of the zoo.
        return find_weights(str(source)).path()
    except ConfigError as error:
        raise ConfigError(
            f"There is no run folder and no .keras file {path}. {error}"
        ) from error


TIMEOUT_SECONDS = 60.0  # without an answer
MAX_BYTES = 2_000_000_000
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_CHUNK = 1 << 20
CACHED = "weights"  # sub-folder of the cache


def fetch(url: str, sha256: str, name: str) -> Path:
    """A file of the cache, downloaded if it is not there yet.

    Args:
        url: https:// address; http:// of this machine alone.
        sha256: Checksum of the content.
        name: Name of the file in the cache.

    Raises:
        CheckpointError: It cannot be fetched, or is not what the checksum says.
    """
    from rfkeras.synthesis.generate import default_cache_dir

    path = default_cache_dir() / CACHED / f"{sha256[:12]}-{name}"
    if path.is_file() and sha256_of(path) == sha256:
        return path
    with replacing(path) as aside:
        _download(url, aside, path)
        check_sha256(aside, sha256, url)
    return path


def _check_address(url: str) -> None:
    """Refuse an address that others on the way could read and change.

    Raises:
        CheckpointError: It is neither https:// nor http:// of this machine.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return
    raise CheckpointError(f"Weights are fetched by https:// alone. Received: {url!r}.")


class _Careful(urllib.request.HTTPRedirectHandler):
    """Follows no redirection to an address that would have been refused."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_sha256(path: Path, sha256: str, source: str | None = None) -> None:
    """Refuse a file with another checksum.

    Raises:
        CheckpointError: It is damaged, or another file of that name.
    """
    found = sha256_of(path)
    if found != sha256:
        raise CheckpointError(
            f"{source or path} is damaged, or another file than it should be: its SHA-256 is "
            f"{found}, that of the weights {sha256}. Fetch it, or install rfkeras, anew."
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str, aside: Path, path: Path) -> None:
    from rich.console import Console
    from rich.progress import wrap_file

    _check_address(url)
    try:
        with urllib.request.build_opener(_Careful).open(url, timeout=TIMEOUT_SECONDS) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            console = Console(stderr=True)
            label = f"Fetching {url.rpartition('/')[2]}"
            shown = wrap_file(answer, size, description=label, console=console, transient=True)
            with shown as source, aside.open("wb") as file:
                while block := source.read(_CHUNK):
                    file.write(block)
                    if file.tell() > MAX_BYTES:
                        raise CheckpointError(
                            f"{url} has more than {MAX_BYTES:,} bytes; no weights have."
                        )
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise CheckpointError(
            f"{url} cannot be fetched: {getattr(error, 'reason', error)}. With no connection, "
            f"put it at {path} by hand."
        ) from error
