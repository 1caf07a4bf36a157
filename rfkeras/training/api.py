"""`rfkeras.train` and `rfkeras.evaluate`: Python equivalents of the commands.

The commands call `open_run` and `train_in`. `train` and `evaluate` also take objects instead of
names, which they register under the object's own name.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from rfkeras.config.resolve import (
    DATA_SET_OPTIONS,
    complete,
    continue_config,
    merge_options,
    resolve,
)
from rfkeras.config.train_config import TrainConfig, check_parts, differing_options, to_json
from rfkeras.datasets.base import AudioDataset
from rfkeras.datasets.load import DATASETS, DatasetSource
from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.layers import find_head
from rfkeras.training.callbacks import Interrupted
from rfkeras.training.data import check_splits, open_dataset
from rfkeras.training.distributed import Workers, check_batch_size, make_strategy, read_cluster
from rfkeras.training.run import TrainResult
from rfkeras.training.run import train as train_run
from rfkeras.training.run_dir import (
    RunFolder,
    continue_run,
    create_run_folder,
    latest_unfinished,
)
from rfkeras.training.scoring import ScoredSplit, score_model
from rfkeras.utils.files import holder_file
from rfkeras.utils.progress import print_status
from rfkeras.utils.user_code import AUGMENTATIONS, LOSSES, METRICS, OPTIMIZERS, Registry
from zoo.registry import MODELS, ModelInfo, info_of

LATEST = ""  # the newest unfinished run under runs/
_GIVEN = "given to rfkeras.train"


def train(
    model: str | keras.Model | Callable[..., keras.Model] | None = None,
    dataset: str | AudioDataset | None = None,
    *,
    loss: Any = None,
    optimizer: Any = None,
    metrics: Mapping[str, Callable[..., float]] | Sequence[str] = (),
    augmentation: Sequence[Any] = (),
    callbacks: Sequence[keras.callbacks.Callback] = (),
    recipe: str | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    **options: Any,
) -> TrainResult:
    """Train a model, evaluate it once on the test split, and export it: `rfkeras train`.

    Args:
        model: Name of a model of the zoo or of one that is registered; a function that takes
            the number of classes and returns a model (see `rfkeras.register_model`); or a Keras
            model, which is copied and trained from its current weights. Your model must start
            with a front-end (`rfkeras.frontend.create_frontend`) and output one logit per tag.
            None: the recipe's, or "resnet_rf".
        dataset: Name of a data set, or an `AudioDataset` with the splits "train", "validation"
            and "test"; `rfkeras.datasets.from_tf_data` makes one of tf.data sets. None: the
            recipe's, or the built-in one.
        loss: Name or `keras.losses.Loss` or function, see `rfkeras.register_loss`.
        optimizer: Name; an optimizer of Keras, which keeps its own learning rate; or a function
            that takes the learning-rate schedule and returns an optimizer.
        metrics: Names, or functions of scores, labels and mask by name, see
            `rfkeras.register_metric`.
        augmentation: Names, or Keras layers that change standardised spectrograms.
        callbacks: Callbacks of Keras, see `rfkeras.training.run.fit`. After resuming, they are
            called only for the remaining steps.
        recipe: Name or path of a recipe.
        run_dir: Folder of the run; None for a new one under runs/.
        resume: Continue the run in `run_dir` if there is one. Give the same objects again.
        **options: Options of `rfkeras train`, with underscores, such as batch_size=20, which
            error messages call by their flags: --batch-size.

    Returns:
        The finished run: `model`, `report` and `folder`.

    Raises:
        ConfigError: An option has a wrong value.
        DatasetError: The data cannot be used.
        Diverged: The loss is not finite.
        KeyboardInterrupt: Ctrl-C. Everything needed to resume is saved.

    Example:
        >>> run = rfkeras.train("resnet_rf_small", dataset, loss=my_loss, epochs=20)
        >>> run.report.mean_average_precision, run.folder.root
    """
    given = {
        "model": None if model is None else _model_name(model),
        "dataset": None if dataset is None else _dataset_name(dataset),
        "loss": None if loss is None else _part_name(LOSSES, loss),
        "optimizer": None if optimizer is None else _part_name(OPTIMIZERS, optimizer),
        "metrics": _metric_names(metrics),
        "augment": tuple(_augmentation_name(part) for part in augmentation),
    }
    flags = {**options, **{name: value for name, value in given.items() if value}}
    if not isinstance(callbacks, list | tuple):
        raise ConfigError(
            f"callbacks must be a list of Keras callbacks. Received: {callbacks!r}."
        )
    if resume and run_dir is None:
        raise ConfigError("resume=True needs run_dir, the folder of the run.")
    folder = None if run_dir is None else Path(run_dir)
    config, opened, resumes = open_run(flags, recipe=recipe, run_dir=folder, auto_resume=resume)
    result = train_in(config, opened, resumes, callbacks=callbacks)
    assert result is not None  # this process is the chief
    return result


def evaluate(
    model: str | Path | keras.Model | TrainResult,
    dataset: str | AudioDataset | None = None,
    *,
    split: str = "test",
    thresholds: str | None = None,
    bootstrap_samples: int = 1000,
    **options: Any,
) -> ScoredSplit:
    """Score a model on a split of a data set: `rfkeras evaluate`, without its files.

    Args:
        model: Run folder or result of `train`, .keras file, name of pretrained weights, or a
            model.
        dataset: Name of a data set or an `AudioDataset`. None: that of the run.
        split: "train", "validation" or "test".
        thresholds: "half" uses 0.5 for every tag; None uses the thresholds saved in the model.
        bootstrap_samples: Resamples for the confidence intervals; 0: no intervals.
        **options: Options of the data, such as data_dir and fold.

    Returns:
        Scores, labels, mask, keys and `report`.

    Raises:
        ConfigError: There is no data set, or an option has a wrong value.
        DatasetError: The data cannot be used, or the model was trained on some of the clips.

    Example:
        >>> rfkeras.evaluate("runs/NAME", split="validation").report.summary["macro"]
    """
    source = model.folder.root if isinstance(model, TrainResult) else model
    flags = dict(options)
    if dataset is not None:
        flags["dataset"] = _dataset_name(dataset)
    folder = None if isinstance(source, keras.Model) else RunFolder(Path(source))
    if folder is None or not folder.config.is_file():
        if dataset is None:
            raise ConfigError("evaluate needs a data set, unless the model is a run's.")
        config, trained_in = complete(merge_options(flags)), None
    else:
        config, trained_in = evaluation_config(folder.read_config(), flags), folder
        source = folder.model
    return score_model(
        source,
        config,
        split,
        None,
        trained_in=trained_in,
        bootstrap_samples=bootstrap_samples,
        thresholds=thresholds,
    )


def evaluation_config(own: TrainConfig, flags: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration for scoring the model of a run.

    Args:
        own: Configuration of the run.
        flags: Options that differ. Another data set drops the options of the run's.

    Raises:
        ConfigError: An option has a wrong value.
    """
    given = merge_options(flags)
    if "dataset" in flags and given.dataset != own.dataset:
        own = replace(own, **{name: getattr(TrainConfig, name) for name in DATA_SET_OPTIONS})
    return complete(replace(own, **{name: getattr(given, name) for name in flags}))


