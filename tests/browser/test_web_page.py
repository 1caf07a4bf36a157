"""The page of `rfkeras export --to web` in headless Chromium: `make test-browser`.

What it shows is compared with what `rfkeras tag` finds in the same files.
"""

import base64
import csv
import importlib.util
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rfkeras.cli import main
from rfkeras.inference import html_pages
from rfkeras.inference.engines import OnnxTagger, engine_file
from rfkeras.inference.output import Outcome
from rfkeras.inference.web_page import write_web_page

MODEL = "resnet_rf_tiny"
ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-3  # of a score
FRAME_TOLERANCE = 0.01  # of a frame's, of which half is that pages have 8 bits
PATIENCE_MS = 120_000
# Name, sample rate, channels, seconds. The long one has several chunks.
FILES = (
    ("stereo 44.wav", 44100, 2, 7.0),
    ("stereo 48.flac", 48000, 2, 6.0),
    ("encoder delay.mp3", 44100, 2, 8.0),
    ("vorbis 32.ogg", 32000, 2, 6.0),
    ("mono 22.wav", 22050, 1, 5.0),
    ("fine 96.wav", 96000, 2, 4.0),
    ("short.wav", 44100, 1, 0.2),
    ("long.flac", 44100, 1, 150.0),
)


def music(seconds, rate_hz, channels, seed):
    """Return notes with overtones, and a drum, (samples, channels)."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    sound = np.zeros((len(t), channels))
    for start in np.arange(0, seconds, 0.4):
        at = slice(round(start * rate_hz), round((start + 1.2) * rate_hz))
        age = t[at] - start
        pitch_hz = 110 * 2 ** (rng.integers(0, 36) / 12)
        fade = np.exp(-age * rng.uniform(1, 5)) * np.minimum(age * 100, 1)
        note = sum(
            np.sin(2 * np.pi * k * pitch_hz * age + 2 * np.sin(2 * np.pi * 5 * age)) / k**1.3
            for k in range(1, 12)
            if k * pitch_hz < 0.45 * rate_hz
        )
        sound[at] += 0.08 * (fade * note)[:, None] * rng.uniform(0.5, 1, channels)
        drum = np.exp(-age * 40) * rng.normal(0, 0.1, len(age))
        sound[at] += drum[:, None] * (rng.random() < 0.5)
    return sound


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Return the folder with the files."""
    folder = tmp_path_factory.mktemp("songs #1")
    for seed, (name, rate_hz, channels, seconds) in enumerate(FILES):
        with soundfile.SoundFile(folder / name, "w", rate_hz, channels) as file:
            sound = music(seconds, rate_hz, channels, seed)
            for first in range(0, len(sound), rate_hz):  # libsndfile fails at more of Vorbis
                file.write(sound[first : first + rate_hz])
    return folder


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """Return the page, in a folder with characters that links must encode."""
    folder = tmp_path_factory.mktemp("a page #1") / "50% out"
    write_web_page(MODEL, folder)
    return folder / "index.html"


@pytest.fixture(scope="module")
def records(sounds, tmp_path_factory):
    """Return the records of `rfkeras tag` by name of the file."""
    output = tmp_path_factory.mktemp("tags") / "tags.jsonl"
    command = ["tag", str(sounds), "--model", MODEL, "--output", str(output), "--frames"]
    assert main.run([*command, "--quiet"]) == 0
    lines = map(json.loads, output.read_text("utf-8").splitlines())
    return {Path(line["path"]).name: line for line in lines if "path" in line}


def tag(page, *paths):
    """Let a page tag files."""
    page.set_input_files("#files", [str(path) for path in paths])
    page.locator("#cancel").wait_for(state="hidden", timeout=PATIENCE_MS)


def data_of(page):
    """Return the data of the page in the frame."""
    return json.loads(page.frame_locator("iframe").locator("#data").text_content())


def show(page, name):
    """Open the page of a song from the index."""
    page.frame_locator("iframe").get_by_role("link", name=name).click()
    page.frame_locator("iframe").locator("#audio").wait_for()


def scores_of(data):
    return {each["name"]: each["score"] for each in data["tags"]}


def frames_of(data):
    """Return the frames' scores, tag -> (columns,)."""
    values = np.frombuffer(base64.b64decode(data["frames"]), np.uint8) / 255
    names = [each["name"] for each in data["tags"]]
    return dict(zip(names, values.reshape(len(names), -1), strict=True))


