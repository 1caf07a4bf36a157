"""Load a data set by name, and register data sets of your own."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.datasets.base import AudioDataset
from rfkeras.errors import ConfigError, DatasetError, did_you_mean, located, unknown_name
from rfkeras.utils.remote import is_remote, to_path
from rfkeras.utils.user_code import Registry

if TYPE_CHECKING:
    from rfkeras.datasets.mir import TagMapping

Loader = Callable[[Any, int, float, dict[str, Any]], AudioDataset]


def load_dataset(
    name: str,
    *,
    data_dir: str | Path | None = None,
    seed: int = 0,
    validation_share: float = 0.15,
    **options: Any,
) -> AudioDataset:
    """Load the lists and labels of a data set; audio files are not opened.

    Args:
        name: One of the following, with these further options:

            - "gm_instruments" (size, workers, progress, sound_font): generated if absent
            - "openmic" (split_seed, split_rule)
            - "mtg_jamendo" (subset, fold, audio_dir)
            - "dcase" (subset, audio_dir, split_seed)
            - "magnatagatune" (subset, audio_dir)
            - "gtzan" (audio_dir)
            - "mirdata:NAME" and "soundata:NAME" (fold, if they have folds): data sets of
              these packages, see `rfkeras.datasets.mir.MAPPINGS`
            - "folder" (test_share, allow_absolute, split_rule, label_names): your own data
            - "packed": shards written by `pack`
            - a name given to `register_dataset` (subset, fold, audio_dir, if its function has
              them)
        data_dir: Folder of the data set. For "folder", a CSV file or a folder with one
            sub-folder per class. For "packed", a folder of shards. May be an s3://, gs://,
            az://, hdfs:// or http(s):// URL, except for gm_instruments, which has a default
            in the user's cache directory.
        seed: Seed of the composition (gm_instruments) or of the splits (folder).
        validation_share: Share of the training clips held out for validation, for data sets
            without an official validation split (openmic, dcase, folder).
        **options: Options of the data set.

    Returns:
        The data set.

    Raises:
        ConfigError: The name or an option is unknown, or data_dir is missing.
        DatasetError: The data set is incomplete or malformed.
    """
    source = _source(name)
    allowed = source.options
    for option in options:
        if option not in allowed and option in _COMMON_OPTIONS:
            others = sorted(n for n in DATASETS if option in DATASETS[n].options)
            raise ConfigError(
                f"Data set {name!r} does not accept --{option.replace('_', '-')}. Data sets "
                f"that do: {', '.join(others)}."
            )
        if option not in allowed:
            raise ConfigError(unknown_name(f"option of {name}", option, allowed))
    check_data_dir(name, data_dir)
    with located(data_dir or name):
        return source.load(data_dir, seed, validation_share, options)


def check_data_dir(name: str, data_dir: str | Path | None) -> None:
    """Check that a data set has the folder that it needs, without reading it.

    Args:
        name: Name of the data set.
        data_dir: Its folder.

    Raises:
        ConfigError: The name is unknown, or data_dir is missing.
        DatasetError: There is nothing at this local path.
    """
    source = _source(name)
    if not source.needs_folder:
        return
    if data_dir is None:
        raise ConfigError(f"Data set {name!r} needs --data-dir, {_data_dir_help(name)}.")
    missing = not is_remote(data_dir) and not os.path.exists(data_dir)  # noqa: PTH110
    if missing and not source.may_create_folder:
        raise DatasetError(
            f"--data-dir {data_dir} does not exist. Give {_data_dir_help(name)}."
        )


@dataclass(frozen=True)
class DatasetSource:
    """A data set that `load_dataset` knows by name, and its loader.

    Attributes:
        load: Function from folder, seed, validation share and options to the data set.
        options: Names of the options that it accepts.
        needs_folder: Whether it needs a folder.
        may_create_folder: Whether a needed folder may be absent.
    """

    load: Loader
    options: frozenset[str]
    needs_folder: bool = True
    may_create_folder: bool = False


def register_dataset(name: str) -> Callable[[Callable[..., AudioDataset]], Any]:
    """Register the decorated function as a data set, for `load_dataset` and --dataset.

    The function is called by keyword with whichever of these it declares: `data_dir` (a
    path; an argument without a default makes --data-dir required), `seed`,
    `validation_share`, `subset`, `fold` and `audio_dir`. It returns an `AudioDataset` with
    the splits "train", "validation" and "test".

    Args:
        name: Name of the data set.

    Raises:
        ConfigError: The name is taken or not allowed, or the function has another argument
            without a default.

    Example:
        >>> @register_dataset("my_clips")
        ... def load(data_dir, seed=0, validation_share=0.15):
        ...     return AudioDataset("my_clips", ("flute", "voice"), splits)
    """

    def register(function: Callable[..., AudioDataset]) -> Callable[..., AudioDataset]:
        DATASETS.add(name, _users_source(name, function), origin=function)
        return function

    return register


def _users_source(name: str, function: Callable[..., AudioDataset]) -> DatasetSource:
    parameters = inspect.signature(function).parameters
    given = ("data_dir", "seed", "validation_share", *_COMMON_OPTIONS)
    for parameter in parameters.values():
        required = parameter.default is parameter.empty
        if parameter.name not in given and required and parameter.kind < parameter.VAR_KEYWORD:
            raise ConfigError(
                f"The function of data set {name!r} has an argument {parameter.name!r} "
                f"without a default. These are given: {', '.join(given)}."
            )

    def load(
        data_dir: Any, seed: int, validation_share: float, options: dict[str, Any]
    ) -> AudioDataset:
        folder = None if data_dir is None else to_path(data_dir)
        values = {
            "data_dir": folder,
            "seed": seed,
            "validation_share": validation_share,
            **_with_paths(options),
        }
        used = {key: value for key, value in values.items() if key in parameters}
        try:
            dataset = function(**used)
        except FileNotFoundError as error:
            raise DatasetError(
                f"The function of data set {name!r} found no file {error.filename or error}. "
                f"--data-dir is {data_dir}."
            ) from error
        if not isinstance(dataset, AudioDataset):
            raise DatasetError(
                f"The function of data set {name!r} must return an AudioDataset. Received: "
                f"{type(dataset).__name__}."
            )
        return dataset

    folder = parameters.get("data_dir")
    needs_folder = folder is not None and folder.default is folder.empty
    options = frozenset(option for option in _COMMON_OPTIONS if option in parameters)
    return DatasetSource(load, options, needs_folder, may_create_folder=True)


def _data_dir_help(name: str) -> str:
    match name:
        case "folder":
            return "a CSV file or a folder with one sub-folder per class"
        case "packed":
            return "the folder or URL of its shards (`rfkeras data pack` writes them)"
        case _ if ":" in name:
            return f"the folder of `rfkeras data download {name}`"
        case _:
            return "the folder you unpacked it to (docs/datasets.md lists where to get it)"


def _gm_instruments(
    data_dir: Any, seed: int, validation_share: float, options: dict[str, Any]
) -> AudioDataset:
    from rfkeras import synthesis
    from rfkeras.datasets import openmic

    root = Path(data_dir) if data_dir is not None else synthesis.default_cache_dir()
    folder = synthesis.generate(root, seed=seed, **options)
    # The folder's name has the version, seed and size of the generated clips.
    dataset = openmic.load(
        folder,
        validation_share=validation_share,
        name="gm_instruments",
        info={"version": folder.parent.name, "seed": seed},
        published=None,
    )
    dataset.info["size"] = sum(len(split) for split in dataset.splits.values())
    return dataset


def _openmic(
    data_dir: Any, seed: int, validation_share: float, options: dict[str, Any]
) -> AudioDataset:
    from rfkeras.datasets import openmic

    # Not at the top: reading a data set does not need the renderer.
    from rfkeras.synthesis.clip_files import COMPOSED

    folder = to_path(data_dir)
    if (folder / COMPOSED).is_file():
        # Composed music has the layout, but not the published numbers of clips.
        options = {"name": "composed", "published": None, **options}
    # The validation split is part of the benchmark, so the run's seed does not change it.
    return openmic.load(folder, validation_share=validation_share, **options)


def _mtg_jamendo(
    data_dir: Any, seed: int, validation_share: float, options: dict[str, Any]
) -> AudioDataset:
    from rfkeras.datasets import mtg_jamendo

    return mtg_jamendo.load(to_path(data_dir), **_with_paths(options))


def _dcase(
    data_dir: Any, seed: int, validation_share: float, options: dict[str, Any]
) -> AudioDataset:
    from rfkeras.datasets import dcase

    return dcase.load(
        to_path(data_dir), validation_share=validation_share, **_with_paths(options)
    )


def _magnatagatune(
    data_dir: Any, seed: int, validation_share: float, options: dict[str, Any]
) -> AudioDataset:
    from rfkeras.datasets import magnatagatune

    return magnatagatune.load(to_path(data_dir), **_with_paths(options))


def _gtzan(
    data_dir: Any, seed: int, validation_share: float, options: dict[str, Any]
) -> AudioDataset:
    from rfkeras.datasets import gtzan

    return gtzan.load(to_path(data_dir), **_with_paths(options))


def _source(name: str) -> DatasetSource:
    """Return how a data set is loaded. Only names of mirdata and soundata have a colon."""
    from rfkeras.datasets import mir

    if ":" in name:
        return _mir_source(name, mir.mapping_of(name))
    without_package = [key.partition(":")[2] for key in mir.MAPPINGS]
    if name.casefold() in without_package and name not in DATASETS:
        raise ConfigError(f"Unknown data set {name!r}.{did_you_mean(name, mir.MAPPINGS)}")
    return DATASETS[name]


def _mir_source(name: str, mapping: TagMapping) -> DatasetSource:
    from rfkeras.datasets import mir

    def load(
        data_dir: Any, seed: int, validation_share: float, options: dict[str, Any]
    ) -> AudioDataset:
        return mir.load(name, data_dir, mapping, validation_share=validation_share, **options)

    return DatasetSource(load, frozenset({"fold"} if mapping.fold is not None else ()))


def _folder(
    data_dir: Any, seed: int, validation_share: float, options: dict[str, Any]
) -> AudioDataset:
    from rfkeras.datasets import folder

    return folder.load(
        to_path(data_dir), seed=seed, validation_share=validation_share, **options
    )


def _packed(
    data_dir: Any, seed: int, validation_share: float, options: dict[str, Any]
) -> AudioDataset:
    from rfkeras.datasets.packed import load_packed

    return load_packed(str(data_dir))


def _with_paths(options: dict[str, Any]) -> dict[str, Any]:
    folder = options.get("audio_dir")
    return options | {"audio_dir": None if folder is None else to_path(folder)}


_COMMON_OPTIONS = ("subset", "fold", "audio_dir")  # accepted by several data sets


def _own(load: Loader, *options: str, needs_folder: bool = True) -> DatasetSource:
    return DatasetSource(load, frozenset(options), needs_folder)


DATASETS: Registry[DatasetSource] = Registry(
    "data set",
    {
        "gm_instruments": _own(
            _gm_instruments, "size", "workers", "progress", "sound_font", needs_folder=False
        ),
        "openmic": _own(_openmic, "split_seed", "split_rule"),
        "mtg_jamendo": _own(_mtg_jamendo, "subset", "fold", "audio_dir"),
        "dcase": _own(_dcase, "subset", "audio_dir", "split_seed"),
        "magnatagatune": _own(_magnatagatune, "subset", "audio_dir"),
        "gtzan": _own(_gtzan, "audio_dir"),
        "folder": _own(_folder, "test_share", "allow_absolute", "split_rule", "label_names"),
        "packed": _own(_packed),
    },
)
