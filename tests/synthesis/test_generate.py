"""The data set on disk: layout, manifest, interruption, damage and errors."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfkeras import synthesis
from rfkeras.errors import ConfigError, DatasetError
from rfkeras.synthesis import clip_files
from rfkeras.synthesis.clip_files import LABEL_FILES, ClipJournal, announce_wait, intact
from rfkeras.synthesis.compose import compose
from rfkeras.synthesis.generate import clip_indices, folder_name
from rfkeras.synthesis.render import default_sound_font, parse_sound_fonts
from rfkeras.utils.files import exclusive
from tests.synthesis.conftest import SMALL


def _contents(variant: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that stays, and the entries of the journal."""
    sums = {
        str(path.relative_to(variant)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in variant.rglob("*")
        if path.is_file() and path.name not in (".lock", "clips.sha256")
    }
    return sums | ClipJournal(variant / "clips.sha256").read()


def _copy(small_set: Path, root: Path) -> Path:
    """Copy the complete small data set to another root."""
    variant = root / small_set.parent.name
    shutil.copytree(small_set.parent, variant)
    return variant / "openmic-2018"


def test_layout_is_that_of_openmic_2018(small_set: Path) -> None:
    assert small_set.name == "openmic-2018"
    assert small_set.parent.name == "gm_instruments-v1-seed0-size24"
    train = (small_set / "partitions/split01_train.csv").read_text().split()
    test = (small_set / "partitions/split01_test.csv").read_text().split()
    assert (len(train), len(test)) == (20, 4)
    assert train[:2] == ["000000_0", "000001_0"]
    assert test[:2] == ["900000_0", "900001_0"]
    expected = {f"audio/{key[:3]}/{key}.ogg" for key in train + test} | set(LABEL_FILES)
    found = {str(p.relative_to(small_set)) for p in small_set.rglob("*") if p.is_file()}
    assert found == expected
    class_map = json.loads((small_set / "class-map.json").read_text())
    assert list(class_map.items()) == [(n, i) for i, n in enumerate(synthesis.CLASSES)]


def test_labels_need_no_pickle_and_match_the_table(small_set: Path) -> None:
    with np.load(small_set / "openmic-2018.npz", allow_pickle=False) as archive:
        truth, mask, keys = (archive[n] for n in ("Y_true", "Y_mask", "sample_key"))
    assert truth.shape == mask.shape == (SMALL, 20)
    assert mask.dtype == bool
    assert set(np.unique(truth[mask])) == {0.0, 1.0}
    assert set(np.unique(truth[~mask])) == {0.5}
    clip = compose(0, int(keys[3][:6]))
    assert tuple(mask[3]) == clip.mask
    assert tuple(truth[3][mask[3]]) == tuple(np.array(clip.labels)[mask[3]])
    with (small_set / "openmic-2018-aggregated-labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["sample_key", "instrument", "relevance", "num_responses"]
    assert len(rows) == mask.sum()
    row_of = {key: number for number, key in enumerate(keys)}
    for row in rows:
        place = row_of[row["sample_key"]], synthesis.CLASSES.index(row["instrument"])
        assert mask[place]
        assert truth[place] == float(row["relevance"])
        assert int(row["num_responses"]) > 0


def test_manifest_lists_versions_and_every_file(small_set: Path) -> None:
    manifest = json.loads((small_set.parent / "manifest.json").read_text())
    assert {k: manifest[k] for k in ("version", "seed", "size", "label_rate")} == {
        "version": synthesis.VERSION,
        "seed": 0,
        "size": SMALL,
        "label_rate": synthesis.LABEL_RATE,
    }
    assert manifest["made_with"]["midirenderer"] == metadata.version("midirenderer")
    font = default_sound_font().read_bytes()
    assert manifest["sound_fonts"][0]["sha256"] == hashlib.sha256(font).hexdigest()
    assert len(manifest["files"]) == SMALL + 5
    assert intact(small_set, manifest["files"]) == set(manifest["files"])


def test_killed_run_can_be_completed_with_the_same_result(
    small_set: Path, tmp_path: Path
) -> None:
    """Kill a run with one worker (kill -9); the uninterrupted run had two workers."""
    code = (
        "import sys; from pathlib import Path;"
        "from rfkeras.synthesis import generate;"
        f"generate(Path(sys.argv[1]), size={SMALL}, workers=1)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    variant = tmp_path / small_set.parent.name
    journal = ClipJournal(variant / "clips.sha256")
    until = time.monotonic() + 300
    while len(journal.read()) < 3 and time.monotonic() < until:
        assert child.poll() is None
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    finished = journal.read()
    assert 3 <= len(finished) < SMALL
    assert not (variant / "manifest.json").exists()
    assert not (variant / "openmic-2018" / "openmic-2018.npz").exists()
    assert _ends_within(10, str(tmp_path)), "a worker outlived its killed parent"
    # A kill during a write leaves half a file with a temporary name, and half a line.
    (variant / "openmic-2018/audio/000/.000019_0.ogg.7.partial").write_bytes(b"OggS")
    with journal.path.open("a") as file:
        file.write("0123abc")
    kept = {path: (variant / "openmic-2018" / path).stat().st_mtime_ns for path in finished}

    synthesis.generate(tmp_path, size=SMALL, workers=2, progress=False)

    assert _contents(variant) == _contents(small_set.parent)
    for path, changed in kept.items():
        assert (variant / "openmic-2018" / path).stat().st_mtime_ns == changed


def _ends_within(seconds: float, argument: str) -> bool:
    """Return whether all processes with the text in their arguments end in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        lines = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.append(process.read_bytes())
            except OSError:  # it has just ended
                continue
        if not any(argument.encode() in line for line in lines):
            return True
        time.sleep(0.1)
    return False


def test_changed_and_missing_files_are_generated_again(small_set: Path, tmp_path: Path) -> None:
    folder = _copy(small_set, tmp_path)
    spoiled = folder / "audio/000/000003_0.ogg"
    spoiled.write_bytes(spoiled.read_bytes()[:-100])
    (folder / "audio/900/900001_0.ogg").unlink()
    (folder / "openmic-2018.npz").write_bytes(b"")
    synthesis.generate(tmp_path, size=SMALL, workers=1, progress=False)
    assert _contents(folder.parent) == _contents(small_set.parent)


@pytest.mark.parametrize("damage", ["labels", "manifest"])
def test_labels_and_manifest_are_restored_without_rendering(
    damage: str, small_set: Path, tmp_path: Path
) -> None:
    folder = _copy(small_set, tmp_path)
    if damage == "labels":
        (folder / "partitions/split01_test.csv").write_text("000000_0\n")
    else:
        (folder.parent / "manifest.json").write_text('{"files":')
    clip = folder / "audio/000/000000_0.ogg"
    before = clip.stat().st_mtime_ns
    synthesis.generate(tmp_path, size=SMALL, workers=1, progress=False)
    assert clip.stat().st_mtime_ns == before
    assert _contents(folder.parent) == _contents(small_set.parent)


def test_complete_data_set_is_found_and_not_changed(
    small_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(clip_files, "make_clips")
    before = {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}
    again = synthesis.generate(small_set.parents[1], size=SMALL, progress=False)
    assert again == small_set
    assert {path: path.stat().st_mtime_ns for path in small_set.rglob("*")} == before


def test_second_process_waits_and_reports_it(
    small_set: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = _copy(small_set, tmp_path)
    holding, waiting, release = (threading.Event() for _ in range(3))

    def hold() -> None:
        with exclusive(folder.parent / ".lock", lambda holder: None):
            holding.set()
            release.wait(60)

    def announce_and_tell(*args: Any, **settings: Any) -> Callable[[str], None]:
        announce = announce_wait(*args, **settings)

        def announced(holder: str) -> None:
            announce(holder)
            waiting.set()

        return announced

    generating = sys.modules["rfkeras.synthesis.generate"]
    monkeypatch.setattr(generating, "announce_wait", announce_and_tell)
    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(60)
    caller = threading.Thread(
        target=synthesis.generate, args=(tmp_path,), kwargs={"size": SMALL}
    )
    caller.start()
    assert waiting.wait(60)
    assert caller.is_alive()
    release.set()
    caller.join(60)
    holder.join(60)
    assert not caller.is_alive()
    said = capsys.readouterr().err
    assert f"process {os.getpid()} on {socket.gethostname()} (since " in said
    assert "is working on this data set" in said


def test_progress_without_a_terminal_is_plain_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthesis.generate(tmp_path, size=2, seed=9, workers=1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "Generating gm_instruments: 1 of 2 clips done",
        "Generating gm_instruments: 2 of 2 clips done",
    ]


def test_another_sound_font_has_its_own_folder(tmp_path: Path) -> None:
    copy = tmp_path / "copy.sf2"
    copy.write_bytes(default_sound_font().read_bytes())
    folder = synthesis.generate(tmp_path, size=2, workers=1, progress=False, sound_font=copy)
    sha256 = hashlib.sha256(copy.read_bytes()).hexdigest()
    assert folder.parent.name == f"gm_instruments-v1-seed0-size2-font-{sha256[:12]}"
    manifest = json.loads((folder.parent / "manifest.json").read_text())
    assert manifest["sound_fonts"] == [{"file": "copy.sf2", "sha256": sha256}]


def test_clips_use_several_sound_fonts_in_turn(tmp_path: Path, small_set: Path) -> None:
    other = tmp_path / "other.sf2"
    other.write_bytes(_played_backwards(default_sound_font().read_bytes()))
    fonts = parse_sound_fonts(f"TimGM6mb:{other}")
    assert fonts == (default_sound_font(), other)
    mixed = synthesis.generate(tmp_path, size=5, workers=2, progress=False, sound_font=fonts)
    same = {
        path.name: path.read_bytes() == (small_set / path.relative_to(mixed)).read_bytes()
        for path in mixed.rglob("*.ogg")
    }
    assert same == {name: int(name[:6]) % 2 == 0 for name in same}


def _played_backwards(font: bytes) -> bytes:
    """Reverse the samples of a font (16-bit, in the chunk "smpl")."""
    start = font.index(b"smpl") + 8
    size = int.from_bytes(font[start - 4 : start], "little")
    samples = np.frombuffer(font[start : start + size], "<i2")[::-1]
    return font[:start] + samples.tobytes() + font[start + size :]


def test_larger_set_contains_the_clips_of_a_smaller_one() -> None:
    small, large = clip_indices(100), clip_indices(1600)
    assert set(small[0]) < set(large[0])
    assert set(small[1]) < set(large[1])
    assert (len(large[0]), len(large[1])) == (1300, 300)


@pytest.mark.parametrize("size", [1, 0, -5, 500_001])
def test_sizes_out_of_range_are_rejected(size: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"2 to 500000 clips. Received: {size}"):
        synthesis.generate(tmp_path, size=size)


def test_bad_arguments_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Received: seed=0, workers=0"):
        synthesis.generate(tmp_path, size=2, workers=0)
    with pytest.raises(ConfigError, match="Received: seed=-1"):
        synthesis.generate(tmp_path, size=2, seed=-1)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigError, match="RFKERAS_CACHE_DIR"):
        synthesis.generate(blocked, size=2)


def test_failing_worker_is_an_error_that_keeps_finished_clips(tmp_path: Path) -> None:
    variant = tmp_path / folder_name(0, 2, None)
    blocked = variant / "openmic-2018/audio"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder must be")
    with pytest.raises(
        DatasetError, match=r"a clip could not be made: .*Finished clips are kept"
    ):
        synthesis.generate(tmp_path, size=2, workers=1, progress=False)
    assert not (variant / "manifest.json").exists()


def test_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RFKERAS_CACHE_DIR", str(tmp_path))
    assert synthesis.default_cache_dir() == tmp_path
    monkeypatch.delenv("RFKERAS_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert synthesis.default_cache_dir() == tmp_path / "xdg" / "rfkeras"


def test_generating_needs_no_tensorflow() -> None:
    code = (
        "import sys; import rfkeras.synthesis.render_worker;"
        "heavy = {'tensorflow', 'librosa', 'sklearn', 'matplotlib', 'scipy'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr
