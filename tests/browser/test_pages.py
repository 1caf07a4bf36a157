"""The pages of `rfkeras tag --html` in headless Chromium: `make test-browser`."""

import csv
import io
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from rfkeras.audio.find import FoundFile, read_path_list
from rfkeras.cli import main
from rfkeras.inference.output import Outcome
from tests.helpers import album

SECONDS = 12.0
N_FRAMES = 24  # of half a second
# Name, and the scores of the four tags. The thresholds are 0.5, 0.4, 0.3 and 0.9.
SONGS = {
    "10 solo.wav": (0.9, 0.1, 0.1, 0.1),
    "2 duo.wav": (0.8, 0.7, 0.2, 0.1),
    'd/\u00c4 50% #1? "x".wav': (0.6, 0.2, 0.5, 0.95),
    "d/quiet.wav": (0.3, 0.0, 0.1, 0.2),
}
AWKWARD = 'd/\u00c4 50% #1? "x".wav'
# Frames in which violin and drums apply: 2 to 4 s and 7 to 9 s; 0 to 3 s.
VIOLIN = {4: 0.9, 5: 0.9, 6: 0.9, 7: 0.9, 14: 0.6, 15: 0.6, 16: 0.6, 17: 0.6}
DRUMS = {0: 0.45, 1: 0.45, 2: 0.45, 3: 0.45, 4: 0.45, 5: 0.45}


def frame_scores():
    scores = np.full((N_FRAMES, 4), 0.1)
    for tag, frames in ((0, VIOLIN), (1, DRUMS)):
        for frame, score in frames.items():
            scores[frame, tag] = score
    return scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder with the pages of four songs and of a file that was not readable."""
    root = tmp_path_factory.mktemp("an album #1")
    songs = []
    for name, scores in SONGS.items():
        album.write_wav(root / "music" / name, SECONDS)
        path = root / "music" / name
        songs.append(album.outcome(path, name, SECONDS, scores, frame_scores()))
    bad = FoundFile(root / "music/bad.mp3", album.Path("bad.mp3"))
    songs.append(Outcome(bad, error="the file is <empty>"))
    album.write_pages(root / "out", songs, album.rules())
    return root / "out"


@pytest.fixture
def song(open_page, folder):
    """Return the page of the song whose name has characters that links must encode."""
    page = open_page(folder / "songs" / f"{AWKWARD}.html")
    page.wait_for_function("document.querySelector('audio').readyState > 0")
    return page


@pytest.fixture
def index(open_page, folder):
    return open_page(folder / "index.html")


def time_of(page):
    return page.evaluate("document.querySelector('audio').currentTime")


def wait_for_time(page, seconds, tolerance=0.15):
    page.wait_for_function(
        "([time, tolerance]) => Math.abs(document.querySelector('audio').currentTime - time)"
        " <= tolerance",
        arg=[seconds, tolerance],
    )


def cursor(page):
    """Return where the cursor is, as a share of the map's width."""
    return page.evaluate(
        """() => {
          const lane = document.getElementById("axis").getBoundingClientRect();
          const line = document.getElementById("cursor").getBoundingClientRect();
          return (line.left + line.width / 2 - lane.left) / lane.width;
        }"""
    )


def segments(page, tag):
    """Return the segments of a tag in the table, in seconds."""
    return page.evaluate(
        """(tag) => [...document.querySelectorAll("#tags tr")]
          .find((row) => row.querySelector("bdi").textContent === tag)
          .querySelector(".segments").querySelectorAll("button")
          .values().map((b) => [Number(b.dataset.start), Number(b.dataset.end)]).toArray()""",
        tag,
    )


def names(page):
    """Return the songs in the table of the index."""
    return page.evaluate(
        """() => [...document.querySelectorAll("#body tr")].map(
          (row) => decodeURIComponent(row.querySelector("a").getAttribute("href"))
            .replace(/^songs\\//, "").replace(/\\.html$/, ""))"""
    )


def set_threshold(page, value):
    page.locator("#threshold").fill(str(value))


