"""A static web page that tags audio files: the model runs in the user's browser.

The page also works when it is opened as a file. Browsers then refuse to load data, modules or
workers from other files, so the engine file and ONNX Runtime Web are stored as text in scripts,
and the worker is started from the source text of a function.

    out/index.html             takes files, and shows the pages of `rfkeras tag --html`
    out/assets/model.js        the engine file and its settings
    out/assets/runtime.js      ONNX Runtime Web
    out/assets/                styles and scripts
"""

from __future__ import annotations

import base64
import gzip
import html
import lzma
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rfkeras.errors import FULL_INSTALLATION, ConfigError
from rfkeras.inference import html_pages
from rfkeras.inference.engines import (
    LOGITS,
    ONNX,
    SCORES,
    WEIGHTS,
    OnnxTagger,
    engine_file,
)
from rfkeras.inference.html_pages import asset, embedded, filled
from rfkeras.inference.output import TagRules
from rfkeras.utils.files import write_bytes
from rfkeras.utils.text import printable

RUNTIME = "onnxruntime-web"  # folder of its files, with their source in source.json
_MODULE, _WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
_SCRIPTS = ("sound.js", "tagger.js", "web.js")


def write_web_page(source: str | Path, folder: str | Path, *, overwrite: bool = False) -> int:
    """Write a page that tags audio files in a browser.

    Args:
        source: As for `zoo.load_model`. A model without an engine file is converted first.
        folder: Folder to write the page to.
        overwrite: Replace the files of an earlier page; other files are kept.

    Returns:
        The size of the page in bytes.

    Raises:
        ConfigError: The folder is a file, or is not empty and `overwrite` is not set; the model
            cannot be converted, or packages for that are missing (see `engine_file`).
        CheckpointError: The model or its engine file is missing or damaged.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output must be a folder. Received: {folder}, which is a file.")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ConfigError(f"{folder} is not empty. Use another --output, or --overwrite.")
    files = web_files(source)
    for name, content in files.items():
        write_bytes(folder / name, content)
    return sum(map(len, files.values()))


def web_files(source: str | Path) -> dict[str, bytes]:
    """Return the files of the page: path in its folder -> content.

    Args:
        source: See `write_web_page`.

    Raises:
        ConfigError: See `write_web_page`.
        CheckpointError: See `write_web_page`.
    """
    runtime = _runtime()
    path = engine_file(source, ONNX, instead="So it cannot be exported as a page.")
    assert path is not None
    tagger = OnnxTagger(path, threads=1)  # chunks do not depend on the cores of this machine
    rules = TagRules.of(tagger, str(source))
    about = html_pages.about_tags(rules)
    model = _settings(tagger, rules) | {"engine": _base64(path.read_bytes())}
    files = {
        "index.html": filled("web.html", about=html.escape(about)),
        "assets/runtime.js": _script("rfkerasRuntime", runtime),
        "assets/model.js": _script("rfkerasModel", model),
        f"assets/{RUNTIME}/LICENSE.txt": _unpacked("LICENSE"),
        f"assets/{RUNTIME}/ThirdPartyNotices.txt": _unpacked("ThirdPartyNotices.txt"),
    }
    scripts = (*html_pages.ASSETS, *_SCRIPTS)
    return files | {f"assets/{name}": asset(name) for name in scripts}


def _settings(tagger: OnnxTagger, rules: TagRules) -> dict[str, Any]:
    """Return the settings that the scripts read, without the engine file."""
    record = tagger.record
    names = ("channels", "frames", "mean_db", "pooling", "sample_rate_hz", "shortest_samples")
    return {
        **{name: record[name] for name in (*names, "spectrogram", "std_db")},
        "about": html_pages.about_tags(rules),
        "are_logits": record["outputs"] == "logits",
        "exclusive": rules.exclusive,
        "labels": list(map(printable, rules.names)),
        "outputs": {"logits": LOGITS, "scores": SCORES, "weights": WEIGHTS},
        "page": html_pages.PAGE_NUMBERS,
        "plan": asdict(tagger.plan),
        "templates": {
            "index": filled("index.html", partly=True).decode(),
            "player": html_pages.PLAYER,
            "song": filled("song.html", partly=True, assets="assets").decode(),
        },
        "thresholds": None if rules.thresholds is None else rules.thresholds.tolist(),
        "ticks": html_pages.frequency_ticks(tagger.scale),
    }


def _runtime() -> dict[str, str]:
    """Return ONNX Runtime Web, compressed with gzip, which browsers can unpack."""
    packed = {
        name: _base64(gzip.compress(_unpacked(file), mtime=0))
        for name, file in (("module", _MODULE), ("wasm", _WASM))
    }
    return packed


def _unpacked(name: str) -> bytes:
    """Return a file of ONNX Runtime Web; the large ones are compressed with xz.

    Raises:
        ConfigError: This installation does not contain it.
    """
    for suffix, unpack in (("", bytes), (".xz", lzma.decompress)):
        try:
            return unpack(asset(f"{RUNTIME}/{name}{suffix}"))
        except FileNotFoundError:
            continue
    raise ConfigError(
        f"--to web needs {RUNTIME}, which this installation does not contain. If it is "
        f"rfkeras-tag: {FULL_INSTALLATION}."
    )


def _script(name: str, value: Any) -> bytes:
    return f"const {name} = {embedded(value)};\n".encode()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