def test_scores_are_those_of_the_command(browser, open_page, page_file, sounds, records):
    page = open_page(page_file)
    tag(page, *(sounds / name for name, *_ in FILES))
    index = data_of(page)
    assert [song["name"] for song in index["songs"]] == [name for name, *_ in FILES]
    differences = []
    for song in index["songs"]:
        record = records[song["name"]]
        expected = [record["scores"][label] for label in index["labels"]]
        differences.append(np.abs(np.subtract(song["scores"], expected)).max())
        applies = {index["labels"][number] for number in song["applies"]}
        assert applies == set(record["tags"]), song["name"]
        assert song["seconds"] == pytest.approx(record["seconds"], abs=1e-3)
    assert max(differences) < TOLERANCE, differences
    for name, *_ in FILES:
        show(page, name)
        data, record = data_of(page), records[name]
        assert data["n_frames"] == data["columns"] == len(record["frames"]["start_s"])
        for label, scores in frames_of(data).items():
            expected = record["frames"]["scores"][label]
            np.testing.assert_allclose(scores, expected, atol=FRAME_TOLERANCE)
        page.frame_locator("iframe").get_by_role("link", name="All songs").click()


def test_a_page_has_the_data_and_the_picture_of_html(open_page, page_file, sounds):
    page = open_page(page_file)
    path = sounds / "stereo 48.flac"
    tag(page, path)
    shown = data_of(page)
    tagger = OnnxTagger(engine_file(MODEL))
    rules = html_pages.TagRules.of(tagger, MODEL)
    result = tagger.run_file(path, frames=True)
    expected = html_pages.song_data(rules, result)
    outcome = Outcome(html_pages.FoundFile(path, Path(path.name)), result)
    picture = html_pages.song_picture(tagger, outcome)
    for key in expected.keys() - {"tags", "frames"}:
        assert shown[key] == pytest.approx(expected[key], abs=1e-9), key
    assert [each["name"] for each in shown["tags"]] == [e["name"] for e in expected["tags"]]
    for key in ("threshold", "applies"):
        assert [each[key] for each in shown["tags"]] == [e[key] for e in expected["tags"]]
    assert shown["picture"]["ticks"] == [list(tick) for tick in picture.ticks]
    assert shown["picture"]["start_s"] == pytest.approx(picture.start_s)
    assert shown["picture"]["stop_s"] == pytest.approx(picture.stop_s)
    width, pixels = page.frames[1].evaluate(
        """async () => {
          const image = document.getElementById("spectrogram");
          await image.decode();
          const canvas = document.createElement("canvas");
          [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
          const context = canvas.getContext("2d", { willReadFrequently: true });
          context.drawImage(image, 0, 0);
          const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
          return [canvas.width, [...data].filter((_, i) => i % 4 === 0)];
        }"""
    )
    wanted = html_pages.shades(picture.pixels).astype(int)
    found = np.reshape(pixels, (-1, width))
    assert found.shape == wanted.shape
    # One of the 64 greys is 4 steps; the ends of chunks and of blocks differ.
    assert np.abs(found - wanted).mean() < 0.5


@pytest.fixture
def sound_page(open_page):
    """Return an empty page with the functions for sound and tags."""
    page = open_page("about:blank")
    for name in ("sound.js", "tagger.js"):
        page.add_script_tag(content=html_pages.asset(name).decode())
    return page


