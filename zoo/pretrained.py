"""Pretrained weights, and models loaded by name.

`weights/index.json` lists the pretrained weights. Each file is in the package, or is downloaded
once from the URL in the index. Either way it is only used if its SHA-256 matches the index.
Models of others are on the Hugging Face Hub, at addresses such as hf://user/name.

Importing this module does not import a framework.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import hashlib
import json
import os
import re
import urllib.parse
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rfkeras.errors import (
    CheckpointError,
    ConfigError,
    did_you_mean,
    install_extra,
    unknown_name,
)
from rfkeras.utils.files import (
    atomic_write,
    check_archive,
    default_cache_dir,
    malformed,
    write_text,
)
from rfkeras.utils.user_code import explain_missing_class, import_user_code

FOLDER = Path(__file__).parent / "weights"
INDEX = "index.json"
FORMAT = 1
# Files of a run folder.
MODEL_FILE, CONFIG_FILE = "model.keras", "config.json"
# Sources of classes and functions whose code is known. Functions are in "builtins", with the
# package of their registration in their name.
_KNOWN = {"builtins", "kapre", "keras", "rfkeras", "zoo"}


@dataclass(frozen=True)
class PretrainedWeights:
    """Weights of one model that come with the library.

    Attributes:
        model: Name of the model in the zoo.
        name: Name of the weights, such as that of their training data.
        file: Name of the .keras file.
        sha256: Checksum of the file.
        options: Options of `zoo.create_model` that the network was built with. "frontend" is
            a table of the preset's name and the arguments that differ from the preset.
        labels: Name of each tag.
        task: "multi_label" or "single_label".
        metrics: Test metrics by name of the test set ("figures" in the index).
        card: Name of the model card, a Markdown file.
        url: Where to download the file if it is not in the package; None if it always is.
        default: Whether the name of the model without ":WEIGHTS" means these weights.
        recommended: Whether `rfkeras tag` uses these weights if no model is named; one entry.
        calibrated: Whether a score is the share of clips that have the tag, and sounds
            without instruments raise no tag (`tools.calibrate`).
        limits: What the model does not know, as one sentence; None if nobody stated it.
        engine_sha256: Checksum of the engine file, which has the name of `file` with the suffix
            .onnx (`rfkeras.inference.OnnxTagger`); None if the package has none.
    """

    model: str
    name: str
    file: str
    sha256: str
    options: dict[str, Any]
    labels: tuple[str, ...]
    task: str
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    card: str | None = None
    url: str | None = None
    default: bool = False
    recommended: bool = False
    calibrated: bool = False
    limits: str | None = None
    engine_sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.model}:{self.name}"

    def path(self) -> Path:
        """Return the checked .keras file; download it if it is not in the package.

        Raises:
            CheckpointError: The file is missing, damaged or cannot be downloaded.
        """
        packaged = FOLDER / self.file
        if packaged.is_file():
            check_sha256(packaged, self.sha256)
            return packaged
        if self.url is None:
            raise CheckpointError(
                f"The file of the weights {self} is missing: {packaged}. Reinstall rfkeras."
            )
        return download(self.url, self.sha256, self.file)

    def card_text(self) -> str | None:
        """Return the model card in Markdown; None if the package does not contain it."""
        path = None if self.card is None else FOLDER / self.card
        return path.read_text(encoding="utf-8") if path and path.is_file() else None


def list_weights(pattern: str = "*") -> list[str]:
    """Return the pretrained weights that match a shell pattern, as "MODEL:WEIGHTS", sorted."""
    return sorted(fnmatch.filter(map(str, read_index()), pattern))


def find_weights(text: str, model: str | None = None) -> PretrainedWeights:
    """Return the pretrained weights with a name.

    Args:
        text: "MODEL:WEIGHTS", or "MODEL" for its only or default weights. With `model`,
            also "WEIGHTS".
        model: Model that the weights must belong to; None for any.

    Raises:
        ConfigError: No weights have this name; the message lists the available ones.
    """
    entries = read_index()
    owner, _, weights = text.partition(":")
    if model is not None and not weights:
        owner, weights = model, text
    if model is not None and owner != model:
        raise ConfigError(
            f"Weights of {owner!r} do not fit model {model!r}. Received: {text!r}."
        )
    own = [entry for entry in entries if entry.model == owner]
    if not own:
        raise ConfigError(
            unknown_name("model with pretrained weights", owner, {e.model for e in entries})
        )
    if weights:
        found = [entry for entry in own if entry.name == weights]
        if not found:
            names = [entry.name for entry in own]
            raise ConfigError(unknown_name(f"weights of {owner}", weights, names))
        return found[0]
    chosen = own if len(own) == 1 else [entry for entry in own if entry.default]
    if len(chosen) != 1:
        raise ConfigError(
            f"{owner} has several weights. Choose one of {', '.join(map(str, own))}."
        )
    return chosen[0]


def packaged_engine(path: Path) -> Path | None:
    """Return the checked engine file of a packaged .keras file.

    Args:
        path: File of a model, from `existing_model`.

    Returns:
        The engine file; None if the package has none for this model.

    Raises:
        CheckpointError: The engine file is damaged.
    """
    for entry in read_index():
        engine = FOLDER / Path(entry.file).with_suffix(".onnx")
        if entry.engine_sha256 and path == FOLDER / entry.file and engine.is_file():
            check_sha256(engine, entry.engine_sha256)
            return engine
    return None


def best_weights() -> PretrainedWeights:
    """Return the weights that `rfkeras tag` uses if no model is named.

    Raises:
        CheckpointError: The package does not have exactly one such entry.
    """
    found = [entry for entry in read_index() if entry.recommended]
    if len(found) != 1:
        raise CheckpointError(
            f"{FOLDER / INDEX} recommends {len(found)} weights instead of one, so name a "
            "model: --model MODEL. `rfkeras models` lists them."
        )
    return found[0]


def read_index(folder: Path | None = None) -> tuple[PretrainedWeights, ...]:
    """Read the list of pretrained weights.

    Args:
        folder: Folder with index.json; None for the package's own. Without the file the
            list is empty.

    Raises:
        CheckpointError: The index is damaged or has another format version.
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
        return tuple(_entry(row) for row in index["weights"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read as an index of weights: {error}"
        ) from error


def _entry(row: Mapping[str, Any]) -> PretrainedWeights:
    values = {("metrics" if key == "figures" else key): value for key, value in row.items()}
    return PretrainedWeights(**{**values, "labels": tuple(row["labels"])})


def write_index(entries: tuple[PretrainedWeights, ...], folder: Path) -> None:
    """Write index.json, sorted by name."""
    rows = []
    for entry in sorted(entries, key=str):
        values = asdict(entry).items()
        rows.append({("figures" if key == "metrics" else key): value for key, value in values})
    text = json.dumps({"format": FORMAT, "weights": rows}, indent=2)
    write_text(folder / INDEX, text + "\n")


def load_model(source: str | Path) -> Any:
    """Load a trained model.

    Args:
        source: Folder of a finished run, a .keras file that `train.py` or `model.save` wrote,
            the name of a model with pretrained weights: "MODEL" or "MODEL:WEIGHTS" (see
            `zoo.list_weights`), or a model on the Hugging Face Hub: "hf://USER/NAME" or
            "hf://USER/NAME@REVISION" (needs huggingface_hub).

    Returns:
        The Keras model, not compiled: waveforms (batch, samples) or spectrograms in, logits
        out.

    Raises:
        CheckpointError: The file is missing or damaged, contains weights that are not
            finite, or names unknown layers. Other
            layers than those of Keras and rfkeras must be registered with
            `keras.saving.register_keras_serializable`; on the command line, --import names the
            file that does so. Loading never runs Python code from the file, even if Keras was
            configured to allow that.
        ConfigError: The source is neither a run folder, nor a .keras file, nor a model with
            pretrained weights; or it is on the Hub, and huggingface_hub is not installed.

    Example:
        >>> model = load_model("resnet_rf_tiny:gm_instruments")
    """
    import keras

    # Importing them registers the layers that the file names.
    import rfkeras.frontend.layer
    import rfkeras.layers  # noqa: F401
    import zoo.tagger  # noqa: F401

    import_user_code()  # in a process that a command with --import started
    path = existing_model(source)
    try:
        with malformed():
            _check_file(path)
            model = keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError) as error:
        reason = explain_missing_class(str(error))
        raise CheckpointError(f"{path} cannot be loaded: {reason}") from error
    check_finite(model, path)
    return model


