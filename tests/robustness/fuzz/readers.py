"""The readers to be tested: functions that write undamaged files and that read them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rfkeras.cli.evaluate import load_arrays
from rfkeras.config.recipes import list_recipes, read_recipe
from rfkeras.config.train_config import TrainConfig, from_json, to_json
from rfkeras.datasets.base import recorded_clips, write_clip_record
from rfkeras.datasets.load import load_dataset
from rfkeras.datasets.packed import load_packed
from rfkeras.evaluation.result import read_scores, write_scores
from rfkeras.inference.batch import Job, open_journal
from rfkeras.interop.torch import infer_options, read_state
from rfkeras.training.run_dir import load_snapshot, save_snapshot
from rfkeras.utils.files import write_npz
from tests.helpers import layouts
from zoo.pretrained import load_model

FIXTURE = Path(__file__).parents[2] / "fixtures/cp_resnet_rho5_w8_c1_n20.npz"


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes:
        make: Function that writes undamaged files into a folder, and returns those to damage.
        read: Function that reads the files in the folder.
        share: Weight of the reader in the number of cases.
        names_file: Whether its errors name the file. Errors about options merged from several
            files, or about weights that are already in memory, cannot.
    """

    make: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]
    share: float
    names_file: bool = True


def _openmic_csv(root):
    folder = layouts.write_openmic(root, 4, 2)
    shutil.rmtree(folder / "audio")
    (folder / "audio").mkdir()
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _openmic_npz(root):
    folder = layouts.write_openmic(root, 4, 2)
    shutil.rmtree(folder / "audio")
    (folder / "audio").mkdir()
    (folder / "openmic-2018-aggregated-labels.csv").unlink()
    keys = np.array([f"{number:06d}_{number * 30}" for number in range(6)])
    labels = np.linspace(0, 1, 120).reshape(6, 20)
    path = folder / "openmic-2018.npz"
    write_npz(path, {"Y_true": labels, "Y_mask": labels > 0.3, "sample_key": keys})
    return [path]


def _openmic(root):
    return load_dataset("openmic", data_dir=root / "openmic-2018", validation_share=0.3)


def _jamendo(root):
    layouts.write_jamendo(root)
    return sorted(root.rglob("*.tsv"))


def _dcase(root):
    folder = layouts.write_dcase(root, locations=3, takes=1)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _magnatagatune(root):
    layouts.write_magnatagatune(root)
    return [root / "annotations_final.csv"]


def _gtzan(root):
    layouts.write_gtzan_lists(root)
    for genre in ("blues", "rock"):
        (root / genre).mkdir()
        for number in range(100):
            (root / genre / f"{genre}.{number:05d}.wav").touch()
    return sorted(root.glob("*.txt"))


def _folder_csv(root):
    path = root / "labels.csv"
    rows = [
        f"{n}.wav,{'drums|bass' if n % 2 else 'flute'},,{'bass' * (n == 4)}" for n in range(12)
    ]
    path.write_text("\n".join(["path,labels,split,unknown", *rows]) + "\n")
    for n in range(12):
        (root / f"{n}.wav").touch()
    return [path]


def _packed(root):
    (root / "train-00000.tfrecord").write_bytes(bytes(8))
    shard = {"file": "train-00000.tfrecord", "records": 2, "bytes": 8, "sha256": "0" * 64}
    split = {
        "shards": [shard],
        "keys": ["a", "b"],
        "lengths": [5, 6],
        "clipped_clips": 0,
        "labels": [[1.0, 0.0], [0.0, 1.0]],
        "mask": [[1.0, 1.0], [1.0, 1.0]],
    }
    index = {
        "format": "rfkeras-shards",
        "version": 1,
        "dataset": "tones",
        "label_names": ["a", "b"],
        "audio": {"sample_rate_hz": 8000, "channels": 1},
        "clip_seconds": None,
        "task": "multi_label",
        "info": {"seed": 0},
        "splits": {"train": split},
        "left_out": [],
    }
    path = root / "index.json"
    path.write_text(json.dumps(index))
    return [path]


def _arrays(root):
    rng = np.random.default_rng(0)
    np.save(root / "predictions.npy", rng.random((6, 3)))
    np.save(root / "groundtruth.npy", rng.integers(0, 2, (6, 3)))
    np.save(root / "mask.npy", np.ones((6, 3), bool))
    (root / "names.txt").write_text("a\nb\nc\n")
    return sorted(root.iterdir())


