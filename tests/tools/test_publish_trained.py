"""Trained files become pretrained weights: the index, the card, and what they load."""

import json

import numpy as np
import pytest

import zoo
from rfkeras.errors import CheckpointError, ConfigError
from tests.helpers.weights import scatter
from tools.calibrate import json_file, picture_file
from tools.publish_trained import main, publish
from zoo import pretrained
from zoo.pretrained import PretrainedWeights, read_index, sha256_of, write_index

TAGS = ("flute", "organ", "piano")
SMALL = {"width": 4, "rho": 1, "blocks": [1, 1, 1], "allow_rf_change": True}
LIMITS = "It does not know sitars."


def interval(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def results(weights, model, value, difference=None):
    return {
        "weights": weights,
        "model": model,
        "mean_average_precision": interval(value),
        "average_precision": {"flute": interval(value), "piano": interval(value - 0.2)},
        "f1": 0.55,
        "calibration_error": 0.021,
        "top_1": None,
        "difference": difference,
    }


@pytest.fixture
def files(tmp_path):
    """Return the files of a trained and calibrated model, and a folder with an index."""
    model = zoo.create_model(
        "resnet_rf_tiny",
        label_names=TAGS,
        frontend=zoo_frontend(),
        **{**SMALL, "blocks": (1, 1, 1)},
    )
    scatter(model).head.thresholds = (0.2, 0.3, 0.4)
    file = tmp_path / "tiny.keras"
    model.save(file)
    tags = [{"name": n, "threshold": t} for n, t in zip(TAGS, (0.2, 0.3, 0.4), strict=True)]
    calibration = {
        "data": "validation, test split.",
        "clips": 400,
        "bias": True,
        "calibration_error": {"before": 0.123, "after": 0.045},
        "negatives": 12,
        "tags": tags,
    }
    json_file(file).write_text(json.dumps(calibration))
    picture_file(file).write_bytes(b"\x89PNG made up")
    record = {
        "model": "resnet_rf_tiny",
        "options": SMALL,
        "settings": {"batch": 256, "rate": 0.002},
        "clips": {"train": 12000, "validation": 400},
        "device": "NVIDIA H100",
        "jax": "0.6",
        "seconds": 126.0,
        "curve": [
            {"step": step, "seconds": step / 10, "mAP": step / 1300} for step in range(1000)
        ],
    }
    (tmp_path / "tiny.json").write_text(json.dumps(record))
    sets = [
        {
            "name": "midi bands",
            "description": "Excerpts of songs.",
            "clips": 300,
            "positive": {"flute": 30, "piano": 60},
            "annotated": {"flute": 300, "piano": 280},
            "chance": {"flute": 0.1, "piano": 0.2},
            "weights": [
                results("resnet_rf_tiny:gm_instruments", "resnet_rf_tiny", 0.5),
                results("resnet_rf_tiny:instruments", "resnet_rf_tiny", 0.7, interval(0.2)),
            ],
        }
    ]
    (tmp_path / "evaluation.json").write_text(json.dumps({"format": 1, "sets": sets}))
    data = tmp_path / "composed"
    data.mkdir()
    described = {
        "fonts": [{"file": "TimGM6mb.sf2", "sha256": "ab12"}],
        "leave_out": ["held-out-violin"],
        "credits": [
            {
                "recording": "sonic",
                "source": "sonic-pi",
                "licence": "CC-BY-3.0",
                "repository": "someone/sonic-pi",
                "classes": ["drums", "piano"],
                "notes": 17,
            }
        ],
    }
    (data / "composed.json").write_text(json.dumps(described))
    folder = tmp_path / "weights"
    folder.mkdir()
    old = PretrainedWeights(
        "resnet_rf_tiny",
        "gm_instruments",
        "old.keras",
        "",
        {},
        TAGS,
        "multi_label",
        default=True,
        recommended=True,
    )
    other = PretrainedWeights(
        "resnet_rf_small",
        "gm_instruments",
        "b.keras",
        "",
        {},
        TAGS,
        "multi_label",
        default=True,
    )
    write_index((old, other), folder)
    return tmp_path


def zoo_frontend():
    from rfkeras.frontend import create_frontend

    return create_frontend("perceptual_mel_22k", fixed_floor=True)


def published(root, **options):
    return publish(
        root / "tiny.keras",
        "instruments",
        **{
            "training": root / "tiny.json",
            "evaluation": root / "evaluation.json",
            "data": [root / "composed"],
            "limits": LIMITS,
            "folder": root / "weights",
            **options,
        },
    )


def test_the_index_names_the_new_weights(files):
    entry = published(files, recommended=True)
    rows = {str(row): row for row in read_index(files / "weights")}
    assert set(rows) == {
        "resnet_rf_small:gm_instruments",
        "resnet_rf_tiny:gm_instruments",
        "resnet_rf_tiny:instruments",
    }
    assert rows["resnet_rf_tiny:instruments"] == entry
    assert [name for name, row in rows.items() if row.default] == [
        "resnet_rf_small:gm_instruments",
        "resnet_rf_tiny:instruments",
    ]
    assert [name for name, row in rows.items() if row.recommended] == [str(entry)]
    assert entry.calibrated
    assert entry.labels == TAGS
    assert entry.limits == LIMITS
    assert entry.metrics == {"midi bands": {"average_precision": 0.7, "f1": 0.55}}
    assert entry.options["rho"] == 1
    assert entry.options["frontend"] == {"preset": "perceptual_mel_22k", "fixed_floor": True}


def test_neither_default_nor_recommended(files):
    published(files, default=False)
    rows = {str(row): row for row in read_index(files / "weights")}
    assert rows["resnet_rf_tiny:gm_instruments"].default
    assert rows["resnet_rf_tiny:gm_instruments"].recommended
    assert not rows["resnet_rf_tiny:instruments"].default


def test_the_file_loads_as_pretrained_weights(files, monkeypatch):
    entry = published(files)
    folder = files / "weights"
    assert sha256_of(folder / entry.file) == entry.sha256 == sha256_of(files / "tiny.keras")
    monkeypatch.setattr(pretrained, "FOLDER", folder)
    model = zoo.create_model("resnet_rf_tiny", weights="instruments")
    expected = pretrained.load_model(files / "tiny.keras")
    wave = np.random.default_rng(0).normal(0, 0.1, (1, 22050)).astype("float32")
    np.testing.assert_allclose(model(wave), expected(wave), atol=1e-5)
    assert model.head.thresholds == (0.2, 0.3, 0.4)


def test_the_card(files):
    entry = published(files, unknown=("It does not know whistles.",), commit="abc123")
    card = (files / "weights" / entry.card).read_text()
    for text in (
        "# resnet_rf_tiny:instruments",
        f"- {LIMITS}\n- It does not know whistles.",
        "| mAP (95 % CI) | `gm_instruments` | difference (95 % CI) |",
        "| midi bands | 300 | 2 | 0.150 | 0.700 (0.600 to 0.800) | 0.500 "
        "| +0.200 (+0.100 to +0.300) | 0.550 | 0.021 |  |",
        "| flute | 0.700 (0.600 to 0.800) | 0.20 |",
        "| organ | - | 0.30 |",
        "by cross-validation: 0.123 before, 0.045 after",
        "A scale and a bias of each tag's logits were fitted on 400 clips",
        "above the scores of 99 % of 12 sounds without instruments",
        "before and after calibration](resnet_rf_tiny-instruments-reliability.png)",
        "| sound font TimGM6mb.sf2 (GPL-2.0) | SHA-256 `ab12` |",
        "| recordings left out, to test on | held-out-violin |",
        "| sonic | drums, piano | sonic-pi | [someone/sonic-pi](https://github.com/someone/"
        "sonic-pi) | CC-BY-3.0 | 17 |",
        "| train clips | 12,000 |",
        "| machine | NVIDIA H100 |",
        "| time | 2.1 min |",
        "| code | commit abc123 |",
        "| `batch` | 256 |",
        "| step | seconds | mAP |",
        "| 999 | 99.9 | 0.7685 |",
        "The recorded notes are licensed under CC-BY-3.0",
        "| dB floor | fixed",
    ):
        assert text in card, text
    assert card.count("\n| 0 | 0 | 0 |") == 1
    assert len([line for line in card.splitlines() if line.count("|") == 4]) < 60
    picture = files / "weights" / "resnet_rf_tiny-instruments-reliability.png"
    assert picture.read_bytes() == b"\x89PNG made up"


def test_a_model_without_calibration(files):
    json_file(files / "tiny.keras").unlink()
    picture_file(files / "tiny.keras").unlink()
    entry = published(files)
    assert not entry.calibrated
    card = (files / "weights" / entry.card).read_text()
    assert "## Calibration" not in card
    assert "| tag | AP, midi bands |\n" in card


def test_a_file_with_an_address_is_not_copied(files):
    entry = published(files, url="https://example.org/tiny.keras")
    assert entry.url == "https://example.org/tiny.keras"
    assert not (files / "weights" / entry.file).exists()
    assert (files / "weights" / entry.card).is_file()


def test_what_does_not_fit_is_named(files):
    with pytest.raises(
        ConfigError, match="no results of resnet_rf_tiny:other. Evaluated: resnet"
    ):
        publish(
            files / "tiny.keras",
            "other",
            training=files / "tiny.json",
            evaluation=files / "evaluation.json",
            data=[],
            limits="",
            folder=files / "weights",
        )
    with pytest.raises(ConfigError, match="letters, digits"):
        publish(
            files / "tiny.keras",
            "a/b",
            training=files / "tiny.json",
            evaluation=files / "evaluation.json",
            data=[],
            limits="",
        )
    with pytest.raises(CheckpointError, match="composed.json cannot be read as composed data"):
        published(files, data=[files])
    record = json.loads((files / "tiny.json").read_text())
    record["options"] = {**SMALL, "width": 8}
    (files / "tiny.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="do not give the network in the file"):
        published(files)
    assert [str(row) for row in read_index(files / "weights")] == [
        "resnet_rf_small:gm_instruments",
        "resnet_rf_tiny:gm_instruments",
    ]


def test_the_command(files, monkeypatch, capsys):
    monkeypatch.setattr(
        "tools.publish_trained.publish",
        lambda *a, **k: published(
            files, **{key: k[key] for key in ("default", "recommended", "unknown", "data")}
        ),
    )
    base = [str(files / "tiny.keras"), "--weights", "instruments"]
    paths = [
        "--training",
        str(files / "tiny.json"),
        "--evaluation",
        str(files / "evaluation.json"),
    ]
    more = ["--limits", LIMITS, "--unknown", "Whistles.", "--recommended", "--data"]
    assert main([*base, *paths, *more, str(files / "composed")]) == 0
    assert "Published resnet_rf_tiny:instruments" in capsys.readouterr().out
    assert "- Whistles." in (files / "weights/resnet_rf_tiny-instruments.md").read_text()
    assert main([*base, *paths, "--limits", "x", "--data", str(files)]) == 1
    assert "composed.json cannot be read" in capsys.readouterr().err
