"""The plot of a file: its content, its axes and its readability."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from rfkeras.audio.find import FoundFile
from rfkeras.frontend import find_frontend
from rfkeras.inference import StreamTagger
from rfkeras.inference import plot as plots
from rfkeras.inference.output import Outcome, TagRules
from tests.helpers.audio_commands import make_model
from tests.helpers.plots import texts_overlap


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """Return (tagger, path, outcome) for a song of 47 s with a click."""
    root = tmp_path_factory.mktemp("plot")
    samples = 0.01 * np.random.default_rng(0).normal(size=47 * 22050)
    samples[30 * 22050 :][:4000] += 0.5
    path = root / "a $x$ \u266b \u4e2d.flac"
    soundfile.write(path, samples.astype("float32"), 22050)
    tagger = StreamTagger(make_model(root / "tiny.keras"))
    found = FoundFile(path, Path(path.name))
    return tagger, path, Outcome(found, tagger.run_file(path, frames=True))


def figure(song, **changes):
    tagger, path, outcome = song
    rules = TagRules.of(tagger, "runs/some-long-name-of-a-run/model.keras", **changes)
    pixels = tagger.file_spectrogram(path, plots.MOST_COLUMNS)
    return rules, plots.tags_figure(tagger, rules, str(path), outcome.result, pixels), pixels


def test_spectrogram_in_blocks_equals_the_front_end(song):
    tagger, path, _ = song
    pixels = tagger.file_spectrogram(path, plots.MOST_COLUMNS)
    samples, _ = soundfile.read(path, dtype="float32")
    whole = find_frontend(tagger.model).mel_db(samples[None]).numpy()[0, ..., 0]
    assert pixels.shape == (plots.MOST_COLUMNS, whole.shape[1])
    column = np.arange(len(whole)) * len(pixels) // len(whole)
    wanted = np.array([whole[column == c].mean(0) for c in range(len(pixels))])
    # Frames at the ends of blocks see a reflection instead of the next block.
    far = [c for c in range(len(pixels)) if min(abs(c * 47 / 1200 - p) for p in (20, 40)) > 0.2]
    np.testing.assert_allclose(pixels[far], wanted[far], atol=2e-2)


def test_map_shows_the_scores_on_the_spectrogram_time_axis(song):
    rules, drawn, _ = figure(song)
    above, below = drawn.axes[:2]
    scores = song[2].result.frame_scores
    tags = rules.ranking(song[2].result)
    image = below.images[0]
    np.testing.assert_array_equal(image.get_array(), scores[:, tags].T)
    left, right = image.get_extent()[:2]
    stride_s = rules.frames.stride_ms / 1000
    assert right - left == pytest.approx(stride_s * len(scores))
    assert left + stride_s / 2 == pytest.approx(rules.frames.first_ms / 1000)
    assert above.get_xlim() == below.get_xlim() == (0, 47)
    assert [text.get_text() for text in below.get_xticklabels()][:3] == ["0:00", "0:05", "0:10"]
    assert [text.get_text() for text in below.get_yticklabels()] == [
        rules.names[tag] for tag in tags
    ]
    spectrogram = above.images[0]
    loudest = int(spectrogram.get_array().sum(axis=0).argmax())
    columns = spectrogram.get_array().shape[1]
    assert loudest / columns * 47 == pytest.approx(30, abs=0.3)


def test_texts_do_not_overlap_and_unknown_characters_are_boxes(song, tmp_path):
    _, drawn, _ = figure(song, threshold=0.2)
    assert texts_overlap(drawn) == []
    title = drawn.texts[0].get_text()
    assert title == "a $x$ \u266b \u25a1.flac"
    assert not drawn.texts[0].get_parse_math()
    tagger, _, outcome = song
    plots.plot_tags(tmp_path / "p.png", tagger, TagRules.of(tagger, "m"), outcome)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_long_files_keep_their_peaks():
    scores = np.zeros((10_000, 2), "float32")
    scores[7777, 1] = 0.9
    columns, frames = plots.column_maxima(scores, plots.MOST_COLUMNS)
    assert frames == 9
    assert len(columns) == 1112
    assert columns[7777 // 9, 1] == np.float32(0.9)
    assert columns.sum() == np.float32(0.9)