def users_classes(path: Path) -> list[str]:
    """Return the classes and functions in a .keras file that are not of Keras or rfkeras.

    Args:
        path: The file. One without a readable configuration has none; `load_model` rejects it.

    Returns:
        Names, sorted.
    """
    try:
        with malformed():
            check_archive(path)
            with zipfile.ZipFile(path) as archive:
                config = json.loads(archive.read("config.json"))
    except (ValueError, OSError):
        return []
    found: set[str] = set()
    values = [config]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            if not _is_known(value):
                found.add(_name_of(value))
            values += value.values()
        elif isinstance(value, list):
            values += value
    return sorted(found)


def _is_known(serialized: Mapping[str, Any]) -> bool:
    """Return False if a JSON object is Keras' record of a class or function of the user."""
    if serialized.get("class_name") == "__lambda__":
        return False
    if "module" not in serialized:
        return True
    package, separator, _ = _name_of(serialized).rpartition(">")
    module = str(serialized["module"]).partition(".")[0]
    return module in _KNOWN and (not separator or package in _KNOWN)


def _name_of(serialized: Mapping[str, Any]) -> str:
    kind = serialized.get("class_name")
    if kind == "function":  # its name is in place of a configuration
        return str(serialized.get("config"))
    return str(serialized.get("registered_name") or kind)


