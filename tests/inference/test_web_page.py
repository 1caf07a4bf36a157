"""The files of the page that tags in the browser; tests/browser runs them."""

import base64
import gzip
import hashlib
import json
import re

import numpy as np
import pytest

from rfkeras.errors import ConfigError
from rfkeras.frontend.numpy_mel import MelSpectrogram
from rfkeras.inference import OnnxTagger, html_pages, web_page
from rfkeras.inference.engines import engine_file
from rfkeras.inference.output import TagRules
from tests.helpers.processes import ROOT

MODEL = "resnet_rf_tiny"
SOURCE = ROOT / "rfkeras/inference/pages" / web_page.RUNTIME / "source.json"


@pytest.fixture(scope="module")
def files():
    return web_page.web_files(MODEL)


def value_of(script):
    """Return the value of the constant that a script defines."""
    text = script.decode()
    assert "<" not in text  # an HTML parser cannot take a part of it for the script's end
    return json.loads(re.fullmatch(r"const \w+ = (.*);\n", text, flags=re.S)[1])


def test_onnx_runtime_web_is_what_its_publisher_released():
    source = json.loads(SOURCE.read_text("utf-8"))
    assert (source["package"], source["licence"]) == ("onnxruntime-web", "MIT")
    names = {path.name.removesuffix(".xz") for path in SOURCE.parent.iterdir()}
    assert names == {*source["sha256"], "source.json"}
    for name, checksum in source["sha256"].items():
        content = web_page._unpacked(name)
        assert hashlib.sha256(content).hexdigest() == checksum, name
    module = web_page._unpacked("ort.wasm.bundle.min.mjs")[:200].decode()
    assert f"ONNX Runtime Web v{source['version']}" in module
    assert "Licensed under the MIT License" in module
    assert "MIT License" in web_page._unpacked("LICENSE").decode()
    pages = (ROOT / "docs/export.md").read_text("utf-8")
    assert f"{source['version']} (MIT" in pages


def test_the_scripts_hold_the_runtime_and_the_model(files):
    runtime = value_of(files["assets/runtime.js"])
    checksums = json.loads(SOURCE.read_text("utf-8"))["sha256"]
    for part, name in (
        ("module", "ort.wasm.bundle.min.mjs"),
        ("wasm", "ort-wasm-simd-threaded.wasm"),
    ):
        content = gzip.decompress(base64.b64decode(runtime[part]))
        assert hashlib.sha256(content).hexdigest() == checksums[name]
    model = value_of(files["assets/model.js"])
    path = engine_file(MODEL)
    assert base64.b64decode(model["engine"]) == path.read_bytes()
    tagger = OnnxTagger(path, threads=1)
    assert model["plan"] == vars(tagger.plan)
    assert model["labels"] == list(tagger.label_names)
    np.testing.assert_array_equal(model["thresholds"], tagger.thresholds)
    mel = MelSpectrogram.from_json(model["spectrogram"])
    noise = np.random.default_rng(0).normal(0, 0.1, 5000).astype(np.float32)
    np.testing.assert_array_equal(mel.mel_db(noise).mean(axis=-1), tagger.mel_db(noise))
    assert set(model["outputs"].values()) >= {"frame_logits", "frame_scores"}


def test_the_page_loads_only_files_that_are_there(files):
    text = files["index.html"].decode()
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert {name for name in loaded if name != "data:,"} <= files.keys()
    for name in ("page.css", "theme.js", "song.js", "index.js"):
        assert files[f"assets/{name}"] == html_pages.asset(name)  # as in the pages of --html
    assert not re.search(r"https?:", text)
    for name in ("web.js", "tagger.js", "sound.js"):
        assert not re.search(
            r"https?:|\bfetch\(|XMLHttpRequest", files[f"assets/{name}"].decode()
        )


def test_templates_have_the_places_that_the_script_fills(files):
    script = files["assets/web.js"].decode()
    templates = value_of(files["assets/model.js"])["templates"]
    for name, function in (("song", "songPage"), ("index", "indexPage")):
        body = script.partition(f"function {function}(")[2].partition("\n  }\n")[0]
        filled = set(re.findall(r"^      (\w+)[:,]", body, flags=re.M))
        assert set(re.findall(r"\$(\w+)", templates[name])) <= filled, name
    assert "$audio" in templates["player"]


def test_labels_cannot_end_the_script(files, monkeypatch):
    rules = TagRules("m", ("</script><!--", "b"), np.array([0.5, 0.25]), False, 22050, None)
    settings = web_page._settings(OnnxTagger(engine_file(MODEL)), rules)
    assert value_of(web_page._script("rfkerasModel", settings))["labels"][0] == "</script><!--"


def test_an_installation_without_the_runtime_says_so(monkeypatch, tmp_path):
    def without(name):
        if web_page.RUNTIME in name:
            raise FileNotFoundError(name)
        return html_pages.asset(name)

    monkeypatch.setattr(web_page, "asset", without)
    with pytest.raises(ConfigError, match="pip uninstall rfkeras-tag, then pip install \\."):
        web_page.write_web_page(MODEL, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_files_are_not_replaced_unasked(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        web_page.write_web_page(MODEL, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ConfigError, match="which is a file"):
        web_page.write_web_page(MODEL, tmp_path / "mine.txt", overwrite=True)
    (tmp_path / "index.html").write_text("an earlier page")
    size = web_page.write_web_page(MODEL, str(tmp_path), overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    pages = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert size == sum(path.stat().st_size for path in pages) - len("mine")
    assert "an earlier page" not in (tmp_path / "index.html").read_text("utf-8")
