"""`rfkeras data download`, through mirdata and soundata, from a server on this machine."""

import errno
import io
import json
import sys

import numpy as np
import pytest

from rfkeras.cli import data, main
from rfkeras.datasets import download as downloads
from rfkeras.datasets.checks import differences
from rfkeras.datasets.download import download
from rfkeras.datasets.load import load_dataset
from rfkeras.errors import ConfigError, DatasetError
from tests.helpers import layouts
from tests.helpers.mir_layouts import (
    MEDLEY,
    files_in,
    md5,
    publish,
    publish_esc50,
    publish_medley,
    tarred,
    zipped,
)

ARCHIVE = "Medley-solos-DB.tar.gz"

pytestmark = pytest.mark.usefixtures("mir_packages")


@pytest.fixture
def medley(monkeypatch, http):
    return publish_medley(monkeypatch, http)


def yes(plan):
    return True


def fetched(http, name=ARCHIVE):
    """Return the requested parts of a file."""
    return [part for kind, path, part in http.requests if kind == "GET" and name in path]


@pytest.mark.parametrize(
    ("files", "unknown", "size"),
    [
        (3, 1, "2.5 MB in 2 files, not stated by the server for 1 file"),
        (2, 2, "not stated by the server for 2 files"),
        (1, 0, "2.5 MB in 1 file"),
    ],
)
def test_sizes_that_a_server_does_not_state_are_named(files, unknown, size, tmp_path, capsys):
    known = 0 if files == unknown else 2_500_000
    plan = downloads.DownloadPlan("x", "CC0", "url", ("host",), files, known, unknown, tmp_path)
    assert data._confirm(plan, sure=True)
    assert f"\nSize: {size}; the unpacked files need as much again\n" in capsys.readouterr().err


def test_one_command_downloads_verifies_and_says_what_is_next(medley, http, tmp_path, capsys):
    folder = tmp_path / "medley"
    flags = ["data", "download", MEDLEY, "--data-dir", str(folder)]
    assert main.run([*flags, "--yes"]) == 0
    out, err = capsys.readouterr()
    size = sum(path.stat().st_size for path in http.folder.iterdir())
    assert f"Size: {size / 1e6:,.1f} MB in 3 files; " in err
    assert "Licence: Creative Commons Attribution 4.0 International.\nFrom: 127.0.0.1\n" in err
    assert out.splitlines() == [
        "Verified: 24 files",
        f"No longer needed: {folder / 'audio' / ARCHIVE}",
        f"Next: rfkeras data check --dataset {MEDLEY} --data-dir {folder}",
    ]
    check = tmp_path / "check.json"
    assert main.run([*out.split("Next: rfkeras ")[1].split(), "--json", str(check)]) == 0
    splits = json.loads(check.read_text())["splits"]
    clips = {name: split["clips"] for name, split in splits.items()}
    assert clips == {"train": 12, "validation": 6, "test": 6}
    rates = [split["audio"]["sample_rates_hz"] for split in splits.values()]
    assert rates == [{"22050": 12}, {"22050": 6}, {"22050": 6}]


def test_what_is_complete_is_not_fetched_again(medley, http, tmp_path):
    assert download(MEDLEY, tmp_path, confirm=yes).files == 24
    assert len(fetched(http)) == 1
    http.requests.clear()

    def never(plan):
        raise AssertionError(plan)

    assert download(MEDLEY, tmp_path, confirm=never).files == 24
    (tmp_path / "audio" / ARCHIVE).unlink()
    assert download(MEDLEY, tmp_path, confirm=never).archives == ()
    assert http.requests == []
    # Without the archive, a missing file needs it again.
    next((tmp_path / "audio").glob("*.wav")).unlink()
    plans = []
    assert download(MEDLEY, tmp_path, confirm=lambda plan: plans.append(plan) or True)
    assert (plans[0].files, len(fetched(http))) == (1, 1)


