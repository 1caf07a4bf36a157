"""`rfkeras push`: what it writes, what it uploads, and what it rejects."""

import json
import os
import re
import shutil

import pytest
import yaml

import rfkeras
from rfkeras.cli import main
from rfkeras.evaluation.result import TagRow
from tests.conftest import FIXTURES
from tests.helpers import hub as hubs
from zoo.pretrained import load_model

RUN = FIXTURES / "v0_1_0/finished"
REPORT = json.loads((RUN / "report/report.json").read_text())


@pytest.fixture
def push(capsys, monkeypatch):
    """Run the command; return exit status, standard output and standard error."""

    def command(*arguments):
        with monkeypatch.context() as patch:
            # What huggingface_hub reads from the environment when it is imported.
            endpoint = os.environ.get("HF_ENDPOINT", "http://127.0.0.1:9")
            patch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
            status = main.run(["push", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with hubs.serving() as served:
        hubs.connect(monkeypatch, served.url, tmp_path / "hub")
        yield served


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """Return the card of a dry run, and the metadata at its head."""
    folder = tmp_path_factory.mktemp("push") / "new"
    words = ["push", str(RUN), "hf://me/tiny", "--dry-run", str(folder)]
    more = ["--license", "cc-by-4.0", "--limits", "It has never heard a sitar."]
    assert main.run([*words, *more]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.keras"]
    assert (folder / "model.keras").read_bytes() == (RUN / "model.keras").read_bytes()
    text = (folder / "README.md").read_text()
    return text, yaml.safe_load(text.split("---\n")[1])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_hub_reads_the_metadata_of_a_card(card):
    from huggingface_hub import ModelCard

    data = ModelCard(card[0]).data
    assert (data.license, data.library_name) == ("cc-by-4.0", "rfkeras")
    assert {"music", "keras"} <= set(data.tags)
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    macro = REPORT["summary"]["macro"]
    assert found == {
        "mAP": round(macro["average_precision"], 4),
        "roc_auc": round(macro["roc_auc"], 4),
        "f1": round(macro["f1"], 4),
    }
    assert {result.dataset_split for result in data.eval_results} == {"test"}


def test_a_card_has_scores_and_threshold_of_each_tag(card):
    rows = re.findall(r"^\| (high|low|noise) \| (.+) \|$", card[0], flags=re.M)
    assert [name for name, _ in rows] == [row["name"] for row in REPORT["tags"]]
    for (_, cells), row in zip(rows, REPORT["tags"], strict=True):
        positive, precision, _, f1, threshold = cells.split(" | ")
        assert positive == f"{row['positive']} of {row['annotated']}"
        assert threshold == f"{row['threshold']:.3f}"
        if row["f1"] is None:
            assert (precision, f1) == ("-", "-")
        else:
            value, low = row["average_precision"], row["average_precision_low"]
            assert precision.startswith(f"{value:.3f} ({low:.3f} to ")
            assert f1 == f"{row['f1']:.3f}"
    assert set(TagRow.__dataclass_fields__) >= set(REPORT["tags"][0])


def test_a_card_has_recipe_limits_and_receptive_field_but_no_path(card):
    text = card[0]
    field = rfkeras.receptive_field(load_model(RUN / "model.keras"))
    size = field.time.size
    assert f"| receptive field in time | {field.time_ms:.0f} ms ({size} frames) |" in text
    assert "| `learning_rate` | 0.01 |" in text
    assert "| clips | 7 train, 3 validation, 2 test |" in text
    assert "It has never heard a sitar." in text
    assert "Licence: cc-by-4.0." in text
    assert not re.search(r"/tmp|/root|/home|fp_scratch", text)


def test_it_uploads_the_files_and_the_model_comes_back(push, hub):
    status, out, err = push(RUN, "hf://me/tiny", "--private")
    assert (status, out) == (0, f"{hub.url}/me/tiny\n")
    assert "the card states no licence" in err
    assert hub.created[0]["name"] == "tiny"
    assert hub.created[0].get("private") or hub.created[0].get("visibility") == "private"
    assert set(hub.files) == {("me/tiny", "main", n) for n in ("README.md", "model.keras")}
    assert "license" not in hub.files["me/tiny", "main", "README.md"].decode()
    loaded, own = load_model("hf://me/tiny"), load_model(RUN / "model.keras")
    for one, other in zip(loaded.weights, own.weights, strict=True):
        assert (one.numpy() == other.numpy()).all()


def test_a_refused_upload_says_how_to_log_in(push, hub):
    hub.refuses = True
    status, out, err = push(RUN, "hf://me/tiny", "--license", "mit")
    assert (status, out, hub.files) == (1, "", {})
    assert "hf://me/tiny could not be written: " in err
    assert "`hf auth login`" in err


def test_the_engine_is_uploaded_if_wanted(push, tmp_path, monkeypatch):
    engine = tmp_path / "engine.onnx"
    engine.write_bytes(b"engine")
    monkeypatch.setattr("rfkeras.inference.engines.engine_file", lambda *_, **__: engine)
    assert push(RUN, "hf://me/tiny", "--dry-run", tmp_path / "new", "--engine")[0] == 0
    assert (tmp_path / "new/model.onnx").read_bytes() == b"engine"
    assert "ONNX Runtime" in (tmp_path / "new/README.md").read_text()


def test_unfinished_runs_and_wrong_places_are_rejected(push, tmp_path):
    assert "is not a run folder" in push(tmp_path, "hf://me/t", "--dry-run", tmp_path / "x")[2]
    run = tmp_path / "run"
    shutil.copytree(RUN, run)
    (run / "report/report.json").unlink()
    status, _, err = push(run, "hf://me/tiny", "--dry-run", tmp_path / "y")
    assert (status, f"{run} is not finished" in err) == (1, True)
    assert "is hf://USER/NAME" in push(RUN, "me/tiny", "--dry-run", tmp_path / "z")[2]
    assert "a new or an empty folder" in push(RUN, "hf://me/t", "--dry-run", run)[2]
