"""Every file in a folder gives finite numbers or an error that names the file."""

import contextlib
import csv
import io
import json
import time

import numpy as np
import pytest

from rfkeras.audio.io import AudioFormat
from rfkeras.cli.main import run
from rfkeras.datasets.base import AudioDataset, BadFileLog, Split
from rfkeras.datasets.pack import pack
from rfkeras.datasets.packed import load_packed
from rfkeras.datasets.pipeline import evaluation_batches, training_batches
from rfkeras.errors import DatasetError
from tests.helpers.taggers import RATE_HZ, zoo_tagger
from tests.robustness.odd_files.corpus import READ, REFUSED, scipy_wavs, write
from tests.robustness.odd_files.mutate import campaign, resident_mb
from tests.robustness.odd_files.tagging import small_tagger, tag_files

AUDIO = AudioFormat(RATE_HZ)
SECONDS_PER_FILE = 5.0  # far more than any file needs, far less than decoding ten hours


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return {**write(tmp_path_factory.mktemp("corpus")), **scipy_wavs()}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "small.keras"
    zoo_tagger("resnet_rf_tiny", width=4, rho=1).save(path)
    return path


def split_of(corpus):
    count = len(corpus)
    keys = tuple(str(path) for path in corpus)
    labels = np.eye(count, 3, dtype=np.float32)
    return Split(keys, tuple(corpus), labels, np.ones((count, 3), np.float32))


def check(corpus, refused):
    """Compare the rejected files with the expected outcomes."""
    refused = {str(path) for path in refused}
    assert refused <= {str(path) for path in corpus}
    for path, expected in corpus.items():
        if expected == REFUSED:
            assert str(path) in refused, path
        if expected == READ:
            assert str(path) not in refused, path


@contextlib.contextmanager
def within(seconds):
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds


def tag(model_file, corpus, output, *flags):
    # Folders are searched, not read; the tests of the tagger cover that.
    files = [str(path) for path in corpus if not path.is_dir()]
    with contextlib.redirect_stderr(io.StringIO()) as err:
        arguments = ["tag", *files, "--model", str(model_file), "--chunk-seconds", "2", *flags]
        status = run([*arguments, "--output", str(output)])
    return status, err.getvalue(), [json.loads(x) for x in output.read_text().splitlines()]


@pytest.mark.parametrize("decoder", ["soundfile", "isolated"])
def test_tagging_gives_every_file_scores_or_an_error(corpus, model_file, tmp_path, decoder):
    with within(SECONDS_PER_FILE * len(corpus)):
        status, err, records = tag(
            model_file, corpus, tmp_path / "tags.jsonl", "--decoder", decoder
        )
    records = [record for record in records if "path" in record]
    assert status == 1
    files = {path: outcome for path, outcome in corpus.items() if not path.is_dir()}
    assert len(records) == len(files)
    by_name = {str(path).encode("utf-8", "backslashreplace").decode(): path for path in files}
    refused = [by_name[record["path"]] for record in records if record.get("error")]
    check(files, refused)
    for record in records:
        if not record.get("error"):
            assert np.isfinite(list(record["scores"].values())).all()
    for path in refused:
        assert path.name in err


def test_tagging_repeatedly_does_not_increase_memory(corpus):
    tagger = small_tagger("soundfile")
    files = [path for path in corpus if not path.is_dir()]
    used = []
    for _ in range(4):
        tag_files(tagger, files, lambda outcome: None)
        used.append(resident_mb())
    assert used[3] - used[1] < 10, used  # the first pass creates threads and buffers


