"""The runs and commands whose results `fingerprints.py` hashes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import soundfile

RATE_HZ = 22050
PATH_OPTIONS = ("data_dir", "audio_dir", "sound_font")
CLEANED = ("TF_", "KERAS_", "RFKERAS_", "PYTHON", "CUDA_", "OMP_")  # prefixes of variables

TRAIN = (
    "--width 8 --epochs 2 --batch-size 4 --excerpt-seconds 0.5 --window-seconds 1 "
    "--learning-rate 0.01 --checkpoint-steps 2 --devices cpu --seed 3"
)
FOLDER = "--dataset folder --data-dir {data} "
SMALL = FOLDER + "--rho 4 "
# Options of each run, in addition to TRAIN.
TRAININGS = {
    "resnet_rf": SMALL,
    "shake_aware_damped": SMALL + "--shake --frequency-aware --damping 0.1 --optimizer adamw",
    "recipe_swa_mixup": (
        FOLDER + "--recipe openmic_resnet_rf_shake --swa-start-epoch 1 --swa-every 1 "
        "--final-weights average"
    ),
    "single_label": SMALL + "--task single_label --monitor val_accuracy --class-weights "
    "balanced --gain-db 6 --spec-augment",
    "pruned_ema_bfloat16": SMALL + "--precision mixed_bfloat16 --prune-share 0.5 "
    "--prune-epochs 1 --averaging ema --ema-decay 0.9 --clip-norm 1",
    "crnn": FOLDER + "--model crnn --units 8",
    "gm_instruments": "--dataset gm_instruments --data-dir {work}/gm --dataset-size 40 --rho 4",
    "packed": "--dataset packed --data-dir {work}/shards --rho 4",
    "two_replicas": SMALL + "--devices cpu:2 --mixup 0.3",
    "two_workers": SMALL + "--mixup 0.3",
    "resumed": SMALL,
}
TABLES = {
    **{f"resnet_rf rho {rho}": f"resnet_rf --rho {rho}" for rho in (0, 5, 7, 12)},
    **{name: name for name in ("vgg_rf", "densenet_rf", "crnn")},
    "every rho": "resnet_rf --rho 7 --all-rho --all-layers",
}

SEED_STATE = "seed_generator_state"
SENTENCES = ("notes", "note", "audio")  # keys with text for readers, which may be reworded

COMMAND = """
import sys
from importlib.metadata import EntryPoint
value = sys.argv.pop(1)
sys.argv[0] = "rfkeras"
EntryPoint("rfkeras", value, "console_scripts").load()()
"""
WEIGHTS = """
import sys, keras, numpy as np, rfkeras
output, *paths = sys.argv[1:]
arrays = {}
for path in paths:
    keras.utils.clear_session()
    for i, variable in enumerate(rfkeras.load_model(path).variables):
        arrays[f"{path}|{i:04d}|{variable.path}"] = variable.numpy()
np.savez(output, **arrays)
"""
SERVED = """
import sys, numpy as np, tensorflow as tf
output, *paths = sys.argv[1:]
wave = np.random.default_rng(7).uniform(-0.5, 0.5, (2, 22050)).astype(np.float32)
arrays = {}
for path in paths:
    for name, function in sorted(tf.saved_model.load(path).signatures.items()):
        ((argument, spec),) = function.structured_input_signature[1].items()
        if spec.dtype == tf.float32:
            for key, tensor in sorted(function(**{argument: tf.constant(wave)}).items()):
                arrays[f"{path}|{name}|{key}"] = tensor.numpy()
np.savez(output, **arrays)
"""

Items = dict[str, str]


class Failed(Exception):
    """A command failed; the text is the end of its output."""


def sha(content: str | bytes) -> str:
    """Hash text or bytes."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def sha_arrays(arrays: Iterable[tuple[str, Any]]) -> str:
    """Hash arrays in order: name, data type, shape and bytes of each."""
    digest = hashlib.sha256()
    for name, array in arrays:
        plain = np.ascontiguousarray(array)
        digest.update(f"{name}|{plain.dtype.str}|{plain.shape}|".encode())
        digest.update(plain.tobytes())
    return digest.hexdigest()


def sha_json(content: Any, without: Sequence[str] = ()) -> str:
    """Hash JSON content independent of its formatting, without the keys in `without`."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(each) for key, each in value.items() if key not in without}
        return [strip(each) for each in value] if isinstance(value, list) else value

    return sha(json.dumps(strip(content), sort_keys=True))


def npz_items(path: Path) -> list[tuple[str, Any]]:
    """Read the arrays of an .npz file, in the file's order."""
    with np.load(path, allow_pickle=False) as archive:
        return [(name, archive[name]) for name in archive.files]


