"""`rfkeras data pack --beam`: the same clips as plain packing, and restarts."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from rfkeras.cli import main
from rfkeras.datasets.packed import load_packed, verify_packed

pytest.importorskip("apache_beam")


@pytest.fixture(scope="module")
def source(tone_folder, tmp_path_factory):
    """Return a copy of the tones with one broken file and one that is cut."""
    folder = tmp_path_factory.mktemp("bulk") / "tones"
    shutil.copytree(tone_folder, folder)
    (folder / "low" / "07.wav").write_bytes(b"RIFF")
    cut = folder / "low" / "05.wav"
    cut.write_bytes(cut.read_bytes()[:-2000])
    return folder


def pack(source, out, *flags):
    words = ["data", "pack", str(out), "--dataset", "folder", "--data-dir", str(source)]
    return main.run([*words, "--shard-mb", "0.3", *flags])


def records(folder):
    """Return the record of each clip, by key."""
    paths = [str(path) for path in folder.glob("*.tfrecord")]
    features = {"key": tf.io.FixedLenFeature((), tf.string)}
    texts = list(tf.data.TFRecordDataset(paths).as_numpy_iterator())
    found = {tf.io.parse_single_example(t, features)["key"].numpy(): t for t in texts}
    assert len(found) == len(texts)
    return found


def test_clips_match_plain_packing_and_a_restart_keeps_complete_shards(
    source, tmp_path, capsys
):
    tolerant = ("--max-bad-share", "0.05")
    assert pack(source, tmp_path / "plain", *tolerant) == 0
    note = (
        f"Note on folder: 1 file damaged and used only in part: {source / 'low' / '05.wav'}: "
    )
    assert note in capsys.readouterr().err
    bulk = tmp_path / "bulk"
    assert pack(source, bulk, "--max-bad-share", "0", "--beam") == 1
    assert "bad_files.csv" in capsys.readouterr().err
    assert not (bulk / "index.json").exists()
    shards = {path: path.stat().st_mtime_ns for path in bulk.glob("*.tfrecord")}
    assert len(shards) > 4
    (bulk / "train-00000.tfrecord").write_bytes(b"cut short")
    (bulk / "my own.tfrecord").write_bytes(b"unrelated")

    assert pack(source, bulk, *tolerant, "--beam") == 0
    assert note in capsys.readouterr().err
    written = {path.name for path, when in shards.items() if path.stat().st_mtime_ns != when}
    index = json.loads((bulk / "index.json").read_text())
    plain = json.loads((tmp_path / "plain" / "index.json").read_text())
    assert index["left_out"] == plain["left_out"]
    assert [bad["path"] for bad in index["left_out"]] == [str(source / "low" / "07.wav")]
    assert "train-00000.tfrecord" in written
    assert len(written) <= 2  # that one, and the one with the broken clip
    assert not list(bulk.glob("*.entry.json"))
    (bulk / "my own.tfrecord").unlink()  # it was not touched
    for name, split in plain["splits"].items():
        for key in ("keys", "lengths", "labels", "mask", "clipped_clips"):
            assert index["splits"][name][key] == split[key], (name, key)
    assert records(bulk) == records(tmp_path / "plain")
    packed = load_packed(str(bulk))
    verify_packed(packed)
    assert sum(len(split) for split in packed.splits.values()) == 71
    assert np.isfinite(packed.splits["train"].labels).all()

    assert pack(source, bulk, *tolerant, "--beam") == 1
    assert "already has a packed data set" in capsys.readouterr().err