def test_it_plays_and_the_cursor_follows(song):
    song.keyboard.press("Space")
    song.wait_for_function("document.querySelector('audio').currentTime > 0.5")
    before = cursor(song)
    places, events = song.evaluate(
        """() => new Promise((done) => {
          const seen = new Set();
          const line = document.getElementById("cursor");
          new MutationObserver(() => seen.add(line.style.left))
            .observe(line, { attributes: true });
          let events = 0;
          document.querySelector("audio").addEventListener("timeupdate", () => events++);
          setTimeout(() => done([seen.size, events]), 1000);
        })"""
    )
    assert events > 0
    assert places > 2 * events  # it moves between the events of the sound, too
    song.keyboard.press("Space")
    song.wait_for_function("document.querySelector('audio').paused")
    song.wait_for_timeout(100)
    assert cursor(song) > before
    assert cursor(song) == pytest.approx(time_of(song) / SECONDS, abs=0.01)
    assert song.evaluate("document.querySelector('audio').duration") == SECONDS


@pytest.mark.parametrize("place", ["#spectrogram", ".row.tag:not([hidden]) canvas"])
def test_a_click_goes_there(song, place):
    box = song.locator(place).first.bounding_box()
    lane = song.locator("#axis").bounding_box()
    song.mouse.click(lane["x"] + 0.76 * lane["width"], box["y"] + box["height"] / 2)
    wait_for_time(song, 0.76 * SECONDS, 0.02)
    assert cursor(song) == pytest.approx(0.76, abs=0.005)
    assert song.locator("#time").text_content() == "0:09 / 0:12"


def test_a_click_goes_there_in_a_zoomed_map(song):
    song.locator("#zoom-in").click()
    song.locator("#zoom-in").click()
    assert song.locator("#zoom").text_content() == "4\u00d7"
    lane = song.locator("#axis").bounding_box()
    view = song.locator("#scroller").bounding_box()
    assert lane["width"] > 3.5 * 0.7 * view["width"]
    x = view["x"] + 0.75 * view["width"]
    song.mouse.click(x, song.locator("#spectrogram").bounding_box()["y"] + 20)
    wait_for_time(song, (x - lane["x"]) / lane["width"] * SECONDS)
    song.locator(".segments button", has_text="0:07").click()  # outside of the view
    line = song.locator("#cursor").bounding_box()
    assert view["x"] < line["x"] < view["x"] + view["width"]


def test_segments_follow_the_threshold_and_lead_to_their_start(song):
    assert segments(song, "violin") == [[2, 4], [7, 9]]
    assert segments(song, "drums") == [[0, 3]]
    assert (
        "the model's thresholds, 0.30 to 0.90"
        in song.locator("#threshold-value").text_content()
    )
    set_threshold(song, 0.7)
    assert segments(song, "violin") == [[2, 4]]
    assert segments(song, "drums") == []
    assert song.locator("#threshold-value").text_content() == "0.70 for all tags"
    assert song.locator("#summary").text_content() == "1 segment of 1 tag"
    set_threshold(song, 0.6)
    assert segments(song, "violin") == [[2, 4], [7, 9]]
    set_threshold(song, 0)
    assert segments(song, "drums") == [[0, SECONDS]]
    song.locator("#own-thresholds").click()
    assert segments(song, "drums") == [[0, 3]]
    song.get_by_role("button", name="violin from 0:07 to 0:09").click()
    wait_for_time(song, 7, 0.001)
    assert song.locator("#now").text_content() == "violin"


def test_close_segments_are_joined_on_request(open_page, tmp_path):
    scores = np.zeros((N_FRAMES, 4))
    scores[[2, 3, 6, 7, 13]] = 0.95  # 1-2, 3-4, 6.5-7 s
    path = tmp_path / "a.wav"
    album.write_wav(path, SECONDS)
    one = album.outcome(path, "a.wav", SECONDS, scores.mean(0), scores)
    album.write_pages(tmp_path / "out", [one], album.rules())
    page = open_page(tmp_path / "out/songs/a.wav.html")
    assert segments(page, "violin") == [[1, 4], [6.5, 7]]
    page.get_by_label("Join segments").uncheck()
    assert segments(page, "violin") == [[1, 2], [3, 4], [6.5, 7]]
    # The same as in the JSON output.
    spans = album.rules().spans(one.result)[0]
    np.testing.assert_allclose(segments(page, "violin"), spans)


