"""DCASE acoustic scenes: 10-second city recordings of 10 (or 3) scenes.

Subsets, and the folders that their archives unpack to:

    2018-1a    TUT-urban-acoustic-scenes-2018-development
    2019-1a    TAU-urban-acoustic-scenes-2019-development
    2019-1b    TAU-urban-acoustic-scenes-2019-mobile-development
    2020-1a    TAU-urban-acoustic-scenes-2020-mobile-development
    2020-1b    TAU-urban-acoustic-scenes-2020-3class-development

Each has `meta.csv` (tab-separated: filename, scene_label, identifier, source_label), the
lists `evaluation_setup/fold1_train.csv` and `fold1_evaluate.csv` (in 2018 `.txt`, without a
header), and `audio/`. The identifier names the recording location.

The list "evaluate" is the test split. Validation is held out of train by location, as in the
organisers' baselines. Published numbers of clips come from the data sets' documentation.
Where it has no numbers per split, only the total is checked (2018-1a, 2020-1b), or nothing
(2019-1b).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rfkeras.datasets.base import AudioDataset, Published, Split, hold_out_groups
from rfkeras.datasets.tables import check_subset, read_rows, safe_path
from rfkeras.errors import ConfigError, DatasetError
from rfkeras.utils.text import count, first_few

CLIP_SECONDS = 10.0
SPLIT_SEED = 2020
_COLUMNS = ("filename", "scene_label", "identifier")
_TEN_SCENES = (
    "airport",
    "bus",
    "metro",
    "metro_station",
    "park",
    "public_square",
    "shopping_mall",
    "street_pedestrian",
    "street_traffic",
    "tram",
)


@dataclass(frozen=True)
class Edition:
    """One year's data set of one task.

    Attributes:
        folder: Name of the unpacked folder.
        record: Number of the Zenodo record.
        listed: Number of clips in meta.csv; None if not known.
        clips: Number of clips per split, as in `Published`.
        scenes: Names of the classes.
    """

    folder: str
    record: str
    listed: int | None
    clips: Mapping[str, int] = field(default_factory=dict)
    scenes: tuple[str, ...] = _TEN_SCENES


EDITIONS = {
    "2018-1a": Edition(
        "TUT-urban-acoustic-scenes-2018-development",
        "1228142",
        8640,
    ),
    "2019-1a": Edition(
        "TAU-urban-acoustic-scenes-2019-development",
        "2589280",
        14400,
        {"train+validation": 9185, "test": 4185},
    ),
    "2019-1b": Edition("TAU-urban-acoustic-scenes-2019-mobile-development", "2589332", None),
    "2020-1a": Edition(
        "TAU-urban-acoustic-scenes-2020-mobile-development",
        "3819968",
        23035,
        {"train+validation": 13962, "test": 2968},
    ),
    "2020-1b": Edition(
        "TAU-urban-acoustic-scenes-2020-3class-development",
        "3670185",
        14400,
        scenes=("indoor", "outdoor", "transportation"),
    ),
}
SUBSETS = tuple(EDITIONS)

Meta = dict[str, tuple[str, str]]  # scene and location by file name


def load(
    data_dir: Path,
    *,
    subset: str | None = None,
    audio_dir: Path | None = None,
    validation_share: float = 0.15,
    split_seed: int = SPLIT_SEED,
) -> AudioDataset:
    """Read a development set; audio files are not opened.

    Args:
        data_dir: The unpacked folder or its parent.
        subset: Year and task, "2020-1b" for example; None infers it from the folder's name.
        audio_dir: Folder of the recordings, if it is not `audio` next to meta.csv.
        validation_share: Share of the official train list held out, by location.
        split_seed: Seed of that choice, fixed so that results are comparable.

    Returns:
        A single-label data set with the splits train, validation and test.

    Raises:
        ConfigError: There is no such subset, or it cannot be inferred from the folder.
        DatasetError: A file is missing or malformed, or files contradict each other.
    """
    subset, root = _find(data_dir, subset)
    edition = EDITIONS[subset]
    homepage = f"https://zenodo.org/record/{edition.record}"
    meta = _meta(root / "meta.csv", edition.scenes, homepage)
    lists = {
        name: _listed(root / "evaluation_setup", f"fold1_{file}", meta, homepage)
        for name, file in (("train", "train"), ("test", "evaluate"))
    }
    both = sorted(set(lists["train"]) & set(lists["test"]))
    if both:
        raise DatasetError(
            f"{root}: the lists train and evaluate share {count(len(both), 'clip')}: "
            f"{first_few(both)}."
        )
    folder = root / "audio" if audio_dir is None else audio_dir
    whole = {
        name: _as_split(files, meta, edition.scenes, folder) for name, files in lists.items()
    }
    train, validation = hold_out_groups(
        whole["train"], validation_share, split_seed, edition.scenes
    )
    remarks: tuple[str, ...] = ()
    if edition.listed not in (None, len(meta)):
        remarks = (
            f"{count(len(meta), 'clip')} in meta.csv; the published data set has "
            f"{edition.listed:,}",
        )
    return AudioDataset(
        name="dcase",
        label_names=edition.scenes,
        splits={"train": train, "validation": validation, "test": whole["test"]},
        clip_seconds=CLIP_SECONDS,
        task="single_label",
        info={
            "subset": subset,
            "validation": f"{validation_share:g} of train, by location and seed {split_seed}",
        },
        published=Published(homepage, edition.clips, len(edition.scenes), group="location"),
        remarks=remarks,
    )


def _find(data_dir: Path, subset: str | None) -> tuple[str, Path]:
    """Return the subset and the folder that has its meta.csv."""
    by_folder = {edition.folder: name for name, edition in EDITIONS.items()}
    if subset is not None:
        check_subset(subset, SUBSETS)
        below = data_dir / EDITIONS[subset].folder
        root = below if below.is_dir() else data_dir
        actual = by_folder.get(root.resolve().name, subset)
        if actual != subset:
            raise ConfigError(f"{root} has the subset {actual}. Received: subset={subset!r}.")
        return subset, root
    own = by_folder.get(data_dir.resolve().name)
    if own is not None:
        return own, data_dir
    below_it = [name for folder, name in by_folder.items() if (data_dir / folder).is_dir()]
    if len(below_it) == 1:
        return below_it[0], data_dir / EDITIONS[below_it[0]].folder
    if below_it:
        raise ConfigError(
            f"{data_dir} has several subsets. Choose one with --subset: {', '.join(below_it)}."
        )
    raise ConfigError(
        f"{data_dir} could be any DCASE set. Choose it with --subset ({', '.join(SUBSETS)}), "
        f"or keep the name of the unpacked folder, such as {EDITIONS['2020-1b'].folder} (from "
        f"https://zenodo.org/record/{EDITIONS['2020-1b'].record})."
    )


def _meta(path: Path, scenes: tuple[str, ...], homepage: str) -> Meta:
    """Read the scene and location of every file."""
    rows = read_rows(path, homepage)
    _, header = next(rows, ("", []))
    if not set(_COLUMNS) <= set(header):
        raise DatasetError(
            f"{path} needs the columns {', '.join(_COLUMNS)}, tab-separated. Received: "
            f"{', '.join(header)!r}."
        )
    columns = [header.index(name) for name in _COLUMNS]
    meta: Meta = {}
    for where, fields in rows:
        if len(fields) < len(header):
            raise DatasetError(f"{where}: {len(fields)} of {len(header)} fields.")
        name, scene, location = (fields[column] for column in columns)
        if scene not in scenes:
            raise DatasetError(
                f"{where}: scene {scene!r} is not one of {', '.join(scenes)}. Is --subset "
                "right?"
            )
        if name in meta:
            raise DatasetError(f"{where}: {name} is repeated.")
        safe_path(name, where)
        meta[name] = scene, location
    return meta


def _listed(folder: Path, stem: str, meta: Meta, homepage: str) -> list[str]:
    """Read the file names in a list of the evaluation setup, in their order."""
    path = folder / f"{stem}.txt"
    if not path.is_file():
        path = folder / f"{stem}.csv"
    names: dict[str, None] = {}
    for where, fields in read_rows(path, homepage):
        name = fields[0]
        if name in ("filename", "file"):
            continue
        if name not in meta:
            raise DatasetError(f"{where}: {name!r} is not in meta.csv.")
        if len(fields) > 1 and fields[1] != meta[name][0]:
            raise DatasetError(
                f"{where}: {name} is {fields[1]!r} here and {meta[name][0]!r} in meta.csv."
            )
        if name in names:
            raise DatasetError(f"{where}: {name} is repeated.")
        names[name] = None
    if not names:
        raise DatasetError(f"{path} has no clips. Download it again: {homepage}")
    return list(names)


def _as_split(files: list[str], meta: Meta, scenes: tuple[str, ...], folder: Path) -> Split:
    labels = np.zeros((len(files), len(scenes)), np.float32)
    labels[np.arange(len(files)), [scenes.index(meta[name][0]) for name in files]] = 1
    return Split(
        keys=tuple(files),
        paths=tuple(folder / name.removeprefix("audio/") for name in files),
        labels=labels,
        mask=np.ones_like(labels),
        groups=tuple(meta[name][1] for name in files),
    )
