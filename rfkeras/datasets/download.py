"""Download data sets through mirdata and soundata, and verify the checksum of every file.

mirdata and soundata write a download to its final place and do not continue one that was
interrupted: the rest of it would be taken for a damaged archive. So archives are fetched here,
with unfinished ones continued, and the packages verify and unpack them.
"""

from __future__ import annotations

import copy
import hashlib
import http.client
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rfkeras.datasets import dcase, magnatagatune
from rfkeras.datasets.mir import (
    MAPPINGS,
    PACKAGES,
    READERS,
    index_of,
    initialize,
    local_folder,
    quiet,
)
from rfkeras.errors import ConfigError, DatasetError, unknown_name
from rfkeras.utils.files import disk_refusal, sole_writer
from rfkeras.utils.progress import ProgressBar, print_status
from rfkeras.utils.text import count, first_few

_UNFINISHED = ".part"
_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 60
_PAUSES_S = (1, 4, 16)  # before a broken connection is tried again
_ARCHIVE = re.compile(r"\.(zip|tar|t?gz|bz2|7z|z\d\d)$")
_BAD_ARCHIVE = (OSError, ValueError, EOFError, zipfile.BadZipFile, tarfile.TarError)
_SECTIONS = ("tracks", "multitracks", "clips", "clipgroups", "metadata")  # of an index


@dataclass(frozen=True)
class _Source:
    """A source from which `download` can fetch a data set.

    Attributes:
        name: "mirdata:NAME" or "soundata:NAME".
        flags: How other commands name the data set.
        parts: Start of the names of the package's downloads that are needed.
        files: Start of the paths, in the index, of the files that are needed.
        rest: How to get what the package does not offer.
    """

    name: str
    flags: str
    parts: str = ""
    files: str = ""
    rest: str = ""


_JAMENDO_AUDIO = (
    "mirdata offers only the lists of MTG-Jamendo. Get the audio with the publishers' script: "
    "git clone https://github.com/MTG/mtg-jamendo-dataset, then python3 "
    "mtg-jamendo-dataset/scripts/download/download.py --dataset autotagging_moodtheme "
    "--type audio {folder}/audios --unpack --remove"
)
# By name and subset; a data set without subsets has None.
_OWN_READERS: Mapping[tuple[str, str | None], _Source] = {
    ("openmic", None): _Source("mirdata:openmic2018", "openmic"),
    ("mtg_jamendo", None): _Source(
        "mirdata:mtg_jamendo_autotagging_moodtheme", "mtg_jamendo", rest=_JAMENDO_AUDIO
    ),
    ("gtzan", None): _Source("mirdata:gtzan_genre", "gtzan", parts="all", files="gtzan_genre/"),
    **{
        ("dcase", subset): _Source(
            f"soundata:{name}",
            f"dcase --subset {subset}",
            parts="development.",
            files=f"{dcase.EDITIONS[subset].folder}/",
        )
        for subset, name in (("2019-1a", "tau2019uas"), ("2020-1a", "tau2020uas_mobile"))
    },
}
_NOT_OFFERED = {
    "magnatagatune": (
        f"MagnaTagATune is not in mirdata. Download it from {magnatagatune.HOMEPAGE}, join the "
        "parts (cat mp3.zip.* > mp3.zip), and unpack them next to annotations_final.csv."
    ),
    "gm_instruments": (
        "gm_instruments is not downloaded: it is generated on your machine when a command uses "
        "it, such as rfkeras train --dataset gm_instruments."
    ),
}


@dataclass(frozen=True)
class DownloadPlan:
    """The files that `download` will fetch.

    Attributes:
        name: The data set, such as "mirdata:irmas".
        licence: Its licence, as the package states it.
        documentation: Page that describes it.
        hosts: Servers of the files.
        files: Number of files to fetch.
        known_bytes: Their size, without those whose server does not state it.
        unknown_sizes: Number of files whose server does not state the size.
        folder: Where they go.
    """

    name: str
    licence: str
    documentation: str
    hosts: tuple[str, ...]
    files: int
    known_bytes: int
    unknown_sizes: int
    folder: Path


