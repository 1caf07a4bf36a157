"""The pages of `rfkeras tag --html`: their values, links, names and sizes."""

import base64
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from rfkeras.audio.find import FoundFile
from rfkeras.errors import ConfigError
from rfkeras.frontend import find_frontend
from rfkeras.inference import StreamTagger, html_pages
from rfkeras.inference.batch import Job
from rfkeras.inference.html_pages import HtmlPages, Picture
from rfkeras.inference.output import Outcome
from rfkeras.utils.remote import RemotePath
from rfkeras.utils.text import printable
from tests.helpers import album
from tests.helpers.audio_commands import make_model

JOB = Job("a-model", "0123456789ab")
ODD_NAMES = (
    "plain.wav",
    "50% #1? a&b;c=d.wav",
    "\"quotes\" and 'ticks' <script>alert(1)</script>.wav",
    "d/Bj\u00f6rk \u2603 \u97f3\u697d.wav",
    "d/a:b\\c\nnew line.wav",
    "</script><!--.wav",
    "$title ${data}.wav",
    os.fsdecode(b"not UTF-8 \xff.wav"),
)


class Parts(HTMLParser):
    """Collects the tags and attributes of a page, and the texts by tag."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._open = [], {}, ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        self.texts[self._open] = self.texts.get(self._open, "") + data

    def attribute(self, tag, name):
        return next(attributes[name] for each, attributes in self.tags if each == tag)


def data_of(page):
    """Return the data in a page."""
    (text,) = re.findall(
        r'<script id="data" type="application/json">(.*?)</script>', page.read_text("utf-8")
    )
    return json.loads(text)


def frames_of(data):
    """Return the scores over time of a page, (columns, tags) in the order of its tags."""
    values = np.frombuffer(base64.b64decode(data["frames"]), np.uint8)
    return values.reshape(len(data["tags"]), data["columns"]).T


def spans_of(data, tag):
    """Return the segments of a tag as the script of the page finds them."""
    numbers = frames_of(data)[:, tag]
    on = numbers >= np.ceil(data["tags"][tag]["threshold"] * 255 - 1e-6)
    frames = np.minimum(
        np.arange(data["columns"] + 1) * data["frames_per_column"], data["n_frames"]
    )
    edges = np.clip(data["start_s"] + frames * data["stride_s"], 0, data["seconds"])
    found = []
    for column in np.flatnonzero(on & (np.diff(edges) > 0)):
        if found and found[-1][1] == edges[column]:
            found[-1][1] = edges[column + 1]
        else:
            found.append([edges[column], edges[column + 1]])
    return found


def test_values_are_close_and_segments_equal_those_of_the_result(tmp_path):
    rng = np.random.default_rng(0)
    scores = rng.uniform(size=(1500, 4)).astype("float32")
    # Scores at and next to the thresholds, where rounding would move segments.
    for tag, limit in enumerate(album.THRESHOLDS):
        close = np.float32(limit) + rng.normal(0, 0.002, 600).astype("float32")
        scores[:600, tag] = close
        scores[600:700, tag] = limit
    rules = album.rules()
    song = album.outcome(tmp_path / "a.wav", "a.wav", 749.9, scores.mean(0), scores)
    album.write_pages(tmp_path / "out", [song], rules)
    data = data_of(tmp_path / "out/songs/a.wav.html")
    order = rules.ranking(song.result)
    assert [tag["name"] for tag in data["tags"]] == [rules.names[tag] for tag in order]
    assert np.abs(frames_of(data) / 255 - scores[:, order]).max() <= 1 / 255
    for place, tag in enumerate(order):
        np.testing.assert_allclose(spans_of(data, place), rules.spans(song.result)[tag])
        assert data["tags"][place]["threshold"] == album.THRESHOLDS[tag]
        assert data["tags"][place]["score"] == pytest.approx(scores[:, tag].mean(), abs=1e-4)


@pytest.mark.parametrize(("labels", "columns"), [(20, 1964), (527, 745)])
def test_a_page_of_three_hours_is_small_and_keeps_short_events(tmp_path, labels, columns):
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 0.4, (21_600, labels)).astype("float32")
    scores[7777, 3] = 0.9
    rules = album.rules([f"tag {i}" for i in range(labels)], [0.5] * labels)
    song = album.outcome(tmp_path / "a.wav", "a.wav", 10_800.0, scores.mean(0), scores)
    noise = Picture(rng.normal(size=(1200, 256)), 0.0, 10_800.0)
    album.write_pages(tmp_path / "out", [song], rules, lambda _: noise)
    page = tmp_path / "out/songs/a.wav.html"
    assert page.stat().st_size < 1_000_000
    data = data_of(page)
    assert data["columns"] == columns
    (place,) = [i for i, tag in enumerate(data["tags"]) if tag["name"] == "tag 3"]
    ((start, end),) = spans_of(data, place)
    assert start <= 7777 * 0.5 < end
    assert end - start <= data["frames_per_column"] * 0.5


def test_names_are_escaped_and_links_lead_to_the_files(tmp_path):
    songs = []
    for name in ODD_NAMES:
        path = tmp_path / "music" / name
        album.write_wav(path, 1.0)
        songs.append(album.outcome(path, name, 1.0, [0.9] * 4, np.full((2, 4), 0.9)))
    album.write_pages(tmp_path / "out", songs, album.rules())
    index = tmp_path / "out/index.html"
    rows = data_of(index)["songs"]
    assert [row["name"] for row in rows] == [printable(name) for name in ODD_NAMES]
    for row, name in zip(rows, ODD_NAMES, strict=True):
        page = tmp_path / "out" / unquote(row["page"], errors="surrogateescape")
        text = page.read_text("utf-8")
        parts = Parts(text)
        assert parts.texts["title"] == printable(Path(name).name)
        assert {tag for tag, _ in parts.tags} & {"b", "iframe", "form", "object"} == set()
        up = row["page"].count("/") * "../"
        scripts = [attributes for tag, attributes in parts.tags if tag == "script"]
        assert [each.get("src", each.get("type")) for each in scripts] == [
            up + "assets/theme.js",
            "application/json",
            up + "assets/song.js",
        ]
        # Resolved as a browser does, which stops at the first "?" or "#".
        for link in (
            urljoin(page.as_uri(), parts.attribute("audio", "src")),
            urljoin(index.as_uri(), row["audio"]),
        ):
            assert "?" not in link
            assert "#" not in link
            path = unquote(link.removeprefix("file://"), errors="surrogateescape")
            assert Path(path) == tmp_path / "music" / name
        assert [tag["name"] for tag in data_of(page)["tags"]] == list(album.LABELS)
    for path in (tmp_path / "out").rglob("*.html"):
        assert re.findall(r"""(?:https?:)?//[\w.]+""", path.read_text("utf-8")) == []