def test_tags_on_and_off(song):
    def shown():
        return song.locator(".row.tag:not([hidden]) .name").all_text_contents()

    assert shown() == ["violin", "drums"]  # those that apply at some time
    song.get_by_role("checkbox", name="violin").uncheck()
    assert shown() == ["drums"]
    song.get_by_role("button", name="All", exact=True).click()
    assert set(shown()) == set(album.LABELS)
    song.get_by_role("button", name="None").click()
    assert shown() == []
    song.get_by_role("checkbox", name="<b>&amp;</b>").check()
    assert shown() == ["<b>&amp;</b>"]
    song.get_by_role("button", name="Show those that apply").click()
    assert shown() == ["violin", "drums"]


def pixel(page, tag, seconds, row):
    """Return the colour of a tag's row of the map at a time: red, green, blue, alpha."""
    return page.evaluate(
        """([tag, share, row]) => {
          const rows = [...document.querySelectorAll(".row.tag")];
          const one = rows.find((each) => each.querySelector(".name").textContent === tag);
          const canvas = one.querySelector("canvas");
          const x = Math.floor(share * canvas.width);
          return [...canvas.getContext("2d").getImageData(x, row, 1, 1).data];
        }""",
        [tag, seconds / SECONDS, row],
    )


def test_the_map_shows_scores_and_segments(song):
    for seconds, score in ((2.2, 0.9), (7.2, 0.6), (5.2, 0.1)):
        assert pixel(song, "violin", seconds, 0)[3] == pytest.approx(255 * score, abs=1)
    assert pixel(song, "violin", 7.2, 4) == [213, 94, 0, 255]
    set_threshold(song, 0.7)
    assert pixel(song, "violin", 7.2, 4)[3] == pytest.approx(255 * 0.6, abs=1)
    assert pixel(song, "violin", 2.2, 4) == [213, 94, 0, 255]
    song.get_by_role("button", name="Dark colours").click()
    assert pixel(song, "violin", 2.2, 4) == [240, 140, 50, 255]


def test_keyboard(song):
    song.keyboard.press("ArrowRight")
    wait_for_time(song, 5, 0.001)
    song.keyboard.press("ArrowLeft")
    wait_for_time(song, 0, 0.001)
    slider = song.get_by_role("slider", name="Position in the song")
    slider.focus()
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    song.keyboard.press("End")
    wait_for_time(song, SECONDS, 0.05)
    song.keyboard.press("PageDown")
    wait_for_time(song, 0, 0.001)
    song.keyboard.press("ArrowUp")
    wait_for_time(song, 5, 0.001)
    assert song.evaluate(outline) == "solid"
    assert slider.get_attribute("aria-valuenow") == "5"
    assert slider.get_attribute("aria-valuetext") == "0:05"
    # A key that a control uses itself does not move the song.
    song.get_by_role("checkbox", name="violin").focus()
    song.keyboard.press("Space")
    assert not song.get_by_role("checkbox", name="violin").is_checked()
    assert song.evaluate("document.querySelector('audio').paused")
    song.locator("#threshold").focus()
    song.keyboard.press("ArrowRight")
    assert time_of(song) == pytest.approx(5, abs=0.001)


