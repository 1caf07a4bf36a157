"""Weights that a new model of the zoo starts from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfkeras.errors import CheckpointError, ConfigError
from zoo.pretrained import ReadyWeights, check_agree, find_weights, has_weights, list_weights

FREE_OPTIONS = (
    "initialization",
    "allow_rf_change",
    "head",
    "shake_per",
    "dropout",
    "final_dropout",
)
"""Options of a model that its weights do not hang on."""

Tags = tuple[int | None, tuple[str, ...] | None, str | None]


def open_start(
    weights: str | Path, model: str, given: Mapping[str, Any] | None = None
) -> Start:
    """The weights of that name or path.

    Args:
        weights: Name of ready weights of that model, or a path.
        model: Name of the model.
        given: Options that were set, held against those of ready weights. "frontend" is
            compared later, layer by layer.

    Raises:
        ConfigError: An option contradicts ready weights.
        CheckpointError: There is no such file, or it cannot be read.
    """
    path, entry = Path(weights), None
    if isinstance(weights, str) and has_weights(weights, model):
        entry = find_weights(weights, model)
        check_agree(entry, given or {}, (*FREE_OPTIONS, "frontend"))
        path = entry.path()
    elif not path.exists():
        ready = ", ".join(list_weights(f"{model}:*")) or "none"
        raise CheckpointError(
            f"There is no weights file {path}, and no ready weights of that name. Ready "
            f"weights of {model}: {ready}."
        )
    source = None
    if path.suffix == ".keras":
        from rfkeras.loading import load_model

        source = load_model(path)
    return Start(path, source, entry)


@dataclass(frozen=True)
class Start:
    """Weights, opened.

    Attributes:
        path: Their file.
        source: The model of a .keras file.
        entry: Where they are ready weights, what the index says of them.
    """

    path: Path
    source: Any = None
    entry: ReadyWeights | None = None

    def tags(
        self, num_classes: int | None, label_names: tuple[str, ...] | None, task: str | None
    ) -> Tags:
        """Number and names of the tags, and the task: what is not given, of the weights."""
        from rfkeras.layers import find_head

        head = None if self.source is None else find_head(self.source)
        if head is None:
            return num_classes, label_names, task
        count = self.source.output_shape[-1]
        if num_classes in (None, count) and label_names is None:
            num_classes, label_names = count, head.label_names
        return num_classes, label_names, task or head.task

    def options(self) -> dict[str, Any]:
        """Options of the model with which the weights were trained, as far as known."""
        options: dict[str, Any] = {}
        if self.entry is not None:
            options = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in self.entry.options.items()
                if name != "frontend"
            }
        if self.source is None:
            return options
        from rfkeras.frontend import find_frontend

        frontend = find_frontend(self.source)
        if frontend is not None:
            options["frontend"] = type(frontend).from_config(frontend.get_config())
        return options

    def load_into(self, model: Any, rebuild: Callable[[int], Any]) -> None:
        """Give the model the weights, and say which of its layers have none.

        Args:
            model: Changed in place.
            rebuild: Builds the same network with that many classes.

        Raises:
            ConfigError: An option contradicts ready weights.
            CheckpointError: The file cannot be read or does not fit.
        """
        from rfkeras.transfer import load_initial, transfer

        try:
            if self.source is None:
                found = load_initial(model, self.path, rebuild)
            else:
                found = transfer(self.source, model)
        except CheckpointError as error:
            if self.entry is None:
                raise
            raise ConfigError(f"{self.entry}: {error}") from error  # the file is known good
        fresh = [name for name in found.fresh if name != "frontend"]
        if fresh:
            print(
                f"Note on {model.name}: {', '.join(fresh)} have no weights in "
                f"{self.entry or self.path} and are to be trained.",
                file=sys.stderr,
            )