def make_audio(work: Path) -> None:
    """Write the clips of three classes and a longer clip, with the same bytes each time."""
    rng = np.random.default_rng(0)
    seconds = np.arange(RATE_HZ) / RATE_HZ
    for name, low_hz, high_hz in (("high", 1500, 3000), ("low", 100, 300), ("noise", 0, 0)):
        folder = work / "data" / name
        folder.mkdir(parents=True)
        for number in range(8):
            clip = 0.2 * np.sin(2 * np.pi * rng.uniform(low_hz, high_hz) * seconds)
            clip += (0.1 if name == "noise" else 0.02) * rng.normal(size=clip.size)
            soundfile.write(folder / f"{number}.wav", clip.astype(np.float32), RATE_HZ)
    glide = 0.2 * np.sin(2 * np.pi * 300 * np.arange(4 * 44100) ** 1.1 / 44100)
    soundfile.write(work / "glide.wav", glide.astype(np.float32), 44100)


class Checkout:
    """Runs commands with the code of a folder.

    Args:
        root: Folder of the checkout.
        work: Folder for data and runs: an absolute path that is the same for all checkouts,
            because it is written into files.
    """

    def __init__(self, root: Path, work: Path):
        self.root = root
        self.work = work
        kept = {k: v for k, v in os.environ.items() if not k.startswith(CLEANED)}
        self.environment = {
            **kept,
            "PYTHONPATH": str(root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "RFKERAS_CACHE_DIR": str(work / "cache"),
        }
        self._entry = self._find_entry()
        found = self.python("-c", "import rfkeras; print(rfkeras.__file__)").strip()
        if not Path(found).is_relative_to(root):
            raise SystemExit(f"Python imports {found} instead of the code in {root}.")

    def _find_entry(self) -> str:
        """Find the module and function behind `rfkeras` in the packaging files."""
        for name in ("setup.py", "pyproject.toml", "setup.cfg"):
            path = self.root / name
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            match = re.search(r"\brfkeras[\"']?\s*=\s*[\"']?(rfkeras[\w.]*:\w+)", text)
            if match:
                return match[1]
        raise SystemExit(f"No entry point for the command rfkeras found in {self.root}.")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Python in the checkout."""
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def python(self, *arguments: str) -> str:
        """Run Python in the checkout; return its standard output.

        Raises:
            Failed: The exit status is not 0.
        """
        process = self.start(*arguments)
        out, err = process.communicate()
        if process.returncode:
            raise Failed(f"status {process.returncode}: {(err or out)[-2000:]}")
        return out

    def rfkeras(self, *arguments: str) -> str:
        """Run the command `rfkeras`."""
        return self.python("-c", COMMAND, self._entry, *arguments)

    def arrays(self, code: str, paths: Sequence[Path]) -> dict[str, list[tuple[str, Any]]]:
        """Run code that reads files and writes arrays; return the arrays of each file."""
        result: dict[str, list[tuple[str, Any]]] = {str(path): [] for path in paths}
        if paths:
            output = self.work / "arrays.npz"
            self.python("-c", code, str(output), *result)
            for name, array in npz_items(output):
                path, _, rest = name.partition("|")
                result[path].append((rest, array))
        return result

    def train(self, name: str) -> Items:
        """Train; return no items, because `read_run` reads the files."""
        words = TRAININGS[name].format(data=self.work / "data", work=self.work).split()
        arguments = [*TRAIN.split(), *words, "--run-dir", str(self.work / name)]
        if name == "packed":
            data = FOLDER.format(data=self.work / "data").split()
            self.rfkeras("data", "pack", *data, str(self.work / "shards"))
        if name == "two_workers":
            self.rfkeras("launch", "--workers", "2", *arguments)
        elif name == "resumed":
            process = self.start("train.py", *arguments)
            saved = self.work / name / "checkpoints/last.npz"
            while process.poll() is None and not saved.exists():
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            process.communicate()
            if process.returncode != 128 + signal.SIGTERM:
                raise Failed(f"stopping the run gave status {process.returncode}")
            self.python("train.py", "--resume", str(self.work / name))
        else:
            self.python("train.py", *arguments)
        return {}

    def evaluate(self, name: str) -> Items:
        """Evaluate a run on another split with evaluate.py."""
        output = self.work / name
        run = str(self.work / "resnet_rf")
        self.python("evaluate.py", "--run", run, "--split", "train", "--output", str(output))
        return read_report(output)

    def tag(self, name: str) -> Items:
        """Tag a file with pretrained weights and write JSON lines."""
        output = self.work / "tags.jsonl"
        self.rfkeras(
            *("tag", str(self.work / "glide.wav"), "--frames", "--output", str(output)),
            *("--model", "resnet_rf_tiny", "--chunk-seconds", "2"),
        )
        lines = output.read_text(encoding="utf-8").splitlines()
        return {"JSON lines": sha_json([json.loads(line) for line in lines])}

    def embed(self, name: str) -> Items:
        """Embed a file with pretrained weights, frame by frame."""
        output = self.work / "embedding.npz"
        self.rfkeras(
            *("embed", str(self.work / "glide.wav"), "--per", "frame", "--output", str(output)),
            *("--model", "resnet_rf_tiny"),
        )
        return {"arrays": sha_arrays(npz_items(output))}

    def tables(self, name: str) -> Items:
        """Print the receptive fields of networks as JSON."""
        printed = {
            title: self.rfkeras("rf", *words.split(), "--json", "--no-plots")
            for title, words in TABLES.items()
        }
        return {title: sha_json(json.loads(text), SENTENCES) for title, text in printed.items()}

    def read_models(self, runs: Sequence[str]) -> dict[str, Items]:
        """Hash the weights and SavedModels of runs, with one process for each kind."""
        models = [self.work / name / "model.keras" for name in runs]
        exports = [self.work / name / "saved_model/1" for name in runs]
        weights, served = self.arrays(WEIGHTS, models), self.arrays(SERVED, exports)
        items: dict[str, Items] = {}
        for name, model, export in zip(runs, models, exports, strict=True):
            found = weights[str(model)]
            outputs = served[str(export)]
            # Every process that loads the model draws new values for seeds that are not stored.
            lasting = [array for key, array in found if not key.endswith(SEED_STATE)]
            items[name] = {
                "weights: names": sha("\n".join(key for key, _ in found)),
                "weights: values": sha_arrays(("", array) for array in lasting),
                **{f"SavedModel: {key}": sha_arrays([("", array)]) for key, array in outputs},
            }
        return items


COMMANDS: dict[str, Callable[[Checkout, str], Items]] = {
    **dict.fromkeys(TRAININGS, Checkout.train),
    "evaluate": Checkout.evaluate,
    "tag": Checkout.tag,
    "embed": Checkout.embed,
    "rf": Checkout.tables,
}


def read_report(folder: Path) -> Items:
    """Hash the scores and metrics of an evaluation."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {
        "scores": sha_arrays(npz_items(folder / "scores.npz")),
        "report.json": sha_json(report, SENTENCES),
    }