@dataclass(frozen=True)
class Download:
    """A complete, verified data set.

    Attributes:
        flags: How other commands name it, after --dataset.
        files: Number of verified files.
        archives: Archives that are no longer needed.
        can_open: Whether `load_dataset` can open it: it has tags that rfkeras knows.
    """

    flags: str
    files: int
    archives: tuple[Path, ...]
    can_open: bool


def download(
    name: str,
    data_dir: str | Path,
    *,
    confirm: Callable[[DownloadPlan], bool],
    subset: str | None = None,
) -> Download | None:
    """Download a data set, unpack it and verify the checksum of every file.

    What is already there is not fetched again, and interrupted downloads are continued.

    Args:
        name: "openmic", "mtg_jamendo", "gtzan", "dcase", "mirdata:NAME" or "soundata:NAME".
        data_dir: A folder for this data set only.
        confirm: Called before the first byte of audio, only if something must be fetched.
            Nothing is fetched if it returns False.
        subset: Subset, for dcase.

    Returns:
        The data set, or None if `confirm` returned False.

    Raises:
        ConfigError: The package is not installed or does not have the data set, or the folder
            has another one.
        DatasetError: The data set is not offered, a download failed, or files are missing or
            damaged.
    """
    source = _find_source(name, subset)
    folder = local_folder(data_dir)
    offered = initialize(source.name, folder)
    remotes = {
        key: remote
        for key, remote in (offered.remotes or {}).items()
        if key.startswith(source.parts) and key != "index"
    }
    if offered._index_data.partial_download is not None and not source.parts:
        remotes = {key: remotes[key] for key in offered._index_data.partial_download}
    if not remotes:
        raise DatasetError(
            f"{source.name} cannot be downloaded by a program. {_rest(source, offered, folder)}"
        )
    index_file = Path(offered.index_path)
    _check_own_folder(index_file, folder)
    with sole_writer(index_file.parent / "lock", folder):
        index = offered._index_data.remote
        if index is not None and index_file.is_file():
            _fetch(index, index_file)  # is it the right one?
        places = [path for remote in remotes.values() for _, path in _files(remote, folder)]
        archives = [path for path in places if _ARCHIVE.search(path.name)]
        # Not every annotation is in the index, so a stopped unpacking is recorded.
        unpacking = index_file.with_name("unpacking")
        if (
            not index_file.is_file()
            or unpacking.exists()
            or not all(path.is_file() for path in places if path not in archives)
            or _absent(source, folder)
        ):
            wanted = [*([] if index is None else [index]), *remotes.values()]
            plan = _plan(source.name, offered, wanted, folder)
            if plan.files and not confirm(plan):
                return None
            for remote in wanted:
                for part, path in _files(remote, folder):
                    _fetch(part, path)
            unpacking.touch()
            _unpack(source.name, offered, remotes, folder)
            unpacking.unlink()
        files = _verify(source, folder)
        left = tuple(path for path in archives if path.is_file())
        can_open = source.name in MAPPINGS or source.name in READERS
        return Download(source.flags, len(files), left, can_open)


def _find_source(name: str, subset: str | None) -> _Source:
    if name in READERS and subset is None:
        return next(source for source in _OWN_READERS.values() if source.name == name)
    name = READERS.get(name, name)
    if name in _NOT_OFFERED:
        raise DatasetError(_NOT_OFFERED[name])
    subsets = [other for own, other in _OWN_READERS if own == name and other is not None]
    if subsets and subset in dcase.EDITIONS and subset not in subsets:
        raise DatasetError(
            f"soundata does not offer dcase {subset}. Download it from "
            f"https://zenodo.org/record/{dcase.EDITIONS[subset].record} and unpack all "
            f"archives into one folder. It offers: {', '.join(subsets)}."
        )
    if subsets and subset not in subsets:
        raise ConfigError(
            f"{name} needs --subset, one of {', '.join(subsets)}. Received: {subset}."
        )
    if not subsets and subset is not None:
        raise ConfigError(f"{name} is downloaded as a whole: leave --subset out.")
    if (name, subset) in _OWN_READERS:
        return _OWN_READERS[name, subset]
    if name.partition(":")[0] in PACKAGES and ":" in name:
        return _Source(name, name)
    own = dict.fromkeys(own for own, _ in _OWN_READERS)
    allowed = (*own, *_NOT_OFFERED, *MAPPINGS)
    raise ConfigError(
        f"{unknown_name('data set to download', name, allowed)} mirdata:NAME and "
        "soundata:NAME stand for any data set of these packages."
    )