def check_finite(model: Any, path: Path) -> None:
    """Reject a model with weights that are not finite, from which every score would be NaN.

    Args:
        model: The loaded model.
        path: The file that it was loaded from, for the message.

    Raises:
        CheckpointError: A weight or statistic is NaN or infinite; the message names it.
    """
    from rfkeras.utils.model_graph import first_not_finite

    name = first_not_finite(model.variables)
    if name is not None:
        raise CheckpointError(
            f"{path} cannot be used: variable {name} contains NaN or infinity, so the model "
            "gives no scores. Its training has diverged, or the file is damaged. Load an "
            "earlier checkpoint, or train again with a lower learning rate."
        )


open_model = load_model  # deprecated name of version 0.1.0


def existing_model(source: str | Path) -> Path:
    """Return the .keras file that `load_model` reads.

    Raises:
        ConfigError: See `model_path`.
        CheckpointError: The file is missing.
    """
    path = model_path(source)
    if path.is_file():
        return path
    if path == Path(source):
        near = did_you_mean(path.name, _models_beside(path))
        raise CheckpointError(f"There is no model {path}.{near}")
    raise CheckpointError(
        f"There is no model {path}. A run writes it when it finishes; continue an "
        "unfinished run with rfkeras train --resume."
    )


def _models_beside(path: Path) -> list[str]:
    """Return the names of .keras files and run folders in the folder of a path."""
    try:
        return [
            each.name
            for each in path.parent.iterdir()
            if each.suffix == ".keras" or (each / CONFIG_FILE).is_file()
        ]
    except OSError:
        return []