def _read_arrays(root):
    names = [root / f"{name}.npy" for name in ("predictions", "groundtruth")]
    return load_arrays(*names, mask=root / "mask.npy", label_names=root / "names.txt")


def _scores(root):
    path = root / "scores.npz"
    write_scores(path, np.full((5, 2), 0.5), np.ones((5, 2)), keys=["a", "b", "c", "d", "e"])
    return [path]


def _variable(shape):
    return SimpleNamespace(path="v", shape=shape, numpy=lambda: np.ones(shape), assign=len)


def _snapshot(root):
    path = root / "last.npz"
    save_snapshot(path, [_variable((3, 2)), _variable((4,))], {"steps_done": 3, "data": {}})
    return [path]


def _torch_npz(root):
    path = root / "state.npz"
    with np.load(FIXTURE) as archive:
        write_npz(path, {n: archive[n] for n in archive.files if n.startswith("state.")})
    return [path]


def _recipe(root):
    path = root / "recipe.yaml"
    shutil.copyfile(list_recipes()["openmic_resnet_rf_shake"], path)
    return [path]


def _read_recipe(root):
    from rfkeras.config.resolve import merge_options

    options = {}
    for _, own in read_recipe(str(root / "recipe.yaml")):
        options |= own
    return merge_options(options)


def _config(root):
    path = root / "config.json"
    path.write_text(to_json(TrainConfig()))
    return [path]


def _journal(root):
    path = root / "tags.jsonl"
    record = {"path": "a", "model": "tiny", "absolute_path": "/a", "job": "01", "error": "x"}
    path.write_text(
        "".join(json.dumps(record | {"absolute_path": f"/{n}"}) + "\n" for n in "abc")
    )
    return [path]


def _read_journal(root):
    with open_journal(root / "tags.jsonl", Job("tiny", "01"), {"/a"}, resume=True) as journal:
        return journal.finished


def _clip_record(root):
    path = root / "clips.json"
    write_clip_record(path, "tones", ["a", "b"])
    return [path]


def _keras(root):
    import keras

    from rfkeras.layers import ClipLogits

    inputs = keras.Input((None, 8, 1))
    outputs = ClipLogits()(keras.layers.Conv2D(2, 3)(inputs))
    keras.Model(inputs, outputs).save(root / "model.keras")
    return [root / "model.keras"]


READERS = {
    "OpenMIC: CSV, JSON": Reader(_openmic_csv, _openmic, 10),
    "OpenMIC: .npz": Reader(_openmic_npz, _openmic, 10),
    "MTG-Jamendo: TSV": Reader(_jamendo, lambda r: load_dataset("mtg_jamendo", data_dir=r), 10),
    "DCASE: TSV": Reader(
        _dcase, lambda r: load_dataset("dcase", data_dir=r, validation_share=0.4), 8
    ),
    "MagnaTagATune: CSV": Reader(
        _magnatagatune, lambda r: load_dataset("magnatagatune", data_dir=r), 6
    ),
    "GTZAN: lists": Reader(_gtzan, lambda r: load_dataset("gtzan", data_dir=r), 6),
    "own data: CSV": Reader(
        _folder_csv, lambda r: load_dataset("folder", data_dir=r / "labels.csv"), 10
    ),
    "packed: index.json": Reader(_packed, lambda r: load_packed(str(r)), 10),
    "scores to evaluate: .npy": Reader(_arrays, _read_arrays, 8),
    "report's scores: .npz": Reader(_scores, lambda r: read_scores(r / "scores.npz"), 8),
    "checkpoint: .npz": Reader(
        _snapshot,
        lambda r: load_snapshot(r / "last.npz", [_variable((3, 2)), _variable((4,))]),
        10,
    ),
    "PyTorch weights: .npz": Reader(
        _torch_npz,
        lambda r: infer_options(read_state(r / "state.npz")),
        4,
        names_file=False,
    ),
    "recipe: YAML": Reader(_recipe, _read_recipe, 10, names_file=False),
    "configuration: JSON": Reader(_config, lambda r: from_json(r / "config.json"), 10),
    "tags: JSON lines": Reader(_journal, _read_journal, 8),
    "clips of weights: JSON": Reader(
        _clip_record, lambda r: recorded_clips(r / "clips.json", "tones", ["a"]), 4
    ),
    "model: .keras": Reader(_keras, lambda r: load_model(r / "model.keras"), 0.5),
}