def mel_numbers(**numbers):
    """Return the numbers of a front-end whose filters are random triangles."""
    from rfkeras.frontend.numpy_mel import MelSpectrogram

    rng = np.random.default_rng(0)
    n_fft, bands = numbers["n_fft"], 24
    centres = np.linspace(2, n_fft // 2 - 2, bands)
    bins = np.arange(n_fft // 2 + 1)[:, None]
    filters = np.maximum(0, 1 - np.abs(bins - centres) / 6).astype(np.float32)
    offset_db = rng.normal(0, 5, bands).astype(np.float32)
    return MelSpectrogram(**numbers, amin=1e-10, filterbank=filters, offset_db=offset_db)


FRONTENDS = {
    "of the weights": None,
    "decibels last, limited, window shorter than the transform": {
        **{"n_fft": 1024, "window_samples": 800, "hop_samples": 320, "min_samples": 1024},
        **{"decibels_first": False, "range_db": 80.0},
    },
    "decibels first, limited": {
        **{"n_fft": 512, "window_samples": 512, "hop_samples": 200, "min_samples": 512},
        **{"decibels_first": True, "range_db": 60.0},
    },
    "no power of two": {
        **{"n_fft": 600, "window_samples": 441, "hop_samples": 150, "min_samples": 600},
        **{"decibels_first": True, "range_db": None},
    },
}


@pytest.mark.parametrize("frontend", FRONTENDS)
@pytest.mark.parametrize("samples", [9000, 300])
def test_levels_are_those_of_numpy(sound_page, frontend, samples):
    numbers = FRONTENDS[frontend]
    mel = OnnxTagger(engine_file(MODEL))._mel if numbers is None else mel_numbers(**numbers)
    sound = music(samples / 22050, 22050, 2, 3).astype(np.float32)
    sound[2000:5000] *= 1e-4
    sound[5000:7500] = 0
    expected = mel.mel_db(sound.astype(np.float64))  # of float32, NumPy 2 transforms float32
    levels = sound_page.evaluate(
        """([numbers, channels]) => {
          const mel = rfkerasSound().melSpectrogram(numbers);
          return [...mel(channels.map((each) => Float32Array.from(each))).levels];
        }""",
        [mel.as_json(), sound.T.tolist()],
    )
    assert np.ptp(expected) > 5
    found = np.reshape(levels, expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-3)


RESAMPLE = """([samples, from, to, spans]) => {
  const { length, read } = rfkerasSound().resampler(Float32Array.from(samples), from, to);
  const stops = [...spans.filter((stop) => stop < length), length];
  return stops.flatMap((stop, i) => [...read(i ? stops[i - 1] : 0, stop)]);
}"""


@pytest.mark.parametrize(
    ("from_hz", "to_hz", "least_db"),
    [
        (44100, 22050, 120),
        (11025, 22050, 120),
        (48000, 22050, 65),
        (96000, 22050, 55),
        (32000, 22050, 65),
        (44100, 32000, 65),
        (48000, 32000, 55),
        (44056, 22050, 65),  # more phases than are kept
    ],
)
def test_resampling_is_that_of_soxr(sound_page, from_hz, to_hz, least_db):
    import soxr

    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, from_hz // 2 + 17).astype(np.float32)
    tone_hz = 0.88 * min(from_hz, to_hz) / 2
    tone = np.sin(2 * np.pi * tone_hz * np.arange(len(noise)) / from_hz).astype(np.float32)
    inside = slice(200, -200)  # at the ends soxr is not exact
    for sound, least in ((noise, least_db), (tone, 60)):
        expected = soxr.resample(sound, from_hz, to_hz, quality="HQ")
        call = [sound.tolist(), from_hz, to_hz, [1000, 1001, 5000]]
        found = np.array(sound_page.evaluate(RESAMPLE, call))
        assert len(found) == (2 * len(sound) * to_hz + from_hz) // (2 * from_hz)
        assert abs(len(found) - len(expected)) <= 1
        found = found[: len(expected)]
        rest = np.square(found - expected)[inside].mean() / np.square(expected).mean()
        assert -10 * np.log10(rest) > least
        whole = sound_page.evaluate(RESAMPLE, [*call[:3], []])
        np.testing.assert_array_equal(found, whole[: len(found)])


def encode(path, sound, rate_hz):
    """Write a file in a format that libsndfile does not know."""
    import av

    codec = "libopus" if path.suffix == ".webm" else "aac"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz)
        stream.layout = "mono"
        whole = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        whole.sample_rate = rate_hz
        resampler = av.AudioResampler(stream.format, "mono", rate_hz, stream.frame_size)
        for frame in (*resampler.resample(whole), *resampler.resample(None)):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "rate_hz"),
    [
        ("a.wav", 11025),
        ("a.wav", 192000),
        ("a.flac", 88200),
        ("a.ogg", 32000),
        ("a.opus", 24000),
        ("a.mp3", 44100),
        ("a.mp3", 24000),
        ("a.mp3", 8000),
        ("a.m4a", 48000),
        ("a.aac", 32000),
        ("a.webm", 48000),
    ],
)
def test_sample_rates_are_found_in_headers(sound_page, tmp_path, name, rate_hz):
    path = tmp_path / name
    sound = music(1.0, rate_hz, 1, 0)[:, 0].astype(np.float32)
    if path.suffix in (".m4a", ".aac", ".webm"):
        encode(path, sound, rate_hz)
    else:
        form = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
        soundfile.write(path, sound, rate_hz, **form)
    content = path.read_bytes()
    found = "(bytes) => rfkerasSound().headerRateHz(Uint8Array.from(bytes))"
    expected = 48000 if path.suffix == ".opus" else rate_hz
    assert sound_page.evaluate(found, list(content)) == expected
    tagged = b"ID3\x03\x00\x00\x00\x00\x02\x00" + bytes(256) + content
    if path.suffix in (".mp3", ".flac"):
        assert sound_page.evaluate(found, list(tagged)) == expected
    if path.suffix == ".flac":
        ogg = b"OggS" + bytes(22) + b"\x01\x33\x7fFLAC\x01\x00\x00\x01" + content[:42]
        assert sound_page.evaluate(found, list(ogg)) == expected
    for size in (0, 3, 30):
        assert sound_page.evaluate(found, list(content[:size])) in (None, expected)
    assert sound_page.evaluate(found, list(b"no audio, but text" * 9)) is None


