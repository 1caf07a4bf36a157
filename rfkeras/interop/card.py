"""The card of a converted network: what it is, and how that is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Conversion:
    """What was converted, and how it is known.

    Attributes:
        model: Name in the zoo.
        source: File of the weights.
        sha256: Of that file.
        options: Options of the model, with num_classes and task.
        told_by: Who said each option: the weights, model_config.json, a flag, the default.
        labels: Names of the tags; empty where nobody said them.
        largest_difference: Of a logit from those of the reference vectors; None where
            there were none to compare with.
        largest_logit: Of the reference vectors.
        notes: What the user should know.
    """

    model: str
    source: str
    sha256: str
    options: dict[str, Any]
    told_by: dict[str, str]
    labels: tuple[str, ...] = ()
    largest_difference: float | None = None
    largest_logit: float | None = None
    notes: list[str] = field(default_factory=list)


def card(made: Conversion) -> str:
    """The card, in Markdown."""
    rows = [
        f"| {key} | {made.options[key]} | {made.told_by[key]} |" for key in sorted(made.options)
    ]
    compared = (
        "The outputs were compared with nothing: no reference vectors were given."
        if made.largest_difference is None
        else "Logits differ from the reference vectors by at most "
        f"{made.largest_difference:.2g}; the largest is {made.largest_logit:.3g}."
    )
    labels = ", ".join(made.labels) or "without names"
    return "\n".join(
        [
            f"# {made.model}, converted from PyTorch",
            "",
            f"Weights: `{Path(made.source).name}`, SHA-256 `{made.sha256}`.",
            "",
            "| option | value | told by |",
            "|---|---|---|",
            *rows,
            "",
            f"Tags: {labels}.",
            "",
            compared,
            "",
            *(f"- {note}" for note in made.notes),
            "",
        ]
    )