def read_run(folder: Path) -> Items:
    """Hash the files of a run, except the arrays of its models."""
    with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
        log = list(csv.DictReader(file))
    # A resumed run sums its loss from the step where it stopped, which affects the last bits.
    passing = ["seconds", *(["loss"] if folder.name == "resumed" else [])]
    items = {"log.csv": sha_json(log, without=passing)}
    for path in sorted(folder.glob("checkpoints/*.npz")):
        (_, meta), *arrays = npz_items(path)
        items[f"{path.name}: arrays"] = sha_arrays(arrays)
        items[f"{path.name}: names and record"] = sha_json(
            json.loads(str(meta)), without=passing
        )
    for name in ("config.json", "final_weights.json", "training_clips.json", "pruning.json"):
        if (folder / name).exists():
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            items[name] = sha_json(content, without=PATH_OPTIONS)
    with zipfile.ZipFile(folder / "model.keras") as archive:
        stored: list[tuple[str, Any]] = []
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
            weights.visititems(
                lambda key, node: (
                    stored.append((key, node[()])) if isinstance(node, h5py.Dataset) else None
                )
            )
        items["model.keras: stored arrays"] = sha_arrays(stored)
        # The module of a layer may change, but its registered name must not. The id of a shared
        # object is its address in memory.
        items["model.keras: layers"] = sha_json(
            json.loads(archive.read("config.json")), ["module", "shared_object_id"]
        )
    for path in sorted(folder.glob("saved_model/1/assets/*")):
        items[f"SavedModel: {path.name}"] = sha(path.read_bytes())
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    names = {re.sub(r"tfevents\..*", "tfevents", path.as_posix()) for path in files}
    return {**items, **read_report(folder / "report"), "files": sha("\n".join(sorted(names)))}
