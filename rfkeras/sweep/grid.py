"""The runs of a sweep: every variant at every rho with every seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rfkeras.errors import ConfigError, unknown_name

Rho = int | tuple[int, int]

# What a variant sets; several may be joined by "+".
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shake": {"shake": True},
    "fa": {"frequency_aware": True},
    "damped": {"damping": 0.01},
    "decomposed": {"decomposition": 4},
}
JOIN = "+"


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        variant: Name of the variant, such as "shake+fa".
        rho: The receptive field's rho, one number or (rho_time, rho_frequency).
        seed: Of initialisation, order and excerpts.
    """

    variant: str
    rho: Rho
    seed: int

    @property
    def rho_text(self) -> str:
        """rho as it is written: "7", or "7x5"."""
        return "x".join(map(str, self.rho)) if isinstance(self.rho, tuple) else str(self.rho)

    @property
    def name(self) -> str:
        """Name of its folder: "shake-rho7-seed0", "plain-rho7x5-seed1"."""
        return f"{self.variant}-rho{self.rho_text}-seed{self.seed}"

    def options(self) -> dict[str, Any]:
        """Options of the run that make it this one."""
        return {**variant_options(self.variant), "rho": self.rho, "seed": self.seed}


def make_grid(
    variants: Sequence[str], rhos: Sequence[Rho], seeds: int, first_seed: int = 0
) -> list[Cell]:
    """All runs, seed by seed, so that a sweep cut short still has every receptive field."""
    return [
        Cell(variant, rho, first_seed + seed)
        for seed in range(seeds)
        for rho in rhos
        for variant in variants
    ]


def parse_rhos(text: str) -> list[Rho]:
    """Values of rho from "0:22:2" (both ends included), "0,3,7" or, for axes, "7x5,7x7".

    Raises:
        ConfigError: Not of that form, or a value comes twice.
    """
    rhos = [rho for part in text.split(",") for rho in _rhos_of(part.strip(), text)]
    if len(set(rhos)) < len(rhos):
        raise ConfigError(f"rho: every value once. Received: {text!r}.")
    return rhos


def _rhos_of(part: str, text: str) -> list[Rho]:
    try:
        if ":" in part:
            start, stop, *step = (int(number) for number in part.split(":"))
            if len(step) > 1 or start > stop or min([start, *step]) < 0 or 0 in step:
                raise ValueError
            return list(range(start, stop + 1, *step))
        if "x" in part:
            time, frequency = (int(number) for number in part.split("x"))
            return [(time, frequency)]
        return [int(part)]
    except ValueError:
        raise ConfigError(
            'rho takes values such as "0,3,7", a range "0:22:2" (first, last, step), or '
            f'(rho_time)x(rho_frequency) such as "7x5". Received: {text!r}.'
        ) from None


def parse_variants(text: str) -> list[str]:
    """Variants from "plain,shake,shake+fa".

    Raises:
        ConfigError: An unknown one, or one that comes twice.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        variant_options(name)
    if len(set(names)) < len(names):
        raise ConfigError(f"variants: every one once. Received: {text!r}.")
    return names


def variant_options(name: str) -> dict[str, Any]:
    """Model options of a variant, several joined by "+".

    Raises:
        ConfigError: Unknown name.
    """
    options: dict[str, Any] = {}
    for part in name.split(JOIN):
        if part not in VARIANTS:
            raise ConfigError(unknown_name("variant", part, VARIANTS))
        options |= VARIANTS[part]
    return options


def check_free(source: str, options: Mapping[str, Any]) -> None:
    """Refuse recipes and models that set what variants are made of.

    Args:
        source: What sets the options, for the message.
        options: By name; those that are off (None or False) do not count.

    Raises:
        ConfigError: One of these options is set.
    """
    own = {name for values in VARIANTS.values() for name in values}
    given = sorted(name for name in own & set(options) if options[name] not in (None, False))
    if given:
        raise ConfigError(
            f"{source} sets {', '.join(given)}, so that the variants of a sweep would not be "
            "what they are called. Use one without (such as the model or recipe that it builds "
            f"on), and say by --variants what to compare: {', '.join(VARIANTS)}, or several "
            f"joined by {JOIN!r}."
        )
