"""Plans of `tools.sweep_on_jax`: conditions, and the runs that they consist of."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfkeras.errors import ConfigError, unknown_name

POINTS = 10  # evaluations of a run
_MOST_STEPS_OF_A_CALL = 100


@dataclass(frozen=True)
class Condition:
    """Runs that differ in rho and seed only.

    Attributes:
        name: Its name in the results.
        model: Name of the model in the zoo.
        options: Options of the architecture.
        by_rho: More options by rho, such as a width that keeps the number of parameters.
        rhos: Values of rho, one number or (time, frequency).
        seeds: Seeds of weights, order and changes.
        train: Name of the training set.
        tests: Names of the test sets.
        tags: Tags that the network learns; none for all.
        clips: Number of training clips; 0 for all.
        flipped: Share of the known training labels that are inverted.
        mix: Probability that an excerpt is mixed with another.
        excerpt_frames: Frames of an excerpt, and of the windows that are scored.
        steps: Steps of training.
        batch: Excerpts in a step.
        learning_rate: Its highest value.
        weight_decay: AdamW's decay of kernels.
    """

    name: str
    model: str = "resnet_rf_tiny"
    options: Mapping[str, Any] = field(default_factory=dict)
    by_rho: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rhos: tuple[Any, ...] = (7,)
    seeds: tuple[int, ...] = (0,)
    train: str = "train"
    tests: tuple[str, ...] = ("new", "font", "recordings")
    tags: tuple[str, ...] = ()
    clips: int = 0
    flipped: float = 0.0
    mix: float = 0.0
    excerpt_frames: int = 216
    steps: int = 4000
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.0

    def network_options(self, rho: Any) -> dict[str, Any]:
        """Return the options of the architecture at one rho."""
        return {**self.options, **self.by_rho.get(rho_text(rho), {}), "rho": rho}

    @property
    def chunk(self) -> int:
        """Steps between two evaluations."""
        return max(1, self.steps // POINTS)

    @property
    def call(self) -> int:
        """Steps of a call of the compiled function, which longer trainings share."""
        return max(n for n in range(1, _MOST_STEPS_OF_A_CALL + 1) if self.chunk % n == 0)


@dataclass(frozen=True)
class Run:
    """One run of a condition."""

    condition: Condition
    rho: Any
    seed: int

    @property
    def name(self) -> str:
        """Its name: "plain-rho7-seed0"."""
        return f"{self.condition.name}-rho{rho_text(self.rho)}-seed{self.seed}"

    @property
    def compiled(self) -> str:
        """Text that is equal for runs with equal compiled functions."""
        same = self.condition
        return json.dumps(
            [
                same.model,
                same.network_options(self.rho),
                same.batch,
                same.excerpt_frames,
                same.mix,
                same.call,
                same.weight_decay,
                len(same.tags),
            ],
            sort_keys=True,
        )


def rho_text(rho: Any) -> str:
    """Return rho as text: "7" or "7x5"."""
    return "x".join(map(str, rho)) if isinstance(rho, list | tuple) else str(rho)


def read_plan(path: Path) -> list[Run]:
    """Read a plan and return its runs.

    A plan is a JSON object with a list of "conditions", and entries that all of them share in
    "defaults". The order is that of the conditions, then of seeds, then of rho: the networks
    of a sweep that was stopped early are complete for the first seeds.

    Raises:
        ConfigError: It is no plan, or two conditions share a name.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        defaults = dict(content.get("defaults", {}))
        entries = [{**defaults, **entry} for entry in content["conditions"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read as a plan: {error}.") from error
    known = [each.name for each in dataclasses.fields(Condition)]
    conditions = []
    for entry in entries:
        for name in entry:
            if name not in known:
                raise ConfigError(unknown_name(f"entry of a condition in {path}", name, known))
        values = {
            key: tuple(tuple(v) if isinstance(v, list) else v for v in value)
            if isinstance(value, list)
            else value
            for key, value in entry.items()
        }
        conditions.append(Condition(**values))
    names = [condition.name for condition in conditions]
    if len(set(names)) < len(names):
        raise ConfigError(f"{path}: two conditions have the same name.")
    return [
        Run(condition, rho, seed)
        for condition in conditions
        for seed in condition.seeds
        for rho in condition.rhos
    ]