# Opening and training a run, for the commands and for `train`


def open_run(
    flags: Mapping[str, Any],
    *,
    recipe: str | None = None,
    run_dir: Path | None = None,
    resume: str | None = None,
    auto_resume: bool = False,
    trains_here: bool = True,
) -> tuple[TrainConfig, RunFolder, bool]:
    """Open a run; create the folder of a new one.

    Args:
        flags: Options of the run that are given.
        recipe: Name or path of a recipe.
        run_dir: Folder of the run; None: a new one under runs/.
        resume: Folder of the run to resume, or "" for the newest unfinished one under runs/.
        auto_resume: Resume the run in `run_dir` if there is one.
        trains_here: Whether this process trains, so that its devices are checked.

    Returns:
        Configuration, folder, and whether the run is resumed.

    Raises:
        ConfigError: Options contradict each other, or differ from those of the resumed run.
        CheckpointError: There is no run to resume.
    """
    if resume is not None:
        if recipe or run_dir or auto_resume:
            raise ConfigError(
                "--resume uses the options of the resumed run. Leave out --recipe, --run-dir "
                "and --auto-resume."
            )
        folder = latest_unfinished() if resume == LATEST else RunFolder(Path(resume))
        return _continue(folder, flags), folder, True
    config = resolve(flags, recipe)
    if auto_resume:
        if run_dir is None:
            raise ConfigError("--auto-resume needs --run-dir, the run to resume or start.")
        folder = RunFolder(run_dir)
        if folder.last.exists() or folder.is_finished:
            there = folder.read_config()
            differing = differing_options(there, config)
            if differing:
                raise ConfigError(
                    f"{folder.root} contains a run with other options: {'; '.join(differing)}. "
                    "Use the same options, or another --run-dir."
                )
            return there, folder, True
    _check_before_start(config, trains_here)
    return config, create_run_folder(config, run_dir), False