def model_path(source: str | Path) -> Path:
    """Return the .keras file that `load_model` reads; it may be missing.

    Raises:
        ConfigError: The source is neither a run folder, nor a .keras file, nor a model with
            pretrained weights.
        CheckpointError: The file of pretrained weights is damaged or cannot be downloaded.
    """
    path, text = Path(source), str(source)
    if is_on_hub(text):
        return hub_model(text)
    if (path / CONFIG_FILE).is_file() or (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    if path.suffix == ".keras" or path.is_file():
        return path
    # Checked last: an unrelated folder may have the name of a model.
    models = sorted({entry.model for entry in read_index()})
    if text.partition(":")[0] in models:
        return find_weights(text).path()
    known = [
        *models,
        *list_weights(),
        *(str(path.parent / name) for name in _models_beside(path)),
    ]
    nearest = difflib.get_close_matches(text, known, n=1)
    hint = f"Models: {', '.join(models) or 'none'}."
    if nearest:
        hint = f"Did you mean {nearest[0]}?"
    raise ConfigError(
        f"{text!r} is not a run folder, a .keras file or a model with pretrained weights. "
        f"{hint}"
    )


def _check_file(path: Path) -> None:
    """Reject a damaged file before HDF5, which is native code, reads its content.

    Raises:
        ValueError: A checksum in the archive is wrong, or a member would expand to far more
            than its size.
    """
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged!r} in the archive is damaged")


# The Hugging Face Hub

HUB_SCHEME = "hf://"
_HUB_ADDRESS = re.compile(r"hf://?(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@\s]+))?")


def is_on_hub(source: str | Path) -> bool:
    """Return whether a model is on the Hugging Face Hub."""
    return str(source).startswith("hf:/")  # what a Path leaves of hf://


def hub_address(source: str | Path) -> tuple[str, str | None]:
    """Return repository and revision of an address of the Hugging Face Hub.

    Args:
        source: "hf://USER/NAME" or "hf://USER/NAME@REVISION", with a branch, tag or commit.

    Raises:
        ConfigError: The address has another form.
    """
    found = _HUB_ADDRESS.fullmatch(str(source))
    if found is None:
        raise ConfigError(
            f"A model on the Hugging Face Hub is {HUB_SCHEME}USER/NAME or "
            f"{HUB_SCHEME}USER/NAME@REVISION. Received: {str(source)!r}."
        )
    return found["repository"], found["revision"]


