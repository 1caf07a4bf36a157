"""A short run of `python -m tests.robustness.fuzz`, and cases that longer runs have found."""

import io
import json
import zipfile

import numpy as np
import pytest

from rfkeras.errors import CheckpointError, ConfigError, DatasetError
from rfkeras.utils.files import open_npz, write_npz
from tests.robustness.fuzz.damage import header
from tests.robustness.fuzz.engines import blind, structured
from tests.robustness.fuzz.outcome import Outcomes
from tests.robustness.fuzz.readers import READERS

SLOW = "model: .keras"


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_rejected(name, tmp_path):
    reader = READERS[name]
    paths = reader.make(tmp_path)
    reader.read(tmp_path)
    outcomes = Outcomes()
    cases = 4 if name == SLOW else 40
    for engine in (structured, blind):
        engine(reader, tmp_path, paths, sum(outcomes.counts.values()) + cases, 1, outcomes)
    assert not outcomes.wrong
    assert set(outcomes.counts) <= {"read", "rejected"}
    assert sum(outcomes.counts.values()) >= 2 * cases
    assert outcomes.counts["rejected"] >= cases / 2


def archive(**members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return out.getvalue()


FOUND = {
    "nested JSON": ("OpenMIC: CSV, JSON", "class-map.json", b"[" * 100_000),
    "no UTF-8": ("OpenMIC: CSV, JSON", "openmic-2018-aggregated-labels.csv", b"\xff"),
    "header that does not end": ("OpenMIC: .npz", ".npz", archive(Y_true=header("(3,", "<f8"))),
    "72 TiB": (
        "OpenMIC: .npz",
        ".npz",
        archive(Y_true=header("(10000000000000,)", "<f8")),
    ),
    "no array": ("OpenMIC: .npz", ".npz", archive(Y_true=b"text")),
    "texts for numbers": ("OpenMIC: .npz", ".npz", archive(Y_true=header("(0,)", "<U9"))),
    "72 TiB of scores": (
        "scores to evaluate: .npy",
        "mask.npy",
        header("(10000000000000,)", "?"),
    ),
    "impossible text": (
        "checkpoint: .npz",
        ".npz",
        archive(meta=header("()", "<U1") + b"\xff" * 4),
    ),
    "no record": ("checkpoint: .npz", ".npz", archive(meta=b"")),
    "splits are nothing": (
        "packed: index.json",
        ".json",
        b'{"format": "rfkeras-shards", "version": 1, "splits": null, '
        b'"audio": {"sample_rate_hz": 8000, "channels": 1}}',
    ),
    "nested YAML": ("recipe: YAML", ".yaml", b"a: " + b"[" * 2000),
    "long name": ("recipe: YAML", ".yaml", b"extends: " + b"x" * 100_000),
    "5,000 digits": ("recipe: YAML", ".yaml", b"epochs: " + b"9" * 5000),
    "no timestamp": ("recipe: YAML", ".yaml", b"a: !!timestamp x"),
    "key that is a list": (
        "tags: JSON lines",
        ".jsonl",
        b'{"model": "tiny", "job": "01", "absolute_path": []}\n',
    ),
    "clips that are nothing": ("clips of weights: JSON", ".json", b"null"),
}


@pytest.mark.parametrize("case", FOUND)
def test_bugs_found_by_fuzzing_stay_fixed(case, tmp_path):
    name, ending, content = FOUND[case]
    reader = READERS[name]
    (path,) = (p for p in reader.make(tmp_path) if p.name.endswith(ending))
    path.write_bytes(content)
    with pytest.raises((ConfigError, DatasetError, CheckpointError)) as caught:
        reader.read(tmp_path)
    assert str(tmp_path) in str(caught.value) or not reader.names_file


def test_an_archive_bomb_is_rejected(tmp_path):
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb,
        bomb.open("a.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(110):
            member.write(bytes(10_000_000))
    assert path.stat().st_size < 2_000_000
    with pytest.raises(ValueError, match="1,100,000,000 bytes"), open_npz(path):
        pass
    content = path.read_bytes()  # now declare the same size for the compressed data
    at = content.rindex(b"PK\x01\x02") + 20
    path.write_bytes(content[:at] + (1_100_000_000).to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(ValueError, match="1,100,000,000 bytes"), open_npz(path):
        pass
    write_npz(path, {"a": np.arange(3)})
    with open_npz(path) as whole:
        np.testing.assert_array_equal(whole["a"], np.arange(3))


def test_a_packed_index_cannot_name_files_outside_its_folder(tmp_path):
    reader = READERS["packed: index.json"]
    (path,) = reader.make(tmp_path)
    index = json.loads(path.read_text())
    for name in ("../secret", "/etc/passwd", "..\\secret", ".hidden"):
        index["splits"]["train"]["shards"][0]["file"] = name
        path.write_text(json.dumps(index))
        with pytest.raises(DatasetError, match="is not the name of a shard in this folder"):
            reader.read(path.parent)