def test_embedding_leaves_out_unreadable_files(corpus, model_file, tmp_path):
    files = {path: outcome for path, outcome in corpus.items() if not path.is_dir()}
    output = tmp_path / "features.npy"
    with contextlib.redirect_stderr(io.StringIO()):
        status = run(
            ["embed", *map(str, files), "--model", str(model_file), "--output", str(output)]
        )
    assert status == 1
    features = np.load(output)
    assert np.isfinite(features).all()
    with (tmp_path / "features.files.csv").open(encoding="utf-8") as file:
        read = [row["path"] for row in csv.DictReader(file)]
    assert len(features) == len(read)
    names = {str(p).encode("utf-8", "backslashreplace").decode() for p in files}
    check({p: o for p, o in files.items() if o == READ}, [])
    assert set(read) <= names
    refused = {str(p) for p, outcome in files.items() if outcome == REFUSED}
    assert not refused & set(read)


@pytest.mark.parametrize("decoder", ["soundfile", "isolated"])
def test_packing_leaves_out_and_lists_unreadable_files(corpus, tmp_path, decoder):
    dataset = AudioDataset("nasty", ("a", "b", "c"), {"train": split_of(corpus)})
    with pytest.raises(DatasetError, match="--max-bad-share"):
        pack(dataset, AUDIO, tmp_path / "strict", progress=False, decoder=decoder)
    folder = tmp_path / "packed"
    pack(dataset, AUDIO, folder, progress=False, max_bad_share=1.0, decoder=decoder)
    with (folder / "bad_files.csv").open(encoding="utf-8", errors="surrogateescape") as file:
        bad = list(csv.DictReader(file))
    assert all(row["reason"] for row in bad)
    packed = load_packed(str(folder)).splits["train"]
    assert len(packed) + len({row["path"] for row in bad}) == len(corpus)
    check(corpus, [key for key in map(str, corpus) if key not in set(packed.keys)])
    windows, _ = evaluation_batches(
        packed, AUDIO, window_seconds=0.5, batch_size=8, bad_files=log(corpus)
    )
    assert all(np.isfinite(batch).all() for batch in windows.as_numpy_iterator())


def log(corpus):
    return BadFileLog(None, total_files=len(corpus), max_bad_share=1.0)


@pytest.mark.parametrize("decoder", ["soundfile", "isolated"])
def test_training_and_evaluation_skip_unreadable_files(corpus, decoder):
    split = split_of(corpus)
    bad = log(corpus)
    steps = -(-len(split) // 8)
    batches = training_batches(
        split,
        AUDIO,
        excerpt_seconds=0.2,
        batch_size=8,
        seed=0,
        steps_per_epoch=steps,
        total_steps=steps,
        bad_files=bad,
        decoder=decoder,
    )
    with within(SECONDS_PER_FILE * len(corpus)):
        shapes = []
        for waveforms, _, _ in batches.as_numpy_iterator():
            assert np.isfinite(waveforms).all()
            shapes.append(waveforms.shape)
    assert shapes == [(8, 800)] * steps
    # An excerpt may end before the damaged part, so these files may also be read.
    partly = ("ten_hours", "nan", "infinite", "huge_numbers")
    files = {p: o for p, o in corpus.items() if not p.name.startswith(partly)}
    check(files, {file.path for file in bad.files} & {str(path) for path in files})
    # Ten hours in the header mean 72,000 windows, all of them empty.
    short = {p: o for p, o in corpus.items() if not p.name.startswith("ten_hours")}
    bad = log(short)
    windows, plan = evaluation_batches(
        split_of(short), AUDIO, window_seconds=0.5, batch_size=8, bad_files=bad, decoder=decoder
    )
    assert all(np.isfinite(batch).all() for batch in windows.as_numpy_iterator())
    check(short, {file.path for file in bad.files})
    assert 0 < len(plan.kept_rows) == len(short) - len({file.path for file in bad.files})


def test_hundreds_of_damaged_files_are_read_or_rejected(tmp_path):
    outcomes = campaign(tmp_path, range(1000, 1400))
    assert outcomes.fatal == []
    assert outcomes.read["finite samples"] > 100
    assert sum(outcomes.read.values()) == sum(outcomes.checked.values()) == 400
    assert outcomes.slowest[0] < SECONDS_PER_FILE
