"""From the values of a trial to the configuration of a run, and back to a recipe."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from rfkeras.config import TrainConfig
from rfkeras.errors import ConfigError, unknown_name
from rfkeras.tuning.parameters import Value
from rfkeras.tuning.space import AXES, SearchSpace, parse_space

# The default space: width doubles at most to the one given, rho stays where the published
# sweeps found the best models.
LARGEST_RHO = 12
_DEFAULT_SPECS = {
    "shake": "false,true",
    "frequency_aware": "false,true",
    "damping": "none,0.01,0.1",
    "mixup": "0,0.1,0.3",
    "learning_rate": "1e-4:5e-3:log",
}
# Places and stretches of the schedule, which shrink with a shorter trial.
_FRACTIONS_OF_EPOCHS = ("hold_epochs", "decay_end_epoch")
_WHOLE_EPOCHS = ("swa_start_epoch", "prune_epochs", "early_stop_epochs")


def trial_config(
    base: TrainConfig, values: Mapping[str, Value], epochs: int | None = None
) -> TrainConfig:
    """The configuration of a trial.

    Args:
        base: The options that all trials share.
        values: Of the searched options, in which rho_time and rho_frequency may stand for
            one axis each; the other axis keeps its rho.
        epochs: Length of the trial; None: that of `base`. What `base` says of the schedule in
            epochs shrinks with it, so that the schedule keeps its shape; `values` do not
            (`check_space` refuses such a search).

    Raises:
        ConfigError: The options do not go together.
    """
    options = dict(values)
    if any(axis in options for axis in AXES):
        axes = rho_axes(base)
        pair = [options.pop(name, default) for name, default in zip(AXES, axes, strict=True)]
        options["rho"] = pair[0] if pair[0] == pair[1] else tuple(pair)
    if epochs is not None and epochs != base.epochs:
        options = {"epochs": epochs, **_scaled(base, epochs / base.epochs), **options}
    return dataclasses.replace(base, **options)


def complete_config(
    base: TrainConfig, values: Mapping[str, Value], epochs: int | None = None
) -> TrainConfig:
    """The same with all defaults written out, as a run folder has it.

    Raises:
        ConfigError: The options do not go together, or the model has not all of them.
    """
    from rfkeras.complete import complete

    return complete(trial_config(base, values, epochs))


def _scaled(base: TrainConfig, share: float) -> dict[str, Any]:
    """The schedule's places and stretches in epochs, for a share of them."""
    scaled: dict[str, Any] = {}
    for name in _FRACTIONS_OF_EPOCHS:
        value = getattr(base, name)
        if value is not None:
            scaled[name] = value * share
    for name in _WHOLE_EPOCHS:
        value = getattr(base, name)
        if value is not None:
            scaled[name] = max(1, math.ceil(value * share))
    return scaled


def rho_axes(config: TrainConfig) -> tuple[int, int]:
    """rho along time and along frequency, where need be the model's own.

    Raises:
        ConfigError: The model has no rho.
    """
    import zoo

    known = zoo.model_info(config.model).options
    if "rho" not in known:
        raise ConfigError(unknown_name(f"option of {config.model}", "rho", known))
    rho = known["rho"] if config.rho is None else config.rho
    return (rho, rho) if isinstance(rho, int) else (rho[0], rho[1])


def recipe_options(config: TrainConfig) -> dict[str, Any]:
    """What a recipe must say to give this configuration: all that is not the default.

    Options that have no effect because another one is off are left out, as recipes must
    not name them.
    """
    options: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value, needs = getattr(config, field.name), field.metadata["needs"]
        if value != field.default and (needs is None or needs.is_on(vars(config))):
            options[field.name] = list(value) if isinstance(value, tuple) else value
    return options


def default_space(base: TrainConfig, fixed: Mapping[str, Any]) -> SearchSpace:
    """What is searched where the user names nothing: what the model has of the paper's ideas.

    rho on each axis, the width and half of it, Shake-Shake, frequency awareness, damping,
    mixup and the learning rate.

    Args:
        base: The options that all trials share.
        fixed: Options that the user gave as flags: they are not searched.

    Raises:
        ConfigError: Unknown model.
    """
    import zoo

    info = zoo.model_info(base.model)
    known = {*info.options, "mixup", "learning_rate"}
    specs: dict[str, str] = {}
    if "rho" in known:
        rho = _largest_rho(info)
        specs |= dict.fromkeys(AXES, f"0:{rho}") if rho else {}
    if "width" in known:
        width = info.options["width"] if base.width is None else base.width
        specs["width"] = f"{width // 2},{width}"
    specs |= {name: spec for name, spec in _DEFAULT_SPECS.items() if name in known}
    given = {*fixed, *(AXES if "rho" in fixed else ())}
    return parse_space({name: spec for name, spec in specs.items() if name not in given})


def _largest_rho(info: Any) -> int:
    """The largest rho of the default space that a model has; 0 if it has a single one."""
    for rho in range(LARGEST_RHO, 0, -1):
        try:
            info.plan_for(rho=rho)
        except ConfigError:
            continue
        return rho
    return 0


def check_space(space: SearchSpace, base: TrainConfig, shortest: int | None = None) -> None:
    """Refuse a space with values that no trial could have, before anything is trained.

    The ends of each parameter are tried with the others at their first and at their last
    value. (Two values that contradict each other elsewhere make a trial that fails.)

    Args:
        space: The searched options.
        base: The options that all trials share.
        shortest: Epochs of the shortest trial; None: as `base` says.

    Raises:
        ConfigError: A value is not possible, the option has no effect, or it counts epochs
            and trials differ in theirs.
    """
    short = shortest is not None and shortest != base.epochs
    counts = [n for n in space.parameters if n in (*_FRACTIONS_OF_EPOCHS, *_WHOLE_EPOCHS)]
    if short and counts:
        raise ConfigError(
            f"Hyperband cannot search {', '.join(counts)}: its trials have from {shortest} to "
            f"{base.epochs} epochs, and the same number of epochs is another schedule in each. "
            "Search with --method random or bayesian, or give a fixed value as a flag, which "
            "shrinks with the trial."
        )
    for values in _corners(space):
        try:
            config = complete_config(base, values, shortest)
        except ConfigError as error:
            shown = ", ".join(f"{name}={value}" for name, value in values.items())
            if short:
                shown += f" in Hyperband's shortest trials (epochs {shortest} of {base.epochs})"
            raise ConfigError(f"Some trials are impossible, such as {shown}: {error}") from None
        for name in values:
            field = TrainConfig.__dataclass_fields__["rho" if name in AXES else name]
            needs = field.metadata["needs"]
            if needs is None or needs.is_on(vars(config)) or set(needs.switches) & set(values):
                continue
            raise ConfigError(
                f"A search over {name} has no effect: set {needs.how}, or leave {name} out."
            )


def _corners(space: SearchSpace) -> Iterator[dict[str, Value]]:
    """Values of trials that between them have the ends of every parameter."""
    for place in (0, -1):
        ends = {name: parameter.ends[place] for name, parameter in space.parameters.items()}
        for name, parameter in space.parameters.items():
            for end in parameter.ends:
                values = {**ends, name: end}
                if parameter.when is not None:
                    values[parameter.when[0]] = parameter.when[1][0]
                yield {
                    key: value
                    for key, value in values.items()
                    if _is_active(space, key, values)
                }


def _is_active(space: SearchSpace, name: str, values: Mapping[str, Value]) -> bool:
    when = space.parameters[name].when
    return when is None or values[when[0]] in when[1]