def test_a_stopped_unpacking_is_done_again(http, tmp_path, monkeypatch):
    """Annotations are not in every index, so complete audio does not show it."""
    publish_esc50(monkeypatch, http, metadata=False)
    with monkeypatch.context() as stopped:
        stopped.setattr(downloads, "_merge", lambda *folders: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            download("soundata:esc50", tmp_path, confirm=yes)
    (tmp_path / "ESC-50-master" / "audio").rename(tmp_path / "audio")
    missing, cut, *_ = (tmp_path / "audio").iterdir()
    missing.unlink()
    cut.write_bytes(b"the beginning")
    assert download("soundata:esc50", tmp_path, confirm=yes).files == 30
    assert (tmp_path / "meta" / "esc50.csv").is_file()
    assert not (tmp_path / "ESC-50-master").exists()
    (tmp_path / "meta" / "esc50.csv").unlink()
    assert (tmp_path / ".soundata" / "unpacking").exists() is False
    (tmp_path / ".soundata" / "unpacking").touch()
    assert download("soundata:esc50", tmp_path, confirm=yes).files == 30
    assert (tmp_path / "meta" / "esc50.csv").is_file()
    assert len(fetched(http, "ESC-50")) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_is_continued(medley, http, tmp_path, monkeypatch, ranges):
    monkeypatch.setattr(downloads, "_PAUSES_S", ())
    # The index and the annotations arrive.
    http.break_after, http.ranges = [10**9, 10**9, 5000], ranges
    with pytest.raises(
        DatasetError, match="stopped after 0.0 MB: .*same command again"
    ) as error:
        download(MEDLEY, tmp_path, confirm=yes)
    assert http.url in str(error.value)
    part = tmp_path / "audio" / f"{ARCHIVE}.part"
    whole = (http.folder / ARCHIVE).read_bytes()
    assert 0 < part.stat().st_size < len(whole)
    size = part.stat().st_size
    plans = []
    assert (
        download(MEDLEY, tmp_path, confirm=lambda plan: plans.append(plan) or True).files == 24
    )
    assert plans[0].known_bytes == len(whole) - size
    assert fetched(http) == [None, f"bytes={size}-"]
    assert not part.exists()
    assert (tmp_path / "audio" / ARCHIVE).read_bytes() == whole


def test_a_complete_file_whose_name_was_not_changed_yet(medley, http, tmp_path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / f"{ARCHIVE}.part").write_bytes((http.folder / ARCHIVE).read_bytes())
    assert download(MEDLEY, tmp_path, confirm=yes).files == 24


def test_a_broken_connection_is_tried_again(medley, http, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_PAUSES_S", (0, 0))
    http.break_after = [10**9, 10**9, 0, 3000]
    assert download(MEDLEY, tmp_path, confirm=yes).files == 24
    assert len(fetched(http)) == 3


def test_a_full_disk_is_an_error_at_once(medley, http, tmp_path, monkeypatch):
    calls = []

    def full(url, part):
        calls.append(url)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads, "_append", full)
    with pytest.raises(DatasetError, match="No space left on device. Run the same command"):
        download(MEDLEY, tmp_path, confirm=yes)
    assert len(calls) == 1


def test_a_missing_file_of_the_server_is_an_error_at_once(medley, http, tmp_path):
    (http.folder / ARCHIVE).unlink()
    with pytest.raises(DatasetError, match="Medley-solos-DB.tar.gz: .*HTTP Error 404"):
        download(MEDLEY, tmp_path, confirm=yes)
    assert len(fetched(http)) == 1


def test_a_wrong_checksum(medley, http, tmp_path, monkeypatch):
    (http.folder / ARCHIVE).write_bytes(b"another file")
    with pytest.raises(DatasetError, match="not have the checksum [0-9a-f]{32}. It was del"):
        download(MEDLEY, tmp_path, confirm=yes)
    assert not list((tmp_path / "audio").iterdir())


def test_what_the_package_left_behind_is_not_overwritten(medley, http, tmp_path):
    """mirdata leaves an interrupted download at its final place."""
    path = tmp_path / "audio" / ARCHIVE
    path.parent.mkdir()
    path.write_bytes(b"a part")
    with pytest.raises(DatasetError, match=r"is not the file .*Delete it and run"):
        download(MEDLEY, tmp_path, confirm=yes)
    assert path.read_bytes() == b"a part"


def test_every_file_is_verified(medley, http, tmp_path):
    download(MEDLEY, tmp_path, confirm=yes)
    path = next((tmp_path / "audio").glob("*_uuid-07.wav"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DatasetError, match="1 file does not have the checksum .*uuid-07.wav"):
        download(MEDLEY, tmp_path, confirm=yes)
    path.unlink()
    assert download(MEDLEY, tmp_path, confirm=yes).files == 24
    assert path.read_bytes() == content


@pytest.mark.parametrize(("answer", "status"), [("n\n", 1), ("", 1), ("yes\n", 0)])
def test_the_question(medley, http, tmp_path, monkeypatch, capsys, answer, status):
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    folder = tmp_path / "medley"
    assert main.run(["data", "download", MEDLEY, "--data-dir", str(folder)]) == status
    err = capsys.readouterr().err
    assert "Download? [y/N] " in err
    assert ("Nothing was downloaded." in err) == (status == 1)
    assert bool(fetched(http, "")) == (status == 0)


def test_without_a_terminal_yes_is_needed(medley, http, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main.run(["data", "download", MEDLEY, "--data-dir", str(tmp_path)]) == 1
    assert "no terminal to ask on. Add --yes" in capsys.readouterr().err
    assert fetched(http, "") == []


def test_a_folder_has_one_data_set(medley, http, tmp_path, monkeypatch):
    download(MEDLEY, tmp_path, confirm=yes)
    publish_esc50(monkeypatch, http)
    with pytest.raises(ConfigError, match="another data set .medley_solos_db_index_1.2.json"):
        download("soundata:esc50", tmp_path, confirm=yes)


@pytest.mark.parametrize(
    ("name", "subset", "message"),
    [
        ("magnatagatune", None, "not in mirdata. Download it from https://mirg.city.ac.uk"),
        ("gm_instruments", None, "generated on your machine"),
        ("dcase", "2020-1b", "zenodo.org/record/3670185 .*It offers: 2019-1a, 2020-1a"),
        ("dcase", None, "needs --subset, one of 2019-1a, 2020-1a. Received: None"),
        ("openmic", "all", "leave --subset out"),
        ("openmics", None, "Did you mean 'openmic'"),
        ("esc50", None, "Did you mean 'soundata:esc50'"),
        ("mirdata:irma", None, "Unknown data set of mirdata 'irma'. Did you mean 'irmas'"),
        (
            "mirdata:tonas",
            None,
            "cannot be downloaded by a program. .*tonas.* See https://mirdata",
        ),
        ("hub:irmas", None, "Unknown data set to download 'hub:irmas'"),
        ("mirdata:dali", None, "mirdata cannot use dali, perhaps for want of another package"),
    ],
)
def test_what_is_not_offered(tmp_path, name, subset, message):
    with pytest.raises((ConfigError, DatasetError), match=message):
        download(name, tmp_path, confirm=yes, subset=subset)


# Layouts of the data sets that have readers of their own


def test_openmic(monkeypatch, http, tmp_path):
    made = layouts.write_openmic(tmp_path)
    files = files_in(made, tmp_path)
    listed = {path.removeprefix("openmic-2018/"): md5(files[path]) for path in files}
    audio = [path for path in listed if path.endswith(".ogg")]
    index = {
        "tracks": {path: {"audio": [path, listed[path]]} for path in audio},
        "metadata": {p: [p, listed[p]] for p in listed if p not in audio},
    }
    publish(monkeypatch, http, "mirdata:openmic2018", {"remote_data": tarred(files)}, index)
    done = download("openmic", tmp_path / "new", confirm=yes)
    assert (done.flags, done.files) == ("openmic", len(files))
    assert download("mirdata:openmic2018", tmp_path / "new", confirm=yes) == done
    old = load_dataset("openmic", data_dir=made)
    new = load_dataset("openmic", data_dir=tmp_path / "new")
    for name, split in old.splits.items():
        assert new.splits[name].keys == split.keys
        np.testing.assert_array_equal(new.splits[name].labels, split.labels)
    assert all(path.is_file() for path in new.splits["train"].paths)


def test_gtzan(monkeypatch, http, tmp_path):
    files = files_in(layouts.write_gtzan(tmp_path / "genres"), tmp_path)
    tracks = {
        p: {"audio": [f"gtzan_genre/{p}", md5(b"")], "beats": ["beats/a", ""]} for p in files
    }
    publish(
        monkeypatch, http, "mirdata:gtzan_genre", {"all": tarred(files)}, {"tracks": tracks}
    )
    assert download("gtzan", tmp_path / "new", confirm=yes).files == 1000
    new = load_dataset("gtzan", data_dir=tmp_path / "new")
    assert differences(new) == []
    assert len(new.splits["train"]) == 443
    assert all(path.is_file() for path in new.splits["train"].paths)


def test_mtg_jamendo(monkeypatch, http, tmp_path):
    files = files_in(layouts.write_jamendo(tmp_path / "made"), tmp_path / "made")
    layouts.write_jamendo_audio(tmp_path / "audio")
    audio = files_in(tmp_path / "audio", tmp_path / "audio")
    tracks = {path: {"audio": [f"audios/{path}", md5(audio[path])]} for path in audio}
    name = "mirdata:mtg_jamendo_autotagging_moodtheme"
    publish(monkeypatch, http, name, {"metadata": zipped(files)}, {"tracks": tracks})
    folder = tmp_path / "new"
    with pytest.raises(DatasetError) as error:
        download("mtg_jamendo", folder, confirm=yes)
    count = len(audio)
    assert f"{count} of {count} files of {name} are missing in {folder}" in str(error.value)
    assert f"--type audio {folder}/audios --unpack --remove" in str(error.value)
    (tmp_path / "audio").rename(folder / "audios")
    assert download("mtg_jamendo", folder, confirm=yes).files == count
    new = load_dataset("mtg_jamendo", data_dir=folder)
    assert all(path.is_file() for split in new.splits.values() for path in split.paths)
    assert len(fetched(http, "metadata.zip")) == 1


def test_dcase(monkeypatch, http, tmp_path):
    """Only the development set is downloaded; the index also lists the evaluation set."""
    made = layouts.write_dcase(tmp_path, "2019-1a", audio=True)
    files = files_in(made, tmp_path)
    audio = {path: content for path, content in files.items() if "/audio/" in path}
    clips = {path: {"audio": [path, md5(content)]} for path, content in audio.items()}
    clips["evaluation/1"] = {"audio": ["TAU-urban-acoustic-scenes-2019-evaluation/1.wav", ""]}
    rest = {path: content for path, content in files.items() if path not in audio}
    parts = {f"development.audio.{n}": zipped({}) for n in range(2, 22)}
    parts |= {"development.audio.1": zipped(audio), "development.meta": zipped(rest)}
    parts["development.doc"] = zipped({})
    publish(monkeypatch, http, "soundata:tau2019uas", parts, {"clips": clips})
    done = download("dcase", tmp_path / "new", confirm=yes, subset="2019-1a")
    assert (done.flags, done.files) == ("dcase --subset 2019-1a", len(audio))
    new = load_dataset("dcase", data_dir=tmp_path / "new", subset="2019-1a")
    assert all(path.is_file() for split in new.splits.values() for path in split.paths)
    assert fetched(http, "evaluation") == []


def test_joining_the_parts_of_archives_is_explained(monkeypatch, http, tmp_path):
    """soundata calls zip without arguments, so it cannot join them."""
    audio = {"FSD50K.dev_audio/1.wav": b"one"}
    index = {"clips": {"1": {"audio": ["FSD50K.dev_audio/1.wav", md5(b"one")]}}}
    parts = {
        "FSD50K.dev_audio": [zipped(audio), *(b"part %d" % n for n in range(5))],
        "FSD50K.eval_audio": [zipped({}), b"part"],
        **{key: zipped({f"{key}.txt": b""}) for key in ("ground_truth", "metadata")},
        "documentation": zipped({}),
    }
    publish(monkeypatch, http, "soundata:fsd50k", parts, index)
    with pytest.raises(DatasetError) as error:
        download("soundata:fsd50k", tmp_path, confirm=yes)
    joining = (
        "zip -s 0 FSD50K.dev_audio.zip --out joined-FSD50K.dev_audio.zip; unzip joined-FSD"
    )
    assert f"cd {tmp_path}; {joining}" in str(error.value)
    assert (tmp_path / "ground_truth.txt").is_file()
    (tmp_path / "FSD50K.dev_audio").mkdir()
    (tmp_path / "FSD50K.dev_audio" / "1.wav").write_bytes(b"one")
    assert download("soundata:fsd50k", tmp_path, confirm=yes).files == 1