def hub_endpoint() -> str | None:
    """Return the address of another Hub than huggingface.co, from HF_ENDPOINT; else None.

    huggingface_hub itself reads the variable when it is imported, which Keras does.
    """
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def need_hub(purpose: str) -> Any:
    """Return the module huggingface_hub.

    Args:
        purpose: What needs it, for the message.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            f"{purpose} needs the package huggingface_hub: {install_extra('hub')}"
        ) from error
    return huggingface_hub


@functools.cache  # one process uses one version of a model, and asks for it once
def hub_model(source: str) -> Path:
    """Return the .keras file of a model on the Hugging Face Hub, from the cache of the Hub.

    Without a connection, the version that was downloaded last is used.

    Args:
        source: See `hub_address`. Without a revision it is the newest on the main branch.

    Raises:
        ConfigError: The address has another form, or huggingface_hub is not installed.
        CheckpointError: There is no such model, or it cannot be downloaded.
    """
    from rfkeras import __version__

    repository, revision = hub_address(source)
    hub = need_hub(source)
    from huggingface_hub import errors

    try:
        path = hub.hf_hub_download(
            repository,
            MODEL_FILE,
            revision=revision,
            library_name="rfkeras",
            library_version=__version__,
            endpoint=hub_endpoint(),
        )
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{source} needs the consent of its authors. Ask for it on the model's page on "
            "huggingface.co, and log in with `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"There is no model {repository} on the Hugging Face Hub, or it is private. Check "
            "the name; for a private model log in with `hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f"{repository} has no revision {revision!r}. Use a branch, tag or commit of it, or "
            f"leave it out: {HUB_SCHEME}{repository}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{source} cannot be downloaded, and it is not in the cache of the Hub: there is "
            "no connection, or HF_HUB_OFFLINE is set. With a connection, load it once; or copy "
            f"its {MODEL_FILE} here and name this file instead."
        ) from error
    except errors.EntryNotFoundError as error:
        raise CheckpointError(
            f"{repository} has no file {MODEL_FILE}, so it is not a model that `rfkeras push` "
            "uploaded. Download the model's file and name it instead."
        ) from error
    except Exception as error:
        # OSErrors, and those of the HTTP library that huggingface_hub uses.
        raise CheckpointError(f"{source} cannot be downloaded: {error}") from error
    return Path(path)


CACHE_FOLDER = "weights"  # in the user's cache
TIMEOUT_SECONDS = 60.0  # without an answer
MAX_BYTES = 2_000_000_000
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BLOCK_BYTES = 1 << 20


def download(url: str, sha256: str, name: str) -> Path:
    """Return a file from the user's cache; download it first if it is not there.

    Args:
        url: https:// address; http:// only for this machine.
        sha256: Checksum of the content.
        name: Name of the file in the cache.

    Raises:
        CheckpointError: The download fails, or its checksum differs.
    """
    path = cached(CACHE_FOLDER, f"{sha256[:12]}-{name}")
    if path.is_file() and sha256_of(path) == sha256:
        return path
    with atomic_write(path) as aside:
        _fetch(url, aside, path)
        check_sha256(aside, sha256, url)
    return path


def _fetch(url: str, aside: Path, path: Path) -> None:
    """Write what is at an address into a file, with a progress bar.

    `keras.utils.get_file` and pooch follow redirects to http:// and have no size limit, so
    neither can replace this function.

    Args:
        url: https:// address; http:// only for this machine.
        aside: File to write.
        path: Place of the file when it is complete, for messages.

    Raises:
        CheckpointError: The download fails, or the content is too large.
    """
    # These take a tenth of a second to import.
    import urllib.error
    import urllib.request
    from http.client import HTTPException

    from rfkeras.utils.progress import ProgressBar

    class HttpsRedirects(urllib.request.HTTPRedirectHandler):
        """Follow redirects only to allowed addresses."""

        def redirect_request(
            self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
        ) -> Any:
            _check_address(newurl)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    _check_address(url)
    opener = urllib.request.build_opener(HttpsRedirects)
    try:
        with opener.open(url, timeout=TIMEOUT_SECONDS) as answer, aside.open("wb") as file:
            size = int(answer.headers.get("Content-Length") or 0)
            label = f"Downloading {url.rpartition('/')[2]}"
            bar = ProgressBar(label, size or None, unit="MB", show=lambda n: f"{n / 1e6:.1f}")
            with bar:
                while block := answer.read(_BLOCK_BYTES):
                    file.write(block)
                    bar.advance(len(block))
                    if file.tell() > MAX_BYTES:
                        raise CheckpointError(
                            f"{url} is larger than {MAX_BYTES:,} bytes, the limit for weights."
                        )
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise CheckpointError(
            f"{url} cannot be downloaded: {getattr(error, 'reason', error)}. Without a "
            f"connection, copy the file to {path}."
        ) from error


def _check_address(url: str) -> None:
    """Reject an address whose content could be read or changed in transit.

    Raises:
        CheckpointError: It is neither https:// nor http:// on this machine.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return
    raise CheckpointError(f"Weights are only downloaded over https://. Received: {url!r}.")


def cached(folder: str, name: str) -> Path:
    """Return the place of a file in the user's cache."""
    return default_cache_dir() / folder / name


def check_sha256(path: Path, sha256: str, source: str | None = None) -> None:
    """Reject a file with a different checksum.

    Raises:
        CheckpointError: The file is damaged or is a different one.
    """
    found = sha256_of(path)
    if found != sha256:
        raise CheckpointError(
            f"{source or path} is damaged or is not the expected file: its SHA-256 is {found} "
            f"instead of {sha256}. Download it again, or reinstall rfkeras."
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
