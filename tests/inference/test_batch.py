"""Tagging many files: what is passed on, counted and said, without a model."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

import rfkeras
from rfkeras.audio.find import FoundFile
from rfkeras.inference import TagResult, open_tagger
from rfkeras.inference.batch import Display, Job, Journal, run_batch
from rfkeras.inference.output import OutputError

SCORES = np.array([0.5, 0.25], "float32")


class Tagger(SimpleNamespace):
    """Stands for a `StreamTagger` with chunks of a second."""

    def __init__(self, exact):
        super().__init__(
            exact=exact, chunk_seconds=1.0, reason_not_exact="because", decoder="soundfile"
        )
        self.calls = []

    def run_file(self, path, *, frames, embeddings, on_progress, **options):
        self.calls.append((path.name, frames, embeddings))
        on_progress(0.25)
        return TagResult(soundfile.info(path).duration, SCORES, SCORES, None, None, None)


@pytest.fixture
def files(tmp_path):
    for name, seconds in (("short", 0.5), ("long", 1.5), ("longer", 2.0), ("exact", 1.0)):
        noise = np.random.default_rng(0).normal(0, 0.1, int(8000 * seconds))
        soundfile.write(tmp_path / f"{name}.wav", noise, 8000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    names = ("exact", "short", "long", "broken", "longer")
    return [FoundFile(path, path) for path in (tmp_path / f"{name}.wav" for name in names)]


@pytest.mark.parametrize("exact", [True, False])
def test_every_file_is_passed_on_and_the_note_on_chunks_comes_once(files, exact, capsys):
    written = []
    tagger = Tagger(exact)
    summary = run_batch(tagger, files, written.append, Display(len(files)), frames=True)
    assert (summary.total, summary.done, summary.failed) == (5, 4, 1)
    assert not summary.interrupted
    assert tagger.calls == [
        (f"{name}.wav", True, False) for name in ("exact", "short", "long", "longer")
    ]
    assert [outcome.file for outcome in written] == files
    assert [outcome.error is not None for outcome in written] == [
        file is files[3] for file in files
    ]
    assert [outcome.result.seconds for outcome in written if outcome.result] == [1, 0.5, 1.5, 2]
    said = capsys.readouterr().err
    assert said.count("files longer than 1 s are processed in chunks") == (0 if exact else 1)
    assert ("single pass: because" in said) is not exact
    assert said.count("broken.wav: ") == 1


def test_an_interruption_ends_the_batch_and_keeps_what_is_written(files):
    written = []

    def write(outcome):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(outcome)

    summary = run_batch(Tagger(True), files, write, Display(len(files), quiet=True))
    assert summary.interrupted
    assert (summary.done, summary.failed, len(written)) == (2, 0, 2)


def test_an_output_that_cannot_be_opened_is_named_with_what_is_kept(tmp_path):
    path = tmp_path / "absent/tags.jsonl"
    journal = Journal(path, Job("model", "digest"), wanted=())
    message = rf"{path} cannot be written: No such file.*All files before this one are recorded"
    with pytest.raises(OutputError, match=message), journal.writing(None):
        pass


def test_tagging_from_python_is_that_of_the_command(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.wav", "d/b.wav"):
        (tmp_path / "d").mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, rng.normal(0, 0.1, 5 * 22050), 22050)
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    model = "resnet_rf_tiny:instruments"
    files = {file.path.name: file for file in rfkeras.tag(tmp_path, model, frames=True)}
    assert set(files) == {"a.wav", "b.wav", "bad.wav"}
    assert files["bad.wav"].error
    assert not files["bad.wav"].scores
    tagger = open_tagger(model)
    for name in ("a.wav", "d/b.wav"):
        file, result = files[name[-5:]], tagger.run_file(tmp_path / name, frames=True)
        assert file.error is None
        pairs = zip(tagger.label_names, map(float, result.scores), strict=True)
        assert file.scores == dict(pairs)
        np.testing.assert_array_equal(file.result.frame_scores, result.frame_scores)
        limits = dict(zip(tagger.label_names, tagger.thresholds, strict=True))
        applies = {tag for tag, limit in limits.items() if file.scores[tag] >= limit}
        assert set(file.tags) == applies
    one = rfkeras.tag(str(tmp_path / "a.wav"), rfkeras.load_model(model), threshold=0.0)
    assert len(one[0].tags) == 20
    scores = [one[0].scores[name] for name in one[0].tags]
    assert scores == sorted(scores, reverse=True)
    np.testing.assert_allclose(
        list(one[0].scores.values()), list(files["a.wav"].scores.values()), atol=1e-5
    )
