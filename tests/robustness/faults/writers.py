"""Functions that write files with an old or a new state, and read the state back."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from rfkeras.audio.find import FoundFile
from rfkeras.beam.runner import write_file
from rfkeras.datasets.base import Split
from rfkeras.datasets.pack import EncodedClip, ShardWriter
from rfkeras.evaluation.result import write_scores
from rfkeras.inference import FrameTimes
from rfkeras.inference.batch import Job, open_journal
from rfkeras.inference.features import features_file
from rfkeras.inference.output import Outcome, TagRules
from rfkeras.inference.stream import TagResult
from rfkeras.synthesis.clip_files import ClipJournal
from rfkeras.training.run_dir import _read_snapshot, save_snapshot
from rfkeras.utils.files import write_text
from rfkeras.utils.plotting import save_png

RULES = TagRules("tiny", ("a",), None, True, 22050, FrameTimes(10.0, 5.0, None))


def text(folder, value):
    write_text(folder / "config.json", json.dumps([value] * 5000))


def read_text(folder):
    return json.loads((folder / "config.json").read_text())[-1]


def snapshot(folder, value):
    array = np.full((100, 50), value, np.float32)
    variable = SimpleNamespace(path="v", shape=array.shape, numpy=lambda: array)
    save_snapshot(folder / "last.npz", [variable] * 3, {"steps_done": value})


def read_snapshot(folder):
    meta, arrays = _read_snapshot(folder / "last.npz", with_values=True)
    (value,) = {meta["record"]["steps_done"], *(v for a in arrays for v in np.unique(a))}
    return value


def scores(folder, value):
    write_scores(folder / "scores.npz", np.full((999, 2), value), np.ones((999, 2)))


def read_scores(folder):
    with np.load(folder / "scores.npz") as archive:
        (value,) = np.unique(archive["scores"])
    return value


def picture(folder, value):
    class Figure:
        def savefig(self, path, **settings):
            with Path(path).open("wb") as file:
                for _ in range(10):
                    file.write(bytes([value]) * 1000)

    save_png(Figure(), folder / "curve.png")


def read_picture(folder):
    content = (folder / "curve.png").read_bytes()
    (value,) = set(content)
    assert len(content) == 10_000
    return value


def outcome(name, value):
    result = TagResult(
        1.0, np.zeros(1), np.full(1, value / 10), None, np.full(400, value, np.float32), None
    )
    return Outcome(FoundFile(Path(name), Path(name)), result)


def features(folder, value):
    with features_file(folder / "x.npy", "clip", "tiny", RULES.frames) as write:
        for number in range(3):
            write(outcome(f"{value}-{number}.wav", value))


def read_features(folder):
    if not (folder / "x.npy").exists():  # killed before both new files were in place
        return 0
    array = np.load(folder / "x.npy")
    (value,) = np.unique(array)
    assert array.shape == (3, 400)
    with (folder / "x.files.csv").open(newline="") as file:
        names = [row["path"] for row in csv.DictReader(file)]
    assert names == [f"{value:.0f}-{number}.wav" for number in range(3)]
    return value


def tags(folder, value):
    """Write `old.wav` to a new journal, or resume it with `new.wav`."""
    job = Job("tiny", "0123")
    with (
        open_journal(folder / "tags.jsonl", job, {"x"}, resume=True) as journal,
        journal.writing(RULES) as write,
    ):
        write(outcome("old.wav" if value == 1 else "new.wav", value))


def read_tags(folder):
    with open_journal(
        folder / "tags.jsonl", Job("tiny", "0123"), set(), resume=True
    ) as journal:
        names = {Path(key).name for key in journal.finished}
    assert "old.wav" in names
    return len(names)


def generated(folder, value):
    """Add a clip to the checksums of generated clips."""
    journal = ClipJournal(folder / "clips.sha256")
    journal.append([(f"clip{value}.ogg", str(value) * 64)])


def read_generated(folder):
    sums = ClipJournal(folder / "clips.sha256").read()
    assert all(path == f"clip{value[0]}.ogg" for path, value in sums.items())
    return len(sums)


def shard(folder, value):
    labels = np.ones((3, 1), np.float32)
    split = Split(("a", "b", "c"), (folder,) * 3, labels, labels)
    writer = ShardWriter(folder / "train-00000.tfrecord", split)
    for row in range(3):
        writer.add(EncodedClip(row, bytes([value]) * 2000, 1000, False))
    writer.finish()


def read_shard(folder):
    content = (folder / "train-00000.tfrecord").read_bytes()
    counts = [content.count(bytes([value]) * 2000) for value in (1, 2)]
    assert sorted(counts) == [0, 3]
    return counts.index(3) + 1


def dead_letters(folder, value):
    write_file(str(folder / "dead.jsonl"), f"{value}\n".encode() * 3000)


def read_dead_letters(folder):
    (value,) = set((folder / "dead.jsonl").read_text().split("\n")[:3000])
    return int(value)


WRITERS = {
    "configuration": (text, read_text),
    "checkpoint": (snapshot, read_snapshot),
    "report's scores": (scores, read_scores),
    "report's picture": (picture, read_picture),
    "embeddings": (features, read_features),
    "tags": (tags, read_tags),
    "generated clips": (generated, read_generated),
    "packed shard": (shard, read_shard),
    "dead letters": (dead_letters, read_dead_letters),
}
