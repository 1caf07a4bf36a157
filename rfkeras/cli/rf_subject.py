"""What `rfkeras rf MODEL` is about: a name of the zoo, a file, or a run."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfkeras.complete import complete
from rfkeras.config import TrainConfig, resolve
from rfkeras.errors import ConfigError
from rfkeras.options.inputs import ModelOptions
from rfkeras.receptive_field.inverse import Plan, rho_for
from rfkeras.receptive_field.plan import Pair

MODEL_FLAGS = (*ModelOptions.model_option_names(), "frontend", "input_channels")
COUNTED_TAGS = 20  # of the networks whose parameters are counted: as OpenMIC has
_UNTRAINED = "he"  # a classifier that starts at zero has no gradient to show

_MODEL_SUFFIXES = (".keras", ".h5")
# Flags that choose rho, and the arguments of rho_for that they are.
WISHES = {
    "for_rf_time": "rf_time",
    "for_ms": "time_ms",
    "for_bands": "mel_bands",
    "for_hz": "bandwidth_hz",
}


@dataclass(frozen=True)
class Subject:
    """The model in question.

    Attributes:
        name: As it is called in titles.
        folder: Where its report goes unless another place is given.
        model: The Keras model.
        trained: Whether its weights come from a file.
        architecture: Its name in the zoo; None for a model that may be anything.
        options: The architecture's options; empty likewise.
        frontend: The preset of its front-end; None where that is not known.
        chosen_by: The wish and the rule that rho was chosen by; "" if it was not.
    """

    name: str
    folder: Path
    model: Any
    trained: bool
    architecture: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    frontend: str | None = None
    chosen_by: str = ""

    def plan(self) -> Plan:
        """From rho to the layers of this architecture with its other options.

        Raises:
            ConfigError: The architecture is not known.
        """
        if self.architecture is None:
            raise ConfigError(
                "--all-rho needs an architecture: a name of the zoo (see `rfkeras models`), or "
                f"a run folder. Received: {self.name}."
            )
        return _plan(self.architecture, self.options)

    def parameters(self, rho: int) -> int:
        """Parameters that training changes, of this architecture with that rho."""
        import zoo

        options = {**self.options, "rho": rho, "frontend": None}
        assert self.architecture is not None  # plan() has been asked before
        model = zoo.create_model(self.architecture, COUNTED_TAGS, **options)
        return trainable_parameters(model)


def trainable_parameters(model: Any) -> int:
    """Number of parameters that training changes."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def open_subject(options: argparse.Namespace) -> Subject:
    """Build or load the model that the command names.

    Raises:
        ConfigError: No such model, a flag that does not go with it, or a wish for a
            receptive field that it cannot have.
        CheckpointError: The file is no model.
    """
    import zoo

    if options.model in zoo.list_models():
        return _from_zoo(options)
    path = Path(options.model)
    if not path.exists() and not path.suffix and len(path.parts) == 1:
        zoo.model_info(options.model)  # raises, and suggests the nearest name
    names = (*MODEL_FLAGS, *WISHES, "rule")
    if not path.is_dir() and path.suffix not in _MODEL_SUFFIXES:
        raise ConfigError(
            "MODEL is a name of the zoo (see `rfkeras models`), a .keras file or a run folder. "
            f"Received: {path}{'' if path.exists() else ', which does not exist'}."
        )
    if given := [name for name in names if getattr(options, name, None) is not None]:
        raise ConfigError(
            f"{path} is a model that is built already, so these have no effect: "
            f"{_flags(given)}. They go with a name of the zoo, see `rfkeras models`."
        )
    return _from_run(path) if path.is_dir() else _from_file(path)


def wished_rho(options: argparse.Namespace, plan: Plan, frontend: str) -> int | Pair | None:
    """The rho for the wishes among the flags; None without any.

    Raises:
        ConfigError: They contradict --rho or each other, or no rho fulfils them.
    """
    wishes = {WISHES[flag]: getattr(options, flag) for flag in _wishes_of(options)}
    if not wishes:
        if options.rule is not None:
            raise ConfigError(f"--rule goes with a wish: {_flags(WISHES)}.")
        return None
    if hasattr(options, "rho"):
        raise ConfigError(
            f"--rho and {_flags(_wishes_of(options))} both choose rho. Leave out one of them."
        )
    if "bandwidth_hz" in wishes:
        wishes["bandwidth_hz"], wishes["centre_hz"] = wishes["bandwidth_hz"]
    return rho_for(**wishes, rule=options.rule or "at_most", frontend=frontend, plan=plan)


def _wishes_of(options: argparse.Namespace) -> list[str]:
    return [flag for flag in WISHES if getattr(options, flag) is not None]


def _flags(names: Iterable[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _plan(architecture: str, options: Mapping[str, Any]) -> Plan:
    import zoo

    info = zoo.model_info(architecture)
    return lambda rho: info.plan_for(**{**options, "rho": rho})


def _from_zoo(options: argparse.Namespace) -> Subject:
    import zoo

    flags = {name: getattr(options, name) for name in MODEL_FLAGS if hasattr(options, name)}
    config = resolve(TrainConfig, {"model": options.model, **flags})
    rho = wished_rho(options, _plan(options.model, config.model_options()), config.frontend)
    chosen_by = ""
    if rho is not None:
        config = resolve(TrainConfig, {"model": options.model, **flags, "rho": rho})
        chosen_by = f"{_flags(_wishes_of(options))} ({options.rule or 'at_most'})"
    config = complete(config)
    import keras

    settings = config.model_options()
    if config.initialization == "published" and "initialization" not in flags:
        settings["initialization"] = _UNTRAINED
    keras.utils.set_random_seed(0)  # the effective field of one command is always the same
    model = zoo.create_model(
        options.model,
        COUNTED_TAGS,
        frontend=config.frontend,
        input_channels=config.input_channels,
        **settings,
    )
    shown = settings.get("rho")
    name = options.model if shown is None else f"{options.model}, rho {shown}"
    folder = "rf-" + options.model + ("" if shown is None else f"-rho{_in_file_name(shown)}")
    return Subject(
        name,
        Path(folder),
        model,
        trained=False,
        architecture=options.model,
        options=settings,
        frontend=config.frontend,
        chosen_by=chosen_by,
    )


def _from_run(path: Path) -> Subject:
    from rfkeras.loading import load_model
    from rfkeras.training.run_folder import RunFolder

    run = RunFolder(path)
    config = run.read_config()
    settings = config.model_options()
    name = config.model
    if "rho" in settings:
        name += f", rho {settings['rho']}"
    return Subject(
        f"{name} of {path.resolve().name}",
        path / "receptive_field",
        load_model(run.model),
        trained=True,
        architecture=config.model,
        options=settings,
        frontend=config.frontend,
    )


def _from_file(path: Path) -> Subject:
    from rfkeras.loading import load_model

    return Subject(path.name, path.with_name(f"{path.stem}-rf"), load_model(path), True)


def _in_file_name(rho: int | Pair) -> str:
    return str(rho) if isinstance(rho, int) else "x".join(map(str, rho))
