"""Where clips and labels come from: one file a data set, `load_dataset` in front."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rfkeras.data.dataset import AudioDataset
from rfkeras.errors import ConfigError, unknown_name


def load_dataset(
    name: str,
    *,
    data_dir: str | Path | None = None,
    seed: int = 0,
    validation_share: float = 0.15,
    **options: Any,
) -> AudioDataset:
    """Load a data set by name.

    Args:
        name: "gm_instruments" (rendered when absent; options size, workers, progress),
            "openmic", "folder" (options test_share, allow_absolute) or "packed".
        data_dir: Folder of the data set: openmic-2018 or its parent; for "folder" a CSV
            file or a folder with one sub-folder a class; for "packed" a folder of shards,
            which may be an s3://, az://, hdfs:// or http(s):// URL. gm_instruments has a
            default in the user's cache.
        seed: Seed of the composition (gm_instruments) or of the splits (folder).
        validation_share: Share of the training clips held out where the data set has no
            validation split of its own.
        **options: Options of that data set.

    Raises:
        ConfigError: Unknown name or option, or data_dir is missing.
        DatasetError: The data set is incomplete or malformed.
    """
    if name not in _LOADERS:
        raise ConfigError(unknown_name("data set", name, _LOADERS))
    loader, allowed = _LOADERS[name]
    for option in options:
        if option not in allowed:
            raise ConfigError(unknown_name(f"option of {name}", option, allowed))
    if data_dir is None and name != "gm_instruments":
        raise ConfigError(f"Data set {name!r} needs data_dir: where is it?")
    return loader(data_dir, seed, validation_share, options)


def _gm_instruments(
    data_dir: Any, seed: int, validation_share: float, options: dict[str, Any]
) -> AudioDataset:
    from rfkeras.data.sources import gm_instruments, openmic

    root = Path(data_dir) if data_dir is not None else gm_instruments.default_cache_dir()
    folder = gm_instruments.generate(root, seed=seed, **options)
    # The folder's name holds version, seed and size of what was rendered.
    dataset = openmic.load(
        folder,
        validation_share=validation_share,
        name="gm_instruments",
        info={"version": folder.parent.name, "seed": seed},
    )
    dataset.info["size"] = sum(len(split) for split in dataset.splits.values())
    return dataset


def _openmic(
    data_dir: Any, seed: int, validation_share: float, options: dict[str, Any]
) -> AudioDataset:
    from rfkeras.data.sources import openmic

    # The split is part of the benchmark: the run's seed does not move it.
    return openmic.load(Path(data_dir), validation_share=validation_share, **options)


def _folder(
    data_dir: Any, seed: int, validation_share: float, options: dict[str, Any]
) -> AudioDataset:
    from rfkeras.data.sources import folder

    return folder.load(Path(data_dir), seed=seed, validation_share=validation_share, **options)


def _packed(
    data_dir: Any, seed: int, validation_share: float, options: dict[str, Any]
) -> AudioDataset:
    from rfkeras.data.records import load_packed

    return load_packed(str(data_dir))


_LOADERS: dict[str, tuple[Callable[[Any, int, float, dict[str, Any]], AudioDataset], set[str]]]
_LOADERS = {
    "gm_instruments": (_gm_instruments, {"size", "workers", "progress"}),
    "openmic": (_openmic, {"split_seed"}),
    "folder": (_folder, {"test_share", "allow_absolute"}),
    "packed": (_packed, set()),
}