def _rest(source: _Source, dataset: Any, folder: Path) -> str:
    """Explain how to get what the package does not download."""
    text = source.rest.format(folder=folder) or " ".join((dataset._download_info or "").split())
    return f"{text} See {dataset.readme}".strip()


def _check_own_folder(index_file: Path, folder: Path) -> None:
    """Check that the folder does not have another data set, whose files could be mixed up."""
    found = [path for name in PACKAGES for path in (folder / f".{name}").glob("*.json")]
    others = [path for path in found if path != index_file]
    if others:
        raise ConfigError(
            f"{folder} has another data set ({others[0].name}). Choose a folder of its own "
            "with --data-dir."
        )


def _files(remote: Any, folder: Path) -> Iterator[tuple[Any, Path]]:
    """Yield each file of a download of the package, and its place."""
    for part in remote if isinstance(remote, list) else [remote]:
        yield part, folder / (part.destination_dir or "") / part.filename


def _plan(name: str, dataset: Any, wanted: Sequence[Any], folder: Path) -> DownloadPlan:
    missing = [
        (part, path)
        for remote in wanted
        for part, path in _files(remote, folder)
        if not path.is_file()
    ]
    sizes = [_size(part.url) for part, _ in missing]
    started = sum(
        part.stat().st_size
        for _, path in missing
        if (part := path.with_name(path.name + _UNFINISHED)).is_file()
    )
    known = sum(size for size in sizes if size is not None)
    return DownloadPlan(
        name=name,
        licence=" ".join((dataset._license_info or "not stated").split()),
        documentation=dataset.readme,
        hosts=tuple(
            dict.fromkeys(urllib.parse.urlsplit(part.url).hostname or "" for part, _ in missing)
        ),
        files=len(missing),
        known_bytes=max(0, known - started),
        unknown_sizes=sizes.count(None),
        folder=folder,
    )


def _size(url: str) -> int | None:
    """Return the size that the server states; None if it does not."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            length = response.headers.get("Content-Length")
    except (OSError, http.client.HTTPException):
        return None
    return int(length) if length is not None and length.isdecimal() else None


def _fetch(remote: Any, path: Path) -> None:
    """Fetch a file, or the rest of it; a complete one only has its checksum compared."""
    if path.is_file():
        if _md5(path) != remote.checksum:
            raise DatasetError(
                f"{path} is not the file that {remote.url} should have: its checksum differs. "
                "Delete it and run the same command again."
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + _UNFINISHED)
    for pause in (*_PAUSES_S, None):
        before = part.stat().st_size if part.is_file() else 0
        try:
            _append(remote.url, part)
            break
        except (OSError, http.client.HTTPException) as error:
            after = part.stat().st_size if part.is_file() else 0
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                pause = None  # such as "not found"
            if disk_refusal(error) is not None:
                pause = None
            if pause is None:
                raise DatasetError(
                    f"{remote.url}: the download stopped after {_megabytes(after)} MB: "
                    f"{error}. Run the same command again to continue."
                ) from error
            if after == before:
                time.sleep(pause)
    if _md5(part) != remote.checksum:
        part.unlink()
        raise DatasetError(
            f"{remote.url}: the downloaded file does not have the checksum {remote.checksum}. "
            "It was deleted. Run the same command again; if that does not help, the publishers "
            "have changed the file: update mirdata and soundata."
        )
    part.rename(path)


def _append(url: str, part: Path) -> None:
    """Append the rest of a file to what was fetched before.

    Raises:
        OSError: The connection broke; what arrived is kept.
    """
    done = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is missing; the checksum decides whether it is right
        raise
    with response:
        if done and response.status != http.client.PARTIAL_CONTENT:
            done = 0  # the server only sends whole files
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        bar = ProgressBar(
            f"Downloading {part.stem}", total, unit="MB", done=done, show=_megabytes
        )
        with bar, part.open("ab" if done else "wb") as file:
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
                bar.advance(len(block))
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"the connection ended, {_megabytes(total)} MB were announced")


def _megabytes(amount: float) -> str:
    return f"{amount / 1e6:,.1f}"


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _unpack(name: str, dataset: Any, remotes: Mapping[str, Any], folder: Path) -> None:
    """Let the package verify the archives again and unpack them."""
    # soundata cannot join the parts of an archive; `_verify` explains what to do.
    single = {key: copy.copy(r) for key, r in remotes.items() if not isinstance(r, list)}
    if not single:
        return
    print_status(f"Unpacking into {folder}")
    # The packages do not restore a file that is missing in a folder that exists: see `_merge`.
    for remote in single.values():
        remote.unpack_directories = None
    dataset.remotes = dict(single)
    utils = import_module(f"{name.partition(':')[0]}.download_utils")
    with quiet(), warnings.catch_warnings():
        # Python 3.12 warns of `extractall`; the archives are those with the checksums.
        warnings.simplefilter("ignore")
        try:
            dataset.download(partial_download=list(single))
            for key, remote in single.items():
                (_, path), *_ = _files(remote, folder)
                if path.suffix == ".tgz":  # which the packages do not unpack
                    utils.untar(str(path), cleanup=False)
                for inner in remotes[key].unpack_directories or ():
                    _merge(path.parent / inner, path.parent)
        except _BAD_ARCHIVE as error:
            raise DatasetError(f"{folder}: an archive cannot be unpacked: {error}") from error


def _merge(source: Path, target: Path) -> None:
    """Move all files of a folder into another one, and replace those that are there."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
    shutil.rmtree(source)