def test_a_damaged_file_is_in_the_index_and_an_interrupted_job_keeps_the_rest(tmp_path):
    songs = [
        album.outcome(tmp_path / f"{i}.wav", f"{i}.wav", 1.0, [0.9] * 4, np.ones((2, 4)))
        for i in range(2)
    ]
    bad = Outcome(FoundFile(tmp_path / "b.wav", Path("b.wav")), error="cut <short>")
    pages = HtmlPages(tmp_path / "out", [songs[0].file, bad.file, songs[1].file], JOB)

    def interrupted():
        with pages.writing(album.rules(), album.picture) as write:
            assert data_of(pages.index)["songs"] == []
            write(songs[0])
            write(bad)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    rows = data_of(pages.index)["songs"]
    assert [row.get("error") for row in rows] == [None, "cut <short>"]
    assert "cut <short>" not in pages.index.read_text()
    again = HtmlPages(
        tmp_path / "out", [songs[0].file, bad.file, songs[1].file], JOB, resume=True
    )
    assert [again.finished(each.file) for each in (songs[0], bad, songs[1])] == [
        *(True, False, False)
    ]
    with again.writing(album.rules(), album.picture) as write:
        write(songs[1])
    assert [row["name"] for row in data_of(pages.index)["songs"]] == ["0.wav", "1.wav"]


def test_an_error_after_the_page_replaces_its_row(tmp_path):
    song = album.outcome(tmp_path / "a.wav", "a.wav", 1.0, [0.9] * 4, np.ones((2, 4)))
    pages = HtmlPages(tmp_path / "out", [song.file], JOB)
    with pages.writing(album.rules(), album.picture) as write:
        write(song)
        write(Outcome(song.file, error="the disk is full"))
    (row,) = data_of(pages.index)["songs"]
    assert row["error"] == "the disk is full"