POOL = """([settings, parts, weights]) => {
  const tags = rfkerasTags(settings);
  const pool = tags.runningPool();
  const floats = (values) => values && Float32Array.from(values.flat());
  parts.forEach((part, i) => pool.add(floats(part), floats(weights && weights[i])));
  return [...tags.scoresOf(pool.result())];
}"""


@pytest.mark.parametrize("pooling", ["average", "max", "log_mean_exp", "attention"])
@pytest.mark.parametrize("exclusive", [False, True])
def test_pooling_is_that_of_the_library(sound_page, pooling, exclusive):
    from rfkeras.inference.stream import RunningPool

    rng = np.random.default_rng(1)
    parts = [rng.normal(0, 30, (n, 4)).astype(np.float32) for n in (3, 1, 5)]
    weights = None
    if pooling == "attention":
        weights = [rng.normal(0, 90, part.shape).astype(np.float32) for part in parts]
    pool = RunningPool(pooling)
    for number, part in enumerate(parts):
        pool.add(part, None if weights is None else weights[number])
    logits = pool.result()
    expected = 1 / (1 + np.exp(-logits))
    if exclusive:
        expected = np.exp(logits - logits.max())
        expected /= expected.sum()
    settings = {"labels": list("abcd"), "thresholds": None, "exclusive": exclusive}
    settings |= {"pooling": pooling, "are_logits": True, "page": {}}
    lists = [part.tolist() for part in parts]
    given = None if weights is None else [part.tolist() for part in weights]
    found = sound_page.evaluate(POOL, [settings, lists, given])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_file_that_cannot_be_used_is_named_and_others_go_on(
    open_page, page_file, sounds, tmp_path
):
    (tmp_path / "no <b>audio.mp3").write_bytes(b"no audio")
    (tmp_path / "empty.wav").write_bytes(b"")
    nan = np.full(44100, np.nan, np.float32)
    soundfile.write(tmp_path / "nan.wav", nan, 44100, subtype="FLOAT")
    bad = ["no <b>audio.mp3", "empty.wav", "nan.wav"]
    page = open_page(page_file)
    tag(page, *(tmp_path / name for name in bad))
    assert page.locator("iframe").count() == 0
    alerts = page.get_by_role("alert").all_text_contents()
    assert alerts[0].startswith("this browser cannot decode it")
    assert alerts[1:] == ["empty file (0 bytes)", "NaN or infinite samples"]
    assert page.locator("li.failed bdi").all_text_contents() == bad
    tag(page, tmp_path / bad[0], sounds / "short.wav")
    songs = data_of(page)["songs"]
    assert [song.get("error", "")[:12] for song in songs[-2:]] == ["this browser", ""]
    assert len(songs) == 5
    frame = page.frame_locator("iframe")
    assert frame.get_by_text("1 song, 4 files that could not be used, 20 tags").count() == 1
    assert frame.locator("#failed tr").count() == 4