def _check_before_start(config: TrainConfig, trains_here: bool) -> None:
    """Check devices and data before a run folder is created.

    Raises:
        ConfigError: The machine lacks the devices, or the data set does not have an option.
        DatasetError: The data set cannot be read, or a split is missing.
    """
    if trains_here and read_cluster() is None:  # a worker has already opened its devices
        check_batch_size(config.batch_size, make_strategy(config.devices))
    if config.dataset != "gm_instruments":  # which is rendered first, as part of the run
        check_splits(open_dataset(config))


def _continue(folder: RunFolder, flags: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration of a resumed run, after changing it if flags were given."""
    before = folder.read_config()
    check_parts(before, str(folder.config))
    if not flags:
        return before
    config, rule = continue_config(before, flags)
    if config != before:
        continue_run(folder, config, rule)
        epochs = f"from {before.epochs} to {config.epochs} epochs"
        rates = f"{config.learning_rate:g} to {config.final_learning_rate:g}"
        decay = f"decaying from epoch {config.hold_epochs:.4g} to {config.decay_end_epoch:.4g}"
        print_status(f"Continuing {epochs}: {rule} ({rates}, {decay})")
    return config


def train_in(
    config: TrainConfig,
    folder: RunFolder,
    resume: bool,
    workers: Workers | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> TrainResult | None:
    """Train in an opened folder, which is locked meanwhile, and removed if nothing started.

    Args:
        config: As from `open_run`.
        folder: As from `open_run`.
        resume: As from `open_run`.
        workers: See `rfkeras.training.run.fit`.
        callbacks: See `rfkeras.training.run.fit`.

    Returns:
        See `rfkeras.training.run.train_run`.

    Raises:
        RFKerasError: See `rfkeras.training.run.fit`.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the message says how to resume.
    """
    unused = False
    try:
        with folder.locked():
            if to_json(folder.read_config()) != to_json(config):
                raise ConfigError(f"Another process has just started a run in {folder.root}.")
            try:
                return train_run(config, folder, resume, workers, callbacks=callbacks)
            except Interrupted as interrupt:
                raise Interrupted(
                    f"Saved. {_how_to_resume(folder)}", interrupt.number
                ) from None
            except KeyboardInterrupt:
                raise KeyboardInterrupt(_how_to_resume(folder)) from None
            except RFKerasError:
                unused = _is_unused(folder)
                raise
            except OSError as error:
                raise OSError(f"{error}. {_how_to_resume(folder)}") from error
    finally:
        if unused:  # the run failed before it started; Windows keeps locked files
            shutil.rmtree(folder.root)


def _is_unused(folder: RunFolder) -> bool:
    """Return whether a locked folder has only what a run has before it starts."""
    files = {path for path in folder.root.rglob("*") if path.is_file()}
    return files <= {folder.config, folder.lock, holder_file(folder.lock)}


def _how_to_resume(folder: RunFolder) -> str:
    if not folder.last.exists():
        return "Nothing was saved yet, so start the run again."
    return (
        "Resume from the last saved step with: "
        f"rfkeras train --resume {shlex.quote(str(folder.root))}"
    )


# Names of objects


def _add(registry: Registry[Any], base: str, part: Any, origin: object) -> str:
    """Register an object under its name, or under "my_NAME" if that is taken."""
    name = re.sub(r"[^\w.+-]+", "_", base) or registry.kind.replace(" ", "_")
    for choice in (name, f"my_{name}"):
        try:
            registry.add(choice, part, origin=origin)
        except ConfigError:
            continue
        return choice
    raise ConfigError(f"Give the {registry.kind} another name than {base!r}, which is taken.")


def _name_of(part: Any) -> str:
    name = getattr(part, "name", None) or getattr(part, "__name__", None)
    return name if isinstance(name, str) else type(part).__name__


def _part_name(registry: Registry[Any], part: Any) -> str:
    return part if isinstance(part, str) else _add(registry, _name_of(part), part, _GIVEN)


def _augmentation_name(part: Any) -> str:
    if isinstance(part, str):
        return part
    return _add(AUGMENTATIONS, _name_of(part), ("spectrogram", part), _GIVEN)


def _metric_names(
    metrics: Mapping[str, Callable[..., float]] | Sequence[str],
) -> tuple[str, ...]:
    if isinstance(metrics, str):
        return (metrics,)
    if isinstance(metrics, Mapping):
        return tuple(_add(METRICS, name, metric, _GIVEN) for name, metric in metrics.items())
    return tuple(metrics)


def _dataset_name(dataset: str | AudioDataset) -> str:
    if isinstance(dataset, str):
        return dataset
    if not isinstance(dataset, AudioDataset):
        raise ConfigError(
            "dataset must be a name or an AudioDataset. Received: "
            f"{type(dataset).__name__}. rfkeras.datasets.from_tf_data makes an AudioDataset of "
            "tf.data sets; model.fit trains on them as they are."
        )
    source = DatasetSource(lambda *_: dataset, frozenset(), needs_folder=False)
    return _add(DATASETS, dataset.name, source, _GIVEN)


def _model_name(model: Any) -> str:
    if isinstance(model, str):
        return model
    if isinstance(model, keras.Model):
        info = ModelInfo(model.name, "", {}, _copies_of(model), None)
        return _add(MODELS, model.name, info, _GIVEN)
    if not callable(model):
        raise ConfigError(
            "model must be a name, a keras.Model or a function that returns one. Received: "
            f"{type(model).__name__}."
        )
    return _add(MODELS, model.__name__, info_of(model), model)


def _copies_of(model: keras.Model) -> Callable[..., keras.Model]:
    """Return a builder of copies of a model, with its weights."""

    def build(
        num_classes: int,
        *,
        label_names: tuple[str, ...] | None = None,
        task: str | None = None,
    ) -> keras.Model:
        classes = model.output_shape[-1]
        if classes != num_classes and label_names is not None:
            raise ConfigError(
                f"Model {model.name!r} has {classes} outputs, but the data has {num_classes} "
                "tags. Build it with one logit per tag."
            )
        twin = type(model).from_config(model.get_config())
        twin.set_weights(model.get_weights())
        head = find_head(twin)
        if head is None or label_names is None:
            return twin
        if head.label_names is None:
            head.label_names = label_names
        if tuple(head.label_names) != tuple(label_names):
            raise ConfigError(
                f"The tags of model {model.name!r} are not those of the data, in this order: "
                f"{', '.join(label_names)}. The model has: {', '.join(head.label_names)}."
            )
        if task is not None and head.task != task:
            raise ConfigError(
                f"Model {model.name!r} is {head.task}, but the data is {task}. Create its "
                f"ClipLogits with task={task!r}."
            )
        return twin

    return build
