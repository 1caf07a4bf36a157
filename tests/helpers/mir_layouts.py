"""Small copies of data sets of mirdata and soundata, in the layout of the published archives.

They are served by an HTTP server of this machine. Of the packages, only addresses and checksums
are replaced.
"""

import hashlib
import io
import json
import tarfile
import zipfile
from importlib import import_module

import numpy as np
import soundfile

from rfkeras.datasets import mir

RATE_HZ = 22050


def tone(number, seconds=0.4):
    """Return a WAV file with a tone of its own."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    file = io.BytesIO()
    soundfile.write(
        file, 0.3 * np.sin(2 * np.pi * (200 + 7 * number) * time), RATE_HZ, format="WAV"
    )
    return file.getvalue()


def md5(content):
    return hashlib.md5(content).hexdigest()


def zipped(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tarred(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def files_in(folder, below):
    """Return the files of a folder by their path below another."""
    return {
        path.relative_to(below).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def publish(monkeypatch, http, name, downloads, index):
    """Serve a data set.

    Args:
        monkeypatch: Replaces addresses and checksums.
        http: Server of a folder.
        name: "mirdata:NAME" or "soundata:NAME".
        downloads: Content of each of the package's downloads, a list for one in parts.
        index: Index of the data set.
    """
    package, own = name.split(":")
    mir.initialize(name, http.folder)  # hides what the first import warns of
    module = import_module(f"{package}.datasets.{own}")

    def serve(remote, content):
        (http.folder / remote.filename).write_bytes(content)
        monkeypatch.setattr(remote, "url", f"{http.url}/{remote.filename}")
        monkeypatch.setattr(remote, "checksum", md5(content))

    for key, contents in downloads.items():
        if isinstance(contents, list):
            for remote, content in zip(module.REMOTES[key], contents, strict=True):
                serve(remote, content)
        else:
            serve(module.REMOTES[key], contents)
    serve(module.INDEXES[module.INDEXES["default"]].remote, json.dumps(index).encode())


def entry(path, files, prefix=""):
    """Return a file of an index."""
    return [path, md5(files[prefix + path])]


MEDLEY = "mirdata:medley_solos_db"


def publish_medley(monkeypatch, http):
    """Serve 24 clips: subset by song, two instruments; return rows (id, subset, tag, song)."""
    rows, audio = [], {}
    for number in range(24):
        subset = ("training", "training", "validation", "test")[number // 6]
        tag = ("clarinet", "violin")[number % 2]
        rows.append((f"uuid-{number:02d}", subset, tag, number // 2))
        audio[f"Medley-solos-DB_{subset}-{number % 2}_uuid-{number:02d}.wav"] = tone(number)
    table = "subset,instrument,instrument_id,song_id,uuid4\n" + "".join(
        f"{subset},{tag},{('clarinet', 'violin').index(tag)},{song},{key}\n"
        for key, subset, tag, song in rows
    )
    index = {
        "version": "1.2",
        "tracks": {
            name.rpartition("_")[2].removesuffix(".wav"): {
                "audio": [f"audio/{name}", md5(content)]
            }
            for name, content in audio.items()
        },
    }
    downloads = {"annotations": table.encode(), "audio": tarred(audio)}
    publish(monkeypatch, http, MEDLEY, downloads, index)
    return rows


def publish_irmas(monkeypatch, http):
    """Serve 12 training clips of 6 recordings, and 6 test clips with two instruments."""
    training, tests, tracks = {}, [{}, {}, {}], {}
    for number in range(12):
        tag = ("cel", "gac", "voi")[number // 4]
        key = f"{number // 2:04d}__{number % 2 + 1}"
        path = f"IRMAS-TrainingData/{tag}/[{tag}][nod][cla]{key}.wav"
        training[path] = tone(number)
        tracks[key] = {name: entry(path, training) for name in ("audio", "annotation")}
    for number in range(6):
        files = tests[number // 2]
        part = f"Part{number // 2 + 1}"
        stem = f"IRMAS-TestingData-{part}/{part}/song {number}-1"
        files[f"{stem}.wav"] = tone(100 + number)
        files[f"{stem}.txt"] = b"cel\t\nvoi\t\n" if number % 2 else b"gac\t\n"
        tracks[str(number)] = {
            "audio": entry(f"{stem}.wav", files),
            "annotation": entry(f"{stem}.txt", files),
        }
    downloads = {"training_data": zipped(training)}
    downloads |= {f"testing_data_{n}": zipped(files) for n, files in enumerate(tests, 1)}
    publish(monkeypatch, http, "mirdata:irmas", downloads, {"version": "1.0", "tracks": tracks})


def publish_esc50(monkeypatch, http, metadata=True):
    """Serve 30 clips of 3 classes in 5 folds, two of each recording.

    Without `metadata`, the index does not list the annotations.
    """
    rows, files, clips = ["filename,fold,target,category,esc10,src_file,take"], {}, {}
    for number in range(30):
        fold, target = number // 6 + 1, number // 2 % 3
        source, take = 1000 + number // 2, "AB"[number % 2]
        key = f"{fold}-{source}-{take}-{target}"
        name = ("dog", "rain", "clock_tick")[target]
        rows.append(f"{key}.wav,{fold},{target},{name},False,{source},{take}")
        files[f"ESC-50-master/audio/{key}.wav"] = tone(number)
        clips[key] = {"audio": entry(f"audio/{key}.wav", files, "ESC-50-master/")}
    files["ESC-50-master/meta/esc50.csv"] = "\n".join(rows).encode()
    index = {"version": "2.0", "clips": clips}
    if metadata:
        index["metadata"] = {"esc50.csv": entry("meta/esc50.csv", files, "ESC-50-master/")}
    publish(monkeypatch, http, "soundata:esc50", {"all": zipped(files)}, index)


def publish_urbansound8k(monkeypatch, http):
    """Serve 40 clips of 2 classes in 10 folds."""
    rows = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    files, clips = {}, {}
    for number in range(40):
        fold, target = number // 4 + 1, number % 2
        key = f"{500 + number}-{target}-0-0"
        name = ("siren", "dog_bark")[target]
        rows.append(f"{key}.wav,{500 + number},0.0,4.0,1,{fold},{target},{name}")
        files[f"UrbanSound8K/audio/fold{fold}/{key}.wav"] = tone(number)
        clips[key] = {"audio": entry(f"audio/fold{fold}/{key}.wav", files, "UrbanSound8K/")}
    files["UrbanSound8K/metadata/UrbanSound8K.csv"] = "\n".join(rows).encode()
    index = {"version": "1.0", "clips": clips}
    publish(monkeypatch, http, "soundata:urbansound8k", {"all": tarred(files)}, index)