def test_the_sound_is_copied_once(tmp_path):
    path = tmp_path / "in" / "a #1.wav"
    album.write_wav(path, 1.0)
    song = album.outcome(path, "d/a #1.wav", 1.0, [0.9] * 4, np.ones((2, 4)))
    album.write_pages(tmp_path / "out", [song], album.rules(), copy_audio=True)
    copy = tmp_path / "out/audio/d/a #1.wav"
    assert copy.read_bytes() == path.read_bytes()
    page = tmp_path / "out/songs/d/a #1.wav.html"
    assert Parts(page.read_text()).attribute("audio", "src") == "../../audio/d/a%20%231.wav"
    number = copy.stat().st_ino
    album.write_pages(tmp_path / "out", [song], album.rules(), copy_audio=True)
    assert copy.stat().st_ino == number
    album.write_wav(path, 2.0)
    album.write_pages(tmp_path / "out", [song], album.rules(), copy_audio=True)
    assert copy.read_bytes() == path.read_bytes()


def test_a_remote_sound_is_not_linked(tmp_path):
    song = album.outcome(
        RemotePath("http://127.0.0.1/a.wav"), "a.wav", 1.0, [0.9] * 4, np.ones((2, 4))
    )
    album.write_pages(tmp_path / "out", [song], album.rules())
    text = (tmp_path / "out/songs/a.wav.html").read_text()
    assert "127.0.0.1" not in text
    assert "tag with --copy-audio" in text
    assert data_of(tmp_path / "out/index.html")["songs"][0]["audio"] is None


def test_folders_that_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("<h1>My own page</h1>")
    file = FoundFile(tmp_path / "a.wav", Path("a.wav"))
    for folder, message in (
        (RemotePath("s3://bucket/out"), "must be a folder on this machine"),
        (tmp_path / "file", "is not a folder"),
        (tmp_path / "site", "was not written by `rfkeras tag --html`"),
    ):
        with pytest.raises(ConfigError, match=message):
            HtmlPages(folder, [file], JOB)
    song = album.outcome(file.path, "a.wav", 1.0, [0.9] * 4, np.ones((2, 4)))
    album.write_pages(tmp_path / "out", [song], album.rules())
    copy = FoundFile(tmp_path / "out/audio/a.wav", Path("out/audio/a.wav"))
    with pytest.raises(ConfigError, match="is a copy that --copy-audio made"):
        HtmlPages(tmp_path / "out", [file, copy], JOB)
    HtmlPages(tmp_path / "out", [file], Job("other", "0"))  # replaces the index
    with pytest.raises(ConfigError, match="was written with the model 'a-model'"):
        HtmlPages(tmp_path / "out", [file], Job("other", "0"), resume=True)


def test_png_is_the_image():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 11)).astype("uint8")
    read = imread(io.BytesIO(html_pages.png(pixels)), format="png")
    np.testing.assert_array_equal(np.rint(read * 255), pixels)


def test_loud_is_dark_and_high_is_at_the_top():
    pixels = np.full((50, 300), -80.0)
    pixels[10, 290:] = 0.0
    image = html_pages.shades(pixels)
    assert image.shape == (100, 50)
    assert np.unravel_index(image.argmin(), image.shape) == (0, 10)
    assert (image.min(), image.max()) == (0, 255)


def test_picture_is_the_spectrogram_of_the_front_end(tmp_path):
    t = np.arange(3 * 22050) / 22050
    soundfile.write(tmp_path / "a.wav", 0.3 * np.sin(2 * np.pi * 2000 * t), 22050)
    tagger = StreamTagger(make_model(tmp_path / "tiny.keras"))
    found = FoundFile(tmp_path / "a.wav", Path("a.wav"))
    song = Outcome(found, tagger.run_file(found.path, frames=True))
    picture = html_pages.song_picture(tagger, song)
    assert picture.pixels.shape[1] == find_frontend(tagger.model).n_mels
    (height,) = [at for at, text in picture.ticks if text == "2 kHz"]
    loudest = picture.pixels.mean(0).argmax() + 0.5
    assert height * picture.pixels.shape[1] == pytest.approx(loudest, abs=1.5)
    assert picture.start_s < 0 < 3 < picture.stop_s < 3.05