def _verify(source: _Source, folder: Path) -> set[Path]:
    """Compare the checksum of every file that the index lists; return the files.

    Raises:
        DatasetError: Files are missing or damaged.
    """
    home = _home(source, folder)
    dataset = initialize(source.name, home, folder)
    files = _indexed(source, dataset)
    print_status(f"Verifying the checksums of {count(len(files), 'file')}")
    with quiet():
        missing, damaged = (
            {
                path
                for entries in found.values()
                for paths in entries.values()
                for path in paths
                if Path(path).relative_to(home).as_posix() in files
            }
            for found in dataset.validate(verbose=False)
        )
    if damaged:
        raise DatasetError(
            f"{count(len(damaged), 'file does', 'files do')} not have the checksum that "
            f"{source.name} lists: {first_few(sorted(damaged))}. Delete them and run the same "
            "command again."
        )
    if missing:
        parts = [remote[0].filename for remote in _multipart(dataset)]
        joining = "".join(
            f" Join and unpack the parts: cd {folder}; zip -s 0 {name} --out joined-{name}; "
            f"unzip joined-{name}."
            for name in parts
        )
        raise DatasetError(
            f"{len(missing):,} of {count(len(files), 'file')} of {source.name} are missing in "
            f"{home}: {first_few(sorted(missing))}.{joining} {_rest(source, dataset, folder)}. "
            "Then run the same command again to verify them."
        )
    return {home / path for path in files}


def _multipart(dataset: Any) -> list[list[Any]]:
    return [remote for remote in (dataset.remotes or {}).values() if isinstance(remote, list)]


def _absent(source: _Source, folder: Path) -> bool:
    """Return whether a file of the index is not there."""
    home = _home(source, folder)
    files = _indexed(source, initialize(source.name, home, folder))
    return not all((home / path).is_file() for path in files)


def _home(source: _Source, folder: Path) -> Path:
    """Return the folder that the paths of the index start from.

    An archive can have a folder of its own around everything, as OpenMIC's does.
    """
    some = sorted(_indexed(source, initialize(source.name, folder)))[:100]
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    homes = (home for home in (folder, *inner) if any((home / path).is_file() for path in some))
    return next(homes, folder)


def _indexed(source: _Source, dataset: Any) -> set[str]:
    """Return the paths in the index, relative to the folder that they start from."""
    found = set()
    for section, entries in index_of(source.name, dataset).items():
        # Files are [path, checksum], directly or as the parts of a track.
        for entry in (entries or {}).values() if section in _SECTIONS else ():
            for key, value in {"": entry}.items() if isinstance(entry, list) else entry.items():
                if key not in ("tracks", "clips") and value[0] is not None:
                    found.add(value[0])
    return {path for path in found if path.startswith(source.files)}