def test_several_songs_have_an_index_that_saves_a_table(
    open_page, page_file, sounds, records, tmp_path
):
    page = open_page(page_file)
    tag(page, sounds / "stereo 44.wav", sounds / "short.wav")
    page.wait_for_url("**#view=songs")
    frame = page.frame_locator("iframe")
    with page.expect_download() as download:
        frame.get_by_role("button", name="Save as CSV").click()
    download.value.save_as(tmp_path / "songs.csv")
    with (tmp_path / "songs.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["stereo 44.wav", "short.wav"]
    for row in rows:
        scores = records[row["path"]]["scores"]
        found = [float(row[label]) for label in scores]
        np.testing.assert_allclose(found, list(scores.values()), atol=TOLERANCE)
    # A page does not know the paths that a playlist needs.
    assert frame.get_by_role("button", name="Save as playlist").is_disabled()
    show(page, "short.wav")
    page.wait_for_function("() => document.title === 'short.wav'")
    player = page.frames[1]
    player.wait_for_function("() => document.querySelector('audio').readyState > 0")
    seconds = player.evaluate("document.querySelector('audio').duration")
    assert seconds == pytest.approx(0.2, abs=0.01)
    frame.get_by_role("button", name="Dark colours").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.go_back()
    frame.get_by_role("heading", name="Tagged songs").wait_for()
    page.get_by_role("link", name="Tag more files").click()
    assert page.get_by_role("heading", name="Tag music").is_visible()
    assert page.locator("iframe").count() == 0


def test_files_are_chosen_by_keyboard_or_dropped(open_page, page_file, sounds):
    page = open_page(page_file)
    # Before any key: the browser needs a moment until it reports file dialogs.
    page.on("filechooser", lambda chooser: None)
    page.locator("#theme").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    assert chooser.value.is_multiple()
    content = base64.b64encode((sounds / "short.wav").read_bytes()).decode()
    page.evaluate(
        """(content) => {
          const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], "dropped.wav"));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
        }""",
        content,
    )
    page.frame_locator("iframe").get_by_role("heading", name="dropped.wav").wait_for(
        timeout=PATIENCE_MS
    )


def test_a_job_can_be_cancelled_and_another_follow(open_page, page_file, sounds):
    page = open_page(page_file)
    page.set_input_files("#files", [str(sounds / "long.flac"), str(sounds / "short.wav")])
    page.locator("li.tagging").wait_for(timeout=PATIENCE_MS)
    [cancelled] = page.workers
    # A browser may take seconds to stop a worker in the middle of a computation.
    with cancelled.expect_event("close", timeout=PATIENCE_MS):
        page.get_by_role("button", name="Cancel").click()
        assert page.locator("li.cancelled").count() == 2
        tag(page, sounds / "short.wav")
        page.frame_locator("iframe").get_by_role("heading", name="short.wav").wait_for()
    assert page.locator("li.cancelled").count() == 2


def test_nothing_can_leave_the_machine(browser, page_file, sounds):
    page = browser.new_page()
    page.goto(page_file.as_uri())
    outside = """async (where) => {
      const results = [];
      const image = new Image();
      image.src = `${where}/image.png`;
      results.push(await image.decode().then(() => "loaded", () => "blocked"));
      results.push(await fetch(where).then(() => "loaded", () => "blocked"));
      const code = `fetch("${where}").then(() => "loaded", () => "blocked").then(postMessage)`;
      const worker = new Worker(URL.createObjectURL(new Blob([code])));
      const { data } = await new Promise((found) => (worker.onmessage = found));
      results.push(data);
      return results;
    }"""
    handler = partial(SimpleHTTPRequestHandler, directory=page_file.parent)
    with serving(handler) as (where, asked):
        assert page.evaluate(outside, where) == ["blocked"] * 3
        tag(page, sounds / "short.wav")
        assert page.frames[1].evaluate(outside, where) == ["blocked"] * 3
    page.context.close()
    assert asked == []


class serving:
    """A server on this machine, and the paths that it was asked for."""

    def __init__(self, handler):
        self._asked = []
        asked = self._asked

        class Logged(handler.func):
            def log_request(self, *_):
                asked.append(self.path)

        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Logged, *handler.args, **handler.keywords)
        )

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}", self._asked

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def test_the_demo_of_the_site_works_from_a_server(open_page, sounds, tmp_path):
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs/site/hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    for name, content in hooks.demo_files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with serving(handler) as (where, asked):
        page = open_page(f"{where}/{hooks.DEMO}")
        tag(page, sounds / "mono 22.wav")
        found = scores_of(data_of(page))
    assert f"/{hooks.DEMO}" in asked
    result = OnnxTagger(engine_file(hooks.DEMO_MODEL)).run_file(sounds / "mono 22.wav")
    labels = OnnxTagger(engine_file(hooks.DEMO_MODEL)).label_names
    assert found == pytest.approx(dict(zip(labels, result.scores, strict=True)), abs=TOLERANCE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(open_page, page_file, sounds, scheme):
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    page = open_page(page_file, **phone)
    width = "() => document.documentElement.scrollWidth"
    assert page.locator("html").get_attribute("data-theme") == scheme
    assert page.evaluate(width) <= 360
    tag(page, sounds / "short.wav")
    page.frame_locator("iframe").locator("#audio").wait_for()
    assert page.evaluate(width) <= 360
    assert page.frames[1].evaluate(width) <= 360
    page.get_by_role("link", name="Tag more files").click()
    assert page.evaluate(width) <= 360