def test_every_control_can_be_reached_and_has_a_name(song, index):
    index.get_by_role("button", name="Add a condition").click()
    for page in (song, index):
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, a, audio")]
              .filter((each) => !(each.textContent.trim() || each.getAttribute("aria-label")
                || (each.labels && each.labels.length))).map((each) => each.outerHTML)"""
        )
        assert nameless == []
        assert page.locator("main").count() == page.locator("h1").count() == 1
        assert page.locator("table caption").count() == page.locator("table").count()
        assert page.locator("[tabindex]").evaluate_all(
            "all => all.every((each) => each.tabIndex <= 0)"
        )
    assert index.locator("#head th[scope=col]").count() == 3 + len(album.LABELS)
    assert index.locator("#body th[scope=row]").count() == len(SONGS)


def test_colours_follow_the_system_and_the_button(open_page, folder):
    page = open_page(folder / "index.html", color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark, light = "rgb(20, 22, 26)", "rgb(255, 255, 255)"
    assert page.evaluate(background) == dark
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"{background} === '{light}'")
    page.get_by_role("button", name="Dark colours").click()
    assert page.evaluate(background) == dark
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"
    page.get_by_role("link", name="2 duo.wav").click()
    page.wait_for_selector("audio")
    assert page.evaluate(background) == dark  # of the other pages too
    page.get_by_role("button", name="Dark colours").click()
    assert page.evaluate(background) == light


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_nothing_is_wider_than_the_screen(open_page, folder, width):
    for path in (folder / "index.html", folder / "songs" / f"{AWKWARD}.html"):
        page = open_page(path, viewport={"width": width, "height": 800})
        if page.locator("#add").count():
            page.locator("#add").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_song_without_its_sound_says_so(open_page, tmp_path):
    path = tmp_path / "gone.wav"
    one = album.outcome(path, "gone.wav", SECONDS, [0.5] * 4, frame_scores())
    album.write_pages(tmp_path / "out", [one], album.rules())
    page = open_page(tmp_path / "out/songs/gone.wav.html", error="ERR_FILE_NOT_FOUND")
    page.get_by_role("alert").wait_for()
    assert "The sound cannot be played" in page.get_by_role("alert").text_content()
    page.keyboard.press("ArrowRight")
    assert cursor(page) == pytest.approx(5 / SECONDS, abs=0.01)


def test_only_the_best_of_exclusive_tags_applies(open_page, tmp_path):
    scores = np.full((N_FRAMES, 4), 0.1)
    scores[:10, 2] = scores[10:, 3] = 0.7
    path = tmp_path / "a.wav"
    album.write_wav(path, SECONDS)
    one = album.outcome(path, "a.wav", SECONDS, scores.mean(0), scores)
    album.write_pages(tmp_path / "out", [one], album.rules(exclusive=True))
    page = open_page(tmp_path / "out/songs/a.wav.html")
    wanted = [[], [], [[0, 5]], [[5, SECONDS]]]
    assert [segments(page, tag) for tag in album.LABELS] == wanted
    set_threshold(page, 0.8)
    assert [segments(page, tag) for tag in album.LABELS] == [[]] * 4


# The index


def add_condition(page, tag, kind, value=None):
    page.get_by_role("button", name="Add a condition").click()
    row = page.locator(".condition").nth(page.locator(".condition").count() - 1)
    row.get_by_label("Tag").select_option(label=tag)
    row.get_by_label("Comparison").select_option(label=kind)
    if value is not None:
        row.get_by_label("Score").fill(value)
    return row


def test_index_lists_songs_and_files_that_could_not_be_used(index):
    assert names(index) == list(SONGS)
    cells = index.locator("#body tr").nth(2).locator("td").all_text_contents()
    assert cells == [
        "0:12",
        '<b>&amp;</b>, violin, voice, "high"',
        *"0.60 0.20 0.50 0.95".split(),
    ]
    failed = index.locator("#failed tr")
    assert failed.locator("th").all_text_contents() == ["bad.mp3"]
    assert failed.locator("td").all_text_contents() == ["the file is <empty>"]


def test_violin_over_a_half_and_no_drums(index):
    violin = add_condition(index, "violin", "is at least", "0.5")
    assert names(index) == [name for name, scores in SONGS.items() if scores[0] >= 0.5]
    add_condition(index, "drums", "does not apply")
    assert names(index) == ["10 solo.wav", AWKWARD]
    assert index.locator("#count").text_content() == "2 of 4 songs"
    violin.get_by_label("Score").fill("0.7")
    assert names(index) == ["10 solo.wav"]
    violin.get_by_label("Comparison").select_option(label="is below")
    assert names(index) == [AWKWARD, "d/quiet.wav"]
    violin.get_by_role("button", name="Remove").click()
    assert names(index) == ["10 solo.wav", AWKWARD, "d/quiet.wav"]
    index.get_by_role("button", name="Clear").click()
    assert names(index) == list(SONGS)


def test_search_by_name(index):
    index.get_by_label("Name").fill("WAV d/ \u00e4")
    assert names(index) == [AWKWARD]
    index.get_by_label("Name").fill("nothing")
    assert names(index) == []
    assert index.get_by_role("button", name="Save as CSV").is_disabled()


def test_sorting(index):
    head = index.locator("#head")
    head.get_by_role("button", name="drums").click()
    assert names(index) == sorted(SONGS, key=lambda name: -SONGS[name][1])
    assert index.locator("th[aria-sort=descending]").text_content().startswith("drums")
    index.keyboard.press("Enter")  # the heading keeps the focus
    assert names(index) == sorted(SONGS, key=lambda name: SONGS[name][1])
    assert index.locator("th[aria-sort=ascending]").count() == 1
    head.get_by_role("button", name="Song").click()
    assert names(index) == ["2 duo.wav", "10 solo.wav", AWKWARD, "d/quiet.wav"]


def test_columns_can_be_hidden(index):
    index.locator("summary").click()
    index.get_by_label("drums").uncheck()
    assert index.locator("#head th").count() == 2 + len(album.LABELS)
    assert "0.70" not in index.locator("#body tr").nth(1).text_content()


def save(page, button):
    with page.expect_download() as waiting:
        page.get_by_role("button", name=button).click()
    return waiting.value


def test_find_reads_the_saved_table(index, folder, tmp_path, capsys):
    saved = save(index, "Save as CSV")
    saved.save_as(tmp_path / "songs.csv")
    status = main.run(["find", str(tmp_path / "songs.csv"), "violin >= 0.5 and not drums"])
    paths = [str(folder.parent / "music" / name) for name in ("10 solo.wav", AWKWARD)]
    assert (status, capsys.readouterr().out.splitlines()) == (0, paths)


def test_the_selection_is_saved(index, folder, tmp_path):
    add_condition(index, "drums", "does not apply")
    index.locator("#head").get_by_role("button", name="violin").click()
    selected = ["10 solo.wav", AWKWARD, "d/quiet.wav"]
    saved = save(index, "Save as CSV")
    assert saved.suggested_filename == "songs.csv"
    text = album.Path(saved.path()).read_text("utf-8-sig")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == ["path", "seconds", "error", "tags", "thresholds", *album.LABELS]
    music = folder.parent / "music"
    assert [row[0] for row in rows[1:]] == [str(music / name) for name in selected]
    for name, row in zip(selected, rows[1:], strict=True):
        assert row[1:3] == ["12", ""]
        np.testing.assert_allclose([float(score) for score in row[5:]], SONGS[name])
        each = sorted(zip(SONGS[name], album.LABELS, album.THRESHOLDS, strict=True))[::-1]
        applied = [(tag, limit) for score, tag, limit in each if score >= limit]
        assert row[3] == "; ".join(tag for tag, _ in applied)
        assert row[4] == "; ".join(str(limit) for _, limit in applied)
    saved = save(index, "Save as playlist")
    assert saved.suggested_filename == "songs.m3u8"
    playlist = tmp_path / "elsewhere" / "songs.m3u8"
    saved.save_as(playlist)
    lines = playlist.read_text("utf-8").splitlines()
    assert lines[0] == "#EXTM3U"
    assert lines[2::2] == [str(music / name) for name in selected]
    paths, notes = read_path_list(playlist, playlist.read_bytes())
    assert (paths, list(notes)) == (lines[2::2], [])
    assert all(album.Path(path).is_file() for path in paths)


def test_a_page_opens_from_the_index_and_leads_back(index, folder):
    index.locator("#body a").nth(2).click()
    index.wait_for_selector("audio")
    assert index.locator("h1").text_content() == AWKWARD.removeprefix("d/")
    assert unquote(urlsplit(index.url).path) == str(folder / "songs" / f"{AWKWARD}.html")
    index.get_by_role("link", name="All songs").click()
    index.wait_for_selector("#body tr")
    assert len(names(index)) == len(SONGS)


def test_index_and_page_state_the_same_length(open_page, tmp_path):
    album.write_wav(tmp_path / "a.wav", 9.3)
    song = album.outcome(tmp_path / "a.wav", "a.wav", 9.3, [0.9] * 4, np.ones((18, 4)))
    album.write_pages(tmp_path / "out", [song], album.rules())
    page = open_page(tmp_path / "out/index.html")
    assert page.locator("#body tr td").first.text_content() == "0:10"
    page.locator("#body a").click()
    page.wait_for_selector("audio", state="attached")
    assert page.locator("#time").text_content() == "0:00 / 0:10"


def test_long_lists_are_drawn_in_parts(open_page, tmp_path):
    songs = [
        album.outcome(tmp_path / f"{i}.wav", f"{i}.wav", 1.0, [0.9] * 4, np.ones((2, 4)))
        for i in range(510)
    ]
    album.write_pages(tmp_path / "out", songs, album.rules())
    page = open_page(tmp_path / "out/index.html")
    assert page.locator("#body tr").count() == 500
    page.get_by_role("button", name="Show more").click()
    assert page.locator("#body tr").count() == 510
    assert not page.get_by_role("button", name="Show more").is_visible()
